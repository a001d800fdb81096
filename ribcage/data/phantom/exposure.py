"""Exposure: tissue thickness → image, with beam, scatter, noise, characteristic curve, collimation and side letters."""

import functools
from dataclasses import replace

import cv2
import numpy as np

from ribcage.data.phantom import letters
from ribcage.data.phantom.numbers import Draws, Film, Pose
from ribcage.data.phantom.plate import Plate, ellipse, window

_TOP = 8192
"""Thickness beyond which nothing is transmitted."""


def expose(total: np.ndarray, film: Film, plate: Plate) -> np.ndarray:
    """Thickness → (S, S) uint16 gray, bright where the beam was absorbed. Modifies `total`."""
    _tilt(total, film)
    light = _scattered(total, film.scatter, plate)
    light >>= 4
    density = _density().take(light)
    density += _grain(density, film, plate.size)
    low, high = _window(density)
    image = _developed(film, low, high).take(density, mode="clip")
    return _labelled(_collimated(image, film, plate), film, plate)


def _developed(film: Film, low: int, high: int) -> np.ndarray:
    """Thickness → gray for a window from the darkest lung (`low`) to the densest abdomen (`high`)."""
    steps = np.arange(_TOP, dtype=np.int32) * 1024
    place = np.concatenate([steps[:low] // low, steps[: _TOP - low] // (high - low) + 1024])
    return _film_curve(film.contrast, film.exposure, film.toe).take(place, mode="clip")


def _collimated(image: np.ndarray, film: Film, plate: Plate) -> np.ndarray:
    """Black outside the collimator, with a narrow penumbra."""
    left, top, right, bottom = film.collimation
    if not any(film.collimation):
        return image
    t = film.tilt
    corners = np.array(
        [(left - t, top + t), (1 - right - t, top - t), (1 - right + t, 1 - bottom - t), (left + t, 1 - bottom + t)]
    )
    field = np.rint((corners * plate.size - 0.5) * 16).astype(np.int32)
    open_ = cv2.fillPoly(plate.empty(), [field], 255, cv2.LINE_AA, 4)
    # A frame edge without a blade stays open to its last pixel. 24 bits fit a float: the product is exact.
    return cv2.multiply(image, plate.soft(open_, 0.002).astype(np.uint16) + np.uint16(1), scale=1 / 256)


def _labelled(image: np.ndarray, film: Film, plate: Plate) -> np.ndarray:
    """Lead letters are bright over everything."""
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
    top = slice(0, plate.size * 5 // 16)  # all letters are above this
    np.maximum(image[top], plate.soft(layer[top], 0.0008).astype(np.uint16) * np.uint16(257), out=image[top])
    return image


_LETTERS = "ABDEHJKMNPRSTW"
_FLAT = Pose(0, "", 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0)


@functools.cache
def _beam() -> np.ndarray:
    return np.rint(65535 * np.exp(-np.arange(_TOP) / 1000)).astype(np.uint32)


@functools.cache
def _density() -> np.ndarray:
    """Light (by 16) → thickness, as the detector measures it."""
    return np.rint(-1000 * np.log((np.arange(4096) + 0.5) / 4096)).astype(np.int16)


def _tilt(total: np.ndarray, film: Film) -> None:
    """Heel effect: the beam is weaker on one side."""
    size = len(total)
    across, down = (
        ((np.arange(size) * 2000 // size - 1000) * round(s * 256) >> 8).astype(np.int16) for s in film.shading
    )
    total += across[None, :]
    total += down[:, None]


def _scattered(total: np.ndarray, share: float, plate: Plate) -> np.ndarray:
    """Light behind the patient, a share of it blurred as scatter."""
    part = round(share * 256)
    light = (_beam() * (256 - part) >> 8).astype(np.uint16).take(total, mode="clip")
    side = plate.size // 8
    small = cv2.resize(light, (side, side), interpolation=cv2.INTER_AREA).astype(np.uint32) * part // (256 - part)
    veil = cv2.GaussianBlur(small.astype(np.uint16), (0, 0), side / 9, borderType=cv2.BORDER_REPLICATE)
    return cv2.add(light, plate.grown(veil), dst=light)


@functools.cache
def _loudness() -> np.ndarray:
    """Quantum noise by thickness in steps of 32: fewer photons, more noise."""
    return 256 / np.sqrt(np.exp(-32 * np.arange(256) / 1000) + 12 / 4096)


@functools.lru_cache(maxsize=8)
def _noise(size: int) -> np.ndarray:
    """(2 size, 2 size) int8 white noise from -64 to 63."""
    raw = np.frombuffer(np.random.Generator(np.random.Philox(key=1)).bytes(8 * size * size), np.uint8)
    pairs = raw.reshape(2, 2 * size, 2 * size)
    return ((pairs[0] >> 2) + (pairs[1] >> 2) - np.uint8(64)).view(np.int8)


def _grain(density: np.ndarray, film: Film, size: int) -> np.ndarray:
    loud = np.minimum(np.rint(_loudness() * (film.noise / 16)), 511).astype(np.int16)
    strength = cv2.LUT((density >> 5).astype(np.uint8), loud).astype(np.int16, copy=False)
    strength *= window(_noise(size), size, film.seed)  # fits: 64 · 511 < 2^15
    strength >>= 7
    return strength


def _window(density: np.ndarray) -> tuple[int, int]:
    """Automatic exposure: thickness of the lungs and the abdomen of this image."""
    size = len(density)
    part = slice(size // 6, size * 5 // 6, size // 64)
    inner = np.sort(density[part, part], axis=None)
    inner = inner[np.searchsorted(inner, 450) :]  # air around the patient is ignored
    if not len(inner):
        return 450, 2000
    low, high = int(inner[len(inner) // 16]), int(inner[len(inner) * 15 // 16])
    return low, max(high, low + 400)


def _film_curve(contrast: float, exposure: float, toe: float) -> np.ndarray:
    """0 … 4095 → gray; 1024 is the darkest lung, 2048 the densest abdomen."""
    z, foot = _foot()
    g = (0.99 - 0.04 * toe) * (1 - np.exp(np.maximum(0, z + (0.24 + exposure)) * (-1.65 * contrast))) * foot
    return np.rint(65535 * np.clip(g, 0, 1)).astype(np.uint16)


@functools.cache
def _foot() -> tuple[np.ndarray, np.ndarray]:
    z = (np.arange(4096) - 1024) / 1024
    return z, 1 / (1 + np.exp(-(z + 0.3) * 6))
