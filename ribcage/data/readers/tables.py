"""Tables as datasets ship them: found below a folder, plain or compressed, with their columns checked by name."""

import codecs
import contextlib
import csv
import gzip
import io
import logging
import os
import re
import warnings
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ribcage.runtime.files import regular

IMAGES = (".png", ".jpg", ".jpeg", ".dcm", ".dicom", ".tif", ".tiff", ".bmp")
SUFFIX = re.compile(r"\.[A-Za-z]{3,5}$")
COMPRESSED = ("", ".gz", ".zip")
MASK_FOLDERS = (
    *("mask", "masks", "leftmask", "rightmask", "manualmask", "seg", "segs", "segmentation", "segmentations"),
    *("annotation", "annotations"),
)
"""Names of folders of masks."""
MOST_COLUMNS = 10_000
LARGEST = 1 << 30
"""Limit on the bytes of a table, decompressed."""

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
    """Column names of a table."""
    return list(_read(file, file, nrows=0).columns)


def read_table(
    file: Path, needed: Sequence[str], numbers: Sequence[str] = (), wanted: Sequence[str] = ()
) -> pd.DataFrame:
    """The `needed` columns and, if present, the `wanted` ones, as text, "" where empty; the `numbers` as numbers."""
    names = header(file)
    absent = [name for name in needed if name not in names]
    if absent:
        more = f" and {len(absent) - 5} others" * (len(absent) > 5)
        raise ValueError(
            f"{file} has no column {' and no column '.join(absent[:5])}{more}. Its columns are "
            f"{printable_text(', '.join(names[:30]), 400)}."
        )
    kept = [name for name in names if name in (*needed, *wanted)]
    types = {name: np.float32 if name in numbers else str for name in kept}
    blank = {name: ["", "nan", "NaN"] for name in numbers if name in kept}
    rows = _read(file, file, usecols=kept, dtype=types, na_values=blank)
    if rows.empty:
        raise ValueError(f"{file} has a header, but no rows.")
    return rows.fillna({name: "" for name in kept if name not in numbers})


def without_blanks(rows: pd.DataFrame, key: str, file: Path) -> pd.DataFrame:
    """The rows of a published table; ValueError if a cell of this column is blank, as in an incomplete last line."""
    blank = (rows[key].str.strip() == "").to_numpy()
    if blank.any():
        raise ValueError(
            f"{file} has no {key!r} in row {int(blank.argmax()) + 1:,} of {len(rows):,}; the file may be incomplete. "
            "Download it again."
        )
    return rows


def one_row_each(rows: pd.DataFrame, key: str, file: Path) -> pd.DataFrame:
    """The rows of a published table, each once; ValueError if rows with the same key differ."""
    rows = rows.drop_duplicates(ignore_index=True)
    twice = rows[key].duplicated(keep=False)
    if twice.any():
        raise ValueError(
            f"{file} has several rows that differ for {rows[key][twice].nunique():,} of {rows[key].nunique():,} values "
            f"of {key!r}, such as {printable_text(rows[key][twice].iloc[0])}. The published table has one row each. "
            "Download it again."
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
            except (pd.errors.ParserError, ValueError, EOFError, zlib.error, OSError) as error:
                raise ValueError(f"{file} cannot be read as a table: {' '.join(str(error).split())}") from None


def headerless(
    file: Path, names: Sequence[str], numbers: Sequence[str] = (), sep: str = ",", skip: int = 0
) -> pd.DataFrame:
    """The first columns of a table without a header (or with `skip` lines of one), under these names."""
    types = {name: np.float32 if name in numbers else str for name in names}
    return _read(
        file, file, header=None, names=list(names), usecols=range(len(names)), dtype=types, sep=sep, skiprows=skip
    )


def width(file: Path, sep: str = ",") -> int:
    """Number of columns in the first line."""
    return _read(file, file, header=None, nrows=1, dtype=str, sep=sep).shape[1]


def sniffed(file: Path, encoding: str = "auto") -> pd.DataFrame:
    """All columns of a table of unknown origin as text, with encoding, separator and repeated names detected."""
    text = _text(file, encoding)
    first = next((line for line in io.StringIO(text) if line.strip()), "")
    separator = max(",;\t", key=first.count)
    if first.count(separator) >= MOST_COLUMNS:
        raise ValueError(f"{file} has {first.count(separator) + 1:,} columns; the limit is {MOST_COLUMNS:,}.")
    names = _check_widths(text, separator, file)
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
    if len(names) == rows.shape[1]:
        times: Counter[str] = Counter()
        for place, name in enumerate(names):
            times[name] += 1
            names[place] = f"{name} ({times[name]})" if times[name] > 1 else name
        rows.columns = pd.Index(names)
    return rows.fillna("")


def bare_list(file: Path) -> list[str]:
    """The names in a list of images, one a line: the first column, without a header if there is one."""
    lines = [line.strip() for line in io.StringIO(_text(file, "auto")) if line.strip()]
    cells = [_first_cell(line) for line in lines]
    if cells and len(cells) > 1 and not SUFFIX.search(cells[0]) and SUFFIX.search(cells[1]):
        cells = cells[1:]  # a header
    if not cells:
        raise ValueError(f"{file} is empty; a list of image names was expected.")
    return cells


def _first_cell(line: str) -> str:
    """The file in a line such as 'a b.png', 'a.png 0 1', 'a.png,Effusion' or '"a.png"'."""
    cell = re.split(r"[,;\t]", line)[0].strip().strip("\"'")
    return re.sub(r"(?<=\.\w{3}|\w{4})(?:\s+[\d.]+)+$", "", cell)


def printable_text(text: str, most: int = 60) -> str:
    """Text of a table from outside, shortened and without control characters, for messages."""
    line = "".join(letter if letter.isprintable() else "?" for letter in " ".join(text.split()))
    return line if len(line) <= most else line[: most - 1] + "…"


def _check_widths(text: str, separator: str, file: Path) -> list[str]:
    """The header; raise for the first row with another number of cells, as these may be in the wrong columns."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    wide, names = 0, list[str]()
    try:
        for row in reader:
            names = names if wide else [name.strip() for name in row]
            wide = wide or len(row)
            if len(row) != wide and any(cell.strip() for cell in row):
                raise ValueError(f"{file} has {len(row)} cells in line {reader.line_num}, but {wide} in its header.")
    except csv.Error as error:
        raise ValueError(f"{file} cannot be read as a table: {error} in line {reader.line_num}.") from None
    return names


def _bytes(file: Path) -> bytes:
    """Content of a table, decompressed up to a limit."""
    try:
        regular(file)
        with gzip.open(file) if file.suffix.lower() == ".gz" else file.open("rb") as stream:
            data = stream.read(LARGEST + 1)
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise ValueError(f"{file} is damaged: {error}. Download it again.") from None
    if len(data) > LARGEST:
        raise ValueError(f"{file} is larger than {LARGEST >> 20:,} MiB, the limit for a table.")
    return data


def _text(file: Path, encoding: str) -> str:
    """Text of a file, in the first of the usual encodings that fits."""
    data = _bytes(file)
    if b"\0" in data and not data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) and "16" not in encoding:
        raise ValueError(f"{file} is not text: it contains NUL bytes. If it is UTF-16, pass --encoding utf-16.")
    if encoding == "auto":
        wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        tried = ["utf-16"] if wide else ["utf-8-sig", *(["gb18030"] if _chinese(data) else []), "latin-1"]
    else:
        tried = [encoding]
    for each in tried:
        try:
            return data.decode(each)
        except UnicodeError:
            continue
        except LookupError:
            raise ValueError(f"Unknown --encoding {encoding!r}. Try utf-8, gb18030 or latin-1.") from None
    raise ValueError(f"{file} is not {tried[-1]} text. Try --encoding utf-8, gb18030 or latin-1.")


def _chinese(data: bytes) -> bool:
    """Whether bytes are GB 18030: half of the non-ASCII characters or more are of the first level of GB 2312. Latin-1
    text may be valid GB 18030, but decodes to rare characters."""
    try:
        foreign = re.sub(r"[\x00-\x7f]+", "", data.decode("gb18030"))
    except UnicodeError:
        return False
    leads = foreign.encode("gb2312", "ignore")[::2]
    return 2 * sum(lead <= 0xD7 for lead in leads) >= len(foreign)


def translated(column: pd.Series, ours: dict[str, str]) -> pd.Series:
    """Text translated by a table, ignoring case; "" for unknown words."""
    return column.str.strip().str.lower().map(ours).fillna("").astype("str")


SEX = {"f": "F", "female": "F", "m": "M", "male": "M", "女": "F", "男": "M", "女性": "F", "男性": "M", "w": "F"}
CHINESE_UNITS = {"岁": 1.0, "月": 12.0, "个月": 12.0, "周": 52.18, "天": 365.25, "日": 365.25}


def years(ages: pd.Series) -> pd.Series:
    """Ages such as 58, '058Y', '011M', '013D', 58岁 or 8个月 in years; NaN for anything else and above 120."""
    found = ages.str.strip().str.extract(r"^(\d+(?:\.\d*)?)\s*([YMWD岁月周天日]|个月|)$", expand=True)
    per_year = found[1].map({"Y": 1.0, "": 1.0, "M": 12.0, "W": 52.18, "D": 365.25} | CHINESE_UNITS)
    age = found[0].astype("float64") / per_year
    return age.where(age <= 120).astype("float32")


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
    try:
        with warnings.catch_warnings():
            # rows with more cells than the header would lose some
            warnings.simplefilter("error", pd.errors.ParserWarning)
            return pd.read_csv(source, index_col=False, keep_default_na=False, encoding="utf-8-sig", **options)
    except (gzip.BadGzipFile, zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise ValueError(f"{file} is damaged: {error}. Download it again.") from None
    except UnicodeDecodeError:
        raise ValueError(f"{file} is not UTF-8 text. Download it again.") from None
    except (pd.errors.ParserError, pd.errors.ParserWarning, pd.errors.EmptyDataError, ValueError) as error:
        raise ValueError(f"{file} cannot be read as a table: {' '.join(str(error).split())}") from None
