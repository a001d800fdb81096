"""PNG rows: the grey levels of a PNG that is not interlaced, from its inflated rows.

`headers` inflates the rows of every PNG to check them. OpenCV would need them in a new file; here the filter of each
row is undone directly, which is faster.
"""

import itertools

import numpy as np

from ribcage.runtime.compiling import compiled, is_numba_installed

OPENCV_FIRST = 300
"""PNGs of a process that are left to OpenCV first, because loading the compiled loop takes about as long as it saves on
this number of PNGs of 1024 × 1024 px."""
SMALLEST = 1 << 16
"""Pixels below which OpenCV is hardly slower."""
_number = itertools.count()


def is_worthwhile(pixels: int) -> bool:
    """Whether this process has decoded so many PNGs that the compiled loop should be loaded; counts this one."""
    return pixels >= SMALLEST and next(_number) >= OPENCV_FIRST and is_numba_installed()


def gray_levels(rows: bytes, width: int, height: int, bits: int) -> np.ndarray:
    """(H, W) uint8 or uint16 from rows of 8 or 16 `bits` per pixel, each of which begins with its filter (0 … 4)."""
    step = bits // 8
    pixels = np.empty((height, width * step), np.uint8)
    compiled(_unfilter)(np.frombuffer(rows, np.uint8).reshape(height, 1 + width * step), step, pixels)
    return pixels if step == 1 else pixels.view(">u2").astype(np.uint16)


def _unfilter(rows: np.ndarray, step: int, pixels: np.ndarray) -> None:  # pragma: no cover
    """ISO/IEC 15948, 9.2: each byte was predicted from the bytes `step` to the left, above, and above that one."""
    above = np.zeros(pixels.shape[1], np.uint8)
    for y in range(pixels.shape[0]):
        kind, row = rows[y, 0], pixels[y]
        if kind == 0:
            for x in range(len(row)):
                row[x] = rows[y, 1 + x]
        elif kind == 2:
            for x in range(len(row)):
                row[x] = rows[y, 1 + x] + above[x]
        else:
            for first in range(step):
                left, corner = np.int64(0), np.int64(0)
                for x in range(first, len(row), step):
                    up = np.int64(above[x])
                    if kind == 1:
                        guess = left
                    elif kind == 3:
                        guess = (left + up) >> 1
                    else:  # Paeth's predictor without branches
                        low, high, bound = min(left, up), max(left, up), 3 * corner - left - up
                        guess = low if high <= bound else corner
                        guess = high if bound <= low else guess
                    left, corner = (rows[y, 1 + x] + guess) & 255, up
                    row[x] = left
        above = row
