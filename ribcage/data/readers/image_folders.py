"""Folders of images: the image files, and the splits and classes that folders are named after."""

import logging
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from ribcage.data import findings
from ribcage.data.readers import columns, tables
from ribcage.data.readers.mask_folders import without_masks
from ribcage.data.readers.table_text import printable_text
from ribcage.runtime.spelling import count_phrase

log = logging.getLogger("ribcage")
MOST_CLASSES = 50
# Names of folders of patients, not of classes.
PATIENT_FOLDER = re.compile(r"(p|pat|patient|person|subject|case|id|s|病人|患者|病例)?[-_ ]?\d+", re.IGNORECASE)
# Names of folders without a meaning.
NEUTRAL = (
    *("data", "dataset", "datasets", "image", "images", "img", "imgs", "picture", "pictures", "图像", "图片"),
    *("png", "jpg", "jpeg", "dcm", "dicom", "dicoms"),
)
RASTER = tuple(ending for ending in tables.IMAGES if ending not in (".dcm", ".dicom"))
UNREAD = (".webp", ".gif", ".jp2", ".j2k", ".heic", ".avif", ".nii", ".nii.gz", ".nrrd", ".mha", ".npy")


def folder_rows(root: Path, paths: list[str], classes: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Splits and classes from folder names; a class 'normal' is a row without findings."""
    images = without_masks([path for path in paths if _is_image(root / path)])
    if not images:
        raise FileNotFoundError(f"{root} contains no images ({', '.join(tables.IMAGES)}) and no CSV file.")
    unread = Counter(ending for path in paths for ending in UNREAD if path.lower().endswith(ending))
    if unread:
        kinds = ", ".join(f"{count_phrase(count, 'file')} {ending}" for ending, count in unread.items())
        log.warning("Files that are not images were ignored: %s.", kinds)
    folders = [path.split("/")[:-1] for path in images]
    dealt = all(steps and steps[0].lower() in columns.SPLIT_WORDS for steps in folders)
    frame = pd.DataFrame({"path": pd.Series(images, dtype="str")})
    if dealt:
        frame["split"] = [columns.SPLIT_WORDS[steps[0].lower()] for steps in folders]
    inner = [[step for step in steps[dealt:] if step.lower() not in NEUTRAL] for steps in folders]
    views, inner = _without_views(inner)
    if views:
        frame["view"] = views
    if classes == "no" or (classes == "auto" and not _are_classes(inner, images)):
        return frame, pd.DataFrame(index=frame.index)
    if not all(inner):
        raise ValueError(f"{images[inner.index([])]} is not in a class folder. Move it, or pass --classes no.")
    return frame, columns.listed_labels(pd.Series(_named([steps[0] for steps in inner]), dtype="str"))


def _without_views(folders: list[list[str]]) -> tuple[list[str], list[list[str]]]:
    """The view of each image, if all are in folders with the names of views (PA, lateral), and the other folders; else
    no views."""
    for depth in range(min(map(len, folders))):
        names = sorted({steps[depth] for steps in folders})
        if all(columns.names_a_view(name) for name in names):
            log.warning("The folders %s were read as views, not as classes.", ", ".join(names))
            views = [columns.view_name(steps[depth]) for steps in folders]
            return views, [steps[:depth] + steps[depth + 1 :] for steps in folders]
    return [], folders


def located_in_splits(names: pd.Series, splits: pd.Series, paths: list[str], folder: str) -> pd.Series:
    """The path of the image with each name, in the folder of its split (train or train_data) if it is there.

    A name in the lists of several splits is never that of the image in the folder of another split. For a missing
    image, the path is that in the folder of its split.
    """
    found = pd.Series("", names.index, dtype="str")
    for split in splits.unique():
        own = names[splits == split]
        prefer = [rf"(^|/){split}(_data)?/"]
        found[own.index] = tables.locate(own, paths, folder, prefer).fillna(f"{split}/" + own)
    home = found.str.extract(r"(?:.*/|^)(train|val|test)(?:_data)?/", expand=False)
    other = found.duplicated(keep=False) & home.notna() & (home != splits)
    return found.mask(other, splits + "/" + names)


def report_other_folders(names: Sequence[str], found: Sequence[str], what: str) -> None:
    """Warn of files that were found by their names alone, in other folders than those in a table or list."""
    listed = [(name, path) for name, path in zip(names, found, strict=True) if name != path]
    apart = [(name, path) for name, path in listed if not _end_alike(name.replace("\\", "/"), path)]
    if apart:
        log.warning(
            "%s found in other folders than those in %s, such as %s for %s. Check that they are the same images.",
            count_phrase(len({*apart}), "file was", "files were"), what, *map(printable_text, reversed(apart[0])),
        )  # fmt: skip


def _end_alike(name: str, path: str) -> bool:
    """Whether the folders of one end with those of the other."""
    one, other = ([step for step in each.split("/")[:-1] if step not in ("", ".")] for each in (name, path))
    return all(a == b for a, b in zip(reversed(one), reversed(other), strict=False))


def _named(classes: list[str]) -> list[str]:
    """Class folders without their leading numbers, if all have one: '0_normal', '1_abnormal'."""
    bare = {name: columns.unnumbered(name) for name in set(classes)}
    new = {findings.plain_letters(name) for name in bare.values() if not findings.is_known_finding(name)}
    distinct = len(new) == sum(not findings.is_known_finding(name) for name in bare.values())
    return [bare[name] for name in classes] if distinct and all(a != b for a, b in bare.items()) else classes


def _are_classes(folders: list[list[str]], images: list[str]) -> bool:
    """Whether folder names look like classes; in doubtful cases a warning gives the reason why not."""
    names = sorted({steps[0] if steps else "" for steps in folders})
    if not all(names) or not 2 <= len(names) <= MOST_CLASSES:
        return False
    reasons = {
        "patient folders often have such names": any(PATIENT_FOLDER.fullmatch(name) for name in names),
        "some of them have the names of views": any(map(columns.names_a_view, names)),
        "they have DICOM files": any(may_be_dicom(path) for path in images),
        "they have subfolders": any(len(steps) > 1 for steps in folders),
    }
    against = [reason for reason, holds in reasons.items() if holds]
    if against:
        listed = ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
        log.warning(
            "The folders %s are not used as classes, because %s, so there are no labels. If they are classes, pass "
            "--classes yes.",
            listed,
            " and ".join(against),
        )
    return not against


def _is_image(file: Path) -> bool:
    """Whether a file is an image by its name; files without a telling name are checked for the DICOM magic bytes."""
    if file.name.lower().endswith(tables.IMAGES):
        return True
    if tables.SUFFIX.search(file.name) or not file.is_file():
        return False
    with file.open("rb") as stream:
        return stream.read(132)[128:] == b"DICM"


def may_be_dicom(path: str) -> bool:
    """Whether a file may be DICOM, whose tags have the patient: .dcm, or no usual ending."""
    return not path.lower().endswith(RASTER)
