"""Annotation tables: the operations that the tables of boxes, readings, masks and points have in common.

Each of them has one or several rows per image; the column `row` is the row of the image in the index.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd


def taken_annotations(table: pd.DataFrame, place: np.ndarray, order: Sequence[str] = ("row",)) -> pd.DataFrame:
    """The annotations of some images, ordered by these columns; `place` is the new row of each old row, -1 for images
    that are left out."""
    moved = place[table["row"].to_numpy()]
    return table.assign(row=moved)[moved >= 0].sort_values(list(order), kind="stable", ignore_index=True)


def row_problems(what: str, rows: np.ndarray, count: int) -> list[str]:
    """What is wrong with the column `row` of a table that is not empty, for `count` images."""
    if rows.min() < 0 or rows.max() >= count or (np.diff(rows) < 0).any():
        return [f"the {what} refer to rows that are not in the table, or are not in the order of its rows"]
    return []
