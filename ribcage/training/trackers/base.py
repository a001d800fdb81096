"""Tracker: where a run is logged to beside its run folder."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from ribcage.training.metrics_log import TrackedNumbers

PROJECT = "ribcage"
"""Project or experiment that runs belong to, unless the environment names another."""


@dataclass(frozen=True)
class TrackedRun:
    """What a tracker gets to know about a run, once."""

    id: str
    """The same whenever the run is resumed."""
    name: str
    folder: Path
    """The run folder, for trackers that write files; it is not sent."""
    options: Mapping[str, str | float | None]
    """The command and its options, without folders."""
    step: int = 0
    """Completed steps: more than 0 if the run is resumed."""


@dataclass(frozen=True)
class TrackedImage:
    """A gray image, (H, W) uint8, or one in colour, (H, W, 3) uint8 with red first, with a caption."""

    pixels: np.ndarray
    caption: str


class Tracker(ABC):
    """A tracker of one run. Its methods are called in a thread of their own, which a server may keep waiting; an error
    ends the tracking, but not the training."""

    packages: ClassVar[tuple[str, ...]]
    """Packages that it imports; the extra that installs them has the name of the tracker."""

    @classmethod
    def is_local(cls) -> bool:
        """Whether it writes to this machine only."""
        return True

    @abstractmethod
    def __init__(self, run: TrackedRun) -> None:
        """Begin the run, or continue it."""

    @abstractmethod
    def log(self, lines: Sequence[TrackedNumbers]) -> None:
        """Log the numbers of steps and validations."""

    @abstractmethod
    def show(self, name: str, images: Sequence[TrackedImage], step: int) -> None:
        """Log images."""

    @abstractmethod
    def close(self, state: str) -> None:
        """End the run: finished, stopped or failed."""
