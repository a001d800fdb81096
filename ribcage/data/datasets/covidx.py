"""COVIDx: radiographs from several public datasets with labels for COVID-19 (COVIDx CXR-4: 84,818 images).

Wang et al. 2020, https://doi.org/10.1038/s41598-020-76550-z. In the lists with two classes, `negative` only says that
an image does not show COVID-19; older lists distinguish normal, pneumonia and COVID-19. Other findings are unknown.
"""

import logging
from pathlib import Path

import numpy as np
import pandas as pd

from ribcage.data import splits
from ribcage.data.index import Index, index_table
from ribcage.data.readers import tables
from ribcage.data.readers.image_folders import located_in_splits
from ribcage.data.readers.table_text import decoded_text

CHINESE = "COVIDx：汇集多个公开数据集的胸片，标注是否为新冠肺炎（CXR-4：84,818 张）"
SOURCE = "https://www.kaggle.com/datasets/andyczhao/covidx-cxr2"
LICENCE = "those of its sources, which are listed at https://github.com/lindawangg/COVID-Net"
FINDINGS = ("COVID_19", "Pneumonia", "No_Finding")
CLASSES = {  # COVID_19, Pneumonia, No_Finding
    "positive": (1, np.nan, 0),
    "negative": (0, np.nan, np.nan),
    "covid-19": (1, np.nan, 0),
    "pneumonia": (0, 1, 0),
    "normal": (0, 0, 1),
}
SPLITS = {"train": "train", "val": "val", "test": "test"}
LINE = r"^(?P<patient>.+) (?P<name>\S+\.\w{3,5}) (?P<label>[\w-]+)(?: (?P<source>\S+))?$"
"""A line such as `4 bcc4.jpg positive cohen`. Patient identifiers may contain spaces."""
log = logging.getLogger("ribcage")
NAMES = {"COVID_19": ("positive", "COVID-19"), "Pneumonia": ("pneumonia",), "No_Finding": ("normal",)}
"""Finding → its names in the tables."""


def index(root: Path, *, images: str = "") -> Index:
    """Read the lists train.txt, val.txt and test.txt (or train_COVIDx9A.txt …), anywhere below root.

    images: Folder with the images below ROOT, if there are several.
    """
    paths = tables.files_below(root)
    names = [path for path in paths if path.endswith(".txt")]
    found = {split: [path for path in names if path.rpartition("/")[2].startswith(split)] for split in SPLITS}
    if not found["train"] and not found["test"]:
        raise tables.missing_files(root, ["train.txt", "test.txt"], SOURCE)
    twice = [each for each in found.values() if len(each) > 1]
    if twice:
        raise ValueError(f"{root} contains several lists of one split: {', '.join(twice[0])}. Keep one of them.")
    read = [
        tables.one_row_each(_rows(root / each[0], split), "name", root / each[0])
        for split, each in found.items()
        if each
    ]
    rows = pd.concat(read, ignore_index=True)
    frame = pd.DataFrame(
        {
            "path": located_in_splits(rows["name"], rows["split"], paths, images),
            # identifiers of different sources may coincide
            "patient": (rows["source"] + "-" + rows["patient"]).where(rows["patient"] != "", ""),
            "split": rows["split"],
            "source": rows["source"],
        }
    )
    frame[list(FINDINGS)] = np.array([CLASSES[label] for label in rows["label"]], np.float32)
    frame = tables.distinct_rows(frame, "path", root)
    if "val" not in set(frame["split"]):
        frame["split"] = splits.carve(frame["split"], frame["patient"], frame["path"])
    log.warning("COVIDx contains images from other public datasets, such as ChestX-ray14 (RSNA) and PadChest (BIMCV).")
    return Index("covidx", index_table(frame, FINDINGS), FINDINGS, root=root)


def _rows(file: Path, split: str) -> pd.DataFrame:
    """Patient, name, label and source of each line."""
    lines = pd.Series(decoded_text(file, "auto").splitlines(), dtype="str").str.strip()
    if (lines == "").all():
        raise ValueError(f"{file} is empty; lines such as '4 bcc4.jpg positive cohen' were expected.")
    rows = lines[lines != ""].str.extract(LINE).fillna({"source": ""})
    rows["label"] = rows["label"].str.lower()
    wrong = rows["label"].isna() | ~rows["label"].isin(list(CLASSES))
    if wrong.any():
        raise ValueError(
            f"{file}, line {int(wrong.idxmax()) + 1}: expected 'PATIENT FILE LABEL SOURCE' with one of the labels "
            f"{', '.join(CLASSES)}."
        )
    return rows.assign(split=split)
