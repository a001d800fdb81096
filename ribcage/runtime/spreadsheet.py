"""Spreadsheet: CSV files that are safe to open in a spreadsheet (CSV injection).

Excel and LibreOffice take a cell that begins with =, +, -, @, a tab or a carriage return for a formula, and paths,
findings and patient identifiers may come from outside. Such cells get a leading apostrophe, also after characters that
a spreadsheet may take for the end of a cell (; , | tab, line feed, quotation mark). `unescaped` removes it again.
Numbers are written unchanged.
"""

import csv
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TextIO

import pandas as pd

from ribcage.runtime import files

_BEGINS = r"(^|[;,|\t\r\n\"])('*)"
# full-width characters count as well in Chinese and Japanese versions
_WORKS = r"(?=[=+\-@\t\r\uff1d\uff0b\uff0d\uff20])"
_SHIELD = re.compile(_BEGINS + _WORKS)
_TELL = re.compile(_BEGINS + "'" + _WORKS)


def escaped(text: str) -> str:
    """The text with an apostrophe before everything that could be read as a formula."""
    return _SHIELD.sub(r"\1\2'", text)


def unescaped(text: str) -> str:
    """The text before `escaped`."""
    return _TELL.sub(r"\1\2", text)


def write_csv(table: pd.DataFrame, file: Path) -> None:
    """Write a table as CSV in UTF-8."""
    shown, returns = table.copy(deep=False), any("\r" in str(name) for name in table.columns)
    for place, kind in enumerate(table.dtypes):
        if not (pd.api.types.is_numeric_dtype(kind) or pd.api.types.is_bool_dtype(kind)):
            cells = table.iloc[:, place]
            shown.isetitem(place, cells.astype(object).map(_cell))
            returns |= bool(cells.map(lambda value: isinstance(value, str) and "\r" in value).any())
    shown.columns = pd.Index([escaped(str(name)) for name in table.columns])
    with _text(file) as stream:
        shown.to_csv(stream, index=False, lineterminator="\n", quoting=_quoting(returns))


def _cell(value: object) -> object:
    return escaped(value) if isinstance(value, str) else value


def _text(file: Path) -> TextIO:
    """Open for writing: file names that are not valid UTF-8 become escapes; line endings are not translated."""
    return files.open_regular(file, "w", encoding="utf-8", errors="backslashreplace", newline="")


def _quoting(returns: bool) -> Literal[0, 2]:
    """Quote all texts if one has a carriage return, which readers take for the end of a row."""
    return csv.QUOTE_NONNUMERIC if returns else csv.QUOTE_MINIMAL


def write_csv_rows(head: Sequence[str], rows: Sequence[Sequence[object]], file: Path) -> None:
    """Write rows as CSV in UTF-8."""
    with _text(file) as stream:
        returns = any("\r" in str(value) for row in rows for value in row)
        table = csv.writer(stream, lineterminator="\n", quoting=_quoting(returns))
        table.writerow([escaped(name) for name in head])
        table.writerows([_cell(value) for value in row] for row in rows)


def unescaped_table(table: pd.DataFrame) -> pd.DataFrame:
    """A table read from CSV with the escapes of its texts removed."""
    read = table.rename(columns=lambda name: unescaped(name) if isinstance(name, str) else name)
    for place, kind in enumerate(read.dtypes):
        if not pd.api.types.is_numeric_dtype(kind):
            cells = read.iloc[:, place]
            read.isetitem(
                place, cells.map(lambda value: unescaped(value) if isinstance(value, str) else value).astype(kind)
            )
    return read
