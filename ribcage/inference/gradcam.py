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

Cells of a map are placed at the centre of their receptive field. In a ResNet that is not the centre of an even grid:
convolutions of odd width and stride 2 are centred on pixels 0, 2, 4 …, so cell i of the last features is centred on
pixel 32 i, 15.5 pixels further up and left than a map stretched over the image would suggest.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from ribcage.bundle.io import Detector
from ribcage.bundle.spec import ModelSpec
from ribcage.data.collection import Datasets
from ribcage.data.loader import Loader
from ribcage.imaging import augment, heatmaps
from ribcage.imaging.heatmaps import Cells
from ribcage.inference import predictions
from ribcage.inference.forward_pass import evaluation_mode
from ribcage.methods.detect import Detect
from ribcage.methods.supervised import Supervised
from ribcage.models.backbone import Backbone
from ribcage.models.detectors.boxes import Found
from ribcage.models.detectors.cam import CamBoxes

COARSE = 6
"""A map with fewer cells per side is reported as too coarse to localise anything (our choice)."""
SQUARES = 14
"""Number of occluded squares along the longer side."""
PREFIX = 16
"""Maximum number of tokens without a position in the image (class, distillation and register tokens)."""


@dataclass(frozen=True)
class MapMethod:
    """Method and layer of saliency maps."""

    method: Literal["gradcam", "layercam", "occlusion"] = "gradcam"
    layer: int = 0
    """0: the last features; n: the n-th next finer grid of features before them."""

    @property
    def name(self) -> str:
        """Name for display."""
        named = {"gradcam": "Grad-CAM", "layercam": "LayerCAM", "occlusion": "occlusion"}[self.method]
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


def saliency_maps(method: Supervised, images: Tensor, map_method: MapMethod | None = None) -> SaliencyMaps:
    """Saliency maps of (N, C, H, W) images for each finding.

    For mutually exclusive findings z_f is the log-odds of one finding against all others, since only differences of
    their logits have a meaning. The forward pass runs in evaluation mode; the previous mode is restored.
    """
    if not method.findings:
        raise ValueError(f"{method.backbone.name} has no findings to explain. Fine-tune it first.")
    map_method = map_method or MapMethod()
    if map_method.method == "occlusion":
        return _occluded(method, images)
    with evaluation_mode(method), torch.inference_mode(False), torch.enable_grad():
        images = images.clone() if images.is_inference() else images.detach()
        by_token = getattr(method.backbone.model, "global_pool", "") == "token"
        with _measured(method.backbone, _size(images)) as cells:
            if map_method.layer:
                found = _earlier(method, images, map_method.layer)
            else:
                found = (None if by_token else _pooled(method, images)) or _gathered(method, images)
    if map_method.method == "layercam":
        heat = heatmaps.layercam_maps(found.features, found.gradients)
    else:
        heat = heatmaps.gradcam_maps(found.features, found.gradients.mean((3, 4)).transpose(0, 1))
    grid = (heat.shape[2], heat.shape[3])
    return SaliencyMaps(heat, cells.get(grid) or Cells.even(grid, _size(images)), found.logits)


@dataclass(frozen=True)
class _Evidence:
    """Features, and the gradients of all logits with respect to them."""

    features: Tensor
    """(N, C, h, w)"""
    gradients: Tensor
    """(F, N, C, h, w)"""
    logits: Tensor
    """(N, F)"""


def _pooled(method: Supervised, images: Tensor) -> _Evidence | None:
    """From the features before pooling; None if these are not on a grid or the logits do not depend on them."""
    with torch.no_grad():
        hidden = method.backbone.hidden(images)
    if not isinstance(hidden, Tensor):
        return None
    leaf = hidden.detach().requires_grad_()
    logits = method.head(method.backbone.pool(leaf.clone()))  # a clone: some models pool in place
    found = _owed(method, leaf, logits, _size(images))
    return found if found and found.gradients.any() else None


def _gathered(method: Supervised, images: Tensor) -> _Evidence:
    """From the last features on a grid, among the outputs of all blocks, that the logits depend on."""
    with _given_on(method.backbone) as given:
        logits = method.head(method.backbone(images.requires_grad_()))
    found = None
    for features in reversed(given):
        found = _owed(method, features, logits, _size(images)) or found
        if found and found.gradients.any():
            break
    if found is None:
        raise ValueError(f"{method.backbone.name} has no features on a spatial grid: no map can be computed.")
    return found


def _earlier(method: Supervised, images: Tensor, layer: int) -> _Evidence:
    """From the last features on the chosen finer grid that the logits depend on."""
    size = _size(images)
    with _given_on(method.backbone) as given:
        logits = method.head(method.backbone(images.requires_grad_()))
    last = grid_of(method.backbone, size)
    by_grid: dict[tuple[int, int], list[Tensor]] = {}
    for features in given:
        placed = _placing(method.backbone, features, size)
        grid = _size(placed(features)) if placed else (0, 0)
        if grid[0] >= last[0] and grid[1] >= last[1]:
            by_grid.setdefault(grid, []).append(features)
    grids = sorted(by_grid)
    if layer >= len(grids):
        named = ", ".join(f"{place}: {high} × {wide}" for place, (high, wide) in enumerate(grids))
        raise ValueError(
            f"{method.backbone.name} has no layer {layer} for maps of {size[0]} × {size[1]} px. Layers: {named}."
        )
    for features in reversed(by_grid[grids[layer]]):
        found = _owed(method, features, logits, size)
        if found and found.gradients.any():
            return found
    raise ValueError(
        f"{method.backbone.name} does not depend on the features of layer {layer}. Choose another --map-layer."
    )


def grid_of(backbone: Backbone, size: tuple[int, int]) -> tuple[int, int]:
    """(rows, columns) of the last features for an input of this (height, width)."""
    reduction = backbone.model.feature_info[-1]["reduction"]
    return -(-size[0] // reduction), -(-size[1] // reduction)


def too_coarse(grid: tuple[int, int], size: tuple[int, int]) -> str:
    """Warning that a map of this (rows, columns) for an input of this (height, width) is too coarse; "" if it is
    not."""
    if min(grid) >= COARSE:
        return ""
    cells = f"only {grid[0]} × {grid[1]} cells for the model's input of {size[0]} × {size[1]} px"
    return f"The heat-maps have {cells}: too coarse to localise anything."


def coarseness(
    backbone: Backbone, grid: tuple[int, int], size: tuple[int, int], map_method: MapMethod | None = None
) -> str:
    """The warning of `too_coarse`, with options that give finer maps."""
    reductions = {one["reduction"] for one in backbone.model.feature_info}
    earlier = (map_method.layer if map_method else 0) + int(
        np.ceil(np.log2(COARSE / min(grid)))
    )  # each finer grid has twice as many cells per side
    layer = f"--map-method layercam --map-layer {earlier} (an earlier layer), " * (len(reductions) > earlier)
    finer = f" Finer maps: {layer}--map-method occlusion, or a model trained at a larger --size."
    warning = too_coarse(grid, size)
    return warning and warning + finer


def map_grid_note(backbone: Backbone, size: tuple[int, int]) -> str:
    """One line on the resolution of the default maps for an input of this (height, width)."""
    grid = grid_of(backbone, size)
    return coarseness(backbone, grid, size) or f"The heat-maps of this model have {grid[0]} × {grid[1]} cells."


def _occluded(method: Supervised, images: Tensor) -> SaliencyMaps:
    """Decrease of each logit when a square, twice as wide as its cell, is replaced by the mean of the image."""
    size = _size(images)
    cell = max(size) / SQUARES
    grid = (max(1, round(size[0] / cell)), max(1, round(size[1] / cell)))
    cells = Cells.even(grid, size)
    with evaluation_mode(method), torch.no_grad():
        logits = method.logits(images)
        whole, heat = _of_each(method, logits), torch.zeros(*logits.shape, *grid, device=logits.device)
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
                heat[:, :, row, column] = whole - _of_each(method, method.logits(covered))
    return SaliencyMaps(heatmaps.scaled_to_maximum(heat.float()), cells, logits)


def _around(cells: Cells, axis: int, place: int) -> slice:
    """The pixels up to one step away from the centre of a cell, across (0) or down (1)."""
    middle, step = cells.first[axis] + place * cells.step[axis], cells.step[axis]
    return slice(max(0, round(middle - step)), round(middle + step))


def _of_each(method: Supervised, logits: Tensor) -> Tensor:
    """(N, F) what a map explains: each logit or, for exclusive findings, the log-odds against the others."""
    return _against_others(logits) if method.exclusive else logits


def _owed(method: Supervised, features: Tensor, logits: Tensor, size: tuple[int, int]) -> _Evidence | None:
    """Gradients of the logits with respect to features; None if these are not on a grid or computed after the
    logits."""
    placed = _placing(method.backbone, features, size)
    if placed is None:
        return None
    targets = _of_each(method, logits)
    count = targets.shape[1]
    each = torch.eye(count, device=targets.device, dtype=targets.dtype)[:, None].expand(count, *targets.shape)
    (found,) = torch.autograd.grad(targets, features, each, is_grads_batched=True, retain_graph=True, allow_unused=True)
    if found is None:
        return None
    gradients = placed(found.flatten(0, 1)).unflatten(0, (count, -1))
    return _Evidence(placed(features.detach()), gradients, logits.detach())


def _against_others(logits: Tensor) -> Tensor:
    """(N, F): log-odds of each of the exclusive findings, z_f - log sum of exp z of the others."""
    own = torch.eye(logits.shape[1], dtype=torch.bool, device=logits.device)
    others = logits.float()[:, None].expand(-1, logits.shape[1], -1).masked_fill(own, -torch.inf)
    return logits.float() - others.logsumexp(2)


def _placing(backbone: Backbone, features: Tensor, size: tuple[int, int]) -> Callable[[Tensor], Tensor] | None:
    """A function that puts features or their gradients on their grid (N, C, h, w); None if they have none."""
    height, width = grid = grid_of(backbone, size)
    if features.ndim == 4:
        format = getattr(backbone.model, "output_fmt", "NHWC" if features.shape[1:3] == grid else "NCHW")
        return (lambda x: x.permute(0, 3, 1, 2)) if format == "NHWC" else (lambda x: x)
    prefix = features.shape[1] - height * width if features.ndim == 3 else -1
    if not 0 <= prefix <= PREFIX:
        return None
    return lambda x: x[:, prefix:].transpose(1, 2).unflatten(2, grid)


def _size(images: Tensor) -> tuple[int, int]:
    return images.shape[-2], images.shape[-1]


@contextmanager
def _given_on(backbone: Backbone) -> Iterator[list[Tensor]]:
    """Context manager: a list that collects the outputs of all members of `nn.Sequential` and `nn.ModuleList`, in
    order."""
    given: list[Tensor] = []

    def note(module: nn.Module, inputs: Any, output: Any) -> None:
        several = output if isinstance(output, tuple | list) else (output,)
        given.extend(one for one in several if isinstance(one, Tensor) and one.requires_grad)

    sequences = (each for each in backbone.modules() if isinstance(each, nn.ModuleList | nn.Sequential))
    handles = [member.register_forward_hook(note) for sequence in sequences for member in sequence]
    try:
        yield given
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _measured(backbone: Backbone, size: tuple[int, int]) -> Iterator[dict[tuple[int, int], Cells]]:
    """Context manager: a dict of (h, w) → the position of the cells of features of that size, filled by hooks on
    convolutions and pools.

    The centre of cell i of an output lies at cell s i + (k - 1) d / 2 - p of the input. Layers of other kinds are
    assumed to merge whole cells into an even grid.
    """
    known = {size: Cells((0.5, 0.5), (1.0, 1.0))}

    def note(module: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        before, after = _size(inputs[0]), _size(output)
        if after not in known and min(after) > 1:
            start = known.get(before) or Cells.even(before, size)
            axes = [_window(module, axis, before[axis]) for axis in (1, 0)]
            first = [f + step * middle for f, step, (_, middle) in zip(start.first, start.step, axes, strict=True)]
            steps = [step * stride for step, (stride, _) in zip(start.step, axes, strict=True)]
            known[after] = Cells((first[0], first[1]), (steps[0], steps[1]))

    windows = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)
    handles = [each.register_forward_hook(note) for each in backbone.modules() if isinstance(each, windows)]
    try:
        yield known
    finally:
        for handle in handles:
            handle.remove()


def _window(module: Any, axis: int, length: int) -> tuple[int, float]:
    """Stride of a convolution or pool down (0) or across (1), and the centre of its first window."""
    k, s, p, d = (
        value[axis] if isinstance(value, tuple) else value
        for value in (module.kernel_size, module.stride, module.padding, getattr(module, "dilation", 1))
    )
    span = (k - 1) * d + 1
    if type(module).__name__.endswith("Same"):  # timm's "same" padding, as TensorFlow's: the odd pixel at the end
        p = max((-(-length // s) - 1) * s + span - length, 0) // 2
    return s, (span - 1) / 2 - (p if isinstance(p, int) else (span - 1) // 2)


# ---- boxes


DRAWN = CamBoxes()


def as_detector(opened: Detector) -> "Detect | CamDetector":
    """The method that finds boxes: that of a detector, or a classifier with boxes around its saliency maps."""
    if isinstance(opened.method, Detect):
        return opened.method
    return CamDetector(opened.method, temperature=opened.spec.temperature, boxes=opened.cam)


class CamDetector:
    """A classifier used as a detector: boxes around the regions of its saliency maps, for every finding.

    temperature: one per finding, for its calibrated probability.
    """

    def __init__(self, method: Supervised, *, temperature: Sequence[float] = (), boxes: CamBoxes = DRAWN) -> None:
        self.method, self.temperature, self.boxes = method, tuple(temperature), boxes

    @property
    def training(self) -> bool:
        """Whether the classifier is in training mode."""
        return self.method.training

    def train(self, mode: bool = True) -> object:
        """Switch the classifier to training mode, or to evaluation mode if `mode` is False."""
        return self.method.train(mode)

    def found(self, images: Tensor) -> list[Found]:
        """Boxes in pixels of (N, C, H, W) images, by falling score: probability × mean saliency in the region."""
        seen = saliency_maps(self.method, images)
        probability = predictions.Predictions(
            self.method.findings, np.arange(len(images)), seen.logits.float().cpu().numpy(), self.method.exclusive
        ).probabilities(self.temperature)
        size = _size(images)
        return [
            self._around(heatmaps.upsampled_maps(one[None], seen.cells, size)[0].cpu().numpy(), probabilities)
            for one, probabilities in zip(seen.maps, probability, strict=True)
        ]

    def _around(self, heats: np.ndarray, probabilities: np.ndarray) -> Found:
        """The boxes of one image from (F, H, W) heat-maps and (F,) probabilities."""
        several = [heatmaps.heatmap_boxes(heat, self.boxes.share) for heat in heats]
        every = np.concatenate(several)
        finding = np.repeat(np.arange(len(several)), [len(one) for one in several])
        scores = probabilities[finding] * every[:, 4]
        order = np.argsort(-scores, kind="stable")[: self.boxes.keep]
        return Found(
            torch.from_numpy(every[order, :4]).float(),
            torch.from_numpy(finding[order]),
            torch.from_numpy(scores[order]).float(),
        )


# ---- points


def points(
    method: Supervised,
    data: Datasets,
    rows: np.ndarray,
    *,
    model: ModelSpec,
    device: torch.device | str = "cpu",
    batch: int = 64,
    threads: int | None = None,
) -> np.ndarray:
    """(N, F, 2) x, y in stored pixels: the maximum of each finding's map; NaN if the map is zero everywhere.

    rows: ascending.
    """
    view = augment.plain_view(model.size)
    loader = Loader(
        data, [view], batch=batch, rows=rows, findings=(), shuffle=False, threads=threads,
        channels=model.channels, normalise=(model.mean, model.std), device=device,
    )  # fmt: skip
    found = [np.empty((0, len(method.findings), 2))]
    for shown in loader.epoch(0):
        seen = saliency_maps(method, shown.views[0].to(device))
        peaks = heatmaps.peaks(seen.maps, seen.cells).double().cpu().numpy()
        rows_shown = shown.rows.numpy()
        numbers = augment.draw_numbers(view, 0, 0, rows_shown, 0, data.sides(rows_shown))
        found.append(np.stack([heatmaps.points_in_image(*each) for each in zip(peaks, numbers.affine, strict=True)]))
    return np.concatenate(found)
