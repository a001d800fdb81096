"""Intervals drawn in a table cell: the value, its limits, and a line at chance level."""

from collections.abc import Sequence

import numpy as np

from ribcage.metrics.estimates import ScalarEstimate
from ribcage.reports import svg
from ribcage.reports.html import Drawing


def interval_drawing(interval: ScalarEstimate, ends: tuple[float, float], chance: float = 0.5) -> Drawing:
    """An interval on an axis from one end to the other."""
    value, low, high = (np.nan if each is None else each for each in (interval.value, interval.low, interval.high))
    return Drawing(svg.interval_plot(value, low, high, ends, mark=chance))


def axis_ends(intervals: Sequence[ScalarEstimate]) -> tuple[float, float]:
    """Ends of an axis that shows all these AUROCs and chance level."""
    lows = [one.low if one.low is not None else one.value for one in intervals]
    known = [low for low in lows if low is not None]
    return min([0.45, *(float(np.floor(20 * low) / 20) for low in known)]), 1.0
