"""Compiled warp: the table of grey values, the affine warp and the noise of an 8-bit image in one compiled function.

It takes about two thirds of the time of `cv2.LUT`, `cv2.warpAffine` and `cv2.scaleAdd`. The result is bit-identical to
theirs in OpenCV 5 on processors with fused multiply-add. `equals_opencv` checks this once per process; elsewhere OpenCV
is used, so that a result never depends on which of the two computed it.
"""

import functools
import itertools
import math
import threading
from dataclasses import dataclass

import cv2
import numpy as np

from ribcage.runtime.compiling import compiled, is_numba_installed

OPENCV_FIRST = 20_000
"""Images of a process that are left to OpenCV first, because loading the compiled function takes about as long as it
saves on this number of images of 224 × 224 px."""
LANES = 16
"""Columns that OpenCV computes at once. If they do not fill the width, it rounds the last columns differently."""
_number = itertools.count()
_own, _trying = threading.local(), threading.Lock()


def is_worthwhile(images: int, width: int) -> bool:
    """Whether this process has warped so many images that the compiled function should be loaded; counts these."""
    number = next(itertools.islice(_number, images - 1, None))
    if number < OPENCV_FIRST or width % LANES or not is_numba_installed():
        return False
    with _trying:  # so that only one of several threads loads the function
        return equals_opencv()


@dataclass(frozen=True)
class LevelWarp:
    """The warp of N images of grey levels."""

    tables: np.ndarray
    """(N, 256) float32: the values of the grey levels; that of 0 also lies around the image."""
    matrices: np.ndarray
    """(N, 2, 3) float64: from a pixel of the result to one of the image."""
    noise: np.ndarray
    """(N,) float32: standard deviations."""
    noise_at: np.ndarray
    """(N,) int64: where the noise of each image begins in the bank."""
    bank: np.ndarray
    """float32, read-only: standard normal numbers."""

    def __call__(self, n: int, levels: np.ndarray, out: np.ndarray) -> None:
        """Warp image n, (H, W) uint8, into `out`, (h, w) float32."""
        if levels.dtype != np.uint8 or not 0 <= self.noise_at[n] <= len(self.bank) - out.size:
            raise ValueError(f"Image {n} has pixels of type {levels.dtype}, or its noise is not in the noise bank.")
        if levels.flags.writeable:  # memory maps are not: the function is then compiled for one kind only
            levels = levels.view()
            levels.flags.writeable = False
        values, pairs = _scratch(levels.size)
        warp = compiled(_warp, contract=True)
        warp(n, levels, self.tables, self.matrices, self.noise, self.noise_at, self.bank, values, pairs, out)


def _scratch(pixels: int) -> tuple[np.ndarray, np.ndarray]:
    """Memory of this thread for as many float32 values, and the same memory as overlapping pairs of them, each read as
    one uint64."""
    found: tuple[np.ndarray, np.ndarray] | None = getattr(_own, "scratch", None)
    if found is None or len(found[1]) < pixels:
        values = np.empty(pixels + 1, np.float32)
        found = _own.scratch = values, np.ndarray((pixels,), np.uint64, values.data, strides=values.strides)
    return found


@functools.cache
def equals_opencv() -> bool:
    """Whether the compiled function computes the same bits as OpenCV on this machine, tried on random images."""
    views = ((0.0, 1.0), (5.0, 1.1), (-7.0, 0.9), (90.0, 0.7), (170.0, 1.9), (0.0, -1.03))
    matrices = np.stack([cv2.getRotationMatrix2D((40.3, 47.1), angle, scale) for angle, scale in views])
    random = np.random.default_rng(0)
    tables, bank = (random.normal(size=size).astype(np.float32) for size in ((len(views), 256), 7000))
    bank.setflags(write=False)
    noise, noise_at = random.uniform(0, 0.1, len(views)).astype(np.float32), random.integers(0, 800, len(views))
    warp = LevelWarp(tables, matrices, noise, noise_at, bank)
    flags, wanted, found = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, *np.empty((2, 64, 96), np.float32)
    for n, (table, matrix, start) in enumerate(zip(tables, matrices, noise_at.tolist(), strict=True)):
        levels = random.integers(0, 256, (96, 80), np.uint8)
        cv2.warpAffine(cv2.LUT(levels, table), matrix, (96, 64), wanted, flags, cv2.BORDER_CONSTANT, float(table[0]))
        cv2.scaleAdd(bank[start : start + 64 * 96].reshape(64, 96), float(noise[n]), wanted, wanted)
        warp(n, levels, found)
        if not np.array_equal(wanted, found):
            return False
    return True


def _warp(  # pragma: no cover
    n: int,
    levels: np.ndarray,
    tables: np.ndarray,
    matrices: np.ndarray,
    sds: np.ndarray,
    starts: np.ndarray,
    bank: np.ndarray,
    values: np.ndarray,
    pairs: np.ndarray,
    out: np.ndarray,
) -> None:
    """Short loops over a row, each of which the compiler can vectorise."""
    table, matrix, sd, black = tables[n], matrices[n], sds[n], tables[n, 0]
    rows, columns = levels.shape
    for i in range(rows):
        source, shaded = levels[i], values[i * columns : (i + 1) * columns]
        for j in range(columns):
            shaded[j] = table[source[j]]
    height, width = out.shape
    step_x, step_y = np.float32(matrix[0, 0]), np.float32(matrix[1, 0])
    row_x, row_y = np.float32(matrix[0, 1]), np.float32(matrix[1, 1])
    offset_x, offset_y = np.float32(matrix[0, 2]), np.float32(matrix[1, 2])
    right, bottom, stride = np.float32(columns - 1), np.float32(rows - 1), np.int32(columns)
    places, across, down = np.empty(width, np.int32), np.empty(width, np.float32), np.empty(width, np.float32)
    above, below = np.empty(width, np.uint64), np.empty(width, np.uint64)
    upper, lower = above.view(np.float32), below.view(np.float32)
    for i in range(height):
        row, noise = out[i], bank[starts[n] + i * width : starts[n] + (i + 1) * width]
        # the product of two float32 is exact in float64, and therefore rounded on its own, as in OpenCV
        start_x = np.float32(np.float64(row_x) * i) + offset_x
        start_y = np.float32(np.float64(row_y) * i) + offset_y
        low, high = 0, width
        while low < high:
            x, y = step_x * np.float32(low) + start_x, step_y * np.float32(low) + start_y
            if 0 <= x < right and 0 <= y < bottom:
                break
            low += 1
        while low < high:
            x, y = step_x * np.float32(high - 1) + start_x, step_y * np.float32(high - 1) + start_y
            if 0 <= x < right and 0 <= y < bottom:
                break
            high -= 1
        # x and y are monotonic along the row: from low to high, all four neighbours are inside the part
        count, inner = high - low, row[low:high]
        for j in range(count):
            at = np.float32(np.int32(low + j))
            x, y = step_x * at + start_x, step_y * at + start_y
            left, top = np.int32(x), np.int32(y)
            across[j], down[j] = x - np.float32(left), y - np.float32(top)
            places[j] = np.int32(np.int32(top * stride) + left)
        for j in range(count):
            place = np.uint64(np.uint32(places[j]))
            above[j], below[j] = pairs[place], pairs[place + np.uint64(columns)]
        for j in range(count):
            one = upper[2 * j] + across[j] * (upper[2 * j + 1] - upper[2 * j])
            two = lower[2 * j] + across[j] * (lower[2 * j + 1] - lower[2 * j])
            inner[j] = one + down[j] * (two - one)
        for k in range(width - count):
            j = k if k < low else k + count
            x, y = step_x * np.float32(j) + start_x, step_y * np.float32(j) + start_y
            a = b = c = d = row[j] = black
            if -1 <= x < columns and -1 <= y < rows:
                column, line = math.floor(x), math.floor(y)
                place = line * columns + column
                if line >= 0 and column >= 0:
                    a = values[place]
                if line >= 0 and column + 1 < columns:
                    b = values[place + 1]
                if line + 1 < rows and column >= 0:
                    c = values[place + columns]
                if line + 1 < rows and column + 1 < columns:
                    d = values[place + columns + 1]
                one = a + (x - np.float32(column)) * (b - a)
                two = c + (x - np.float32(column)) * (d - c)
                row[j] = one + (y - np.float32(line)) * (two - one)
        if sd != 0:
            for j in range(width):
                row[j] += sd * noise[j]
