"""Table text: the decompressed and decoded text of a table, its lines, and errors that name the line of a cell."""

import codecs
import contextlib
import csv
import gzip
import io
import re
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import IO, TextIO, cast

import pandas as pd

from ribcage.runtime.files import regular
from ribcage.runtime.spelling import count_phrase

LARGEST = 1 << 30
"""Limit on the bytes of a table, decompressed."""
LONGEST_SHOWN = 30
"""Limit on the characters of a cell that is shown in a message."""
DAMAGED = (gzip.BadGzipFile, zipfile.BadZipFile, zlib.error, EOFError)
PARSER_ERRORS = (pd.errors.ParserError, pd.errors.ParserWarning, pd.errors.EmptyDataError, csv.Error, ValueError)
FEWER_OR_MORE = re.compile(r"Expected (\d+) fields in line (\d+), saw (\d+)")


def printable_text(text: str, most: int = 60) -> str:
    """Text of a table from outside, shortened and without control characters, for messages."""
    line = "".join(letter if letter.isprintable() else "?" for letter in " ".join(text.split()))
    return line if len(line) <= most else line[: most - 1] + "…"


def shown(cell: str) -> str:
    """A cell for a message. A long one may be the text of a report, which is patient data."""
    return repr(cell) if len(cell) <= LONGEST_SHOWN else f"a text of {len(cell):,} characters"


def column_names(names: Iterable[str]) -> str:
    """Names of columns for a message. If a table has no header, they are cells, one of which may be a report."""
    return ", ".join(
        printable_text(name)
        if len(name) <= LONGEST_SHOWN or re.fullmatch(r"[\w.:/-]+", name, re.ASCII)
        else shown(name)
        for name in names
    )


def without_cells(error: Exception) -> str:
    """An error of pandas in one line. A cell that it quotes may be the text of a report."""
    quoted = re.compile(r"(['\"])(.*)\1")
    return quoted.sub(lambda match: shown(match[2]), " ".join(str(error).split()))


def cell_error(file: Path, row: int, column: str, cell: str, expected: str) -> ValueError:
    """An error about a cell, which names its file, line and column. row: number of the row below the header, from 0."""
    return ValueError(
        f"{file}, line {line_of_row(file, row):,}, column {printable_text(column)!r}: {shown(cell)} was found, but "
        f"{expected} was expected."
    )


@contextlib.contextmanager
def named_errors(file: Path) -> Iterator[None]:
    """Errors about the content of a file or folder begin with its path, unless they contain it already."""
    try:
        yield
    except ValueError as error:
        raise (error if str(file) in str(error) else ValueError(f"{file}: {error}")) from None


def line_of_row(file: Path, row: int) -> int:
    """The line of a row of a table with a header; rows and lines are counted from 0 and 1, blank lines are no rows."""
    with contextlib.suppress(*DAMAGED, OSError, ValueError, csv.Error), opened_text(file) as stream:
        return next(islice(row_lines(stream, ","), row, None), row + 2)
    return row + 2


def check_widths(lines: Iterable[str], separator: str, file: Path) -> list[str]:
    """The header; ValueError for the first row with another number of cells, as these may be in the wrong columns."""
    reader = csv.reader(lines, delimiter=separator)
    wide, names = 0, list[str]()
    try:
        for row in reader:
            if not wide:
                names, wide = [name.strip() for name in row], len(row)
            elif len(row) != wide and any(cell.strip() for cell in row):
                raise ValueError(
                    f"{file} has {count_phrase(len(row), 'cell')} in line {reader.line_num}, but {wide} in its header."
                )
    except csv.Error as error:
        raise ValueError(f"{file} cannot be read as a table: {error} in line {reader.line_num}.") from None
    return names


def first_cell(line: str) -> str:
    """The file in a line such as 'a b.png', 'a.png 0 1', 'a.png,Effusion' or '"a.png"'."""
    cell = re.split(r"[,;\t]", line)[0].strip().strip("\"'")
    return re.sub(r"(?<=\.\w{3}|\w{4})(?:\s+[\d.]+)+$", "", cell)


def row_lines(lines: Iterable[str], separator: str) -> Iterator[int]:
    """The first line of each row below the header; blank lines are no rows, and a cell may contain several lines."""
    reader, below, before = csv.reader(lines, delimiter=separator), False, 0
    for row in reader:
        if any(cell.strip() for cell in row) or len(row) > 1:
            if below:
                yield before + 1
            below = True
        before = reader.line_num


@contextlib.contextmanager
def opened_text(file: Path) -> Iterator[TextIO]:
    """The text of a published table (UTF-8), decompressed while it is read."""
    with _opened(file) as stream, io.TextIOWrapper(stream, "utf-8-sig", newline="") as text:
        yield text


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[IO[bytes]]:
    """The bytes of a plain file, of a gzip file, or of the only file in a zip archive."""
    regular(file)
    kind = file.suffix.lower()
    if kind == ".zip":
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
            if len(names) != 1:
                raise ValueError(f"{file} contains {len(names)} files; an archive with one table was expected.")
            with archive.open(names[0]) as stream:
                yield stream
    elif kind == ".gz":
        with gzip.open(file) as packed:
            yield cast(IO[bytes], packed)
    else:
        with file.open("rb") as plain:
            yield plain


def table_bytes(file: Path) -> bytes:
    """Content of a table, decompressed up to a limit."""
    try:
        with _opened(file) as stream:
            data = stream.read(LARGEST + 1)
    except DAMAGED as error:
        raise ValueError(f"{file} is damaged: {error}. Download it again.") from None
    if len(data) > LARGEST:
        raise ValueError(f"{file} is larger than {LARGEST >> 20:,} MiB, the limit for a table.")
    return data


def decoded_text(file: Path, encoding: str) -> str:
    """Text of a table of unknown origin, in the first of the usual encodings that fits."""
    data = table_bytes(file)
    if b"\0" in data and not data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) and "16" not in encoding:
        raise ValueError(f"{file} is not text: it contains NUL bytes. If it is UTF-16, pass --encoding utf-16.")
    if encoding == "auto":
        wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        tried = ["utf-16"] if wide else ["utf-8-sig", *(["gb18030"] if _is_chinese(data) else []), "latin-1"]
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


def _is_chinese(data: bytes) -> bool:
    """Whether bytes are GB 18030: half of the non-ASCII characters or more are of the first level of GB 2312. Latin-1
    text may be valid GB 18030, but decodes to rare characters."""
    try:
        foreign = re.sub(r"[\x00-\x7f]+", "", data.decode("gb18030"))
    except UnicodeError:
        return False
    leads = foreign.encode("gb2312", "ignore")[::2]
    return 2 * sum(lead <= 0xD7 for lead in leads) >= len(foreign)


@contextlib.contextmanager
def explained(file: Path) -> Iterator[None]:
    """Errors in reading a table, in one line that names the file."""
    try:
        yield
    except (*DAMAGED, *PARSER_ERRORS) as error:
        raise plain_error(file, error) from None


def plain_error(file: Path, error: Exception) -> ValueError:
    """An error of the parser, in words that do not depend on the parser."""
    said = without_cells(error)
    if isinstance(error, UnicodeError):
        return ValueError(f"{file} is not UTF-8 text. Save it as UTF-8, or download it again.")
    if isinstance(error, DAMAGED):
        return ValueError(f"{file} is damaged: {said}. Download it again.")
    if isinstance(error, pd.errors.EmptyDataError):
        return ValueError(f"{file} is empty; a table with a header was expected.")
    if found := FEWER_OR_MORE.search(said):
        return ValueError(
            f"{file} has {count_phrase(int(found[3]), 'cell')} in line {found[2]}, but {found[1]} were expected."
        )
    if isinstance(error, pd.errors.ParserWarning):
        return ValueError(f"{file} has rows with more cells than its header.")
    return (
        error
        if str(file) in said and type(error) is ValueError
        else ValueError(f"{file} cannot be read as a table: {said.removeprefix('Error tokenizing data. C error: ')}")
    )
