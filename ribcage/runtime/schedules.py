"""Schedules: option values that change during training, in the form in which they are typed.

START:END is a number that follows a cosine from START to END. SIZE:SHARE,…,SIZE is a sequence of image sizes with the
fraction of the epochs for which each is used.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

SIZES = "SIZE:SHARE,…,SIZE, such as 128:0.6,224"
"""The form of a sequence of image sizes."""


@dataclass(frozen=True)
class Ramp:
    """A number that follows half a cosine from `start` to `end`, as the weight decay of DINO does."""

    start: float
    end: float

    def at(self, progress: float) -> float:
        """The value when this fraction of the steps is completed."""
        return self.end + (self.start - self.end) * 0.5 * (1 + math.cos(math.pi * progress))


def ramp(option: str, value: float | str) -> Ramp:
    """The values of an option that is given as a number or as START:END; ValueError says what is wrong."""
    try:
        start, end = map(float, value.split(":")) if isinstance(value, str) and ":" in value else [float(value)] * 2
    except ValueError:
        start = end = math.nan
    if not (math.isfinite(start) and math.isfinite(end)):
        raise ValueError(f"{option} {value} must be a number, or START:END such as 0.04:0.4")
    return Ramp(start, end)


@dataclass(frozen=True)
class SizeStage:
    """Consecutive epochs in which images have the same size."""

    size: tuple[int, int]
    """(height, width) in pixels."""
    first: int
    """The first epoch, counted from 0."""
    end: int
    """The epoch after the last one."""

    @property
    def epochs_phrase(self) -> str:
        """The epochs in words, counted from 1."""
        return f"epoch {self.end}" if self.end - self.first == 1 else f"epochs {self.first + 1} to {self.end}"


def size_stages(values: Sequence[int | str], epochs: int) -> tuple[SizeStage, ...]:
    """The stages of --size in a run of so many epochs; ValueError says what is wrong.

    A stage ends after its share of all epochs, rounded to whole epochs.
    """
    if not any(isinstance(value, str) for value in values):
        height, width = (value for value in (values[0], values[-1]) if isinstance(value, int))
        return (SizeStage((height, width), 0, epochs),)
    text = " ".join(map(str, values))
    *early, last = _sized(text)
    shares = [share for _, share in early]
    if len(values) > 1 or not all(0 < share < 1 for share in shares) or not sum(shares) < 1:
        raise ValueError(f"--size {text} must be {SIZES}, where each SHARE is above 0 and their sum is below 1")
    ends = [math.floor(sum(shares[: place + 1]) * epochs + 0.5) for place in range(len(shares))] + [epochs]
    sizes = [size for size, _ in [*early, last]]
    stages = [
        SizeStage((size, size), first, end) for size, first, end in zip(sizes, [0, *ends[:-1]], ends, strict=True)
    ]
    if idle := [one for one in stages if one.first >= one.end]:
        raise ValueError(
            f"--size {text} assigns none of the {epochs} epochs to images of {idle[0].size[0]} pixels: use other "
            f"shares or more --epochs"
        )
    return tuple(stages)


def final_size(values: Sequence[int | str]) -> tuple[int, int]:
    """(height, width) at the end of training."""
    (*_, (size, _)) = _sized(str(values[-1]))
    return (values[0] if isinstance(values[0], int) else size, size)


def _sized(text: str) -> list[tuple[int, float]]:
    """The sizes and shares of a text; the last size has none."""
    found = []
    *early, last = text.split(",")
    try:
        for part in early:
            size, share = part.split(":")
            found.append((int(size), float(share)))
        found.append((int(last), 0.0))
    except ValueError:
        raise ValueError(f"--size {text} must be one or two numbers of pixels, or {SIZES}") from None
    if wrong := [size for size, _ in found if size < 1]:
        raise ValueError(f"--size {wrong[0]} must be at least 1")
    return found
