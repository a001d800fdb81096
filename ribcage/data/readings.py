"""Readings: the labels of each reader, where several readers labelled the same images, as a table of its own.

One row per image and reader: `row` in the index, `reader`, and the reader's label of each finding (1, 0, -1 or NaN).
How the readers are combined is decided when a batch is made (`reader_policy`).
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ribcage.data.annotation_tables import row_problems, taken_annotations
from ribcage.runtime import parquet, terminal

READINGS_FILE = "readings.parquet"
"""Name of the table beside index.parquet."""


def no_readings() -> pd.DataFrame:
    """An empty table of readings."""
    return pd.DataFrame({"row": pd.Series(dtype="int64"), "reader": pd.Series(dtype="str")})


def reading_frame(rows: pd.DataFrame, findings: Sequence[str]) -> pd.DataFrame:
    """A table of readings in the form of Index.readings: typed, ordered by image and reader."""
    if not len(rows):
        return no_readings()
    types = {"row": "int64", "reader": "str", **dict.fromkeys(findings, "float32")}
    ordered = rows[["row", "reader", *findings]].astype(types).sort_values(["row", "reader"], kind="stable")
    return ordered.reset_index(drop=True)


def taken_readings(readings: pd.DataFrame, place: np.ndarray) -> pd.DataFrame:
    """The readings of some images; `place` is the new row of each old row, -1 for images that are left out."""
    kept = taken_annotations(readings, place, ("row", "reader"))
    return kept if len(kept) else no_readings()


def reading_problems(readings: pd.DataFrame, boxes: pd.DataFrame, count: int, findings: Sequence[str]) -> list[str]:
    """What is wrong with the readings of `count` images, and with the readers of their boxes."""
    if not len(readings):
        return []
    if list(readings) != ["row", "reader", *findings] or "reader" in findings:
        return ["the readings must have the columns row, reader and one for each finding, in this order"]
    labels, rows = readings[list(findings)].to_numpy(np.float32), readings["row"].to_numpy()
    problems = row_problems("readings", rows, count)
    if not all(map(terminal.is_name, readings["reader"].unique())):
        problems.append(f"the name of a reader must be one line of 1 to {terminal.LONGEST_NAME} visible characters")
    if not (np.isnan(labels) | np.isin(labels, (1, 0, -1))).all():
        problems.append("a reader's labels must be 1, 0, -1 or empty")
    if readings.duplicated(["row", "reader"]).any():
        problems.append("a reader has two readings of one image")
    if "reader" in boxes and (numbers_of_readings(readings, boxes)[boxes["reader"] != ""] < 0).any():
        problems.append("a box was drawn by a reader who has no reading of its image")
    return problems


def numbers_of_readings(readings: pd.DataFrame, boxes: pd.DataFrame) -> np.ndarray:
    """(M,) int64: for each box the position of its reading in the table of readings, -1 if its reader is unknown."""
    if not len(readings) or "reader" not in boxes:
        return np.full(len(boxes), -1, np.int64)
    keys = pd.MultiIndex.from_frame(readings[["row", "reader"]])
    if not keys.is_unique:
        return np.full(len(boxes), -1, np.int64)
    return np.asarray(keys.get_indexer(pd.MultiIndex.from_frame(boxes[["row", "reader"]])), np.int64)


def save_readings(readings: pd.DataFrame, part: Path) -> None:
    """Write a Parquet file; the same readings always give the same bytes."""
    table = pa.Table.from_pandas(readings, preserve_index=False).replace_schema_metadata({"ribcage.readings": "1"})
    pq.write_table(table, part, compression="zstd")


def load_readings(file: Path, boxes: pd.DataFrame, count: int, findings: Sequence[str]) -> pd.DataFrame:
    """Read what `save_readings` wrote for `count` images and their boxes; ValueError if it is something else."""
    columns = parquet.read_own_table(file)
    kinds = {one.name: one.type for one in columns.schema}
    fits = list(kinds)[:2] == ["row", "reader"] and pa.types.is_integer(kinds.pop("row"))
    text = kinds.pop("reader") if fits else pa.null()
    if not (
        (pa.types.is_string(text) or pa.types.is_large_string(text))
        and all(pa.types.is_floating(kind) for kind in kinds.values())
        and not columns["row"].null_count + columns["reader"].null_count
    ):
        raise ValueError(f"{file} is a Parquet file, but not a table of readings written by Ribcage.")
    found = reading_frame(parquet.frame(columns), list(kinds))
    if wrong := reading_problems(found, boxes, count, findings):
        raise ValueError(f"{file} does not belong to this dataset: {'; '.join(wrong)}.")
    return found
