"""Open-i: 7,470 frontal and lateral images from 3,851 studies at Indiana University, with 18 findings from MeSH terms.

Demner-Fushman et al. 2016, https://doi.org/10.1093/jamia/ocv080. The terms ('major') were assigned to the reports by
people. A finding without a term is absent (0). If a report was not coded, all findings are unknown; if a term states
that the image is of poor quality, the findings without a term are unknown.
"""

import logging
import re
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd

from ribcage.data import splits
from ribcage.data.index import Index, index_table
from ribcage.data.radiology_reports import SECTIONS, reports_of_images
from ribcage.data.readers import coded_columns, tables
from ribcage.runtime.files import regular

CHINESE = "Open-i（印第安纳大学）：3,851 次检查的 7,470 张正侧位胸片，18 种征象，标签来自报告的 MeSH 标注"
SOURCE = "https://openi.nlm.nih.gov/faq"
LICENCE = "CC BY-NC-ND 4.0"
# Finding → MeSH terms; 'Opacity/lung' also stands for 'Opacity/lung/base/left'.
FINDINGS = {
    "Atelectasis": ("Pulmonary Atelectasis",),
    "Cardiomegaly": ("Cardiomegaly",),
    "Effusion": ("Pleural Effusion", "Hydropneumothorax"),
    "Infiltration": ("Infiltrate",),
    "Mass": ("Mass/lung",),
    "Nodule": ("Nodule/lung",),
    "Pneumonia": ("Pneumonia",),
    "Pneumothorax": ("Pneumothorax", "Hydropneumothorax", "Hemopneumothorax"),
    "Consolidation": ("Consolidation",),
    "Edema": ("Pulmonary Edema",),
    "Emphysema": ("Emphysema", "Pulmonary Emphysema", "Bullous Emphysema"),
    "Fibrosis": ("Pulmonary Fibrosis",),
    "Pleural_Thickening": ("Thickening/pleura",),
    "Hernia": ("Hernia, Hiatal", "Hernia, Diaphragmatic"),
    "No_Finding": ("normal",),
    "Lung_Opacity": ("Opacity/lung", "Opacity/pulmonary alveoli", "Airspace Disease/lung"),
    "Fracture": ("Fractures, Bone",),
    "Support_Devices": ("Catheters, Indwelling", "Implanted Medical Device", "Medical Device", "Tube, Inserted"),
}
OTHERS = (
    "Abdomen", "Adipose Tissue", "Aorta", "Aorta, Thoracic", "Aortic Aneurysm", "Arthritis", "Atherosclerosis",
    "Blister", "Blood Vessels", "Bone Diseases, Metabolic", "Bone and Bones", "Breast Implants", "Bronchiectasis",
    "Bronchiolitis", "Bronchitis", "Calcified Granuloma", "Calcinosis", "Cardiac Shadow", "Cavitation",
    "Cervical Vertebrae", "Cholelithiasis", "Cicatrix", "Colonic Interposition", "Contrast Media", "Costophrenic Angle",
    "Cystic Fibrosis", "Cysts", "Deformity", "Density", "Diaphragm", "Diaphragmatic Eventration", "Dislocations",
    "Epicardial Fat", "Expansile Bone Lesions", "Fibrosis", "Foreign Bodies", "Funnel Chest", "Granuloma",
    "Granulomatous Disease", "Heart", "Heart Atria", "Heart Failure", "Heart Ventricles", "Hemothorax", "Humerus",
    "Hyperostosis, Diffuse Idiopathic Skeletal", "Hypertension, Pulmonary", "Hypovolemia", "Kyphosis", "Lucency",
    "Lumbar Vertebrae", "Lung", "Lung Diseases, Interstitial", "Lung, Hyperlucent", "Lymph Nodes", "Markings",
    "Mastectomy", "Mediastinal Emphysema", "Mediastinum", "Nipple Shadow", "Osteophyte", "Osteoporosis",
    "Pectus Carinatum", "Pericardial Effusion", "Pleura", "Pneumonectomy", "Pneumoperitoneum", "Pulmonary Artery",
    "Pulmonary Congestion", "Pulmonary Disease, Chronic Obstructive", "Ribs", "Sarcoidosis", "Sclerosis", "Scoliosis",
    "Shift", "Shoulder", "Spinal Fusion", "Spine", "Spondylosis", "Stents", "Subcutaneous Emphysema", "Sulcus",
    "Surgical Instruments", "Sutures", "Thoracic Vertebrae", "Thorax", "Trachea", "Trachea, Carina", "Tuberculosis",
    "Volume Loss",
)  # fmt: skip
"""MeSH terms of other findings, without their places."""
NOT_CODED = "no indexing"
POOR_QUALITY = "technical quality of image unsatisfactory"
KNOWN = {
    word.partition("/")[0].casefold()
    for word in (*(label for labels in FINDINGS.values() for label in labels), *OTHERS, NOT_CODED, POOR_QUALITY)
}
"""All terms in the published reports, without their places."""
VIEWS = {"pa": "PA", "ap": "AP", "ll": "LATERAL", "rl": "LATERAL", "lateral": "LATERAL", "large lateral": "LATERAL"}
TEXTS = ("indication", "comparison", "findings", "impression")
REPORT = re.compile(r"(^|/)\d+\.xml$")
IMAGE = re.compile(r"(\d+_IM-[\d-]+)(\.dcm)?(\.\w+)?$")
"""The name of an image in a report (CXR1_1_IM-0001-3001), a file and a table (1_IM-0001-3001.dcm.png)."""
LARGEST_REPORT = 1 << 20
"""Limit on the bytes of a report."""
log = logging.getLogger("ribcage")
NAMES = FINDINGS


def index(root: Path) -> Index:
    """Read the reports (1.xml, 2.xml, …) or, without them, Kaggle's indiana_reports.csv, anywhere below root."""
    paths = tables.files_below(root)
    reports = [path for path in paths if REPORT.search(path)]
    listed = [tables.files_named(paths, f"indiana_{name}.csv") for name in ("reports", "projections")]
    if not reports and not all(listed):
        wanted = ["reports such as ecgen-radiology/1.xml (or indiana_reports.csv and indiana_projections.csv)"]
        raise tables.missing_files(root, wanted, SOURCE)
    rows = _of_reports(root, reports) if reports else _of_tables(root / listed[0][0], root / listed[1][0])
    files = {
        match[1]: path
        for path in reversed(paths)
        if path.lower().endswith(tables.IMAGES) and not tables.in_mask_folder(path) and (match := IMAGE.search(path))
    }
    views = _views(root, paths)
    frame = pd.DataFrame(
        {
            "path": [files.get(name, f"{name}.png") for name in rows["image"]],
            "patient": rows["report"],
            "study": rows["report"],
            "view": [views.get(name, "") for name in rows["image"]],
            "mesh_terms": rows["terms"].str.join("|").astype("str"),
        }
    )
    words = [term.partition("/")[0].strip() for terms in rows["terms"] for term in terms]
    coded_columns.report_strange(Counter(word for word in words if word.casefold() not in KNOWN), "MeSH terms")
    values = [_values([term.casefold() for term in terms]) for terms in rows["terms"]]
    frame[list(FINDINGS)] = np.array(values, np.float32).reshape(-1, len(FINDINGS))
    sections = rows.drop_duplicates("report").set_index("report")[list(SECTIONS)]
    reports = reports_of_images(rows["report"], sections, "en")
    log.warning("Open-i has no patient identifiers: each report counts as a different patient.")
    frame["split"] = splits.assigned(frame["patient"], frame["path"])
    return Index("openi", index_table(frame, tuple(FINDINGS)), tuple(FINDINGS), root=root, reports=reports)


def _of_reports(root: Path, paths: list[str]) -> pd.DataFrame:
    """Report, image, terms and sections of each image, in the order of the numbers of the reports."""
    found = []
    for path in sorted(paths, key=lambda path: (int(Path(path).stem), path)):
        report = _report(root / path)
        terms = [" ".join((term.text or "").split()) for term in report.iter("major")]
        names = [IMAGE.search(image.get("id", "")) for image in report.iter("parentImage")]
        texts = {part.get("Label", "").lower(): part.text or "" for part in report.iter("AbstractText")}
        sections = [" ".join(texts.get(name, "").split()) for name in SECTIONS]
        found.append(
            (Path(path).stem, [name[1] for name in names if name], [term for term in terms if term], *sections)
        )
    rows = pd.DataFrame(found, columns=["report", "image", "terms", *SECTIONS])
    if none := int((rows["image"].str.len() == 0).sum()):
        log.warning("%s of %s reports have no image.", f"{none:,}", f"{len(rows):,}")
    rows = rows.explode("image").dropna(subset="image")
    reports = rows.groupby("image")["report"].unique()
    shared = reports[reports.str.len() > 1]
    if len(shared):
        raise ValueError(
            f"{root}: the image {shared.index[0]} is in the reports {', '.join(shared.iloc[0])}; one report was "
            "expected. Download the reports again."
        )
    return rows.drop_duplicates("image", ignore_index=True)


def _report(file: Path) -> ElementTree.Element:
    """A report as XML. Documents that declare entities, which may be expanded without end, are refused."""
    with regular(file).open("rb") as stream:
        data = stream.read(LARGEST_REPORT + 1)
    try:
        text = data.decode("utf-8-sig")
        if len(data) > LARGEST_REPORT or "<!DOCTYPE" in text or "<!ENTITY" in text:
            raise ValueError("it is larger than 1 MiB or contains a document type declaration")
        return ElementTree.fromstring(text)
    except (ValueError, ElementTree.ParseError) as error:
        raise ValueError(f"{file} is not a valid Open-i report: {' '.join(str(error).split())[:200]}.") from None


def _of_tables(reports: Path, projections: Path) -> pd.DataFrame:
    """Report, image, terms and sections of each image in Kaggle's tables."""
    known = tables.one_row_each(tables.read_table(reports, ("uid", "MeSH"), (), TEXTS), "uid", reports)
    known = known.set_index("uid")
    rows = tables.one_row_each(tables.read_table(projections, ("uid", "filename")), "filename", projections)
    rows = pd.DataFrame({"report": rows["uid"], "image": rows["filename"].str.extract(IMAGE)[0]}).dropna()
    rows = tables.distinct_rows(rows, "image", projections)
    rows["terms"] = [
        [term for each in text.split(";") if (term := " ".join(each.split()))]
        for text in rows["report"].map(known["MeSH"]).fillna("")
    ]
    return rows.join(known.reindex(columns=SECTIONS), on="report")


def _views(root: Path, paths: list[str]) -> dict[str, str]:
    """Views in the table of DICOM headers of TorchXRayVision and, of lateral images, in Kaggle's projections."""
    found: dict[str, str] = {}
    for name, column, title, words in (
        ("indiana_projections.csv", "filename", "projection", {"lateral": "LATERAL", "frontal": ""}),
        ("nlmcxr_dicom_metadata.csv", "imageid", "View Position", VIEWS),
    ):
        for path in tables.files_named(paths, name)[:1]:
            rows = tables.read_table(root / path, (column, title))
            views = coded_columns.translated(rows[title], words, "Views")
            keys = rows[column].str.extract(IMAGE)[0]
            if odd := int(keys.isna().sum()):
                log.warning("Rows of %s that do not name an image of Open-i: %s.", root / path, f"{odd:,}")
            found |= {key: view for key, view in zip(keys, views, strict=True) if view}
    return found


def _values(terms: list[str]) -> list[float]:
    """1, 0 or NaN for each finding."""
    if not terms or NOT_CODED in terms:
        return [np.nan] * len(FINDINGS)
    absent = np.nan if POOR_QUALITY in terms else 0.0
    stems = [[label.casefold() for label in labels] for labels in FINDINGS.values()]
    return [
        1.0 if any(term == stem or term.startswith(f"{stem}/") for term in terms for stem in labels) else absent
        for labels in stems
    ]
