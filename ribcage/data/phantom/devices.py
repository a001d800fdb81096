"""Foreign objects: ECG electrodes and leads, tubes, lines, pacemakers, sternal wires, clips, laterality tokens."""

import numpy as np

from ribcage.data.phantom.chest import Chest
from ribcage.data.phantom.numbers import Draws
from ribcage.data.phantom.plate import Layer, Plate, Points, ellipse, smooth_curve


def metal(chest: Chest, plate: Plate, draw: Draws, token: bool) -> Layer:
    """All metal and plastic on and in this patient."""
    layer = plate.empty()
    ward = chest.pose.view == "AP"
    if draw.chance(0.5 if ward else 0.05):
        _electrodes(plate, layer, draw)
    if draw.chance(0.25 if ward else 0.0):
        _tube(chest, plate, layer, draw)
    if draw.chance(0.3 if ward else 0.04):
        _line(chest, plate, layer, draw)
    if draw.chance(0.05):
        _pacemaker(chest, plate, layer, draw)
    if draw.chance(0.08):
        _sternal_wires(plate, layer, draw)
    if draw.chance(0.06):
        _clips(chest, plate, layer, draw)
    layer = plate.soft(layer, 0.0012) if layer.any() else layer
    if token:
        place = (-0.34 - draw.uniform(0, 0.06), -0.03 + draw.uniform(0, 0.06))
        plate.fill(layer, [ellipse(*place, 0.016, 0.016)], 230)
        plate.fill(layer, [ellipse(*place, 0.006, 0.006)], 20)
    return layer


def _electrodes(plate: Plate, layer: Layer, draw: Draws) -> None:
    exit_x, exit_y = draw.uniform(-0.4, 0.4), draw.uniform(0.75, 0.95)
    for x, y in ((-0.27, 0.06), (0.27, 0.06), (-0.3, 0.5), (0.3, 0.5)):
        if not draw.chance(0.75):
            continue
        x, y = draw.normal(x, 0.04), draw.normal(y, 0.05)
        plate.lines(layer, [ellipse(x, y, 0.011, 0.011, points=14)], 0.005, 120, closed=True)
        plate.fill(layer, [ellipse(x, y, 0.004, 0.004, points=8)], 170)
        sway = [(x + draw.normal(0, 0.06), y + 0.33 * (exit_y - y)), (exit_x + draw.normal(0, 0.06), exit_y - 0.15)]
        plate.lines(layer, [smooth_curve([(x, y), *sway, (exit_x, exit_y), (exit_x, 1.2)])], 0.0045, 105)


def _tube(chest: Chest, plate: Plate, layer: Layer, draw: Draws) -> None:
    """Endotracheal tube, often with a feeding tube."""
    end = chest.height * draw.uniform(0.14, 0.3)
    tube = smooth_curve([(draw.normal(0, 0.006), -0.4), (0.002, -0.1), (-0.003, end)])
    for side in (-1, 1):
        plate.lines(layer, [tube + np.array((0.008 * side, 0))], 0.003, 60)
    if draw.chance(0.6):
        low = chest.dome(1) + 0.08
        feeding = smooth_curve([(0.012, -0.4), (0.012, 0.2), (0.02, 0.75 * low), (0.05, low), (0.14, low + 0.06)])
        plate.lines(layer, [feeding], 0.004, 75)


def _line(chest: Chest, plate: Plate, layer: Layer, draw: Draws) -> None:
    """A central line, from the neck or from below the clavicle, into the superior vena cava."""
    end = (-0.045, chest.height * draw.uniform(0.35, 0.55))
    path: list[tuple[float, float]] = [(-0.09, -0.3), (-0.07, -0.05), (-0.05, 0.12)]
    if draw.chance(0.5):
        path = [(-0.45, 0.12), (-0.25, 0.055), (-0.1, 0.07), (-0.05, 0.13)]
    plate.lines(layer, [smooth_curve([*path, end])], 0.0038, 85)


def _pacemaker(chest: Chest, plate: Plate, layer: Layer, draw: Draws) -> None:
    x, y = 0.24 + draw.normal(0, 0.02), 0.12 + draw.normal(0, 0.02)
    plate.fill(layer, [ellipse(x, y, 0.045, 0.037, draw.uniform(-0.5, 0.5))], 190)
    top = (0.07, 0.07)
    apex = (0.7 * chest.heart_width, chest.dome(1) - 0.06)
    for end in (apex, (-0.055, 0.62 * chest.height))[: 1 + draw.chance(0.6)]:
        plate.lines(
            layer, [smooth_curve([(x, y - 0.03), (0.18, 0.05), top, (-0.03, 0.2), (-0.045, 0.4), end])], 0.004, 130
        )


def _sternal_wires(plate: Plate, layer: Layer, draw: Draws) -> None:
    for k in range(6):
        x, y = draw.normal(0, 0.003), 0.13 + 0.062 * k
        plate.lines(layer, [ellipse(x, y, 0.013, 0.008, draw.uniform(-0.3, 0.3), 10)], 0.0032, 170, z=0.13, closed=True)


def _clips(chest: Chest, plate: Plate, layer: Layer, draw: Draws) -> None:
    side = -1 if draw.chance(0.5) else 1
    x, y = chest.at(side, draw.uniform(0.1, 0.9), draw.uniform(0.2, 0.9))
    clips: list[Points] = []
    for _ in range(4):
        a, b = x + draw.normal(0, 0.025), y + draw.normal(0, 0.025)
        clips.append(smooth_curve([(a, b), (a + draw.normal(0, 0.006), b + draw.normal(0, 0.006))]))
    plate.lines(layer, clips, 0.0035, 200)
