"""Counterexamples for the out-of-distribution check, made without any other data.

They are training images turned, mirrored and inverted; enlarged details and shuffled tiles of them; laterals of the
phantom; and synthetic noise, patterns, shapes, text, clouds, limbs and CT slices. All images are 96 × 96
(`appearance.content`) and randomly cropped, exposed and labelled, to cover differences between hospitals.
"""

import functools
import math
from collections.abc import Callable, Iterable, Sequence

import cv2
import numpy as np

from ribcage.imaging.appearance import CONTENT, SIDE, cropped_content, resized

Image = np.ndarray
Random = np.random.Generator
CROP = (0.6, 1.15)
"""Range of the height and width of random crops, relative to the image."""
TILT, GAMMA = 3.0, 0.4
"""Standard deviations of the angle in degrees and of the logarithm of gamma."""
SEED = 20260
"""Seed of the phantom patients, different from the default of `import phantom`."""


def random_crop(image: Image, rng: Random) -> Image:
    """(64, 64): a random crop with random exposure and side marker."""
    return _exposed(_cropped(image, rng), rng)


def plainly(image: Image) -> Image:
    """(64, 64): the image without changes."""
    return resized(image, SIDE, SIDE)


def _cropped(image: Image, rng: Random) -> Image:
    wide, high = np.exp(rng.uniform(math.log(CROP[0]), math.log(CROP[1]), 2))
    angle = np.deg2rad(rng.normal(0, TILT))
    centre = 0.5 + rng.uniform(-0.5, 0.5, 2) * np.abs(1 - np.array([wide, high]))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = turn @ np.diag([wide, high]) * CONTENT / SIDE
    start = centre * CONTENT - matrix @ np.full(2, SIDE / 2)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    border = float(rng.choice([0, 0, 0, 255]))
    return cv2.warpAffine(image, np.c_[matrix, start], (SIDE, SIDE), flags=flags, borderValue=border)


def _exposed(image: Image, rng: Random) -> Image:
    low, high = np.quantile(image, (0.01, 0.99))
    found = 255 * np.clip((image - low) / max(high - low, 1), 0, 1) ** np.exp(rng.normal(0, GAMMA))
    if rng.random() < 0.3:
        found = cv2.GaussianBlur(found, (0, 0), rng.uniform(0.3, 1.2))
    found = found + rng.normal(0, rng.uniform(0, 6), found.shape)
    if rng.random() < 0.3:  # a letter
        top, left = rng.integers(0, SIDE - 12, 2)
        found[top : top + rng.integers(2, 5), left : left + rng.integers(3, 12)] = rng.choice([0, 255])
    if rng.random() < 0.15:  # a bar that stays at an edge
        np.rot90(found, int(rng.integers(4)))[: rng.integers(1, 6)] = rng.choice([0, 255])
    return np.clip(found, 0, 255).astype(np.float32)


# ---- from training images

ALTERED: dict[str, Callable[[Image], Image]] = {
    "upside down": lambda image: image[::-1, ::-1],
    "rotated to the left by 90°": lambda image: np.rot90(image),
    "rotated to the right by 90°": lambda image: np.rot90(image, -1),
    "inverted": lambda image: 255 - image,
}
"""Orientations and inversion; each is also mirrored with probability 0.5."""


def altered_image(image: Image, how: str, rng: Random) -> Image:
    """A training image altered in this way."""
    mirrored = image[:, ::-1] if rng.random() < 0.5 else image
    return np.ascontiguousarray(ALTERED[how](mirrored))


def mirrored(image: Image) -> Image:
    """The image with left and right swapped."""
    return np.ascontiguousarray(image[:, ::-1])


# ---- from the phantom


@functools.cache
def phantoms(count: int, view: str) -> tuple[Image, ...]:
    """Synthetic chest images, frontal or lateral."""
    from ribcage.data.datasets import phantom

    table = phantom.index(images=3 * count + 10, lateral=1.0, seed=SEED)
    lateral = (table.table["view"] == "LATERAL").to_numpy()
    drawn = phantom.images(table, size=CONTENT)
    rows = np.flatnonzero(lateral == (view == "LATERAL"))[:count]
    return tuple(cropped_content(drawn(row)) for row in rows.tolist())


# ---- no chest


def other(images: Sequence[Image], rng: Random) -> Image:
    """(96, 96) float32: an image that is not a whole chest."""
    kind = OTHERS[rng.integers(len(OTHERS))]
    found = np.asarray(kind(images, rng), np.float32)
    return cropped_content(255 * (found - found.min()) / max(float(np.ptp(found)), 1e-3))


def noise(images: Sequence[Image], rng: Random) -> Image:
    """White noise, or smooth."""
    drawn = rng.standard_normal((CONTENT, CONTENT)).astype(np.float32)
    return drawn if rng.random() < 0.3 else cv2.GaussianBlur(drawn, (0, 0), rng.uniform(1, 25))


def stripes(images: Sequence[Image], rng: Random) -> Image:
    """Soft or hard stripes of any width and direction, or a chessboard."""
    y, x = np.mgrid[0:CONTENT, 0:CONTENT] / CONTENT
    angle, many, start = rng.uniform(0, np.pi), rng.uniform(1, 20), rng.uniform(0, 6)
    wave = np.sin(2 * np.pi * many * (x * np.cos(angle) + y * np.sin(angle)) + start)
    if rng.random() < 0.3:
        wave = wave * np.sin(2 * np.pi * many * (y * np.cos(angle) - x * np.sin(angle)) + start)
    return np.sign(wave) if rng.random() < 0.5 else wave


def random_shapes(images: Sequence[Image], rng: Random) -> Image:
    """Ellipses and rectangles of several grays."""
    found = np.full((CONTENT, CONTENT), rng.uniform(0, 255), np.float32)
    for _ in range(rng.integers(2, 14)):
        at, to = (tuple(pair) for pair in rng.integers(0, CONTENT, (2, 2)).tolist())
        gray = float(rng.uniform(0, 255))
        if rng.random() < 0.5:
            axes = tuple(rng.integers(4, CONTENT // 2, 2).tolist())
            cv2.ellipse(found, at, axes, float(rng.uniform(0, 180)), 0, 360, gray, -1)
        else:
            cv2.rectangle(found, at, to, gray, -1)
    return cv2.GaussianBlur(found, (0, 0), rng.uniform(0.3, 3))


def random_text(images: Sequence[Image], rng: Random) -> Image:
    """Lines of letters, dark or bright."""
    found = np.full((CONTENT, CONTENT), 255, np.uint8)
    for _ in range(rng.integers(3, 12)):
        letters = "".join(map(chr, rng.integers(65, 122, 20).tolist()))
        place = (int(rng.integers(-10, 20)), int(rng.integers(5, CONTENT)))
        cv2.putText(found, letters, place, 0, float(rng.uniform(0.2, 0.7)), int(rng.integers(0, 120)), 1)
    return found if rng.random() < 0.5 else 255 - found


def shuffled_tiles(images: Sequence[Image], rng: Random) -> Image:
    """Tiles of training images in another order."""
    side = CONTENT // int(rng.choice([2, 3, 4, 6]))
    found = np.empty((CONTENT, CONTENT), np.float32)
    for y in range(0, CONTENT, side):
        for x in range(0, CONTENT, side):
            found[y : y + side, x : x + side] = _part(images, side, rng)
    return found


def detail(images: Sequence[Image], rng: Random) -> Image:
    """A small part of a training image, enlarged and turned."""
    part = _part(images, int(rng.uniform(0.15, 0.4) * CONTENT), rng)
    return np.rot90(resized(part, CONTENT, CONTENT), int(rng.integers(4)))


def _part(images: Sequence[Image], side: int, rng: Random) -> Image:
    image = images[int(rng.integers(len(images)))]
    top, left = rng.integers(0, CONTENT - side + 1, 2)
    return image[top : top + side, left : left + side]


def clouds(images: Sequence[Image], rng: Random) -> Image:
    """Sums of smooth noise, coarse to fine, as in photographs; some with an edge through them."""
    found, fall = np.zeros((CONTENT, CONTENT), np.float32), rng.uniform(0.3, 1)
    for count in (3, 6, 12, 24, 48):
        drawn = rng.standard_normal((count, count)).astype(np.float32)
        found += resized(drawn, CONTENT, CONTENT) * (CONTENT / count) ** fall
    if rng.random() < 0.5:
        y, x = np.mgrid[0:CONTENT, 0:CONTENT] / CONTENT
        angle = rng.uniform(0, 2 * np.pi)
        beyond = (x - 0.5) * np.cos(angle) + (y - 0.5) * np.sin(angle) > rng.uniform(-0.3, 0.3)
        found += beyond * rng.uniform(1, 4) * found.std()
    return found


def limb(images: Sequence[Image], rng: Random) -> Image:
    """Long bones in soft tissue."""
    found = np.full((CONTENT, CONTENT), rng.uniform(0, 60), np.float32)
    angle = rng.uniform(0, 180)
    for _ in range(rng.integers(1, 4)):
        centre, wide = CONTENT * (0.5 + rng.normal(0, 0.15, 2)), CONTENT * rng.uniform(0.2, 0.6)
        _bar(found, centre, wide, angle, rng.uniform(80, 150))
        for _ in range(rng.integers(1, 4)):
            beside = centre + rng.normal(0, 0.2 * wide, 2)
            _bar(found, beside, wide * rng.uniform(0.15, 0.4), angle + rng.normal(0, 6), rng.uniform(150, 255))
    return cv2.GaussianBlur(found, (0, 0), rng.uniform(0.6, 2.5))


def _bar(image: Image, centre: np.ndarray, wide: float, angle: float, gray: float) -> None:
    """Draw a long bar."""
    corners = cv2.boxPoints((tuple(centre.tolist()), (1.5 * CONTENT, wide), angle)).astype(np.int32)
    drawn = cv2.fillPoly(np.zeros_like(image), [corners], float(gray))
    np.maximum(image, drawn, out=image)


def ct_slice(images: Sequence[Image], rng: Random) -> Image:
    """A CT slice of the trunk, axial or coronal."""
    along = rng.random() < 0.35
    return _coronal(rng) if along else _axial(rng)


def _axial(rng: Random) -> Image:
    found = np.full((CONTENT, CONTENT), rng.uniform(0, 60) if rng.random() < 0.2 else 0, np.float32)
    wide = rng.uniform(0.36, 0.5) * CONTENT
    high = wide * rng.uniform(0.6, 0.9)
    x, y = CONTENT / 2 + rng.normal(0, 3, 2)
    tissue, air = rng.uniform(110, 190), rng.uniform(5, 70)
    _disc(found, (x, y), (wide, high), 0, tissue * rng.uniform(0.5, 1))
    _disc(found, (x, y), (0.92 * wide, 0.9 * high), 0, tissue)
    for side in (-1, 1):
        lung = (x + side * wide * rng.uniform(0.4, 0.52), y - high * rng.uniform(-0.1, 0.15))
        size = (wide * rng.uniform(0.25, 0.38), high * rng.uniform(0.5, 0.75))
        _disc(found, lung, size, side * rng.uniform(-20, 20), air)
        _speckle(found, lung, size, rng)
    heart = (x + wide * rng.uniform(0, 0.2), y - 0.1 * high)
    _disc(found, heart, (wide * rng.uniform(0.15, 0.35), high * rng.uniform(0.2, 0.45)), rng.uniform(0, 60), tissue)
    _disc(found, (x, y + 0.6 * high), (0.13 * wide, 0.16 * high), 0, 255)
    return cv2.GaussianBlur(found, (0, 0), rng.uniform(0.4, 1.2))


def _coronal(rng: Random) -> Image:
    found = np.zeros((CONTENT, CONTENT), np.float32)
    x, wide = CONTENT / 2 + rng.normal(0, 3), rng.uniform(0.36, 0.52) * CONTENT
    tissue, air = rng.uniform(110, 190), rng.uniform(5, 60)
    _disc(found, (x, 0.75 * CONTENT), (wide, 0.8 * CONTENT), 0, tissue)
    for side in (-1, 1):
        lung = (x + side * wide * rng.uniform(0.42, 0.52), CONTENT * rng.uniform(0.4, 0.55))
        size = (wide * rng.uniform(0.28, 0.4), CONTENT * rng.uniform(0.25, 0.38))
        _disc(found, lung, size, side * rng.uniform(0, 15), air)
        _speckle(found, lung, size, rng)
        for rib in np.linspace(0.15, 0.75, int(rng.integers(5, 9))):  # cut across: bright dots along the wall
            _disc(found, (x + side * 0.92 * wide, rib * CONTENT), (2, 3), 0, 255)
    return cv2.GaussianBlur(found, (0, 0), rng.uniform(0.4, 1))


def _speckle(image: Image, centre: tuple[float, float], size: tuple[float, float], rng: Random) -> None:
    """Vessels cut across, and perhaps denser lung, inside a lung."""
    for _ in range(rng.integers(5, 40)):
        _disc(image, rng.normal(centre, np.array(size) * 0.45), [rng.uniform(0.5, 2)] * 2, 0, rng.uniform(100, 230))
    for _ in range(rng.integers(0, 6)):
        _disc(image, rng.normal(centre, np.array(size) * 0.5), rng.uniform(2, 9, 2), 0, rng.uniform(80, 180))


def _disc(image: Image, centre: Iterable[float], axes: Iterable[float], angle: float, gray: float) -> None:
    """Draw a filled ellipse."""
    at, size = (tuple(round(float(one)) for one in pair) for pair in (centre, axes))
    cv2.ellipse(image, at, size, float(angle), 0, 360, float(gray), -1)


OTHERS: tuple[Callable[[Sequence[Image], Random], Image], ...] = (
    *(noise, stripes, random_shapes, random_shapes, random_text, shuffled_tiles, detail),
    *(clouds, clouds, limb, limb, ct_slice, ct_slice, ct_slice),
)
