"""Augmentation on the CPU with OpenCV."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import cv2
import numpy as np
import torch
from torch import Tensor

from ribcage.imaging.augment import compiled_warp
from ribcage.imaging.augment.numbers import NOISE_STARTS, Numbers, noise_bank, shrink_factors
from ribcage.imaging.augment.spec import blur_radius

Images = Sequence[np.ndarray] | np.ndarray
"""N images: one array, or a sequence of arrays; a memory map is not copied."""


def apply(images: Images, numbers: Numbers, mean: float, std: float) -> Tensor:
    """N square uint8 or uint16 images → (N, 1, H, W) float32."""
    batch = np.empty((len(numbers), *numbers.size), np.float32)
    apply_into(batch, images, numbers, mean, std)
    return torch.from_numpy(batch)[:, None]


def apply_into(out: Images, images: Images, numbers: Numbers, mean: float, std: float) -> None:
    """As `apply`, into N (H, W) float32 arrays."""
    if len(numbers):
        left = _warp(images, numbers, mean, std, out)
        _finish(replace(numbers, noise=left), std, out)


def _warp(images: Images, numbers: Numbers, mean: float, std: float, out: Images) -> np.ndarray:
    """Downsample, change intensities and warp, reading only the part of each image that its view covers. Returns the
    (N,) standard deviations of the noise that is still to be added."""
    height, width = numbers.size
    eight_bits = images[0].dtype == np.uint8
    tables = _intensity(np.arange(256)[None] / 255, numbers, mean, std) if eight_bits else None  # (N, 256)
    shade = _float_shade(numbers, mean, std) if tables is None else _table_shade(tables)
    black = (_intensity(np.zeros((len(numbers), 1)), numbers, mean, std) if tables is None else tables)[:, 0].tolist()
    factors = shrink_factors(numbers.affine)
    parts = _parts(numbers, factors, np.array([len(image) for image in images]))
    matrices = _matrices(numbers.affine, factors, parts)
    copies, left = _copies(matrices, factors, parts, numbers.size), numbers.noise.copy()
    warp = None if tables is None else _level_warp(tables, matrices, numbers, std)
    warped: list[int] = []
    for n, (factor, (x0, y0, x1, y1), copy) in enumerate(zip(factors.tolist(), parts.tolist(), copies, strict=True)):
        part = images[n][y0:y1, x0:x1]
        if copy:
            shade(n, part, out[n])
        elif not part.size:
            out[n][:] = black[n]
        else:
            part = part if factor == 1 else _shrink(part, factor)
            if warp is not None:
                warp(n, part, out[n])
                warped.append(n)
            else:
                flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
                size, border = (width, height), (cv2.BORDER_CONSTANT, black[n])
                cv2.warpAffine(shade(n, part, None), matrices[n], size, out[n], flags, *border)
    left[warped] *= numbers.sigma[warped] > 0
    return left


def _level_warp(
    tables: np.ndarray, matrices: np.ndarray, numbers: Numbers, std: float
) -> compiled_warp.LevelWarp | None:
    """The compiled warp, if it is worthwhile. It adds the noise, too, except where the image is blurred before that."""
    height, width = numbers.size
    if not compiled_warp.is_worthwhile(len(numbers), width):
        return None
    noise = np.where(numbers.sigma > 0, 0, numbers.noise / std).astype(np.float32)
    bank = noise_bank(NOISE_STARTS + height * width)
    return compiled_warp.LevelWarp(tables, np.ascontiguousarray(matrices), noise, numbers.noise_at, bank)


def _finish(numbers: Numbers, std: float, out: Images) -> None:
    """Blur, noise, erasing, in place."""
    for n in np.flatnonzero(numbers.sigma).tolist():
        sigma = float(numbers.sigma[n])
        span = 2 * blur_radius(sigma) + 1
        cv2.GaussianBlur(out[n], (span, span), sigma, out[n])
    noisy = np.flatnonzero(numbers.noise).tolist()
    if noisy:
        pixels = out[0].size
        bank = noise_bank(NOISE_STARTS + pixels)
        for n in noisy:
            start = int(numbers.noise_at[n])
            grain = bank[start : start + pixels].reshape(out[n].shape)
            cv2.scaleAdd(grain, float(numbers.noise[n]) / std, out[n], out[n])
    for n in np.flatnonzero(numbers.erase[:, 2] > numbers.erase[:, 0]).tolist():
        x0, y0, x1, y1 = numbers.erase[n]
        out[n][y0:y1, x0:x1] = 0.0


_Shade = Callable[[int, np.ndarray, np.ndarray | None], np.ndarray]


def _table_shade(tables: np.ndarray) -> _Shade:
    """For uint8: one lookup table per image."""
    return lambda n, part, out: cv2.LUT(part, tables[n], out)


def _float_shade(numbers: Numbers, mean: float, std: float) -> _Shade:
    """For uint16: a table would be larger than the image."""

    def shade(n: int, part: np.ndarray, out: np.ndarray | None) -> np.ndarray:
        scaled = part.astype(np.float32).reshape(1, -1) / np.float32(65535)
        shaded = _intensity(scaled, numbers.take(slice(n, n + 1)), mean, std).reshape(part.shape)
        if out is not None:
            out[...] = shaded
        return shaded

    return shade


def _intensity(values: np.ndarray, numbers: Numbers, mean: float, std: float) -> np.ndarray:
    """(N or 1, K) in 0 … 1 → (N, K) float32: gamma, contrast about the mean, brightness, normalisation."""
    numbers_of = (numbers.gamma, numbers.contrast, numbers.brightness)
    gamma, contrast, brightness = (each[:, None].astype(values.dtype) for each in numbers_of)
    shaded = (values**gamma if (gamma != 1).any() else values) * contrast
    shaded += mean * (1 - contrast) + brightness
    np.clip(shaded, 0, 1, out=shaded)
    shaded -= mean
    shaded /= std
    return shaded.astype(np.float32, copy=False)


def _parts(numbers: Numbers, factors: np.ndarray, sides: np.ndarray) -> np.ndarray:
    """(N, 4) x0, y0, x1, y1: the stored pixels that a view covers, in whole blocks of `factor`."""
    height, width = numbers.size
    corners = np.array([[0.5, 0.5, 1], [width - 0.5, 0.5, 1], [0.5, height - 0.5, 1], [width - 0.5, height - 0.5, 1]])
    shrunk_images = numbers.affine @ corners.T / factors[:, None, None] - 0.5  # (N, 2, 4)
    low, high = np.floor(shrunk_images.min(2)), np.ceil(shrunk_images.max(2)) + 1
    ends = np.concatenate([low, high], axis=1).clip(-1e9, 1e9).astype(np.int64) * factors[:, None]
    return ends.clip(0, sides[:, None])


def _matrices(affine: np.ndarray, factors: np.ndarray, parts: np.ndarray) -> np.ndarray:
    """(N, 2, 3) matrices for OpenCV: integers at pixel centres, in coordinates of the downsampled region."""
    matrices = affine / factors[:, None, None]
    matrices[:, :, 2] += matrices[:, :, :2].sum(2) / 2 - 0.5 - parts[:, :2] / factors[:, None]
    return matrices


def _copies(matrices: np.ndarray, factors: np.ndarray, parts: np.ndarray, size: tuple[int, int]) -> list[bool]:
    """Which images need no interpolation, because the region equals the view."""
    height, width = size
    same = (matrices == np.eye(2, 3)).all((1, 2)) & (factors == 1)
    same &= (parts[:, 2] - parts[:, 0] == width) & (parts[:, 3] - parts[:, 1] == height)
    return list(same.tolist())


def _shrink(part: np.ndarray, factor: int) -> np.ndarray:
    """Block means; the last row and column are repeated to fill their blocks."""
    down, across = -part.shape[0] % factor, -part.shape[1] % factor
    if down or across:
        part = cv2.copyMakeBorder(part, 0, down, 0, across, cv2.BORDER_REPLICATE)
    return cv2.resize(part, (part.shape[1] // factor, part.shape[0] // factor), interpolation=cv2.INTER_AREA)
