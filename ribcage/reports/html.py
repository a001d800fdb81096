"""Pages: self-contained HTML files with tables, plots and images, without scripts or network access, light and dark.

Templates stand in `templates/`. Every value that they print is escaped, control characters and marks of writing
direction, too; what is HTML already, such as a plot, is `Markup`.
"""

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import cv2
import markupsafe
import numpy as np
from markupsafe import Markup

from ribcage.runtime import templates, terminal

if TYPE_CHECKING:
    from jinja2 import Environment

Box = tuple[float, float, float, float]
"""x, y, width, height."""
OUTLINES = ((80, 175, 255), (255, 190, 80), (120, 220, 120), (220, 130, 255), (230, 230, 100), (110, 110, 255))
"""Colours of the outlines of masks, blue first."""


@dataclass(frozen=True)
class Bar:
    """A table cell drawn as a bar: a share from 0 to 1."""

    share: float


@dataclass(frozen=True)
class Drawing:
    """A table cell that holds a small plot."""

    svg: Markup


@dataclass(frozen=True)
class Table:
    """Columns and rows; the last row may be a total, set apart."""

    head: Sequence[str]
    rows: Sequence[Sequence[object]]
    total: Sequence[object] | None = None

    @property
    def all_rows(self) -> list[Sequence[object]]:
        """The rows, and the total as the last of them."""
        return [*self.rows, *([self.total] if self.total is not None else [])]

    def columns(self, places: Sequence[int]) -> "Table":
        """Some of the columns."""
        rows = [[row[place] for place in places] for row in self.all_rows]
        own, total = (rows, None) if self.total is None else (rows[:-1], rows[-1])
        return Table([self.head[place] for place in places], own, total)


@dataclass(frozen=True)
class Figure:
    """An image with a caption, and boxes in its pixels in two colours."""

    source: str
    """The image itself, as a data URI."""
    width: int
    height: int
    caption: str
    boxes: tuple[Box, ...] = ()
    other_boxes: tuple[Box, ...] = ()


class ResultWithPage(dict[str, Any]):
    """The numbers of a result, which a notebook shows as their page."""

    def __init__(self, numbers: Mapping[str, object], page: Callable[[], str]) -> None:
        super().__init__(numbers)
        self.page = page

    def _repr_html_(self) -> str:
        return notebook_frame(self.page())


def render(template: str, **values: object) -> str:
    """A template of this package with these values; a value that is missing is an error."""
    return environment().get_template(f"{template}.jinja").render(**values)


@cache
def environment() -> "Environment":
    """Templates that escape all they print."""
    made = templates.environment("ribcage.reports", _shown)
    made.filters["number"] = thousands
    made.tests |= {
        "bar": lambda cell: isinstance(cell, Bar),
        "drawing": lambda cell: isinstance(cell, Drawing),
        "words": lambda cell: isinstance(cell, str) and not _numeric(cell),
    }
    return made


def _shown(value: object) -> str:
    """What a template prints: control characters as escapes, HTML as it is."""
    return value if isinstance(value, Markup) else terminal.plain_text(str(value))


def escape(value: object) -> Markup:
    """Any value as text that is safe inside HTML."""
    return markupsafe.escape(terminal.plain_text(str(value)))


def notebook_page(title: str, cards: Sequence[tuple[str, str]], figures: Sequence[Figure]) -> str:
    """Some numbers and images, to be shown in a notebook."""
    return notebook_frame(render("notebook.html", title=title, cards=cards, figures=figures))


def notebook_frame(page: str) -> str:
    """A whole page inside another one, such as a notebook, whose styles do not reach it."""
    return f'<iframe srcdoc="{escape(page)}" style="width: 100%; height: 40em; border: 0"></iframe>'


def _numeric(text: str) -> bool:
    """Whether a text reads as a number, which is aligned to the right."""
    return bool(text) and (text[0].isdigit() or text[0] in "–−+-.<") and len(text) < 40 and not text.endswith("years")


def thousands(value: object) -> str:
    """A count with thousands separated; '–' for what is not known."""
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return "–"
    if isinstance(value, float | np.floating):
        return f"{value:,.1f}"
    return f"{value:,}" if isinstance(value, int | np.integer) and not isinstance(value, bool) else str(value)


# ---- images


def gray_figure(
    pixels: np.ndarray,
    caption: str,
    boxes: Sequence[Box] = (),
    other_boxes: Sequence[Box] = (),
    *,
    masks: Mapping[str, np.ndarray] = MappingProxyType({}),
) -> Figure:
    """A gray image, (H, W) uint8 or uint16, with the outlines of (H, W) masks."""
    gray = pixels if pixels.dtype == np.uint8 else (pixels >> 8).astype(np.uint8)
    return Figure(
        data_uri(outlined(gray, masks) if masks else gray),
        gray.shape[1],
        gray.shape[0],
        caption,
        tuple(boxes),
        tuple(other_boxes),
    )


def outlined(gray: np.ndarray, masks: Mapping[str, np.ndarray]) -> np.ndarray:
    """(H, W, 3) uint8, blue first: a gray image with the outlines of masks, one colour for each structure."""
    drawn = cv2.cvtColor(gray, cv2.COLOR_GRAY2BGR)
    for place, name in enumerate(sorted(masks)):
        contours, _ = cv2.findContours(masks[name], cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(drawn, contours, -1, OUTLINES[place % len(OUTLINES)], max(1, len(gray) // 256))
    return drawn


def colour_figure(pixels: np.ndarray, caption: str) -> Figure:
    """An (H, W, 3) image, red first."""
    return Figure(data_uri(pixels[..., ::-1]), pixels.shape[1], pixels.shape[0], caption)


def data_uri(pixels: np.ndarray) -> str:
    """An image as a JPEG inside an address, so that the page needs no other file; OpenCV's order of colours."""
    _, data = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 88])
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode()
