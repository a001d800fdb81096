"""The plate that is drawn on: chest coordinates → pixels, shapes and lines as 8-bit layers, soft fields, textures.

Every operation is integer arithmetic (or an OpenCV function that is: polygons, 8- and 16-bit Gaussians, exact linear
resizing), so the same numbers give the same pixels on every machine.
"""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from ribcage.phantom.numbers import Pose, uniforms

Points = np.ndarray
"""(n, 2) chest coordinates."""
Layer = np.ndarray
"""(S, S) uint8: how much of something is here."""

_SHIFT = 4


@dataclass(frozen=True)
class Plate:
    """A square of `size` pixels and how a patient lies on it."""

    size: int
    pose: Pose

    @functools.cached_property
    def _affine(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Matrix, shift, and shift per z of `place`."""
        pose = self.pose
        cos, sin = math.cos(pose.roll) * pose.scale, math.sin(pose.roll) * pose.scale
        turn = np.array([[cos, sin], [-sin, cos]])
        pivot = np.array([0.0, 0.35])
        shift = np.array([pose.x, pose.y + 0.35 * pose.scale]) - pivot @ turn
        return turn, shift, np.array([pose.yaw, -pose.pitch]) @ turn

    def place(self, points: Points, z: float | np.ndarray = 0.0) -> Points:
        """Chest → share of the picture side."""
        turn, shift, deep = self._affine
        moved = points @ turn + shift
        return moved + np.multiply.outer(z, deep) if np.ndim(z) or z else moved

    def _pixels(self, points: Points, z: float | np.ndarray) -> np.ndarray:
        return np.rint((self.place(points, z) * self.size - 0.5) * (1 << _SHIFT)).astype(np.int32)

    def empty(self) -> Layer:
        """Nothing drawn yet."""
        return np.zeros((self.size, self.size), np.uint8)

    def fill(
        self, layer: Layer, shapes: Sequence[Points] | np.ndarray, value: int = 255, z: float | np.ndarray = 0.0
    ) -> Layer:
        """Fill each closed shape; an array (shapes, points, 2) is placed at once."""
        for pixels in (
            self._pixels(shapes, z) if isinstance(shapes, np.ndarray) else [self._pixels(s, z) for s in shapes]
        ):
            cv2.fillPoly(layer, [pixels], value, cv2.LINE_AA, _SHIFT)
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
        """Blur by this length; wide blurs are made on a small copy."""
        sigma = radius * self.size
        if sigma < 0.3:
            return layer
        shrink = 1
        while sigma / shrink > 3.0 and self.size % (shrink * 2) == 0 and shrink < 16:
            shrink *= 2
        small = layer
        if shrink > 1:
            side = self.size // shrink
            small = cv2.resize(layer, (side, side), interpolation=cv2.INTER_AREA)
        small = cv2.GaussianBlur(small, (0, 0), sigma / shrink, borderType=cv2.BORDER_REPLICATE)
        return self.grown(small) if shrink > 1 else small

    def grown(self, small: np.ndarray) -> np.ndarray:
        """A small field, smoothly enlarged to the whole plate."""
        return cv2.resize(small, (self.size, self.size), interpolation=cv2.INTER_LINEAR_EXACT)

    def texture(self, kind: str, seed: int) -> Layer:
        """A window of a ready-made texture, placed, mirrored and turned by `seed`."""
        tile = texture(kind, self.size)
        x, y, flip, turn = uniforms(seed, 77, count=4)[0]
        left, top = int(x * self.size), int(y * self.size)
        window = tile[top : top + self.size, left : left + self.size]
        window = window[:, ::-1] if flip < 0.5 else window
        return np.ascontiguousarray(window.T if turn < 0.5 else window)


def times(a: np.ndarray, b: np.ndarray) -> Layer:
    """Product of two layers, 255 being one."""
    return ((a.astype(np.uint16) * b + np.uint16(127)) >> 8).astype(np.uint8)


def without(a: Layer, b: Layer) -> Layer:
    """What of `a` is left where `b` has taken its share."""
    return times(a, cv2.bitwise_not(b))


def curve(points: Sequence[tuple[float, float]] | np.ndarray, closed: bool = False, steps: int = 6) -> Points:
    """A smooth line through these points (Catmull–Rom)."""
    p = np.asarray(points, np.float64)
    ends = (p[-1:], p[:2]) if closed else (2 * p[:1] - p[1:2], 2 * p[-1:] - p[-2:-1])
    p = np.concatenate([ends[0], p, ends[1]])
    quads = np.stack([p[:-3], p[1:-2], p[2:-1], p[3:]], 1)  # (n, 4, 2)
    line = np.matmul(_basis(steps), quads).reshape(-1, 2)
    return line if closed else np.concatenate([line, p[-2:-1]])


@functools.cache
def _basis(steps: int) -> np.ndarray:
    t = np.arange(steps) / steps
    return 0.5 * np.stack(
        [-t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, -(t**2) + t**3], 1
    )  # (steps, 4)


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
