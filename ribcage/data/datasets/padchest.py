"""PadChest: 160,868 radiographs of 67,000 patients, with 18 findings from reports and all 193 labels as text.

Bustos et al. 2020, https://arxiv.org/abs/1901.07441. The reports of 27 % of the images were labelled by physicians, the
others by a network. A finding is absent (0) if a report does not mention it. If a report compares with an earlier image
('unchanged'), or the image is of poor quality ('suboptimal study'), findings that are not mentioned are unknown. The
reports are in Spanish, without sections, and as published: in lower case, with stemmed words.
"""

import ast
import logging
from collections import Counter
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from ribcage.data import splits
from ribcage.data.contradictions import report_no_finding
from ribcage.data.index import Index, index_table
from ribcage.data.radiology_reports import reports_of_images
from ribcage.data.readers import coded_columns, tables

CHINESE = "PadChest：67,000 名患者的 160,868 张胸片，标签来自报告，此处对应 18 种征象，全部 193 种标签以文本保留"
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
OTHERS = (
    "COPD signs", "Chilaiditi sign", "abnormal foreign body", "abscess", "adenopathy", "air fluid level",
    "air trapping", "aortic aneurysm", "aortic atheromatosis", "aortic button enlargement", "aortic elongation",
    "asbestosis signs", "ascendent aortic elongation", "axial hyperostosis", "azygoesophageal recess shift",
    "azygos lobe", "blastic bone lesion", "bone cement", "bone metastasis", "breast mass", "bronchiectasis",
    "bronchovascular markings", "bullas", "calcified adenopathy", "calcified densities", "calcified fibroadenoma",
    "calcified granuloma", "calcified mediastinal adenopathy", "calcified pleural plaques", "cavitation",
    "central vascular redistribution", "cervical rib", "chronic changes", "costochondral junction hypertrophy",
    "costophrenic angle blunting", "cyst", "dai", "descendent aortic elongation", "dextrocardia",
    "diaphragmatic eventration", "end on vessel", "esophagic dilatation", "external foreign body", "fibrotic band",
    "fissure thickening", "flattened diaphragm", "goiter", "granuloma", "gynecomastia", "heart insufficiency",
    "heart valve calcified", "hemidiaphragm elevation", "hilar congestion", "hilar enlargement", "humeral prosthesis",
    "hyperinflated lung", "hypoexpansion", "hypoexpansion basal", "increased density", "kerley lines", "kyphosis",
    "lepidic adenocarcinoma", "lipomatosis", "lung metastasis", "lung vascular paucity", "lymphangitis carcinomatosa",
    "lytic bone lesion", "major fissure thickening", "mammary prosthesis", "mastectomy", "mediastinal enlargement",
    "mediastinal mass", "mediastinal shift", "mediastinic lipomatosis", "metal", "minor fissure thickening",
    "nipple shadow", "non axial articular degenerative changes", "obesity", "osteopenia", "osteoporosis",
    "osteosynthesis material", "pectum carinatum", "pectum excavatum", "pericardial effusion", "pleural mass",
    "pleural plaques", "pneumomediastinum", "pneumoperitoneo", "post radiotherapy changes", "prosthesis",
    "pseudonodule", "pulmonary artery enlargement", "pulmonary artery hypertension", "pulmonary hypertension",
    "pulmonary venous hypertension", "respiratory distress", "right sided aortic arch", "sclerotic bone lesion",
    "scoliosis", "soft tissue mass", "sternoclavicular junction hypertrophy", "sternotomy",
    "subacromial space narrowing", "subcutaneous emphysema", "superior mediastinal enlargement",
    "supra aortic elongation", "surgery", "surgery breast", "surgery heart", "surgery humeral", "surgery lung",
    "surgery neck", "suture material", "thoracic cage deformation", "tracheal shift", "tuberculosis sequelae",
    "vascular hilar enlargement", "vascular redistribution", "vertebral anterior compression", "vertebral compression",
    "vertebral degenerative changes", "volume loss",
)  # fmt: skip
"""Labels of PadChest that belong to none of these findings."""
EXCLUDED = "exclude"
INCOMPLETE = ("unchanged", "suboptimal study")
"""Labels of reports that do not mention every finding."""
DEVICES = FINDINGS["Support_Devices"]
KNOWN = {label.casefold(): label for label in (
    *(label for labels in FINDINGS.values() for label in labels), *OTHERS, *INCOMPLETE, EXCLUDED)}  # fmt: skip
"""All 193 labels in the published table, by their lower-case spelling."""
log = logging.getLogger("ribcage")
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
    rows = tables.one_row_each(tables.without_blanks(rows, "ImageID", root / found[0]), "ImageID", root / found[0])
    names = rows["ImageID"]
    texts = rows["Labels"] if labels == "all" else rows["Labels"].where(rows["MethodLabel"] == "Physician", "")
    frame = pd.DataFrame(
        {
            "path": tables.locate(names, paths, images).fillna(rows["ImageDir"] + "/" + names),
            "patient": rows["PatientID"],
            "study": rows["StudyID"],
            "view": coded_columns.translated(rows["Projection"], VIEWS, "Views"),
            "sex": coded_columns.sexes(rows["PatientSex_DICOM"]),
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
    lists, counts = [_words(text) for text in unique], np.bincount(codes, minlength=len(unique))
    _report(list(unique), lists, counts.tolist())
    known = np.array([_values(words) for words in lists], np.float32).reshape(-1, len(FINDINGS))[codes]
    shown = pd.Series(np.array(["|".join(words) for words in lists], dtype=object)[codes], texts.index, dtype="str")
    normal = list(FINDINGS).index("No_Finding")
    odd = np.array([_is_contradicted(words) for words in lists], bool)[codes]
    known[odd, normal] = np.nan
    report_no_finding(int(odd.sum()), "image")
    return {**dict(zip(FINDINGS, known.T, strict=True)), "padchest_labels": shown}


def _words(text: str) -> list[str]:
    """The labels in "['normal', 'chronic changes']", without repetitions; none if the cell is no such list."""
    words = {" ".join(word.split()) for word in _list(text) or () if isinstance(word, str)}
    return sorted({KNOWN.get(word.casefold(), word) for word in words} - {""})


def _report(cells: list[str], lists: list[list[str]], counts: list[int]) -> None:
    """Warn of cells that are not lists, and of labels that PadChest does not have."""
    odd = sum(
        count
        for cell, words, count in zip(cells, lists, counts, strict=True)
        if not words and cell.strip() not in ("", "nan") and _list(cell) is None
    )
    if odd:
        log.warning("Cells in the column 'Labels' that are not lists are unknown labels: %s.", f"{odd:,}")
    strange = Counter[str]()
    for words, count in zip(lists, counts, strict=True):
        strange.update({word: count for word in words if word not in KNOWN.values()})
    coded_columns.report_strange(strange, "Labels of PadChest")


def _is_contradicted(words: list[str]) -> bool:
    """Whether a report has the label normal beside that of a finding, be it one of ours or not."""
    return "normal" in words and not {*words} <= {"normal", EXCLUDED, *INCOMPLETE, *DEVICES}


def _places(text: str) -> str:
    """'nodule: loc hilar, loc right' from the sentences "[['nodule', 'loc hilar', 'loc right'], ['normal']]"."""
    found: dict[str, str] = {}
    for sentence in _list(text) or ():
        words = [word.strip() for word in sentence if isinstance(word, str)] if isinstance(sentence, list) else []
        places = ", ".join(word for word in words if word.startswith("loc "))
        found |= {word: places for word in words if word and not word.startswith("loc ")} if places else {}
    return "|".join(f"{label}: {places}" for label, places in found.items())


def _list(text: str) -> list[object] | None:
    """A list written in Python; None if the cell has something else."""
    try:
        found = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    return found if isinstance(found, list) else None


def _values(words: list[str]) -> list[float]:
    """1, 0 or NaN for each finding; NaN for all if the image is to be excluded."""
    if EXCLUDED in words:
        return [np.nan] * len(FINDINGS)
    absent = np.nan if not words or set(words) & set(INCOMPLETE) else 0.0
    return [1.0 if set(words) & set(labels) else absent for labels in FINDINGS.values()]


def _ages(rows: pd.DataFrame) -> pd.Series:
    """Age in the year of the study; the day of birth is not published."""
    year = coded_columns.numbers(rows["StudyDate_DICOM"].str[:4])
    age = year - coded_columns.numbers(rows["PatientBirth"])
    return coded_columns.plausible_years(age)
