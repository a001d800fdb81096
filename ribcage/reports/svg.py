"""Plots: small SVG drawings of numbers. Colours are classes of the page's style, so they follow light and dark."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from ribcage.reports.html import escape

WIDTH, HEIGHT = 250, 225
LEFT, RIGHT, TOP, BOTTOM = 32, 6, 20, 34
POINTS = 160  # of a curve; more would not be visible
Ticks = Sequence[tuple[float, str]]


@dataclass(frozen=True)
class Line:
    """A line through points."""

    x: np.ndarray
    y: np.ndarray
    kind: str = "main"
    """main, other, faint; with -area down to the floor and filled."""


@dataclass(frozen=True)
class Dots:
    """Points."""

    x: np.ndarray
    y: np.ndarray
    kind: str = ""
    """"", other or mark."""


@dataclass(frozen=True)
class Area:
    """The area between two curves."""

    x: np.ndarray
    low: np.ndarray
    high: np.ndarray


@dataclass(frozen=True)
class Axes:
    """Range, label and ticks of both axes."""

    x: tuple[float, float] = (0.0, 1.0)
    y: tuple[float, float] = (0.0, 1.0)
    x_label: str = ""
    y_label: str = ""
    x_ticks: Ticks = ((0.0, "0"), (0.5, ".5"), (1.0, "1"))
    y_ticks: Ticks = ((0.0, "0"), (0.5, ".5"), (1.0, "1"))


def plot(name: str, parts: Sequence[Line | Dots | Area], axes: Axes | None = None) -> Markup:
    """One plot."""
    axes = axes or Axes()
    across, down = _scale(axes.x, LEFT, WIDTH - RIGHT), _scale(axes.y, HEIGHT - BOTTOM, TOP)
    drawn = [_part(part, across, down) for part in parts]
    title = escape(name)
    inner = f'<text class="name" x="{LEFT}" y="12">{title}</text>{_frame(axes, across, down)}{"".join(drawn)}'
    return Markup(f'<svg class="plot" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{title}">{inner}</svg>')


def interval_plot(
    value: float, low: float, high: float, ends: tuple[float, float], mark: float | None = None
) -> Markup:
    """A value with its interval on a line, for a table cell; `mark` is a thin vertical line, such as chance level."""
    at = _scale(ends, 4, 206)
    fine = "" if mark is None else f'<line class="faint" x1="{at(mark):.1f}" x2="{at(mark):.1f}" y1="0" y2="12"/>'
    line = "" if np.isnan([low, high]).any() else f'<line x1="{at(low):.1f}" x2="{at(high):.1f}" y1="6" y2="6"/>'
    dot = "" if np.isnan(value) else f'<circle cx="{at(value):.1f}" cy="6" r="3.4"/>'
    return Markup(f'<svg class="span" viewBox="0 0 210 12" aria-hidden="true">{fine}{line}{dot}</svg>')


def thinned(x: np.ndarray, y: np.ndarray, points: int = POINTS) -> tuple[np.ndarray, np.ndarray]:
    """A curve of at most about this many points: both ends, and the first of those that fall together."""
    if len(x) <= points:
        return x, y
    way = np.concatenate([[0.0], np.cumsum(np.abs(np.diff(x)) + np.abs(np.diff(y)))])
    steps = np.floor(way / max(way[-1], 1e-12) * (points - 1))
    kept = np.concatenate([[True], np.diff(steps) > 0])
    kept[-1] = True
    return x[kept], y[kept]


def nice(largest: float) -> tuple[float, Ticks]:
    """A round end at or above a number, and three ticks up to it."""
    power = 10.0 ** np.floor(np.log10(max(largest, 1e-6)))
    end = next(step * power for step in (1, 2, 4, 5, 10) if step * power >= largest * (1 - 1e-9))
    return end, ((0.0, "0"), (end / 2, f"{end / 2:.3g}".lstrip("0")), (end, f"{end:.3g}".lstrip("0")))


def _scale(ends: tuple[float, float], start: float, stop: float) -> Callable[[float], float]:
    """A number → its coordinate on the drawing, clipped to it."""
    low, high = ends

    def place(value: float) -> float:
        return start + (min(max(value, low), high) - low) / (high - low) * (stop - start)

    return place


def _frame(axes: Axes, across: Callable[[float], float], down: Callable[[float], float]) -> str:
    left, right, top, bottom = LEFT, WIDTH - RIGHT, TOP, HEIGHT - BOTTOM
    parts = [f'<rect class="frame" x="{left}" y="{top}" width="{right - left}" height="{bottom - top}"/>']
    for value, text in axes.x_ticks:
        x = across(value)
        anchor = "start" if x < left + 4 else "end" if x > right - 4 else "middle"
        parts.append(f'<path class="grid" d="M{x:.1f} {top}V{bottom}"/>')
        parts.append(f'<text x="{x:.1f}" y="{bottom + 13}" text-anchor="{anchor}">{escape(text)}</text>')
    for value, text in axes.y_ticks:
        y = down(value)
        parts.append(f'<path class="grid" d="M{left} {y:.1f}H{right}"/>')
        parts.append(f'<text x="{left - 4}" y="{y + 3.5:.1f}" text-anchor="end">{escape(text)}</text>')
    middle = (left + right) / 2
    parts.append(f'<text x="{middle}" y="{HEIGHT - 6}" text-anchor="middle">{escape(axes.x_label)}</text>')
    turn = f"translate(9 {(top + bottom) / 2}) rotate(-90)"
    parts.append(f'<text transform="{turn}" text-anchor="middle">{escape(axes.y_label)}</text>')
    return "".join(parts)


def _part(part: Line | Dots | Area, across: Callable[[float], float], down: Callable[[float], float]) -> str:
    if isinstance(part, Area):
        return _area(part, across, down)
    return _line(part, across, down) if isinstance(part, Line) else _dots(part, across, down)


def _area(area: Area, across: Callable[[float], float], down: Callable[[float], float]) -> str:
    x, y = np.concatenate([area.x, area.x[::-1]]), np.concatenate([area.high, area.low[::-1]])
    points = [f"{across(a):.1f} {down(b):.1f}" for a, b in zip(x.tolist(), y.tolist(), strict=True)]
    return f'<path class="area" d="M{"L".join(points)}Z"/>'


def _line(line: Line, across: Callable[[float], float], down: Callable[[float], float]) -> str:
    kept = np.isfinite(line.x) & np.isfinite(line.y)
    x, y = thinned(line.x[kept], line.y[kept])
    if not len(x):
        return ""
    points = [f"{across(a):.1f} {down(b):.1f}" for a, b in zip(x.tolist(), y.tolist(), strict=True)]
    path = "M" + "L".join(points)
    if line.kind.endswith("-area"):
        floor = HEIGHT - BOTTOM
        path = f"M{across(float(x[0])):.1f} {floor}L{path[1:]}L{across(float(x[-1])):.1f} {floor}Z"
    return f'<path class="{line.kind}" d="{path}"/>'


def _dots(dots: Dots, across: Callable[[float], float], down: Callable[[float], float]) -> str:
    size = 3.6 if dots.kind == "mark" else 2.4
    pairs = zip(np.asarray(dots.x).tolist(), np.asarray(dots.y).tolist(), strict=True)
    kind = f' class="{dots.kind}"' if dots.kind else ""
    return "".join(
        f'<circle{kind} cx="{across(a):.1f}" cy="{down(b):.1f}" r="{size}"/>'
        for a, b in pairs
        if np.isfinite(a) and np.isfinite(b)
    )
