"""Views: what may vary in an image, the numbers drawn for it, and the batch they make.

    View → draw(view, seed, epoch, rows, number, side) → Numbers → apply(images, numbers, mean, std) → (N, 1, H, W)

Every change of geometry is one affine matrix, so an image is interpolated once and boxes move with the same matrix.
OpenCV applies the numbers on the CPU, torch wherever a tensor lies. Before contrast and gamma stretch them, the two
differ by at most one gray level of 255 (OpenCV 4 looks up to 1/64 pixel beside the place, OpenCV 5 does not).

Points are measured from the top left corner of the image: the centre of the first pixel is at (0.5, 0.5), its right
edge at 1. Boxes are given the same way. Outside the image everything is black, a stored 0.

Order: shrink by a whole factor where the view needs less than two thirds of the resolution · gamma, contrast,
brightness · normalise · affine · blur · noise · erase. The intensity comes before the affine: a table can do it."""

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 – everybody's name for it

from ribcage.runtime import rng
from ribcage.runtime.spelling import did_you_mean

# The place of each number among those of its row; a new one goes to the end, so that the others stay as they are.
_SLOTS = (
    *("area", "ratio", "x", "y", "flip", "rotation", "shift_x", "shift_y", "zoom"),
    *("brightness", "contrast", "gamma", "blur", "sigma", "noise", "noise_at"),
    *("erase", "erase_area", "erase_ratio", "erase_x", "erase_y"),
)
_NOISE_STARTS = 1 << 18
_GRID = 2.0**24  # matrices are whole multiples of 1/_GRID: the last bit of somebody's sine changes no pixel
_ERASE_RATIO = (0.3, 3.3)


@dataclass(frozen=True)
class View:
    """What may vary. The defaults change nothing: the whole image at `size`."""

    size: int | tuple[int, int] = 224
    """Of the batch: one side, or (height, width)."""
    crop: tuple[float, float] = (1.0, 1.0)
    """Area of the window, as a share of the largest window of this shape that fits."""
    ratio: tuple[float, float] = (1.0, 1.0)
    """Width : height of the window, times that of `size`; 1 does not distort. Held to what fits into the image."""
    place: tuple[float, float] | None = None
    """Where the window lies: (0, 0) top left, (1, 1) bottom right; None: anywhere."""
    flip: float = 0.0
    """Probability of left for right. 0, because the heart is on the left and a marker says so."""
    rotation: float = 0.0
    """Degrees, either way, about the centre of the window."""
    shift: float = 0.0
    """Share of the window, either way, across and down; may leave the image."""
    zoom: tuple[float, float] = (1.0, 1.0)
    """Above 1 is nearer; below 1 may leave the image."""
    brightness: float = 0.0
    """Added, either way; black to white is 1."""
    contrast: float = 0.0
    """0.2: differences from the data set's mean times 0.8 … 1.2."""
    gamma: float = 0.0
    """0.2: the exponent is between 1/1.2 and 1.2."""
    blur: tuple[float, float] = (0.1, 2.0)
    """Standard deviation in pixels of the batch."""
    blur_probability: float = 0.0
    noise: float = 0.0
    """Largest standard deviation; black to white is 1."""
    erase: tuple[float, float] = (0.02, 0.2)
    """Area of the rectangle that is set to the mean, as a share of the view."""
    erase_probability: float = 0.0

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):  # a list, as JSON has it, is a tuple here
            value = getattr(self, field.name)
            object.__setattr__(self, field.name, tuple(value) if isinstance(value, list) else value)
        problems = _problems(self)
        if problems:
            raise ValueError("This view cannot be made: " + "; ".join(problems) + ".")

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) of the batch."""
        return self.size if isinstance(self.size, tuple) else (self.size, self.size)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "View":
        """What `to_dict` gave, or any part of it."""
        known = [field.name for field in dataclasses.fields(cls)]
        unknown = [_unknown(name, known) for name in values if name not in known]
        if unknown:
            raise ValueError(f"{' '.join(unknown)} A view has: {', '.join(known)}.")
        return cls(**values)


def plain(size: int | tuple[int, int] = 224, side: float = 1.0) -> View:
    """No chance at all, for evaluation: the centre of the image, `side` of its width."""
    return View(size, crop=(side**2, side**2), place=(0.5, 0.5))


def ten_crops(size: int | tuple[int, int] = 224, side: float = 0.875) -> list[View]:
    """The four corners and the centre, then the same mirrored; 224 of 256 pixels, as published."""
    places = ((0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (1.0, 1.0), (0.5, 0.5))
    still = [View(size, crop=(side**2, side**2), place=place) for place in places]
    return still + [dataclasses.replace(view, flip=1.0) for view in still]


def gentle(size: int | tuple[int, int] = 224) -> View:
    """For supervised training: what positioning and exposure change between two radiographs of one patient."""
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


def strong(size: int | tuple[int, int] = 224) -> View:
    """For contrastive pre-training, after MoCo v2 (https://arxiv.org/abs/2003.04297) without colour: it flips, too."""
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


def published(size: int | tuple[int, int] = 224, crop: tuple[float, float] = (0.2, 1.0)) -> View:
    """What MoCo v2, SwAV and SupCon do to photographs, without what means nothing in gray: colour and its absence."""
    return View(
        size, crop=crop, ratio=(3 / 4, 4 / 3), flip=0.5, brightness=0.2, contrast=0.4, blur_probability=0.5
    )  # fmt: skip


def resized(view: View, size: tuple[int, int]) -> View:
    """The same view at another size of the same shape: drawn by the same numbers, it shows the same image."""
    height, width = view.shape
    if height * size[1] != width * size[0]:
        raise ValueError(f"A view of {height} × {width} pixels cannot be seen at {size[0]} × {size[1]}: another shape.")
    low, high = (sigma * size[0] / height for sigma in view.blur)
    return dataclasses.replace(view, size=size, blur=(low, high))


def changed(view: View, changes: Sequence[str]) -> View:
    """The view with some values replaced, each as NAME=VALUE or NAME=LOW,HIGH; place=anywhere is a random one."""
    values: dict[str, Any] = {}
    for change in changes:
        name, _, text = change.partition("=")
        if change == "place=anywhere":
            values["place"] = None
            continue
        try:
            numbers = [float(part) for part in text.split(",")]
        except ValueError:
            raise ValueError(f"{change!r} is no change of a view. Write NAME=VALUE or NAME=LOW,HIGH.") from None
        values[name] = numbers if len(numbers) > 1 else numbers[0]
    return View.from_dict({**view.to_dict(), **values})


def chances(view: View) -> tuple[str, ...]:
    """What differs from epoch to epoch, by the view's own names; nothing where it always shows the same."""
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


PRESETS: dict[str, Callable[[int | tuple[int, int]], View]] = {"plain": plain, "gentle": gentle, "strong": strong}


@dataclass(frozen=True)
class Numbers:
    """What was drawn for N images."""

    size: tuple[int, int]
    """(height, width) of the batch."""
    affine: np.ndarray
    """(N, 2, 3) float64: a point of the batch → the point of the stored image it shows."""
    gamma: np.ndarray
    contrast: np.ndarray
    brightness: np.ndarray
    sigma: np.ndarray
    """Of the blur in pixels; 0: none."""
    noise: np.ndarray
    """Standard deviation; black to white is 1."""
    noise_at: np.ndarray
    """Where in the noise bank the image's noise begins."""
    erase: np.ndarray
    """(N, 4) int64: x0, y0, x1, y1 in pixels of the batch; empty where x0 = x1."""

    def __len__(self) -> int:
        return len(self.affine)

    @property
    def flipped(self) -> np.ndarray:
        """(N,) bool: which are left for right."""
        return np.asarray(np.linalg.det(self.affine[:, :, :2]) < 0)

    def take(self, places: np.ndarray | slice) -> "Numbers":
        """Those of some of the images."""
        arrays = {field.name: getattr(self, field.name)[places] for field in dataclasses.fields(self)[1:]}
        return Numbers(self.size, **arrays)


def draw(view: View, seed: int, epoch: int, rows: np.ndarray, number: int, side: int | np.ndarray) -> Numbers:
    """The numbers of these rows for the view of this number; `side` of the stored images: one for all or (N,)."""
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
        noise_at=(u["noise_at"] * _NOISE_STARTS).astype(np.int64),
        erase=_erase(view, u),
    )


def move_boxes(boxes: np.ndarray, numbers: Numbers, keep: float = 0.25) -> np.ndarray:
    """(M, 6) n, finding, x0, y0, x1, y1 in stored pixels → the same in pixels of the batch.

    A box becomes the upright box around its moved corners, cut at the edge, dropped when less than `keep` is left.
    """
    height, width = numbers.size
    matrix = numbers.affine[boxes[:, 0].astype(np.int64)]
    corners = boxes[:, [2, 3, 4, 3, 2, 5, 4, 5]].reshape(-1, 4, 2) - matrix[:, None, :, 2]
    moved = corners @ np.linalg.inv(matrix[:, :, :2]).transpose(0, 2, 1)  # (M, 4, 2)
    whole = np.concatenate([moved.min(1), moved.max(1)], axis=1)
    inside = np.clip(whole, 0, [width, height, width, height])
    left = _area(inside) >= keep * _area(whole)
    return np.concatenate([boxes[:, :2], inside], axis=1)[left & (_area(inside) > 0)].astype(np.float32)


# ---- on the CPU, by OpenCV


Images = Sequence[np.ndarray] | np.ndarray
"""N images: one array, or one for each; those of a memory map are not copied."""


def apply(images: Images, numbers: Numbers, mean: float, std: float) -> Tensor:
    """N square uint8 or uint16 images → (N, 1, H, W) float32."""
    batch = np.empty((len(numbers), *numbers.size), np.float32)
    apply_into(batch, images, numbers, mean, std)
    return torch.from_numpy(batch)[:, None]


def apply_into(out: Images, images: Images, numbers: Numbers, mean: float, std: float) -> None:
    """The same into N (H, W) float32 arrays."""
    if len(numbers):
        _warp(images, numbers, mean, std, out)
        _finish(numbers, std, out)


def _warp(images: Images, numbers: Numbers, mean: float, std: float, out: Images) -> None:
    """Shrink, shade and warp: only the part of each image that its view touches."""
    height, width = numbers.size
    shade = (_table_shade if images[0].dtype == np.uint8 else _float_shade)(numbers, mean, std)
    black = _intensity(np.zeros((len(numbers), 1)), numbers, mean, std)[:, 0].tolist()
    factors = _factors(numbers.affine)
    parts = _parts(numbers, factors, np.array([len(image) for image in images]))
    matrices = _matrices(numbers.affine, factors, parts)
    copies = _copies(matrices, factors, parts, numbers.size)
    for n, (factor, (x0, y0, x1, y1), copy) in enumerate(zip(factors.tolist(), parts.tolist(), copies, strict=True)):
        part = images[n][y0:y1, x0:x1]
        if copy:
            shade(n, part, out[n])
        elif not part.size:
            out[n][:] = black[n]
        else:
            part = shade(n, part if factor == 1 else _shrink(part, factor), None)
            flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
            cv2.warpAffine(part, matrices[n], (width, height), out[n], flags, cv2.BORDER_CONSTANT, black[n])


def _finish(numbers: Numbers, std: float, out: Images) -> None:
    """Blur, noise, erase, in place."""
    for n in np.flatnonzero(numbers.sigma).tolist():
        sigma = float(numbers.sigma[n])
        span = 2 * _radius(sigma) + 1
        cv2.GaussianBlur(out[n], (span, span), sigma, out[n])
    noisy = np.flatnonzero(numbers.noise).tolist()
    if noisy:
        pixels = out[0].size
        bank = _noise(_NOISE_STARTS + pixels)
        for n in noisy:
            start = int(numbers.noise_at[n])
            grain = bank[start : start + pixels].reshape(out[n].shape)
            cv2.scaleAdd(grain, float(numbers.noise[n]) / std, out[n], out[n])
    for n in np.flatnonzero(numbers.erase[:, 2] > numbers.erase[:, 0]).tolist():
        x0, y0, x1, y1 = numbers.erase[n]
        out[n][y0:y1, x0:x1] = 0.0


_Shade = Callable[[int, np.ndarray, np.ndarray | None], np.ndarray]


def _table_shade(numbers: Numbers, mean: float, std: float) -> _Shade:
    """uint8: one table per image."""
    tables = _intensity(np.arange(256)[None] / 255, numbers, mean, std)  # (N, 256)
    return lambda n, part, out: cv2.LUT(part, tables[n], out)


def _float_shade(numbers: Numbers, mean: float, std: float) -> _Shade:
    """uint16: a table would be larger than the image."""

    def shade(n: int, part: np.ndarray, out: np.ndarray | None) -> np.ndarray:
        scaled = part.astype(np.float32).reshape(1, -1) / np.float32(65535)
        shaded = _intensity(scaled, numbers.take(slice(n, n + 1)), mean, std).reshape(part.shape)
        if out is not None:
            out[...] = shaded
        return shaded

    return shade


def _intensity(values: np.ndarray, numbers: Numbers, mean: float, std: float) -> np.ndarray:
    """(N or 1, K) in 0 … 1 → (N, K) float32: gamma, contrast about the mean, brightness, then normalised."""
    numbers_of = (numbers.gamma, numbers.contrast, numbers.brightness)
    gamma, contrast, brightness = (each[:, None].astype(values.dtype) for each in numbers_of)
    shaded = (values**gamma if (gamma != 1).any() else values) * contrast
    shaded += mean * (1 - contrast) + brightness
    np.clip(shaded, 0, 1, out=shaded)
    shaded -= mean
    shaded /= std
    return shaded.astype(np.float32, copy=False)


def _factors(affine: np.ndarray) -> np.ndarray:
    """(N,) whole factors to shrink by before the warp, which looks at four pixels and would skip the others."""
    scale = np.sqrt(np.abs(np.linalg.det(affine[:, :, :2])))
    return np.maximum(np.floor(scale + 0.5), 1).astype(np.int64)


def _parts(numbers: Numbers, factors: np.ndarray, sides: np.ndarray) -> np.ndarray:
    """(N, 4) x0, y0, x1, y1: the stored pixels that a view touches, in whole blocks of `factor`."""
    height, width = numbers.size
    corners = np.array([[0.5, 0.5, 1], [width - 0.5, 0.5, 1], [0.5, height - 0.5, 1], [width - 0.5, height - 0.5, 1]])
    shrunk = numbers.affine @ corners.T / factors[:, None, None] - 0.5  # (N, 2, 4)
    low, high = np.floor(shrunk.min(2)), np.ceil(shrunk.max(2)) + 1
    ends = np.concatenate([low, high], axis=1).clip(-1e9, 1e9).astype(np.int64) * factors[:, None]
    return ends.clip(0, sides[:, None])


def _matrices(affine: np.ndarray, factors: np.ndarray, parts: np.ndarray) -> np.ndarray:
    """(N, 2, 3): as OpenCV wants them, whole numbers at pixel centres, measured in the shrunken part."""
    matrices = affine / factors[:, None, None]
    matrices[:, :, 2] += matrices[:, :, :2].sum(2) / 2 - 0.5 - parts[:, :2] / factors[:, None]
    return matrices


def _copies(matrices: np.ndarray, factors: np.ndarray, parts: np.ndarray, size: tuple[int, int]) -> list[bool]:
    """Which images need no interpolation: the part is the view."""
    height, width = size
    same = (matrices == np.eye(2, 3)).all((1, 2)) & (factors == 1)
    same &= (parts[:, 2] - parts[:, 0] == width) & (parts[:, 3] - parts[:, 1] == height)
    return list(same.tolist())


def _shrink(part: np.ndarray, factor: int) -> np.ndarray:
    """Means of blocks; the last row and column are repeated to fill theirs."""
    down, across = -part.shape[0] % factor, -part.shape[1] % factor
    if down or across:
        part = cv2.copyMakeBorder(part, 0, down, 0, across, cv2.BORDER_REPLICATE)
    return cv2.resize(part, (part.shape[1] // factor, part.shape[0] // factor), interpolation=cv2.INTER_AREA)


# ---- on any device, by torch


def apply_torch(stored: Tensor, numbers: Numbers, mean: float, std: float) -> Tensor:
    """(N, S, S) uint8 or uint16 → (N, 1, H, W) float32 where the images lie; what `apply` gives, but for rounding."""
    images = stored[:, None].float() / (255 if stored.dtype == torch.uint8 else 65535)
    batch = torch.empty((len(numbers), 1, *numbers.size), device=stored.device)
    factors = _factors(numbers.affine)
    for factor in np.unique(factors).tolist():
        places = np.flatnonzero(factors == factor)
        chosen = torch.from_numpy(places).to(stored.device)
        part = images if len(places) == len(numbers) else images[chosen]
        batch[chosen] = _warp_torch(part, numbers.take(places), factor, mean, std)
    return _finish_torch(numbers, std, batch)


def _warp_torch(images: Tensor, numbers: Numbers, factor: int, mean: float, std: float) -> Tensor:
    images = _shrink_torch(images, factor)
    shaded = _intensity_torch(images, numbers, mean, std)
    black = _intensity_torch(images.new_zeros(len(numbers), 1, 1, 1), numbers, mean, std)
    grid = _sampling_grid(numbers, factor, *images.shape[2:]).to(images.device)
    return F.grid_sample(shaded - black, grid, mode="bilinear", padding_mode="zeros", align_corners=False) + black


def _sampling_grid(numbers: Numbers, factor: int, height: int, width: int) -> Tensor:
    """(N, H, W, 2) in -1 … 1 across the shrunken image; no matrix product, which may be rounded to ten bits."""
    sides = np.array([width, height], np.float64)[:, None]
    matrix = numbers.affine / factor / sides * 2
    a, b, c = (torch.from_numpy(matrix[:, :, k].astype(np.float32))[:, None, None] for k in range(3))
    y, x = (torch.arange(length) + 0.5 for length in numbers.size)
    return a * x[None, None, :, None] + b * y[None, :, None, None] + (c - 1)


def still_torch(view: View, side: int) -> tuple[int, Tensor]:
    """A view in which nothing varies, for a network that shows images of this side to itself: the factor that
    `shrunk` takes first, and (1, H, W, 2) places for `grid_sample` with zeros around."""
    numbers = draw(view, 0, 0, np.zeros(1, np.int64), 0, side)
    factor = int(_factors(numbers.affine)[0])
    side = -(-side // factor)
    return factor, _sampling_grid(numbers, factor, side, side)


def shrunk(images: Tensor, factor: int) -> Tensor:
    """(N, C, S, S) images by means of blocks."""
    return _shrink_torch(images, factor)


def _shrink_torch(images: Tensor, factor: int) -> Tensor:
    if factor == 1:
        return images
    down, across = -images.shape[2] % factor, -images.shape[3] % factor
    return F.avg_pool2d(F.pad(images, (0, across, 0, down), mode="replicate"), factor)


def _intensity_torch(values: Tensor, numbers: Numbers, mean: float, std: float) -> Tensor:
    gamma, contrast, brightness = (
        torch.from_numpy(x).float().to(values.device)[:, None, None, None]
        for x in (numbers.gamma, numbers.contrast, numbers.brightness)
    )
    bent = values**gamma if (numbers.gamma != 1).any() else values
    return (((bent - mean) * contrast + (mean + brightness)).clamp(0, 1) - mean) / std


def _finish_torch(numbers: Numbers, std: float, batch: Tensor) -> Tensor:
    """Blur, noise, erase."""
    device = batch.device
    blurred = np.flatnonzero(numbers.sigma)
    if len(blurred):
        chosen = torch.from_numpy(blurred).to(device)
        batch[chosen] = _blur_torch(batch[chosen], numbers.sigma[blurred])
    if numbers.noise.any():
        pixels = batch[0].numel()
        starts = torch.from_numpy(numbers.noise_at).to(device)
        grain = _noise_on(device, _NOISE_STARTS + pixels).unfold(0, pixels, 1)[starts]
        batch += grain.view_as(batch) * torch.from_numpy(numbers.noise / std).float().to(device)[:, None, None, None]
    if (numbers.erase[:, 2] > numbers.erase[:, 0]).any():
        batch = batch.masked_fill(_erased(numbers).to(device), 0.0)
    return batch


def _blur_torch(batch: Tensor, sigmas: np.ndarray) -> Tensor:
    """Each image with its own Gaussian, along and down; sums of shifted images: a convolution may be rounded."""
    radius = _radius(float(sigmas.max()))
    kernels = np.zeros((len(sigmas), 2 * radius + 1), np.float32)
    for kernel, sigma in zip(kernels, sigmas.tolist(), strict=True):
        own = _radius(sigma)
        kernel[radius - own : radius + own + 1] = cv2.getGaussianKernel(2 * own + 1, sigma)[:, 0]
    weights = torch.from_numpy(kernels).to(batch.device)[:, :, None, None, None]  # (N, taps, 1, 1, 1)
    for axis, pad in ((3, (radius, radius, 0, 0)), (2, (0, 0, radius, radius))):
        padded, length = F.pad(batch, pad, mode="reflect"), batch.shape[axis]
        batch = sum(weights[:, tap] * padded.narrow(axis, tap, length) for tap in range(2 * radius + 1))  # type: ignore[assignment]
    return batch


def _erased(numbers: Numbers) -> Tensor:
    """(N, 1, H, W) bool."""
    height, width = numbers.size
    x0, y0, x1, y1 = (side[:, None] for side in numbers.erase.T)
    across = (np.arange(width) >= x0) & (np.arange(width) < x1)
    down = (np.arange(height) >= y0) & (np.arange(height) < y1)
    return torch.from_numpy(down[:, None, :, None] & across[:, None, None, :])


# ---- what both share


def _radius(sigma: float) -> int:
    """Of a Gaussian's kernel."""
    return int(np.ceil(3 * sigma))


@lru_cache(maxsize=4)
def _noise(length: int) -> np.ndarray:
    """(length,) normal numbers, as eight uniform ones added: whole-number arithmetic, so the same on every machine."""
    halves = rng.words(0, 0, np.arange(length), rng.NOISE, rng.WORDS).astype(np.uint32, order="C").view(np.uint16)
    total = halves.reshape(length, 8).sum(1, dtype=np.float64) / 65535 - 4
    bank = (total / np.sqrt(8 / 12)).astype(np.float32)
    bank.setflags(write=False)
    return bank


@lru_cache(maxsize=4)
def _noise_on(device: torch.device, length: int) -> Tensor:
    return torch.tensor(_noise(length), device=device)


def _between(u: np.ndarray, low: Any, high: Any, log: bool = False) -> np.ndarray:
    """0 … 1 → low … high, evenly or evenly in the logarithm; exactly `low` when the two are equal."""
    if log:
        return np.exp(_between(u, np.log(low), np.log(high)))
    return low + u * (high - low)


def _affine(view: View, u: dict[str, np.ndarray], side: np.ndarray) -> np.ndarray:
    """(N, 2, 3): flip, then the window's size, rotation about its centre, and where the centre lies."""
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


def _unknown(name: str, known: Sequence[str]) -> str:
    return f"Unknown setting {name!r}.{did_you_mean(str(name), known)}"


def _problems(view: View) -> list[str]:
    """All that is wrong with a view."""
    sides = view.size if isinstance(view.size, tuple) else (view.size, view.size)
    if not (len(sides) == 2 and all(isinstance(side, int) and 1 <= side <= 8192 for side in sides)):
        return [f"size is {view.size}; one side or (height, width), whole numbers from 1 to 8192"]
    problems = []
    for name, most in _LIMITS.items():
        if not _ascending((0.0, getattr(view, name)), 0.0, most):
            problems.append(f"{name} is {getattr(view, name)}; from 0 to {most:g}")
    for name, (least, most) in _RANGES.items():
        ends = getattr(view, name)
        if not (isinstance(ends, tuple) and len(ends) == 2 and _ascending(ends, least, most)):
            problems.append(f"{name} is {ends}; (low, high) from {least:g} to {most:g}")
    if view.place is not None and not all(_ascending((0.0, end), 0.0, 1.0) for end in view.place):
        problems.append(f"place is {view.place}; (x, y) from 0 to 1, or None")
    if not problems and view.blur_probability and _radius(view.blur[1]) >= min(sides):
        problems.append(f"a blur of {view.blur[1]:g} pixels is wider than the view")
    return problems


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


def _ascending(numbers: tuple[Any, ...], least: float, most: float) -> bool:
    """Whether these are numbers, none below the one before, within the limits."""
    if not all(isinstance(each, (int, float)) and not isinstance(each, bool) for each in numbers):
        return False
    return all(a <= b for a, b in itertools.pairwise((least, *numbers, most)))
