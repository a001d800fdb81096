"""Box list: a table of drawn boxes of unknown origin, one per line – the file, the finding, the coordinates.

  image_id,class_name,x_min,y_min,x_max,y_max      corners
  file,finding,x,y,width,height                    upper left corner and size

A line without numbers means that an image was read and nothing was drawn in it.
"""

import logging
from pathlib import Path

import numpy as np
import pandas as pd

from ribcage.data.contradictions import NO_FINDING
from ribcage.data.readers import columns, tables
from ribcage.data.readers.table_text import shown

log = logging.getLogger("ribcage")
FINDING = "class_name finding finding_label label class category name 征象 类别 标签"
"""Names of the column with the finding."""
SIDES = ("x y width height", "左 上 宽 高", "x y w h", "left top width height", "bbox_x bbox_y bbox_width bbox_height")
CORNERS = ("x_min y_min x_max y_max", "x0 y0 x1 y1", "x1 y1 x2 y2", "left top right bottom")
"""Names of the four columns with coordinates, compared without case and punctuation."""


def read_boxes(file: Path, encoding: str = "auto") -> pd.DataFrame:
    """Columns path, finding, x, y, width and height, by line; finding is "" where nothing is drawn."""
    rows = tables.sniffed(file, encoding)
    header = list(rows.columns)
    path, finding = columns.column_named(header, columns.ROLES["path"]), columns.column_named(header, FINDING)
    corners = _all_of(header, CORNERS)  # corners take precedence: beside them, width and height are the image's
    sides = corners or _all_of(header, SIDES)
    lacking = {"image files": path, "findings": finding, "coordinates (x, y, width, height, or two corners)": sides}
    if not all(lacking.values()):
        wanted = " and none for ".join(what for what, found in lacking.items() if not found)
        raise ValueError(
            f"{file} is not a list of boxes: no column was recognised for {wanted}. {columns.among(header)}"
        )
    numbers = np.stack([_numbers(rows[name], name, file) for name in sides], 1)
    if corners:
        numbers[:, 2:] -= numbers[:, :2]
    found = pd.DataFrame(numbers, rows.index, ["x", "y", "width", "height"])
    found.insert(0, "path", rows[path].str.strip().to_numpy())
    found.insert(1, "finding", rows[finding].str.strip().to_numpy())
    drawn = found["x"].notna()
    wrong = {
        "a box without a finding": drawn & (found["finding"] == ""),
        "a box with a width or height of 0 or less": drawn & ~(found[["width", "height"]] > 0).all(axis=1),
        "a box without an image": drawn & (found["path"] == ""),
        "a box with incomplete coordinates": found.isna().any(axis=1)
        & found.notna()[["x", "y", "width", "height"]].any(axis=1),
    }
    said = [f"{what} in line {int(there.idxmax()) + 2}" for what, there in wrong.items() if there.any()]
    if said:
        raise ValueError(f"{file} has {'; '.join(said)}.")
    if drawn.any() and found["x"][drawn].add(found["width"]).max() <= 1 >= found["y"][drawn].add(found["height"]).max():
        raise ValueError(
            f"{file} has coordinates from 0 to 1 only, but boxes must be in pixels. Multiply the coordinates by the "
            "width and height of each image."
        )
    for name in found["finding"][drawn].unique():
        if columns.unnamed(name):
            line = int((drawn & (found["finding"] == name)).idxmax()) + 2
            raise ValueError(
                f"{file} has {shown(name)} in line {line} as the finding of a box, which does not name a "
                "finding that is present. Rename it, or remove the box."
            )
    nothing = drawn & found["finding"].map(lambda name: columns.vocabulary_name(name) == NO_FINDING).astype(bool)
    if nothing.any():
        log.warning("Boxes of the class 'No finding' in %s were ignored: %s.", file, f"{nothing.sum():,}")
        found.loc[nothing, ["x", "y", "width", "height"]] = np.nan
        drawn &= ~nothing
    meant = {name: columns.vocabulary_name(name) for name in found["finding"][drawn].unique()}
    found = found.assign(finding=found["finding"].where(drawn, "").map({"": "", **meant}))
    return tables.without_repeats(found, file).reset_index(drop=True)


def has_boxes(header: list[str]) -> bool:
    """Whether a table has the four columns of a box."""
    return bool(_all_of(header, CORNERS) or _all_of(header, SIDES))


def _all_of(header: list[str], schemes: tuple[str, ...]) -> list[str]:
    """The four columns of the first scheme that is there."""
    found = ([columns.column_named(header, name) for name in scheme.split()] for scheme in schemes)
    return next((each for each in found if all(each)), [])


def _numbers(cells: pd.Series, name: str, file: Path) -> np.ndarray:
    """Pixels; NaN for blank cells."""
    bare = cells.str.strip().replace("", "nan")
    values = pd.to_numeric(bare, errors="coerce").to_numpy(np.float64)
    strange = ~np.isfinite(values) & (bare.str.lower() != "nan").to_numpy()
    if strange.any():
        at = int(strange.argmax())
        raise ValueError(
            f"{file} has {cells.iloc[at]!r} in line {cells.index[at] + 2} of the column {name!r}; a number of pixels "
            "was expected."
        )
    return values
