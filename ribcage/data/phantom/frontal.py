"""Thickness of a frontal chest: soft tissue minus air plus bone, and the opacities of the findings."""

import functools
import math

import cv2
import numpy as np

from ribcage.data.phantom import disease
from ribcage.data.phantom.chest import Chest
from ribcage.data.phantom.numbers import uniforms
from ribcage.data.phantom.plate import (
    Layer,
    Plate,
    Points,
    band,
    ellipse,
    faded,
    layer_values,
    smooth_curve,
    times,
    without,
)

# One unit of attenuation (a factor e in the beam) is 1000 here.
UNIT = 1000
_BLOCK = np.array([(-1, 0.006), (-0.9, 0.028), (-1, 0.05), (1, 0.05), (0.9, 0.028), (1, 0.006)])
_PEDICLE = ellipse(0, 0, 0.0075, 0.011, points=10)
_PROCESS = ellipse(0, 0.043, 0.006, 0.014, points=10)


def thickness(chest: Chest, plate: Plate) -> np.ndarray:
    """(S, S) int16: attenuation of the beam, in thousandths."""
    air, opacity = air_and_tissue(chest, plate, (-1, 1))
    shadows = disease.shadows(chest, plate, air, _vessels(chest, plate))
    total = _flesh(chest, plate)
    total += mottled(chest, plate, shadows)
    total += scaled(opacity, 300)
    total += _bones(chest, plate)
    total -= _hollows(chest, plate)
    return with_disease(total, shadows)


def with_disease(total: np.ndarray, shadows: disease.Shadows) -> np.ndarray:
    """The attenuation with the tissue and air of findings."""
    for layer, full in ((shadows.dense, 1000), (shadows.hollow, -1900)):
        if layer.any():
            total += scaled(layer, full)
    return np.maximum(total, 0, out=total)


def mottled(chest: Chest, plate: Plate, shadows: disease.Shadows) -> np.ndarray:
    """The lungs: air, vessels, and a texture for finer structures, which changes whenever the patient moves slightly,
    as then other structures overlap."""
    total = plate.texture("mottle", chest.body.seed + 7919 * chest.pose.seed).astype(np.int16)
    total -= np.int16(128 + 1650 + 300 * chest.severity("Emphysema"))
    total += scaled(shadows.vessels, 400 * chest.body.vessels)
    return layer_values(total, shadows.air)


def marbled(plate: Plate, seed: int, strength: float) -> np.ndarray:
    """Uneven soft tissue."""
    return ((plate.texture("cloud", seed).astype(np.int32) - 128) * round(16 * strength)) >> 4


def scaled(layer: Layer, full: float) -> np.ndarray:
    """A layer in units of attenuation: 255 becomes `full`, to within one in a hundred."""
    shift = 15 - math.ceil(math.log2(abs(full) + 1))  # the largest product that 16 bits hold
    total = layer.astype(np.int16)
    total *= np.int16(int(full * (1 << shift) / 255))
    total >>= shift
    return total


def air_and_tissue(chest: Chest, plate: Plate, sides: tuple[int, ...], share: float = 1.0) -> tuple[Layer, Layer]:
    """Air in the beam, and heart; the heart fills this share of the depth."""
    lungs, heart, coarse = [chest.lung(side) for side in sides], chest.mediastinum(), plate.coarse
    depth = coarse.soft(coarse.fill(coarse.empty(), lungs), 0.035)
    deep = (80 + (depth.astype(np.uint16) * 175 >> 8)).astype(np.uint8)
    shallow = np.clip(150 + 600 * coarse.rows(), 120, 255).astype(np.uint8)
    deep = times(without(deep, _hila(chest, coarse, sides)), np.repeat(shallow, coarse.size, 1))
    round_heart = coarse.soft(coarse.fill(coarse.empty(), [heart], z=0.06), 0.03)
    full = faded((130 + (round_heart.astype(np.uint16) * 118 >> 8)).astype(np.uint8), share)
    opacity = times(plate.soft(plate.fill(plate.empty(), [heart], z=0.06), 0.0028), plate.grown(full))
    air = times(plate.soft(plate.fill(plate.empty(), lungs), 0.002), plate.grown(deep))
    return without(air, opacity), opacity


def _hila(chest: Chest, plate: Plate, sides: tuple[int, ...]) -> Layer:
    layer, size = plate.empty(), chest.body.hilum * (1 + 0.5 * chest.severity("Edema"))
    for side in sides:
        x, y = chest.hilum(side)
        plate.fill(layer, [ellipse(x - side * 0.004, y, 0.02 * size, 0.05 * size, side * 0.35)], 120)
    return plate.soft(layer, 0.012)


def _flesh(chest: Chest, plate: Plate) -> np.ndarray:
    """Trunk, neck, arms and breasts."""
    body, coarse = chest.body, plate.coarse
    shapes = [_trunk(chest), *(_arm(side, body.shoulder, chest.pose.arms, body.fat) for side in (-1, 1))]
    depth = coarse.soft(coarse.fill(coarse.empty(), shapes), 0.055)
    rows = coarse.rows()
    grow = np.clip(0.55 + 1.1 * (rows + 0.1), 0.55, 0.88) + np.clip(rows - 0.45, 0, 0.3) * 0.7
    thick = np.rint(grow * (2650 + 1150 * body.fat)).astype(np.int32)
    field = thick * (45 + (depth.astype(np.int32) * 210 >> 8)) // 255
    if body.breast:
        field += _breasts(chest, coarse).astype(np.int32) * round(700 * body.breast) // 255
    field += marbled(coarse, body.seed + 1, 1 + 1.5 * body.fat)
    mask = plate.soft(plate.fill(plate.empty(), shapes), 0.002)
    return layer_values(plate.grown(np.maximum(field, 0).astype(np.int16)), mask)


def _trunk(chest: Chest) -> Points:
    body = chest.body
    wall = max(chest.width(-1), chest.width(1)) + 0.028 + 0.06 * body.fat
    slope = body.shoulder
    trunk = [(-body.neck, -0.4), (-body.neck, -0.13), (-body.neck - 0.05, -0.075 + 0.1 * slope)]
    trunk += [(-0.28, -0.06 + 0.35 * slope), (-0.42, -0.045 + slope), (-0.465, 0.06 + slope)]
    trunk += [(-wall - 0.035, 0.22), (-wall, 0.34), (-wall + 0.008, 0.5), (-wall - 0.03 * body.fat, 0.75), (-wall, 1.2)]
    return smooth_curve(trunk + [(-x, y) for x, y in reversed(trunk)], closed=True, steps=5)


def _arm(side: int, slope: float, arms: float, fat: float) -> Points:
    swing = 0.06 + 0.3 * arms
    thick = 0.055 + 0.035 * fat
    line = np.array(
        [(0.4, 0.045 + slope), (0.455, 0.14 + slope), (0.47 + 0.3 * swing, 0.3 + slope), (0.47 + swing, 0.6 + slope)]
    )
    return band(smooth_curve(line * (side, 1), steps=4), 2 * thick)


def _breasts(chest: Chest, plate: Plate) -> Layer:
    body = chest.body
    layer = plate.empty()
    for side in (-1, 1):
        x, y = side * chest.width(side) * 0.62, 0.47 + 0.1 * body.fat
        a, b = 0.13 + 0.05 * body.breast, 0.12 + 0.08 * body.breast
        plate.fill(layer, [ellipse(x, y + 0.04, a, b)], 160)
    edge = plate.soft(layer, 0.006)
    falling = np.clip((plate.rows() - 0.36 - 0.05 * body.fat) * 900, 0, 255).astype(np.uint8)
    return times(edge, np.repeat(falling, plate.size, 1))


def _vessels(chest: Chest, plate: Plate) -> Layer:
    """Pulmonary vessels: two trees that branch from the hila."""
    layer = plate.empty()
    starts = np.array([chest.hilum(-1), chest.hilum(1)])
    levels = tree(starts, chest, np.array([chest.width(-1), chest.width(1)]))
    widths = (0.0082, 0.0052, 0.0034, 0.0022)
    values = (200, 175, 150, 120)
    for level in (3, 2):
        plate.lines(layer, levels[level], 0.8 * widths[level], values[level])
    for level in (1, 0):  # vessels taper
        plate.lines(layer, levels[level][:, 3:], 0.55 * widths[level], values[level] * 4 // 5)
        plate.lines(layer, levels[level][:, :5], widths[level], values[level])
    return plate.soft(layer, 0.0016)


def tree(starts: np.ndarray, chest: Chest, reach: np.ndarray) -> list[np.ndarray]:
    """Branches per level, each (n, points, 2), of the right and the left lung: each leaves its parent part-way, at an
    angle, and bends. The tree is the same in all studies of a patient, up to the spread by breathing."""
    first, seed = 18, chest.body.seed
    breath = uniforms(seed, 14, chest.pose.seed, count=first)[0] - 0.5
    draw = uniforms(seed, 6, count=first * (1 + 3 + 9 + 18) * 4).reshape(-1, 4)
    side = np.repeat([-1.0, 1.0], first // 2)
    angle = np.tile(np.linspace(-1.3, 1.45, first // 2), 2) + (draw[:first, 0] - 0.5) * 0.6 + 0.2 * breath
    length = np.repeat(reach, first // 2) * (0.3 + 0.35 * draw[:first, 1]) * (1 + 0.12 * np.abs(angle))
    begin = np.repeat(starts, first // 2, axis=0) + np.stack([0 * angle, 0.045 * angle], 1)
    lines = [_branches(begin, angle, length, (draw[:first, 2] - 0.5) * 1.5, side, 7)]
    used = first
    for children, shrink, steps in ((3, 0.66, 7), (3, 0.6, 4), (2, 0.6, 2)):
        n = len(side) * children
        d = draw[used : used + n]
        used += n
        parent = np.repeat(np.arange(len(side)), children)
        place = ((0.25 + 0.65 * d[:, 0]) * lines[-1].shape[1]).astype(int)
        turn = np.where(np.arange(n) % 2 == 0, 1.0, -1.0) * (0.2 + 0.6 * d[:, 1])
        angle, side = angle[parent] + turn, side[parent]
        length = length[parent] * shrink * (0.7 + 0.6 * d[:, 2])
        lines.append(_branches(lines[-1][parent, place], angle, length, (d[:, 3] - 0.5) * 0.9, side, steps))
    return lines


def _branches(
    start: np.ndarray, angle: np.ndarray, length: np.ndarray, bend: np.ndarray, side: np.ndarray, steps: int
) -> np.ndarray:
    bend = bend[:, None]
    along = _along(steps)
    heading = angle[:, None] + bend * along
    heading += 0.16 * np.sin(5.5 * along + (0.5 + 40 * bend))
    points = np.empty((len(start), steps + 1, 2))
    points[:, 0] = start
    points[:, 1:, 0], points[:, 1:, 1] = side[:, None] * np.cos(heading), np.sin(heading)
    points[:, 1:] *= (length / steps)[:, None, None]
    return np.cumsum(points, 1, out=points)


@functools.cache
def _along(steps: int) -> np.ndarray:
    return np.linspace(0, 1, steps)


def _bones(chest: Chest, plate: Plate) -> np.ndarray:
    """All bones in one layer, scaled by seven tenths so that their sum fits."""
    layer = cv2.add(cv2.add(_ribs(chest, plate), _spine(chest, plate)), _girdle(chest, plate))
    return scaled(plate.soft(layer, 0.0024), 1000 / 0.7 * chest.body.bone)


def rib_lines(chest: Chest, side: int) -> tuple[np.ndarray, np.ndarray]:
    """(ribs, points, 2) middle lines from the spine around the side to the front, and their z."""
    body = chest.body
    k = np.arange(body.ribs)[:, None]
    theta = _along(20) * (2.55 - 0.03 * k)
    gap = body.rib_gap * (0.82 + 0.2 * chest.pose.inspiration)
    top = body.rib_first + gap * (k + 0.012 * k**1.3)
    drop = body.rib_drop * np.minimum(1, 0.3 + 0.14 * k) * (1.1 - 0.3 * (chest.pose.inspiration - 0.9))
    wall = chest.lateral(side, np.maximum(0.005, top + drop * 0.45)) + 0.012
    y = top + drop * (1 - np.cos(theta)) * 0.5 - 0.014 * np.sin(2 * theta)
    x = 0.022 + (wall - 0.022) * np.sin(theta) ** 0.85
    return np.stack([side * x, y], -1), -0.13 * np.cos(theta) + 0 * k


def _ribs(chest: Chest, plate: Plate) -> Layer:
    """Ribs with brighter borders; the posterior parts, nearer to the tube and thicker, over the anterior parts."""
    body, layer = chest.body, plate.empty()
    right, left = rib_lines(chest, -1), rib_lines(chest, 1)
    lines, z = np.concatenate([right[0], left[0]]), np.concatenate([right[1], left[1]])
    wide = np.tile(body.rib_width * (0.85 + 0.3 * _along(20)), (len(lines), 1))
    for part, value in ((slice(9, None), 29), (slice(0, 12), 42)):
        shape = band(lines[:, part], wide[:, part])
        deep = np.concatenate([z[:, part], z[:, part][:, ::-1]], 1)
        half = shape.shape[1] // 2
        plate.fill(layer, shape, value, z=deep)
        plate.lines(layer, shape[:, :half], 0.0035, 2 * value, z=deep[:, :half])
        plate.lines(layer, shape[:, half:], 0.0045, 9 * value // 4, z=deep[:, half:])
    return layer


def _spine(chest: Chest, plate: Plate) -> Layer:
    body = chest.body
    layer = plate.empty()
    y = np.arange(-0.34, 1.1, 0.062)
    x = chest.spine(y)
    wide = body.spine * (0.8 + 0.35 * np.clip(y, 0, 1))
    column = np.concatenate([np.stack([x - wide * 0.93, y], 1), np.stack([x + wide * 0.93, y], 1)[::-1]])
    plate.fill(layer, [column], 60, z=-0.1)
    centre, half = np.stack([x, y], 1)[:, None], np.stack([wide, np.ones_like(wide)], 1)[:, None]
    blocks = centre + _BLOCK * half  # (vertebrae, points, 2)
    plate.fill(layer, blocks, 85, z=-0.1)
    plate.lines(layer, blocks, 0.004, 120, z=-0.1, closed=True)
    pedicles = np.concatenate([_PEDICLE + centre + half * (side * 0.62, 0.02) for side in (-1, 1)])
    plate.lines(layer, pedicles, 0.004, 129, z=-0.13, closed=True)
    return plate.fill(layer, _PROCESS + centre, 126, z=-0.16)


def _girdle(chest: Chest, plate: Plate) -> Layer:
    """Clavicles, scapulae, humeri."""
    body, pose = chest.body, chest.pose
    layer, slope = plate.empty(), body.shoulder
    for side in (-1, 1):
        out = 0.05 * pose.blades
        glenoid, tip = (0.375 + out, 0.07 + slope), (0.335 + 1.3 * out + body.scapula, 0.36 + slope * 0.7)
        inner = (0.27 + 1.6 * out + body.scapula, 0.07 + slope * 0.8)
        blade = smooth_curve(
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
        plate.fill(layer, [blade], 27, z=-0.14)
        plate.lines(layer, [blade], 0.005, 74, z=-0.14, closed=True)
        spine = smooth_curve(np.array([inner, (0.36 + out, 0.02 + slope), (0.42, -0.005 + slope)]) * (side, 1))
        plate.lines(layer, [spine], 0.012, 67, z=-0.15)
        swing = 0.1 + 0.3 * pose.arms
        head = (0.425 + 0.6 * out, 0.055 + slope)
        shaft = band(
            smooth_curve(
                np.array(
                    [
                        head,
                        (0.45 + 0.5 * out, 0.12 + slope),
                        (0.46 + 0.4 * swing, 0.34 + 0.7 * slope),
                        (0.46 + swing, 0.62 + slope),
                    ]
                )
                * (side, 1),
                steps=4,
            ),
            0.042,
        )
        plate.fill(layer, [shaft], 56)
        plate.lines(layer, [shaft], 0.009, 133, closed=True)
        plate.fill(layer, [ellipse(side * head[0], head[1], 0.037, 0.042)], 88)
        plate.lines(layer, [ellipse(side * head[0], head[1], 0.037, 0.042)], 0.005, 133, closed=True)
        inside, end = 0.125 + 0.3 * (body.clavicle - 0.07), slope - 0.005
        line = smooth_curve(
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
        plate.fill(layer, [bone], 67, z=z)
        plate.lines(layer, [bone], 0.005, 105, z=z, closed=True)
    return layer


def _hollows(chest: Chest, plate: Plate) -> np.ndarray:
    """Air outside the lungs: trachea, stomach, bowel."""
    body, whole, plate = chest.body, plate, plate.half
    gas = plate.empty()
    fork = 0.36 * chest.height
    shift = 0.006 + 0.01 * body.unfolded
    trachea = smooth_curve([(0.0, -0.3), (0.0, -0.05), (-shift * 0.5, 0.1), (-shift, fork)])
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
    return whole.grown(scaled(plate.soft(gas, 0.0035), 1150))
