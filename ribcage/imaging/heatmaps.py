"""Heat-maps: the evidence for a finding at each place of an image, from 0 to 1, and boxes around it.

`ribcage.inference.gradcam` computes them from a classifier; its `CamDetector` makes the boxes of the CAM baseline.

Coordinates start at the top left corner: the centre of the first pixel is at (0.5, 0.5). Heat is interpolated between
the centres of a map's cells and constant beyond the outermost ones.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 – the usual name


@dataclass(frozen=True)
class Cells:
    """Positions of the cells of a map in its view, as (x, y) in pixels."""

    first: tuple[float, float]
    """Centre of the first cell."""
    step: tuple[float, float]
    """Distance between centres."""

    @classmethod
    def even(cls, grid: tuple[int, int], size: tuple[int, int]) -> "Cells":
        """(h, w) cells evenly spaced over a view of this (height, width)."""
        across, down = size[1] / grid[1], size[0] / grid[0]
        return cls((across / 2, down / 2), (across, down))


def gradcam_maps(features: Tensor, weights: Tensor) -> Tensor:
    """Grad-CAM from (N, C, h, w) features and the (N, F, C) weights of their channels → (N, F, h, w) in 0 … 1.

    Selvaraju et al. 2017, https://arxiv.org/abs/1610.02391, eq. 2:  L = ReLU(sum_c a_c A_c),  divided by its maximum. A
    map without positive evidence is 0 everywhere.
    """
    return scaled_to_maximum(torch.einsum("nchw,nfc->nfhw", features.float(), weights.float()))


def layercam_maps(features: Tensor, gradients: Tensor) -> Tensor:
    """LayerCAM from (N, C, h, w) features and their (F, N, C, h, w) gradients → (N, F, h, w) in 0 … 1.

    Jiang et al. 2021, https://doi.org/10.1109/TIP.2021.3089943, eq. 6:  L = ReLU(sum_c ReLU(g_c) A_c).
    """
    return scaled_to_maximum(torch.stack([(one.relu() * features).float().sum(1) for one in gradients], 1))


def scaled_to_maximum(found: Tensor) -> Tensor:
    """(N, F, h, w): positive values divided by their maximum; 0 where there are none."""
    found = found.relu()
    most = found.amax((2, 3), keepdim=True)
    return torch.where(most > 0, found / most, 0.0)


def upsampled_maps(maps: Tensor, cells: Cells, size: tuple[int, int]) -> Tensor:
    """(N, F, h, w) → (N, F, H, W), a value for each pixel of the view."""
    ends = zip((size[1], size[0]), cells.first, cells.step, (maps.shape[3], maps.shape[2]), strict=True)
    x, y = (((torch.arange(length) + 0.5 - first) / step * 2 + 1) / count - 1 for length, first, step, count in ends)
    places = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=2).to(maps.device)  # -1 … 1 from edge to edge
    grid = places.expand(len(maps), -1, -1, -1)
    return F.grid_sample(maps.float(), grid, mode="bilinear", padding_mode="border", align_corners=False)


def peaks(maps: Tensor, cells: Cells) -> Tensor:
    """(N, F, 2) x, y in the view: the centre of the hottest cell of each (N, F, h, w) map, the first if several are
    equal. NaN where there is no heat."""
    place = maps.flatten(2).argmax(2)
    x = cells.first[0] + place % maps.shape[3] * cells.step[0]
    y = cells.first[1] + place // maps.shape[3] * cells.step[1]
    cold = maps.flatten(2).amax(2) <= 0
    return torch.stack([x, y], dim=2).masked_fill(cold[:, :, None], torch.nan)


def maps_in_image(maps: np.ndarray, affine: np.ndarray, side: int) -> np.ndarray:
    """(F, H, W) maps of a view → (F, S, S) of the stored image; the (2, 3) affine maps points of the view to the image.

    Areas outside the view are 0.
    """
    matrix = affine.copy()
    matrix[:, 2] += affine[:, :2].sum(1) / 2 - 0.5  # OpenCV has integers at the centres of pixels

    def warped(image: np.ndarray, flags: int, border: int) -> np.ndarray:
        return cv2.warpAffine(image, matrix, (side, side), flags=flags, borderMode=border)

    shown = warped(np.ones(maps.shape[1:], np.float32), cv2.INTER_NEAREST, cv2.BORDER_CONSTANT)
    return np.stack([warped(one.astype(np.float32), cv2.INTER_LINEAR, cv2.BORDER_REPLICATE) * shown for one in maps])


def points_in_image(points: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """(…, 2) points of a view → points of the stored image; NaN stays NaN."""
    return points @ affine[:, :2].T + affine[:, 2]


def heatmap_boxes(heat: np.ndarray, share: float = 0.5) -> np.ndarray:
    """(H, W) → (K, 5) x0, y0, x1, y1 and mean heat, hottest first: boxes around the connected regions (including
    diagonals) of at least `share` of the maximum."""
    if not 0 < share <= 1:
        raise ValueError(f"The threshold for boxes must be above 0 and at most 1, not {share}.")
    most = float(heat.max(initial=0))
    if most <= 0:
        return np.empty((0, 5))
    hot = (heat >= share * most).astype(np.uint8)
    count, regions, about, _ = cv2.connectedComponentsWithStats(hot, connectivity=8)
    x, y, width, height = about[1:, :4].T.astype(np.float64)
    flat = regions.ravel()
    mean = np.bincount(flat, heat.ravel(), count)[1:] / np.bincount(flat, minlength=count)[1:]
    return np.stack([x, y, x + width, y + height, mean], axis=1)[np.argsort(-mean, kind="stable")]
