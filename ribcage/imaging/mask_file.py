"""Mask file: reads a mask from an image file, in which the structure has one gray level and everything else another."""

from pathlib import Path

import cv2
import numpy as np

from ribcage.imaging import codecs
from ribcage.imaging.gray_image import Limits, UnreadableError
from ribcage.imaging.image_file import file_content
from ribcage.imaging.mask import Mask

MOST_BETWEEN = 0.1
"""Share of pixels that may be between the two gray levels, as at smoothed edges."""
EDGE = 4
"""Width of a smoothed edge in pixels: levels between the two occur this close to both of them."""
MOST_AWAY = 1 / 3
"""Share of the pixels between the two levels that may be away from edges, as at thin tips or after JPEG compression."""
LABELS = 31
"""Levels up to this one are numbers of structures, which have no noise of compression."""
COMPRESSED = 16
"""Distance from an edge in pixels up to which levels may differ by up to 10 % from the two, as after JPEG compression,
whose blocks have 8 or 16 pixels."""


def read_mask(file: Path, value: int = 0, limits: Limits = Limits()) -> Mask:  # noqa: B008
    """The mask in an image file: the pixels with this value or, with value 0, those brighter than half the maximum."""
    levels = codecs.decode_levels(file_content(file, limits), str(file), limits)
    if value:
        return Mask.of_pixels(levels == value)
    low, top = int(levels.min()), int(levels.max())
    if top == 0:
        return Mask(levels.shape[1], levels.shape[0])
    if not _has_two_levels(levels, low, top):
        found = "one grey level other than 0" if low == top else f"{len(np.unique(levels)):,} grey levels"
        raise UnreadableError(f"{file} has {found}; a mask with two was expected, one file per structure.")
    return Mask.of_pixels(2 * levels.astype(np.int64) > top)


def _has_two_levels(levels: np.ndarray, low: int, top: int) -> bool:
    """Whether all pixels have the lowest or the highest level, except for smoothed or compressed edges. The level of a
    further structure fills areas, or occurs away from the edges."""
    other = (levels != low) & (levels != top)
    if low == top or not other.any():
        return low < top
    tolerance = 0.1 * top if top > LABELS else 0
    dark, bright = levels <= low + tolerance, levels >= top - tolerance
    between = ~(dark | bright)
    if np.count_nonzero(between) > MOST_BETWEEN * levels.size:
        return False
    away = between & ~(_near(dark, EDGE) & _near(bright, EDGE))
    block = np.ones((3, 3), np.uint8)
    flat = between & (cv2.dilate(levels, block) == cv2.erode(levels, block))  # no edge has one level in 3 x 3 pixels
    compressed = _near(dark, COMPRESSED) & _near(bright, COMPRESSED)
    few = np.count_nonzero(away) <= MOST_AWAY * np.count_nonzero(between)
    return bool(few and not flat.any() and not (other & ~compressed).any())


def _near(pixels: np.ndarray, distance: int) -> np.ndarray:
    """The pixels that are at most this far from one of these along both axes."""
    side = 2 * distance + 1
    return cv2.dilate(pixels.astype(np.uint8), np.ones((side, side), np.uint8)).astype(bool)
