"""fit(): the only training loop. A generator of logs: the caller prints, evaluates, saves and stops.

Chance inside the model (dropout, drop path, mixup) is seeded from (seed, step, rank) before every step, and the
loader's from (seed, epoch, row, view). So a run that goes on from a checkpoint, in the middle of an epoch too, computes
the same weights bit for bit as one that never stopped, on the same machine.

Whether a step is taken is decided where it is computed: when the loss or the norm of the gradient is not finite at any
rank, no weight, average or optimizer state moves any more. A GPU is not waited for in each step: it is asked LAG steps
later, and always before a state is looked at (`check`).
"""

import contextlib
import copy
import functools
import math
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ribcage.data.batch import Batch
from ribcage.data.loader import Loader
from ribcage.methods import Method
from ribcage.runtime import distributed
from ribcage.training import optim as optims

Precision = Literal["auto", "float32", "bf16"]


LAG = 2
"""Steps that a GPU may be ahead of what is known of it."""


class DivergedError(ArithmeticError):
    """The run computes what is no number any more; `rows` are those of the global batch where it began, at rank 0."""

    def __init__(self, what: str, step: int, advice: str, rows: list[int]) -> None:
        super().__init__(f"{what} at step {step}. {advice}")
        self.step, self.rows = step, rows


class Told:
    """Numbers on their way from the device; reading them waits for the step that they are of, not for later ones."""

    def __init__(self, names: Sequence[str], numbers: Tensor) -> None:
        self.names, self.numbers = names, numbers.to("cpu", non_blocking=True)
        self.there = torch.cuda.current_stream(numbers.device).record_event() if numbers.is_cuda else None

    def read(self) -> dict[str, float]:
        """Name → number."""
        if self.there is not None:
            self.there.synchronize()
        return dict(zip(self.names, self.numbers.tolist(), strict=True))


@dataclass(frozen=True)
class Log:
    """What a step tells."""

    step: int
    """Optimizer steps done so far."""
    epoch: int
    step_in_epoch: int
    steps_in_epoch: int
    told: Told
    rate: float
    """The learning rate."""
    seconds: float
    waited: float
    """Seconds of these spent waiting for data."""
    images: int

    @functools.cached_property
    def values(self) -> dict[str, float]:
        """What the method says of the step, by name."""
        return {name: value for name, value in self.told.read().items() if name not in ("loss", "norm")}

    @functools.cached_property
    def loss(self) -> float:
        """The mean over all ranks."""
        return self.told.read()["loss"]

    @property
    def epoch_done(self) -> bool:
        """Whether this was the epoch's last step."""
        return self.step_in_epoch == self.steps_in_epoch


class Run:
    """A method in training: what changes from step to step, and can be saved."""

    def __init__(
        self,
        method: Method,
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
        compile: bool = False,
    ) -> None:
        self.method, self.loader, self.optimizer, self.rates = method, loader, optimizer, rates
        self.epochs, self.device, self.seed = epochs, device, seed
        self.bf16 = precision == "bf16" or (precision == "auto" and fast_bf16(device))
        self.accumulate, self.clip, self.decay = accumulate, clip, ema
        self.average: Method | None = copy.deepcopy(method).requires_grad_(False) if ema else None
        self.step = 0
        self.lag = LAG if device.type == "cuda" else 0
        self.diverged = torch.zeros((), device=device)
        """1 once a step was not finite: nothing moves any more."""
        self._unread: deque[tuple[int, Tensor, Told]] = deque()
        if not method.own_norms:
            distributed.synchronise_norms(method, device)
        forward: Any = torch.compile(method) if compile else method
        trained = [weight for weight in method.parameters() if weight.requires_grad]
        self.forward = distributed.averaging(forward) if distributed.active() and trained else forward

    @property
    def result(self) -> Method:
        """What to evaluate and to keep: the averaged weights where there are such."""
        return self.average if self.average is not None else self.method

    def check(self) -> None:
        """Raise DivergedError unless every step was finite, and so is all that would be saved. Every rank must ask."""
        self._read(0)
        every = dict(self._saved())
        largest = nn.utils.get_total_norm(every.values(), math.inf) if every else torch.zeros(())
        if distributed.anyone(not math.isfinite(float(largest)), self.device):
            broken = [name for name, value in every.items() if not value.isfinite().all()] or ["at another rank"]
            more = f" and {len(broken) - 1} more" if len(broken) > 1 else ""
            what = f"The loss is finite, but what it comes from is not ({broken[0]}{more})"
            raise DivergedError(what, self.step, self._advice(), [])

    def state(self) -> dict[str, Any]:
        """Everything to go on from."""
        return {
            "step": self.step,
            "method": self.method.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average.state_dict() if self.average is not None else None,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        if not isinstance(state["step"], int) or state["step"] < 0:
            raise ValueError("its step is not a number")
        own = [{name: value for name, value in group.items() if name != "params"} for group in self._groups()]
        self.diverged.zero_()
        self._unread.clear()
        self.method.load_state_dict(state["method"])
        self.optimizer.load_state_dict(state["optimizer"])
        for group, options in zip(self._groups(), own, strict=True):  # as asked for now
            group.update(options)
        if self.average is not None and state["average"] is not None:
            self.average.load_state_dict(state["average"])
        self.step = state["step"]

    def fit(self) -> Iterator[Log]:
        """Train from `step` to the end."""
        steps = len(self.loader)
        self.method.train()
        while self.step < self.epochs * steps:
            epoch, start = divmod(self.step, steps)
            began = time.perf_counter()
            for batch in self.loader.epoch(epoch, start):
                waited = time.perf_counter() - began
                log = self._step(to_device(batch, self.device), epoch)
                yield replace(log, seconds=time.perf_counter() - began, waited=waited)
                self.method.train()  # the caller may have evaluated
                began = time.perf_counter()
        self._read(0)

    def _step(self, batch: Batch, epoch: int) -> Log:
        """Forward, backward, one step of the optimizer."""
        torch.manual_seed(hash((self.seed, self.step, distributed.rank())))
        rate = self.rates.at(self.step)
        optims.set_rate(self.optimizer, rate)
        self.optimizer.zero_grad(set_to_none=True)
        loss, values = self._backward(batch)
        norm = self._clipped().to(loss)
        if self.clip:
            values["gradient"] = norm
        world = distributed.world()
        values |= {name: number.to(loss) * world for name, number in self.method.counts(batch).items()}
        means = _means([loss, norm, *values.values()])
        told = Told(("loss", "norm", *values), means)
        self.diverged = torch.maximum(self.diverged, 1 - means[:2].isfinite().all().to(self.diverged))
        self._unread.append((self.step, batch.rows, told))
        self._read(self.lag)
        self._move()
        steps = len(self.loader)
        return Log(self.step, epoch, self.step - epoch * steps, steps, told, rate, 0.0, 0.0, len(batch))

    def _clipped(self) -> Tensor:
        """The norm of the gradient, which is then no longer than `clip`."""
        trained = [weight for weight in self.method.parameters() if weight.grad is not None]
        norm = nn.utils.get_total_norm([weight.grad for weight in trained if weight.grad is not None])
        if self.clip:
            nn.utils.clip_grads_with_norm_(trained, self.clip, norm)
        return norm.detach()

    def _move(self) -> None:
        """All that a step changes; nothing where the device has found that the run diverged, and we have not yet."""
        stop = self.diverged if self.lag else None
        skips = getattr(self.optimizer, SKIPS, False)
        if skips:
            self.optimizer.found_inf = stop  # type: ignore[attr-defined]
        with held([] if skips else self._weights(), stop):
            self.optimizer.step()
        self.step += 1
        followers = self.method.state_dict() if type(self.method).after_step is not Method.after_step else {}
        average = self.average.state_dict() if self.average is not None else {}
        with held([*followers.values(), *average.values()], stop):
            self.method.after_step(self.step / self.rates.steps)
            self._update_average()

    def _read(self, lag: int) -> None:
        """Raise DivergedError where one of the steps before the last `lag` was not finite; all ranks find the same."""
        while len(self._unread) > lag:
            step, rows, told = self._unread.popleft()
            numbers = told.read()
            if math.isfinite(numbers["loss"]) and math.isfinite(numbers["norm"]):
                continue
            what = "The loss is not finite"
            if math.isfinite(numbers["loss"]):
                what = f"The gradient is not finite (the loss is {numbers['loss']:.3g})"
            everyone = [row for part in distributed.gathered(rows.tolist()) for row in part]
            raise DivergedError(what, step, self._advice(), everyone)

    def _advice(self) -> str:
        """What helps a run that diverges."""
        return f"Try a lower --lr (now {self.rates.peak:.3g})" + (" or --clip 1." if not self.clip else ".")

    def _weights(self) -> list[Tensor]:
        """What the optimizer moves, its own state too."""
        weights = [weight.detach() for group in self._groups() for weight in group["params"]]
        return weights + [value for state in self.optimizer.state.values() for _, value in _tensors("", state)]

    def _groups(self) -> list[dict[str, Any]]:
        return self.optimizer.param_groups

    def _saved(self) -> Iterator[tuple[str, Tensor]]:
        """All numbers of a checkpoint that could be none."""
        yield from _tensors("", self.method.state_dict())
        yield from _tensors("average ", self.average.state_dict() if self.average is not None else {})
        yield from _tensors("optimizer ", self.optimizer.state_dict()["state"])

    def _backward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The gradient of the whole batch, taken in `accumulate` parts."""
        loss, values = torch.zeros((), device=self.device), dict[str, Tensor]()
        turns = self._turns(batch)
        for turn, part in enumerate(parts(batch, turns), 1):
            share = 1.0 if part is batch else self.method.share(part, batch)
            with self._gathering(turn == turns):
                with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
                    step = self.forward(part)
                (step.loss * share).backward()
            loss += step.loss.detach() * share
            for name, value in step.logs.items():
                values[name] = values.get(name, 0.0) + torch.as_tensor(value).detach().to(loss) * share
        return loss, values

    def _gathering(self, last: bool) -> AbstractContextManager[None]:
        """Ranks add their gradients up once, in the last part of a batch."""
        alone = not last and isinstance(self.forward, nn.parallel.DistributedDataParallel)
        return self.forward.no_sync() if alone else nullcontext()

    def _turns(self, batch: Batch) -> int:
        """Parts to take the batch in: as many at every rank, since all meet in each; ranks may hold unequal batches."""
        if self.accumulate == 1:
            return 1
        return max(1, distributed.minimum_over_processes(min(self.accumulate, len(batch)), self.device))

    def _update_average(self) -> None:
        """w_average <- d w_average + (1 - d) w, with a d that is small while the run is young."""
        if self.average is None:
            return
        decay = min(self.decay, (1 + self.step) / (10 + self.step))
        for averaged, weight in zip(self.average.state_dict().values(), self.method.state_dict().values(), strict=True):
            if averaged.dtype.is_floating_point:
                averaged.lerp_(weight, 1 - decay)
            else:
                averaged.copy_(weight)


SKIPS = "_step_supports_amp_scaling"
"""Optimizers that torch marks so take no step where their `found_inf` is 1."""


@contextlib.contextmanager
def held(tensors: Sequence[Tensor], stop: Tensor | None) -> Iterator[None]:
    """Where `stop` is 1, the tensors are afterwards as they were before; without waiting for the device."""
    before = [tensor.clone() for tensor in tensors] if stop is not None else []
    yield
    if stop is not None:
        for tensor, old in zip(tensors, before, strict=True):
            tensor.copy_(torch.where(stop > 0, old, tensor))


def _tensors(name: str, values: Any) -> Iterator[tuple[str, Tensor]]:
    """The floating-point tensors, wherever inside, with their names."""
    if isinstance(values, Tensor):
        if values.is_floating_point() and values.numel():
            yield name, values
    elif isinstance(values, dict):
        for key, value in values.items():
            yield from _tensors(f"{name}{'' if name[-1:] in ('', ' ') else '.'}{key}", value)


def _means(values: list[Tensor]) -> Tensor:
    """Of all ranks, which are asked once."""
    return distributed.total(torch.stack(values)) / distributed.world()


def fast_bf16(device: torch.device) -> bool:
    """Whether the hardware multiplies bfloat16 faster than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu":
        return False
    flags = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(flags.get("avx512_bf16") or flags.get("amx_bf16"))


def to_device(batch: Batch, device: torch.device) -> Batch:
    """The batch where the method is, in channels_last order, which convolutions like."""
    views = [view.to(device, non_blocking=True, memory_format=torch.channels_last) for view in batch.views]
    boxes = [box.to(device, non_blocking=True) for box in batch.boxes]
    maps = [one.to(device, non_blocking=True, memory_format=torch.channels_last) for one in batch.maps]
    labels, patients = (values.to(device, non_blocking=True) for values in (batch.labels, batch.patients))
    return replace(batch, views=views, boxes=boxes, labels=labels, patients=patients, maps=maps)


def parts(batch: Batch, count: int) -> Iterator[Batch]:
    """The batch in `count` parts of about the same size."""
    if count == 1:
        yield batch
        return
    for places in torch.arange(len(batch)).tensor_split(count):
        if len(places):
            chosen = slice(int(places[0]), int(places[-1]) + 1)
            boxes = [_boxes_of(box, chosen) for box in batch.boxes]
            yield Batch(
                [view[chosen] for view in batch.views],
                batch.labels[chosen],
                boxes,
                batch.rows[chosen],
                batch.sources[chosen],
                batch.patients[chosen],
                batch.chance[chosen],
                batch.dropped[chosen],
                [one[chosen] for one in batch.maps],
            )


def _boxes_of(boxes: Tensor, chosen: slice) -> Tensor:
    """The boxes of these images, numbered anew."""
    inside = boxes[(boxes[:, 0] >= chosen.start) & (boxes[:, 0] < chosen.stop)].clone()
    inside[:, 0] -= chosen.start
    return inside
