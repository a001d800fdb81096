"""Array pool: arrays whose memory is used again as soon as no array and no tensor refers to it any more.

Memory from the system is filled with zeros, which takes longer than copying an image into it.
"""

import math
import weakref
from collections import defaultdict

import numpy as np


class ArrayPool:
    """Keeps at most `most` blocks of each size that are not in use."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._free: defaultdict[int, list[np.ndarray]] = defaultdict(list)

    def empty(self, shape: tuple[int, ...]) -> np.ndarray:
        """A float32 array of this shape with arbitrary content."""
        size = 4 * math.prod(shape)
        if not size:
            return np.empty(shape, np.float32)
        free = self._free[size]
        try:
            memory = free.pop()
        except IndexError:
            memory = np.empty(size, np.uint8)  # NumPy requests large pages from the system, torch does not
        # An array over a buffer is the base of all its views, also of those inside tensors: it lives as long as they.
        array: np.ndarray = np.frombuffer(memory.data, np.float32)
        weakref.finalize(array, self._give_back, free, memory).atexit = False
        return array.reshape(shape)

    def close(self) -> None:
        """Keep no memory any longer."""
        self._most = 0
        self._free.clear()

    def _give_back(self, free: list[np.ndarray], memory: np.ndarray) -> None:
        if len(free) < self._most:
            free.append(memory)
