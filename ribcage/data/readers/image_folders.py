"""Folders of images without a table: which files are images, and which splits and classes the folders name."""

import logging
import re
from collections import Counter
from pathlib import Path

import pandas as pd

from ribcage.data import findings
from ribcage.data.readers import columns, tables

log = logging.getLogger("ribcage")
MOST_CLASSES = 50
# folders called so hold patients, not classes
PATIENT_FOLDER = re.compile(r"(p|pat|patient|person|subject|case|id|s|病人|患者|病例)?[-_ ]?\d+", re.IGNORECASE)
# folders called so say nothing of what they hold
NEUTRAL = (
    *("data", "dataset", "datasets", "image", "images", "img", "imgs", "picture", "pictures", "图像", "图片"),
    *("png", "jpg", "jpeg", "dcm", "dicom", "dicoms"),
)
MASKS = (
    *("mask", "masks", "leftmask", "rightmask", "manualmask", "seg", "segs", "segmentation", "segmentations"),
    *("annotation", "annotations"),
)
RASTER = tuple(ending for ending in tables.IMAGES if ending not in (".dcm", ".dicom"))
UNREAD = (".webp", ".gif", ".jp2", ".j2k", ".heic", ".avif", ".nii", ".nii.gz", ".nrrd", ".mha", ".npy")


def folder_rows(root: Path, paths: list[str], classes: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What the folders say: splits, then classes; a class 'normal' is the row without findings."""
    images = _without_masks([path for path in paths if _is_image(root / path)])
    if not images:
        raise FileNotFoundError(f"{root} holds no images ({', '.join(tables.IMAGES)}) and no CSV.")
    unread = Counter(ending for path in paths for ending in UNREAD if path.lower().endswith(ending))
    if unread:
        log.warning("Left out: %s.", ", ".join(f"{count:,} files {ending}" for ending, count in unread.items()))
    folders = [path.split("/")[:-1] for path in images]
    dealt = all(steps and steps[0].lower() in columns.SPLIT_WORDS for steps in folders)
    frame = pd.DataFrame({"path": pd.Series(images, dtype="str")})
    if dealt:
        frame["split"] = [columns.SPLIT_WORDS[steps[0].lower()] for steps in folders]
    inner = [[step for step in steps[dealt:] if step.lower() not in NEUTRAL] for steps in folders]
    if classes == "no" or (classes == "auto" and not _are_classes(inner, images)):
        return frame, pd.DataFrame(index=frame.index)
    if not all(inner):
        raise ValueError(f"{images[inner.index([])]} is not in a class folder. Move it, or pass --classes no.")
    return frame, columns.listed_labels(pd.Series(_named([steps[0] for steps in inner]), dtype="str"))


def _named(classes: list[str]) -> list[str]:
    """Class folders without the numbers that put them in order, where all have one: '0_normal', '1_abnormal'."""
    bare = {name: columns.unnumbered(name) for name in set(classes)}
    new = {findings.plain_letters(name) for name in bare.values() if not findings.is_known_finding(name)}
    distinct = len(new) == sum(not findings.is_known_finding(name) for name in bare.values())
    return [bare[name] for name in classes] if distinct and all(a != b for a, b in bare.items()) else classes


def _without_masks(images: list[str]) -> list[str]:
    """Without those in folders for masks, which are drawings and not radiographs."""
    kept = [path for path in images if not any(step.lower() in MASKS for step in path.split("/")[:-1])]
    if len(kept) < len(images):
        log.warning("Left out: %s images in folders called mask or the like.", f"{len(images) - len(kept):,}")
    return kept


def _are_classes(folders: list[list[str]], images: list[str]) -> bool:
    """Whether folder names look like classes; where one may think they do, it is said why they are none."""
    names = sorted({steps[0] if steps else "" for steps in folders})
    if not all(names) or not 2 <= len(names) <= MOST_CLASSES:
        return False
    reasons = {
        "patients are often called so": any(PATIENT_FOLDER.fullmatch(name) for name in names),
        "they hold DICOM files": any(may_be_dicom(path) for path in images),
        "they hold further folders": any(len(steps) > 1 for steps in folders),
    }
    against = [reason for reason, holds in reasons.items() if holds]
    if against:
        listed = ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
        log.warning(
            "The folders %s are not used as classes, since %s: no labels. To use them, pass --classes yes.",
            listed,
            " and ".join(against),
        )
    return not against


def _is_image(file: Path) -> bool:
    """By its name; DICOM files often have none that tells, so those are asked for their mark."""
    if file.name.lower().endswith(tables.IMAGES):
        return True
    if tables.SUFFIX.search(file.name) or not file.is_file():
        return False
    with file.open("rb") as stream:
        return stream.read(132)[128:] == b"DICM"


def may_be_dicom(path: str) -> bool:
    """Whether a file's tags may know the patient: DICOM files are called .dcm, or anything."""
    return not path.lower().endswith(RASTER)
