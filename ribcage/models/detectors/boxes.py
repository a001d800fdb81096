"""Boxes of a batch: ground truth, and detections in one image."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 – the usual name
from torchvision import ops

CANDIDATES = 1000
"""Limit on the boxes of one image before suppression."""


@dataclass(frozen=True)
class Truth:
    """Ground-truth boxes of N images, in pixels of the view."""

    images: Tensor
    """(M,) int64: image number; N for a box that belongs to none of these images."""
    findings: Tensor
    """(M,) int64"""
    boxes: Tensor
    """(M, 4) float: x0, y0, x1, y1."""
    asked: Tensor
    """(N, F) bool: whether the ground truth of a finding is known. A label may be positive, or nothing may be known,
    without any boxes drawn: detections are then neither right nor wrong."""

    @classmethod
    def of(cls, boxes: Tensor, labels: Tensor) -> "Truth":
        """From a batch's (M, 6) boxes of one view and its (N, F) labels. Boxes with a negative image number are left
        out."""
        images, findings = boxes[:, 0].long(), boxes[:, 1].long()
        images = torch.where(images < 0, len(labels), images)
        asked = F.pad(labels <= 0.5, (0, 0, 0, 1))  # false for NaN
        asked[images, findings] = True
        return cls(images, findings, boxes[:, 2:].float(), asked[:-1])

    def __len__(self) -> int:
        return len(self.images)

    def taken(self, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """(…) findings and (…, 4) coordinates of the boxes with these numbers; -1, no box, has a square of 1 pixel.

        Losses are computed for it and multiplied by 0: to select the places that have a box, the CPU would have to wait
        for a GPU to count them."""
        square = F.pad(self.boxes.new_zeros(1, 2), (0, 2), value=1.0)
        return F.pad(self.findings, (0, 1))[numbers], torch.cat([self.boxes, square])[numbers]


@dataclass(frozen=True)
class Found:
    """Detections in one image, in descending order of scores."""

    boxes: Tensor
    """(K, 4) float: x0, y0, x1, y1 in pixels of the view."""
    findings: Tensor
    """(K,) int64"""
    scores: Tensor
    """(K,) float in 0 … 1."""


def best_boxes(boxes: Tensor, scores: Tensor, size: tuple[int, int], overlap: float, keep: int) -> Found:
    """The best `keep` of (L, 4) boxes with (L, F) scores, clipped to the image.

    Non-maximum suppression per finding drops boxes that overlap a better one by more than `overlap`. There is no score
    threshold.
    """
    place, finding = _top(scores, min(max(CANDIDATES, keep), scores.numel()))
    chosen = ops.clip_boxes_to_image(boxes[place], size)
    empty = (chosen[:, 2] <= chosen[:, 0]) | (chosen[:, 3] <= chosen[:, 1])  # drops cells beyond the edge, and NaN
    chosen, sure, finding = chosen[~empty], scores[place, finding][~empty], finding[~empty]
    kept = ops.batched_nms(chosen, sure, finding, overlap)[:keep]
    return Found(chosen[kept], finding[kept], sure[kept])


def _top(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Positions and findings of the highest of (L, F) scores; the earlier of equal ones."""
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
