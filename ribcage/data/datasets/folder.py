"""Your own images: a CSV with named columns, class folders, or a plain or nested folder of PNG, JPEG or DICOM files.

Patient, view, sex and age that no table tells stay empty here; of DICOM files they are read from the tags at import.
"""

import logging
import os
import posixpath
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from ribcage.data import findings, splits
from ribcage.data.index import LONGEST, Index, index_table, no_boxes, reserved
from ribcage.data.index import box_frame as boxes_of
from ribcage.data.readers import box_list, columns, tables
from ribcage.imaging import image_file
from ribcage.runtime import terminal

CHINESE = "自己的图像：列名清楚的 CSV、按类别分的文件夹，或任意层级的 PNG、JPEG、DICOM 文件夹"
SOURCE = "your own files"
LICENCE = "yours"
PUBLISHED_PATIENTS = False
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

log = logging.getLogger("ribcage")


def index(
    root: Path,
    *,
    csv: str = "",
    boxes: str = "",
    path_column: str = "",
    patient_column: str = "",
    study_column: str = "",
    view_column: str = "",
    split_column: str = "",
    sex_column: str = "",
    age_column: str = "",
    label_columns: tuple[str, ...] = (),
    patient_pattern: str = "",
    classes: Literal["auto", "yes", "no"] = "auto",
    conflicts: Literal["stop", "first", "drop", "merge"] = "stop",
    slices: Literal["drop", "keep"] = "drop",
    allow_outside: bool = False,
    published_patients: bool = False,
    encoding: str = "auto",
    bits: int = 0,
) -> Index:
    """Read the CSV in root, or the names of its folders when there is none.

    csv: The table below root, when root holds several (none: do not read any).
    boxes: A table below root of drawn boxes, in pixels of the files: file, finding, x, y, width, height, or x_min …
    path_column: The column with the image files; like the next six it is guessed by its name ("none": not there).
    patient_column: The column with the patient.
    study_column: The column with the study.
    view_column: The column with the view.
    split_column: The column with train, val, test.
    sex_column: The column with the sex.
    age_column: The column with the age.
    label_columns: The columns with labels; else all named after findings, or one with lists such as Effusion|Mass.
    patient_pattern: A regular expression whose group finds the patient in the path, such as (person\\d+)_.
    classes: Whether folder names are classes; auto: when all images lie in a few folders side by side.
    conflicts: Images that several rows describe differently: stop, keep the first row, drop them, or merge labels.
    slices: What to do with slices of CT or MR, as far as the table tells them (view Axial, modality CT).
    allow_outside: Read files that lie outside root, too, whether the table or a link leads there.
    published_patients: The patients' numbers are published with the images: bundles hash them without the site's key.
    encoding: Of the CSV; auto tries UTF-8, GB 18030 and Latin-1.
    bits: How many bits of 16-bit PNG and TIFF files are used, such as 12 (0: all 16); white is the highest value.
    """
    if bits and not 8 <= bits <= 16:
        raise ValueError(f"--bits is 8 to 16, not {bits}.")
    root, csv = (root.parent, root.name) if root.is_file() else (root, csv)
    drawn = _within(root, boxes) if boxes else None
    file = _csv(root, csv, drawn)
    if file is None:
        (frame, found), header = _folders(root, tables.files_below(root), classes), []
    else:
        given = {"path": path_column, "patient": patient_column, "study": study_column, "view": view_column}
        given |= {"split": split_column, "sex": sex_column, "age": age_column}
        rows = tables.sniffed(file, encoding)
        header = list(rows.columns)
        if slices == "drop":
            rows = _without_slices(rows, columns.roles(header, given).get("view", ""))
        frame, found = _rows(rows, root, given, label_columns, conflicts)
    if not allow_outside:
        _check_inside(frame["path"], root)
    if patient_pattern and "patient" not in frame:
        frame["patient"] = _patients(frame["path"], patient_pattern)
    if "patient" not in frame and not frame["path"].map(_maybe_dicom).any():
        log.warning(
            "Patients are unknown: images of one patient may be in several splits. %s%s",
            _proposed(frame["path"].tolist())
            or "Name the column by --patient-column, or find patients in paths by --patient-pattern.",
            f" {columns.among(header)}" if header else "",
        )
    frame["split"] = _split(frame)
    found, placed = _with_boxes(found, frame["path"], drawn, encoding) if drawn else (found, no_boxes())
    names = tuple(str(name) for name in found.columns)
    _check_names(names)
    return Index(_name(root), index_table(frame.join(found), names), names, placed, root=root)


def images(
    index: Index, *, bits: int = 0, size: int | None = None, depth: Literal[8, 16] = 8, window: str = ""
) -> Callable[[int], image_file.GrayImage] | None:
    """Row → image, where `bits` says how to read it; else each row is a file like any other."""
    how: Any = {"depth": depth, "min_side": size, "bits": bits, "window": window}
    return (lambda row: image_file.read_image(index.file(row), **how)) if bits else None


def _name(root: Path) -> str:
    """What the folder is called, as name space of its patients: '7' of two hospitals are two people."""
    folder = root.absolute()
    named = (each.name for each in (folder, *folder.parents) if each.name.lower() not in ("", *NEUTRAL))
    return terminal.plain_line(next(named, "folder"))[:LONGEST]


def _check_names(names: tuple[str, ...]) -> None:
    """Refuse findings called like columns of ours; say which are not in the vocabulary."""
    if reserved(names):
        raise ValueError(
            f"No finding can be called {', '.join(reserved(names))}: Ribcage has a column of that name. "
            "Rename the column or the class, or choose with --label-columns or --classes no."
        )
    new = [name for name in names if name not in findings.FINDINGS]
    if new:
        said = [
            f"{name} (did you mean {meant}?)" if (meant := findings.closest_finding(name)) else name
            for name in new[:20]
        ]
        log.warning("New findings outside the vocabulary: %s.", ", ".join(said) + (", …" if len(new) > 20 else ""))


def _csv(root: Path, csv: str, other: Path | None) -> Path | None:
    """The table to read, if any; not the other one."""
    if csv == "none":
        return None
    if csv:
        return _within(root, csv)
    found = [path for path in tables.files_below(root, depth=0) if path.lower().endswith((".csv", ".tsv", ".csv.gz"))]
    found = [path for path in found if root / path != other]
    if len(found) > 1:
        raise ValueError(
            f"{root} holds {', '.join(found)}. Choose one with --csv, or none with --csv none; "
            "a list of boxes goes to --boxes."
        )
    return root / found[0] if found else None


def _within(root: Path, csv: str) -> Path:
    """A table that must be there."""
    file = root / Path(csv).expanduser()
    if not file.is_file():
        raise FileNotFoundError(f"There is no table {file}.")
    return file


def _with_boxes(found: pd.DataFrame, paths: pd.Series, file: Path, encoding: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The labels, and the boxes by their rows.

    A finding that only boxes tell of is there where one is drawn, is not where the list names the image for something
    else or for nothing, and is unknown of images that the list does not name.
    """
    listed = box_list.read_boxes(file, encoding)
    place = pd.Series(paths.index, index=paths)
    listed["row"] = [place.get(path, -1) for path in tables.matched_files(listed["path"].tolist(), paths.tolist())[0]]
    away = listed["row"] < 0
    if away.all():
        raise ValueError(f"{file} names no image of this dataset: its first one is {listed['path'].iloc[0]!r}.")
    if away.any():
        count, first = listed["path"][away].nunique(), listed["path"][away].iloc[0]
        log.warning("Left out: the boxes of %s images that are not there, such as %s.", f"{count:,}", first)
    listed = listed[~away]
    drawn = listed[listed["finding"] != ""]
    new = [name for name in drawn["finding"].unique() if name not in found]
    told = pd.Series(np.nan, found.index, dtype="float32").where(~found.index.isin(listed["row"]), 0)
    found = found.assign(
        **{name: told.where(~told.index.isin(drawn["row"][drawn["finding"] == name]), 1) for name in new}
    )
    against = [name for name in found if (found[name][drawn["row"][drawn["finding"] == name]] == 0).any()]
    if against:
        log.warning("Images have boxes of findings that their labels call absent: %s.", ", ".join(map(str, against)))
    return found, boxes_of(drawn)


def _rows(
    rows: pd.DataFrame, root: Path, given: dict[str, str], label_columns: tuple[str, ...], conflicts: str
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What the rows of a CSV say, and their labels; columns of other things are kept as they are."""
    header = list(rows.columns)
    role = columns.roles(header, given)
    if "path" not in role:
        raise ValueError(f"No column looks like an image's file. Name it with --path-column. {columns.among(header)}")
    rows = _with_image(rows, role["path"]).drop_duplicates()
    chosen = columns.label_columns(header, list(role.values()), label_columns)
    found = columns.labels(rows, chosen)
    if not chosen:
        log.warning(
            "No labels: no column has the name of a finding. Name columns with --label-columns. %s",
            columns.among(header),
        )
    text = {name: rows[column].str.strip() for name, column in role.items()}
    text["path"] = _located(text["path"], root)
    meaning = {
        "view": columns.views,
        "sex": lambda column: tables.translated(column, tables.SEX),
        "split": lambda column: columns.splits(column, role["split"]),
        "age": tables.years,
    }
    frame = pd.DataFrame({name: meaning.get(name, lambda column: column)(column) for name, column in text.items()})
    others = [name for name in header if name and name not in (*role.values(), *chosen)]
    frame, found = _one_row_each(frame, found, rows[others], conflicts)
    frame = frame.join(rows[others].rename(columns=_apart(others, list(found.columns))))
    return frame.reset_index(drop=True), found.reset_index(drop=True)


def _one_row_each(
    frame: pd.DataFrame, found: pd.DataFrame, others: pd.DataFrame, conflicts: str
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """One row per image. Rows that differ in columns which mean nothing to us are no conflict: the first one stays."""
    twice = frame["path"].duplicated(keep=False)
    if not twice.any():
        return frame, found
    known = frame.drop(columns="path").join(found.add_prefix("label "))[twice]
    apart = known.groupby(frame["path"][twice]).nunique(dropna=False) > 1  # (images, columns)
    differing = {str(name): int(count) for name, count in apart.sum().items() if count}
    first = ~frame["path"].duplicated()
    if not differing and not box_list.has_boxes(list(others.columns)):
        log.warning(
            "Kept the first of several rows of %s images: they differ in other columns only.", f"{len(apart):,}"
        )
        return frame[first], found[first]
    by = apart[apart.any(axis=1)]
    said = ", ".join(f"{count:,} in {name}" for name, count in differing.items()) or "in other columns only"
    stands = f"{len(by) or len(apart):,} images stand in several rows that differ ({said}), such as "
    stands += ", ".join(tables.printable_text(path) for path in list((by if len(by) else apart).index)[:5])
    labels_only = all(name.startswith("label ") for name in differing)
    if conflicts == "stop" or (conflicts == "merge" and not labels_only):
        ways = "--conflicts drop leaves them out, first keeps the first row"
        ways += ", merge joins their labels" if labels_only and differing else ""
        boxes = " If the rows are boxes drawn on images, say --boxes FILE." * box_list.has_boxes(list(others.columns))
        raise ValueError(f"{stands}. {ways}.{boxes}")
    log.warning(
        "%s: %s.", stands, {"first": "the first row is kept", "drop": "left out", "merge": "labels joined"}[conflicts]
    )
    if conflicts == "drop":
        kept = first & ~frame["path"].isin(by.index)
        return frame[kept], found[kept]
    if conflicts == "merge":
        # of what rows say of one image: present, else uncertain, else absent, else nothing
        order = found.replace({1.0: 3.0, -1.0: 2.0, 0.0: 1.0}).groupby(frame["path"]).transform("max")
        found = order.replace({3.0: 1.0, 2.0: -1.0, 1.0: 0.0}).astype("float32")
    return frame[first], found[first]


def _without_slices(rows: pd.DataFrame, view: str) -> pd.DataFrame:
    """The rows of radiographs, as far as the words of view and modality tell."""
    slices = columns.are_slices(rows, view)
    if slices.all() and len(rows):
        raise ValueError("All rows are slices of CT or MR by their view or modality. To read them, pass --slices keep.")
    if slices.any():
        log.warning(
            "Left out: %s slices of CT or MR (by view or modality); --slices keep reads them.", f"{slices.sum():,}"
        )
    return rows[~slices]


def _check_inside(paths: pd.Series, root: Path) -> None:
    """Raise where a table or a link leads out of root: a stranger's archive could show any file of this machine."""
    base, homes = os.path.realpath(root), dict[str, bool]()

    def inside(path: str) -> bool:
        home, name = posixpath.split(path)
        if home not in homes:
            folder = os.path.realpath(posixpath.join(base, home))
            homes[home] = folder == base or folder.startswith(base.rstrip("/") + os.sep)
        place = posixpath.join(base, path)
        link = homes[home] and name not in ("", "..") and os.path.islink(place)  # noqa: PTH114
        return os.path.realpath(place).startswith(base.rstrip("/") + os.sep) if link else homes[home] and name != ".."

    outside = [path for path in paths if not inside(path)]
    if outside:
        first = ", ".join(tables.printable_text(path) for path in outside[:3]) + (", …" if len(outside) > 3 else "")
        raise ValueError(
            f"{len(outside):,} of {len(paths):,} files lie outside {root}, where the table or a link leads: {first}. "
            "If you trust it, say --allow-outside."
        )


# names of files that hold a patient, and the folder that does
PATTERNS = (
    r"((?:person|patient|pat|subject|subj|sub|case|pid)[-_ ]?\d+)",
    r"((?:person|patient|pat|subject|subj|sub|case|pid|pt|p|病人|患者|病例)[-_ ]?\d+)/",
    r"(?:^|/)(\d{3,})[-_][^/]*$",
    r"(?:^|/)([A-Za-z]{1,4}[-_]?\d{2,})[-_][^/]*$",
)


def _proposed(paths: list[str]) -> str:
    """The pattern that finds patients in names, where several images share what it finds; "": none does."""
    best: tuple[int, str, list[str]] = (0, "", [])
    for pattern in PATTERNS:
        expression = re.compile(pattern, re.IGNORECASE)
        found = [match[1] for path in paths if (match := expression.search(path))]
        if 1 < len(set(found)) < len(found) and len(found) > max(best[0], len(paths) // 5):
            best = (len(found), pattern, found)
        if best[0] > 0.8 * len(paths):
            break
    count, pattern, found = best
    if not count:
        return ""
    return (
        f"Names seem to tell: --patient-pattern '(?i){pattern}' finds {len(set(found)):,} patients in {count:,} of "
        f"{len(paths):,} paths, such as {tables.printable_text(found[0])!r}. If that is right, give it."
    )


def _with_image(rows: pd.DataFrame, column: str) -> pd.DataFrame:
    """The rows that name an image."""
    named = rows[rows[column].str.strip() != ""]
    if named.empty:
        raise ValueError(f"The column {column!r} is blank in every row. Name the column of files: --path-column.")
    if len(named) < len(rows):
        log.warning("Left out: %s rows that name no image.", f"{len(rows) - len(named):,}")
    return named


def _apart(others: list[str], names: list[str]) -> dict[str, str]:
    """New names for columns of the CSV that are called like a finding or a column of ours ('hospital' is no clash)."""
    taken = {*reserved(others), *names} - {"hospital"}
    return {name: f"csv_{name}" for name in others if name in taken}


def _located(names: pd.Series, root: Path) -> pd.Series:
    """The files that a CSV means: as it says; only where some are not there, all that lie below root are looked at."""
    base = str(root.absolute()).rstrip("/") + "/"
    plain = [posixpath.normpath(name.replace("\\", "/").replace("\0", "")).removeprefix(base) for name in names]
    # a Path for each of 200,000 rows would take seconds
    there = [os.path.isfile(posixpath.join(base, path)) for path in plain]  # noqa: PTH113
    if all(there):
        return pd.Series(plain, index=names.index, dtype="str")
    paths, other = tables.matched_files(names.tolist(), tables.files_below(root))
    if other:
        log.warning("%s files were found under another ending than the table's, by their stems.", f"{other:,}")
    kept = [path if is_file else other for path, is_file, other in zip(plain, there, paths, strict=True)]
    return pd.Series(kept, index=names.index, dtype="str")


def _folders(root: Path, paths: list[str], classes: str) -> tuple[pd.DataFrame, pd.DataFrame]:
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
        "they hold DICOM files": any(_maybe_dicom(path) for path in images),
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


def _patients(paths: pd.Series, pattern: str) -> pd.Series:
    try:
        groups = re.compile(pattern).groups
    except re.error as error:
        raise ValueError(f"--patient-pattern {pattern!r} is not a regular expression: {error}.") from None
    if groups != 1:
        raise ValueError(f"--patient-pattern {pattern!r} needs one group in brackets, such as (person\\d+)_.")
    return paths.str.extract(pattern, expand=False).fillna("").astype("str")


def _maybe_dicom(path: str) -> bool:
    """Whether a file's tags may know the patient: DICOM files are called .dcm, or anything."""
    return not path.lower().endswith(RASTER)


def _split(frame: pd.DataFrame) -> pd.Series:
    """The split given; without one, by patient, unless patients are still to be read from the files."""
    blank = pd.Series("", frame.index, dtype="str")
    given, patients = frame.get("split", blank), frame.get("patient", blank)
    unknown = patients == ""
    if unknown.all() or frame["path"][unknown].map(_maybe_dicom).any():
        return given  # at import, when the tags are read
    return splits.completed_splits(given, patients, frame["path"])
