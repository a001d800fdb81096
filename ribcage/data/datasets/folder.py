"""Your own images: PNG, JPEG or DICOM files in a folder, with labels from a CSV file or from class folders.

Patient, view, sex and age that are in no table stay empty here; for DICOM files they are read from the header at
import.
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
from ribcage.data.index import Index, index_table, no_boxes, reserved
from ribcage.data.index import box_frame as boxes_of
from ribcage.data.masks import mask_frame, no_masks
from ribcage.data.readers import box_list, columns, tables
from ribcage.data.readers.image_folders import NEUTRAL, folder_rows, may_be_dicom, report_other_folders
from ribcage.data.readers.image_rows import Given, ImageRows, csv_rows, without_slices
from ribcage.data.readers.mask_folders import likely_mask_files, masks_in_folders
from ribcage.data.readers.path_patients import patients_in_paths, proposed_pattern
from ribcage.data.readers.table_text import named_errors, printable_text
from ribcage.data.readings import reading_frame
from ribcage.imaging import image_file
from ribcage.imaging.dicom import terms
from ribcage.runtime import terminal
from ribcage.runtime.spelling import count_phrase

CHINESE = "自己的图像：列名清楚的 CSV、按类别分的文件夹，或任意层级的 PNG、JPEG、DICOM 文件夹"
SOURCE = "your own files"
LICENCE = "yours"
PUBLISHED_PATIENTS = False

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
    report_columns: tuple[str, ...] = (),
    language: str = "",
    reader_column: str = "",
    patient_pattern: str = "",
    classes: Literal["auto", "yes", "no"] = "auto",
    conflicts: Literal["stop", "first", "drop", "merge"] = "stop",
    slices: Literal["drop", "keep"] = "drop",
    allow_outside: bool = False,
    published_patients: bool = False,
    encoding: str = "auto",
    bits: int = 0,
    mask_files: Literal["auto", "yes", "no"] = "auto",
    mask_structure: str = "",
) -> Index:
    """Read the CSV in root, or the names of its folders when there is none.

    csv: CSV file below ROOT, if there are several; with none, no CSV is read.
    boxes: CSV file below ROOT with boxes in pixels: file, finding, x, y, width, height (or x_min, y_min, x_max, y_max).
    path_column: Column with the image files. This and the following columns are recognised by
        their names if not given; none: there is no such column.
    patient_column: Column with the patient identifier.
    study_column: Column with the study identifier.
    view_column: Column with the view (PA, AP, lateral).
    split_column: Column with the split (train, val, test).
    sex_column: Column with the sex.
    age_column: Column with the age in years.
    label_columns: Columns with labels (default: all that are named after findings, or one with lists such as
        Effusion|Mass).
    report_columns: Columns with the text of reports, as COLUMN or SECTION=COLUMN (default: all that are named after
        sections or contain sentences); none: there are no such columns.
    language: Language of the reports as a code of two letters, such as en.
    reader_column: Column with the reader of each row, if several readers labelled the same images (default: recognised
        by its name); none: there is no such column.
    patient_pattern: Regular expression whose group matches the patient in the path, such as (person\\d+)_.
    classes: Whether folder names are class labels; auto: yes if all images lie in a few sibling folders.
    conflicts: Treatment of images with several differing rows: stop, keep the first row, drop the image,
        or merge the labels.
    slices: Whether to drop or keep CT and MR slices, recognised by the CSV (view Axial, modality CT) or DICOM header.
    allow_outside: Also read files outside ROOT to which the CSV or a link points.
    published_patients: State that the patient identifiers are public, so that bundles hash them without the site key.
    encoding: Encoding of the CSV; auto tries UTF-8, GB 18030 and Latin-1.
    bits: Number of bits used in 16-bit PNG and TIFF files, such as 12; their highest value is white; 0 means 16.
    mask_files: Whether image files are read as masks of the images with the same names, if they are in a folder such as
        masks or have the suffix _mask; auto: yes if there is no CSV, since all files below ROOT have to be listed.
    mask_structure: Structure in masks whose names say nothing about it, such as Lungs (default: Mask).
    """
    if bits and not 8 <= bits <= 16:
        raise ValueError(f"--bits {bits} must be from 8 to 16.")
    if language and not re.fullmatch("[a-z]{2}", language):
        raise ValueError(f"--language {language!r} is not a code of two lower-case letters, such as en or zh.")
    root, csv = (root.parent, root.name) if root.is_file() else (root, csv)
    drawn = _within(root, boxes) if boxes else None
    file = _csv(root, csv, drawn)
    if file is None:
        (frame, found), header = folder_rows(root, tables.files_below(root), classes), []
        read = ImageRows(frame, found)
    else:
        given = {"path": path_column, "patient": patient_column, "study": study_column, "view": view_column}
        given |= {"split": split_column, "sex": sex_column, "age": age_column}
        rows = tables.sniffed(file, encoding)
        header = list(rows.columns)
        with named_errors(file):
            if slices == "drop":
                rows = without_slices(rows, columns.roles(header, given).get("view", ""))
            read = csv_rows(rows, root, Given(given, label_columns, report_columns, reader_column, language, conflicts))
        frame, found = read.table, read.labels
    if not allow_outside:
        _check_inside(frame["path"], root)
    if patient_pattern and "patient" not in frame:
        frame["patient"] = patients_in_paths(frame["path"], patient_pattern)
    if "patient" not in frame and not frame["path"].map(may_be_dicom).any():
        log.warning(
            "Patients are unknown: images of one patient may be in several splits. %s%s",
            proposed_pattern(frame["path"].tolist())
            or "Use --patient-column, or --patient-pattern to find patients in paths.",
            f" {columns.among(header)}" if header else "",
        )
    frame["split"] = _split(frame)
    found, placed = _with_boxes(found, frame["path"], drawn, encoding) if drawn else (found, no_boxes())
    names = tuple(str(name) for name in found.columns)
    _check_names(names)
    wanted = mask_files == "yes" or (mask_files == "auto" and file is None)
    readings = read.readings
    if len(readings):  # a finding that only occurs in boxes has the label of the image
        added = {name: found[name].to_numpy()[readings["row"]] for name in names if name not in readings}
        readings = reading_frame(readings.assign(**added), names)
    return Index(
        _name(root), index_table(frame.join(found), names), names, placed, root=root, readings=readings,
        reports=read.reports, masks=_masks(root, frame["path"], mask_structure) if wanted else no_masks(),
    )  # fmt: skip


def _masks(root: Path, images: pd.Series, structure: str) -> pd.DataFrame:
    """The masks of these images that are in files beside them."""
    files = tables.files_below(root)
    drawn = masks_in_folders(files, images.tolist(), structure)
    if drawn:
        counts = Counter(mask.structure for mask in drawn)
        said = ", ".join(f"{name} {count:,}" for name, count in sorted(counts.items()))
        log.warning("Image files were read as masks of the images with the same names: %s.", said)
    rest = len(likely_mask_files(files, images.tolist())) - len(drawn)
    if rest > 0:
        log.warning(
            "Files whose names suggest masks were ignored, because no image, or more than one, has the same name in "
            "the same folders, or because the structure in the name is unknown (see --mask-structure): %s.",
            f"{rest:,}",
        )
    return mask_frame(drawn)


def images(
    index: Index,
    *,
    bits: int = 0,
    slices: Literal["drop", "keep"] = "drop",
    size: int | None = None,
    depth: Literal[8, 16] = 8,
    window: str = "",
    linked: bool = False,
) -> Callable[[int], image_file.GrayImage] | None:
    """Row → image, if `bits` is given or if DICOM slices are to be dropped at import; else None, as each row is an
    ordinary file."""
    drop = slices == "drop" and not linked and bool(index.table["path"].map(may_be_dicom).any())
    if not bits and not drop:
        return None
    how: Any = {"depth": depth, "min_side": size, "bits": bits or None, "window": window}
    paths = index.table["path"].array  # a look-up in a table costs as much as reading a small file

    def image(row: int) -> image_file.GrayImage:
        file = index.root / paths[row]
        found = image_file.read_image(file, **how)
        modality = found.tags.get("modality", "")
        if drop and modality in terms.SLICES:
            raise image_file.UnreadableError(f"{file} is a {modality} slice. To use it, pass --slices keep.")
        return found

    return image


def _name(root: Path) -> str:
    """Name of the folder, as the namespace of its patients: patient 7 of two hospitals are two people."""
    folder = root.absolute()
    named = (each.name for each in (folder, *folder.parents) if each.name.lower() not in ("", *NEUTRAL))
    return terminal.plain_line(next(named, "folder"))[: terminal.LONGEST_NAME]


def _check_names(names: tuple[str, ...]) -> None:
    """Refuse findings with the name of a reserved column; report those outside the vocabulary."""
    if reserved(names):
        raise ValueError(
            f"Reserved column names cannot be used for findings: {', '.join(reserved(names))}. Rename the "
            f"column or the class, choose other columns with --label-columns, or pass --classes no."
        )
    new = [name for name in names if name not in findings.FINDINGS]
    if new:
        said = [
            f"{name} (did you mean {meant}?)" if (meant := findings.closest_finding(name)) else name
            for name in new[:20]
        ]
        log.warning("Findings outside Ribcage's vocabulary: %s.", ", ".join(said) + (", …" if len(new) > 20 else ""))


def _csv(root: Path, csv: str, other: Path | None) -> Path | None:
    """The table to read, if any, other than `other`."""
    if csv == "none":
        return None
    if csv:
        return _within(root, csv)
    found = [path for path in tables.files_below(root, depth=0) if path.lower().endswith((".csv", ".tsv", ".csv.gz"))]
    found = [path for path in found if root / path != other]
    if len(found) > 1:
        raise ValueError(
            f"{root} contains several CSV files: {', '.join(found)}. Choose one with --csv, or pass --csv none to use "
            "none of them. To import a list of boxes, pass it to --boxes."
        )
    return root / found[0] if found else None


def _within(root: Path, csv: str) -> Path:
    """Path of a table, which must exist."""
    file = root / Path(csv).expanduser()
    if not file.is_file():
        raise FileNotFoundError(f"{file} does not exist.")
    return file


def _with_boxes(found: pd.DataFrame, paths: pd.Series, file: Path, encoding: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The labels, and the boxes by row.

    A finding that only occurs in boxes is present where one is drawn, absent in other images of the list, and unknown
    in images that are not in the list.
    """
    listed = box_list.read_boxes(file, encoding)
    place = pd.Series(paths.index, index=paths)
    names = listed["path"].tolist()
    matched = tables.matched_files(names, paths.tolist())[0]
    report_other_folders(names, matched, str(file))
    listed["row"] = [place.get(path, -1) for path in matched]
    away = listed["row"] < 0
    if away.all():
        raise ValueError(f"{file} lists no image of this dataset; its first entry is {listed['path'].iloc[0]!r}.")
    if away.any():
        count, first = listed["path"][away].nunique(), listed["path"][away].iloc[0]
        log.warning("Boxes of %s missing images were ignored, such as %s.", f"{count:,}", first)
    listed = listed[~away]
    drawn = listed[listed["finding"] != ""]
    new = [name for name in drawn["finding"].unique() if name not in found]
    told = pd.Series(np.nan, found.index, dtype="float32").where(~found.index.isin(listed["row"]), 0)
    found = found.assign(
        **{name: told.where(~told.index.isin(drawn["row"][drawn["finding"] == name]), 1) for name in new}
    )
    return found, boxes_of(drawn)


def _check_inside(paths: pd.Series, root: Path) -> None:
    """Raise if a table or a link leads outside root: an archive from outside could otherwise read any file of this
    machine."""
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
        first = ", ".join(printable_text(path) for path in outside[:3]) + (", …" if len(outside) > 3 else "")
        raise ValueError(
            f"{len(outside):,} of {count_phrase(len(paths), 'file')} {'is' if len(outside) == 1 else 'are'} "
            f"outside {root}, because of a path in the table or a symbolic link: {first}. "
            "If you trust them, use --allow-outside."
        )


def _split(frame: pd.DataFrame) -> pd.Series:
    """The given split; without one, a split by patient, unless patients are still to be read from the files."""
    blank = pd.Series("", frame.index, dtype="str")
    given, patients = frame.get("split", blank), frame.get("patient", blank)
    unknown = patients == ""
    if unknown.all() or frame["path"][unknown].map(may_be_dicom).any():
        return given  # at import, once tags are read
    return splits.completed_splits(given, patients, frame["path"])
