"""Context and target blocks of I-JEPA: the patches that are predicted, and the patches that they are predicted from.

Assran et al. 2023, https://arxiv.org/abs/2301.08243, section 3: the targets are several rectangles of patches, and the
context is one large block without the patches of all targets.

So that tensors have the same shape in every step, targets and contexts have a fixed number of patches. A target has the
mean area of the paper; a rectangle that has more patches loses some of its first or last row. A context has as many
patches as are left over if targets do not overlap, drawn at random from the block without targets. The published code
also truncates the contexts of a batch to the smallest one.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ribcage.runtime import rng
from ribcage.runtime.devices import on_device

TARGET_AREA = 0.175
"""Area of a target as a share of the image: the mean of .15 and .2."""
TARGET_ASPECTS = (0.75, 1.5)
"""Range of height : width of a target."""
CONTEXT_AREAS = (0.85, 1.0)
"""Range of the area of the context block, whose aspect ratio is that of the image."""


@dataclass(frozen=True)
class BlockCounts:
    """How many patches are in each of the blocks of an image."""

    grid: tuple[int, int]
    targets: int

    @property
    def target(self) -> int:
        """Patches of each target."""
        return max(1, round(TARGET_AREA * self.grid[0] * self.grid[1]))

    @property
    def context(self) -> int:
        """Patches of the context."""
        return self.grid[0] * self.grid[1] - self.targets * self.target


def drawn_blocks(chance: Tensor, counts: BlockCounts, device: torch.device) -> tuple[Tensor, Tensor]:
    """(N, context) and (N, targets, target): the patches of the context and of the targets of each image, for each
    number in a batch's `chance`. The patches of a block are in the order of the image, and a context has no patch of a
    target."""
    places = target_block_tensor(chance, *counts.grid, counts.targets, device)
    return places[:, : counts.context], places[:, counts.context :].unflatten(1, (counts.targets, counts.target))


@torch.library.custom_op("ribcage::target_block_tensor", mutates_args=())
def target_block_tensor(chance: Tensor, rows: int, columns: int, targets: int, device: torch.device) -> Tensor:
    """(N, context + targets · target): see `drawn_blocks`. It is one operation in a compiled step, as NumPy draws."""
    counts = BlockCounts((rows, columns), targets)
    context, blocks = _blocks(chance.numpy(), counts)
    return on_device(np.concatenate([context, blocks.reshape(len(blocks), -1)], axis=1), device)


@target_block_tensor.register_fake
def _blocks_like(chance: Tensor, rows: int, columns: int, targets: int, device: torch.device) -> Tensor:
    counts = BlockCounts((rows, columns), targets)
    return torch.empty((len(chance), counts.context + targets * counts.target), dtype=torch.int64, device=device)


def _blocks(chance: np.ndarray, counts: BlockCounts) -> tuple[np.ndarray, np.ndarray]:
    """(N, context) and (N, targets, target) places of patches, counted row by row."""
    height, width = counts.grid
    draws = rng.uniform(0, 0, chance, rng.PATCHES, 4 * counts.targets + 3 + height * width)
    target_draws, context_draws, order = np.split(draws, [4 * counts.targets, 4 * counts.targets + 3], axis=1)
    targets = _targets(target_draws.reshape(len(chance), counts.targets, 4), counts)
    taken = np.zeros((len(chance), height * width), bool)
    np.put_along_axis(taken, targets.reshape(len(chance), -1), True, axis=1)
    # first the patches of the block, in random order, then others; never those of a target
    ranks = np.where(taken, 3.0, order + ~_context(context_draws, counts.grid))
    return np.sort(ranks.argsort(axis=1, kind="stable")[:, : counts.context], axis=1), targets


def _targets(draw: np.ndarray, counts: BlockCounts) -> np.ndarray:
    """(N, targets, target): rectangles of random aspect ratio and place."""
    (height, width), area = counts.grid, counts.target
    aspect = TARGET_ASPECTS[0] + draw[..., 0] * (TARGET_ASPECTS[1] - TARGET_ASPECTS[0])
    rows = np.rint(np.sqrt(area * aspect)).astype(np.int64).clip(-(-area // width), min(height, area))
    columns = -(-area // rows)
    top, left = (
        (draw[..., number] * (side - extent + 1)).astype(np.int64)
        for number, side, extent in ((1, height, rows), (2, width, columns))
    )
    surplus = (rows * columns - area) * (draw[..., 3] < 0.5)
    row, column, across, skipped = (part[..., None] for part in (top, left, columns, surplus))
    place = np.arange(area) + skipped
    return (row + place // across) * width + column + place % across


def _context(draw: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """(N, L): True inside of the context block."""
    share = np.sqrt(CONTEXT_AREAS[0] + draw[:, 0] * (CONTEXT_AREAS[1] - CONTEXT_AREAS[0]))
    inside = []
    for number, side in enumerate(grid, 1):
        extent = np.rint(share * side).astype(np.int64)
        start = (draw[:, number] * (side - extent + 1)).astype(np.int64)
        place = np.arange(side)
        inside.append((place >= start[:, None]) & (place < (start + extent)[:, None]))
    return (inside[0][:, :, None] & inside[1][:, None, :]).reshape(len(draw), -1)
