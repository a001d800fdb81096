"""Reader policy: one ground truth from the labels and boxes of several readers of an image.

- majority (default): a finding is present or absent if more than half of the readers who labelled it say so, else it is
  uncertain. A box is kept if more than half of the readers of the image drew a box of the finding at this place.
- any: a finding is present if any reader says so, else uncertain if any reader is uncertain, else absent. All boxes are
  kept.
- each: in training, one reader is drawn for each image and epoch (`RowReadings`); elsewhere this is majority.

Boxes that overlap are at the same place, and are averaged.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ribcage.data.index import SIDES, Index, box_frame

SAME_PLACE = 0.4
"""Minimum IoU of boxes of one finding at the same place."""


def majority_labels(readings: pd.DataFrame, findings: Sequence[str], count: int) -> np.ndarray:
    """(N, F) float32 labels of `count` images; NaN for images without readings."""
    ones, zeros, uncertain = _votes(readings, findings, count)
    given = ones + zeros + uncertain
    chosen = np.select([given == 0, 2 * ones > given, 2 * zeros > given], [np.nan, 1.0, 0.0], -1.0)
    return chosen.astype(np.float32)


def any_labels(readings: pd.DataFrame, findings: Sequence[str], count: int) -> np.ndarray:
    """(N, F) float32 labels of `count` images; NaN for images without readings."""
    ones, zeros, uncertain = _votes(readings, findings, count)
    return np.select([ones > 0, uncertain > 0, zeros > 0], [1.0, -1.0, 0.0], np.nan).astype(np.float32)


def combined_boxes(index: Index, readers: str) -> pd.DataFrame:
    """The boxes of an index under the policy `majority` or `any`, in the form of Index.boxes without readers.

    Boxes whose reader is unknown are unchanged."""
    boxes = index.boxes
    if "reader" not in boxes or not len(index.readings):
        return boxes
    known = (boxes["reader"] != "").to_numpy()
    read = np.bincount(index.readings["row"].to_numpy(), minlength=len(index))
    drawn = boxes[known].reset_index(drop=True)
    sides, names = drawn[list(SIDES)].to_numpy(np.float64), pd.factorize(drawn["reader"])[0]
    kept, means = [], []
    for (row, _), places in drawn.groupby(["row", "finding"], sort=False).indices.items():
        for same in _places(sides[places], names[places]):
            chosen = places[same]
            if readers == "any" or 2 * len(np.unique(names[chosen])) > read[row]:
                kept.append(chosen[0])
                means.append(sides[chosen].mean(axis=0))
    found = drawn.iloc[kept].drop(columns="reader")
    found[list(SIDES)] = np.array(means).reshape(-1, len(SIDES))
    return box_frame(pd.concat([boxes.loc[~known, list(found)], found], ignore_index=True))


@dataclass(frozen=True)
class RowReadings:
    """The readings of several datasets, of which `each` draws one per image."""

    rows: np.ndarray
    """(R,) int64, ascending."""
    labels: np.ndarray
    """(R, F) float32: 1, 0, -1 and NaN."""

    @classmethod
    def of(cls, tables: Sequence[pd.DataFrame], starts: Sequence[int], findings: Sequence[str]) -> "RowReadings":
        """From the readings of each dataset and the numbers of their first rows."""
        rows, labels = [np.empty(0, np.int64)], [np.empty((0, len(findings)), np.float32)]
        for table, start in zip(tables, starts, strict=False):
            rows.append(table["row"].to_numpy(np.int64) + start)
            labels.append(table.reindex(columns=list(findings)).to_numpy(np.float32))
        return cls(np.concatenate(rows), np.concatenate(labels))

    def drawn(self, rows: np.ndarray, chance: np.ndarray) -> np.ndarray:
        """(N,) int64: a reading of each row by its number in [0, 1); -1 for rows without readings."""
        first, end = (np.searchsorted(self.rows, rows, side=side) for side in ("left", "right"))
        return np.where(end > first, first + (chance * (end - first)).astype(np.int64), -1)


def _votes(readings: pd.DataFrame, findings: Sequence[str], count: int) -> list[np.ndarray]:
    """For 1, 0 and -1: (N, F) the number of readers who gave this label."""
    rows = readings["row"].to_numpy()
    labels = readings[list(findings)].to_numpy(np.float32) if len(readings) else np.empty((0, len(findings)))
    votes = []
    for value in (1, 0, -1):
        votes.append(np.zeros((count, len(findings)), np.int32))
        np.add.at(votes[-1], rows, labels == value)
    return votes


def _places(boxes: np.ndarray, names: np.ndarray) -> list[np.ndarray]:
    """The boxes (n, 4) at each place. The box that overlaps with boxes of most readers is the first of its place, and
    takes all of these; then the next one."""
    if len(boxes) == 1:
        return [np.array([0])]
    same = _overlaps(boxes) >= SAME_PLACE
    of_reader = names[:, None] == np.unique(names)[None]  # (n, readers)
    free, places = np.ones(len(boxes), bool), []
    while free.any():
        agreeing = (same[:, free].astype(np.int64) @ of_reader[free] > 0).sum(axis=1)
        first = int(np.argmax(np.where(free, agreeing, -1)))
        places.append(np.flatnonzero(same[first] & free))
        free[places[-1]] = False
    return places


def _overlaps(boxes: np.ndarray) -> np.ndarray:
    """(n, n) IoU of boxes x, y, width, height; 1 with itself."""
    low, high = boxes[:, :2], boxes[:, :2] + boxes[:, 2:]
    sides = np.minimum(high[:, None], high[None]) - np.maximum(low[:, None], low[None])
    shared, areas = np.clip(sides, 0, None).prod(axis=2), boxes[:, 2:].prod(axis=1)
    union = areas[:, None] + areas[None] - shared
    ious = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    np.fill_diagonal(ious, 1.0)
    return ious
