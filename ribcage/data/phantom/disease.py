"""Appearance of the findings: the air each displaces, the tissue it adds, the lung markings it removes."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from ribcage.data.phantom.chest import Chest
from ribcage.data.phantom.numbers import PhantomFinding, uniforms
from ribcage.data.phantom.plate import Layer, Plate, Points, band, ellipse, faded, smooth_curve, times, without


@dataclass
class Shadows:
    """The layers that findings change."""

    air: Layer
    vessels: Layer
    dense: Layer
    """Extra tissue anywhere."""
    hollow: Layer
    """Air outside the lungs."""

    def block(self, opacity: Layer) -> None:
        """Fill the lung's air with fluid or cells."""
        self.air = without(self.air, opacity)


def shadows(chest: Chest, plate: Plate, air: Layer, vessels: Layer) -> Shadows:
    """Draw every finding of this chest."""
    layers = Shadows(air, vessels, plate.empty(), plate.empty())
    for name, draw in _DRAW.items():
        if name in chest.findings:
            draw(chest, plate, chest.findings[name], layers)
    return layers


def outline(chest: Chest, finding: PhantomFinding) -> Points | None:
    """The outline that a radiologist would put a box around; None for findings of the whole chest."""
    name = finding.name
    if name == "Cardiomegaly":
        return chest.heart()
    if name == "Hernia":
        return _sac(chest, finding)
    if name == "Pneumothorax":
        lung = chest.lung(chest.sides(finding)[0])
        return lung[lung[:, 1] < chest.height * (0.35 + 0.65 * finding.severity)]
    if name == "Effusion":
        return np.concatenate([_fluid(chest, finding, side) for side in chest.sides(finding)[:1]])
    if name in _SHAPES:
        return np.concatenate(_SHAPES[name](chest, finding))
    return None


def _blob(x: float, y: float, radius: float, wild: float, seed: int, points: int = 12) -> Points:
    """A round shape with a wavy border."""
    wave = 1 + wild * (uniforms(seed, 11, count=points)[0] - 0.5)
    circle = ellipse(0, 0, radius, radius, points=points) * wave[:, None]
    return smooth_curve(circle + np.array((x, y)), closed=True, steps=3)


def _mass(chest: Chest, finding: PhantomFinding) -> list[Points]:
    x, y = chest.at(chest.sides(finding)[0], finding.u, finding.v)
    return [_blob(x, y, 0.04 + 0.055 * finding.severity, 0.4, finding.seed)]


def _nodules(chest: Chest, finding: PhantomFinding) -> list[Points]:
    first = _spots(finding, 3)[: 1 + int(2.2 * finding.severity)]
    side = chest.sides(finding)[0]
    shapes = []
    for k, (u, v, size, other) in enumerate(first):
        turned = side if k == 0 or other < 0.5 or len(chest.sides(finding)) > 1 else -side
        x, y = chest.at(turned if chest.mirrored else side, u, v)
        shapes.append(_blob(x, y, 0.011 + 0.012 * finding.severity + 0.006 * size, 0.25, finding.seed + k, 8))
    return shapes


def _spots(finding: PhantomFinding, count: int) -> list[list[float]]:
    """The finding's own position first, then others; each with two more numbers."""
    draws = uniforms(finding.seed, 12, count=count * 4)[0].reshape(count, 4)
    draws[:, :2] = draws[:, :2] * 0.8 + 0.1
    draws[0, :2] = finding.u, finding.v
    return draws.tolist()


def _patches(chest: Chest, finding: PhantomFinding) -> list[Points]:
    """Infiltration: a few ill-defined clouds close to each other."""
    side = chest.sides(finding)[0]
    shapes = []
    for k, (u, v, size, _) in enumerate(_spots(finding, 2 + int(2 * finding.severity))):
        near = (finding.u + 0.35 * (u - 0.5), finding.v + 0.4 * (v - 0.5)) if k else (u, v)
        x, y = chest.at(side, *near)
        shapes.append(_blob(x, y, 0.04 + 0.04 * size + 0.03 * finding.severity, 0.7, finding.seed + k))
    return shapes


def _consolidated(chest: Chest, finding: PhantomFinding) -> list[Points]:
    x, y = chest.at(chest.sides(finding)[0], finding.u, finding.v)
    return [_blob(x, y, 0.055 + 0.075 * finding.severity, 0.75, finding.seed)]


def _segment(chest: Chest, finding: PhantomFinding) -> list[Points]:
    """Pneumonia: a wedge from the hilum to the pleura, one border straight along a fissure."""
    side = chest.sides(finding)[0]
    hx, hy = chest.hilum(side)
    x, y = chest.at(side, 0.95, finding.v)
    spread = 0.09 + 0.1 * finding.severity
    far = [(x + side * 0.03, y - spread), (x + side * 0.04, y), (x + side * 0.02, y + spread)]
    near = (hx + (x - hx) * 0.12, hy + (y - hy) * 0.12)
    bulge = ((near[0] + far[0][0]) / 2, (near[1] + far[0][1]) / 2 - 0.3 * spread)
    return [np.array([near, bulge, *far])]


def _plates(chest: Chest, finding: PhantomFinding) -> list[Points]:
    """Atelectasis: flat bands across the lower lung."""
    side = chest.sides(finding)[0]
    shapes = []
    for u, v, size, tilt in _spots(finding, 1 + int(2.4 * finding.severity)):
        x, y = chest.at(side, 0.25 + 0.5 * u, 0.45 + 0.5 * v)
        length, angle = 0.08 + 0.1 * size + 0.03 * finding.severity, (tilt - 0.4) * 0.7 * side
        half = (math.cos(angle) * length / 2, math.sin(angle) * length / 2)
        line = smooth_curve([(x - half[0], y - half[1]), (x, y - 0.006), (x + half[0], y + half[1])], steps=4)
        shapes.append(band(line, 0.007 + 0.012 * finding.severity * (0.4 + size)))
    return shapes


_SHAPES: dict[str, Callable[[Chest, PhantomFinding], list[Points]]] = {
    "Atelectasis": _plates,
    "Infiltration": _patches,
    "Mass": _mass,
    "Nodule": _nodules,
    "Pneumonia": _segment,
    "Consolidation": _consolidated,
}


def _cloudy(chest: Chest, plate: Plate, finding: PhantomFinding, soft: float, full: float, mottled: float) -> Layer:
    """The finding's shapes, blurred, filled to `full` and broken up by a texture (0: even … 1: patches)."""
    layer = plate.soft(plate.fill(plate.empty(), _SHAPES[finding.name](chest, finding)), soft)
    if mottled:
        cloud = plate.texture("cloud", finding.seed).astype(np.int32)
        share = np.clip(255 - (round(mottled * 256) * (300 - 2 * cloud + 60) >> 8), 0, 255).astype(np.uint8)
        layer = times(layer, share)
    return faded(layer, full)


def _atelectasis(chest: Chest, plate: Plate, finding: PhantomFinding, layers: Shadows) -> None:
    layers.block(_cloudy(chest, plate, finding, 0.0045, 0.28 + 0.5 * finding.severity, 0.0))
    if finding.severity > 0.45:
        side = chest.sides(finding)[0]
        x, y = chest.at(side, 0.3, 0.97)
        haze = plate.fill(plate.empty(), [ellipse(x, y, 0.11, 0.05)])
        layers.block(faded(plate.soft(haze, 0.025), 0.75 * finding.severity))


def _infiltration(chest: Chest, plate: Plate, finding: PhantomFinding, layers: Shadows) -> None:
    layers.block(_cloudy(chest, plate, finding, 0.022, 0.2 + 0.5 * finding.severity, 0.8))


def _mass_shadow(chest: Chest, plate: Plate, finding: PhantomFinding, layers: Shadows) -> None:
    layers.block(_cloudy(chest, plate, finding, 0.004, 0.5 + 0.45 * finding.severity, 0.15))


def _nodule(chest: Chest, plate: Plate, finding: PhantomFinding, layers: Shadows) -> None:
    layers.block(_cloudy(chest, plate, finding, 0.0028, 0.45 + 0.45 * finding.severity, 0.0))


def _pneumonia(chest: Chest, plate: Plate, finding: PhantomFinding, layers: Shadows) -> None:
    """Bronchi stay open: dark branches in a filled segment."""
    filled = _cloudy(chest, plate, finding, 0.011, 0.3 + 0.6 * finding.severity, 0.45)
    side = chest.sides(finding)[0]
    hx, hy = chest.hilum(side)
    x, y = chest.at(side, 0.9, finding.v)
    bronchi = plate.empty()
    for k, (bend, reach, _, _) in enumerate(_spots(finding, 5)):
        end = (hx + (x - hx) * (0.55 + 0.4 * reach), hy + (y - hy) * (0.55 + 0.4 * reach) + 0.045 * (k - 2))
        middle = ((hx + end[0]) / 2, (hy + end[1]) / 2 + 0.04 * (bend - 0.5))
        plate.lines(bronchi, [smooth_curve([(hx, hy), middle, end], steps=4)], 0.006 - 0.0006 * k, 110)
    layers.block(without(filled, plate.soft(bronchi, 0.002)))


def _consolidation(chest: Chest, plate: Plate, finding: PhantomFinding, layers: Shadows) -> None:
    layers.block(_cloudy(chest, plate, finding, 0.018, 0.35 + 0.6 * finding.severity, 0.25))


def _fluid(chest: Chest, finding: PhantomFinding, side: int) -> Points:
    """Effusion: a meniscus that climbs the chest wall."""
    base = chest.base(side)
    rise = 0.035 + chest.height * 0.62 * finding.severity**1.2
    top = base - rise - 0.35 * chest.dome_height(side) * min(1.0, 2 * finding.severity)
    wall = float(chest.lateral(side, top)) + 0.012
    x = [wall, wall * 0.93, wall * 0.8, wall * 0.6, wall * 0.35, 0.03]
    sag = [0.0, 0.36, 0.62, 0.8, 0.86, 0.84]
    surface = smooth_curve([(a, top + min(rise, 0.16) * b) for a, b in zip(x, sag, strict=True)], steps=3)
    floor = np.array([(0.03, base + 0.03), (wall + 0.02, base + 0.03)])
    return np.concatenate([surface, floor]) * (side, 1)


def _effusion(chest: Chest, plate: Plate, finding: PhantomFinding, layers: Shadows) -> None:
    lying = chest.pose.view == "AP"
    layer = plate.fill(plate.empty(), [_fluid(chest, finding, side) for side in chest.sides(finding)])
    layer = faded(plate.soft(layer, 0.03 if lying else 0.005), 0.8 if lying else 0.95)
    layers.block(layer)


def _pneumothorax(chest: Chest, plate: Plate, finding: PhantomFinding, layers: Shadows) -> None:
    """Air around a shrunken lung: no markings outside the fine pleural line."""
    side = chest.sides(finding)[0]
    lung, (hx, hy) = chest.lung(side), chest.hilum(side)
    shrink = 0.09 + 0.38 * finding.severity
    high = np.clip(1.15 - lung[:, 1:] / chest.height * (0.75 - 0.4 * finding.severity), 0.05, 1)
    edge = (hx, hy) + (lung - (hx, hy)) * (1 - shrink * high)
    whole = plate.fill(plate.empty(), [lung])
    inside = plate.soft(plate.fill(plate.empty(), [edge]), 0.002)
    rim = without(whole, inside)
    layers.vessels = without(layers.vessels, rim)
    lit = times(layers.air, faded(rim, 0.35))
    layers.block(times(faded(inside, 0.1 + 0.35 * finding.severity), whole))
    layers.air = cv2.add(layers.air, lit)
    pleura = plate.lines(plate.empty(), [edge[:24]], 0.0045, 80)
    layers.dense = cv2.add(layers.dense, plate.soft(pleura, 0.0015))


def _edema(chest: Chest, plate: Plate, finding: PhantomFinding, layers: Shadows) -> None:
    """Bat wings around the hila, thick blurred vessels, short lines at the bases."""
    s, wings, lines = finding.severity, plate.empty(), plate.empty()
    for side in chest.sides(finding):
        x, y = chest.hilum(side)
        plate.fill(wings, [ellipse(x + side * 0.05, y + 0.035, 0.085 + 0.05 * s, 0.13 + 0.06 * s)])
        for k, (u, v, size, _) in enumerate(_spots(finding, 8)):
            x, y = chest.at(side, 0.97, 0.7 + 0.035 * k)
            plate.lines(lines, [np.array([(x, y), (x - side * (0.02 + 0.02 * size), y + 0.004 * (u - v))])], 0.003, 45)
    wings = plate.soft(wings, 0.04)
    cloud = plate.texture("cloud", finding.seed)
    layers.block(faded(times(wings, (110 + (cloud >> 1)).astype(np.uint8)), 0.14 + 0.65 * s))
    layers.vessels = cv2.add(layers.vessels, faded(plate.soft(layers.vessels, 0.008), 0.5 + 0.9 * s))
    layers.block(np.full_like(wings, round(5 + 30 * s)))
    layers.dense = cv2.add(layers.dense, faded(plate.soft(lines, 0.0015), 0.4 + s))


def _emphysema(chest: Chest, plate: Plate, finding: PhantomFinding, layers: Shadows) -> None:
    """Few vessels, thin rings of bullae; depth and domes change with the chest itself."""
    layers.vessels = faded(layers.vessels, 0.75 - 0.45 * finding.severity)
    rings, holes = plate.empty(), plate.empty()
    for k, (u, v, size, other) in enumerate(_spots(finding, 1 + int(5 * finding.severity))):
        side = -1 if (k + (other < 0.5)) % 2 else 1
        x, y = chest.at(side, 0.45 + 0.5 * u, 0.05 + 0.5 * v)
        shape = _blob(x, y, 0.025 + 0.04 * size, 0.3, finding.seed + k)
        plate.fill(holes, [shape])
        plate.lines(rings, [shape], 0.003, 40, closed=True)
    layers.vessels = without(layers.vessels, holes)
    layers.dense = cv2.add(layers.dense, times(plate.soft(rings, 0.0015), layers.air))


def _fibrosis(chest: Chest, plate: Plate, finding: PhantomFinding, layers: Shadows) -> None:
    """A web of lines at the bases and the periphery."""
    where = plate.empty()
    for side in chest.sides(finding):
        top, low = chest.at(side, 0.95, 0.75 - 0.4 * finding.severity), chest.at(side, 0.55, 1.02)
        plate.fill(where, [ellipse(low[0], low[1] - 0.02, 0.16, 0.07 + 0.1 * finding.severity)], 230)
        plate.lines(where, [np.array([top, chest.at(side, 0.97, 0.95)])], 0.06, 200)
    where = plate.soft(where, 0.03)
    web = times(times(plate.texture("net", finding.seed), where), layers.air)
    layers.dense = cv2.add(layers.dense, faded(web, 0.34 + 0.6 * finding.severity))
    layers.block(faded(where, 0.1 + 0.2 * finding.severity))


def _thickening(chest: Chest, plate: Plate, finding: PhantomFinding, layers: Shadows) -> None:
    """A band of soft tissue inside the chest wall, sometimes a cap over the apex."""
    layer = plate.empty()
    for side in chest.sides(finding):
        base = chest.base(side)
        low, long = 0.25 + 0.7 * finding.v, 0.25 + 0.5 * finding.severity
        y = np.linspace(max(0.03, low - long) if finding.u > 0.3 else 0.0, low, 14) * base
        line = np.stack([side * chest.lateral(side, y), y], 1)
        plate.lines(layer, [line], 2 * (0.01 + 0.03 * finding.severity), 255)
    layers.block(faded(plate.soft(layer, 0.004), 0.6 + 0.4 * finding.severity))


def _sac(chest: Chest, finding: PhantomFinding) -> Points:
    size = 0.062 + 0.058 * finding.severity
    x, y = chest.middle + 0.03 + 0.1 * (finding.u - 0.4), chest.dome(1) - 0.55 * size
    return _blob(x, y, size, 0.2, finding.seed)


def _hernia(chest: Chest, plate: Plate, finding: PhantomFinding, layers: Shadows) -> None:
    """Stomach behind the heart: a round shadow, mostly with air above a level; lying down there is no level."""
    sac = _sac(chest, finding)
    soft = plate.soft(plate.fill(plate.empty(), [sac]), 0.003)
    layers.block(faded(soft, 0.8))
    layers.dense = cv2.add(layers.dense, faded(soft, 0.3 + 0.3 * finding.severity))
    if finding.seed % 8:
        middle = sac.mean(0)
        gas = (sac - middle) * 0.88 + middle
        lying = chest.pose.view == "AP"
        if not lying:
            gas[:, 1] = np.minimum(gas[:, 1], middle[1] + (0.1 - 0.04 * (finding.seed // 8 % 8)) * np.ptp(gas[:, 1]))
        air = plate.fill(plate.empty(), [gas], round(160 + 90 * finding.severity))
        layers.hollow = cv2.add(layers.hollow, plate.soft(air, 0.012 if lying else 0.003))


_DRAW: dict[str, Callable[[Chest, Plate, PhantomFinding, Shadows], None]] = {
    "Emphysema": _emphysema,
    "Fibrosis": _fibrosis,
    "Edema": _edema,
    "Infiltration": _infiltration,
    "Pneumonia": _pneumonia,
    "Consolidation": _consolidation,
    "Nodule": _nodule,
    "Mass": _mass_shadow,
    "Atelectasis": _atelectasis,
    "Pneumothorax": _pneumothorax,
    "Pleural_Thickening": _thickening,
    "Effusion": _effusion,
    "Hernia": _hernia,
}
