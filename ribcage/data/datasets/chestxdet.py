"""ChestX-Det: 3,578 radiographs from ChestX-ray14 with boxes and masks of 13 findings, drawn by three radiologists.

Lian et al. 2021, https://arxiv.org/abs/2104.10326. The images have new numbers, so their patients and their names in
ChestX-ray14 are unknown. The radiologists marked 13 findings in every image: a finding that is not listed for an image
is absent (0) and its mask is empty. Masks are drawn from the polygons in the annotation files.
"""

import logging
from pathlib import Path

import numpy as np
import pandas as pd

from ribcage.data import splits
from ribcage.data.findings import canonical, names_of
from ribcage.data.index import SIDES, Index, box_frame, index_table
from ribcage.data.masks import DrawnMask, mask_frame
from ribcage.data.readers import tables
from ribcage.data.readers.box_cells import box_sides
from ribcage.data.readers.image_folders import located_in_splits
from ribcage.data.readers.table_text import printable_text
from ribcage.imaging.mask import Mask
from ribcage.imaging.mask_encodings import mask_of_polygons
from ribcage.runtime import files

CHINESE = "ChestX-Det：取自 ChestX-ray14 的 3,578 张胸片，三名放射科医师绘制了 13 种征象的标注框和轮廓"
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
NAMES = names_of("chestxdet", LABELS)
"""Finding → its names in the tables."""


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
    frame = pd.DataFrame([(name, part) for part, name, *_ in entries], columns=["name", "split"], dtype="str")
    boxes = [(row, *box) for row, (_, _, drawn, _) in enumerate(entries) for box in drawn]
    outlined = [DrawnMask(row, *mask) for row, (*_, drawn) in enumerate(entries) for mask in drawn]
    masks = [mask for mask in outlined if isinstance(mask.mask, Mask) and mask.mask.area]
    if lost := len(outlined) - len(masks):
        log.warning("Polygons of ChestX-Det were ignored, because they contain no pixel of the image: %s.", f"{lost:,}")
    drawn = pd.DataFrame(boxes, columns=["row", "finding", *SIDES])
    for finding in FINDINGS:
        frame[finding] = frame.index.isin(drawn.loc[drawn["finding"] == finding, "row"])
    frame["path"] = located_in_splits(frame["name"], frame["split"], paths, images)
    log.warning("The patients of ChestX-Det are unknown: images of one person may be in several splits.")
    frame["split"] = splits.carve(frame["split"], pd.Series("", frame.index, dtype="str"), frame["path"])
    table = index_table(frame.drop(columns="name"), FINDINGS)
    masks += [
        DrawnMask(row, finding, Mask(*FRAME))
        for finding in FINDINGS
        for row in np.flatnonzero(table[finding] == 0).tolist()
    ]
    return Index("chestxdet", table, FINDINGS, box_frame(drawn), FRAME, root, masks=mask_frame(masks))


Entry = tuple[str, list[tuple[str, float, float, float, float]], list[tuple[str, Mask]]]


def _entries(file: Path) -> list[Entry]:
    """The file name, the boxes (finding, x, y, width, height) and the masks of each image in a list."""
    try:
        entries = [
            (
                str(entry["file_name"]),
                [
                    (canonical(finding, "chestxdet"), float(x), float(y), float(right - x), float(bottom - y))
                    for finding, (x, y, right, bottom) in zip(entry["syms"], entry["boxes"], strict=True)
                ],
                [
                    (canonical(finding, "chestxdet"), mask_of_polygons([np.asarray(points, np.float64)], *FRAME))
                    for finding, points in zip(entry["syms"], entry["polygons"], strict=True)
                ],
            )
            for entry in files.read_json(file)
        ]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        said = " ".join(str(error).split())[:200]
        raise ValueError(
            f"{file} is not a valid ChestX-Det annotation file ({type(error).__name__}: {said})."
        ) from None
    rows = [(name, *box) for name, drawn, _ in entries for box in drawn]
    boxes = pd.DataFrame(rows, columns=["name", "finding", *SIDES])
    sides = box_sides(boxes, SIDES, file, frame=FRAME, place=lambda row: f"image {printable_text(boxes['name'][row])}")
    kept = iter(sides.notna().all(axis=1).tolist())
    return [(name, [box for box in drawn if next(kept)], masks) for name, drawn, masks in entries]
