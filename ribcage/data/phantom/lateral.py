"""Thickness of a lateral chest: superimposed lungs, the heart anterior and low, the spine posterior, arms raised."""

import functools
from dataclasses import dataclass

import numpy as np

from ribcage.data.phantom import disease
from ribcage.data.phantom.chest import Chest
from ribcage.data.phantom.frontal import air_and_tissue, marbled, mottled, rib_lines, scaled, tree, with_disease
from ribcage.data.phantom.numbers import PhantomFinding, uniforms
from ribcage.data.phantom.plate import Layer, Plate, Points, band, ellipse, layer_values, smooth_curve


@dataclass(frozen=True)
class SideChest(Chest):
    """Outlines seen from the patient's left; x runs to the back. Both lungs cast one shadow."""

    mirrored = False
    middle = 0.05

    @functools.cached_property
    def build(self) -> list[float]:
        """Parameters visible only from the side, each from -1 to 1: depth, kyphosis, its height, belly, nape, loins."""
        return (2 * uniforms(self.body.seed, 13, count=6)[0] - 1).tolist()

    @functools.cached_property
    def front(self) -> float:
        """Anterior extent of the lungs (deep chests in emphysema)."""
        deep = 0.19 + 0.6 * (self.body.width - 0.33) + 0.035 * self.build[0]
        return max(0.13, deep + 0.05 * self.severity("Emphysema"))

    @functools.cached_property
    def hump(self) -> float:
        """Posterior extent of the chest (kyphosis)."""
        return 0.2 + 0.055 * self.build[1] + 0.8 * self.body.scoliosis

    def sides(self, finding: PhantomFinding) -> tuple[int, ...]:
        """One shadow for both."""
        return (1,)

    def hilum(self, side: int) -> tuple[float, float]:
        """Both hila, superimposed."""
        return 0.0, 0.42 * self.height

    def base(self, side: int) -> float:
        """The posterior angle is lowest."""
        return self.height + 0.1

    def lateral(self, side: int, y: np.ndarray | float) -> np.ndarray:
        """x of the posterior border."""
        along = np.clip(np.asarray(y) / self.base(1), 0, 1)
        return 0.05 + self.hump * np.sin(np.pi * (0.1 + (0.62 + 0.08 * self.build[2]) * along)) ** 0.8

    def at(self, side: int, u: float, v: float) -> tuple[float, float]:
        """u from front to back."""
        y = 0.03 + v * self.dome(1) * 0.95
        front = -self.front * min(1.0, 0.35 + 1.4 * v)
        return front + u * (float(self.lateral(1, y)) - front), y

    def floor(self, side: int) -> Points:
        """One dome, steep posteriorly."""
        base, high, front = self.base(1), self.dome_height(side) + 0.03, self.front
        top = base - high + (0.025 if side > 0 else 0.0)
        points = [(float(self.lateral(1, base)), base), (0.13, top + 0.55 * high), (0.03, top + 0.16 * high)]
        return smooth_curve([*points, (-0.08, top), (-0.8 * front, top + 0.02), (-front, top + 0.05)], steps=4)

    def lung(self, side: int) -> Points:
        """The lungs, superimposed."""
        y = np.linspace(0.02, self.base(1), 12)
        back = np.stack([self.lateral(1, y), y], 1)
        front, h = self.front, self.height
        inner = smooth_curve(
            [(-front, 0.85 * h), (-front * 0.93, 0.55 * h), (-front * 0.75, 0.27 * h), (-0.07, 0.1), (-0.02, 0.01)]
        )
        return np.concatenate([back, self.floor(side)[1:], inner])

    def mediastinum(self) -> Points:
        """The heart from the side."""
        wide, low, front, h = self.heart_width / 0.2, self.dome(1) + 0.03, -self.front + 0.012, self.height
        outline = [
            (-0.04, 0.42 * h),
            (front + 0.06, 0.52 * h),
            (front + 0.015, 0.68 * h),
            (front, low),
            (-0.02, low + 0.03),
        ]
        back = front + 0.205 * wide
        return smooth_curve([*outline, (back - 0.02, low - 0.01), (back, 0.8 * h), (back - 0.03, 0.6 * h)], closed=True)

    def heart(self) -> Points:
        """The heart alone."""
        return self.mediastinum()


def thickness(chest: Chest, plate: Plate) -> np.ndarray:
    """(S, S) int16: attenuation of the beam, in thousandths."""
    assert isinstance(chest, SideChest)
    air, opacity = air_and_tissue(chest, plate, (1,), 0.68)
    shadows = disease.shadows(chest, plate, air, _vessels(chest, plate))
    total = _flesh(chest, plate)
    total += mottled(chest, plate, shadows)
    total += scaled(opacity, 250) + scaled(_great_vessels(chest, plate), 420)
    total += _bones(chest, plate)
    total -= _hollows(chest, plate)
    return with_disease(total, shadows)


def _flesh(chest: SideChest, plate: Plate) -> np.ndarray:
    body, back = chest.body, chest.hump - 0.2
    _, _, high, belly, nape, loins = chest.build
    skin, front = 0.035 + 0.06 * body.fat, chest.front
    chestward, navel = -front - skin, -front - 0.015 - 0.11 * body.fat - 0.035 * belly
    neck, shoulder = 0.03 * nape, 0.19 + skin + 0.7 * back - 0.03 * high
    outline = [(-0.05 + neck, -0.4), (-0.055 + neck, -0.14), (-0.15, -0.02), (chestward, 0.2)]
    outline += [(chestward - 0.06 * body.breast, 0.45), (navel, 0.68), (navel - 0.02 * belly, 1.2), (0.2, 1.2)]
    outline += [(0.21 + skin + 0.04 * loins, 0.8), (0.27 + skin + back, 0.5), (0.28 + skin + back, 0.25)]
    outline += [(shoulder, 0.0), (0.11 + neck, -0.13), (0.1 + neck, -0.4)]
    arm = band(_arm(chest), 0.17 + 0.08 * body.fat)
    shapes, coarse = [smooth_curve(outline, closed=True), arm], plate.coarse
    depth = coarse.soft(coarse.fill(coarse.empty(), shapes), 0.05).astype(np.int32)
    rows = coarse.rows()
    grow = 1.05 - 0.35 * np.clip(rows / 0.35, 0, 1) + 0.6 * np.clip((rows - 0.4) / 0.25, 0, 1)
    field = np.rint(grow * (3000 + 1100 * body.fat)).astype(np.int32) * (40 + (depth * 215 >> 8)) // 255
    field += marbled(coarse, body.seed + 1, 1.0)
    mask = plate.soft(plate.fill(plate.empty(), shapes), 0.0022)
    return layer_values(plate.grown(np.maximum(field, 0).astype(np.int16)), mask)


def _arm(chest: SideChest) -> Points:
    """Arms held forwards (0) or over the head (1)."""
    lifted = chest.pose.arms
    elbow = (-0.34 + 0.24 * lifted, -0.27 - 0.14 * lifted)
    return smooth_curve([(0.03, 0.05), (-0.09 + 0.06 * lifted, -0.09), elbow], steps=4)


def _vessels(chest: SideChest, plate: Plate) -> Layer:
    layer = plate.empty()
    starts = np.array([chest.hilum(-1), chest.hilum(1)])
    widths, values = (0.0085, 0.005, 0.0034, 0.0022), (190, 160, 130, 100)
    for lines, width, value in zip(tree(starts, chest, np.full(2, 0.26)), widths, values, strict=True):
        plate.lines(layer, lines, width, value)
    return plate.soft(layer, 0.002)


def _great_vessels(chest: SideChest, plate: Plate) -> Layer:
    """The aortic arch and the descending aorta before the spine."""
    knob, h = chest.body.aorta, chest.height
    line = smooth_curve(
        [(-0.09, 0.5 * h), (-0.085, 0.3 * h), (0.0, 0.2 * h), (0.08, 0.3 * h), (0.115, 0.6 * h), (0.11, 1.1 * h)]
    )
    layer = plate.fill(plate.empty(), [band(line, 1.7 * knob)], 150)
    x, y = chest.hilum(1)
    return plate.soft(plate.fill(layer, [ellipse(x, y, 0.035, 0.05)], 170), 0.008)


def _bones(chest: SideChest, plate: Plate) -> np.ndarray:
    body = chest.body
    ribs, bones = plate.empty(), plate.empty()
    for side in (-1, 1):
        lines, z = rib_lines(chest, side)
        lines = np.stack([0.02 - z * (1.75 + 0.1 * side), lines[..., 1] + 0.012 * side], -1)[:, :17]
        shape = band(lines, body.rib_width)
        plate.fill(ribs, shape, 90)
        half = shape.shape[1] // 2
        plate.lines(ribs, shape[:, :half], 0.004, 180)
        plate.lines(ribs, shape[:, half:], 0.004, 180)
    y = np.arange(-0.3, 1.1, 0.064)
    x = 0.05 + 0.72 * chest.hump * np.sin(np.pi * np.clip(0.12 + 0.6 * y, 0, 1)) + 0.3 * chest.spine(y)
    centre, half_size = np.stack([x, y], 1)[:, None], np.array([body.spine * 1.05, 1.0])
    blocks = centre + _BLOCK * half_size
    plate.fill(bones, blocks, 110)
    plate.lines(bones, blocks, 0.005, 200, closed=True)
    plate.lines(bones, _FACET + centre + np.array((body.spine * 1.9, 0.03)), 0.008, 120, closed=True)
    front = chest.front
    sternum = smooth_curve([(-front * 0.68 - 0.02, 0.1), (-front * 0.93 - 0.022, 0.27), (-front - 0.026, 0.45)])
    plate.fill(bones, [band(sternum, 0.022)], 70)
    plate.lines(bones, [band(sternum, 0.022)], 0.004, 150, closed=True)
    blade = smooth_curve([(0.1, 0.0), (0.19, 0.12), (0.24, 0.32), (0.2, 0.3), (0.13, 0.14)], closed=True)
    plate.lines(bones, [blade], 0.008, 80, closed=True)
    arm = band(_arm(chest), 0.045)
    plate.fill(bones, [arm], 70)
    plate.lines(bones, [arm], 0.008, 140, closed=True)
    return scaled(plate.soft(ribs, 0.0025), 300 * body.bone) + scaled(plate.soft(bones, 0.0026), 850 * body.bone)


_BLOCK = np.array([(-1, 0.006), (-0.9, 0.03), (-1, 0.054), (1, 0.054), (0.92, 0.03), (1, 0.006)])
_FACET = ellipse(0, 0, 0.02, 0.011, 0.6, 10)


def _hollows(chest: SideChest, plate: Plate) -> np.ndarray:
    whole, plate = plate, plate.half
    fork = 0.4 * chest.height
    layer = plate.fill(plate.empty(), [band(smooth_curve([(-0.02, -0.3), (-0.01, -0.02), (0.02, fork)]), 0.036)], 220)
    a, b, _ = chest.body.bubble
    if b:
        plate.fill(layer, [ellipse(-0.05, chest.dome(1) + 0.06 + b, a, b)], 200)
    for place in uniforms(chest.pose.seed + chest.body.seed, 10, count=9).reshape(3, 3).tolist():
        plate.fill(
            layer,
            [ellipse(-0.2 + 0.25 * place[0], chest.base(1) + 0.05 + 0.2 * place[1], 0.03, 0.02)],
            round(120 * place[2]),
        )
    return whole.grown(scaled(plate.soft(layer, 0.0035), 700))
