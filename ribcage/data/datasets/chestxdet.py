"""ChestX-Det: 3,578 radiographs from ChestX-ray14 with boxes around 13 findings, drawn by three radiologists.

Lian et al. 2021, https://arxiv.org/abs/2104.10326. The images have new numbers, so their patients and their names in
ChestX-ray14 are unknown. The radiologists marked 13 findings in every image: a finding that is not listed for an image
is absent (0). The polygons of the findings are not read.
"""

import logging
from pathlib import Path

import pandas as pd

from ribcage.data import splits
from ribcage.data.findings import canonical
from ribcage.data.index import SIDES, Index, box_frame, index_table
from ribcage.data.readers import tables
from ribcage.runtime import files

CHINESE = "ChestX-Det：取自 ChestX-ray14 的 3,578 张胸片，三名放射科医师绘制了 13 种征象的标注框"
SOURCE = "https://github.com/Deepwise-AILab/ChestX-Det-Dataset"
LICENCE = "Apache-2.0 (annotations); images of the NIH Clinical Center"
FRAME = (1024, 1024)
LISTS = {"ChestX_Det_train.json": "train", "ChestX_Det_test.json": "test"}
LABELS = (
    "Atelectasis",
    "Calcification",
    "Cardiomegaly",
    "Consolidation",
    "Diffuse Nodule",
    "Effusion",
    "Emphysema",
    "Fibrosis",
    "Fracture",
    "Mass",
    "Nodule",
    "Pleural Thickening",
    "Pneumothorax",
)
FINDINGS = tuple(canonical(name, "chestxdet") for name in LABELS)
log = logging.getLogger("ribcage")


def index(root: Path, *, images: str = "") -> Index:
    """Read ChestX_Det_train.json and ChestX_Det_test.json, or one of them, anywhere below root.

    images: Folder with the images below ROOT, if there are several.
    """
    paths = tables.files_below(root)
    lists = {part: tables.files_named(paths, name) for name, part in LISTS.items()}
    if not any(lists.values()):
        raise tables.missing_files(root, [*LISTS], SOURCE)
    entries = [
        (part, *entry) for part, names in lists.items() for entry in (_entries(root / names[0]) if names else [])
    ]
    frame = pd.DataFrame([(name, part) for part, name, _ in entries], columns=["name", "split"], dtype="str")
    boxes = [(row, *box) for row, (_, _, drawn) in enumerate(entries) for box in drawn]
    drawn = pd.DataFrame(boxes, columns=["row", "finding", *SIDES])
    for finding in FINDINGS:
        frame[finding] = frame.index.isin(drawn.loc[drawn["finding"] == finding, "row"])
    frame["path"] = _located(frame, paths, images)
    log.warning("The patients of ChestX-Det are unknown: images of one person may be in several splits.")
    frame["split"] = splits.carve(frame["split"], pd.Series("", frame.index, dtype="str"), frame["path"])
    table = index_table(frame.drop(columns="name"), FINDINGS)
    return Index("chestxdet", table, FINDINGS, box_frame(drawn), FRAME, root)


def _located(frame: pd.DataFrame, paths: list[str], images: str) -> pd.Series:
    """Paths of the images, which are in a folder 'train' or 'train_data', and 'test' or 'test_data'."""
    found = pd.Series("", frame.index, dtype="str")
    for part in LISTS.values():
        names = frame.loc[frame["split"] == part, "name"]
        found[names.index] = tables.locate(names, paths, images, (rf"(^|/){part}(_data)?/",)).fillna(f"{part}/" + names)
    return found


def _entries(file: Path) -> list[tuple[str, list[tuple[str, float, float, float, float]]]]:
    """The file name and the boxes (finding, x, y, width, height) of each image in a list."""
    try:
        return [
            (
                str(entry["file_name"]),
                [
                    (canonical(finding, "chestxdet"), float(x), float(y), float(right - x), float(bottom - y))
                    for finding, (x, y, right, bottom) in zip(entry["syms"], entry["boxes"], strict=True)
                ],
            )
            for entry in files.read_json(file)
        ]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        said = " ".join(str(error).split())[:200]
        raise ValueError(
            f"{file} is not a valid ChestX-Det annotation file ({type(error).__name__}: {said})."
        ) from None
