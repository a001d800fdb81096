"""Page and tables of learning curves: AUROC by number of labelled images, forecasts, and gains from more labels."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from markupsafe import Markup

from ribcage.metrics.estimates import ScalarEstimate
from ribcage.reports import html, svg
from ribcage.reports.html import Table
from ribcage.reports.numbers import decimals, finding_name, limits, signed, signed_limits
from ribcage.reports.svg import Area, Axes, Dots, Line, Ticks
from ribcage.runtime import files
from ribcage.training.label_efficiency import LabelCurve, LabelCurves

PAGE_FILE = "labels.html"
SMALL = 0.01
"""Gain in AUROC that is called small."""


def write_label_page(result: LabelCurves, facts: Sequence[tuple[str, str]], folder: Path) -> Path:
    """labels.html in a folder."""
    page = html.render(
        "labels.html",
        title="Learning curve",
        facts=facts,
        averaged=len(result.averaged),
        count_table=count_table(result),
        reason=result.macro.reason,
        forecast_table=forecast_table(result.macro),
        curves=[curve_plot(one) for one in (result.macro, *result.findings) if one.counts],
        gain_table=gain_table(result),
        available=result.available,
        tested=result.tested,
    )
    files.write_text(folder / PAGE_FILE, page)
    return folder / PAGE_FILE


def count_table(result: LabelCurves) -> Table:
    """A row per number of images, for the macro mean."""
    rows = [
        [round(one.images), one.subsets, f"{one.positives:,.0f}", decimals(one.auroc.value), limits(one.auroc),
         decimals(one.sd)]
        for one in result.macro.counts
    ]  # fmt: skip
    return Table(["images", "subsets", "positives per finding", "mean AUROC", "95 % interval", "SD of subsets"], rows)


def forecast_table(curve: LabelCurve) -> Table:
    """A row per forecast."""
    rows = [
        [f"{one.images:,.0f}", decimals(one.value), limits(ScalarEstimate(one.value, one.low, one.high)),
         signed(one.gain), signed_limits(ScalarEstimate(one.gain, one.gain_low, one.gain_high))]
        for one in curve.forecasts
    ]  # fmt: skip
    return Table(["images", "forecast", "95 % prediction interval", "gain", "95 % interval"], rows)


def gain_table(result: LabelCurves) -> Table:
    """What more labels would gain, a row per finding."""
    rows = [[finding_name(one.name), *_now(one), *_gains(one)] for one in result.findings]
    return Table(["finding", "images", "positives", "AUROC", "what more labels would gain"], rows)


def _now(curve: LabelCurve) -> list[object]:
    """The largest number of images."""
    if not curve.counts:
        return ["–", "–", "–"]
    last = curve.counts[-1]
    return [round(last.images), round(last.positives), decimals(last.auroc.value)]


def _gains(curve: LabelCurve) -> list[object]:
    return [gain_phrase(curve)]


def gain_phrase(curve: LabelCurve) -> str:
    """2 × as many: +0.012 (+0.004 to +0.025), at least 0.01 …; the reason where there is no forecast."""
    if curve.reason:
        return curve.reason
    largest = curve.counts[-1].images
    parts = []
    for one in curve.forecasts:
        gain = ScalarEstimate(one.gain, one.gain_low, one.gain_high)
        size = " (small)" if one.gain_high < SMALL else ""
        parts.append(f"{one.images / largest:g} × as many: {signed(gain.value)} ({signed_limits(gain)}){size}")
    return "; ".join(parts)


def curve_plot(curve: LabelCurve) -> Markup:
    """AUROC over the number of images, on a logarithmic axis, with the fitted curve and its interval."""
    x = np.log10([one.images for one in curve.counts])
    values, lows, highs = (
        np.array([getattr(one.auroc, name) for one in curve.counts]) for name in ("value", "low", "high")
    )
    parts: list[Line | Dots | Area] = []
    ends = [float(x[0]), float(x[-1])]
    if curve.band:
        across = np.log10(curve.band.images)
        parts.append(Area(across, np.array(curve.band.low), np.array(curve.band.high)))
        parts.append(Line(across, np.array(curve.band.value)))
        ends[1] = float(across[-1])
    ends_of_bars = zip(x, lows, highs, strict=True)
    parts += [Line(np.repeat(at, 2), np.array([low, high]), "other") for at, low, high in ends_of_bars]
    parts.append(Dots(x, values))
    if curve.forecasts:
        ahead = np.log10([one.images for one in curve.forecasts])
        parts.append(Dots(ahead, np.array([one.value for one in curve.forecasts]), "mark"))
    if ends[1] - ends[0] < 0.1:
        ends = [ends[0] - 0.1, ends[1] + 0.1]
    bottom = min(0.5, float(np.floor(10 * min(lows.min(), 1.0)) / 10))
    up = [(value, f"{value:.1f}".lstrip("0")) for value in np.arange(round(10 * bottom), 11) / 10]
    axes = Axes((ends[0], ends[1]), (bottom, 1.0), "training images", "AUROC", _count_ticks(ends), up)
    return svg.plot("Mean of the findings" if curve.name == "mean" else finding_name(curve.name), parts, axes)


def _count_ticks(ends: Sequence[float]) -> Ticks:
    """Powers of ten within the ends, or the ends themselves."""
    powers = [power for power in range(12) if ends[0] <= power <= ends[1]]
    if powers:
        return [(float(power), f"{10**power:,}") for power in powers]
    return [(end, f"{10**end:,.0f}") for end in ends]
