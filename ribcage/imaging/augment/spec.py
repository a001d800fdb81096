"""Augmentation settings and presets."""

import dataclasses
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ribcage.runtime.spelling import did_you_mean


@dataclass(frozen=True)
class View:
    """Settings of an augmentation. By default nothing varies: the whole image at `size`."""

    size: int | tuple[int, int] = 224
    """Size of the batch: one side, or (height, width)."""
    crop: tuple[float, float] = (1.0, 1.0)
    """Area of the window, relative to the largest window of this shape that fits."""
    ratio: tuple[float, float] = (1.0, 1.0)
    """Aspect ratio (width : height) of the window relative to that of `size`; 1 does not distort. Limited to what
    fits."""
    place: tuple[float, float] | None = None
    """Position of the window from (0, 0) top left to (1, 1) bottom right; None: random."""
    flip: float = 0.0
    """Probability of mirroring. 0 by default, because the side of the heart matters."""
    rotation: float = 0.0
    """Largest angle in degrees, in both directions, about the centre of the window."""
    shift: float = 0.0
    """Largest shift as a share of the window, horizontally and vertically; may leave the image."""
    zoom: tuple[float, float] = (1.0, 1.0)
    """Scale factor; below 1 may leave the image."""
    brightness: float = 0.0
    """Largest value added or subtracted, on a scale from black = 0 to white = 1."""
    contrast: float = 0.0
    """0.2: differences from the dataset's mean are multiplied by 0.8 … 1.2."""
    gamma: float = 0.0
    """0.2: the exponent is between 1/1.2 and 1.2."""
    blur: tuple[float, float] = (0.1, 2.0)
    """Standard deviation in pixels of the batch."""
    blur_probability: float = 0.0
    noise: float = 0.0
    """Largest standard deviation, on a scale from black = 0 to white = 1."""
    erase: tuple[float, float] = (0.02, 0.2)
    """Area of the rectangle that is set to the mean, as a share of the view."""
    erase_probability: float = 0.0

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):  # lists from JSON become tuples
            value = getattr(self, field.name)
            object.__setattr__(self, field.name, tuple(value) if isinstance(value, list) else value)
        problems = _problems(self)
        if problems:
            raise ValueError("The view is invalid: " + "; ".join(problems) + ".")

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) of the batch."""
        return self.size if isinstance(self.size, tuple) else (self.size, self.size)

    def to_dict(self) -> dict[str, object]:
        """As a dict for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "View":
        """From a dict as `to_dict` returns it; missing settings have their defaults."""
        known = [field.name for field in dataclasses.fields(cls)]
        unknown = [_unknown(name, known) for name in values if name not in known]
        if unknown:
            raise ValueError(f"{' '.join(unknown)} Settings: {', '.join(known)}.")
        return cls(**values)


def plain_view(size: int | tuple[int, int] = 224, side: float = 1.0) -> View:
    """Deterministic view for evaluation: the centre of the image, `side` of its width."""
    return View(size, crop=(side**2, side**2), place=(0.5, 0.5))


def ten_crops(size: int | tuple[int, int] = 224, side: float = 0.875) -> list[View]:
    """The four corners and the centre, then the same mirrored; 224 of 256 pixels, as published."""
    places = ((0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (1.0, 1.0), (0.5, 0.5))
    still = [View(size, crop=(side**2, side**2), place=place) for place in places]
    return still + [dataclasses.replace(view, flip=1.0) for view in still]


def gentle_view(size: int | tuple[int, int] = 224) -> View:
    """For supervised training: variation in positioning and exposure as between two radiographs of one patient."""
    return View(
        size,
        crop=(0.7, 1.0),
        ratio=(0.9, 1.1),
        rotation=7.0,
        shift=0.03,
        brightness=0.1,
        contrast=0.2,
        gamma=0.2,
        noise=0.01,
    )


def strong_view(size: int | tuple[int, int] = 224) -> View:
    """For contrastive pretraining, after MoCo v2 (https://arxiv.org/abs/2003.04297) without colour changes. Includes
    flips."""
    return View(
        size,
        crop=(0.2, 1.0),
        ratio=(3 / 4, 4 / 3),
        flip=0.5,
        rotation=10.0,
        brightness=0.2,
        contrast=0.4,
        gamma=0.4,
        blur_probability=0.5,
        noise=0.02,
    )


def published_view(size: int | tuple[int, int] = 224, crop: tuple[float, float] = (0.2, 1.0)) -> View:
    """The published augmentation of MoCo v2, SwAV and SupCon, without colour jitter and random grayscale."""
    return View(
        size, crop=crop, ratio=(3 / 4, 4 / 3), flip=0.5, brightness=0.2, contrast=0.4, blur_probability=0.5
    )  # fmt: skip


PRESETS: dict[str, Callable[[int | tuple[int, int]], View]] = {
    "plain": plain_view,
    "gentle": gentle_view,
    "strong": strong_view,
}


def resized_view(view: View, size: tuple[int, int]) -> View:
    """The same view at another size of the same aspect ratio; with the same random numbers it shows the same
    content."""
    height, width = view.shape
    if height * size[1] != width * size[0]:
        raise ValueError(
            f"A view of {height} × {width} pixels cannot be resized to {size[0]} × {size[1]}: the aspect ratio differs."
        )
    low, high = (sigma * size[0] / height for sigma in view.blur)
    return dataclasses.replace(view, size=size, blur=(low, high))


def changed_view(view: View, changes: Sequence[str]) -> View:
    """The view with some settings replaced, each given as NAME=VALUE or NAME=LOW,HIGH; place=anywhere is a random
    position."""
    values: dict[str, object] = {}
    for change in changes:
        name, _, text = change.partition("=")
        if change == "place=anywhere":
            values["place"] = None
            continue
        try:
            numbers = [float(part) for part in text.split(",")]
        except ValueError:
            raise ValueError(
                f"{change!r} is not a valid augmentation setting. Use the form NAME=VALUE or NAME=LOW,HIGH."
            ) from None
        values[name] = numbers if len(numbers) > 1 else numbers[0]
    return View.from_dict({**view.to_dict(), **values})


def preset_views(name: str, changes: Sequence[str] = ()) -> Callable[[tuple[int, int]], list[View]]:
    """A function: image size → the view of a preset, with some settings replaced."""
    return lambda size: [changed_view(PRESETS[name](size), changes)]


def varying_settings(view: View) -> tuple[str, ...]:
    """Names of the settings that vary between epochs; empty for a deterministic view."""
    ranges = {name: getattr(view, name) for name in ("crop", "ratio", "zoom")}
    varies = {name: low < high for name, (low, high) in ranges.items()}
    whole = view.crop == view.ratio == (1.0, 1.0) and view.shape[0] == view.shape[1]
    varies |= {
        name: getattr(view, name) > 0 for name in ("rotation", "shift", "brightness", "contrast", "gamma", "noise")
    }
    varies |= {
        "place": view.place is None and not whole,
        "flip": 0 < view.flip < 1,
        "blur_probability": 0 < view.blur_probability < 1,
        "blur": view.blur_probability > 0 and view.blur[0] < view.blur[1],
        "erase_probability": view.erase_probability > 0,
    }
    return tuple(name for name, is_so in varies.items() if is_so)


# ---- checks


def blur_radius(sigma: float) -> int:
    """Radius in pixels of the kernel of a Gaussian blur."""
    return math.ceil(3 * sigma)


def _unknown(name: str, known: Sequence[str]) -> str:
    return f"Unknown setting {name!r}.{did_you_mean(str(name), known)}"


_LIMITS = {
    **dict.fromkeys(("flip", "blur_probability", "erase_probability", "brightness", "contrast", "shift", "noise"), 1.0),
    "rotation": 180.0,
    "gamma": 10.0,
}
_RANGES = {
    "crop": (1e-4, 1.0),
    "ratio": (0.01, 100.0),
    "zoom": (0.01, 100.0),
    "blur": (1e-3, 50.0),
    "erase": (0.0, 1.0),
}


def _problems(view: View) -> list[str]:
    """All invalid settings of a view."""
    sides = view.size if isinstance(view.size, tuple) else (view.size, view.size)
    if not (len(sides) == 2 and all(isinstance(side, int) and 1 <= side <= 8192 for side in sides)):
        return [f"size must be one side or (height, width) in whole numbers from 1 to 8192, not {view.size}"]
    problems = []
    for name, most in _LIMITS.items():
        if not _ascending((0.0, getattr(view, name)), 0.0, most):
            problems.append(f"{name} must be from 0 to {most:g}, not {getattr(view, name)}")
    for name, (least, most) in _RANGES.items():
        ends = getattr(view, name)
        if not (isinstance(ends, tuple) and len(ends) == 2 and _ascending(ends, least, most)):
            problems.append(f"{name} must be (low, high) from {least:g} to {most:g}, not {ends}")
    if view.place is not None and not _is_place(view.place):
        problems.append(f"place must be (x, y) from 0 to 1, or None, not {view.place}")
    if not problems and view.blur_probability and blur_radius(view.blur[1]) >= min(sides):
        problems.append(f"a blur of {view.blur[1]:g} pixels is larger than the view")
    return problems


def _is_place(value: object) -> bool:
    """Whether this is (x, y) from 0 to 1."""
    return isinstance(value, tuple) and len(value) == 2 and all(_ascending((end,), 0.0, 1.0) for end in value)


def _ascending(numbers: tuple[Any, ...], least: float, most: float) -> bool:
    """Whether these are numbers in ascending order within the limits."""
    if not all(isinstance(each, (int, float)) and not isinstance(each, bool) for each in numbers):
        return False
    return all(a <= b for a, b in itertools.pairwise((least, *numbers, most)))
