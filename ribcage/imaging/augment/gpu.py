"""Augmentation with torch on any device; equals `cpu.apply` up to rounding."""

from functools import lru_cache

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 – the usual name

from ribcage.imaging.augment.numbers import NOISE_STARTS, Numbers, draw_numbers, noise_bank, shrink_factors
from ribcage.imaging.augment.spec import View, blur_radius
from ribcage.runtime.devices import on_device


def apply_torch(stored: Tensor, numbers: Numbers, mean: float, std: float) -> Tensor:
    """(N, S, S) uint8 or uint16 → (N, 1, H, W) float32 on the device of the images; equals `apply` up to rounding."""
    images = stored[:, None].float() / (255 if stored.dtype == torch.uint8 else 65535)
    batch = torch.empty((len(numbers), 1, *numbers.size), device=stored.device)
    factors = shrink_factors(numbers.affine)
    for factor in np.unique(factors).tolist():
        places = np.flatnonzero(factors == factor)
        chosen = on_device(places, stored.device)
        part = images if len(places) == len(numbers) else images[chosen]
        batch[chosen] = _warp(part, numbers.take(places), factor, mean, std)
    return _finish(numbers, std, batch)


def _warp(images: Tensor, numbers: Numbers, factor: int, mean: float, std: float) -> Tensor:
    images = shrunk_images(images, factor)
    shaded = _intensity(images, numbers, mean, std)
    black = _intensity(images.new_zeros(len(numbers), 1, 1, 1), numbers, mean, std)
    height, width = images.shape[2:]
    grid = _sampling_grid(numbers, factor, height, width, images.device)
    return F.grid_sample(shaded - black, grid, mode="bilinear", padding_mode="zeros", align_corners=False) + black


def _sampling_grid(numbers: Numbers, factor: int, height: int, width: int, device: torch.device) -> Tensor:
    """(N, H, W, 2) in -1 … 1 across the downsampled image, computed on the device from (N, 2, 3) matrices.
    No matrix product is used, as it may be rounded to ten bits."""
    sides = np.array([width, height], np.float64)[:, None]
    matrices = on_device((numbers.affine / factor / sides * 2).astype(np.float32), device)
    a, b, c = (matrices[:, None, None, :, k] for k in range(3))
    y, x = (torch.arange(length, device=device) + 0.5 for length in numbers.size)
    return a * x[None, None, :, None] + b * y[None, :, None, None] + (c - 1)


def fixed_view_grid(view: View, side: int) -> tuple[int, Tensor]:
    """A deterministic view as part of an exported network, for stored images of this side: the factor for
    `shrunk_images`, then the (1, H, W, 2) grid for `grid_sample` with zero padding."""
    numbers = draw_numbers(view, 0, 0, np.zeros(1, np.int64), 0, side)
    factor = int(shrink_factors(numbers.affine)[0])
    side = -(-side // factor)
    return factor, _sampling_grid(numbers, factor, side, side, torch.device("cpu"))


def shrunk_images(images: Tensor, factor: int) -> Tensor:
    """(N, C, S, S) images downsampled by block means; the last row and column are repeated to fill their blocks."""
    if factor == 1:
        return images
    down, across = -images.shape[2] % factor, -images.shape[3] % factor
    return F.avg_pool2d(F.pad(images, (0, across, 0, down), mode="replicate"), factor)


def _intensity(values: Tensor, numbers: Numbers, mean: float, std: float) -> Tensor:
    gamma, contrast, brightness = (
        on_device(x.astype(np.float32), values.device)[:, None, None, None]
        for x in (numbers.gamma, numbers.contrast, numbers.brightness)
    )
    bent = values**gamma if (numbers.gamma != 1).any() else values
    return (((bent - mean) * contrast + (mean + brightness)).clamp(0, 1) - mean) / std


def _finish(numbers: Numbers, std: float, batch: Tensor) -> Tensor:
    """Blur, noise, erasing."""
    device = batch.device
    blurred = np.flatnonzero(numbers.sigma)
    if len(blurred):
        chosen = on_device(blurred, device)
        batch[chosen] = _blur(batch[chosen], numbers.sigma[blurred])
    if numbers.noise.any():
        pixels = batch[0].numel()
        starts = on_device(numbers.noise_at, device)
        grain = _noise_on(device, NOISE_STARTS + pixels).unfold(0, pixels, 1)[starts]
        batch += grain.view_as(batch) * on_device((numbers.noise / std).astype(np.float32), device)[:, None, None, None]
    if (numbers.erase[:, 2] > numbers.erase[:, 0]).any():
        batch = batch.masked_fill(_erased(numbers, device), 0.0)
    return batch


def _blur(batch: Tensor, sigmas: np.ndarray) -> Tensor:
    """Gaussian blur with one sigma per image, as a sum of shifted images: a convolution may round to ten bits."""
    radius = blur_radius(float(sigmas.max()))
    kernels = np.zeros((len(sigmas), 2 * radius + 1), np.float32)
    for kernel, sigma in zip(kernels, sigmas.tolist(), strict=True):
        own = blur_radius(sigma)
        kernel[radius - own : radius + own + 1] = cv2.getGaussianKernel(2 * own + 1, sigma)[:, 0]
    weights = on_device(kernels, batch.device)[:, :, None, None, None]  # (N, taps, 1, 1, 1)
    for axis, pad in ((3, (radius, radius, 0, 0)), (2, (0, 0, radius, radius))):
        padded, length = F.pad(batch, pad, mode="reflect"), batch.shape[axis]
        batch = sum(weights[:, tap] * padded.narrow(axis, tap, length) for tap in range(2 * radius + 1))  # type: ignore[assignment]
    return batch


def _erased(numbers: Numbers, device: torch.device) -> Tensor:
    """(N, 1, H, W) bool."""
    height, width = numbers.size
    x0, y0, x1, y1 = on_device(numbers.erase, device).T[:, :, None]
    x, y = torch.arange(width, device=device), torch.arange(height, device=device)
    across, down = (x >= x0) & (x < x1), (y >= y0) & (y < y1)
    return down[:, None, :, None] & across[:, None, None, :]


@lru_cache(maxsize=4)
def _noise_on(device: torch.device, length: int) -> Tensor:
    return torch.tensor(noise_bank(length), device=device)
