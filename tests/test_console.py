"""Tables on the terminal are never wider than it, and nothing of them is cut."""

import io

import pytest

from ribcage.reports import console
from ribcage.reports.comparison import DIFFERENCE_HEAD
from ribcage.reports.html import Bar, Table
from ribcage.runtime import terminal

ROWS = [["Pleural Thickening", "0.944", "−0.027 to +0.001", *["0.123"] * 6], ["肺炎", "–", "–", *["< 0.001"] * 6]]


def printed(table: Table, width: int) -> list[str]:
    stream = io.StringIO()
    console.print_table(terminal.console(stream, width=width), table)
    return stream.getvalue().splitlines()


@pytest.mark.parametrize("width", [40, 60, 80, 120])
@pytest.mark.parametrize("head", [DIFFERENCE_HEAD, ("", *(f"runs/a-long-name-of-a-run/{n}" for n in range(8)))])
def test_a_table_fits_with_all_its_columns(width: int, head: tuple[str, ...]) -> None:
    from rich.cells import cell_len

    lines = printed(Table(head, ROWS), width)
    assert max(map(cell_len, lines)) <= width and "…" not in "".join(lines)
    text = "\n".join(lines)
    assert text.count("< 0.001") == 6 and "−0.027 to +0.001" in text
    assert "Thickening" in text and text.count("肺炎") >= 1
    assert all(word in text for name in DIFFERENCE_HEAD for word in name.split() if head is DIFFERENCE_HEAD)


def test_a_table_that_fits_is_in_one_piece_and_bars_are_left_out() -> None:
    lines = printed(Table(["finding", "bar", "n"], [["Mass", Bar(0.5), 12345]], ["all", "", 1]), 30)
    assert [line.split() for line in lines if line.strip() and "─" not in line] == [
        ["finding", "n"], ["Mass", "12,345"], ["all", "1"],
    ]  # fmt: skip
