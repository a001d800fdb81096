"""PadChest: 160,868 radiographs of 67,000 patients, with 18 findings from reports and all 194 labels as text.

Bustos et al. 2020, https://arxiv.org/abs/1901.07441. The reports of 27 % of the images were labelled by physicians, the
others by a network. A finding is absent (0) if a report does not mention it. If a report compares with an earlier image
('unchanged'), or the image is of poor quality ('suboptimal study'), findings that are not mentioned are unknown. The
reports are in Spanish, without sections, and as published: in lower case, with stemmed words.
"""

import ast
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from ribcage.data import splits
from ribcage.data.index import Index, index_table
from ribcage.data.radiology_reports import reports_of_images
from ribcage.data.readers import tables

CHINESE = "PadChest：67,000 名患者的 160,868 张胸片，标签来自报告，此处对应 18 种征象，全部 194 种标签以文本保留"
SOURCE = "https://bimcv.cipf.es/bimcv-projects/padchest/"
LICENCE = "PadChest Dataset Research Use Agreement: research only, no redistribution"
TABLE = "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv"
TUBES = ("NSG tube", "endotracheal tube", "tracheostomy tube", "chest drain tube", "ventriculoperitoneal drain tube",
         "gastrostomy tube", "nephrostomy tube", "double J stent")  # fmt: skip
CATHETERS = ("catheter", "central venous catheter", "central venous catheter via jugular vein",
             "central venous catheter via subclavian vein", "central venous catheter via umbilical vein",
             "reservoir central venous catheter")  # fmt: skip
HEART_DEVICES = ("pacemaker", "dual chamber device", "single chamber device", "electrical device",
                 "artificial heart valve", "artificial mitral heart valve", "artificial aortic heart valve",
                 "aortic endoprosthesis", "endoprosthesis")  # fmt: skip
# Finding → labels of PadChest. For infiltration, these are the labels below 'infiltrates' in the tree of the paper.
FINDINGS = {
    "Atelectasis": ("atelectasis", "laminar atelectasis", "lobar atelectasis", "total atelectasis",
                    "segmental atelectasis", "atelectasis basal", "round atelectasis"),
    "Cardiomegaly": ("cardiomegaly",),
    "Effusion": ("pleural effusion", "loculated pleural effusion", "loculated fissural effusion", "hydropneumothorax",
                 "empyema"),
    "Infiltration": ("infiltrates", "interstitial pattern", "ground glass pattern", "reticular interstitial pattern",
                     "reticulonodular interstitial pattern", "miliary opacities", "alveolar pattern", "consolidation",
                     "air bronchogram"),
    "Mass": ("mass", "pulmonary mass"),
    "Nodule": ("nodule", "multiple nodules"),
    "Pneumonia": ("pneumonia", "atypical pneumonia"),
    "Pneumothorax": ("pneumothorax", "hydropneumothorax"),
    "Consolidation": ("consolidation", "air bronchogram"),
    "Edema": ("pulmonary edema",),
    "Emphysema": ("emphysema",),
    "Fibrosis": ("pulmonary fibrosis",),
    "Pleural_Thickening": ("pleural thickening", "apical pleural thickening", "calcified pleural thickening"),
    "Hernia": ("hiatal hernia",),
    "No_Finding": ("normal",),
    "Fracture": ("fracture", "rib fracture", "callus rib fracture", "vertebral fracture", "clavicle fracture",
                 "humeral fracture"),
    "Support_Devices": (*TUBES, *CATHETERS, *HEART_DEVICES),
    "Tuberculosis": ("tuberculosis",),
}  # fmt: skip
INCOMPLETE = ("unchanged", "suboptimal study")
"""Labels of reports that do not mention every finding."""
VIEWS = {"pa": "PA", "ap": "AP", "ap_horizontal": "AP", "l": "LATERAL"}
COLUMNS = ("ImageID", "ImageDir", "StudyDate_DICOM", "StudyID", "PatientID", "PatientBirth", "PatientSex_DICOM",
           "Projection", "MethodLabel", "Labels")  # fmt: skip
PLACES, REPORT = "LabelsLocalizationsBySentence", "Report"
NAMES = FINDINGS


def index(root: Path, *, images: str = "", labels: Literal["all", "physician"] = "all") -> Index:
    """Read the table of all labels, anywhere below root.

    images: Folder with the images below ROOT, if there are several.
    labels: Labels to read; physician: labels by physicians only, so that the other images have no labels.
    """
    paths = tables.files_below(root)
    found = tables.files_named(paths, TABLE)
    if not found:
        raise tables.missing_files(root, [TABLE], SOURCE)
    rows = tables.read_table(root / found[0], COLUMNS, (), (PLACES, REPORT))
    rows = rows.drop_duplicates("ImageID", ignore_index=True)
    names = rows["ImageID"]
    texts = rows["Labels"] if labels == "all" else rows["Labels"].where(rows["MethodLabel"] == "Physician", "")
    frame = pd.DataFrame(
        {
            "path": tables.locate(names, paths, images).fillna(rows["ImageDir"] + "/" + names),
            "patient": rows["PatientID"],
            "study": rows["StudyID"],
            "view": tables.translated(rows["Projection"], VIEWS),
            "sex": tables.translated(rows["PatientSex_DICOM"], tables.SEX),
            "age": _ages(rows),
            "projection": rows["Projection"],
            "labelled_by": rows["MethodLabel"],
            **_labels(texts),
        }
    )
    if PLACES in rows:
        places = rows[PLACES].where(texts != "", "")
        frame["padchest_localizations"] = places.map({cell: _places(cell) for cell in places.unique()}).astype("str")
    frame["split"] = splits.assigned(frame["patient"], frame["path"])
    findings = tuple(FINDINGS)
    sections = pd.DataFrame({"findings": rows.get(REPORT, pd.Series("", rows.index)).str.split().str.join(" ")})
    reports = reports_of_images(rows["StudyID"], sections.set_axis(rows["StudyID"]), "es")
    return Index("padchest", index_table(frame, findings), findings, root=root, reports=reports)


def _labels(texts: pd.Series) -> dict[str, np.ndarray | pd.Series]:
    """A column for each finding, and one with all labels as text, separated by '|'."""
    codes, unique = pd.factorize(texts)
    lists = [_words(text) for text in unique]
    known = np.array([_values(words) for words in lists], np.float32).reshape(-1, len(FINDINGS))[codes]
    shown = pd.Series(np.array(["|".join(words) for words in lists], dtype=object)[codes], texts.index, dtype="str")
    return {**dict(zip(FINDINGS, known.T, strict=True)), "padchest_labels": shown}


def _words(text: str) -> list[str]:
    """The labels in "['normal', 'chronic changes']", without repetitions; none if the cell is no such list."""
    return sorted({word.strip() for word in _list(text) if isinstance(word, str)} - {""})


def _places(text: str) -> str:
    """'nodule: loc hilar, loc right' from the sentences "[['nodule', 'loc hilar', 'loc right'], ['normal']]"."""
    found: dict[str, str] = {}
    for sentence in _list(text):
        words = [word.strip() for word in sentence if isinstance(word, str)] if isinstance(sentence, list) else []
        places = ", ".join(word for word in words if word.startswith("loc "))
        found |= {word: places for word in words if word and not word.startswith("loc ")} if places else {}
    return "|".join(f"{label}: {places}" for label, places in found.items())


def _list(text: str) -> list[object]:
    """A list written in Python; [] if the cell has something else."""
    try:
        found = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return []
    return found if isinstance(found, list) else []


def _values(words: list[str]) -> list[float]:
    """1, 0 or NaN for each finding; NaN for all if the image is to be excluded."""
    if "exclude" in words:
        return [np.nan] * len(FINDINGS)
    absent = np.nan if not words or set(words) & set(INCOMPLETE) else 0.0
    return [1.0 if set(words) & set(labels) else absent for labels in FINDINGS.values()]


def _ages(rows: pd.DataFrame) -> pd.Series:
    """Age in the year of the study; the day of birth is not published."""
    year = pd.to_numeric(rows["StudyDate_DICOM"].str[:4], errors="coerce")
    age = year - pd.to_numeric(rows["PatientBirth"], errors="coerce")
    return age.where(age.between(0, 120))
