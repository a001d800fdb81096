"""FCOS: each cell of a feature pyramid predicts its finding, the distances to the sides of its box, and a quality.

Tian et al. 2019, https://arxiv.org/abs/1904.01355, eq. 2, with sums over all cells of all maps:

  L = 1/P sum focal(p, c*) + 1/P sum_{c* > 0} GIoU(box, box*) + 1/P sum_{c* > 0} BCE(quality, quality*)

P is the number of cells that are assigned a box. With the authors' later additions: centre sampling, distances in
strides, GIoU, and the quality branch on the tower of the boxes.
"""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 – the usual name
from torchvision import ops

from ribcage.models.detectors.boxes import Truth, cells
from ribcage.models.detectors.pyramid import Size, normed, pyramid

PRIOR = 0.01
"""Initial probability of every finding in every cell."""
RADIUS = 1.5
"""Radius of centre sampling in strides: cells within it of a box's centre may be assigned the box."""
REACH = 8
"""Largest distance in strides from a cell to a side of its box; larger boxes belong to the next map."""
TINY = 1e-7
"""Area that is added to the denominators of GIoU."""


@dataclass(frozen=True)
class FcosOutputs:
    """Predictions of L cells for N images."""

    logits: Tensor
    """(N, L, F)"""
    boxes: Tensor
    """(N, L, 4): x0, y0, x1, y1 in pixels."""
    quality: Tensor
    """(N, L) logits."""
    cells: Tensor
    """(L, 3): x, y, stride."""


class FCOS(nn.Module):
    """The head. `levels`: stride → channels of the backbone's maps."""

    def __init__(
        self, levels: dict[int, int], findings: int, *, width: int, depth: int, quality: Literal["centreness", "iou"]
    ) -> None:
        super().__init__()
        self.kind = quality
        self.pyramid = pyramid(levels, width)
        self.class_tower, self.box_tower = (_tower(width, depth) for _ in range(2))
        self.classes, self.sides, self.quality = (nn.Conv2d(width, out, 3, padding=1) for out in (findings, 4, 1))
        self.scales = nn.Parameter(torch.ones(len(self.pyramid.strides)))
        for layer in (*self.class_tower, *self.box_tower, self.classes, self.sides, self.quality):
            if isinstance(layer, nn.Conv2d):
                nn.init.normal_(layer.weight, std=0.01)
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        nn.init.constant_(self.classes.bias, -math.log((1 - PRIOR) / PRIOR))  # type: ignore[arg-type]

    def forward(self, maps: list[Tensor], size: Size) -> FcosOutputs:
        """Predictions of all cells for images of this size."""
        levels = self.pyramid(maps)
        places = cells([(x.shape[2], x.shape[3]) for x in levels], self.pyramid.strides, levels[0].device)
        said = [self._level(x, self.scales[number]) for number, x in enumerate(levels)]
        logits, sides, quality = (
            torch.cat([part.flatten(2).mT.float() for part in parts], dim=1) for parts in zip(*said, strict=True)
        )  # (N, L, …)
        return FcosOutputs(logits, _boxes(sides, places), quality[:, :, 0], places)

    def losses(self, outputs: FcosOutputs, truth: Truth) -> dict[str, Tensor]:
        """Sums over all cells, to be divided by `count`."""
        box = self._assigned(truth, outputs.cells)  # (N, L)
        has, (finding, true) = box >= 0, truth.taken(box)
        targets = torch.zeros_like(outputs.logits).scatter_(2, finding[..., None], has[..., None].to(outputs.logits))
        focal = ops.sigmoid_focal_loss(outputs.logits, targets, alpha=0.25, gamma=2.0) * truth.asked[:, None]
        found = torch.where(has[..., None], outputs.boxes, true)
        apart = _giou_loss(found, true)
        wanted = torch.where(has, self._quality(found, true, outputs.cells), 0.0)
        quality = F.binary_cross_entropy_with_logits(outputs.quality, wanted, reduction="none")
        return {"classes": focal.sum(), "boxes": (apart * has).sum(), "quality": (quality * has).sum()}

    def count(self, truth: Truth, sizes: list[Size]) -> Tensor:
        """P, for backbone maps of these sizes."""
        places = cells(self.pyramid.sizes(sizes), self.pyramid.strides, truth.boxes.device)
        return (self._assigned(truth, places) >= 0).sum().float()

    def boxes(self, outputs: FcosOutputs) -> tuple[Tensor, Tensor]:
        """(N, L, 4) boxes and (N, L, F) scores: the geometric mean of class and quality."""
        return outputs.boxes, (outputs.logits.sigmoid() * outputs.quality.sigmoid()[:, :, None]).sqrt()

    def _level(self, x: Tensor, scale: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        boxes = self.box_tower(x)
        return self.classes(self.class_tower(x)), self.sides(boxes) * scale, self.quality(boxes)

    def _assigned(self, truth: Truth, places: Tensor) -> Tensor:
        """(N, L): the box that a cell is assigned; -1 for none.

        A cell with several boxes gets the smallest. The cell at a box's centre may get it even if the box is small.
        """
        sides = _sides(truth.boxes[:, None], places)  # (M, L, 4)
        stride, farthest = places[:, 2], sides.amax(2)
        nearest, reach = self._reach(stride)
        away = (places[:, :2] - _centres(truth.boxes)[:, None]).abs().amax(2)  # (M, L)
        inside = ((sides.amin(2) > 0) & (away < RADIUS * stride)) | (away <= stride / 2)
        mine = inside & (farthest >= nearest) & (farthest < reach)
        order = ops.box_area(truth.boxes).argsort(descending=True, stable=True)
        rank = torch.arange(len(order), device=places.device)[:, None]
        ranks = torch.where(mine[order], rank, -1)
        last = rank.new_full((len(truth.asked) + 1, len(places)), -1)  # the last row: boxes of no image
        last.scatter_reduce_(0, truth.images[order, None].expand_as(ranks), ranks, "amax")
        return F.pad(order, (0, 1), value=-1)[last[:-1]]

    def _reach(self, stride: Tensor) -> tuple[Tensor, Tensor]:
        """(L,) twice: from and to which distance from a cell to the farthest side of its box."""
        strides = self.pyramid.strides
        nearest, reach = torch.zeros_like(stride), torch.where(stride == strides[-1], math.inf, REACH * stride)
        for finer, coarser in pairwise(strides):
            nearest = torch.where(stride == coarser, REACH * finer, nearest)
        return nearest, reach

    def _quality(self, found: Tensor, true: Tensor, places: Tensor) -> Tensor:
        """(N, L): eq. 3, the centreness of a cell in its box; or the IoU of the predicted with the ground-truth box."""
        if self.kind == "iou":
            return _overlaps(found.detach(), true)
        left, top, right, bottom = _sides(true, places).clamp(min=0).unbind(-1)
        across, down = (torch.minimum(a, b) / torch.maximum(a, b) for a, b in ((left, right), (top, bottom)))
        return (across * down).sqrt()


def _tower(width: int, depth: int) -> nn.Sequential:
    layers: list[Any] = []
    for _ in range(depth):
        layers += [nn.Conv2d(width, width, 3, padding=1), normed(width), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


def _boxes(sides: Tensor, places: Tensor) -> Tensor:
    """(…, L, 4): logarithms of distances to left, top, right, bottom in strides → boxes in pixels."""
    left, top, right, bottom = (sides.clamp(max=8).exp() * places[:, 2:]).unbind(-1)
    x, y = places[:, 0], places[:, 1]
    return torch.stack([x - left, y - top, x + right, y + bottom], dim=-1)


def _sides(boxes: Tensor, places: Tensor) -> Tensor:
    """(…, 4): distances from the centre of a cell to left, top, right and bottom of a box; negative outside."""
    x, y = places[..., 0], places[..., 1]
    return torch.stack([x - boxes[..., 0], y - boxes[..., 1], boxes[..., 2] - x, boxes[..., 3] - y], dim=-1)


def _centres(boxes: Tensor) -> Tensor:
    return (boxes[:, :2] + boxes[:, 2:]) / 2


def _giou_loss(found: Tensor, true: Tensor) -> Tensor:
    """(…,): 1 - GIoU of paired boxes. Rezatofighi et al. 2019, https://arxiv.org/abs/1902.09630, algorithm 1.

    As in torchvision, whose function selects the boxes that overlap, for which the CPU waits."""
    shared, union = _areas(found, true)
    first, last = torch.minimum(found[..., :2], true[..., :2]), torch.maximum(found[..., 2:], true[..., 2:])
    width, height = (last - first).unbind(-1)
    around = width * height
    return 1 - (shared / (union + TINY) - (around - union) / (around + TINY))


def _overlaps(one: Tensor, other: Tensor) -> Tensor:
    """(…,): IoU of paired boxes."""
    shared, union = _areas(one, other)
    return shared / union.clamp(min=1e-9)


def _areas(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """(…,) twice: intersection and union of paired boxes."""
    first, last = torch.maximum(one[..., :2], other[..., :2]), torch.minimum(one[..., 2:], other[..., 2:])
    width, height = (last - first).clamp(min=0).unbind(-1)
    areas = [(boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1]) for boxes in (one, other)]
    return width * height, areas[0] + areas[1] - width * height
