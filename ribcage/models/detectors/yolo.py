"""YOLOv3 as in the LoVT protocol: three maps, three anchors each, and a loss that is a mean over all cells.

Redmon & Farhadi 2018, https://arxiv.org/abs/1804.02767; Müller et al. 2022, https://arxiv.org/abs/2112.02889. For a map
of S cells, with m = 1 where an anchor of a cell is assigned a box, and e = 1 where it is neither assigned a box nor
ignored because it nearly fits one,

  L = 1/(3 S) sum 2.5 m (BCE(x) + BCE(y) + (w - w*)^2 + (h - h*)^2) + m BCE(c, 1) + e BCE(c, 0) / 2,

summed over maps, the mean over images. On each map, each box is assigned to the anchor with the highest IoU. For
several findings, m BCE(findings) is added; the protocol has one.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 – the usual name

from ribcage.models.detectors.boxes import Truth
from ribcage.models.detectors.pyramid import SimplePyramid, Size

Anchors = Literal["published", "fitted"]
PUBLISHED = (
    ((5.4, 7.02), (8.64, 16.2), (17.82, 12.42)),
    ((16.2, 32.94), (33.48, 24.3), (31.86, 64.26)),
    ((64.64, 48.6), (84.24, 106.92), (201.42, 176.04)),
)
"""Widths and heights for images of 224 pixels, finest map first: those of COCO times 0.54, with the protocol's
misprint, 64.64."""
SIDE = 224
MAPS, ANCHORS = 3, 3
WIDTHS = (128, 256, 512)
"""Widths of the 1 × 1 convolutions on each map, finest first; the 3 × 3 are twice as wide."""
COORDINATES, EMPTY, NEARLY = 2.5, 0.5, 0.5


@dataclass(frozen=True)
class YoloOutputs:
    """Predictions of the cells of one map."""

    raw: Tensor
    """(N, 3, h, w, 5 + F): x, y, w, h, confidence, findings."""
    anchors: Tensor
    """(3, 2) in pixels."""
    stride: int


class YOLO(nn.Module):
    """The head. `levels`: stride → channels of the backbone's maps; three maps are made of a vision transformer's
    one."""

    anchors: Tensor

    def __init__(self, levels: dict[int, int], findings: int, *, width: int) -> None:
        super().__init__()
        self.pyramid = SimplePyramid(levels, width, MAPS) if len(levels) == 1 else None
        if self.pyramid is not None:
            levels = dict.fromkeys(self.pyramid.strides, width)
        if len(levels) != MAPS:
            raise ValueError(
                f"--head yolo requires a backbone with {MAPS} feature maps; this backbone has {len(levels)}. Use "
                f"--head fcos"
            )
        self.strides, self.findings = list(levels), findings
        routes = [WIDTHS[1] // 2, WIDTHS[2] // 2, 0]  # channels from the coarser map
        given = [channels + route for channels, route in zip(levels.values(), routes, strict=True)]
        self.trunks = nn.ModuleList(_trunk(channels, w) for channels, w in zip(given, WIDTHS, strict=True))
        self.answers = nn.ModuleList(_answer(w, ANCHORS * (5 + findings)) for w in WIDTHS)
        self.routes = nn.ModuleList(_convolution(w, w // 2, 1) for w in WIDTHS[1:])
        self.register_buffer("anchors", torch.tensor(PUBLISHED) / SIDE)  # (3, 3, 2), shares of the image's sides

    def forward(self, maps: list[Tensor], size: Size) -> list[YoloOutputs]:
        """Predictions for images of this size, finest map first."""
        if self.pyramid is not None:
            maps = self.pyramid(maps)
        outputs: list[YoloOutputs] = []
        route: Tensor | None = None
        for level in reversed(range(MAPS)):
            x = maps[level]
            x = self.trunks[level](x if route is None else torch.cat([F.interpolate(route, x.shape[2:]), x], dim=1))
            raw = self.answers[level](x).unflatten(1, (ANCHORS, -1)).permute(0, 1, 3, 4, 2).float()
            outputs.insert(0, YoloOutputs(raw, self._pixels(size)[level], self.strides[level]))
            route = self.routes[level - 1](x) if level else None
        return outputs

    def losses(self, outputs: list[YoloOutputs], truth: Truth) -> dict[str, Tensor]:
        """Sums over images, to be divided by `count`."""
        levels = [self._level(each, truth) for each in outputs]
        return {name: torch.stack([level[name] for level in levels]).sum() for name in levels[0]}

    def count(self, truth: Truth, sizes: list[Size]) -> Tensor:
        """Number of images."""
        return torch.full((), float(len(truth.asked)), device=truth.boxes.device)

    def boxes(self, outputs: list[YoloOutputs]) -> tuple[Tensor, Tensor]:
        """(N, L, 4) boxes and (N, L, F) scores: confidence times probability of the finding, which is 1 if there is
        only one."""
        boxes, scores = [], []
        for each in outputs:
            raw = each.raw
            centre = (raw[..., :2].sigmoid() + _corners(raw)) * each.stride
            half = raw[..., 2:4].clamp(max=8).exp() * each.anchors[:, None, None] / 2
            boxes.append(torch.cat([centre - half, centre + half], dim=-1).flatten(1, 3))
            sure = raw[..., 4:5].sigmoid()
            scores.append((sure * raw[..., 5:].sigmoid() if self.findings > 1 else sure).flatten(1, 3))
        return torch.cat(boxes, dim=1), torch.cat(scores, dim=1)

    def measure(self, sides: np.ndarray) -> None:
        """Fit anchors to (M, 2) widths and heights of boxes, as shares of the image's."""
        self.anchors.copy_(torch.from_numpy(fitted_anchors(sides, MAPS * ANCHORS)).view(MAPS, ANCHORS, 2))

    def _pixels(self, size: Size) -> Tensor:
        """(3, 3, 2): the anchors for images of this size."""
        return torch.stack([self.anchors[..., 0] * size[1], self.anchors[..., 1] * size[0]], dim=-1)

    def _level(self, outputs: YoloOutputs, truth: Truth) -> dict[str, Tensor]:
        """The losses of one map."""
        raw, anchors = outputs.raw, outputs.anchors[:, None, None]  # (N, 3, h, w, 5 + F), (3, 1, 1, 2)
        box, near = _assigned(outputs, truth)
        has, (finding, true) = box >= 0, truth.taken(box)
        empty = ~has & ~near & truth.asked.all(1)[:, None, None, None]
        middle, sides = (true[..., :2] + true[..., 2:]) / 2 / outputs.stride, true[..., 2:] - true[..., :2]
        logarithms = (sides / anchors).clamp(min=1e-6).log()
        findings = (finding[..., None] == torch.arange(self.findings, device=raw.device)).to(raw)
        known = truth.asked[:, None, None, None] & has[..., None]
        there, nowhere = torch.ones_like(raw[..., 4]), torch.zeros_like(raw[..., 4])
        sums = {
            "centres": COORDINATES * (_bce(raw[..., :2], (middle - _corners(raw)).clamp(0, 1)) * has[..., None]).sum(),
            "sides": COORDINATES * torch.where(has[..., None], raw[..., 2:4] - logarithms, 0.0).square().sum(),
            "confidence": (_bce(raw[..., 4], there) * has + EMPTY * _bce(raw[..., 4], nowhere) * empty).sum(),
            "classes": (_bce(raw[..., 5:], findings) * known).sum() * (self.findings > 1),
        }
        return {name: value / raw[0, ..., 0].numel() for name, value in sums.items()}


def _assigned(outputs: YoloOutputs, truth: Truth) -> tuple[Tensor, Tensor]:
    """(N, 3, h, w) twice: the box that is assigned to a place, -1 for none; and whether a place is ignored because its
    anchor fits a box well. Of two boxes in one place, the later is assigned."""
    images, anchors, height, width, _ = outputs.raw.shape
    centre = ((truth.boxes[:, :2] + truth.boxes[:, 2:]) / 2 / outputs.stride).long()
    column, row = centre[:, 0].clamp(0, width - 1), centre[:, 1].clamp(0, height - 1)
    alike = overlaps(truth.boxes[:, 2:] - truth.boxes[:, :2], outputs.anchors)  # (M, 3)
    numbers = torch.arange(len(truth), device=outputs.raw.device)
    shape = (images + 1, anchors, height, width)  # the last: boxes of no image
    last, near = (numbers.new_full((math.prod(shape),), empty) for empty in (-1, 0))

    def place(anchor: Tensor) -> Tensor:
        return ((truth.images * anchors + anchor) * height + row) * width + column

    last.scatter_reduce_(0, place(alike.argmax(1)), numbers, "amax")
    for number in range(anchors):
        near.scatter_reduce_(0, place(numbers.new_full((), number)), (alike[:, number] > NEARLY).long(), "amax")
    return last.view(shape)[:-1], near.view(shape)[:-1] > 0


def _corners(raw: Tensor) -> Tensor:
    """(h, w, 2): column and row of each cell."""
    down, across = (torch.arange(count, device=raw.device) for count in raw.shape[2:4])
    return torch.stack(torch.meshgrid(across, down, indexing="xy"), dim=-1)


def overlaps(sides: Tensor, anchors: Tensor) -> Tensor:
    """(M, K): IoU of (M, 2) and (K, 2) widths and heights about a common centre."""
    shared = torch.minimum(sides[:, None], anchors).prod(2)
    return shared / (sides.prod(1)[:, None] + anchors.prod(1) - shared)


def fitted_anchors(sides: np.ndarray, count: int) -> np.ndarray:
    """(count, 2): k-means of (M, 2) widths and heights with distance 1 - IoU, smallest area first.

    Redmon & Farhadi 2017, https://arxiv.org/abs/1612.08242. Initialised with boxes at evenly spaced quantiles of area.
    """
    if not len(sides):
        raise ValueError("Anchors cannot be fitted: there are no training boxes.")
    ordered = sides[np.lexsort((sides[:, 0], sides.prod(1)))].astype(np.float64)
    means = ordered[((np.arange(count) + 0.5) / count * len(ordered)).astype(np.int64)]
    for _ in range(300):
        nearest = overlaps(torch.from_numpy(ordered), torch.from_numpy(means)).argmax(1).numpy()
        own = [ordered[nearest == number] for number in range(count)]
        moved = np.stack([part.mean(0) if len(part) else mean for part, mean in zip(own, means, strict=True)])
        if np.array_equal(moved, means):
            break
        means = moved
    return means[np.argsort(means.prod(1), kind="stable")].astype(np.float32)


def _bce(logits: Tensor, target: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, target, reduction="none")


def _convolution(channels: int, width: int, side: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, width, side, padding=side // 2, bias=False), nn.BatchNorm2d(width), nn.LeakyReLU(0.1)
    )


def _trunk(channels: int, width: int) -> nn.Sequential:
    """Five of the six convolutions of a branch, alternately 1 × 1 and 3 × 3; the route to the next map starts here."""
    inputs = [channels, width, 2 * width, width, 2 * width]
    outputs = [width, 2 * width, width, 2 * width, width]
    return nn.Sequential(
        *(_convolution(a, b, 1 + 2 * (k % 2)) for k, (a, b) in enumerate(zip(inputs, outputs, strict=True)))
    )


def _answer(width: int, count: int) -> nn.Sequential:
    """The sixth convolution and the output layer."""
    return nn.Sequential(_convolution(width, 2 * width, 3), nn.Conv2d(2 * width, count, 1))
