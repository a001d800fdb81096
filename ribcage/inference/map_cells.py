"""Cells of a feature map: where they lie in the image, and whether they are fine enough to localise anything.

Cells are placed at the centre of their receptive field. In a ResNet that is not the centre of an even grid:
convolutions of odd width and stride 2 are centred on pixels 0, 2, 4 …, so cell i of the last features is centred on
pixel 32 i, 15.5 pixels further up and left than a map stretched over the image would suggest.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from ribcage.imaging.heatmaps import Cells
from ribcage.models.backbone import Backbone

COARSE = 6
"""A map with fewer cells per side is reported as too coarse to localise anything (our choice)."""


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


def height_width(images: Tensor) -> tuple[int, int]:
    """Of (…, H, W) images or features."""
    return images.shape[-2], images.shape[-1]


@contextmanager
def measured_cells(backbone: Backbone, size: tuple[int, int]) -> Iterator[dict[tuple[int, int], Cells]]:
    """Context manager: a dict of (h, w) → the position of the cells of features of that size, filled by hooks on
    convolutions and pools.

    The centre of cell i of an output lies at cell s i + (k - 1) d / 2 - p of the input. Layers of other kinds are
    assumed to merge whole cells into an even grid.
    """
    known = {size: Cells((0.5, 0.5), (1.0, 1.0))}

    def note(module: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        before, after = height_width(inputs[0]), height_width(output)
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
