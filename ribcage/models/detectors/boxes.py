"""Boxes: what is known of the images of a batch, and what a head finds in one."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision import ops

CANDIDATES = 1000
"""Boxes of one image that come to suppression at most."""


@dataclass(frozen=True)
class Truth:
    """The true boxes of N images, in pixels of the view."""

    images: Tensor
    """(M,) int64: which image."""
    findings: Tensor
    """(M,) int64"""
    boxes: Tensor
    """(M, 4) float: x0, y0, x1, y1."""
    asked: Tensor
    """(N, F) bool: whether all boxes of the finding are known. A label may say that there is something, or nothing at
    all, and nobody have drawn where: then what a head finds is neither right nor wrong."""

    @classmethod
    def of(cls, boxes: Tensor, labels: Tensor) -> "Truth":
        """From a batch's (M, 6) boxes of one view and its (N, F) labels."""
        images, findings = boxes[:, 0].long(), boxes[:, 1].long()
        asked = labels <= 0.5  # not where NaN
        asked[images, findings] = True
        return cls(images, findings, boxes[:, 2:].float(), asked)

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True)
class Found:
    """The boxes found in one image, the surest first."""

    boxes: Tensor
    """(K, 4) float: x0, y0, x1, y1 in pixels of the view."""
    findings: Tensor
    """(K,) int64"""
    scores: Tensor
    """(K,) float in 0 … 1."""


def best_boxes(boxes: Tensor, scores: Tensor, size: tuple[int, int], overlap: float, keep: int) -> Found:
    """Of (L, 4) boxes with (L, F) scores the best `keep`, cut at the image's edge.

    None overlaps a better one of its finding by more than `overlap`. No score is too low.
    """
    place, finding = _top(scores, min(max(CANDIDATES, keep), scores.numel()))
    chosen = ops.clip_boxes_to_image(boxes[place], size)
    empty = (chosen[:, 2] <= chosen[:, 0]) | (
        chosen[:, 3] <= chosen[:, 1]
    )  # cells beyond the edge; not what is no number
    chosen, sure, finding = chosen[~empty], scores[place, finding][~empty], finding[~empty]
    kept = ops.batched_nms(chosen, sure, finding, overlap)[:keep]
    return Found(chosen[kept], finding[kept], sure[kept])


def _top(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Places and findings of the highest of (L, F) scores; of equal ones the earlier."""
    order = scores.flatten().sort(descending=True, stable=True).indices[:count]
    return order // scores.shape[1], order % scores.shape[1]


def cells(sizes: list[tuple[int, int]], strides: list[int], device: torch.device) -> Tensor:
    """(L, 3): x and y of the centre of each cell of several maps, in pixels, and its side."""
    levels = []
    for (height, width), stride in zip(sizes, strides, strict=True):
        y, x = ((torch.arange(count, device=device) + 0.5) * stride for count in (height, width))
        place = torch.cartesian_prod(y, x).flip(1)  # row by row
        levels.append(torch.cat([place, place.new_full((len(place), 1), stride)], dim=1))
    return torch.cat(levels)
