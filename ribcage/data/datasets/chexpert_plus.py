"""CheXpert Plus: the radiographs of CheXpert with their reports in sections, race, insurance and DICOM files.

Chambon et al. 2024, https://arxiv.org/abs/2405.19538: 223,462 radiographs of 64,725 patients, with labels for 14
findings that were extracted from the reports by CheXbert. Blank means not mentioned, -1 uncertain. Patients and
studies have the identifiers of CheXpert, and the index has its name, so that the leakage check compares them.
"""

import json
import logging
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from ribcage.data import splits
from ribcage.data.datasets.chexpert import LABELS, VIEWS
from ribcage.data.findings import CHEXPERT14, canonical, names_of
from ribcage.data.index import Index, index_table
from ribcage.data.radiology_reports import SECTIONS, reports_of_images
from ribcage.data.readers import coded_columns, report_text, tables
from ribcage.data.readers.table_text import decoded_text, printable_text
from ribcage.runtime.spelling import count_phrase

CHINESE = "CheXpert Plus：CheXpert 的 223,462 张胸片，附分节报告、种族、保险信息和 DICOM 文件"
SOURCE = "https://stanfordaimi.azurewebsites.net/datasets/5158c524-d3ab-4e02-96e9-6ee9efc110a1"
LICENCE = "Stanford University Dataset Research Use Agreement: no commercial use, no redistribution"
TABLE = "df_chexpert_plus_240401.csv"
PATHS = ("path_to_image", "path_to_dcm")
COLUMNS = (PATHS[0], "frontal_lateral", "ap_pa", "deid_patient_id", "age", "sex", "split")
ABOUT = {
    "race": "race",
    "ethnicity": "ethnicity",
    "insurance_type": "insurance",
    "interpreter_needed": "interpreter_needed",
}
PARTS = {  # section → columns of the table
    "indication": ("section_clinical_history", "section_history"),
    "comparison": ("section_comparison",),
    "technique": ("section_technique", "section_procedure_comments"),
    "findings": ("section_findings",),
    "impression": ("section_impression", "section_end_of_impression", "section_summary"),
    "other": ("section_narrative",),
}
INSIDE = r"((?:train|valid)/patient\d+/study\d+/[^/]+?)(?:\.\w+)?$"
"""Path of an image without the folders above it and without its extension."""
LABEL = {1: 1.0, 0: 0.0, -1: -1.0}
log = logging.getLogger("ribcage")
NAMES = names_of("chexpert", LABELS)
"""Finding → its names in the tables."""


def index(
    root: Path,
    *,
    labels: Literal["impression", "findings", "report"] = "impression",
    images: Literal["auto", "png", "dcm", "jpg"] = "auto",
) -> Index:
    """Read the table df_chexpert_plus_240401.csv and the labels of CheXbert (impression_fixed.json), below root.

    labels: Part of the reports from which the labels were extracted.
    images: File format of the images, if there are several; auto: PNG or JPEG before DICOM.
    """
    paths = tables.files_below(root)
    found = tables.files_named(paths, TABLE)
    if not found:
        raise tables.missing_files(root, [TABLE], SOURCE)
    texts = [name for names in PARTS.values() for name in names]
    rows = tables.read_table(root / found[0], COLUMNS, ("age",), (PATHS[1], *ABOUT, *texts, "report"))
    rows["split"] = coded_columns.known_words(rows["split"], {"train": "train", "valid": "val"}, root / found[0])
    rows = tables.one_row_each(rows, PATHS[0], root / found[0])
    study = rows[PATHS[0]].str.extract(r"(patient\d+/study\d+)/", expand=False)
    if study.isna().any():
        raise ValueError(
            f"{root / found[0]}: all paths must have the form train/patient00001/study1/view1_frontal.jpg."
        )
    frame = pd.DataFrame(
        {
            "path": _located(rows, paths, images),
            "patient": rows["deid_patient_id"],
            "study": study,
            "view": coded_columns.translated(rows["ap_pa"], VIEWS, "Views").mask(
                rows["frontal_lateral"].str.lower() == "lateral", "LATERAL"
            ),
            "split": rows["split"],
            "sex": coded_columns.sexes(rows["sex"]),
            "age": coded_columns.plausible_years(rows["age"]),
            **{ours: rows[theirs] for theirs, ours in ABOUT.items() if theirs in rows},
        }
    )
    found_labels = tables.files_named(paths, f"{labels}_fixed.json")
    if not found_labels:
        log.warning(
            "The labels of CheXbert (%s_fixed.json) were not found in %s, so all labels are unknown.", labels, root
        )
    known = _labels(root / found_labels[0]) if found_labels else pd.DataFrame(index=rows[PATHS[0]])
    if none := int((~rows[PATHS[0]].isin(known.index)).sum()):
        log.warning("%s without labels in %s.", count_phrase(none, "image"), found_labels[0])
    known = known.reindex(rows[PATHS[0]])
    for name in LABELS:
        frame[canonical(name, "chexpert")] = known[name].to_numpy() if name in known else np.nan
    if "val" not in set(frame["split"]):
        frame["split"] = splits.carve(frame["split"], frame["patient"], frame["path"])
    reports = reports_of_images(study, _sections(rows, study), "en")
    return Index("chexpert", index_table(frame, CHEXPERT14), CHEXPERT14, root=root, reports=reports)


def _located(rows: pd.DataFrame, paths: list[str], images: str) -> pd.Series:
    """The file of each image: PNG/train/… or DICOM/train/…, whatever its extension."""
    kinds = tables.IMAGES if images == "auto" else (f".{images}",)
    own = [path for path in paths if path.lower().endswith(kinds) and not tables.in_mask_folder(path)]
    files = pd.Series(own, dtype="str")
    files = files[np.argsort(files.str.lower().str.endswith((".dcm", ".dicom")), kind="stable")]
    inside = files.str.extract(INSIDE, expand=False)
    place = pd.Series(files.to_numpy(), inside)[(inside.notna() & ~inside.duplicated()).to_numpy()]
    found = rows[PATHS[0]].astype("object")
    for name in (name for name in reversed(PATHS) if name in rows):
        known = place.reindex(rows[name].str.extract(INSIDE, expand=False)).set_axis(rows.index)
        found = known.astype("object").where(known.notna(), found)
    return found.astype("str")


def _labels(file: Path) -> pd.DataFrame:
    """The labels by path, from one JSON object per line."""
    lines = []
    for number, text in enumerate(decoded_text(file, "auto").splitlines(), 1):
        try:
            line = json.loads(text)
            values = [np.nan if line[name] is None else LABEL[line[name]] for name in LABELS]
            lines.append((str(line[PATHS[0]]), *values))
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            said = f"{type(error).__name__}: {printable_text(str(error))}"
            raise ValueError(
                f"{file}, line {number}: an object with {PATHS[0]} and 14 labels, each of them 1, 0, -1 or null, "
                f"was expected ({said})."
            ) from None
    if not lines:
        raise ValueError(f"{file} is empty; lines of JSON with labels were expected.")
    found = pd.DataFrame(lines, columns=[PATHS[0], *LABELS])
    return tables.one_row_each(found, PATHS[0], file).set_index(PATHS[0]).astype("float32")


def _sections(rows: pd.DataFrame, study: pd.Series) -> pd.DataFrame:
    """The sections of each study's report; a report without sections is divided by its headings."""
    first = ~study.duplicated()
    parts = {
        section: rows.loc[first, [name for name in names if name in rows]].to_numpy(object)
        for section, names in PARTS.items()
    }
    found = pd.DataFrame(
        {section: ["\n".join(text for each in row if (text := " ".join(each.split()))) for row in cells]
         for section, cells in parts.items()},
        study[first].to_numpy(),
    )  # fmt: skip
    if "report" in rows:
        bare = (found == "").all(axis=1).to_numpy()
        divided = [report_text.report_sections(text) for text in rows.loc[first, "report"][bare]]
        found.loc[bare, list(SECTIONS)] = [[each.get(name, "") for name in SECTIONS] for each in divided]
    return found
