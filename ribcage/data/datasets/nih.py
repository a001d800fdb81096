"""ChestX-ray14: 112,120 frontal radiographs of 30,805 patients, with 14 findings from reports and 984 boxes.

Wang et al. 2017, https://arxiv.org/abs/1705.02315. 'No Finding' is not a column here, but a row without findings. Two
published splits are in use and contradict each other: `official`, and `arnoweng` (of CheXNet's reproductions).
"""

import logging
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from ribcage.data import splits
from ribcage.data.contradictions import report_no_finding
from ribcage.data.findings import CHESTXRAY14, names_of
from ribcage.data.index import Index, box_frame, index_table, no_boxes
from ribcage.data.readers import coded_columns, tables
from ribcage.data.readers.box_cells import box_sides
from ribcage.runtime.spelling import count_phrase

CHINESE = "ChestX-ray14：30,805 名患者的 112,120 张正位胸片，14 种征象，标签由报告自动提取，984 个标注框"
SOURCE = "https://nihcc.app.box.com/v/ChestXray-NIHCC"
LICENCE = "free to use with attribution to the NIH Clinical Center"
FRAME = (1024, 1024)
TABLES = ("Data_Entry_2017_v2020.csv", "Data_Entry_2017.csv")
COLUMNS = ("Image Index", "Finding Labels", "Follow-up #", "Patient ID", "Patient Age", "View Position")
SEX_COLUMNS = ("Patient Gender", "Patient Sex")
# File name → split; a test_list.txt without labels is the official one, one with labels is arnoweng's. Folders of the
# download; PNG files as published are preferred to re-encoded ones.
PREFERRED = (r"(^|/)images(_0\d\d)?/[^/]+$", r"\.png$")
LISTS = {
    "train_official.txt": "train",
    "val_official.txt": "val",
    "test_official.txt": "test",
    "train_val_list.txt": "train",
    "train_list.txt": "train",
    "val_list.txt": "val",
    "test_list.txt": "test",
    "train_list_224.txt": "train",
    "test_list_224.txt": "test",
}
log = logging.getLogger("ribcage")
VIEWS = {"pa": "PA", "ap": "AP"}
NAMES = names_of("nih", (*CHESTXRAY14, "Infiltrate"))
"""Finding → its names in the tables."""


def index(
    root: Path,
    *,
    split: Literal["auto", "official", "arnoweng", "patient"] = "auto",
    images: str = "",
) -> Index:
    """Read Data_Entry_2017, the split lists and BBox_List_2017 wherever they lie below root, .gz or not.

    split: Split: published lists (official or arnoweng), or 70/10/20 by patient; auto: the first
        of these that is possible.
    images: Folder with the images below ROOT, if there are several.
    """
    paths = tables.files_below(root)
    found = tables.files_named(paths, *TABLES)
    if not found:
        raise tables.missing_files(root, [" (or ".join(TABLES) + ")"], SOURCE)
    file = root / found[0]
    sex = next((name for name in SEX_COLUMNS if name in tables.header(file)), SEX_COLUMNS[0])
    rows = tables.without_blanks(tables.read_table(file, (*COLUMNS, sex)), "Patient ID", file)
    rows = tables.one_row_each(rows, "Image Index", file)
    names = rows["Image Index"]
    frame = pd.DataFrame(
        {
            "path": tables.locate(names, paths, images, PREFERRED).fillna(names),
            "patient": rows["Patient ID"],
            "study": rows["Patient ID"] + "-" + rows["Follow-up #"],
            "view": coded_columns.translated(rows["View Position"], VIEWS, "Views"),
            "sex": coded_columns.sexes(rows[sex]),
            "age": coded_columns.years(rows["Patient Age"]),
            **_findings(rows["Finding Labels"], file),
        }
    )
    for family, part in _splits(root, paths, names).items():
        frame[f"split_{family}"] = splits.carve(part, frame["patient"], names) if "val" not in set(part) else part
    frame["split"] = splits.choose(frame, split, ("official", "arnoweng"))
    listed = tables.files_named(paths, "BBox_List_2017.csv")
    drawn = _boxes(root / listed[0], names) if listed else no_boxes()
    return Index("nih", index_table(frame, CHESTXRAY14), CHESTXRAY14, drawn, FRAME, root)


def _findings(labels: pd.Series, file: Path) -> dict[str, np.ndarray]:
    """One column per finding from 'Effusion|Mass'; a blank cell means unknown."""
    codes, unique = pd.factorize(labels)
    words = pd.Series(unique, dtype="str").str.split("|").explode()
    words = words[words.str.strip() != ""].rename(labels.name)
    first = pd.Series(codes).drop_duplicates()  # the first row of each cell
    named = coded_columns.named_findings(words.set_axis(first.index[words.index]), "nih", file).set_axis(words.index)
    rows = [named[named.index == place].tolist() for place in range(len(unique))]
    both = np.array(["No_Finding" in row and len({*row}) > 1 for row in rows], bool)
    report_no_finding(int(both[codes].sum()), "image")
    known = np.array([[float(name in row) if row else np.nan for name in CHESTXRAY14] for row in rows], np.float32)
    return dict(zip(CHESTXRAY14, known.reshape(-1, len(CHESTXRAY14))[codes].T, strict=True))


def _splits(root: Path, paths: list[str], names: pd.Series) -> dict[str, pd.Series]:
    """The split of each image in each family of lists found; a list without labels is official."""
    lists: dict[str, list[pd.Series]] = {}
    read: dict[str, list[tuple[str, str, pd.Series]]] = {}
    for path in tables.files_named(paths, *LISTS):
        name = path.rpartition("/")[2].lower().removesuffix(".gz")
        labelled = tables.width(root / path, sep=r"\s+") > 1
        family = "arnoweng" if labelled and "official" not in name else "official"
        images = tables.headerless(root / path, ["image"], sep=r"\s+")["image"]
        read.setdefault(family, []).append((str(root / path), LISTS[name], images))
        lists.setdefault(family, []).append(pd.Series(LISTS[name], index=images))
    for own in read.values():
        splits.refuse_shared(own)
    parts = {family: pd.concat(found) for family, found in sorted(lists.items(), reverse=True)}
    # The first list to name an image counts: those with a validation split come first.
    return {
        family: splits.report_unlisted(names.map(part[~part.index.duplicated()]).fillna(""), family)
        for family, part in parts.items()
    }


def _boxes(file: Path, names: pd.Series) -> pd.DataFrame:
    """BBox_List_2017: its header has nine columns and its rows six, so they are read by position."""
    sides = ["x", "y", "width", "height"]
    rows = tables.without_repeats(tables.headerless(file, ["image", "finding", *sides], numbers=sides, skip=1), file)
    rows[sides] = box_sides(rows, sides, file, frame=FRAME)
    rows["row"] = rows["image"].map(pd.Series(names.index, index=names))
    if away := rows.loc[rows["row"].isna(), "image"].nunique():
        log.warning("Boxes of %s that are not in the table were ignored.", count_phrase(away, "image"))
    rows["finding"] = coded_columns.named_findings(rows["finding"], "nih", file)
    return box_frame(rows.dropna(subset=["row", *sides]))
