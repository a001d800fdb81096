"""Grad-CAM: saliency maps of a classifier. Selvaraju et al. 2017, https://arxiv.org/abs/1610.02391

    a_c = mean over p of  dz_f / dA_cp            L = ReLU(sum_c a_c A_c),  divided by its maximum

A are the features before pooling, p their grid positions, z_f is the logit of finding f. With mean pooling and a linear
head, a_c is the head's weight and L, apart from the ReLU, the CAM of Zhou et al. 2016
(https://arxiv.org/abs/1512.04150). Only the layers after A are differentiated, for all findings at once, so a map costs
little more than a prediction.

The logits of a transformer with a class token do not depend on the last features of its other tokens; there A are the
features that the class token last attended to. `imaging.heatmaps` turns maps into points, boxes and heat-maps in the
image.

If the last features are too coarse, `MapMethod` selects finer maps: those of an earlier layer with weights per position
(LayerCAM, Jiang et al. 2021, https://doi.org/10.1109/TIP.2021.3089943),

    L = ReLU(sum_c ReLU(dz_f / dA_cp) A_cp)

or occlusion (Zeiler & Fergus 2014, https://arxiv.org/abs/1311.2901): how much z_f falls when a square is replaced by
the image's mean. Occlusion needs one forward pass per square and works for any network.
"""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ribcage.imaging import heatmaps
from ribcage.imaging.heatmaps import Cells
from ribcage.inference.feature_evidence import earlier_evidence, gathered_evidence, logit_of_each, pooled_evidence
from ribcage.inference.forward_pass import evaluation_mode
from ribcage.inference.map_cells import COARSE, grid_of, height_width, measured_cells, too_coarse
from ribcage.methods.supervised import Supervised
from ribcage.models.logit_model import LogitModel

SQUARES = 14
"""Number of occluded squares along the longer side."""


@dataclass(frozen=True)
class MapMethod:
    """Method and layer of saliency maps."""

    method: Literal["auto", "gradcam", "layercam", "occlusion"] = "auto"
    """auto: gradcam, or occlusion for an opaque network."""
    layer: int = 0
    """0: the last features; n: the n-th next finer grid of features before them."""

    @property
    def name(self) -> str:
        """Name for display."""
        named = {"auto": "Grad-CAM", "gradcam": "Grad-CAM", "layercam": "LayerCAM", "occlusion": "occlusion"}[
            self.method
        ]
        return named + (f", {self.layer} grid{'s' * (self.layer > 1)} earlier" if self.layer else "")


@dataclass(frozen=True)
class SaliencyMaps:
    """Saliency maps and logits of N images."""

    maps: Tensor
    """(N, F, h, w) in 0 … 1, on the grid of the features."""
    cells: Cells
    """Position of the cells in the images."""
    logits: Tensor
    """(N, F), before temperature scaling."""


def saliency_maps(method: LogitModel, images: Tensor, map_method: MapMethod | None = None) -> SaliencyMaps:
    """Saliency maps of (N, C, H, W) images for each finding.

    For mutually exclusive findings z_f is the log-odds of one finding against all others, since only differences of
    their logits have a meaning. The forward pass runs in evaluation mode; the previous mode is restored.
    """
    if isinstance(method, Supervised) and not method.findings:
        raise ValueError(
            f"The model ({method.backbone.name}) predicts no findings, so there is nothing to explain. Fine-tune the "
            f"model first."
        )
    map_method = chosen_method(method, map_method)
    if map_method.method == "occlusion" or not isinstance(method, Supervised):
        return _occluded(method, images)
    with evaluation_mode(method), torch.inference_mode(False), torch.enable_grad():
        images = images.clone() if images.is_inference() else images.detach()
        by_token = getattr(method.backbone.model, "global_pool", "") == "token"
        with measured_cells(method.backbone, height_width(images)) as cells:
            if map_method.layer:
                found = earlier_evidence(method, images, map_method.layer)
            else:
                found = (None if by_token else pooled_evidence(method, images)) or gathered_evidence(method, images)
    if map_method.method == "layercam":
        heat = heatmaps.layercam_maps(found.features, found.gradients)
    else:
        heat = heatmaps.gradcam_maps(found.features, found.gradients.mean((3, 4)).transpose(0, 1))
    grid = (heat.shape[2], heat.shape[3])
    return SaliencyMaps(heat, cells.get(grid) or Cells.even(grid, height_width(images)), found.logits)


def chosen_method(method: LogitModel, map_method: MapMethod | None = None) -> MapMethod:
    """The method of the maps of a model; ValueError for maps that need features, of an opaque network."""
    asked = map_method or MapMethod()
    opaque = not isinstance(method, Supervised)
    if opaque and asked.method not in ("auto", "occlusion"):
        raise ValueError(
            f"--map-method {asked.method} needs the features of a network, which an opaque network does not have. Use "
            "--map-method occlusion."
        )
    return replace(asked, method="occlusion" if opaque else "gradcam") if asked.method == "auto" else asked


def coarseness(
    method: LogitModel, grid: tuple[int, int], size: tuple[int, int], map_method: MapMethod | None = None
) -> str:
    """The warning of `too_coarse`, with options that give finer maps."""
    if not isinstance(method, Supervised):
        return too_coarse(grid, size)
    reductions = {one["reduction"] for one in method.backbone.model.feature_info}
    earlier = (map_method.layer if map_method else 0) + int(
        np.ceil(np.log2(COARSE / min(grid)))
    )  # each finer grid has twice as many cells per side
    layer = f"--map-method layercam --map-layer {earlier} (an earlier layer), " * (len(reductions) > earlier)
    finer = f" Finer maps: {layer}--map-method occlusion, or a model trained at a larger --size."
    warning = too_coarse(grid, size)
    return warning and warning + finer


def map_grid(method: LogitModel, size: tuple[int, int]) -> tuple[int, int]:
    """(rows, columns) of the default maps for an input of this (height, width)."""
    return grid_of(method.backbone, size) if isinstance(method, Supervised) else occlusion_grid(size)


def map_grid_note(method: LogitModel, size: tuple[int, int]) -> str:
    """One line on the resolution of the default maps for an input of this (height, width)."""
    grid = map_grid(method, size)
    return coarseness(method, grid, size) or f"The heat-maps of this model have {grid[0]} × {grid[1]} cells."


def occlusion_grid(size: tuple[int, int]) -> tuple[int, int]:
    """(rows, columns) of occluded squares in an image of this (height, width)."""
    cell = max(size) / SQUARES
    return max(1, round(size[0] / cell)), max(1, round(size[1] / cell))


def _occluded(method: LogitModel, images: Tensor) -> SaliencyMaps:
    """Decrease of each logit when a square, twice as wide as its cell, is replaced by the mean of the image."""
    size = height_width(images)
    grid = occlusion_grid(size)
    cells = Cells.even(grid, size)
    with evaluation_mode(method), torch.no_grad():
        logits = method.logits(images)
        whole, heat = logit_of_each(method, logits), torch.zeros(*logits.shape, *grid, device=logits.device)
        mean = images.mean((2, 3), keepdim=True)
        for row in range(grid[0]):
            for column in range(grid[1]):
                covered, x, y = (
                    images.clone(),
                    cells.first[0] + column * cells.step[0],
                    cells.first[1] + row * cells.step[1],
                )
                down = slice(max(0, round(y - cells.step[1])), round(y + cells.step[1]))
                across = slice(max(0, round(x - cells.step[0])), round(x + cells.step[0]))
                covered[:, :, down, across] = mean
                heat[:, :, row, column] = whole - logit_of_each(method, method.logits(covered))
    return SaliencyMaps(heatmaps.scaled_to_maximum(heat.float()), cells, logits)
