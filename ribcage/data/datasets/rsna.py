"""RSNA Pneumonia Detection Challenge 2018: 26,684 images from ChestX-ray14 with 9,555 boxes around lung opacities.

Shih et al. 2019, https://doi.org/10.1148/ryai.2019180041. Every image is also in ChestX-ray14 under another name. View,
sex and age are in the DICOM headers, which are read at import, not here.
"""

import logging
from pathlib import Path
from typing import Literal

import pandas as pd

from ribcage.data import splits
from ribcage.data.index import Index, box_frame, index_table
from ribcage.data.readers import tables
from ribcage.data.readers.box_cells import box_sides
from ribcage.runtime import files

log = logging.getLogger("ribcage")

CHINESE = "RSNA 2018 肺炎检测挑战赛：取自 ChestX-ray14 的 26,684 张图像，9,555 个肺部阴影标注框"
SOURCE = "https://www.kaggle.com/competitions/rsna-pneumonia-detection-challenge"
LICENCE = "competition rules: non-commercial research and education; images of the NIH Clinical Center"
FRAME = (1024, 1024)
FINDING = "Lung_Opacity"
SIDES = ("x", "y", "width", "height")
SHARES = {"train": 0.6, "val": 0.2, "test": 0.2}
PREFERRED = (r"(^|/)stage_2_train_images/", r"\.dcm$")
MAPPING = "pneumonia-challenge-dataset-mappings_2018.json"
"""Published by the RSNA: the ChestX-ray14 name of each image."""
LOVT = {"train.csv": "train", "validation.csv": "val", "test.csv": "test"}
NAMES = {FINDING: ("Target",)}
"""Finding → its names in the tables."""


def index(root: Path, *, split: Literal["auto", "lovt", "patient"] = "auto", images: str = "") -> Index:
    """Read stage_2_train_labels.csv and, where there is one, stage_2_detailed_class_info.csv, anywhere below root.

    split: Split: lovt (published lists, Müller et al. 2022) or patient (60/20/20 by patient); auto: lovt if its lists
        are there, else patient.
    images: Folder with the images below ROOT (.dcm, .png or .jpg), if there are several.
    """
    paths = tables.files_below(root)
    found = tables.files_named(paths, "stage_2_train_labels.csv")
    if not found:
        raise tables.missing_files(root, ["stage_2_train_labels.csv"], SOURCE)
    rows = tables.read_table(root / found[0], ("patientId", *SIDES, "Target"), SIDES, labels=("Target",))
    rows = tables.without_repeats(rows, root / found[0])
    names = rows["patientId"].drop_duplicates().reset_index(drop=True)
    frame = pd.DataFrame(
        {
            "path": tables.locate(names, paths, images, PREFERRED).fillna(names + ".dcm"),
            "patient": names,
            "study": names,
        }
    )
    targets = tables.distinct_rows(rows[["patientId", "Target"]], "patientId", root / found[0])
    frame[FINDING] = targets["Target"]
    info = tables.files_named(paths, "stage_2_detailed_class_info.csv")
    if info:
        classes = tables.read_table(root / info[0], ("patientId", "class"))  # a row for each box
        classes = tables.distinct_rows(classes, "patientId", root / info[0])
        frame["class"] = names.map(classes.set_index("patientId")["class"]).fillna("")
    mapped = tables.files_named(paths, MAPPING)
    if mapped:
        frame["nih_image"] = names.map(_of_chestxray14(root / mapped[0])).fillna("")
        known = frame["nih_image"] != ""
        frame["patient"] = frame["patient"].mask(
            known, "nih-" + frame["nih_image"].str.partition("_")[0].str.lstrip("0")
        )
    else:
        log.warning(
            "RSNA's patientId identifies an image, not a patient: images of one person count as several patients "
            "and may be in several splits. With %s below the root, patient identifiers are taken from ChestX-ray14.",
            MAPPING,
        )
    lovt = _lovt(root, paths)
    if len(lovt):
        frame["split_lovt"] = splits.report_unlisted(names.map(lovt).fillna(""), "lovt")
    frame["split"] = splits.choose(frame, split, ("lovt",), SHARES)
    rows[list(SIDES)] = box_sides(rows, SIDES, root / found[0], frame=FRAME)
    drawn = rows.dropna(subset=list(SIDES)).assign(finding=FINDING)
    drawn["row"] = drawn["patientId"].map(pd.Series(names.index, index=names))
    return Index("rsna", index_table(frame, (FINDING,)), (FINDING,), box_frame(drawn), FRAME, root)


def _of_chestxray14(file: Path) -> dict[str, str]:
    """RSNA's name of an image → its name in ChestX-ray14."""
    try:
        rows = files.read_json(file)
        return {str(row["subset_img_id"]): str(row["img_id"]) for row in rows}
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(
            f"{file} is not the file that maps RSNA's images to ChestX-ray14 ({type(error).__name__})."
        ) from None


def _lovt(root: Path, paths: list[str]) -> pd.Series:
    """The split of each image in the lists of Müller et al., which are recognised by their header."""
    lists = [
        path for path in tables.files_named(paths, *LOVT) if tables.header(root / path) == ["ID", "boxes", "classes"]
    ]
    parts = {path: LOVT[path.rpartition("/")[2].removesuffix(".gz")] for path in lists}
    read = [(str(root / path), part, tables.read_table(root / path, ["ID"])["ID"]) for path, part in parts.items()]
    splits.refuse_shared(read)
    found = [pd.Series(part, index=names) for _, part, names in read]
    every = pd.concat(found) if found else pd.Series(dtype="str")
    return every[~every.index.duplicated()]
