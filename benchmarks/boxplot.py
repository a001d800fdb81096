"""Box plots as an SVG file: a box per group, a point per member."""

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 300, 260, 52, 24, 78
STYLE = """text { font: 11px sans-serif; fill: #333 } text.name { font-weight: 600 } rect.card { fill: #fff }
.grid { stroke: #ddd } .box { fill: #cfe0ee; stroke: #2d6a9f } .whisker { stroke: #2d6a9f } .middle { stroke: #1b4668;
stroke-width: 2 } circle { fill: #b5542b; fill-opacity: .85 }"""


@dataclass(frozen=True)
class Group:
    """What one box shows."""

    drawn: np.ndarray
    """Values of which the box shows the quartiles and the line their 2.5 and 97.5 per cent points."""
    points: Sequence[float]


def draw(panels: Mapping[str, Mapping[str, Group]], label: str, file: Path) -> None:
    """Panels side by side on one scale, each with a box per name."""
    groups = [group for panel in panels.values() for group in panel.values()]
    top = 1.05 * max(max(np.percentile(each.drawn, 97.5), *each.points) for each in groups)
    drawn = [
        f'<g transform="translate({place * WIDTH} 0)">{_panel(title, panel, float(top))}</g>'
        for place, (title, panel) in enumerate(panels.items())
    ]
    side = f'<text transform="translate(11 {(TOP + HEIGHT - BOTTOM) / 2}) rotate(-90)" text-anchor="middle">'
    size = f"{WIDTH * len(panels)} {HEIGHT}"
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size}" width="{WIDTH * len(panels)}">'
    card = f'<rect class="card" width="{WIDTH * len(panels)}" height="{HEIGHT}"/>'
    body = f"<style>{STYLE}</style>{card}{side}{html.escape(label)}</text>{''.join(drawn)}"
    file.write_text(f"{head}{body}</svg>\n", encoding="utf-8")


def _panel(title: str, groups: Mapping[str, Group], top: float) -> str:
    floor, width = HEIGHT - BOTTOM, (WIDTH - LEFT - 10) / len(groups)
    parts = [f'<text class="name" x="{LEFT}" y="14">{html.escape(title)}</text>']
    for tick in _ticks(top):
        y = _down(tick, top)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - 10}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 4}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>')
    for place, (name, group) in enumerate(groups.items()):
        middle = LEFT + (place + 0.5) * width
        low, first, half, third, high = (
            _down(value, top) for value in np.percentile(group.drawn, [2.5, 25, 50, 75, 97.5])
        )
        a, b = middle - 0.3 * width, middle + 0.3 * width
        parts.append(f'<line class="whisker" x1="{middle:.1f}" x2="{middle:.1f}" y1="{low:.1f}" y2="{high:.1f}"/>')
        parts.append(
            f'<rect class="box" x="{a:.1f}" y="{third:.1f}" width="{b - a:.1f}" height="{first - third:.1f}"/>'
        )
        parts.append(f'<line class="middle" x1="{a:.1f}" x2="{b:.1f}" y1="{half:.1f}" y2="{half:.1f}"/>')
        for step, value in enumerate(group.points):
            x = middle + (step - (len(group.points) - 1) / 2) * 0.16 * width
            parts.append(f'<circle cx="{x:.1f}" cy="{_down(value, top):.1f}" r="2.6"/>')
        turn = f"translate({middle + 4:.1f} {floor + 10}) rotate(-45)"
        parts.append(f'<text transform="{turn}" text-anchor="end">{html.escape(name)}</text>')
    return "".join(parts)


def _down(value: float, top: float) -> float:
    return HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * float(value) / top


def _ticks(top: float) -> np.ndarray:
    step = 10.0 ** np.floor(np.log10(top))
    step *= next(share for share in (0.1, 0.2, 0.5, 1.0) if top / (step * share) <= 6)
    return np.round(np.arange(0, top, step), 10)
