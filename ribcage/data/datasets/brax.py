"""BRAX: 40,967 radiographs from 24,959 studies, with positive, negative and uncertain labels for 14 findings.

Reis et al. 2022, https://doi.org/10.1038/s41597-022-01608-8. The labels were extracted from reports in Brazilian
Portuguese by an automatic labeller with the findings of CheXpert. Blank means not mentioned, -1 uncertain; both are
preserved.
"""

from pathlib import Path

import pandas as pd

from ribcage.data import splits
from ribcage.data.datasets.chexpert import LABELS
from ribcage.data.findings import CHEXPERT14, canonical, names_of
from ribcage.data.index import Index, index_table
from ribcage.data.readers import coded_columns, tables

CHINESE = "BRAX（巴西）：24,959 次检查的 40,967 张胸片，14 种征象，标签由葡萄牙语报告自动提取，含“不确定”"
SOURCE = "https://physionet.org/content/brax/"
LICENCE = "PhysioNet, credentialed access"
TABLES = ("master_spreadsheet_update.csv", "master_spreadsheet.csv")
COLUMNS = ("PngPath", "PatientID", "PatientSex", "PatientAge", "AccessionNumber", "ViewPosition")
VIEWS = {"pa": "PA", "ap": "AP", "l": "LATERAL", "ll": "LATERAL", "rl": "LATERAL"}
NAMES = names_of("brax", LABELS)
"""Finding → its names in the tables."""


def index(root: Path) -> Index:
    """Read master_spreadsheet_update.csv, anywhere below root. If the PNG of an image is missing, the DICOM is used."""
    paths = tables.files_below(root)
    found = tables.files_named(paths, *TABLES)
    if not found:
        raise tables.missing_files(root, [TABLES[0]], SOURCE)
    rows = tables.read_table(root / found[0], (*COLUMNS, *LABELS), labels=LABELS)
    rows = tables.one_row_each(rows, "PngPath", root / found[0])
    youngest = rows["PatientAge"].str.extract(r"^\s*(\d+)", expand=False).fillna(rows["PatientAge"])  # 85 or more
    frame = pd.DataFrame(
        {
            "path": tables.matched_files(rows["PngPath"].tolist(), paths)[0],
            "patient": rows["PatientID"],
            # accession numbers are only unique within a patient
            "study": rows["PatientID"] + "-" + rows["AccessionNumber"],
            "view": coded_columns.translated(rows["ViewPosition"], VIEWS, "Views"),
            "sex": coded_columns.sexes(rows["PatientSex"]),
            "age": coded_columns.years(youngest),
            "view_position": rows["ViewPosition"],
            "age_group": rows["PatientAge"],
            **{canonical(name, "brax"): rows[name] for name in LABELS},
        }
    )
    frame["split"] = splits.assigned(frame["patient"], frame["path"])
    return Index("brax", index_table(frame, CHEXPERT14), CHEXPERT14, root=root)
