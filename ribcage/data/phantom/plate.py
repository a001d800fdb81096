"""Canvas: chest coordinates → pixels; shapes and lines as 8-bit layers, smooth fields, textures.

Pixels are computed by integer arithmetic, by OpenCV functions that use it (polygons, 8- and 16-bit Gaussians), or by
float operations on numbers small enough to be exact, in whatever order a machine does them.
"""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from ribcage.data.phantom.numbers import Pose, uniforms

Points = np.ndarray
"""(n, 2) chest coordinates."""
Layer = np.ndarray
"""(S, S) uint8: amount of a material at each pixel."""

_SHIFT = 4


@dataclass(frozen=True)
class Plate:
    """A square of `size` pixels and the position of the patient on it."""

    size: int
    pose: Pose

    @functools.cached_property
    def half(self) -> "Plate":
        """The plate at half the size, for slightly blurred layers."""
        return Plate(self.size // 2, self.pose)

    @functools.cached_property
    def coarse(self) -> "Plate":
        """The plate at a quarter of the size, for strongly blurred layers."""
        return self.half.half

    @functools.cached_property
    def _affine(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Matrix, shift, and shift per z of `place`."""
        pose = self.pose
        cos, sin = math.cos(pose.roll) * pose.scale, math.sin(pose.roll) * pose.scale
        turn = np.array([[cos, sin], [-sin, cos]]) * (-1.0 if pose.mirrored else 1.0, 1.0)
        pivot = np.array([0.0, 0.35])
        shift = np.array([pose.x, pose.y + 0.35 * pose.scale]) - pivot @ turn
        return turn, shift, np.array([pose.yaw, -pose.pitch]) @ turn

    @functools.cached_property
    def _raster(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """`_affine` in sixteenths of a pixel; the half that is added makes truncation round."""
        (turn, shift, deep), unit = self._affine, float(self.size << _SHIFT)
        return turn * unit, shift * unit - (1 << _SHIFT) / 2 + 0.5, deep * unit

    def place(self, points: Points) -> Points:
        """Chest coordinates → shares of the image side."""
        turn, shift, _ = self._affine
        return points @ turn + shift

    def _pixels(self, points: Points, z: float | np.ndarray) -> np.ndarray:
        turn, shift, deep = self._raster
        moved = points.reshape(-1, 2) @ turn
        moved += shift
        if isinstance(z, np.ndarray):
            moved += z.reshape(-1, 1) * deep
        elif z:
            moved += z * deep
        return moved.astype(np.int32).reshape(points.shape)

    def empty(self) -> Layer:
        """An empty layer."""
        return np.zeros((self.size, self.size), np.uint8)

    def fill(
        self, layer: Layer, shapes: Sequence[Points] | np.ndarray, value: int = 255, z: float | np.ndarray = 0.0
    ) -> Layer:
        """Fill each closed shape; an array (shapes, points, 2), whose shapes must not overlap, is filled at once."""
        if isinstance(shapes, np.ndarray):
            return cv2.fillPoly(layer, list(self._pixels(shapes, z)), value, cv2.LINE_AA, _SHIFT)
        for shape in shapes:
            cv2.fillPoly(layer, [self._pixels(shape, z)], value, cv2.LINE_AA, _SHIFT)
        return layer

    def lines(
        self,
        layer: Layer,
        lines: Sequence[Points] | np.ndarray,
        width: float,
        value: int = 255,
        z: float | np.ndarray = 0.0,
        closed: bool = False,
    ) -> Layer:
        """Draw lines of this width; thinner than a pixel means fainter."""
        wide = width * self.size * self.pose.scale
        thick = max(1, round(wide))
        faint = max(1, round(value * min(1.0, wide / thick)))
        pixels = list(self._pixels(lines, z)) if isinstance(lines, np.ndarray) else [self._pixels(s, z) for s in lines]
        cv2.polylines(layer, pixels, closed, faint, thick, cv2.LINE_AA, _SHIFT)
        return layer

    def soft(self, layer: Layer, radius: float) -> Layer:
        """Blur by this share of the side; wide blurs are computed on a downsampled copy."""
        size = len(layer)
        sigma, shrink = radius * size, 1
        if sigma < 0.3:
            return layer
        while sigma / shrink > 1.5 and size % (shrink * 2) == 0 and shrink < 16:
            shrink *= 2
        small = layer if shrink == 1 else cv2.resize(layer, None, fx=1 / shrink, fy=1 / shrink, interpolation=_AREA)
        small = cv2.GaussianBlur(small, (0, 0), sigma / shrink, borderType=cv2.BORDER_REPLICATE)
        return small if shrink == 1 else self.grown(small)

    def grown(self, small: np.ndarray) -> np.ndarray:
        """A small non-negative field, smoothly enlarged to the whole plate. It is computed in unsigned 16-bit numbers,
        whose sums fit a float: 8-bit and signed interpolation round differently on some machines."""
        wide = small.astype(np.uint16, copy=False)
        large = cv2.resize(wide, (self.size, self.size), interpolation=cv2.INTER_LINEAR)
        return large.astype(small.dtype, copy=False)

    def rows(self) -> np.ndarray:
        """(S, 1) distance of each row below the apex of the lungs."""
        return ((np.arange(self.size) + 0.5) / self.size - self.pose.y)[:, None]

    def texture(self, kind: str, seed: int) -> Layer:
        """A window of a ready-made texture, placed and mirrored by `seed`."""
        return window(texture(kind, self.size), self.size, seed)


_AREA = cv2.INTER_AREA


def window(tile: np.ndarray, size: int, seed: int) -> np.ndarray:
    """(size, size) of a tile twice as large, placed and mirrored by `seed`."""
    x, y, mirror, turn = uniforms(seed, 77, count=4)[0].tolist()
    left, top = int(x * size), int(y * size)
    part = tile[top : top + size, left : left + size]
    flip = 2 * (mirror < 0.5) + (turn < 0.5)
    return np.ascontiguousarray(part) if flip == 0 else cv2.flip(part, flip - 2)


def times(a: Layer, b: Layer) -> Layer:
    """Product of two layers, with 255 as one. No product of bytes is half-way between two 255ths, so it is exact."""
    return cv2.multiply(a, b, scale=1 / 255)


def layer_values(field: np.ndarray, layer: Layer) -> np.ndarray:
    """(S, S) int16 values where the layer is, 0 elsewhere. Both fit a float's 24 bits: exact."""
    return cv2.multiply(field, layer.astype(np.int16), scale=1 / 256)


def faded(layer: Layer, full: float) -> Layer:
    """A layer scaled by this share (0 … 1)."""
    return cv2.convertScaleAbs(layer, alpha=max(0, min(256, round(full * 256))) / 256)


def without(a: Layer, b: Layer) -> Layer:
    """`a` times (1 - `b`)."""
    return times(a, cv2.bitwise_not(b))


def smooth_curve(points: Sequence[tuple[float, float]] | np.ndarray, closed: bool = False, steps: int = 6) -> Points:
    """A smooth curve through these points (Catmull–Rom)."""
    p = np.asarray(points, np.float64)
    return _spline(len(p), closed, steps) @ p


@functools.cache
def _spline(count: int, closed: bool, steps: int) -> np.ndarray:
    """(line points, count) weights: every point of the curve is a weighted sum of the given ones."""
    p = np.eye(count)
    ends = (p[-1:], p[:2]) if closed else (2 * p[:1] - p[1:2], 2 * p[-1:] - p[-2:-1])
    p = np.concatenate([ends[0], p, ends[1]])
    quads = np.stack([p[:-3], p[1:-2], p[2:-1], p[3:]], 1)  # (n, 4, count)
    t = np.arange(steps) / steps
    basis = 0.5 * np.stack(
        [-t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, -(t**2) + t**3], 1
    )  # (steps, 4)
    line = np.matmul(basis, quads).reshape(-1, count)
    return line if closed else np.concatenate([line, p[-2:-1]])


def ellipse(x: float, y: float, a: float, b: float, angle: float = 0.0, points: int = 24) -> Points:
    """The outline of an ellipse."""
    cos, sin = math.cos(angle), math.sin(angle)
    return _circle(points) @ np.array([[a * cos, a * sin], [-b * sin, b * cos]]) + (x, y)


@functools.cache
def _circle(points: int) -> np.ndarray:
    angles = np.arange(points) * (2 * np.pi / points)
    return np.stack([np.cos(angles), np.sin(angles)], 1)


def band(line: Points, width: float | np.ndarray) -> Points:
    """The outline of a line of this width."""
    along = np.empty_like(line)
    along[..., 1:-1, :] = line[..., 2:, :] - line[..., :-2, :]
    along[..., 0, :] = line[..., 1, :] - line[..., 0, :]
    along[..., -1, :] = line[..., -1, :] - line[..., -2, :]
    half = (width if np.ndim(width) else np.full(line.shape[:-1], width)) / (
        2 * np.sqrt(along[..., 0] ** 2 + along[..., 1] ** 2) + 1e-9
    )
    normal = along[..., ::-1] * half[..., None] * (-1, 1)
    return np.concatenate([line - normal, (line + normal)[..., ::-1, :]], -2)


@functools.lru_cache(maxsize=24)
def texture(kind: str, size: int) -> Layer:
    """A (2 size, 2 size) tile: `cloud` (soft patches), `mottle` (fine grain), `net` (a web of thin lines)."""
    side = 2 * size
    if kind == "net":
        first, second = (_noise(side, cells, 40 + cells) for cells in (150, 100))
        ridge = 255 - np.minimum(255, np.abs(first.astype(np.int32) - 128) * 7)
        other = 255 - np.minimum(255, np.abs(second.astype(np.int32) - 128) * 7)
        return np.maximum(ridge, other * 3 // 4).astype(np.uint8)
    octaves = {"cloud": ((10, 6), (20, 4), (40, 2), (80, 1)), "mottle": ((60, 2), (110, 3), (220, 3))}[kind]
    total = sum(_noise(side, cells, cells).astype(np.int32) * weight for cells, weight in octaves)
    mean = sum(weight for _, weight in octaves)
    return np.clip((total // mean - 128) * 2 + 128, 0, 255).astype(np.uint8)


def _noise(side: int, cells: int, seed: int) -> Layer:
    grid = (uniforms(seed, 5, count=(cells + 4) ** 2)[0].reshape(cells + 4, cells + 4) * 255).astype(np.uint8)
    fine = min(side, 4 * (cells + 4))
    grown = cv2.resize(grid, (fine, fine), interpolation=cv2.INTER_LINEAR_EXACT)
    soft = cv2.GaussianBlur(grown, (0, 0), max(0.3, 0.35 * fine / cells), borderType=cv2.BORDER_REPLICATE)
    soft = cv2.resize(soft, (side, side), interpolation=cv2.INTER_LINEAR_EXACT)
    return np.clip((soft.astype(np.int32) - 128) * 2 + 128, 0, 255).astype(np.uint8)
