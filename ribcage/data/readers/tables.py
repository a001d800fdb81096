"""Tables as datasets ship them: found below a folder, plain or compressed, with their columns checked by name."""

import contextlib
import csv
import io
import logging
import os
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ribcage.data.readers.table_text import (
    DAMAGED,
    PARSER_ERRORS,
    cell_error,
    check_widths,
    column_names,
    decoded_text,
    explained,
    first_cell,
    line_of_row,
    opened_text,
    plain_error,
    printable_text,
    row_lines,
)

IMAGES = (".png", ".jpg", ".jpeg", ".dcm", ".dicom", ".tif", ".tiff", ".bmp")
SUFFIX = re.compile(r"\.[A-Za-z]{3,5}$")
COMPRESSED = ("", ".gz", ".zip")
MASK_FOLDERS = (
    *("mask", "masks", "leftmask", "rightmask", "manualmask", "seg", "segs", "segmentation", "segmentations"),
    *("annotation", "annotations"),
)
"""Names of folders of masks."""
MOST_COLUMNS = 10_000
LABEL_VALUES = (1, 0, -1)
BLANK = ("", "nan", "NaN")
"""Cells of a column of numbers that are blank."""

log = logging.getLogger("ribcage")


def files_below(root: Path, depth: int | None = None) -> list[str]:
    """Every file below a folder (at most `depth` folders down), as sorted relative paths with '/'.

    Links to folders are followed, each folder once; hidden files are skipped.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"The folder {root} does not exist.")
    found: list[str] = []
    folders, seen = [""], set()
    while folders:
        prefix = folders.pop()
        identity, names, inner = _listing(root / prefix)
        if identity not in seen:
            seen.add(identity)
            found += [prefix + name for name in names]
            if depth is None or prefix.count("/") < depth:
                folders += [f"{prefix}{name}/" for name in reversed(inner)]  # taken from the end: a before b
    return sorted(_spelt(found, root))


def _spelt(paths: list[str], root: Path) -> list[str]:
    """Paths that are valid UTF-8, as in all tables; the others are skipped with a warning."""
    strange = {path for path in paths if not path.isascii() and any("\ud800" <= each <= "\udfff" for each in path)}
    if strange:
        first = os.fsencode(min(strange))[:200]
        log.warning(
            "Files in %s whose names are not UTF-8 were ignored: %s, such as %r.",
            root,
            f"{len(strange):,}",
            first,
        )
    return [path for path in paths if path not in strange]


def matched_files(names: Sequence[str], paths: Sequence[str]) -> tuple[list[str], int]:
    """The files that a table written elsewhere refers to, and how many have another ending here (.png for .jpg).

    Leading folders of a name may differ; else the only file with that name, or the only one with that stem, is taken,
    but not from a folder of masks beside other images. A name that matches no file, or several, is unchanged. Of names
    with different folders that match the same file, only its path does: the others are probably missing here.
    """
    there = set(paths)
    files = [path for path in paths if path.lower().endswith(IMAGES)]
    inside = unique_files([SUFFIX.sub("", path) for path in files], files)
    outside = [path for path in files if not in_mask_folder(path)] or files
    last = [path.rpartition("/")[2] for path in outside]
    exact, stems = unique_files(last, outside), unique_files([SUFFIX.sub("", name) for name in last], outside)

    def located(name: str) -> str:
        steps = _steps(name)
        tails = ["/".join(steps[start:]) for start in range(len(steps))]
        found = next((tail for tail in tails if tail in there), None) or exact.get(steps[-1] if steps else "")
        if found or not steps:
            return found or name
        bare = [SUFFIX.sub("", tail) for tail in tails]
        return next((inside[tail] for tail in bare if tail in inside), None) or stems.get(bare[-1]) or name

    found = {name: located(name) for name in dict.fromkeys(names)}
    spelt: dict[str, set[str]] = {}
    for name, path in found.items():
        spelt.setdefault(path, set()).add(SUFFIX.sub("", "/".join(_steps(name))))
    found |= {name: name for name, path in found.items() if len(spelt[path]) > 1 and "/".join(_steps(name)) != path}
    located_names = [found[name] for name in names]
    renamed = [
        path in there and bool(SUFFIX.search(name)) and _steps(name)[-1] != path.rpartition("/")[2]
        for name, path in zip(names, located_names, strict=True)
    ]
    return located_names, sum(renamed)


def _steps(name: str) -> list[str]:
    """The folders and the file of a path."""
    return [step for step in name.replace("\\", "/").split("/") if step not in ("", ".")]


def unique_files(names: Sequence[str], files: Sequence[str]) -> dict[str, str]:
    """Name → file, for names that only one file has."""
    counts = Counter(names)
    return {name: file for name, file in zip(names, files, strict=True) if counts[name] == 1}


def files_named(paths: Iterable[str], *names: str) -> list[str]:
    """The paths with this file name, also with .gz or .zip: earlier names first, then higher folders."""
    order = {(name + end).lower(): place for place, name in enumerate(names) for end in COMPRESSED}
    found = [path for path in paths if path.rpartition("/")[2].lower() in order]
    return sorted(found, key=lambda path: (order[path.rpartition("/")[2].lower()], path.count("/"), path))


def locate(names: pd.Series, paths: Sequence[str], folder: str = "", prefer: Sequence[str] = ()) -> pd.Series:
    """The path of the image with each name: the same name, else the same stem (re-encoded), else missing.

    Files in folders of masks, which often have the names of the images, are left out. Of several matches, those that
    match the first patterns of `prefer` come first, then those in higher folders.
    """
    below = folder.strip("/") + "/" if folder.strip("/.") else ""
    images = [path for path in paths if path.startswith(below) and path.lower().endswith(IMAGES)]
    if below and not images:
        raise FileNotFoundError(
            f"The folder {folder} contains no images. Pass a path relative to the folder of the dataset."
        )
    images = [path for path in images if not in_mask_folder(path.removeprefix(below))]
    patterns = [re.compile(pattern) for pattern in prefer]
    images.sort(
        key=lambda path: ([not pattern.search(path) for pattern in patterns], path.count("/"), path), reverse=True
    )
    exact = {path.rpartition("/")[2]: path for path in images}  # the last one wins: the best
    stems = {SUFFIX.sub("", path.rpartition("/")[2]): path for path in images}
    found = [exact.get(name) or stems.get(SUFFIX.sub("", name)) for name in names]
    return pd.Series(found, index=names.index, dtype="str")


def in_mask_folder(path: str) -> bool:
    """Whether a file is in a folder of masks, or below one."""
    return any(step.lower() in MASK_FOLDERS for step in path.split("/")[:-1])


def missing_files(root: Path, names: Sequence[str], source: str) -> FileNotFoundError:
    """An error that names all missing files, and where to get them."""
    return FileNotFoundError(f"{root} has no {' and no '.join(names)}. Download the dataset from {source}.")


def header(file: Path) -> list[str]:
    """Column names of a table; a name that occurs twice is listed twice."""
    with explained(file), opened_text(file) as stream:
        names = next((row for row in csv.reader(stream) if any(row)), None)
    if names is None:
        raise ValueError(f"{file} is empty; a table with a header was expected.")
    return names


def read_table(
    file: Path,
    needed: Sequence[str],
    numbers: Sequence[str] = (),
    wanted: Sequence[str] = (),
    *,
    labels: Sequence[str] = (),
) -> pd.DataFrame:
    """The `needed` columns and, if present, the `wanted` ones, as text, "" where empty; the `numbers` as numbers, and
    the `labels` as 1, 0, -1 or NaN. ValueError for a cell that is something else, or a row with too few cells."""
    names = header(file)
    _check_columns(file, names, needed, wanted)
    with explained(file), opened_text(file) as stream:
        check_widths(stream, ",", file)
    if none := [name for name in wanted if name not in names]:
        log.warning("%s has no column %s, so these values are unknown.", file, " and no column ".join(map(repr, none)))
    kept = [name for name in names if name in (*needed, *wanted)]
    counted = [name for name in kept if name in (*numbers, *labels)]
    types = {name: np.float32 if name in counted else str for name in kept}
    try:
        rows = _read(file, file, usecols=kept, dtype=types, na_values={name: [*BLANK] for name in counted})
    except ValueError:
        _check_numbers(file, _read(file, file, usecols=counted, dtype=str), counted)
        raise
    if rows.empty:
        raise ValueError(f"{file} has a header, but no rows.")
    _check_values(file, rows, counted, labels)
    return rows.fillna({name: "" for name in kept if name not in counted})


def _check_columns(file: Path, names: list[str], needed: Sequence[str], wanted: Sequence[str]) -> None:
    absent = [name for name in needed if name not in names]
    if absent:
        more = f" and {len(absent) - 5} others" * (len(absent) > 5)
        separator = next((mark for mark in ";\t" if len(names) == 1 and mark in names[0]), "")
        hint = f" Its cells seem to be separated by {separator!r}; commas were expected." * bool(separator)
        raise ValueError(
            f"{file} has no column {' and no column '.join(absent[:5])}{more}. Its columns are "
            f"{column_names(names[:30])}.{hint}"
        )
    twice = [name for name in dict.fromkeys((*needed, *wanted)) if names.count(name) > 1]
    if twice:
        raise ValueError(f"{file} has {names.count(twice[0])} columns named {twice[0]!r}; one was expected.")


def _check_numbers(file: Path, rows: pd.DataFrame, columns: Sequence[str]) -> None:
    """Raise for the first cell of these columns that is not a number."""
    for name in columns:
        cells = rows[name].fillna("").str.strip()
        strange = pd.to_numeric(cells, errors="coerce").isna() & ~cells.isin(BLANK)
        if strange.any():
            row = int(strange.to_numpy().argmax())
            raise cell_error(file, row, name, cells.iloc[row], "a number or a blank cell")


def _check_values(file: Path, rows: pd.DataFrame, columns: Sequence[str], labels: Sequence[str]) -> None:
    """Raise for the first number of these columns that is infinite or, in a column of labels, not a label."""
    for name in columns:
        values = rows[name].to_numpy()
        wrong = ~(np.isnan(values) | np.isin(values, LABEL_VALUES)) if name in labels else np.isinf(values)
        if wrong.any():
            row = int(wrong.argmax())
            expected = "1, 0, -1 (uncertain) or a blank cell" if name in labels else "a finite number or a blank cell"
            cell = _read(file, file, usecols=[name], dtype=str)[name].iloc[row]
            raise cell_error(file, row, name, str(cell), expected)


def without_blanks(rows: pd.DataFrame, key: str, file: Path) -> pd.DataFrame:
    """The rows of a published table; ValueError if a cell of this column is blank, as in an incomplete last line."""
    blank = (rows[key].str.strip() == "").to_numpy()
    if blank.any():
        raise ValueError(
            f"{file} has no {key!r} in line {line_of_row(file, int(blank.argmax())):,}; the file may be incomplete. "
            "Download it again."
        )
    return rows


def one_row_each(rows: pd.DataFrame, key: str | Sequence[str], file: Path) -> pd.DataFrame:
    """The rows of a published table, each once, with a warning if rows are repeated; ValueError if rows with the same
    key differ."""
    keys = [key] if isinstance(key, str) else [*key]
    if not rows.duplicated(keys).any():  # much faster than a comparison of all columns
        return rows
    return distinct_rows(without_repeats(rows, file), keys, file)


def without_repeats(rows: pd.DataFrame, file: Path) -> pd.DataFrame:
    """The rows of a table, each once, with a warning if rows are repeated; the index is that of the file."""
    kept = rows.drop_duplicates()
    if len(kept) < len(rows):
        log.warning("Repeated rows in %s were ignored: %s.", file, f"{len(rows) - len(kept):,}")
    return kept


def distinct_rows(rows: pd.DataFrame, key: str | Sequence[str], file: Path) -> pd.DataFrame:
    """The rows, each once; ValueError if rows with the same key differ."""
    keys = [key] if isinstance(key, str) else [*key]
    rows = rows.drop_duplicates(ignore_index=True)
    twice = rows.duplicated(keys, keep=False)
    if twice.any():
        found = rows.loc[twice, keys].drop_duplicates()
        apart = rows[twice].groupby(keys, sort=False).nunique(dropna=False) > 1
        columns = ", ".join(repr(str(name)) for name in apart.columns[apart.any()][:5])
        raise ValueError(
            f"{file} has several rows that differ (in {columns}) for {len(found):,} of "
            f"{len(rows[keys].drop_duplicates()):,} values of {' and '.join(map(repr, keys))}, such as "
            f"{printable_text(', '.join(map(str, found.iloc[0])))}. The published table has one row each. Download it "
            "again."
        )
    return rows


def read_in_chunks(file: Path, columns: Sequence[str], count: int) -> Iterator[pd.DataFrame]:
    """These columns of a large table as text, "" where empty, in parts of so many rows."""
    with contextlib.closing(_read(file, file, usecols=list(columns), dtype=str, chunksize=count)) as parts:
        while True:
            try:
                yield next(parts)[list(columns)].fillna("")
            except StopIteration:
                return
            except (*PARSER_ERRORS, *DAMAGED, OSError) as error:
                raise plain_error(file, error) from None


def headerless(
    file: Path, names: Sequence[str], numbers: Sequence[str] = (), sep: str = ",", skip: int = 0
) -> pd.DataFrame:
    """The first columns of a table without a header (or with `skip` lines of one), under these names."""
    types = {name: np.float32 if name in numbers else str for name in names}
    how: dict[str, Any] = {"usecols": range(len(names)), "sep": sep, "skiprows": skip}
    try:
        rows = _read(file, file, header=None, names=list(names), dtype=types, **how)
    except ValueError:
        rows = _read(file, file, header=None, names=list(names), dtype=str, **how)
        _check_numbers(file, rows, numbers)
        raise
    if rows.empty:
        raise ValueError(f"{file} has no rows.")
    return rows


def width(file: Path, sep: str = ",") -> int:
    """Number of columns in the first line."""
    return _read(file, file, header=None, nrows=1, dtype=str, sep=sep).shape[1]


def sniffed(file: Path, encoding: str = "auto") -> pd.DataFrame:
    """All columns of a table of unknown origin as text, with encoding, separator and repeated names detected. The index
    plus 2 is the line of a row in the file."""
    text = decoded_text(file, encoding)
    first = next((line for line in io.StringIO(text) if line.strip()), "")
    separator = max(",;\t", key=first.count)
    if first.count(separator) >= MOST_COLUMNS:
        raise ValueError(f"{file} has {first.count(separator) + 1:,} columns; the limit is {MOST_COLUMNS:,}.")
    names = check_widths(io.StringIO(text, newline=""), separator, file)
    rows = _read(io.StringIO(text), file, sep=separator, dtype=str)
    bare = next((name for name in names if name.lower().endswith(IMAGES)), "")
    if bare:
        raise ValueError(
            f"{file} has no header: its first line contains a file name ({printable_text(bare)}). Add a first line "
            f"with the column names, such as path,patient,label. If the file lists the images of a split, pass it as "
            "--split-list train=FILE."
        )
    if rows.empty:
        raise ValueError(f"{file} has a header, but no rows.")
    lines = list(row_lines(io.StringIO(text, newline=""), separator))
    if len(lines) == len(rows):
        rows.index = pd.Index(lines) - 2
    if len(names) == rows.shape[1]:
        times: Counter[str] = Counter()
        if twice := [name for name, count in Counter(names).items() if count > 1]:
            log.warning("%s has several columns named %s; only the first of them is used under this name.", file,
                        ", ".join(printable_text(name) for name in twice[:5]))  # fmt: skip
        for place, name in enumerate(names):
            times[name] += 1
            names[place] = f"{name} ({times[name]})" if times[name] > 1 else name
        rows.columns = pd.Index(names)
    return rows.fillna("")


def bare_list(file: Path) -> list[str]:
    """The names in a list of images, one a line: the first column, without a header if there is one."""
    lines = [line.strip() for line in io.StringIO(decoded_text(file, "auto")) if line.strip()]
    cells = [first_cell(line) for line in lines]
    if cells and len(cells) > 1 and not SUFFIX.search(cells[0]) and SUFFIX.search(cells[1]):
        cells = cells[1:]  # a header
    if not cells:
        raise ValueError(f"{file} is empty; a list of image names was expected.")
    return cells


def _listing(folder: Path) -> tuple[tuple[int, int], list[str], list[str]]:
    """Identity of a folder, its files and its subfolders. Pipes and devices are skipped: reading one may never end."""
    try:
        status = folder.stat()
        with os.scandir(folder) as entries:
            shown = [entry for entry in entries if not entry.name.startswith(".")]
        inner = sorted(entry.name for entry in shown if _is(entry.is_dir))
        names = sorted(
            entry.name for entry in shown if _is(entry.is_file) or (entry.is_symlink() and not _is(entry.is_dir))
        )
    except OSError as error:
        raise type(error)(f"{folder} cannot be read: {error.strerror}.") from None
    return (status.st_dev, status.st_ino), names, inner


def _is(kind: Callable[[], bool]) -> bool:
    """The kind of a link's target; a circular or broken link is neither file nor folder."""
    try:
        return kind()
    except OSError:
        return False


def _read(source: Path | io.StringIO, file: Path, **options: Any) -> pd.DataFrame:
    """Read a table; errors are one line."""
    with explained(file), warnings.catch_warnings():
        # rows with more cells than the header would lose some
        warnings.simplefilter("error", pd.errors.ParserWarning)
        return pd.read_csv(source, index_col=False, keep_default_na=False, encoding="utf-8-sig", **options)
