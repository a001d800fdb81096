"""Mask file: reads a mask from an image file, in which the structure has one gray level and everything else another."""

from pathlib import Path

import numpy as np

from ribcage.imaging import codecs
from ribcage.imaging.gray_image import Limits, UnreadableError
from ribcage.imaging.image_file import file_content
from ribcage.imaging.mask import Mask

MOST_BETWEEN = 0.1
"""Share of pixels that may be between the two gray levels, as at smoothed edges."""


def read_mask(file: Path, value: int = 0, limits: Limits = Limits()) -> Mask:  # noqa: B008
    """The mask in an image file: the pixels with this value or, with value 0, those brighter than half the maximum."""
    levels = codecs.decode_levels(file_content(file, limits), str(file), limits)
    if value:
        return Mask.of_pixels(levels == value)
    top = int(levels.max())
    between = (levels > 0.1 * top) & (levels < 0.9 * top)
    if np.count_nonzero(between) > MOST_BETWEEN * levels.size:
        count = len(np.unique(levels))
        raise UnreadableError(f"{file} has {count:,} grey levels; a binary mask with two levels was expected.")
    return Mask.of_pixels(2 * levels.astype(np.int64) > top) if top else Mask(levels.shape[1], levels.shape[0])
