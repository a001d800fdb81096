"""Random numbers of the images of a batch – affine matrices, intensities, noise, erased rectangles – and boxes that
move with the images. Computations that CPU and GPU must share are here, too."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ribcage.imaging.augment.spec import View
from ribcage.runtime import rng

Bound = float | np.ndarray
# Column of each random number in its row; new ones are added at the end, so that the others do not change.
_SLOTS = (
    *("area", "ratio", "x", "y", "flip", "rotation", "shift_x", "shift_y", "zoom"),
    *("brightness", "contrast", "gamma", "blur", "sigma", "noise", "noise_at"),
    *("erase", "erase_area", "erase_ratio", "erase_x", "erase_y"),
)
NOISE_STARTS = 1 << 18
_GRID = 2.0**24  # matrices are multiples of 1/_GRID: the last bit of a platform's sine changes no pixel
_ERASE_RATIO = (0.3, 3.3)


@dataclass(frozen=True)
class Numbers:
    """Random numbers of N images."""

    size: tuple[int, int]
    """(height, width) of the batch."""
    affine: np.ndarray
    """(N, 2, 3) float64: from a point of the batch to the point of the stored image at that place."""
    gamma: np.ndarray
    contrast: np.ndarray
    brightness: np.ndarray
    sigma: np.ndarray
    """Of the blur, in pixels; 0 for none."""
    noise: np.ndarray
    """Standard deviation, on a scale from black = 0 to white = 1."""
    noise_at: np.ndarray
    """Offset of the image's noise in the noise bank."""
    erase: np.ndarray
    """(N, 4) int64: x0, y0, x1, y1 in pixels of the batch; empty where x0 = x1."""

    def __len__(self) -> int:
        return len(self.affine)

    @property
    def flipped(self) -> np.ndarray:
        """(N,) bool: which images are mirrored."""
        return np.asarray(np.linalg.det(self.affine[:, :, :2]) < 0)

    def take(self, places: np.ndarray | slice) -> "Numbers":
        """The numbers of some of the images."""
        arrays = {field.name: getattr(self, field.name)[places] for field in dataclasses.fields(self)[1:]}
        return Numbers(self.size, **arrays)

    @classmethod
    def join(cls, parts: "Sequence[Numbers]") -> "Numbers":
        """The numbers of several groups of images, one after the other."""
        names = [field.name for field in dataclasses.fields(cls)[1:]]
        return cls(parts[0].size, **{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})


def draw_numbers(view: View, seed: int, epoch: int, rows: np.ndarray, number: int, side: int | np.ndarray) -> Numbers:
    """The numbers for view `number` of these rows; `side` of the stored images is one value or (N,)."""
    u = dict(zip(_SLOTS, rng.uniform(seed, epoch, rows, number, len(_SLOTS)).T, strict=True))
    blurred = u["blur"] < view.blur_probability
    return Numbers(
        size=view.shape,
        affine=_affine(view, u, np.broadcast_to(np.asarray(side, np.float64), len(rows))),
        gamma=_between(u["gamma"], 1 / (1 + view.gamma), 1 + view.gamma, log=True),
        contrast=_between(u["contrast"], 1 - view.contrast, 1 + view.contrast),
        brightness=_between(u["brightness"], -view.brightness, view.brightness),
        sigma=np.where(blurred, _between(u["sigma"], *view.blur), 0.0),
        noise=u["noise"] * view.noise,
        noise_at=(u["noise_at"] * NOISE_STARTS).astype(np.int64),
        erase=_erase(view, u),
    )


def move_boxes(boxes: np.ndarray, numbers: Numbers, keep: float = 0.25) -> np.ndarray:
    """(M, 6) n, finding, x0, y0, x1, y1 in stored pixels → the same in pixels of the batch.

    A box becomes the axis-aligned box around its transformed corners, clipped to the view; it is dropped when less than
    `keep` of its area is left.
    """
    height, width = numbers.size
    matrix = numbers.affine[boxes[:, 0].astype(np.int64)]
    corners = boxes[:, [2, 3, 4, 3, 2, 5, 4, 5]].reshape(-1, 4, 2) - matrix[:, None, :, 2]
    moved = corners @ np.linalg.inv(matrix[:, :, :2]).transpose(0, 2, 1)  # (M, 4, 2)
    whole = np.concatenate([moved.min(1), moved.max(1)], axis=1)
    inside = np.clip(whole, 0, [width, height, width, height])
    left = _area(inside) >= keep * _area(whole)
    return np.concatenate([boxes[:, :2], inside], axis=1)[left & (_area(inside) > 0)].astype(np.float32)


# ---- from uniform numbers to geometry


def _between(u: np.ndarray, low: Bound, high: Bound, log: bool = False) -> np.ndarray:
    """0 … 1 → low … high, uniformly or log-uniformly; exactly `low` when the two are equal."""
    if log:
        return np.exp(_between(u, np.log(low), np.log(high)))
    return low + u * (high - low)


def _affine(view: View, u: dict[str, np.ndarray], side: np.ndarray) -> np.ndarray:
    """(N, 2, 3): flip, then the window's size, its rotation about its centre, and the position of the centre."""
    height, width = view.shape
    across, down = _window(view, u, side)
    x, y = (u["x"], u["y"]) if view.place is None else view.place
    zoom = _between(u["zoom"], *view.zoom, log=True)
    shift_x, shift_y = (_between(u[name], -view.shift, view.shift) for name in ("shift_x", "shift_y"))
    centre = np.stack(
        [across / 2 + x * (side - across) + shift_x * across, down / 2 + y * (side - down) + shift_y * down], 1
    )
    turn = np.radians(_between(u["rotation"], -view.rotation, view.rotation))
    step_x = across / zoom / width * np.where(u["flip"] < view.flip, -1.0, 1.0)
    step_y = down / zoom / height
    linear = np.array([[np.cos(turn) * step_x, -np.sin(turn) * step_y], [np.sin(turn) * step_x, np.cos(turn) * step_y]])
    linear = np.round(linear.transpose(2, 0, 1) * _GRID) / _GRID  # (N, 2, 2)
    offset = np.round((centre - linear @ np.array([width / 2, height / 2])) * _GRID) / _GRID
    return np.concatenate([linear, offset[:, :, None]], axis=2)


def _window(view: View, u: dict[str, np.ndarray], side: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Width and height of the window, in stored pixels."""
    height, width = view.shape
    area = _between(u["area"], *view.crop)
    low, high = (np.clip(end, area, 1 / area) for end in view.ratio)
    ratio = _between(u["ratio"], low, high, log=True)
    across, down = side * min(1, width / height), side * min(1, height / width)
    return across * np.sqrt(area * ratio), down * np.sqrt(area / ratio)


def _erase(view: View, u: dict[str, np.ndarray]) -> np.ndarray:
    height, width = view.shape
    area = _between(u["erase_area"], *view.erase)
    ratio = _between(u["erase_ratio"], *_ERASE_RATIO, log=True)
    across = np.clip(np.round(width * np.sqrt(area * ratio)), 1, width)
    down = np.clip(np.round(height * np.sqrt(area / ratio)), 1, height)
    x, y = np.floor(u["erase_x"] * (width - across + 1)), np.floor(u["erase_y"] * (height - down + 1))
    boxes = np.stack([x, y, x + across, y + down], axis=1)
    return np.where((u["erase"] < view.erase_probability)[:, None], boxes, 0).astype(np.int64)


def _area(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


# ---- shared by CPU and GPU


def shrink_factors(affine: np.ndarray) -> np.ndarray:
    """(N,) whole factors to downsample by before the warp: bilinear interpolation alone would alias."""
    scale = np.sqrt(np.abs(np.linalg.det(affine[:, :, :2])))
    return np.maximum(np.floor(scale + 0.5), 1).astype(np.int64)


@lru_cache(maxsize=4)
def noise_bank(length: int) -> np.ndarray:
    """(length,) standard normal numbers, each the sum of eight uniform integers, so that they are equal on every
    machine."""
    halves = (
        rng.random_words(0, 0, np.arange(length), rng.NOISE, rng.WORDS).astype(np.uint32, order="C").view(np.uint16)
    )
    total = halves.reshape(length, 8).sum(1, dtype=np.float64) / 65535 - 4
    bank = (total / np.sqrt(8 / 12)).astype(np.float32)
    bank.setflags(write=False)
    return bank
