"""Row boxes: the ground-truth boxes of images, found by row."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class RowBoxes:
    """Boxes of images."""

    rows: np.ndarray
    """(M,) int64, ascending."""
    values: np.ndarray
    """(M, 5) float64: finding, x0, y0, x1, y1."""
    readings: np.ndarray
    """(M,) int64: number of each box's reading in `Datasets.readings`; -1 if it belongs to no single reader."""

    def of_rows(self, rows: np.ndarray, drawn: np.ndarray | None = None) -> np.ndarray:
        """(M, 6): boxes of some images, with the position of the image in `rows` first; with `drawn`, the number of one
        reading per image, without the boxes of other readers."""
        first, end = (np.searchsorted(self.rows, rows, side=side) for side in ("left", "right"))
        count = end - first
        n = np.repeat(np.arange(len(rows)), count)
        at = np.repeat(first - (np.cumsum(count) - count), count) + np.arange(count.sum())
        found = np.concatenate([n[:, None], self.values[at]], axis=1)
        return found if drawn is None else found[(self.readings[at] < 0) | (self.readings[at] == drawn[n])]
