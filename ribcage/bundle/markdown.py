"""Markdown from templates: what they print is escaped, so that text from files stays text."""

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Protocol

from markupsafe import Markup

from ribcage.runtime import templates, terminal
from ribcage.runtime.spelling import count_phrase

if TYPE_CHECKING:
    from jinja2 import Environment

ESCAPES = str.maketrans({letter: f"\\{letter}" for letter in "\\`*[]|"} | {"<": "&lt;", ">": "&gt;"})
"""Characters with a meaning in Markdown."""
LONGEST = 300


def markdown_text(value: object) -> Markup:
    """Any value as one line of Markdown: no markup, no HTML, no control characters, not too long."""
    line = terminal.plain_line(" ".join(str(value).split()))
    return Markup((line if len(line) <= LONGEST else f"{line[: LONGEST - 2]} …").translate(ESCAPES))


def render_markdown(template: str, **values: object) -> str:
    """A template of this package with these values; a value that is missing is an error."""
    return _environment().get_template(f"{template}.jinja").render(**values)


@cache
def _environment() -> "Environment":
    made = templates.environment("ribcage.bundle", _shown)
    made.filters |= {
        "markdown": markdown_text,
        "counted": count_phrase,
        "general": lambda number: f"{number:g}",
        "interval": interval,
        "difference": difference,
    }
    return made


def _shown(value: object) -> Markup:
    """What a template prints; what is Markdown already stays as it is."""
    return value if isinstance(value, Markup) else markdown_text(value)


def interval(value: "HasLimits | Mapping[str, float | None]") -> str:
    """0.823 (0.812–0.834); what is undefined is –"""
    shown = ["–" if one is None else f"{one:.3f}" for one in _limits(value)]
    return shown[0] if shown[1] == "–" else f"{shown[0]} ({shown[1]}–{shown[2]})"


def difference(value: "HasLimits | Mapping[str, float | None]") -> str:
    """+0.012 (-0.003 to +0.020)"""
    shown = ["–" if one is None else f"{one:+.3f}" for one in _limits(value)]
    return shown[0] if shown[1] == "–" else f"{shown[0]} ({shown[1]} to {shown[2]})"


class HasLimits(Protocol):
    """A number with its interval."""

    @property
    def value(self) -> float | None:
        """The number; None where it is undefined."""

    @property
    def low(self) -> float | None:
        """Lower limit."""

    @property
    def high(self) -> float | None:
        """Upper limit."""


def _limits(one: HasLimits | Mapping[str, float | None]) -> list[float | None]:
    """Value, low and high of an estimate, or of one in a file."""
    return (
        [one[key] for key in ("value", "low", "high")] if isinstance(one, Mapping) else [one.value, one.low, one.high]
    )
