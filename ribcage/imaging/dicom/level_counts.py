"""Level counts: how many pixels are at each level."""

import sys

import cv2
import numpy as np

from ribcage.runtime.compiling import compiled

TABLES, MOST_BITS = 8, 12
"""Neighbouring pixels are counted in different tables, because a processor waits where the same number changes twice in
succession. With more bits, OpenCV is faster: the tables do not fit into the processor's fastest cache."""


def count_levels(levels: np.ndarray, bits: int, inside: np.ndarray | None = None) -> np.ndarray:
    """(2^bits,): the number of pixels at each level of an (H, W) array; `inside` is a mask of the pixels to count."""
    count = 1 << bits
    if inside is None and 8 < bits <= MOST_BITS and "numba" in sys.modules:  # else loading it takes longer
        tables = np.zeros((TABLES, count), np.uint32)
        compiled(_add_counts)(levels, count - 1, tables)
        return tables.sum(0)
    mask = None if inside is None else inside.astype(np.uint8)
    return cv2.calcHist([levels], [0], mask, [count], [0, count]).ravel()


def _add_counts(levels: np.ndarray, top: int, tables: np.ndarray) -> None:  # pragma: no cover
    height, width = levels.shape
    for y in range(height):
        for x in range(0, width - TABLES + 1, TABLES):
            for k in range(TABLES):
                tables[k, levels[y, x + k] & top] += 1
        for x in range(width - width % TABLES, width):
            tables[0, levels[y, x] & top] += 1
