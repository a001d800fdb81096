"""MIMIC-CXR-JPG: 377,110 radiographs of 65,379 patients in 227,827 studies, 14 findings per study with uncertainty.

Johnson et al. 2019, https://arxiv.org/abs/1901.07042. Labels belong to the study: all its pictures share them.
"""

from pathlib import Path
from typing import Literal

import pandas as pd

from ribcage import tables
from ribcage.findings import CHEXPERT14, canonical
from ribcage.index import Index, table

SOURCE = "https://physionet.org/content/mimic-cxr-jpg/"
LICENCE = "PhysioNet Credentialed Health Data License 1.5.0"
NAME = "mimic-cxr-2.0.0-{}.csv"
LABELS = (
    "Atelectasis",
    "Cardiomegaly",
    "Consolidation",
    "Edema",
    "Enlarged Cardiomediastinum",
    "Fracture",
    "Lung Lesion",
    "Lung Opacity",
    "No Finding",
    "Pleural Effusion",
    "Pleural Other",
    "Pneumonia",
    "Pneumothorax",
    "Support Devices",
)
PARTS = {"train": "train", "validate": "val", "test": "test"}
VIEWS = {"ap": "AP", "pa": "PA", "lateral": "LATERAL", "ll": "LATERAL", "xtable lateral": "LATERAL"}


def index(
    root: Path,
    *,
    labels: Literal["chexpert", "negbio"] = "chexpert",
    images: str = "files",
    suffix: Literal["jpg", "png", "dcm"] = "jpg",
    patients: str = "",
) -> Index:
    """Read the metadata, split and label tables, which lie in root.

    labels: The labeller whose table is read.
    images: The folder of the pictures below root, such as files or files_resized_320.
    suffix: What the pictures' names end with.
    patients: The path of patients.csv.gz of MIMIC-IV, which knows sex and age.
    """
    meta, split, label = _read_all(root, labels)
    rows = meta.merge(split, on="dicom_id", how="left").merge(label, on=["subject_id", "study_id"], how="left")
    patient, study = rows["subject_id"], rows["study_id"]
    folder = images.strip("/") + "/" if images.strip("/.") else ""
    frame = pd.DataFrame(
        {
            "path": folder
            + "p"
            + patient.str[:2]
            + "/p"
            + patient
            + "/s"
            + study
            + "/"
            + rows["dicom_id"]
            + "."
            + suffix,
            "patient": patient,
            "study": study,
            "view": tables.words(rows["ViewPosition"], VIEWS),
            "split": tables.words(rows["split"].fillna(""), PARTS),
            "view_position": rows["ViewPosition"],
            **{canonical(name, "mimic"): rows[name] for name in LABELS},
        }
    )
    frame = _with_patients(frame, rows["StudyDate"], root / Path(patients).expanduser()) if patients else frame
    return Index("mimic", table(frame, CHEXPERT14), CHEXPERT14, root=root)


def _read_all(root: Path, labels: str) -> list[pd.DataFrame]:
    """The three tables, or one error with all that are missing."""
    near = tables.files(root, depth=0)
    wanted = {
        "metadata": (("dicom_id", "subject_id", "study_id", "ViewPosition"), ("StudyDate",)),
        "split": (("dicom_id", "split"), ()),
        labels: (("subject_id", "study_id", *LABELS), LABELS),
    }
    found = {what: tables.named(near, NAME.format(what)) for what in wanted}
    absent = [NAME.format(what) + ".gz" for what, paths in found.items() if not paths]
    if absent:
        raise tables.missing(root, absent, SOURCE)
    return [
        tables.read(root / found[what][0], needed, numbers if what == labels else (), numbers)
        for what, (needed, numbers) in wanted.items()
    ]


def _with_patients(frame: pd.DataFrame, dates: pd.Series, file: Path) -> pd.DataFrame:
    """Sex, and the age at the study: MIMIC-IV gives the age in an anchor year of the same shifted calendar."""
    columns = ("subject_id", "gender", "anchor_age", "anchor_year")
    people = tables.read(file, columns, columns[2:]).drop_duplicates("subject_id").set_index("subject_id")
    person = people.reindex(frame["patient"]).reset_index(drop=True)
    year = pd.to_numeric(dates.str[:4], errors="coerce")
    return frame.assign(
        sex=tables.words(person["gender"].fillna(""), tables.SEX),
        age=person["anchor_age"] + year - person["anchor_year"],
    )
