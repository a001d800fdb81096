"""Tables for the terminal."""

from typing import TYPE_CHECKING

from ribcage.reports.html import Bar, Table, thousands

if TYPE_CHECKING:
    from rich.table import Table as RichTable


def console_table(table: Table) -> "RichTable":
    """A table as rich prints it, its text as it is; columns of bars are left to the page."""
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    drawn = RichTable(box=box.SIMPLE_HEAD, pad_edge=False)
    first = table.all_rows[0] if table.all_rows else table.head
    shown = [place for place, cell in enumerate(first) if not isinstance(cell, Bar)]
    for place in shown:
        drawn.add_column(Text(table.head[place]), justify="left" if place == 0 else "right")
    for row in table.all_rows:
        drawn.add_row(*(Text(thousands(row[place])) for place in shown))
    return drawn
