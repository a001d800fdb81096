"""MS-CXR: 1,162 phrases from reports and their boxes on MIMIC-CXR images, for 8 findings, checked by radiologists.

Boecking et al. 2022, https://arxiv.org/abs/2204.09817. A finding with a box is present; all others are unknown, since
they were not looked for. The phrase of a box is in the column `phrase`. Patients and studies have the identifiers of
MIMIC-CXR, and the index has the name of `mimic`, so that the leakage check compares them.
"""

import logging
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from ribcage.data.findings import names_of
from ribcage.data.index import SIDES, Index, box_frame, index_table
from ribcage.data.readers import coded_columns, tables
from ribcage.data.readers.box_cells import box_sides
from ribcage.runtime.spelling import count_phrase

CHINESE = "MS-CXR：MIMIC-CXR 图像上的 1,162 条报告短语及其标注框，8 种征象，由放射科医生核对"
SOURCE = "https://physionet.org/content/ms-cxr/"
LICENCE = "PhysioNet Credentialed Health Data License 1.5.0"
TABLES = tuple(f"MS_CXR_Local_Alignment_v1.{number}.0.csv" for number in (1, 0))
"""The tables of the versions, newest first."""
COLUMNS = ("category_name", "label_text", "path", "x", "y", "w", "h")
NAMES = names_of("ms_cxr", (
    "Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Lung Opacity", "Pleural Effusion", "Pneumonia",
    "Pneumothorax",
))  # fmt: skip
"""Finding → its names in the tables."""
FINDINGS = tuple(NAMES)
SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
IDENTIFIERS = r"p\d\d/p(?P<patient>\d+)/s(?P<study>\d+)/"
log = logging.getLogger("ribcage")


def index(root: Path, *, images: str = "files", suffix: Literal["jpg", "png", "dcm"] = "jpg") -> Index:
    """Read MS_CXR_Local_Alignment_v1.1.0.csv or v1.0.0.csv, anywhere in root, the folder of MIMIC-CXR-JPG.

    images: Folder with the images below ROOT.
    suffix: File name extension of the images.
    """
    found = tables.files_named(tables.files_below(root, depth=1), *TABLES)
    if not found:
        raise tables.missing_files(root, [TABLES[0]], SOURCE)
    file, numbers = root / found[0], COLUMNS[3:]
    rows = tables.without_repeats(tables.read_table(file, COLUMNS, numbers, _split(file)), file)
    rows[list(SIDES)] = box_sides(rows, numbers, file)
    if none := int(rows["width"].isna().sum()):
        log.warning("%s in %s without a box and is ignored.", count_phrase(none, "phrase is", "phrases are"), file)
    rows = rows.dropna(subset=list(SIDES))
    people = rows["path"].str.extract(IDENTIFIERS)
    if people.isna().any(axis=None):
        raise ValueError(f"{file}: all paths must have the form files/p10/p10000032/s50414267/NAME.jpg.")
    names = rows["path"].str.extract(r"(p\d\d/.*?)(?:\.\w+)?$", expand=False)
    folder = images.strip("/") + "/" if images.strip("/.") else ""
    rows = rows.assign(path=folder + names + f".{suffix}", **people)
    rows["finding"] = coded_columns.named_findings(rows["category_name"], "ms_cxr", file)
    frame = rows.drop_duplicates("path", ignore_index=True)[["path", "patient", "study"]]
    place = pd.Series(frame.index, frame["path"])
    rows["row"] = rows["path"].map(place)
    if "split" in rows:
        parts = coded_columns.known_words(rows["split"], SPLITS, file)
        parts = tables.distinct_rows(pd.DataFrame({"path": rows["path"], "split": parts}), "path", file)
        frame["split"] = parts["split"]
    else:
        log.warning("%s has no split, so all images are in the test split.", found[0])
        frame["split"] = "test"
    labels = np.full((len(frame), len(FINDINGS)), np.nan, np.float32)
    labels[rows["row"], rows["finding"].map(FINDINGS.index)] = 1
    frame[list(FINDINGS)] = labels
    boxes = rows.rename(columns={"label_text": "phrase"})
    return Index("mimic", index_table(frame, FINDINGS), FINDINGS, box_frame(boxes), root=root)


def _split(file: Path) -> list[str]:
    """The column of the split, if the version has one."""
    return [name for name in tables.header(file) if name == "split"]
