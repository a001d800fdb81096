"""Trainer: the only training loop. `fit` is a generator of logs: the caller prints, validates, saves and stops.

Random numbers inside the model (dropout, stochastic depth, mixup) are seeded from (seed, step, rank) before every step,
those of the loader from (seed, epoch, row, view). A run resumed from a checkpoint, also in the middle of an epoch, is
therefore bit-equal to one that was never interrupted, on the same machine.

Whether a step is taken is decided on the device: after a loss or gradient norm that is not finite on any rank, no
weight or optimizer state changes. The GPU is not synchronised in each step: its numbers are read LAG steps
later, and always before a state is saved or validated (`check`).
"""

import copy
import functools
import math
import time
from collections import deque
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from ribcage.data.batch import Batch
from ribcage.data.loader import Loader
from ribcage.methods import Method
from ribcage.methods.base import ContrastiveMethod
from ribcage.models.layers import lerp
from ribcage.models.linear import use_faster_products
from ribcage.runtime import distributed, synchronised_norms
from ribcage.runtime.devices import Precision, autocast, choose_kernels, compute_dtype
from ribcage.runtime.schedules import Ramp
from ribcage.training import gradient_caching, sharding
from ribcage.training import optim as optims
from ribcage.training.checkpoint import TrainerState, tensors_digest
from ribcage.training.micro_batches import micro_batches
from ribcage.training.skipping import LossScale, unchanged_if
from ribcage.training.step_log import StepLog, StepNumbers

M_co = TypeVar("M_co", bound=Method, covariant=True)


LAG = 2
"""Number of steps that a GPU may be ahead of the numbers that were read."""


class DivergedError(ArithmeticError):
    """The loss, gradient or weights are not finite; `rows` are those of the global batch where it began, on rank 0."""

    def __init__(self, what: str, step: int, advice: str, rows: list[int]) -> None:
        super().__init__(f"{what} at step {step}. {advice}")
        self.step, self.rows = step, rows


class Trainer(Generic[M_co]):
    """A method in training: its weights, averaged weights and optimizer, which can be saved and restored."""

    def __init__(
        self,
        method: M_co,
        loader: Loader,
        optimizer: torch.optim.Optimizer,
        rates: optims.Rates,
        *,
        epochs: int,
        device: torch.device,
        seed: int = 0,
        precision: Precision = "auto",
        accumulate: int = 1,
        clip: float = 0.0,
        ema: float = 0.0,
        weight_decay: Ramp | None = None,
        compile: bool = False,
        whole: M_co | None = None,
    ) -> None:
        """weight_decay: its schedule; None: it is constant, as in the optimizer.
        whole: a copy of a method that is divided among the processes, to be validated and saved."""
        self.method, self.loader, self.optimizer, self.rates = method, loader, optimizer, rates
        self.epochs, self.device, self.seed = epochs, device, seed
        choose_kernels(device, precision)
        self.dtype = compute_dtype(precision, device)
        use_faster_products(method)
        self.scale = LossScale(device) if self.dtype == torch.float16 else None
        self.accumulate, self.clip, self.ema = accumulate, clip, ema
        self.weight_decay, self.whole = weight_decay, whole
        self.average: M_co | None = copy.deepcopy(whole or method).requires_grad_(False) if ema else None
        if self.average is not None and whole is not None:
            sharding.sharded(self.average, device)
        self.frozen, self.step = method.untrained, 0
        self.lag = LAG if device.type == "cuda" else 0
        self.diverged = torch.zeros((), device=device, dtype=torch.float32)
        """1 once a step was not finite: no weight changes any more."""
        self._unread: deque[tuple[int, Tensor, StepNumbers]] = deque()
        if not method.own_norms:
            synchronised_norms.synchronise_norms(method, device)
        contrastive = method if isinstance(method, ContrastiveMethod) else None
        self.cached: ContrastiveMethod | None = contrastive if accumulate > 1 else None
        if self.cached is not None and whole is not None:
            sharding.gather_for(self.cached, "representations")
        network = method if self.cached is None else gradient_caching.Representations(self.cached)
        # with several image sizes, once for each: code for variable sizes is slower
        forward: Any = torch.compile(network, dynamic=False if loader.earlier else None) if compile else network
        trained = [weight for weight in method.parameters() if weight.requires_grad]
        self.forward = forward
        if distributed.active() and trained and whole is None:
            self.forward = distributed.data_parallel(forward, same_graph=accumulate == 1 and not compile)

    @property
    def result(self) -> M_co:
        """The method to validate and save: the averaged weights with --ema, as of the last `gather` with --shard."""
        if self.whole is not None:
            return self.whole
        return self.average if self.average is not None else self.method

    def check(self) -> None:
        """Raise DivergedError unless every step and all that would be saved is finite. All ranks must call it."""
        self._read(0)
        every = dict(self._saved())
        largest = nn.utils.get_total_norm(every.values(), math.inf) if every else torch.zeros(())
        if distributed.any_process(not math.isfinite(float(largest))):
            broken = [name for name, value in every.items() if not value.isfinite().all()] or ["on another rank"]
            more = f" and {len(broken) - 1} more" if len(broken) > 1 else ""
            what = f"The loss is finite, but weights or optimizer states are not ({broken[0]}{more})"
            raise DivergedError(what, self.step, self._advice(), [])

    def gather(self) -> None:
        """Bring `result` up to date with --shard. All ranks must call it."""
        if self.whole is not None:
            self.whole.to(self.device)
            sharding.fill_whole(self.whole, self.method if self.average is None else self.average)

    def state(self) -> TrainerState:
        """All that is needed to resume; with --shard, each rank has its parts of the tensors."""
        return {
            "step": self.step,
            "method": self._unfrozen(self.method),
            "optimizer": self.optimizer.state_dict(),
            "average": self._unfrozen(self.average) if self.average is not None else None,
            "frozen": self._frozen_digest,
            "scale": self.scale.state() if self.scale is not None else None,
        }

    def restore(self, state: TrainerState) -> None:
        """Restore what `state` returned."""
        if not isinstance(state["step"], int) or state["step"] < 0:
            raise ValueError("the number of steps is not a whole number")
        own = [{name: value for name, value in group.items() if name != "params"} for group in self._groups()]
        self.diverged.zero_()
        self._unread.clear()
        if state.get("frozen", self._frozen_digest) != self._frozen_digest:
            raise ValueError("its run was started with other weights in --init")
        sharding.load_weights(self.method, state["method"], self.frozen)
        self.optimizer.load_state_dict(sharding.divided_states(self.optimizer, state["optimizer"]))
        for group, options in zip(self._groups(), own, strict=True):  # the options of this run
            group.update(options)
        if self.average is not None and state["average"] is not None:
            sharding.load_weights(self.average, state["average"], self.frozen)
        scale = state.get("scale")
        if self.scale is not None and scale is not None:
            self.scale.restore(scale)
        self.step = state["step"]
        self.gather()

    def _unfrozen(self, method: Method) -> dict[str, Tensor]:
        """The weights and buffers of the method, or of its average, that a step may change."""
        return {name: value for name, value in method.state_dict().items() if name not in self.frozen}

    @functools.cached_property
    def _frozen_digest(self) -> str:
        state = (self.whole or self.method).state_dict() if self.frozen else {}
        return tensors_digest({name: state[name] for name in sorted(self.frozen)})

    def fit(self) -> Iterator[StepLog]:
        """Train from the current step to the end."""
        steps = len(self.loader)
        self.method.train()
        while self.step < self.epochs * steps:
            epoch, start = divmod(self.step, steps)
            began = time.perf_counter()
            for batch in self.loader.epoch(epoch, start):
                loading = time.perf_counter() - began
                log = self._step(to_device(batch, self.device), epoch)
                yield replace(log, seconds=time.perf_counter() - began, loading=loading, wait=batch.wait)
                self.method.train()  # the caller may have validated
                began = time.perf_counter()
        self._read(0)

    def _step(self, batch: Batch, epoch: int) -> StepLog:
        """Forward, backward, one step of the optimizer."""
        if self.whole is not None and self.device.type != "cpu":
            self.whole.cpu()  # its memory is needed
        torch.manual_seed(hash((self.seed, self.step, distributed.rank())))
        rate = self.rates.at(self.step)
        optims.set_rate(self.optimizer, rate)
        scheduled = self._scheduled(self.step / self.rates.steps)
        self.optimizer.zero_grad(set_to_none=True)
        loss, values = self._backward(batch)
        norm = self._clipped().to(loss)
        if self.scale is not None:
            values["scale"], norm = self.scale.value, self.scale.updated(norm)
        if self.clip:
            values["gradient"] = norm
        world = distributed.world_size()
        values |= {name: number.to(loss) * world for name, number in self.method.counts(batch).items()}
        means = _means([loss, norm, *values.values()])
        numbers = StepNumbers(("loss", "norm", *values), means)
        self.diverged = torch.maximum(self.diverged, 1 - means[:2].isfinite().all().to(self.diverged))
        self._unread.append((self.step, batch.rows, numbers))
        self._read(self.lag)
        self._move()
        steps = len(self.loader)
        return StepLog(self.step, epoch, self.step - epoch * steps, steps, numbers, rate, len(batch), scheduled)

    def _scheduled(self, progress: float) -> dict[str, float]:
        """Set the weight decay and the method's own options that have a schedule; their values."""
        values = self.method.before_step(progress)
        if self.weight_decay is None:
            return values
        decay = self.weight_decay.at(progress)
        optims.set_weight_decay(self.optimizer, decay)
        return {"weight_decay": decay, **values}

    def _clipped(self) -> Tensor:
        """Clip the gradient to `clip`; its norm before that. In fp16, the scale of the loss is divided out first."""
        trained = [weight for weight in self.method.parameters() if weight.grad is not None]
        gradients = [distributed.own_part(weight.grad) for weight in trained if weight.grad is not None]
        if self.scale is not None and gradients:
            torch._foreach_mul_(gradients, 1 / self.scale.value)
        norm = nn.utils.get_total_norm(gradients) if self.whole is None else sharding.total_norm(gradients)
        if self.clip and gradients:  # as nn.utils.clip_grads_with_norm_, which does not know parts
            torch._foreach_mul_(gradients, (self.clip / (norm + 1e-6)).clamp(max=1.0))
        return norm.detach()

    def _move(self) -> None:
        """Update the weights; nothing changes if the device has found a divergence that is not read yet, or if the
        gradient exceeded the range of fp16."""
        stop = self.diverged if self.lag else None
        if self.scale is not None:
            stop = torch.maximum(self.diverged, self.scale.exceeded)
        skips = getattr(self.optimizer, SKIPS, False)
        if skips:
            self.optimizer.found_inf = stop  # type: ignore[attr-defined]
        with unchanged_if(list if skips else self._weights, stop):
            self.optimizer.step()
        self.step += 1
        self.method.after_step(self.step / self.rates.steps)
        self._update_average()

    def _read(self, lag: int) -> None:
        """Raise DivergedError if one of the steps before the last `lag` was not finite; on all ranks alike."""
        while len(self._unread) > lag:
            step, rows, unread = self._unread.popleft()
            numbers = unread.read()
            if math.isfinite(numbers["loss"]) and math.isfinite(numbers["norm"]):
                continue
            what = "The loss is not finite"
            if math.isfinite(numbers["loss"]):
                what = f"The gradient is not finite (the loss is {numbers['loss']:.3g})"
            everyone = [row for part in distributed.gathered(rows.tolist()) for row in part]
            raise DivergedError(what, step, self._advice(), everyone)

    def _advice(self) -> str:
        """Advice after a divergence."""
        return f"Try a lower --lr (now {self.rates.peak:.3g})" + (" or --clip 1." if not self.clip else ".")

    def _weights(self) -> list[Tensor]:
        """The trained weights and the states of the optimizer."""
        weights = [weight for group in self._groups() for weight in group["params"]]
        weights = [distributed.own_part(weight) for weight in weights]
        return weights + [value for state in self.optimizer.state.values() for _, value in _tensors("", state)]

    def _groups(self) -> list[dict[str, Any]]:
        return self.optimizer.param_groups

    def _saved(self) -> Iterator[tuple[str, Tensor]]:
        """All floating-point tensors of a checkpoint."""
        yield from _tensors("", self.method.state_dict())
        yield from _tensors("average ", self.average.state_dict() if self.average is not None else {})
        yield from _tensors("optimizer ", self.optimizer.state_dict()["state"])

    def _backward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss and gradient of the whole batch, accumulated over its parts."""
        if self.cached is not None:
            return self._backward_cached(self.cached, batch)
        loss, values = torch.zeros((), device=self.device), dict[str, Tensor]()
        turns = self._turns(batch)
        if turns > 1:
            batch = self.method.before_division(batch)
        for turn, part in enumerate(micro_batches(batch, turns), 1):
            share = 1.0 if part is batch else self.method.share(part, batch)
            with self._gathering(turn == turns):
                with autocast(self.device, self.dtype):
                    step = self.forward(part)
                loss_part = step.loss * share
                (loss_part if self.scale is None else loss_part * self.scale.value).backward()
            self.method.after_forward()
            loss += loss_part.detach()
            for name, value in step.logs.items():
                values[name] = values.get(name, 0.0) + _number(value, loss) * share
        return loss, values

    def _backward_cached(self, method: ContrastiveMethod, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss and gradient of the whole batch by gradient caching."""
        step = gradient_caching.backward(
            method,
            self.forward,
            batch,
            list(micro_batches(batch, self._turns(batch))),
            seed=(self.seed, self.step, distributed.rank()),
            precision=functools.partial(autocast, self.device, self.dtype),
            averaged=self._gathering,
            scale=1.0 if self.scale is None else self.scale.value,
        )
        loss = step.loss.detach()
        return loss, {name: _number(value, loss) for name, value in step.logs.items()}

    def _gathering(self, last: bool) -> AbstractContextManager[None]:
        """Gradients are averaged over the ranks once, in the last part of a batch."""
        if self.whole is not None:
            self.method.set_requires_gradient_sync(last)  # type: ignore[operator]
        alone = not last and isinstance(self.forward, nn.parallel.DistributedDataParallel)
        return self.forward.no_sync() if alone else nullcontext()

    def _turns(self, batch: Batch) -> int:
        """Parts of the batch, equal on all ranks, which synchronise in each; batches of ranks may differ in size."""
        if self.accumulate == 1:
            return 1
        return max(1, distributed.minimum_over_processes(min(self.accumulate, len(batch))))

    def _update_average(self) -> None:
        """w_average <- d w_average + (1 - d) w, where d rises to --ema over the first steps."""
        if self.average is None:
            return
        decay = min(self.ema, (1 + self.step) / (10 + self.step))
        olds, news = (one.state_dict().items() for one in (self.average, self.method))
        means, copies = list[tuple[Tensor, Tensor]](), list[tuple[Tensor, Tensor]]()
        for (name, old), (_, new) in zip(olds, news, strict=True):
            is_mean = old.is_floating_point() and name not in self.method.not_averaged
            (means if is_mean else copies).append((distributed.own_part(old), distributed.own_part(new)))
        lerp(means, 1 - decay)
        for averaged, value in copies:
            averaged.copy_(value)


SKIPS = "_step_supports_amp_scaling"
"""Optimizers with this attribute skip a step if their `found_inf` is 1."""


def _tensors(name: str, values: Any) -> Iterator[tuple[str, Tensor]]:
    """The floating-point tensors in nested dicts, with their names."""
    if isinstance(values, Tensor):
        own = distributed.own_part(values)
        if own.is_floating_point() and own.numel():
            yield name, own
    elif isinstance(values, dict):
        for key, value in values.items():
            yield from _tensors(f"{name}{'' if name[-1:] in ('', ' ') else '.'}{key}", value)


def _number(value: Tensor | float, like: Tensor) -> Tensor:
    """A logged number, on the device of the loss."""
    return value.detach().to(like) if isinstance(value, Tensor) else like.new_full((), value)


def _means(values: list[Tensor]) -> Tensor:
    """Means over all ranks, in one reduction."""
    return distributed.total(torch.stack(values)) / distributed.world_size()


def to_device(batch: Batch, device: torch.device) -> Batch:
    """The batch on the device, in channels_last order, in which convolutions are faster."""
    views = [view.to(device, non_blocking=True, memory_format=torch.channels_last) for view in batch.views]
    boxes = [box.to(device, non_blocking=True) for box in batch.boxes]
    maps = [one.to(device, non_blocking=True, memory_format=torch.channels_last) for one in batch.maps]
    labels, patients = (values.to(device, non_blocking=True) for values in (batch.labels, batch.patients))
    masks, points = ([one.to(device, non_blocking=True) for one in each] for each in (batch.masks, batch.points))
    return replace(
        batch, views=views, boxes=boxes, labels=labels, patients=patients, maps=maps, masks=masks, points=points
    )
