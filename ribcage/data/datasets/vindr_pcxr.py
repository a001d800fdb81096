"""VinDr-PCXR: 9,125 radiographs of children under 10 years, each labelled by a radiologist; 15 diseases, 36 findings.

Pham et al. 2022, https://doi.org/10.13026/k8qc-na36. The diseases are labels of images; the findings are boxes. A
finding without a box is absent, as the radiologist looked for all of them.
"""

from pathlib import Path

import pandas as pd

from ribcage.data.datasets.vindr import BOXES, LABELS, SPLITS, index_of_readers, labels_and_boxes
from ribcage.data.findings import canonical, names_of
from ribcage.data.index import Index
from ribcage.data.readers import tables

CHINESE = "VinDr-PCXR：9,125 张 10 岁以下儿童胸片，各由一名放射科医生标注；15 种疾病，36 种征象（标注框）"
SOURCE = "https://physionet.org/content/vindr-pcxr/"
LICENCE = "PhysioNet Credentialed Health Data License 1.5.0"
LOCAL = (
    "Boot-shaped heart", "Peribronchovascular interstitial opacity", "Reticulonodular opacity", "Bronchial thickening",
    "Enlarged PA", "Cardiomegaly", "Diffuse aveolar opacity", "Other opacity", "Other lesion", "Consolidation",
    "Mediastinal shift", "Anterior mediastinal mass", "Dextro cardia", "Pleural effusion", "Stomach on the right side",
    "Atelectasis", "Lung hyperinflation", "Egg on string sign", "Interstitial lung disease - ILD", "Infiltration",
    "Lung cavity", "Pneumothorax", "Edema", "Pleural thickening", "Other nodule/mass", "Clavicle fracture",
    "Chest wall mass", "Lung cyst", "Emphysema", "Bronchectasis", "Expanded edges of the anterior ribs",
    "Pulmonary fibrosis", "Paraveterbral mass", "Aortic enlargement", "Calcification",
    "Intrathoracic digestive structure",
)  # fmt: skip
"""The findings that were drawn as boxes, as they are spelt in the tables."""
DISEASES = (
    "No finding", "Bronchitis", "Brocho-pneumonia", "Other disease", "Bronchiolitis", "Situs inversus", "Pneumonia",
    "Pleuro-pneumonia", "Diagphramatic hernia", "Tuberculosis", "Congenital emphysema", "CPAM",
    "Hyaline membrane disease", "Mediastinal tumor", "Lung tumor",
)  # fmt: skip
NAMES = names_of("vindr_pcxr", (*DISEASES, *LOCAL))
"""Finding → its names in the tables."""


def index(root: Path, *, images: str = "") -> Index:
    """Read image_labels_train.csv, annotations_train.csv and those of the test images, anywhere below root.

    images: Folder with the images below ROOT, if there are several.
    """
    paths = tables.files_below(root)
    names = [(LABELS.format(split), BOXES.format(split)) for split in SPLITS]
    found = {name: tables.files_named(paths, name) for pair in names for name in pair}
    there = [split for split in SPLITS if found[LABELS.format(split)] or found[BOXES.format(split)]]
    wanted = [name for split in there or SPLITS for name in (LABELS.format(split), BOXES.format(split))]
    missing = [name for name in wanted if not found[name]]
    if missing:
        raise tables.missing_files(root, missing, SOURCE)
    files = [(root / found[LABELS.format(split)][0], root / found[BOXES.format(split)][0]) for split in there]
    labels, boxes = labels_and_boxes(files, there, "vindr_pcxr", DISEASES)
    return index_of_readers(root, _with_findings(labels, boxes), boxes, paths, images, name="vindr_pcxr")


def _with_findings(labels: pd.DataFrame, boxes: pd.DataFrame) -> pd.DataFrame:
    """The labels of each reader, with a column for each finding that was drawn as boxes."""
    own = pd.MultiIndex.from_frame(labels[["image_id", "reader"]])
    seen = boxes.dropna(subset="width")
    added = {}
    for name in (canonical(word, "vindr_pcxr") for word in LOCAL):
        with_box = seen[seen["finding"] == name]
        added[name] = own.isin(pd.MultiIndex.from_frame(with_box[["image_id", "reader"]])).astype("float32")
    return labels.assign(**added)
