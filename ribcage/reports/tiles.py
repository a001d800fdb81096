"""Tiles: images in rows with a name and a number below each, as one SVG file.

SVG, because its text is rendered by the viewer: OpenCV draws no Chinese, and no other library is needed. Every browser
opens and prints it; a page or a document can embed it.
"""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ribcage.reports import html

TILE, GAP, TEXT = 300, 10, 24
PAPER, INK, STRONG = "#14181d", "#e6eaf0", "#ffb347"
FONT = f'font-family="system-ui, Noto Sans, Noto Sans CJK SC, sans-serif" font-size="17" fill="{INK}"'


@dataclass(frozen=True)
class Tile:
    """One image of a sheet."""

    image: np.ndarray
    """(H, W, 3) uint8, red first."""
    name: str
    number: str = ""
    strong: bool = False
    """Whether it is highlighted."""


def tile_sheet(title: str, foot: str, tiles: Sequence[Tile]) -> str:
    """The whole file; for an image and fourteen findings three rows of five."""
    rows = max(1, round((len(tiles) * 3 / 5) ** 0.5))
    columns = -(-len(tiles) // rows)
    step, line = TILE + GAP, TILE + 2 * GAP + TEXT
    size = columns * step + GAP, rows * line + 2 * (TEXT + GAP)
    drawn = [
        _tile(tile, GAP + n % columns * step, TEXT + 2 * GAP + n // columns * line) for n, tile in enumerate(tiles)
    ]
    head = f'<text x="{GAP}" y="{TEXT}" font-weight="600">{_text(title)}</text>'
    below = f'<text x="{GAP}" y="{size[1] - GAP}" fill="#98a3b3" font-size="13">{_text(foot)}</text>'
    top = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size[0]} {size[1]}" width="{size[0]}" {FONT}>'
    return "\n".join([top, f'<rect width="100%" height="100%" fill="{PAPER}"/>', head, *drawn, below, "</svg>\n"])


def _tile(tile: Tile, x: int, y: int) -> str:
    """At this position: the image in a square, its name and number below."""
    colour, weight = (STRONG, 600) if tile.strong else (INK, 400)
    words = f'fill="{colour}" font-weight="{weight}"'
    shown, base = f'x="{x}" y="{y}" width="{TILE}" height="{TILE}"', y + TILE + TEXT
    frame = f'<rect {shown} fill="none" stroke="{STRONG}" stroke-width="3"/>' if tile.strong else ""
    name, share = _text(tile.name.replace("_", " ")), TILE - (80 if tile.number else 0)
    squeezed = f' textLength="{share}" lengthAdjust="spacingAndGlyphs"' if _width(tile.name) > share else ""
    return (
        f'<rect {shown} fill="#000"/><image {shown} href="{html.data_uri(tile.image[..., ::-1])}"/>{frame}'
        f'<text x="{x}" y="{base}" {words}{squeezed}>{name}</text>'
        f'<text x="{x + TILE}" y="{base}" {words} text-anchor="end">{_text(tile.number)}</text>'
    )


def _width(text: str) -> float:
    """Approximate width of a text."""
    return sum(17.0 if unicodedata.east_asian_width(letter) in "WF" else 9.0 for letter in text)


def _text(text: str) -> str:
    """Safe inside XML, which has no non-printable characters."""
    return html.escape("".join(letter if letter.isprintable() else "?" for letter in text))
