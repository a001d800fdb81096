"""Patch masks: blocks of patches that are hidden from a vision transformer.

Bao et al. 2021, "BEiT", https://arxiv.org/abs/2106.08254, algorithm 1: rectangles of random area and aspect ratio are
masked until a share of the patches is reached. A rectangle that would mask more than the share is drawn again; single
random patches make up what is left, so that the number of masked patches is exact.

All draws are functions of the number of an image in `batch.chance`: masks do not depend on the number of processes.
"""

import numpy as np
import torch
from torch import Tensor

from ribcage.runtime import rng
from ribcage.runtime.devices import on_device

SMALLEST = 4
"""Least area of a rectangle, in patches."""
ASPECTS = (0.3, 1 / 0.3)
"""Range of height : width, whose logarithm is uniform."""
ATTEMPTS = 40
"""Rectangles that are drawn for each image."""


@torch.library.custom_op("ribcage::block_mask_tensor", mutates_args=())
def block_mask_tensor(chance: Tensor, rows: int, columns: int, low: float, high: float, device: torch.device) -> Tensor:
    """(N, rows · columns): True for masked patches, for each number in a batch's `chance`; see `block_masks`. In a
    compiled step it is one operation, as NumPy draws it."""
    masks = block_masks(chance.numpy(), (rows, columns), (low, high))
    return on_device(masks.reshape(len(masks), -1), device)


@block_mask_tensor.register_fake
def _mask_like(chance: Tensor, rows: int, columns: int, low: float, high: float, device: torch.device) -> Tensor:
    return torch.empty((len(chance), rows * columns), dtype=torch.bool, device=device)


@torch.library.custom_op("ribcage::masked_crops", mutates_args=())
def masked_crops(
    chance: Tensor, rows: int, columns: int, low: float, high: float, device: torch.device
) -> tuple[Tensor, Tensor]:
    """For two crops of each image, of which a random one is masked: (2N, rows · columns), the first crops of all images
    before the second ones; and (N · K,), the places among all these patches of the masked ones of each image, followed
    by unmasked ones up to the largest possible number K: its shape does not depend on the draws."""
    numbers, size = chance.numpy(), rows * columns
    masks = block_masks(numbers, (rows, columns), (low, high)).reshape(len(numbers), size)
    second = rng.uniform(0, 0, numbers, rng.METHOD, 1) < 0.5
    both = np.concatenate([masks & ~second, masks & second])
    order = np.argsort(~masks, axis=1, kind="stable")[:, : _most(size, high)]
    places = order + size * (np.arange(len(numbers))[:, None] + len(numbers) * second)
    return on_device(both, device), on_device(places.flatten(), device)


@masked_crops.register_fake
def _crops_like(
    chance: Tensor, rows: int, columns: int, low: float, high: float, device: torch.device
) -> tuple[Tensor, Tensor]:
    count, size = len(chance), rows * columns
    masks = torch.empty((2 * count, size), dtype=torch.bool, device=device)
    return masks, torch.empty(count * _most(size, high), dtype=torch.int64, device=device)


def _most(size: int, high: float) -> int:
    """The largest number of masked patches."""
    return max(1, int(high * size))


def block_masks(chance: np.ndarray, grid: tuple[int, int], ratios: tuple[float, float]) -> np.ndarray:
    """(N, rows, columns): True for masked patches, for each number in `chance`. The share of masked patches is uniform
    between two ratios; at least one patch is masked."""
    count, (height, width) = len(chance), grid
    draws = rng.uniform(0, 0, chance, rng.PATCHES, 1 + height * width + 4 * ATTEMPTS)  # (N, …)
    share, singles, rectangles = np.split(draws, [1, 1 + height * width], axis=1)
    low, high = ratios
    wanted = np.maximum(1, ((low + (high - low) * share[:, 0]) * height * width).astype(np.int64))  # (N,)
    masks = np.zeros((count, height, width), bool)
    for draw in rectangles.reshape(count, ATTEMPTS, 4).transpose(1, 2, 0):
        left = wanted - masks.sum((1, 2))
        if not left.any():
            break
        masks |= _rectangles(draw, left, masks)
    order = np.where(masks.reshape(count, -1), -1.0, singles)  # masked ones first, then single patches
    ranks = order.argsort(axis=1, kind="stable").argsort(axis=1, kind="stable")
    return (ranks < wanted[:, None]).reshape(masks.shape)


def _rectangles(draw: np.ndarray, left: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """(N, rows, columns): one rectangle for each image, or nothing if it does not fit.

    draw: (4, N) random numbers; left: (N,) patches to be masked at most.
    """
    area = SMALLEST + draw[0] * (np.maximum(left, SMALLEST) - SMALLEST)
    aspect = np.exp(np.log(ASPECTS[0]) + draw[1] * np.log(ASPECTS[1] / ASPECTS[0]))
    sides = (np.sqrt(area * aspect), np.sqrt(area / aspect))
    inside, fits = np.ones((1, 1, 1), bool), np.ones(len(left), bool)
    for axis, side in enumerate(sides):
        whole, size = np.maximum(1, np.rint(side)), masks.shape[1 + axis]
        start = np.floor(draw[2 + axis] * np.maximum(1, size - whole + 1))
        places = np.arange(size)
        along = (places >= start[:, None]) & (places < (start + whole)[:, None])  # (N, size)
        inside = inside & np.expand_dims(along, 2 - axis)
        fits &= whole < size
    more = (inside & ~masks).sum((1, 2))
    return inside & (fits & (more > 0) & (more <= left))[:, None, None]


def places_of(masks: Tensor, count: int) -> Tensor:
    """(N, count) in ascending order: the masked patches of masks (N, L) with `count` masked patches in each row."""
    return masks.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, :count]
