"""Appearance: a descriptor of the global layout of a gray image, independent of borders, shape and exposure.

  image → cropped_content(…): without uniform bars at its edges, 96 × 96 → vector(…): 64 × 64 pixels → 858 numbers

The vector holds histograms of gradient orientations in 8 × 8 cells (HOG, Dalal and Triggs 2005, signed, so that an
inverted image differs), two thumbnails with local contrast removed, and the left-right symmetry about the best axis.
"""

import cv2
import numpy as np

SIDE, CONTENT = 64, 96
"""Side in pixels of the vector's input, and of the content before random crops and rotations."""
CELLS, DIRECTIONS = 8, 8
LARGEST = 128
"""Side in pixels of the reduced image in which bars are detected."""
GRAYS, STRAY = 8.0, 0.1
"""A row is uniform if all but this share of its pixels lie within this many gray values of its median."""
MOST_CUT = 0.35
"""Largest share of the height or width that is removed at each edge."""
REACH, LEAST_CONTRAST = 8.0, 0.2
"""Standard deviation in pixels of the window of local mean and contrast; least local contrast as a share of the image's
contrast."""
COARSE = 16
AXES = range(-3, 4)
"""Positions of the mirror axis that are tried, in half pixels of the coarse image off the middle."""
EMPTY = 1.0
"""Standard deviation in gray values below which an image is blank."""
LENGTH = CELLS * CELLS * DIRECTIONS + COARSE * COARSE + CELLS * CELLS + 2 * 5 + 2 * 8
_PIXELS = DIRECTIONS * np.arange(SIDE * SIDE).reshape(SIDE, SIDE)


def _mirror() -> tuple[np.ndarray, np.ndarray]:
    """(256, 7) and (16, 7): for each axis, the pairs of columns that mirror each other, and the columns in them."""
    first, second = np.divmod(np.arange(COARSE * COARSE), COARSE)
    pairs = np.stack([first + second == COARSE - 1 + shift for shift in AXES], axis=1)
    inside = pairs.reshape(COARSE, COARSE, -1).any(axis=1)
    return pairs.astype(np.float32), np.asarray(inside, np.float32)


_MIRROR = _mirror()


def cropped_content(image: np.ndarray) -> np.ndarray:
    """(96, 96) float32 in 8-bit gray values: the image without the bars left by padding and collimators."""
    pixels = np.ascontiguousarray(image, np.float32) / (257 if image.dtype == np.uint16 else 1)
    height, width = pixels.shape
    share = min(1.0, LARGEST / max(height, width))
    small = resized(pixels, max(1, round(width * share)), max(1, round(height * share)))
    for _ in range(2):  # a bar at the side hides one at the top
        small = _without_rows(_without_rows(small).T).T
    return resized(small, CONTENT, CONTENT)


def _without_rows(image: np.ndarray) -> np.ndarray:
    """Remove uniform rows at the top and bottom."""
    middles = np.median(image, axis=1)
    flat = (np.abs(image - middles[:, None]) > GRAYS).mean(axis=1) <= STRAY
    most = int(len(image) * MOST_CUT)
    top = _run(flat, middles)[:most].sum()
    bottom = _run(flat[::-1], middles[::-1])[:most].sum()
    return image[top : len(image) - bottom]


def _run(flat: np.ndarray, middles: np.ndarray) -> np.ndarray:
    """(N,) bool: the leading rows that are uniform and have the gray of the first."""
    return np.logical_and.accumulate(flat & (np.abs(middles - middles[0]) <= 2 * GRAYS))


def resized(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """Resized by area averaging where it shrinks, linearly where it grows."""
    shrinks = image.shape[0] >= height and image.shape[1] >= width
    how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return cv2.resize(np.ascontiguousarray(image), (width, height), interpolation=how)


def is_blank(image: np.ndarray) -> bool:
    """Whether an image has no content."""
    return bool(np.std(image) < EMPTY * (257 if image.dtype == np.uint16 else 1))


def vector(image: np.ndarray) -> np.ndarray:
    """(LENGTH,) float32 descriptor of a (64, 64) image of gray values."""
    smooth = _blurred(image, 0.8)
    std = max(float(smooth.std()), EMPTY)
    plain = (smooth - smooth.mean()) / std
    coarse = resized(_flattened(plain), COARSE, COARSE)
    tiny = resized(plain, CELLS, CELLS)
    parts = (_edges(smooth / std).ravel(), 0.5 * coarse.ravel(), 0.7 * tiny.ravel())
    return np.concatenate([*parts, symmetry(coarse), symmetry(coarse.T), _profile(tiny), _profile(tiny.T)])


def _blurred(image: np.ndarray, reach: float) -> np.ndarray:
    return np.asarray(cv2.GaussianBlur(image, (0, 0), reach, borderType=cv2.BORDER_REFLECT))


def _flattened(image: np.ndarray) -> np.ndarray:
    """Divide by local contrast after removing the local mean."""
    rest = image - _blurred(image, REACH)
    return np.asarray(rest / np.maximum(np.sqrt(_blurred(rest * rest, REACH)), LEAST_CONTRAST))


def _edges(image: np.ndarray) -> np.ndarray:
    """(8, 8, 8): orientation histograms of the cells, normalised by the gradient strength around them."""
    x = cv2.Sobel(image, cv2.CV_32F, 1, 0, borderType=cv2.BORDER_REFLECT)
    y = cv2.Sobel(image, cv2.CV_32F, 0, 1, borderType=cv2.BORDER_REFLECT)
    strength, angle = cv2.cartToPolar(x, y)
    strength, angle = np.sqrt(strength), angle * (DIRECTIONS / (2 * np.pi))
    lower = angle.astype(np.int64)
    upper_share = angle - lower
    votes = np.zeros(SIDE * SIDE * DIRECTIONS, np.float32)
    votes[_PIXELS + lower % DIRECTIONS] = strength * (1 - upper_share)
    votes[_PIXELS + (lower + 1) % DIRECTIONS] = strength * upper_share
    cells = cv2.resize(votes.reshape(SIDE, SIDE, DIRECTIONS), (CELLS, CELLS), interpolation=cv2.INTER_AREA)
    around = np.sqrt(_blurred((cells * cells).sum(axis=2), 1.2))
    return np.asarray(cells / (around + 0.05 * around.mean() + 1e-3)[..., None])


def symmetry(coarse: np.ndarray) -> np.ndarray:
    """(5,): correlation of the image with its mirror image about the best vertical axis, overall and in four horizontal
    bands; 1 for equal."""
    products = (coarse[:, :, None] * coarse[:, None, :]).reshape(COARSE, -1)
    both, own = (
        (one @ chosen).reshape(4, -1, len(AXES)).sum(axis=1)
        for one, chosen in zip((products, coarse * coarse), _MIRROR, strict=True)
    )
    alike = both.sum(axis=0) / (own.sum(axis=0) + 1e-3)
    best = alike.argmax()
    return np.asarray([alike[best], *(both / (own + 1e-3))[:, best]], np.float32)


def _profile(tiny: np.ndarray) -> np.ndarray:
    """(8,): how the gray values of each column vary over rows."""
    return np.asarray(tiny.std(axis=0), np.float32)
