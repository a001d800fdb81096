"""The log of a step, whose numbers are read from the device some steps later."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ribcage.runtime.devices import GpuWait


class StepNumbers:
    """Numbers that are copied from the device; reading them waits for their own step, not for later ones."""

    def __init__(self, names: Sequence[str], numbers: Tensor) -> None:
        self.names, self.numbers = names, numbers.to("cpu", non_blocking=True)
        self.there = torch.cuda.current_stream(numbers.device).record_event() if numbers.is_cuda else None

    def read(self) -> dict[str, float]:
        """Name → number."""
        if self.there is not None:
            self.there.synchronize()
        return dict(zip(self.names, self.numbers.tolist(), strict=True))


@dataclass(frozen=True)
class StepLog:
    """The log of a step."""

    step: int
    """Completed optimizer steps."""
    epoch: int
    step_in_epoch: int
    steps_in_epoch: int
    numbers: StepNumbers
    rate: float
    """The learning rate."""
    images: int
    scheduled: dict[str, float] = field(default_factory=dict)
    """Other options with a schedule, such as weight_decay, and their values in the step."""
    seconds: float = 0.0
    loading: float = 0.0
    """Seconds of these for which this process waited for the loader."""
    wait: GpuWait | None = None

    @functools.cached_property
    def waited(self) -> float:
        """Seconds of the step for which the device had to wait for its data; to be read as late as the loss."""
        return self.wait.seconds() if self.wait is not None else self.loading

    @functools.cached_property
    def values(self) -> dict[str, float]:
        """The method's own numbers of the step, by name."""
        return {name: value for name, value in self.numbers.read().items() if name not in ("loss", "norm")}

    @functools.cached_property
    def loss(self) -> float:
        """The mean over all ranks."""
        return self.numbers.read()["loss"]

    @property
    def epoch_done(self) -> bool:
        """Whether this was the epoch's last step."""
        return self.step_in_epoch == self.steps_in_epoch
