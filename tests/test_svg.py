"""Plots are valid XML, small, and show the given numbers."""

import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from ribcage.reports import svg
from ribcage.reports.svg import Axes, Dots, Line


def test_a_plot_is_valid_xml_even_with_a_hostile_name() -> None:
    drawn = svg.plot('<b>"Mass" & 肿块', [Line(np.array([0.0, 1.0]), np.array([0.0, 1.0]))])
    root = ET.fromstring(drawn)
    assert root.attrib["aria-label"] == '<b>"Mass" & 肿块'


def test_a_point_lies_where_its_number_says() -> None:
    drawn = svg.plot("", [Dots(np.array([0.0, 1.0, 5.0]), np.array([0.0, 1.0, 0.5]))], Axes((0, 2), (0, 1)))
    places = [(float(x), float(y)) for x, y in re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)"', drawn)]
    left, right, top, bottom = svg.LEFT, svg.WIDTH - svg.RIGHT, svg.TOP, svg.HEIGHT - svg.BOTTOM
    assert places == [(left, bottom), ((left + right) / 2, top), (right, pytest.approx((top + bottom) / 2))]


def test_what_is_not_a_number_is_not_drawn() -> None:
    drawn = svg.plot("", [Dots(np.array([np.nan]), np.array([0.5])), Line(np.array([np.nan]), np.array([np.nan]))])
    assert "circle" not in drawn and "nan" not in drawn
    assert "circle" not in svg.interval_plot(np.nan, np.nan, np.nan, (0, 1))


def test_a_long_curve_is_thinned_and_keeps_its_ends() -> None:
    x = np.linspace(0, 1, 20_000)
    few_x, few_y = svg.thinned(x, x**2)
    assert len(few_x) <= svg.POINTS + 1
    assert (few_x[0], few_x[-1], few_y[-1]) == (0, 1, 1)
    assert np.abs(np.interp(x, few_x, few_y) - x**2).max() < 1e-3


@pytest.mark.parametrize(("largest", "end"), [(0.013, 0.02), (0.3, 0.4), (0.41, 0.5), (1.0, 1.0), (0.1, 0.1)])
def test_an_axis_ends_at_a_round_number(largest: float, end: float) -> None:
    found, ticks = svg.nice(largest)
    assert found == pytest.approx(end) and len(ticks) == 3
