"""Templates escape all values, and a missing value is an error."""

from dataclasses import replace

import jinja2
import numpy as np
import pytest

from ribcage.reports import html, svg
from ribcage.reports.html import Bar, Drawing, Table


def shown(table: Table) -> str:
    part = html.environment().get_template("parts.html.jinja").module
    return str(part.table(table))  # type: ignore[attr-defined]


def test_a_cell_holds_a_number_a_text_a_bar_or_a_drawing() -> None:
    drawing = Drawing(svg.interval_plot(0.8, 0.7, 0.9, (0.5, 1.0), mark=0.5))
    text = shown(Table(["a"] * 5, [[12345, "0.5", "x<b>", Bar(0.25), drawing]]))
    for cell in ("<td>12,345</td>", "<td>0.5</td>", '<td class="text">x&lt;b&gt;</td>', "width:25.0%", "<line "):
        assert text.count(cell) == 1 + (cell == "<line ")
    assert 'class="total"' not in text


def test_a_total_stands_apart_and_columns_are_chosen_in_all_rows() -> None:
    table = Table(["a", "b", "c"], [[1, 2, 3], [4, 5, 6]], [7, 8, 9]).columns([2, 0])
    assert (table.head, table.rows, table.total) == (["c", "a"], [[3, 1], [6, 4]], [9, 7])
    assert '<tr class="total"><td>9</td><td>7</td></tr>' in shown(table)
    assert replace(table, total=None).all_rows == [[3, 1], [6, 4]]


def test_a_value_that_is_missing_is_an_error() -> None:
    with pytest.raises(jinja2.UndefinedError, match="figures"):
        html.render("notebook.html", title="", cards=[])


def test_a_figure_has_its_boxes_in_its_pixels() -> None:
    figure = html.gray_figure(np.zeros((10, 20), np.uint16), "<i>", [(1, 2, 3, 4)])
    text = html.render("notebook.html", title="", cards=[], figures=[figure])
    assert 'viewBox="0 0 20 10"' in text and '<rect x="1.0" y="2.0" width="3.0" height="4.0"/>' in text
    assert 'alt="&lt;i&gt;" width="20" height="10"' in text
    assert "<svg" not in html.render("notebook.html", title="", cards=[], figures=[replace(figure, boxes=())])
