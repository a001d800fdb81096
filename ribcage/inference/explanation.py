"""Explanation: saliency maps of a classifier in the pixels of the image file.

`gradcam` computes maps on the grid of the model's features, in coordinates of the model's input. Here they are mapped
to the pixels of the file, with one interpolation, and whatever was cropped or scaled on the way to the input is undone.

A plausible map is no evidence that it is right: `sanity` tests whether it depends on the model's weights.
"""

import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from ribcage.bundle.io import Bundle
from ribcage.bundle.spec import ModelSpec
from ribcage.imaging import augment, gray_image, heatmaps, image_file
from ribcage.imaging.augment import View
from ribcage.imaging.heatmaps import Cells
from ribcage.inference import detections, gradcam
from ribcage.inference.gradcam import MapMethod
from ribcage.methods.supervised import Supervised
from ribcage.models.opaque.network import OpaqueNetwork

HALF = 0.5
"""Share of a map's maximum at which its contour and its boxes are drawn."""
LONGEST = 180
"""Longest file name, in bytes, that is used unchanged in the name of a map."""


def stored_square(read: image_file.GrayImage, model: ModelSpec) -> np.ndarray:
    """(S, S) uint8: the image in the form in which a dataset folder stores it for the model."""
    pixels, _ = gray_image.to_depth(read.pixels, 8)
    return image_file.fit(pixels, model.stored, model.fit, of=(read.width, read.height))[0]


def view_tensor(square: np.ndarray, model: ModelSpec, how: View | None = None) -> Tensor:
    """(1, C, H, W): a stored image as input of the model, in the plain view unless `how` is given."""
    still = augment.draw_numbers(how or augment.plain_view(model.size), 0, 0, np.zeros(1, np.int64), 0, model.stored)
    return augment.apply([square], still, model.mean, model.std).expand(-1, model.channels, -1, -1)


@dataclass(frozen=True)
class FileSaliency:
    """Saliency maps of one image file."""

    findings: tuple[str, ...]
    maps: Tensor
    """(F, h, w) in 0 … 1, on the grid of the features."""
    cells: Cells
    """Position of the cells, in pixels of the file."""
    seen: tuple[float, float, float, float]
    """x0, y0, x1, y1 in the file: the region that the model's input covers."""
    size: tuple[int, int]
    """(width, height) of the file's image."""

    @property
    def empty(self) -> tuple[str, ...]:
        """Findings whose map is zero everywhere: nothing in the image increases their score."""
        return tuple(name for name, own in zip(self.findings, self.maps, strict=True) if not own.any())

    def heat(self, finding: str, side: int | None = None) -> np.ndarray:
        """(H, W) float32 in 0 … 1 in pixels of the file, scaled to a longer side of `side` if given; 0 outside the
        model's input."""
        width, height = shrunk_size(self.size, side)
        across, down = width / self.size[0], height / self.size[1]
        cells = Cells(
            (self.cells.first[0] * across, self.cells.first[1] * down),
            (self.cells.step[0] * across, self.cells.step[1] * down),
        )
        own = self.maps[self.findings.index(finding)]
        found = heatmaps.upsampled_maps(own[None, None], cells, (height, width))[0, 0].cpu().numpy()
        x0, y0, x1, y1 = np.round(np.array(self.seen) * [across, down, across, down]).astype(int)
        found[:y0], found[y1:], found[:, :x0], found[:, x1:] = 0, 0, 0, 0
        return found


def shrunk_size(size: tuple[int, int], side: int | None) -> tuple[int, int]:
    """(width, height), scaled down so that the longer side is at most `side`."""
    share = min(1.0, side / max(size)) if side else 1.0
    return max(1, round(size[0] * share)), max(1, round(size[1] * share))


def file_saliency(opened: Bundle, read: image_file.GrayImage, map_method: MapMethod | None = None) -> FileSaliency:
    """Saliency maps of a classifier for all of its findings. Not thread-safe: hooks are registered on the network."""
    if not isinstance(opened.method, Supervised | OpaqueNetwork):
        raise ValueError(f"{opened.folder} is a detector, but saliency maps need a classifier.")
    size, model = (read.width, read.height), opened.spec
    seen = gradcam.saliency_maps(opened.method, view_tensor(stored_square(read, model), model), map_method)
    points = np.array([[*seen.cells.first, *(np.array(seen.cells.first) + seen.cells.step)]])
    first, second = _back(points, size, model).reshape(2, 2)
    edges = _back(np.array([[0, 0, model.size[1], model.size[0]]]), size, model)[0].clip(0, [*size, *size])
    step = second - first
    cells = Cells((float(first[0]), float(first[1])), (float(step[0]), float(step[1])))
    x0, y0, x1, y1 = edges.tolist()
    return FileSaliency(opened.spec.findings, seen.maps[0], cells, (x0, y0, x1, y1), size)


def _back(points: np.ndarray, size: tuple[int, int], model: ModelSpec) -> np.ndarray:
    """(M, 4) two points each, in pixels of the model's input → in pixels of the file, also outside its edges."""
    inside = detections.to_stored_pixels(points, model.size, model.stored)
    whole = image_file.fit_matrix(*size, model.stored, model.fit)
    return (inside - np.tile(whole[:, 2], 2)) / np.tile(whole[:, :2].diagonal(), 2)


def file_heatmaps(
    opened: Bundle, read: image_file.GrayImage, findings: Sequence[str], side: int | None = None
) -> np.ndarray:
    """(F, H, W) float32 in 0 … 1: saliency maps of these findings in pixels of the file.

    side: longest side of the maps, for a file that is displayed smaller; `shrunk_size` gives their size.
    """
    saliency = file_saliency(opened, read)
    return np.stack([saliency.heat(finding, side) for finding in findings])


def heat_boxes_in_file(heat: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(K, 5) x, y, width, height in a file of this (width, height) and mean saliency, highest first: boxes around the
    regions of an (H, W) map, of any resolution, that reach half of its maximum."""
    found = heatmaps.heatmap_boxes(heat, HALF)
    found[:, 2:4] -= found[:, :2]
    across, down = size[0] / heat.shape[1], size[1] / heat.shape[0]
    return found * [across, down, across, down, 1]


# ---- file names


def output_places(paths: Sequence[Path]) -> list[Path]:
    """A relative output path for each file: its path relative to the common parent folder of all files."""
    whole = [Path(os.path.abspath(path)) for path in paths]  # noqa: PTH100 – unresolved: a link is not its target
    root = os.path.commonpath([one.parent for one in whole]) if whole else ""
    return [short(one.relative_to(root)) for one in whole]


def short(place: Path) -> Path:
    """The path with its name shortened so that a suffix still fits: file systems allow 255 bytes."""
    name = os.fsencode(place.name)
    if len(name) <= LONGEST:
        return place
    return place.with_name(name[: LONGEST - 9].decode("utf-8", "ignore") + "-" + hashlib.sha1(name).hexdigest()[:8])


def endings(findings: Sequence[str]) -> dict[str, str]:
    """A word for file names for each finding, without '-', unique even on a file system that ignores case."""
    words: dict[str, str] = {}
    for finding in findings:
        word = re.sub(r"\W", "_", finding)[:40]
        while word.casefold() in {one.casefold() for one in words.values()}:
            word += "_"
        words[finding] = word
    return words
