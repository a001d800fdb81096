"""Box cells: boxes in the tables of published datasets, with errors that name the file and the line of a box."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from ribcage.data.index import SIDES
from ribcage.data.readers.table_text import line_of_row
from ribcage.runtime.spelling import count_phrase

TOLERANCE = 3
"""Pixels by which a box may exceed its image without a message: tables contain rounded coordinates."""

Frame = tuple[float, float] | np.ndarray
"""Width and height of the image of all boxes, or (N, 2): those of the image of each box."""

log = logging.getLogger("ribcage")


def box_sides(
    rows: pd.DataFrame,
    columns: Sequence[str],
    file: Path,
    *,
    corners: bool = False,
    frame: tuple[int, int] | None = None,
    place: Callable[[int], str] | None = None,
) -> pd.DataFrame:
    """x, y, width and height in the rows of a table, whose index is that of the file; NaN in rows without a box.

    ValueError for a box with blank coordinates, with corners in the wrong order, or outside the image. Boxes without an
    area are left out, with a warning.

    columns: Columns with x, y, width and height, or with the coordinates of two corners.
    frame: Width and height of the image on which the boxes were drawn, if all have the same.
    place: Text for the place of a row in the file (default: its line).
    """
    place = place or (lambda row: f"line {line_of_row(file, row):,}")
    found = rows[list(columns)].to_numpy(np.float64, copy=True)
    given = np.isfinite(found)

    def refuse(wrong: np.ndarray, what: str) -> None:
        if wrong.any():
            at = int(wrong.argmax())
            said = ", ".join(f"{name} {value:g}" for name, value in zip(columns, found[at], strict=True))
            raise ValueError(f"{file}, {place(int(rows.index[at]))}: {what} ({said}).")

    refuse(given.any(axis=1) & ~given.all(axis=1), "a box needs four coordinates, or four blank cells")
    sizes = found[:, 2:] - found[:, :2] if corners else found[:, 2:]
    refuse((sizes < 0).any(axis=1), "the second corner of a box must be below and to the right of the first"
           if corners else "the width and the height of a box must be positive")  # fmt: skip
    sides = np.concatenate([found[:, :2], sizes], axis=1)
    flat = (sizes == 0).any(axis=1)
    if flat.any():
        log.warning("Boxes without an area in %s were ignored: %s.", file, f"{flat.sum():,}")
        sides[flat] = np.nan
    if frame:
        refuse(outside(sides, frame), f"a box is outside the image, which has {frame[0]} x {frame[1]} pixels")
        if over := int(exceeding(sides, frame).sum()):
            log.warning(
                "In %s, %s the image of %s x %s pixels by more than %s pixels; the part outside is clipped.",
                file, count_phrase(over, "box exceeds", "boxes exceed"), *frame, TOLERANCE,
            )  # fmt: skip
    return pd.DataFrame(sides, rows.index, list(SIDES))


def outside(sides: np.ndarray, frame: Frame) -> np.ndarray:
    """(N,) bool: boxes x, y, width, height that have no area in their image."""
    return np.asarray(((sides[:, :2] >= frame) | (sides[:, :2] + sides[:, 2:] <= 0)).any(axis=1), bool)


def exceeding(sides: np.ndarray, frame: Frame) -> np.ndarray:
    """(N,) bool: boxes x, y, width, height that exceed their image by more than TOLERANCE."""
    over = (sides[:, :2] < -TOLERANCE) | (sides[:, :2] + sides[:, 2:] > np.add(frame, TOLERANCE))
    return np.asarray(over.any(axis=1), bool)
