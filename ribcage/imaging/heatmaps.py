"""Maps: where in an image the evidence for a finding lies – heat from 0 to 1, and boxes around it.

`ribcage.inference.gradcam` makes them from a classifier. Its `CamDetector` finds boxes as a detector does, so that
the CAM baseline is
`detections.detect(gradcam.CamDetector(method, temperature=model.temperature), data, rows, model=model)`.

Points and boxes are measured from the top left corner: the centre of the first pixel is at (0.5, 0.5). Between the
centres of a map's cells heat is interpolated, beyond the outermost it stays what it is there.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 – everybody's name for it


@dataclass(frozen=True)
class Cells:
    """Where the cells of a map lie in its view, as (x, y) in pixels."""

    first: tuple[float, float]
    """The centre of the first."""
    step: tuple[float, float]
    """From one to the next."""

    @classmethod
    def even(cls, grid: tuple[int, int], size: tuple[int, int]) -> "Cells":
        """(h, w) cells evenly spaced over a view of this (height, width)."""
        across, down = size[1] / grid[1], size[0] / grid[0]
        return cls((across / 2, down / 2), (across, down))


def gradcam_maps(features: Tensor, weights: Tensor) -> Tensor:
    """(N, C, h, w) features and (N, F, C) weights of their channels → (N, F, h, w) in 0 … 1.

    Selvaraju et al. 2017, https://arxiv.org/abs/1610.02391, eq. 2:  L = ReLU(sum_c a_c A_c),  divided by its maximum.
    Where nothing speaks for a finding, its map is 0 everywhere.
    """
    return scaled_to_maximum(torch.einsum("nchw,nfc->nfhw", features.float(), weights.float()))


def layercam_maps(features: Tensor, gradients: Tensor) -> Tensor:
    """(N, C, h, w) features and their (F, N, C, h, w) gradients → (N, F, h, w) in 0 … 1.

    LayerCAM, Jiang et al. 2021, https://doi.org/10.1109/TIP.2021.3089943, eq. 6:  L = ReLU(sum_c ReLU(g_c) A_c).
    """
    return scaled_to_maximum(torch.stack([(one.relu() * features).float().sum(1) for one in gradients], 1))


def scaled_to_maximum(found: Tensor) -> Tensor:
    """(N, F, h, w): what is positive, divided by its maximum; 0 everywhere where nothing is."""
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
    """(N, F, 2) x, y in the view: the centre of the hottest cell of (N, F, h, w), of equally hot ones the first.
    NaN where there is no heat."""
    place = maps.flatten(2).argmax(2)
    x = cells.first[0] + place % maps.shape[3] * cells.step[0]
    y = cells.first[1] + place // maps.shape[3] * cells.step[1]
    cold = maps.flatten(2).amax(2) <= 0
    return torch.stack([x, y], dim=2).masked_fill(cold[:, :, None], torch.nan)


def maps_in_image(maps: np.ndarray, affine: np.ndarray, side: int) -> np.ndarray:
    """(F, H, W) maps of a view → (F, S, S) of the stored image, where the (2, 3) affine of the view takes its points.

    What the view did not show is 0.
    """
    matrix = affine.copy()
    matrix[:, 2] += affine[:, :2].sum(1) / 2 - 0.5  # OpenCV has whole numbers at the centres of pixels

    def warped(image: np.ndarray, flags: int, border: int) -> np.ndarray:
        return cv2.warpAffine(image, matrix, (side, side), flags=flags, borderMode=border)

    shown = warped(np.ones(maps.shape[1:], np.float32), cv2.INTER_NEAREST, cv2.BORDER_CONSTANT)
    return np.stack([warped(one.astype(np.float32), cv2.INTER_LINEAR, cv2.BORDER_REPLICATE) * shown for one in maps])


def points_in_image(points: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """(…, 2) points of a view → of the stored image; NaN stays NaN."""
    return points @ affine[:, :2].T + affine[:, 2]


def heatmap_boxes(heat: np.ndarray, share: float = 0.5) -> np.ndarray:
    """(H, W) → (K, 5) x0, y0, x1, y1 and mean heat, the hottest first: around each connected region of at least `share`
    of the maximum; pixels that touch at a corner are connected."""
    if not 0 < share <= 1:
        raise ValueError(f"The threshold of a box is a fraction of the maximum, above 0 and at most 1, not {share}.")
    most = float(heat.max(initial=0))
    if most <= 0:
        return np.empty((0, 5))
    hot = (heat >= share * most).astype(np.uint8)
    count, regions, about, _ = cv2.connectedComponentsWithStats(hot, connectivity=8)
    x, y, width, height = about[1:, :4].T.astype(np.float64)
    flat = regions.ravel()
    mean = np.bincount(flat, heat.ravel(), count)[1:] / np.bincount(flat, minlength=count)[1:]
    return np.stack([x, y, x + width, y + height, mean], axis=1)[np.argsort(-mean, kind="stable")]
