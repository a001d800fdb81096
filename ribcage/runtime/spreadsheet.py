"""Spreadsheet: CSV files that a spreadsheet opens without running what stands in them.

A cell that begins with =, +, -, @, a tab or a carriage return is a formula to Excel and LibreOffice, and the texts that
we write – paths, findings, patients – come from anybody. Such a beginning gets an apostrophe before it, also behind
what some spreadsheet may take for the end of a cell (; , | tab, new line, quotation mark). `told` takes it away again.
Numbers are written as they are.
"""

import csv
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TextIO

import pandas as pd

from ribcage.runtime import files

_BEGINS = r"(^|[;,|\t\r\n\"])('*)"
_WORKS = r"(?=[=+\-@\t\r\uff1d\uff0b\uff0d\uff20])"  # the wide ones are read as the others in China and Japan
_SHIELD = re.compile(_BEGINS + _WORKS)
_TELL = re.compile(_BEGINS + "'" + _WORKS)


def escaped(text: str) -> str:
    """The text with an apostrophe before each thing that may be a formula."""
    return _SHIELD.sub(r"\1\2'", text)


def unescaped(text: str) -> str:
    """What `shielded` has made this of."""
    return _TELL.sub(r"\1\2", text)


def write_csv(table: pd.DataFrame, file: Path) -> None:
    """A table as CSV in UTF-8."""
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
    """Where rows are written to: names of files that are not UTF-8 become escapes, ends of lines are ours alone."""
    return files.open_regular(file, "w", encoding="utf-8", errors="backslashreplace", newline="")


def _quoting(returns: bool) -> Literal[0, 2]:
    """All texts are quoted where some hold a carriage return, which readers take for the end of a row."""
    return csv.QUOTE_NONNUMERIC if returns else csv.QUOTE_MINIMAL


def write_csv_rows(head: Sequence[str], rows: Sequence[Sequence[object]], file: Path) -> None:
    """Rows as CSV in UTF-8."""
    with _text(file) as stream:
        returns = any("\r" in str(value) for row in rows for value in row)
        table = csv.writer(stream, lineterminator="\n", quoting=_quoting(returns))
        table.writerow([escaped(name) for name in head])
        table.writerows([_cell(value) for value in row] for row in rows)


def unescaped_table(table: pd.DataFrame) -> pd.DataFrame:
    """A table read from CSV, of ours or anybody's, as it was before it was written."""
    read = table.rename(columns=lambda name: unescaped(name) if isinstance(name, str) else name)
    for place, kind in enumerate(read.dtypes):
        if not pd.api.types.is_numeric_dtype(kind):
            cells = read.iloc[:, place]
            read.isetitem(
                place, cells.map(lambda value: unescaped(value) if isinstance(value, str) else value).astype(kind)
            )
    return read
