"""Page: one self-contained HTML file from parts – tables, bars, images. No script, no network, light and dark."""

import base64
import html
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from ribcage.runtime import terminal

STYLE = """
:root { color-scheme: light dark; --ink: #1c2430; --soft: #5b6675; --line: #d9dee5; --paper: #fbfcfd; --card: #fff;
  --bar: #2f74b8; --second: #d0742a; --warn: #b4530a; --warn-paper: #fff4e8 }
@media (prefers-color-scheme: dark) { :root { --ink: #e6eaf0; --soft: #98a3b3; --line: #2f3742; --paper: #14181d;
  --card: #1b2027; --bar: #5fa4e4; --second: #eb9a52; --warn: #f0a45c; --warn-paper: #33240f } }
* { box-sizing: border-box }
body { margin: 0 auto; max-width: 1120px; padding: 2rem 1.25rem 4rem; background: var(--paper); color: var(--ink);
  font: 15px/1.55 system-ui, -apple-system, "Segoe UI", "Noto Sans", "Noto Sans CJK SC", sans-serif }
h1 { font-size: 1.7rem; margin: 0 0 .25rem } h2 { font-size: 1.25rem; margin: 2.5rem 0 .5rem; padding-top: .75rem;
  border-top: 1px solid var(--line) } h3 { font-size: 1rem; margin: 1.5rem 0 .4rem }
p { margin: .4rem 0; max-width: 75ch } .soft { color: var(--soft) }
.scroll { overflow-x: auto } table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .92em }
th, td { padding: .28rem .8rem .28rem 0; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line) }
th { color: var(--soft); font-weight: 500; vertical-align: bottom } th:first-child, td:first-child { text-align: left }
td.text { text-align: left }
td.bar { min-width: 130px; padding-right: 0 } td.bar span { display: block; height: .7em; border-radius: 2px;
  background: var(--bar); min-width: 1px }
tr.total td { font-weight: 600; border-top: 2px solid var(--line) } td.drawing { padding-right: .8rem }
pre { background: var(--card); border: 1px solid var(--line); border-radius: 6px; padding: .7rem .9rem;
  overflow-x: auto; font-size: .88em; white-space: pre-wrap; overflow-wrap: anywhere }
ul.problems { list-style: none; padding: 0 } ul.problems li { margin: .4rem 0; padding: .5rem .8rem; border-radius: 4px;
  background: var(--warn-paper); border-left: 4px solid var(--warn) }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(130px, 1fr)); gap: .75rem; margin: 1rem 0 }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 6px; padding: .6rem .8rem }
.card b { display: block; font-size: 1.3rem; font-weight: 600 } .card span { color: var(--soft); font-size: .88em }
.sheet { align-items: start }
.sheet { display: grid; grid-template-columns: repeat(auto-fill, minmax(150px, 1fr)); gap: .6rem; margin: .8rem 0 }
figure { margin: 0; background: #000; border-radius: 4px; overflow: hidden } figure div { position: relative }
figure img { display: block; width: 100%; height: auto }
figure svg { position: absolute; inset: 0; width: 100%; height: 100% }
figcaption { padding: .3rem .5rem; font-size: .78em; line-height: 1.35; color: #cfd6df; background: #11151a }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .3rem 1.25rem; margin: 1rem 0 } dd { margin: 0 }
dt { color: var(--soft) } code { font-size: .92em } footer { margin-top: 3rem; color: var(--soft); font-size: .88em }
"""


@dataclass(frozen=True)
class Bar:
    """A table cell drawn as a bar: a share from 0 to 1."""

    share: float


@dataclass(frozen=True)
class Drawing:
    """A table cell that holds a drawing."""

    svg: str


class Shown(dict[str, Any]):
    """Numbers, which a notebook shows as the page that is made of them."""

    def __init__(self, numbers: dict[str, Any], page: Callable[[], str]) -> None:
        super().__init__(numbers)
        self.page = page

    def _repr_html_(self) -> str:
        return framed(self.page())


def framed(text: str) -> str:
    """A whole page inside another one, such as a notebook, whose styles do not reach it."""
    return f'<iframe srcdoc="{escape(text)}" style="width: 100%; height: 40em; border: 0"></iframe>'


def page(title: str, parts: Sequence[str], foot: str = "Research use only. Made by Ribcage.", style: str = "") -> str:
    """The whole file; `style` is added to the page's own."""
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{escape(title)}</title>'
    body = "\n".join([f"<h1>{escape(title)}</h1>", *parts, f"<footer>{escape(foot)}</footer>"])
    top = f'<!doctype html>\n<html lang="en">\n<head>{head}<style>{STYLE}{style}</style></head>'
    return f"{top}\n<body>\n{body}\n</body>\n</html>\n"


def escape(value: object) -> str:
    """Any value as text that is safe inside HTML, and cannot turn or hide what stands beside it."""
    return html.escape(terminal.plain(str(value)))


def heading(text: str, level: int = 2) -> str:
    """<h2> or <h3>."""
    return f"<h{level}>{escape(text)}</h{level}>"


def paragraph(text: str, soft: bool = False) -> str:
    """One paragraph."""
    return f"<p{' class=soft' if soft else ''}>{escape(text)}</p>"


def problems(texts: Sequence[str]) -> str:
    """A list that is hard to overlook."""
    return f'<ul class="problems">{"".join(f"<li>{escape(text)}</li>" for text in texts)}</ul>'


def cards(facts: Sequence[tuple[str, str]]) -> str:
    """Big numbers with a word each: (number, what it counts)."""
    inner = "".join(
        f'<div class="card"><b>{escape(value)}</b><span>{escape(name)}</span></div>' for value, name in facts
    )
    return f'<div class="cards">{inner}</div>'


def facts(rows: Sequence[tuple[str, str]]) -> str:
    """Names and what is to be said of each."""
    return "<dl>" + "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in rows) + "</dl>"


def preformatted(text: str) -> str:
    """Text to be copied, such as a command."""
    return f"<pre>{escape(text)}</pre>"


def table(head: Sequence[str], rows: Sequence[Sequence[object]], total: Sequence[object] | None = None) -> str:
    """A table; a cell that is a Bar or a Drawing is drawn. `total` is the last row, set apart."""
    top = "".join(f"<th>{escape(name)}</th>" for name in head)
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    body += f'<tr class="total">{"".join(map(_cell, total))}</tr>' if total is not None else ""
    return f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def _cell(value: object) -> str:
    if isinstance(value, Bar):
        return f'<td class="bar"><span style="width:{100 * value.share:.1f}%"></span></td>'
    if isinstance(value, Drawing):
        return f'<td class="drawing">{value.svg}</td>'
    return f"<td{' class=text' if isinstance(value, str) and not _numeric(value) else ''}>{escape(number(value))}</td>"


def _numeric(text: str) -> bool:
    """Whether a text reads as a number, which belongs to the right."""
    return bool(text) and (text[0].isdigit() or text[0] in "–-.<") and len(text) < 24


def number(value: object) -> str:
    """A count with thousands separated; '–' for what is not known."""
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return "–"
    if isinstance(value, float | np.floating):
        return f"{value:,.1f}"
    return f"{value:,}" if isinstance(value, int | np.integer) and not isinstance(value, bool) else str(value)


def sheet(figures: Sequence[str]) -> str:
    """Images side by side."""
    return f'<div class="sheet">{"".join(figures)}</div>'


Box = tuple[float, float, float, float]


def figure(pixels: np.ndarray, caption: str, boxes: Sequence[Box] = (), others: Sequence[Box] = ()) -> str:
    """A gray image with a caption; boxes are x, y, width, height in its pixels, others in a second colour."""
    height, width = pixels.shape
    marks = _rectangles(boxes, "#ffb347") + _rectangles(others, "#58b7ff")
    stroke = f'fill="none" stroke-width="{width / 100:.1f}"'
    drawn = f'<svg viewBox="0 0 {width} {height}" {stroke}>{marks}</svg>'
    gray = pixels if pixels.dtype == np.uint8 else (pixels >> 8).astype(np.uint8)
    return _framed(gray, caption, drawn if marks else "")


def coloured(pixels: np.ndarray, caption: str) -> str:
    """An (H, W, 3) image, red first, with a caption."""
    return _framed(pixels[..., ::-1], caption)


def _framed(pixels: np.ndarray, caption: str, drawn: str = "") -> str:
    """What OpenCV can write, and what is drawn over it."""
    height, width = pixels.shape[:2]
    image = f'<img src="{data_address(pixels)}" alt="{escape(caption)}" width="{width}" height="{height}">'
    return f"<figure><div>{image}{drawn}</div><figcaption>{escape(caption)}</figcaption></figure>"


def _rectangles(boxes: Sequence[Box], colour: str) -> str:
    sides = "".join(f'<rect x="{x:.1f}" y="{y:.1f}" width="{w:.1f}" height="{h:.1f}"/>' for x, y, w, h in boxes)
    return f'<g stroke="{colour}">{sides}</g>' if sides else ""


def data_address(pixels: np.ndarray) -> str:
    """The image itself as an address, so that the page needs no other file."""
    _, data = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 88])
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode()
