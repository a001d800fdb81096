"""Points: landmarks and centres of findings in the images, as a table of its own.

One row per point: `row` in the index, the name of the `structure` or finding, the `reader` ("" if unknown), the
`number` of the point within its structure, from 0, and x and y in continuous coordinates, like those of boxes.
"""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ribcage.data.annotation_tables import row_problems
from ribcage.runtime import parquet, terminal

POINTS_FILE = "points.parquet"
"""Name of the table beside index.parquet."""
TYPES = {"row": "int64", "structure": "str", "reader": "str", "number": "int32", "x": "float64", "y": "float64"}
ARROW = (pa.int64(), pa.string(), pa.string(), pa.int32(), pa.float64(), pa.float64())


def no_points() -> pd.DataFrame:
    """An empty table of points."""
    return pd.DataFrame({name: pd.Series(dtype=kind) for name, kind in TYPES.items()})


def point_frame(rows: pd.DataFrame) -> pd.DataFrame:
    """A table in the form of Index.points, in the order of its images; points without a number are counted."""
    found = rows if "reader" in rows else rows.assign(reader="")
    found = found.sort_values("row", kind="stable", ignore_index=True)
    if "number" not in found:
        found["number"] = found.groupby(["row", "structure", "reader"], sort=False).cumcount()
    return found[list(TYPES)].astype(TYPES)


def point_problems(points: pd.DataFrame, count: int) -> list[str]:
    """What is wrong with the points of `count` images."""
    if not len(points):
        return []
    if list(points) != [*TYPES]:
        return [f"the points must have the columns {', '.join(TYPES)}, in this order"]
    rows, names = points["row"].to_numpy(), (*points["structure"].unique(), *points["reader"].unique())
    problems = row_problems("points", rows, count)
    if not (np.abs(points[["x", "y"]].to_numpy()) < 1e6).all():
        problems.append("a point is not within the images")
    if (points["structure"] == "").any() or not all(name == "" or terminal.is_name(name) for name in names):
        problems.append(f"the structure of a point must be one line of 1 to {terminal.LONGEST_NAME} visible characters")
    return problems


def save_points(points: pd.DataFrame, part: Path) -> None:
    """Write a Parquet file; the same points always give the same bytes."""
    columns = [pa.array(points[name].to_numpy(), kind) for name, kind in zip(TYPES, ARROW, strict=True)]
    schema = pa.schema(list(zip(TYPES, ARROW, strict=True)), {"ribcage.points": "1"})
    pq.write_table(pa.Table.from_arrays(columns, schema=schema), part, compression="zstd")


def load_points(file: Path, count: int) -> pd.DataFrame:
    """Read the points of `count` images; ValueError if `save_points` did not write them for such a dataset."""
    columns = parquet.read_own_table(file)
    if [(one.name, one.type) for one in columns.schema] != list(zip(TYPES, ARROW, strict=True)) or any(
        column.null_count for column in columns.columns
    ):
        raise ValueError(f"{file} is a Parquet file, but not a table of points written by Ribcage.")
    found = parquet.frame(columns)
    if wrong := point_problems(found, count):
        raise ValueError(f"{file} does not belong to this dataset: {'; '.join(wrong)}.")
    return found
