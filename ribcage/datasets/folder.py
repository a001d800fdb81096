"""Your own pictures: a CSV with named columns, class folders, or a plain or nested folder of PNG, JPEG or DICOM files.

Patient, view, sex and age that no table tells stay empty here; of DICOM files they are read from the tags at import.
"""

import logging
import re
from collections import Counter
from pathlib import Path
from typing import Literal

import pandas as pd

from ribcage import columns, tables
from ribcage import split as splits
from ribcage.index import Index, table

SOURCE = "your own files"
LICENCE = "yours"
MOST_CLASSES = 50
# folders called so hold patients, not classes
PATIENT_FOLDER = re.compile(r"(p|pat|patient|person|subject|case|id|s)?[-_ ]?\d+", re.IGNORECASE)


def index(
    root: Path,
    *,
    csv: str = "",
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
    encoding: str = "auto",
) -> Index:
    """Read the CSV in root, or the names of its folders when there is none.

    csv: The table, when root holds several (none: do not read any).
    path_column: The column with the picture files; like the next six it is guessed by its name ("none": not there).
    patient_column: The column with the patient.
    study_column: The column with the study.
    view_column: The column with the view.
    split_column: The column with train, val, test.
    sex_column: The column with the sex.
    age_column: The column with the age.
    label_columns: The columns with labels; else all named after findings, or one with lists such as Effusion|Mass.
    patient_pattern: A regular expression whose group finds the patient in the path, such as (person\\d+)_.
    classes: Whether folder names are classes; auto: when all pictures lie in a few folders side by side.
    encoding: Of the CSV; auto tries UTF-8, GB 18030 and Latin-1.
    """
    root, csv = (root.parent, root.name) if root.is_file() else (root, csv)
    paths = tables.files(root)
    file = _csv(root, paths, csv)
    if file is None:
        frame, found = _folders(root, paths, classes)
    else:
        given = {"path": path_column, "patient": patient_column, "study": study_column, "view": view_column}
        given |= {"split": split_column, "sex": sex_column, "age": age_column}
        frame, found = _rows(tables.sniffed(file, encoding), paths, given, label_columns)
    if patient_pattern and "patient" not in frame:
        frame["patient"] = _patients(frame["path"], patient_pattern)
    frame["split"] = _split(frame)
    names = tuple(str(name) for name in found.columns)
    return Index("folder", table(frame.join(found), names), names, root=root)


def _csv(root: Path, paths: list[str], csv: str) -> Path | None:
    """The table to read, if any."""
    if csv == "none":
        return None
    if csv:
        file = root / Path(csv).expanduser()
        if not file.is_file():
            raise FileNotFoundError(f"There is no table {file}.")
        return file
    found = [path for path in paths if path.lower().endswith((".csv", ".tsv", ".csv.gz")) and "/" not in path]
    if len(found) > 1:
        raise ValueError(f"{root} holds {', '.join(found)}. Choose one with --csv, or none with --csv none.")
    return root / found[0] if found else None


def _rows(
    rows: pd.DataFrame, paths: list[str], given: dict[str, str], label_columns: tuple[str, ...]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What the rows of a CSV say, and their labels."""
    header = list(rows.columns)
    role = columns.roles(header, given)
    if "path" not in role:
        raise ValueError(
            f"No column looks like a picture's file. Name it with --path-column: {', '.join(header[:40])}."
        )
    rows = rows[rows[role["path"]].str.strip() != ""].drop_duplicates()
    found = columns.labels(rows, columns.label_columns(header, list(role.values()), label_columns))
    text = {name: rows[column].str.strip() for name, column in role.items()}
    text["path"] = _located(text["path"], paths)
    twice = text["path"][text["path"].duplicated()]
    if len(twice):
        raise ValueError(f"The picture {twice.iloc[0]} stands in several rows that differ; each needs one row.")
    meaning = {
        "view": lambda column: tables.words(column, columns.VIEW_WORDS),
        "sex": lambda column: tables.words(column, tables.SEX),
        "split": lambda column: columns.splits(column, role["split"]),
        "age": tables.years,
    }
    frame = pd.DataFrame({name: meaning.get(name, lambda column: column)(column) for name, column in text.items()})
    return frame.reset_index(drop=True), found.reset_index(drop=True)


def _located(names: pd.Series, paths: list[str]) -> pd.Series:
    """The files that a CSV written elsewhere means: its path without the folders above, or the only file so called."""
    there = set(paths)
    files = [path for path in paths if path.lower().endswith(tables.PICTURES)]
    last = [path.rpartition("/")[2] for path in files]
    stem = [tables.SUFFIX.sub("", name) for name in last]
    counts = Counter(last) + Counter(name for name in stem if name not in set(last))
    only = dict(zip(stem, files, strict=True)) | dict(zip(last, files, strict=True))

    def located(name: str) -> str:
        steps = name.replace("\\", "/").split("/")
        tails = ("/".join(steps[start:]) for start in range(len(steps)))
        inside = next((tail for tail in tails if tail in there), None)
        return inside or (only[steps[-1]] if counts[steps[-1]] == 1 else name)

    return pd.Series([located(name) for name in names], index=names.index, dtype="str")


def _folders(root: Path, paths: list[str], classes: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What the folders say: splits, then classes; a class 'normal' is the row without findings."""
    pictures = [path for path in paths if _is_picture(root / path)]
    if not pictures:
        raise FileNotFoundError(f"{root} holds no pictures ({', '.join(tables.PICTURES)}) and no CSV.")
    folders = [path.split("/")[:-1] for path in pictures]
    dealt = all(steps and steps[0].lower() in columns.SPLIT_WORDS for steps in folders)
    frame = pd.DataFrame({"path": pd.Series(pictures, dtype="str")})
    if dealt:
        frame["split"] = [columns.SPLIT_WORDS[steps[0].lower()] for steps in folders]
    inner = ["/".join(steps[dealt:]) for steps in folders]
    if classes == "no" or (classes == "auto" and not _are_classes(inner, pictures)):
        return frame, pd.DataFrame(index=frame.index)
    if not all(inner):
        raise ValueError(f"{pictures[inner.index('')]} lies in no class folder. Move it, or say --classes no.")
    return frame, columns.listed(pd.Series([name.split("/")[0] for name in inner], dtype="str"))


def _are_classes(folders: list[str], pictures: list[str]) -> bool:
    """Whether folder names look like classes: a few, side by side, none called like a patient, no DICOM."""
    names = set(folders)
    side_by_side = all(name and "/" not in name for name in names)
    dicom = any(not path.lower().endswith(tables.PICTURES) or ".dic" in path or ".dcm" in path for path in pictures)
    patients = any(PATIENT_FOLDER.fullmatch(name) for name in names)
    return side_by_side and 2 <= len(names) <= MOST_CLASSES and not patients and not dicom


def _is_picture(file: Path) -> bool:
    """By its name; DICOM files often have none that tells, so those are asked for their mark."""
    if file.name.lower().endswith(tables.PICTURES):
        return True
    if tables.SUFFIX.search(file.name) or not file.is_file():
        return False
    with file.open("rb") as stream:
        return stream.read(132)[128:] == b"DICM"


def _patients(paths: pd.Series, pattern: str) -> pd.Series:
    try:
        groups = re.compile(pattern).groups
    except re.error as error:
        raise ValueError(f"--patient-pattern {pattern!r} is no regular expression: {error}.") from None
    if groups != 1:
        raise ValueError(f"--patient-pattern {pattern!r} needs one group in brackets, such as (person\\d+)_.")
    return paths.str.extract(pattern, expand=False).fillna("").astype("str")


def _split(frame: pd.DataFrame) -> pd.Series:
    """The split given; without one, by patient, unless patients are still to be read from the files."""
    log = logging.getLogger("ribcage")
    patients = frame["patient"] if "patient" in frame else pd.Series("", frame.index, dtype="str")
    if "split" in frame:
        if {"train", "test"} <= set(frame["split"]) and "val" not in set(frame["split"]):
            log.warning("No validation part: one in eight training patients becomes one.")
            return splits.carve(frame["split"], patients, frame["path"])
        return frame["split"]
    if (patients == "").all():
        return patients
    log.warning("No split given: 70/10/20 by patient.")
    return splits.by_patient(patients, frame["path"])
