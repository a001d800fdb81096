"""fit(): the only training loop. A generator of logs: the caller prints, evaluates, saves and stops.

Chance inside the model (dropout, drop path, mixup) is seeded from (seed, step, rank) before every step, and the
loader's from (seed, epoch, row, view). So a run that goes on from a checkpoint, in the middle of an epoch too, computes
the same weights bit for bit as one that never stopped, on the same machine.
"""

import copy
import math
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ribcage import distributed
from ribcage import optim as optims
from ribcage.loader import Batch, Loader
from ribcage.methods import Method

Precision = Literal["auto", "float32", "bf16"]


class DivergedError(ArithmeticError):
    """The loss is not a number any more; `rows` are those of the global batch, at rank 0."""

    def __init__(self, step: int, rate: float, rows: list[int]) -> None:
        super().__init__(f"The loss is not finite at step {step}. Try a lower --lr (now {rate:.3g}) or --clip 1.")
        self.step, self.rows = step, rows


@dataclass(frozen=True)
class Log:
    """What a step tells."""

    step: int
    """Optimizer steps done so far."""
    epoch: int
    step_in_epoch: int
    steps_in_epoch: int
    loss: float
    rate: float
    """The learning rate."""
    seconds: float
    waited: float
    """Seconds of these spent waiting for data."""
    values: dict[str, float]
    pictures: int

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
        if not method.own_norms:
            distributed.synchronise_norms(method, device)
        forward: Any = torch.compile(method) if compile else method
        trained = [weight for weight in method.parameters() if weight.requires_grad]
        self.forward = forward
        if distributed.active() and trained:  # every rank computes the same buffers: nothing to broadcast
            self.forward = nn.parallel.DistributedDataParallel(forward, broadcast_buffers=False)

    @property
    def result(self) -> Method:
        """What to evaluate and to keep: the averaged weights where there are such."""
        return self.average if self.average is not None else self.method

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
        self.step = state["step"]
        self.method.load_state_dict(state["method"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.average is not None and state["average"] is not None:
            self.average.load_state_dict(state["average"])

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

    def _step(self, batch: Batch, epoch: int) -> Log:
        """Forward, backward, one step of the optimizer."""
        torch.manual_seed(hash((self.seed, self.step, distributed.rank())))
        rate = self.rates.at(self.step)
        optims.set_rate(self.optimizer, rate)
        self.optimizer.zero_grad(set_to_none=True)
        loss, values = self._backward(batch)
        if self.clip:
            trained = [weight for weight in self.method.parameters() if weight.grad is not None]
            values["gradient"] = nn.utils.clip_grad_norm_(trained, self.clip).detach().to(loss)
        world = distributed.world()
        values |= {name: number.to(loss) * world for name, number in self.method.counts(batch).items()}
        mean, *means = _means([loss, *values.values()])
        if not math.isfinite(mean):
            parts = distributed.gathered(batch.rows.tolist())
            raise DivergedError(self.step, rate, [row for rows in parts for row in rows])
        self.optimizer.step()
        self.step += 1
        self.method.after_step(self.step / self.rates.steps)
        self._update_average()
        steps = len(self.loader)
        done = self.step - epoch * steps
        return Log(
            self.step, epoch, done, steps, mean, rate, 0.0, 0.0, dict(zip(values, means, strict=True)), len(batch)
        )

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
        return max(1, distributed.least(min(self.accumulate, len(batch)), self.device))

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


def _means(values: list[Tensor]) -> list[float]:
    """Of all ranks; many numbers wait for the device, and for the other ranks, once."""
    return (distributed.total(torch.stack(values)) / distributed.world()).tolist()


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
    """The boxes of these pictures, numbered anew."""
    inside = boxes[(boxes[:, 0] >= chosen.start) & (boxes[:, 0] < chosen.stop)].clone()
    inside[:, 0] -= chosen.start
    return inside
