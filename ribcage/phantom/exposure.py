"""From thickness to a film: the beam, scatter, noise, the film curve, collimation, side letters."""

import functools
from dataclasses import replace

import cv2
import numpy as np

from ribcage.phantom import letters
from ribcage.phantom.numbers import Draws, Film, Pose
from ribcage.phantom.plate import Plate, ellipse

_TOP = 8192
"""Thickness beyond this lets nothing through."""


def expose(total: np.ndarray, film: Film, plate: Plate) -> np.ndarray:
    """Thickness → (S, S) uint16 gray, bright where the beam was stopped."""
    total = total + _slope(film, plate.size)
    light = _beam().take(total, mode="clip")
    seen = _scattered(light, film.scatter, plate)
    level = (seen >> 4).astype(np.intp)
    density = _density().take(level) + _grain(level, film, plate.size)
    low, high = _window(density)
    picture = _developed(film, low, high).take(density, mode="clip")
    return _labelled(_collimated(picture, film, plate), film, plate)


def _developed(film: Film, low: int, high: int) -> np.ndarray:
    """Thickness → gray for a window from the darkest lung (`low`) to the densest abdomen (`high`)."""
    steps = np.arange(_TOP)
    place = np.where(steps < low, steps * 1024 // low, (steps - low) * 1024 // (high - low) + 1024)
    return _film_curve(film.contrast, film.exposure, film.toe)[np.minimum(place, 4095)]


def _collimated(picture: np.ndarray, film: Film, plate: Plate) -> np.ndarray:
    """Black where the collimator stopped the beam, with a narrow half-shade."""
    left, top, right, bottom = film.collimation
    if not any(film.collimation):
        return picture
    t = film.tilt
    corners = np.array(
        [(left - t, top + t), (1 - right - t, top - t), (1 - right + t, 1 - bottom - t), (left + t, 1 - bottom + t)]
    )
    field = np.rint((corners * plate.size - 0.5) * 16).astype(np.int32)
    open_ = cv2.fillPoly(plate.empty(), [field], 255, cv2.LINE_AA, 4)
    # A frame edge without a blade stays open to its last pixel.
    return (picture.astype(np.uint32) * (plate.soft(open_, 0.002).astype(np.uint32) + 1) >> 8).astype(np.uint16)


def _labelled(picture: np.ndarray, film: Film, plate: Plate) -> np.ndarray:
    """Lead letters shine over everything."""
    layer, flat = plate.empty(), replace(plate, pose=_FLAT)
    (x, y), size = film.marker, film.marker_size
    draw = Draws(film.seed, 9)
    letter, turned = ("L", draw.chance(0.06)) if draw.chance(0.85) else ("R", False)
    x = 1 - x if letter == "R" else x
    angle = draw.normal(0, 0.12)
    if film.hospital == "A":
        lines = letters.strokes(letter, x - size * 0.33, y - size * 0.5, size, turned, angle)
        if draw.chance(0.5):
            flat.fill(layer, [ellipse(x, y, size, size)], 235)
            flat.lines(layer, lines, 0.0055, 30)
        else:
            flat.lines(layer, lines, 0.007, 235)
    else:
        initials = "".join(_LETTERS[int(draw.uniform(0, len(_LETTERS)))] for _ in range(2))
        flat.lines(layer, letters.strokes(letter, x, y, 1.4 * size, turned, angle), 0.0085, 240)
        flat.lines(layer, letters.strokes(initials, x - size, y + 2.2 * size, 0.6 * size, turned, angle), 0.005, 200)
    if film.label:
        flat.lines(layer, letters.strokes(film.label, 0.06 + 0.6 * draw.uniform(), 0.03, 0.016), 0.0038, 225)
    lead = plate.soft(layer, 0.0008).astype(np.uint16) * 257
    return np.maximum(picture, lead)


_LETTERS = "ABDEHJKMNPRSTW"
_FLAT = Pose(0, "", 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0)


@functools.cache
def _beam() -> np.ndarray:
    return np.rint(65535 * np.exp(-np.arange(_TOP) / 1000)).astype(np.uint16)


@functools.cache
def _density() -> np.ndarray:
    """Light (by 16) → thickness again, as the detector sees it."""
    return np.rint(-1000 * np.log((np.arange(4096) + 0.5) / 4096)).astype(np.int16)


def _slope(film: Film, size: int) -> np.ndarray:
    across, down = (
        ((np.arange(size) * 2000 // size - 1000) * round(s * 256) >> 8).astype(np.int16) for s in film.shading
    )
    return across[None, :] + down[:, None]


def _scattered(light: np.ndarray, share: float, plate: Plate) -> np.ndarray:
    """Scatter: a veil of light from all around."""
    side = plate.size // 8
    small = cv2.resize(light, (side, side), interpolation=cv2.INTER_AREA)
    veil = plate.grown(cv2.GaussianBlur(small, (0, 0), side / 9, borderType=cv2.BORDER_REPLICATE))
    part = round(share * 256)
    return ((light.astype(np.uint32) * (256 - part) + veil.astype(np.uint32) * part) >> 8).astype(np.uint16)


@functools.cache
def _loudness() -> np.ndarray:
    """Quantum noise: the fewer photons, the more."""
    return np.rint(256 / np.sqrt((np.arange(4096) + 12) / 4096)).astype(np.int32)


def _grain(level: np.ndarray, film: Film, size: int) -> np.ndarray:
    key = np.random.Generator(np.random.Philox(key=film.seed))
    raw = np.frombuffer(key.bytes(2 * size * size), np.uint8).reshape(2, size, size)
    noise = raw[0].astype(np.int32) + raw[1] - 255
    return (noise * _loudness().take(level) * round(film.noise * 16)) >> 17


def _window(density: np.ndarray) -> tuple[int, int]:
    """Automatic exposure: what the lungs and the abdomen of this picture measure."""
    size = len(density)
    inner = np.sort(density[size // 6 : size * 5 // 6 : 5, size // 6 : size * 5 // 6 : 5], axis=None)
    inner = inner[np.searchsorted(inner, 450) :]  # the air around the patient does not count
    if not len(inner):
        return 450, 2000
    low, high = int(inner[len(inner) // 16]), int(inner[len(inner) * 15 // 16])
    return low, max(high, low + 400)


def _film_curve(contrast: float, exposure: float, toe: float) -> np.ndarray:
    """0 … 4095 → gray; 1024 is the darkest lung, 2048 the densest abdomen."""
    z = (np.arange(4096) - 1024) / 1024
    g = (0.99 - 0.04 * toe) * (1 - np.exp(-np.maximum(0, z + 0.24 + exposure) * 1.65 * contrast))
    foot = 1 / (1 + np.exp(-(z + 0.3) * 6))
    g = g * foot
    return np.rint(65535 * np.clip(g, 0, 1)).astype(np.uint16)
