"""A frontal chest as thickness: soft tissue minus air plus bone, and the shadows the findings throw."""

import math

import cv2
import numpy as np

from ribcage.phantom import disease
from ribcage.phantom.chest import Chest
from ribcage.phantom.numbers import uniforms
from ribcage.phantom.plate import Layer, Plate, Points, band, curve, ellipse, times, without

# One unit of attenuation (a factor e in the beam) is 1000 here.
UNIT = 1000
_BLOCK = np.array([(-1, 0.006), (-0.9, 0.028), (-1, 0.05), (1, 0.05), (0.9, 0.028), (1, 0.006)])
_PEDICLE = ellipse(0, 0, 0.0075, 0.011, points=10)
_PROCESS = ellipse(0, 0.043, 0.006, 0.014, points=10)


def thickness(chest: Chest, plate: Plate) -> np.ndarray:
    """(S, S) int16: how much the beam is weakened on its way, in thousandths."""
    air, opacity = air_and_tissue(chest, plate, (-1, 1))
    vessels = _vessels(chest, plate)
    shadows = disease.shadows(chest, plate, air, vessels)
    total = _flesh(chest, plate)
    total += mottled(chest, plate, shadows)
    total += scaled(opacity, 300)
    total += _bones(chest, plate)
    total -= _hollows(chest, plate)
    total += scaled(shadows.dense, 1000)
    total -= scaled(shadows.hollow, 1900)
    return np.maximum(total, 0, out=total)


def mottled(chest: Chest, plate: Plate, shadows: disease.Shadows) -> np.ndarray:
    """The lungs: air, vessels in it, and the grain of what is too fine to draw."""
    total = (plate.texture("mottle", chest.body.seed).astype(np.int16) - np.int16(128)) * shadows.air
    total >>= 8
    total -= scaled(shadows.air, 1700 + 600 * chest.severity("Emphysema"))
    total += scaled(times(shadows.vessels, shadows.air), 400 * chest.body.vessels)
    return total


def marbled(plate: Plate, seed: int, mask: Layer, strength: float) -> np.ndarray:
    """Uneven soft tissue."""
    cloud = (plate.texture("cloud", seed).astype(np.int16) - np.int16(128)) * mask  # fits: 127 · 255 < 2^15
    cloud >>= 8
    cloud *= np.int16(round(16 * strength))
    cloud >>= 4
    return cloud


def scaled(layer: Layer, full: float) -> np.ndarray:
    """A layer in units of attenuation: 255 becomes `full`."""
    return cv2.LUT(layer, (np.arange(256) * round(full * 256 / 255) >> 8).astype(np.int16))


def air_and_tissue(chest: Chest, plate: Plate, sides: tuple[int, ...], share: float = 1.0) -> tuple[Layer, Layer]:
    """How much air lies in the beam, and how much heart; the heart fills this share of the depth."""
    body = chest.body
    lungs = plate.fill(plate.empty(), [chest.lung(side) for side in sides])
    lungs = plate.soft(lungs, 0.002)
    depth = plate.soft(lungs, 0.035)
    deep = times(lungs, (80 + (depth.astype(np.uint16) * 175 >> 8)).astype(np.uint8))
    heart = plate.fill(plate.empty(), [chest.mediastinum()], z=0.06)
    heart = plate.soft(heart, 0.0028)
    round_heart = plate.soft(heart, 0.03)
    opacity = times(heart, (130 + (round_heart.astype(np.uint16) * 118 >> 8)).astype(np.uint8))
    opacity = ((opacity.astype(np.uint16) * round(share * 256)) >> 8).astype(np.uint8)
    hila = plate.empty()
    for side in sides:
        x, y = chest.hilum(side)
        size = body.hilum * (1 + 0.5 * chest.severity("Edema"))
        plate.fill(hila, [ellipse(x - side * 0.004, y, 0.02 * size, 0.05 * size, side * 0.35)], 120)
    hila = plate.soft(hila, 0.012)
    rows = np.arange(plate.size) / plate.size - chest.pose.y
    shallow = np.clip(150 + 600 * rows, 120, 255).astype(np.uint8)[:, None]
    return times(without(without(deep, opacity), hila), shallow), opacity


def _flesh(chest: Chest, plate: Plate) -> np.ndarray:
    """Trunk, neck, arms and breasts."""
    body = chest.body
    skin = 0.028 + 0.06 * body.fat
    wall = max(chest.width(-1), chest.width(1)) + skin
    slope = body.shoulder
    arms = chest.pose.arms
    trunk = [(-body.neck, -0.4), (-body.neck, -0.13), (-body.neck - 0.05, -0.075 + 0.1 * slope)]
    trunk += [(-0.28, -0.06 + 0.35 * slope), (-0.42, -0.045 + slope), (-0.465, 0.06 + slope)]
    trunk += [(-wall - 0.035, 0.22), (-wall, 0.34), (-wall + 0.008, 0.5), (-wall - 0.03 * body.fat, 0.75), (-wall, 1.2)]
    outline = curve(trunk + [(-x, y) for x, y in reversed(trunk)], closed=True, steps=5)
    limbs = [_arm(side, slope, arms, body.fat) for side in (-1, 1)]
    mask = plate.soft(plate.fill(plate.empty(), [outline, *limbs]), 0.002)
    depth = plate.soft(mask, 0.055)
    rows = np.arange(plate.size) / plate.size - plate.pose.y
    grow = np.clip(0.55 + 1.1 * (rows + 0.1), 0.55, 0.88) + np.clip(rows - 0.45, 0, 0.3) * 0.7
    thick = 2650 + 1150 * body.fat
    total = scaled(times(mask, (45 + (depth.astype(np.uint16) * 210 >> 8)).astype(np.uint8)), thick)
    total = ((total * np.rint(grow * 256).astype(np.int32)[:, None]) >> 8).astype(np.int16)
    if body.breast:
        total += scaled(_breasts(chest, plate), 700 * body.breast)
    total += marbled(plate, body.seed + 1, mask, 1 + 1.5 * body.fat)
    return total


def _arm(side: int, slope: float, arms: float, fat: float) -> Points:
    swing = 0.06 + 0.3 * arms
    thick = 0.055 + 0.035 * fat
    line = np.array([(0.4, 0.045 + slope), (0.455, 0.14 + slope), (0.47 + 0.3 * swing, 0.3), (0.47 + swing, 0.6)])
    return band(curve(line * (side, 1), steps=4), 2 * thick)


def _breasts(chest: Chest, plate: Plate) -> Layer:
    body = chest.body
    layer = plate.empty()
    for side in (-1, 1):
        x, y = side * chest.width(side) * 0.62, 0.47 + 0.1 * body.fat
        a, b = 0.13 + 0.05 * body.breast, 0.12 + 0.08 * body.breast
        plate.fill(layer, [ellipse(x, y + 0.04, a, b)], 160)
    edge = plate.soft(layer, 0.006)
    falling = np.clip((np.arange(plate.size) / plate.size - plate.pose.y - 0.36 - 0.05 * body.fat) * 900, 0, 255)
    return times(edge, falling.astype(np.uint8)[:, None])


def _vessels(chest: Chest, plate: Plate) -> Layer:
    """Pulmonary vessels: two trees that branch from the hila."""
    layer = plate.empty()
    starts = np.array([chest.hilum(-1), chest.hilum(1)])
    levels = tree(starts, chest.body.seed, np.array([chest.width(-1), chest.width(1)]))
    widths = (0.0082, 0.0052, 0.0034, 0.0022)
    values = (200, 175, 150, 120)
    for level in (3, 2):
        plate.lines(layer, levels[level][:, ::2], 0.8 * widths[level], values[level])
    for level in (1, 0):  # they taper
        plate.lines(layer, levels[level][:, 3:], 0.55 * widths[level], values[level] * 4 // 5)
        plate.lines(layer, levels[level][:, :5], widths[level], values[level])
    return plate.soft(layer, 0.0016)


def tree(starts: np.ndarray, seed: int, reach: np.ndarray) -> list[np.ndarray]:
    """Branches per level, each (n, 8, 2), of the right and the left lung: every one leaves its parent part-way, at an
    angle, and bends."""
    first = 18
    draw = uniforms(seed, 6, count=first * (1 + 3 + 9 + 18) * 4).reshape(-1, 4)
    side = np.repeat([-1.0, 1.0], first // 2)
    angle = np.tile(np.linspace(-1.3, 1.45, first // 2), 2) + (draw[:first, 0] - 0.5) * 0.6
    length = np.repeat(reach, first // 2) * (0.3 + 0.35 * draw[:first, 1]) * (1 + 0.12 * np.abs(angle))
    begin = np.repeat(starts, first // 2, axis=0) + np.stack([0 * angle, 0.045 * angle], 1)
    lines = [_branches(begin, angle, length, (draw[:first, 2] - 0.5) * 1.5, side)]
    used = first
    for children, shrink in ((3, 0.66), (3, 0.6), (2, 0.6)):
        n = len(side) * children
        d = draw[used : used + n]
        used += n
        parent = np.repeat(np.arange(len(side)), children)
        place = 2 + (d[:, 0] * 5).astype(int)
        turn = np.where(np.arange(n) % 2 == 0, 1.0, -1.0) * (0.2 + 0.6 * d[:, 1])
        angle, side = angle[parent] + turn, side[parent]
        length = length[parent] * shrink * (0.7 + 0.6 * d[:, 2])
        lines.append(_branches(lines[-1][parent, place], angle, length, (d[:, 3] - 0.5) * 0.9, side))
    return lines


_WANDER = np.linspace(0.5, 6.0, 7)
_ALONG = np.linspace(0, 1, 7)


def _branches(
    start: np.ndarray, angle: np.ndarray, length: np.ndarray, bend: np.ndarray, side: np.ndarray
) -> np.ndarray:
    bend = bend[:, None]
    heading = angle[:, None] + bend * _ALONG + 0.16 * np.sin(_WANDER + 40 * bend)
    steps = np.stack([side[:, None] * np.cos(heading), np.sin(heading)], -1) * (length[:, None, None] / 7)
    return np.concatenate([start[:, None], start[:, None] + np.cumsum(steps, 1)], 1)


def _bones(chest: Chest, plate: Plate) -> np.ndarray:
    body = chest.body
    total = scaled(_ribs(chest, plate), 750 * body.bone)
    total += scaled(_spine(chest, plate), 900 * body.bone)
    total += scaled(_girdle(chest, plate), 1000 * body.bone)
    return total


def rib_lines(chest: Chest, side: int) -> tuple[np.ndarray, np.ndarray]:
    """(ribs, points, 2) middle lines from the spine around the side to the front, and their z."""
    body = chest.body
    k = np.arange(body.ribs)[:, None]
    theta = np.linspace(0.0, 1.0, 20)[None, :] * (2.55 - 0.03 * k)
    gap = body.rib_gap * (0.82 + 0.2 * chest.pose.inspiration)
    top = body.rib_first + gap * (k + 0.012 * k**1.3)
    drop = body.rib_drop * np.minimum(1, 0.3 + 0.14 * k) * (1.1 - 0.3 * (chest.pose.inspiration - 0.9))
    wall = chest.lateral(side, np.maximum(0.005, top + drop * 0.45)) + 0.012
    y = top + drop * (1 - np.cos(theta)) * 0.5 - 0.014 * np.sin(2 * theta)
    x = 0.022 + (wall - 0.022) * np.sin(theta) ** 0.85
    return np.stack([side * x, y], -1), -0.13 * np.cos(theta) + 0 * k


def _ribs(chest: Chest, plate: Plate) -> Layer:
    """Ribs with brighter borders; the hind parts, nearer to the tube and thicker, over the front parts."""
    body = chest.body
    layer = plate.empty()
    for side in (-1, 1):
        lines, z = rib_lines(chest, side)
        wide = body.rib_width * np.linspace(0.85, 1.15, lines.shape[1])[None, :] * np.ones((len(lines), 1))
        for part, value in ((slice(9, None), 56), (slice(0, 12), 80)):
            shape = band(lines[:, part], wide[:, part])
            deep = np.concatenate([z[:, part], z[:, part][:, ::-1]], 1)
            half = shape.shape[1] // 2
            plate.fill(layer, shape, value, z=deep)
            plate.lines(layer, shape[:, :half], 0.0035, 2 * value, z=deep[:, :half])
            plate.lines(layer, shape[:, half:], 0.0045, 9 * value // 4, z=deep[:, half:])
    return plate.soft(layer, 0.002)


def _spine(chest: Chest, plate: Plate) -> Layer:
    body = chest.body
    layer = plate.empty()
    y = np.arange(-0.34, 1.1, 0.062)
    x = chest.spine(y)
    wide = body.spine * (0.8 + 0.35 * np.clip(y, 0, 1))
    column = np.concatenate([np.stack([x - wide * 0.93, y], 1), np.stack([x + wide * 0.93, y], 1)[::-1]])
    plate.fill(layer, [column], 95, z=-0.1)
    centre, half = np.stack([x, y], 1)[:, None], np.stack([wide, np.ones_like(wide)], 1)[:, None]
    blocks = centre + _BLOCK * half  # (vertebrae, points, 2)
    plate.fill(layer, blocks, 135, z=-0.1)
    plate.lines(layer, blocks, 0.004, 190, z=-0.1, closed=True)
    for side in (-1, 1):
        plate.lines(layer, _PEDICLE + centre + half * (side * 0.62, 0.02), 0.004, 205, z=-0.13, closed=True)
    plate.fill(layer, _PROCESS + centre, 200, z=-0.16)
    return plate.soft(layer, 0.0028)


def _girdle(chest: Chest, plate: Plate) -> Layer:
    """Collar bones, shoulder blades, upper arms."""
    body, pose = chest.body, chest.pose
    layer, slope = plate.empty(), body.shoulder
    for side in (-1, 1):
        out = 0.05 * pose.blades
        glenoid, tip = (0.375 + out, 0.07 + slope), (0.335 + 1.3 * out + body.scapula, 0.36 + slope * 0.7)
        inner = (0.27 + 1.6 * out + body.scapula, 0.07 + slope * 0.8)
        blade = curve(
            np.array(
                [
                    glenoid,
                    (0.355 + out, 0.2 + slope),
                    tip,
                    (0.29 + 1.6 * out, 0.22 + slope),
                    inner,
                    (0.32 + out, 0.03 + slope),
                ]
            )
            * (side, 1),
            closed=True,
            steps=4,
        )
        plate.fill(layer, [blade], 38, z=-0.14)
        plate.lines(layer, [blade], 0.005, 105, z=-0.14, closed=True)
        spine = curve(np.array([inner, (0.36 + out, 0.02 + slope), (0.42, -0.005 + slope)]) * (side, 1))
        plate.lines(layer, [spine], 0.012, 95, z=-0.15)
        swing = 0.1 + 0.3 * pose.arms
        head = (0.425 + 0.6 * out, 0.055 + slope)
        shaft = band(
            curve(
                np.array([head, (0.45 + 0.5 * out, 0.12 + slope), (0.46 + 0.4 * swing, 0.34), (0.46 + swing, 0.62)])
                * (side, 1),
                steps=4,
            ),
            0.042,
        )
        plate.fill(layer, [shaft], 80)
        plate.lines(layer, [shaft], 0.009, 190, closed=True)
        plate.fill(layer, [ellipse(side * head[0], head[1], 0.037, 0.042)], 125)
        plate.lines(layer, [ellipse(side * head[0], head[1], 0.037, 0.042)], 0.005, 190, closed=True)
        inside, end = 0.125 + 0.3 * (body.clavicle - 0.07), slope - 0.005
        line = curve(
            np.array(
                [
                    (0.03, inside),
                    (0.12, 0.85 * inside + 0.15 * end - 0.008),
                    (0.23, 0.4 * inside + 0.6 * end - 0.012),
                    (0.32, end - 0.016),
                    (0.405, end),
                ]
            )
            * (side, 1)
        )
        bone = band(line, np.interp(np.arange(len(line)) / len(line), [0, 0.15, 0.5, 1], [0.036, 0.026, 0.022, 0.03]))
        z = 0.11 - 0.22 * np.abs(bone[:, 0])
        plate.fill(layer, [bone], 95, z=z)
        plate.lines(layer, [bone], 0.005, 150, z=z, closed=True)
    return plate.soft(layer, 0.0024)


def _hollows(chest: Chest, plate: Plate) -> np.ndarray:
    """Air outside the lungs: windpipe, stomach, bowel."""
    body = chest.body
    gas = plate.empty()
    fork = 0.36 * chest.height
    shift = 0.006 + 0.01 * body.unfolded
    trachea = curve([(0.0, -0.3), (0.0, -0.05), (-shift * 0.5, 0.1), (-shift, fork)])
    plate.fill(gas, [band(trachea, 0.036)], 115)
    for side, far in ((-1, 0.06), (1, 0.075)):
        plate.fill(gas, [band(np.array([(-shift, fork - 0.01), (side * far - shift, fork + 0.055)]), 0.024)], 93)
    a, b, x = body.bubble
    if b:
        y = chest.dome(1) + 0.03 + b
        upper = ellipse(x, y, a, b)
        if chest.pose.view != "AP":
            upper[:, 1] = np.minimum(upper[:, 1], y + 0.25 * b)
        plate.fill(gas, [upper], 210)
    for place in uniforms(chest.pose.seed + body.seed, 9, count=16).reshape(4, 4).tolist():
        if place[3] < body.bowel:
            x, y = 0.02 + 0.3 * place[0], chest.base(1) + 0.06 + 0.2 * place[1]
            plate.fill(gas, [ellipse(x, y, 0.02 + 0.04 * place[2], 0.015 + 0.025 * place[1], math.pi * place[0])], 120)
    return scaled(plate.soft(gas, 0.004), 1150)
