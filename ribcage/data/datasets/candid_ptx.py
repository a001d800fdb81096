"""CANDID-PTX: 19,237 radiographs from New Zealand with masks of pneumothorax, rib fractures and chest tubes.

Feng et al. 2021, https://doi.org/10.1148/ryai.2021210136. Each row of a table contains an image and one mask, in the
run lengths of SIIM-ACR; -1 means that there is no pneumothorax. Rib fractures and chest tubes are only listed where
they were marked: in other images, they are unknown.
"""

import logging
from pathlib import Path
from typing import Any

import pandas as pd

from ribcage.data import splits
from ribcage.data.index import Index, index_table
from ribcage.data.masks import DrawnMask, mask_frame
from ribcage.data.readers import tables
from ribcage.data.readers.mask_cells import contradicted_images, named_mask_errors
from ribcage.imaging.mask_encodings import mask_of_pairs
from ribcage.runtime.spelling import count_phrase

CHINESE = "CANDID-PTX：新西兰的 19,237 张胸片，附气胸、肋骨骨折和胸腔引流管的掩膜"
SOURCE = "https://doi.org/10.17608/k6.auckland.14173982"
LICENCE = "CANDID-PTX data use agreement: research only, no redistribution"
TABLE = "Pneumothorax_reports.csv"
FINDINGS = ("Pneumothorax", "Fracture", "Support_Devices")
OTHERS = {
    "acute_rib_fracture.csv": ("Fracture", "Fracture"),
    "Rib_fracture_mask_rle.csv": ("Fracture", "Fracture"),
    "chest_tube.csv": ("Chest_Tube", "Support_Devices"),
}
"""Table → structure of its masks, and finding."""
log = logging.getLogger("ribcage")
ABOUT = ("StudyInstanceUID", "filename")
SIDE = 1024
"""Width and height of the images."""
NAMES = {"Pneumothorax": ("pneumothorax",), "Fracture": ("acute rib fracture",), "Support_Devices": ("chest tube",)}
"""Finding → its names in the tables."""


def index(root: Path, *, images: str = "") -> Index:
    """Read Pneumothorax_reports.csv and, if present, the tables of rib fractures and chest tubes, anywhere below root.

    images: Folder with the images below ROOT, if there are several.
    """
    paths = tables.files_below(root)
    found = tables.files_named(paths, TABLE)
    if not found:
        raise tables.missing_files(root, [TABLE], SOURCE)
    drawn = _rows(root / found[0], "SOPInstanceUID", "EncodedPixels", "Pneumothorax", "Pneumothorax")
    frame = tables.distinct_rows(drawn[["name", "study", "patient"]], "name", root / found[0])
    place = pd.Series(frame.index, index=frame["name"])
    others = {
        OTHERS[Path(name).name.removesuffix(".gz")]: name for name in reversed(tables.files_named(paths, *OTHERS))
    }
    for names, file in others.items():
        drawn = pd.concat([drawn, _rows(root / file, "anon_SOPUID", "mask_rle", *names)], ignore_index=True)
    known = drawn["name"].isin(place.index)
    if away := drawn.loc[~known, "name"].nunique():
        log.warning(
            "Masks of %s not in %s were ignored.", count_phrase(away, "image that is", "images that are"), TABLE
        )
    drawn = drawn[(drawn["cell"] != "") & known]
    drawn = drawn.assign(row=drawn["name"].map(place), present=(drawn["cell"] != "-1").astype("float32"))
    labels = drawn.groupby(["row", "finding"])["present"].max().unstack().reindex(frame.index, columns=list(FINDINGS))
    frame["path"] = _located(frame["name"], paths, images)
    frame["split"] = splits.assigned(frame["patient"], frame["path"])
    table = index_table(frame.drop(columns="name").join(labels), FINDINGS)
    return Index("candid_ptx", table, FINDINGS, root=root, masks=mask_frame(map(_mask, drawn.itertuples(index=False))))


def _rows(file: Path, name: str, cell: str, structure: str, finding: str) -> pd.DataFrame:
    """One row per mask: name of the image, cell with the run lengths ("" if unknown), structure, finding, study and
    patient."""
    about = [name for name in tables.header(file) if name in ABOUT] if structure != FINDINGS[0] else ABOUT
    rows = tables.without_repeats(tables.read_table(file, (name, cell), (), about), file).reset_index(drop=True)
    blank, cells = pd.Series("", rows.index, dtype="str"), rows[cell].str.strip()
    unlike = contradicted_images(rows[name], (cells != "-1").where(cells != ""), file)
    return pd.DataFrame(
        {
            "name": rows[name],
            "cell": cells.mask(rows[name].isin(unlike), ""),
            "structure": structure,
            "finding": finding,
            "study": rows.get("StudyInstanceUID", blank),
            "patient": rows.get("filename", blank).str.partition("_")[0],  # P0001_…
            "file": str(file),
        }
    )


def _located(names: pd.Series, paths: list[str], images: str) -> pd.Series:
    """Paths of the images, whose names may have no ending: dataset/1.2.276…"""
    below = images.strip("/") + "/" if images.strip("/.") else ""
    bare = {path.rpartition("/")[2]: path for path in reversed(paths) if path.startswith(below)}
    found = names.map(bare)
    found = found if found.notna().any() else tables.locate(names + ".dcm", paths, images)
    return found.fillna("dataset/" + names)


def _mask(one: Any) -> DrawnMask:
    """The mask in a row; one without pixels for -1."""
    with named_mask_errors(one.file, one.name):
        cell = "" if one.cell == "-1" else one.cell
        mask = mask_of_pairs(cell, SIDE, SIDE, relative=True, by_column=True)
    return DrawnMask(one.row, one.structure, mask)
