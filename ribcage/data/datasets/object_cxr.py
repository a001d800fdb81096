"""object-CXR: 9,000 frontal radiographs from township hospitals in China, half with boxes around foreign objects.

JF Healthcare 2020, challenge of MIDL 2020. Twelve radiologists marked the foreign objects in the lung field by a box,
an ellipse or a polygon; support devices were not marked. Of ellipses and polygons, the bounding box is read. The 1,000
test images have no published annotations.
"""

import logging
from pathlib import Path

import numpy as np
import pandas as pd

from ribcage.data import splits
from ribcage.data.index import SIDES, Index, box_frame, index_table
from ribcage.data.readers import tables
from ribcage.data.readers.box_cells import box_sides
from ribcage.data.readers.table_text import cell_error

CHINESE = "object-CXR：中国乡镇医院的 9,000 张正位胸片，一半带有异物标注框"
SOURCE = "https://github.com/hlk-1135/object-CXR"
LICENCE = "none stated by the authors"
FINDING = "Foreign_Object"
TABLES = {"train": "train.csv", "test": "dev.csv"}
"""Our split → table; the annotated validation images of the challenge are the test split."""
SHAPES = {"0": "box", "1": "ellipse", "2": "polygon"}
log = logging.getLogger("ribcage")
NAMES = {FINDING: ("foreign object",)}
"""Finding → its names in the tables."""


def index(root: Path, *, images: str = "") -> Index:
    """Read train.csv and dev.csv, anywhere below root.

    images: Folder with the images below ROOT, if there are several.
    """
    paths = tables.files_below(root)
    found = {split: tables.files_named(paths, name) for split, name in TABLES.items()}
    if not any(found.values()):
        raise tables.missing_files(root, list(TABLES.values()), SOURCE)
    rows = pd.concat([_rows(root / files[0], split) for split, files in found.items() if files], ignore_index=True)
    rows = tables.distinct_rows(rows, "name", root)
    boxes = pd.DataFrame(
        [(row, *box) for row, text in enumerate(rows["annotation"]) for box in _boxes(text)],
        columns=["row", "shape", "x", "y", "width", "height"],
    )
    boxes[list(SIDES)] = box_sides(boxes, SIDES, root, place=lambda row: rows["name"][boxes["row"][row]])
    boxes = boxes.dropna(subset=list(SIDES))
    frame = pd.DataFrame(
        {
            "path": tables.locate(rows["name"], paths, images).fillna(rows["name"]),
            "split": rows["split"],
            FINDING: (rows["annotation"].str.strip() != "").astype("float32"),
        }
    )
    if len(boxes):
        frame["shapes"] = boxes.groupby("row")["shape"].agg("|".join).reindex(frame.index).fillna("")
    log.warning("object-CXR has no patient identifiers, so images of the same person may be in several splits.")
    frame["split"] = splits.carve(frame["split"], pd.Series("", frame.index, dtype="str"), frame["path"])
    return Index(
        "object_cxr", index_table(frame, (FINDING,)), (FINDING,), box_frame(boxes.assign(finding=FINDING)), root=root
    )


def _rows(file: Path, split: str) -> pd.DataFrame:
    """File name and annotation of each image; the column of names is image_name or image_path."""
    column = next((name for name in tables.header(file) if name in ("image_name", "image_path")), "image_name")
    rows = tables.read_table(file, (column, "annotation"))
    for row, text in enumerate(rows["annotation"]):
        _check(text, file, row)
    rows = rows.assign(name=rows[column].str.replace("\\", "/").str.rpartition("/")[2], split=split)
    return tables.one_row_each(rows[["name", "annotation", "split"]], "name", file)


def _check(text: str, file: Path, row: int) -> None:
    """Raise if a cell is not a list of annotations."""
    try:
        _boxes(text)
    except ValueError:
        expected = f"a list of TYPE x1 y1 x2 y2 …, separated by ';', with the types {', '.join(SHAPES)},"
        raise cell_error(file, row, "annotation", text, expected) from None


def _boxes(text: str) -> list[tuple[str, float, float, float, float]]:
    """Shape, x, y, width and height of each object in 'TYPE x1 y1 x2 y2 …;…'; ValueError for anything else."""
    found = []
    for part in filter(str.strip, text.split(";")):
        kind, *words = part.split()
        points = np.array([float(word) for word in words]).reshape(-1, 2)
        (left, top), (right, bottom) = points.min(axis=0).tolist(), points.max(axis=0).tolist()
        if kind not in SHAPES or not np.isfinite(points).all():
            raise ValueError(part)
        found.append((SHAPES[kind], left, top, right - left, bottom - top))
    return found
