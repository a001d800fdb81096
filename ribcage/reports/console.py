"""Tables for the terminal, at most as wide as it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ribcage.reports.html import Bar, Table, thousands

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table as RichTable

LONGEST_HEAD = 20
"""Characters of a word in a head that are kept on one line, if the column is not wider anyway."""
GAP = 3
"""Characters between two columns."""


def print_table(console: "Console", table: Table) -> None:
    """Print a table. Columns that do not fit into the console follow below, with the first column repeated."""
    left = list(range(1, len(table.head)))
    if not left:
        console.print("", console_table(table, console.width), "", sep="\n")
    while left:
        count = max(1, sum(fits(table.columns([0, *left[:end]]), console.width) for end in range(1, len(left) + 1)))
        console.print("", console_table(table.columns([0, *left[:count]]), console.width), "", sep="\n")
        left = left[count:]


def fits(table: Table, width: int) -> bool:
    """Whether every column of a table has the width it needs."""
    return sum(each.least for each in _columns(table)) + _frame(table) <= width


def console_table(table: Table, width: int) -> "RichTable":
    """A table as rich prints it, its text as it is; columns of bars are left to the page."""
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    drawn = RichTable(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    columns = _columns(table)
    spare = width - _frame(table) - sum(each.least for each in columns)
    for column in reversed(columns):  # the texts of the first column are wrapped before heads are
        column.width = column.least + min(max(0, spare), column.natural - column.least)
        spare -= column.width - column.least
    for number, column in enumerate(columns):
        justify = "right" if number else "left"
        drawn.add_column(Text(column.head), justify=justify, width=column.width, overflow="fold")  # type: ignore[arg-type]
    for cells in zip(*(column.cells for column in columns), strict=True):
        drawn.add_row(*map(Text, cells))
    return drawn


class _Column:
    """A column and its widths in characters: all on one line; at least, with its head and first cells wrapped."""

    def __init__(self, head: str, cells: Sequence[str], first: bool) -> None:
        from rich.cells import cell_len

        self.head, self.cells = head, cells
        of_cells = max((cell_len(text) for text in cells), default=0)
        self.natural = max(of_cells, cell_len(head))
        of_words = [min(LONGEST_HEAD, cell_len(word)) for word in head.split()]
        of_words += (
            [min(LONGEST_HEAD, cell_len(word)) for text in cells for word in text.split()] if first else [of_cells]
        )
        self.least = self.width = max([1, *of_words])


def _columns(table: Table) -> list[_Column]:
    rows = table.all_rows
    places = [place for place in range(len(table.head)) if not rows or not isinstance(rows[0][place], Bar)]
    return [_Column(table.head[place], [thousands(row[place]) for row in rows], not place) for place in places]


def _frame(table: Table) -> int:
    """Characters of a table beside those of its columns."""
    return GAP * (len(_columns(table)) - 1)
