"""VinDr-CXR: 18,000 PA radiographs with 28 labels and boxes; three radiologists labelled each training image.

Nguyen et al. 2022, https://doi.org/10.1038/s41597-022-01498-w. The 3,000 test images have labels by consensus of five
radiologists. The VinBigData challenge on Kaggle has the training images alone, with 15 of the labels.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from ribcage.data import splits
from ribcage.data.contradictions import without_contradictions
from ribcage.data.findings import canonical, names_of, plain_letters
from ribcage.data.index import SIDES, Index, box_frame, index_table
from ribcage.data.reader_policy import majority_labels
from ribcage.data.readers import coded_columns, tables
from ribcage.data.readers.box_cells import box_sides
from ribcage.data.readers.table_text import cell_error, printable_text
from ribcage.data.readings import reading_frame
from ribcage.runtime.spelling import count_phrase

log = logging.getLogger("ribcage")

CHINESE = "VinDr-CXR：18,000 张后前位胸片，28 种标签和标注框；其中 15,000 张各由三名放射科医生独立标注"
SOURCE = "https://physionet.org/content/vindr-cxr/"
LICENCE = "PhysioNet Credentialed Health Data License 1.5.0 (on Kaggle: competition rules, non-commercial)"
SPLITS = ("train", "test")
LABELS, BOXES, CHALLENGE = "image_labels_{}.csv", "annotations_{}.csv", "train.csv"
CORNERS = ("x_min", "y_min", "x_max", "y_max")
READER = "rad_id"
CHALLENGE_NAMES = ("Aortic enlargement", "Atelectasis", "Calcification", "Cardiomegaly", "Consolidation", "ILD",
                   "Infiltration", "Lung Opacity", "Nodule/Mass", "Other lesion", "Pleural effusion",
                   "Pleural thickening", "Pneumothorax", "Pulmonary fibrosis", "No finding")  # fmt: skip
PREFERRED = (r"(^|/)(train|test)/", r"\.(dicom|dcm)$")
WORDS = (
    "Aortic enlargement", "Atelectasis", "Calcification", "Cardiomegaly", "Clavicle fracture", "Consolidation", "Edema",
    "Emphysema", "Enlarged PA", "ILD", "Infiltration", "Lung Opacity", "Lung cavity", "Lung cyst", "Mediastinal shift",
    "Nodule/Mass", "Pleural effusion", "Pleural thickening", "Pneumothorax", "Pulmonary fibrosis", "Rib fracture",
    "Other lesion", "COPD", "Lung tumor", "Pneumonia", "Tuberculosis", "Other diseases", "No finding",
)  # fmt: skip
"""The labels of the tables of PhysioNet."""
NAMES = names_of("vindr", WORDS)
"""Finding → its names in the tables."""


def index(root: Path, *, images: str = "") -> Index:
    """Read the tables of PhysioNet (image_labels_*.csv and annotations_*.csv) or of Kaggle (train.csv) below root.

    images: Folder with the images below ROOT, if there are several.
    """
    paths = tables.files_below(root)
    files = {name: tables.files_named(paths, name) for name in (*_names(), CHALLENGE)}
    there = [split for split in SPLITS if files[LABELS.format(split)]]
    missing = [BOXES.format(split) for split in there if not files[BOXES.format(split)]]
    refuse_children(root, files[LABELS.format("train")] + files[LABELS.format("test")])
    if missing or not (there or files[CHALLENGE]):
        raise tables.missing_files(root, missing or [f"{', '.join(_names())} (or {CHALLENGE})"], SOURCE)
    if there:
        pairs = [(root / files[LABELS.format(split)][0], root / files[BOXES.format(split)][0]) for split in there]
        labels, boxes = labels_and_boxes(pairs, there)
    else:
        boxes = reader_boxes(root / files[CHALLENGE][0])
        labels = _challenge_labels(boxes)
    return index_of_readers(root, labels, boxes, paths, images)


def labels_and_boxes(
    files: Sequence[tuple[Path, Path]], parts: Sequence[str], dataset: str = "vindr", words: Sequence[str] = WORDS
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The labels and boxes of all splits, from the table of labels and the table of boxes of each split.

    words: Names of the findings in the tables of labels.
    """
    labels, boxes = [], []
    for (own, drawn), split in zip(files, parts, strict=True):
        labels.append(reader_labels(own, split, dataset, words))
        boxes.append(reader_boxes(drawn, dataset))
        _check_readers(labels[-1], boxes[-1], drawn, own.name)
    found = pd.concat(labels, ignore_index=True)
    tables.distinct_rows(found[["image_id", "split"]], "image_id", files[0][0].parent)
    return found, pd.concat(boxes, ignore_index=True)


def _check_readers(labels: pd.DataFrame, boxes: pd.DataFrame, file: Path, other: str) -> None:
    """Raise if a box is of a reader who gave no labels of its image."""
    own = pd.MultiIndex.from_frame(labels[["image_id", "reader"]])
    strange = ~pd.MultiIndex.from_frame(boxes[["image_id", "reader"]]).isin(own)
    strange &= boxes["image_id"].isin(labels["image_id"]).to_numpy()
    if strange.any():
        at = int(strange.argmax())
        raise cell_error(
            file, int(boxes.index[at]), READER, boxes["reader"].iloc[at],
            f"a reader who labelled the same image in {other}",
        )  # fmt: skip


def index_of_readers(
    root: Path, labels: pd.DataFrame, boxes: pd.DataFrame, paths: list[str], images: str, *, name: str = "vindr"
) -> Index:
    """The index, from the labels and boxes of each reader."""
    labels, boxes = labels.reset_index(drop=True), boxes.dropna(subset=list(SIDES))
    findings = tuple(name for name in labels if name not in ("image_id", "reader", "split"))
    labels = without_contradictions(labels, findings, "reading")  # before the majority
    frame = labels.drop_duplicates("image_id", ignore_index=True)
    names, read = frame["image_id"], labels["reader"] != ""
    row = pd.Series(names.index, index=names)
    found = tables.locate(names, paths, images, PREFERRED)
    frame["path"] = found.fillna(frame["split"].replace("", "train") + "/" + names + ".dicom")
    frame["patient"] = frame["study"] = names
    frame["view"] = "PA" if name == "vindr" else ""
    readings = labels[read].assign(row=labels.loc[read, "image_id"].map(row))
    majority = majority_labels(readings, findings, len(frame))
    frame[list(findings)] = np.where((frame["reader"] != "").to_numpy()[:, None], majority, frame[list(findings)])
    if (frame["split"] == "").all():
        frame["split"] = splits.assigned(frame["patient"], frame["path"])
    else:
        frame["split"] = splits.carve(frame["split"], frame["patient"], frame["path"])
    drawn = boxes[boxes["image_id"].isin(names)]
    if away := boxes["image_id"].nunique() - drawn["image_id"].nunique():
        log.warning("Boxes of %s without labels were ignored.", count_phrase(away, "image"))
    drawn = drawn.assign(row=drawn["image_id"].map(row))
    _warn(found, {"vindr": "VinDr-CXR", "vindr_pcxr": "VinDr-PCXR"}[name])
    table = index_table(frame.drop(columns=["image_id", "reader"]), findings)
    return Index(name, table, findings, box_frame(drawn), None, root, reading_frame(readings, findings))


def reader_labels(file: Path, split: str, dataset: str, words: Sequence[str]) -> pd.DataFrame:
    """One row per image and reader: image_id, reader ("" for the consensus), the findings, split."""
    columns = tables.header(file)
    named = [name for name in columns if name.lower() not in ("image_id", READER)]
    if "image_id" in columns:  # else the next line reports it
        _check_names(named, dataset, words, file)
    rows = tables.read_table(file, ("image_id", *named), (), _reader(columns), labels=named)
    rows = tables.one_row_each(rows, ["image_id", *_reader(columns)], file)
    # train has 'Other diseases' and test 'Other disease'; clavicle and rib fractures are one finding
    findings = rows[named].rename(columns={name: canonical(name, dataset) for name in named})
    merged = {name: findings[[name]].max(axis=1) for name in dict.fromkeys(findings)}
    return pd.DataFrame({"image_id": rows["image_id"], "reader": _readers(rows), **merged, "split": split})


def reader_boxes(file: Path, dataset: str = "vindr") -> pd.DataFrame:
    """One row per box: image_id, reader, finding, x, y, width and height, which are unknown for 'No finding'."""
    rows = tables.read_table(file, ("image_id", "class_name", *CORNERS), CORNERS, _reader(tables.header(file)))
    rows = tables.without_repeats(rows, file)
    sides = box_sides(rows, CORNERS, file, corners=True)
    rows = rows.assign(
        reader=_readers(rows), finding=coded_columns.named_findings(rows["class_name"], dataset, file), **sides
    )
    nothing = rows["finding"] == "No_Finding"
    drawn = rows["width"].notna()
    if odd := int((nothing & drawn).sum()):
        log.warning("Boxes of the class 'No finding' in %s were ignored: %s.", file, f"{odd:,}")
        rows.loc[nothing, list(SIDES)] = np.nan
    if odd := int((~nothing & ~drawn).sum()):
        log.warning("Findings without a box in %s: %s.", file, f"{odd:,}")
    return rows


def _challenge_labels(rows: pd.DataFrame) -> pd.DataFrame:
    """Each reader's labels: a finding is absent if the reader, who looked for all 14, gave no row for it."""
    findings = [canonical(name, "vindr") for name in CHALLENGE_NAMES]
    pairs = rows[["image_id", "reader"]].drop_duplicates(ignore_index=True)
    keys = pd.MultiIndex.from_frame(pairs)
    labels = np.zeros((len(pairs), len(findings)), np.float32)
    labels[keys.get_indexer(pd.MultiIndex.from_frame(rows[["image_id", "reader"]])),
           pd.Index(findings).get_indexer(rows["finding"])] = 1  # fmt: skip
    return pd.concat([pairs, pd.DataFrame(labels, columns=findings)], axis=1).assign(split="")


def _check_names(columns: Sequence[str], dataset: str, words: Sequence[str], file: Path) -> None:
    """Raise if a column is not a finding; warn if a finding has no column."""
    for name in columns:
        try:
            canonical(name, dataset)
        except ValueError:
            said = printable_text(name)
            raise ValueError(f"{file} has the column {said!r}, which is not a finding of {dataset}.") from None
    there = {plain_letters(name).rstrip("s") for name in columns}  # 'Other disease' in one of the tables
    missing = [name for name in words if plain_letters(name).rstrip("s") not in there]
    if missing:
        log.warning("%s has no column %s; labels are unknown.", file, " and no column ".join(map(repr, missing)))


def refuse_children(root: Path, tables_of_labels: list[str]) -> None:
    """ValueError if the tables are those of VinDr-PCXR, which have the same names but other labels."""
    for path in tables_of_labels:
        if "Bronchiolitis" in tables.header(root / path):
            raise ValueError(f"{root / path} is a table of VinDr-PCXR. Import it with 'ribcage import vindr_pcxr'.")


def _names() -> list[str]:
    return [name.format(split) for split in SPLITS for name in (LABELS, BOXES)]


def _reader(columns: list[str]) -> list[str]:
    """The column of readers, whose spelling differs between the tables; none if there is a consensus."""
    return [name for name in columns if name.lower() == READER]


def _readers(rows: pd.DataFrame) -> pd.Series:
    found = _reader(list(rows))
    return rows[found[0]].str.strip() if found else pd.Series("", rows.index, dtype="str")


def _warn(found: pd.Series, title: str) -> None:
    log.warning(
        "%s has no patient identifiers: each image counts as a different patient, and images of the same "
        "person may be in several splits.",
        title,
    )
    if count := int((~found.dropna().str.lower().str.endswith((".dicom", ".dcm"))).sum()):
        log.warning(
            "%s images are not DICOM files. The boxes are in pixels of the published DICOM files and are wrong for "
            "images of another size.",
            f"{count:,}",
        )
