"""CheXpert: 224,316 radiographs of 65,240 patients, with positive, negative and uncertain labels for 14 findings.

Irvin et al. 2019, https://arxiv.org/abs/1901.07031. Blank means not mentioned, -1 uncertain; both are preserved.
The labels of the eight radiologists who read the 500 test studies are published apart from the images; the majority of
five of them is the ground truth.
"""

import logging
import re
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from ribcage.data import splits
from ribcage.data.findings import CHEXPERT14, canonical, names_of
from ribcage.data.index import Index, index_table
from ribcage.data.readers import coded_columns, tables
from ribcage.data.readings import no_readings, reading_frame

CHINESE = "CheXpert：65,240 名患者的 224,316 张正侧位胸片，14 种征象，标签由报告自动提取，含“不确定”"
SOURCE = "https://aimi.stanford.edu/datasets/chexpert-chest-x-rays"
LICENCE = "Stanford University Dataset Research Use Agreement: no commercial use, no redistribution"
TRAIN = {"chexpert": "train.csv", "chexbert": "train_cheXbert.csv", "visualchexbert": "train_visualCheXbert.csv"}
VALID = ("valid.csv", "val_labels.csv")
TEST = ("test.csv", "test_labels.csv", "groundtruth.csv")
OTHERS = ("Sex", "Age", "Frontal/Lateral", "AP/PA")
LABELS = (
    "No Finding",
    "Enlarged Cardiomediastinum",
    "Cardiomegaly",
    "Lung Opacity",
    "Lung Lesion",
    "Edema",
    "Consolidation",
    "Pneumonia",
    "Atelectasis",
    "Pneumothorax",
    "Pleural Effusion",
    "Pleural Other",
    "Fracture",
    "Support Devices",
)
log = logging.getLogger("ribcage")

BATCH = re.compile(r" batch \d+ \(")
READERS, READER = "radiologists", re.compile(r"(?P<truth>groundtruth/)?(?P<name>bc\d+)(_gt)?\.csv$")
"""Folder and tables of https://github.com/rajpurkarlab/cheXpert-test-set-labels, one table for each radiologist."""
STUDY = r"/(patient\d+/study\d+)"
PART = re.compile(r"(train|valid|val|test)/patient")
VIEWS = {"ap": "AP", "pa": "PA", "lateral": "LATERAL"}
NAMES = names_of("chexpert", LABELS)
"""Finding → its names in the tables."""


def index(
    root: Path,
    *,
    labels: Literal["chexpert", "chexbert", "visualchexbert"] = "chexpert",
    valid: Literal["val", "test"] = "val",
    readers: Literal["all", "ground-truth", "none"] = "all",
) -> Index:
    """Read train.csv, valid.csv and, where there is one, the test csv; root is their folder or the one above.

    labels: Labeller whose training labels are read.
    valid: Split of the images in valid.csv; with test, one training patient in eight is assigned to val.
    readers: Radiologists whose labels of the test studies are read, if the folder radiologists is there;
        ground-truth: only the five whose majority is the ground truth.
    """
    found = _tables(root, TRAIN[labels])
    rows = pd.concat([_rows(root, path, part) for part, path in found.items()], ignore_index=True)
    base = root.parent if BATCH.search(root.name) else root
    frame = pd.DataFrame(
        {
            "path": _in_batches(base, rows["path"] if base == root else root.name + "/" + rows["path"]),
            "patient": rows["study"].str.replace(r"/.*", "", regex=True),
            "study": rows["study"],
            "view": coded_columns.translated(rows["AP/PA"], VIEWS, "Views").mask(_lateral(rows), "LATERAL"),
            "split": rows["split"],
            "sex": coded_columns.sexes(rows["Sex"]),
            "age": coded_columns.plausible_years(rows["Age"]),
            **{canonical(name, "chexpert"): rows[name] for name in LABELS},
        }
    )
    if "val" not in set(frame["split"]) and "train" in set(frame["split"]):
        log.warning(
            "There is no valid.csv: one in eight training patients is assigned to validation. There is no test split."
        )
        frame["split"] = splits.carve(frame["split"], frame["patient"], frame["path"])
    if valid == "test" and "valid" in str(found.get("val")):
        later = frame["split"].replace("val", "test")
        frame["split"] = splits.carve(later, frame["patient"], frame["path"])
    table = index_table(frame, CHEXPERT14)
    return Index("chexpert", table, CHEXPERT14, root=base, readings=_readings(root, table, readers))


def _readings(root: Path, table: pd.DataFrame, readers: str) -> pd.DataFrame:
    """The labels of each radiologist, for each image of a study."""
    homes = [root, *sorted(each for each in root.iterdir() if each.is_dir())]
    home = next((each / READERS for each in homes if (each / READERS).is_dir()), None)
    found = [(path, match) for path in (tables.files_below(home) if home else []) if (match := READER.search(path))]
    if home is None or not found or readers == "none":
        return no_readings()
    parts = []
    for path, match in found:
        if readers == "all" or match["truth"]:
            rows = tables.read_table(home / path, ("Study", *LABELS), labels=LABELS)
            rows = tables.one_row_each(rows, "Study", home / path)
            parts.append(rows.assign(reader=match["name"], study=rows["Study"].str.extract(STUDY, expand=False)))
    images = table[["study"]].assign(row=np.arange(len(table)))[table["split"] == "test"]
    read = images.merge(pd.concat(parts), on="study")
    return reading_frame(read.rename(columns={name: canonical(name, "chexpert") for name in LABELS}), CHEXPERT14)


def _tables(root: Path, train: str) -> dict[str, str]:
    """The csv of each split that is there. CheXlocalize has validation and test without training; without valid.csv,
    one training patient in eight becomes validation."""
    near = tables.files_below(root, depth=1)
    found = {
        part: tables.files_named(near, *names)
        for part, names in {"train": (train,), "val": VALID, "test": TEST}.items()
    }
    if not any(found.values()):
        raise tables.missing_files(root, [train, VALID[0]], SOURCE)
    others = {name: labels for labels, name in TRAIN.items() if name != train and tables.files_named(near, name)}
    if others and not found["train"]:
        name, labels = next(iter(others.items()))
        raise ValueError(f"{root} contains {name}, but not {train}. Pass --labels {labels}.")
    for paths in found.values():
        if len(paths) > 1 and paths[0].count("/") == paths[1].count("/") and Path(paths[0]).name == Path(paths[1]).name:
            homes = [str(root / path) for path in paths]
            raise ValueError(
                f"{root} contains several copies of the dataset: {', '.join(homes)}. Pass the folder of one of them."
            )
    return {part: paths[0] for part, paths in found.items() if paths}


def _rows(root: Path, path: str, part: str) -> pd.DataFrame:
    """One csv: paths below root, 'patient/study', and all columns of the training csv, empty where it lacks them."""
    per_study = "Study" in tables.header(root / path)
    key = "Study" if per_study else "Path"
    rows = tables.one_row_each(
        tables.read_table(root / path, [key, *LABELS], ("Age",), OTHERS, labels=LABELS), key, root / path
    )
    home = path.rpartition("/")[0]
    listed = rows[key]
    start = PART.search(listed.iloc[0] if len(listed) else "")
    rows["study"] = listed.str.extract(STUDY, expand=False)
    if start is None or rows["study"].isna().any() or not listed.str.startswith(listed.iloc[0][: start.end()]).all():
        wanted = "CheXpert-v1.0-small/train/patient00001/study1/view1_frontal.jpg"
        raise ValueError(f"{root / path}: all paths must have the form {wanted}.")
    rows["path"] = (home + "/" if home else "") + listed.str.slice(start.start())
    if per_study:
        rows = _images_of_studies(root, rows)
    absent = {name: np.float32(np.nan) if name == "Age" else "" for name in OTHERS if name not in rows}
    return rows.assign(split=part, **absent)[["path", "study", "split", *OTHERS, *LABELS]]


def _images_of_studies(root: Path, rows: pd.DataFrame) -> pd.DataFrame:
    """groundtruth.csv labels studies: one row for each image in a study's folder."""
    found = [
        [
            f"{path}/{name}"
            for name in (tables.files_below(root / path) if (root / path).is_dir() else ["view1_frontal.jpg"])
        ]
        for path in rows["path"]
    ]
    return rows.assign(path=pd.Series(found, index=rows.index)).explode("path", ignore_index=True)


def _in_batches(base: Path, paths: pd.Series) -> pd.Series:
    """Paths of training images as in the full download: train/patient… is in one of three batch folders."""
    folders = sorted(entry for entry in base.iterdir() if BATCH.search(entry.name) and entry.is_dir())
    batch = {patient.name: folder.name for folder in folders for patient in folder.glob("patient*")}
    if not batch:
        return paths
    inside = paths.str.extract(r"train/((patient\d+)/.*)$")
    home = pd.Series(batch, dtype="str").reindex(inside[1]).set_axis(paths.index)
    return (home + "/" + inside[0]).fillna(paths)


def _lateral(rows: pd.DataFrame) -> pd.Series:
    """Whether an image is lateral, by the column or, in a csv without it, by the file name."""
    return rows["Frontal/Lateral"].eq("Lateral") | rows["path"].str.contains("lateral", regex=False)
