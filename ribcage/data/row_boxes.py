"""Row boxes: the ground-truth boxes of images, found by row."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ribcage.data.index import SIDES
from ribcage.data.readings import numbers_of_readings


@dataclass(frozen=True)
class RowBoxes:
    """Boxes of images."""

    rows: np.ndarray
    """(M,) int64, ascending."""
    values: np.ndarray
    """(M, 5) float64: finding, x0, y0, x1, y1."""
    readings: np.ndarray
    """(M,) int64: number of each box's reading in `Datasets.readings`; -1 if it belongs to no single reader."""

    @classmethod
    def of(
        cls,
        tables: Sequence[pd.DataFrame],
        readings: Sequence[pd.DataFrame],
        starts: Sequence[int],
        findings: Sequence[str],
    ) -> "RowBoxes":
        """From the boxes and the readings of each dataset, and the numbers of their first rows."""
        parts, numbers, offset = [np.empty((0, 6))], [np.empty(0, np.int64)], 0
        for table, read, start in zip(tables, readings, starts, strict=False):
            finding = table["finding"].map({name: place for place, name in enumerate(findings)}).to_numpy(np.float64)
            x, y, width, height = (table[name].to_numpy(np.float64) for name in SIDES)
            rows, chosen = table["row"].to_numpy() + start, ~np.isnan(finding)
            parts.append(np.stack([rows, finding, x, y, x + width, y + height], axis=1)[chosen])
            own = numbers_of_readings(read, table)
            numbers.append(np.where(own < 0, -1, own + offset)[chosen])
            offset += len(read)
        joined = np.concatenate(parts)
        return cls(joined[:, 0].astype(np.int64), joined[:, 1:], np.concatenate(numbers))

    def of_rows(self, rows: np.ndarray, drawn: np.ndarray | None = None) -> np.ndarray:
        """(M, 6): boxes of some images, with the position of the image in `rows` first; with `drawn`, the number of one
        reading per image, without the boxes of other readers."""
        first, end = (np.searchsorted(self.rows, rows, side=side) for side in ("left", "right"))
        count = end - first
        n = np.repeat(np.arange(len(rows)), count)
        at = np.repeat(first - (np.cumsum(count) - count), count) + np.arange(count.sum())
        found = np.concatenate([n[:, None], self.values[at]], axis=1)
        return found if drawn is None else found[(self.readings[at] < 0) | (self.readings[at] == drawn[n])]
