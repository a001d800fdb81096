"""Terminal: what is printed. Text from files – findings, paths, errors – cannot act on the terminal that shows it.

Everything that a command prints goes through one of two doors: `guarded` streams, which `cli` puts in the place of
standard output and standard error, and `console`, which draws tables. Both show control characters, marks that turn the
direction of writing, invisible and unpaired characters as what they are: `\\x1b`, `\\u202e`.
"""

import contextlib
import re
import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, TextIO, cast

if TYPE_CHECKING:
    from rich.console import Console

# C0 and C1 controls but tab and new line; soft hyphen; Arabic letter mark; zero widths but those that Persian and Hindi
# are written with (200C, 200D); marks, embeddings, overrides and isolates of direction; line and paragraph separators;
# fillers and tags; half of a pair.
ACTING = (
    "\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u115f\u1160\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\u3164"
    "\ud800-\udfff\ufeff\uffa0\ufff0-\ufffb\U000e0000-\U000e0fff"
)
_ACTING = re.compile(f"[{ACTING}]")
_MORE = re.compile(f"[{ACTING}\t\n]")


def plain(text: str) -> str:
    """The text with what would act on a terminal or a page shown as an escape; tabs and new lines stay."""
    return _ACTING.sub(_escape, text)


def line(text: str) -> str:
    """The same as one line."""
    return _MORE.sub(_escape, text)


def is_plain(text: str) -> bool:
    """Whether a text is one line that acts on nothing."""
    return _MORE.search(text) is None


def _escape(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape", "backslashreplace").decode("ascii")


class _Guarded:
    """A text stream that writes plain text only."""

    def __init__(self, under: TextIO) -> None:
        self.under = under

    def write(self, text: str) -> int:
        """Write it plain."""
        self.under.write(plain(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write them plain."""
        for each in lines:
            self.write(each)

    def __iter__(self) -> Iterator[str]:
        return iter(self.under)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.under, name)


def raw(stream: TextIO) -> TextIO:
    """The stream below a guarded one, for what draws by itself."""
    return stream.under if isinstance(stream, _Guarded) else stream


@contextlib.contextmanager
def guarded() -> Iterator[None]:
    """While a command runs, what it prints is plain."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (cast(TextIO, _Guarded(raw(stream))) for stream in before)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def console(stream: TextIO | None = None, **options: Any) -> "Console":
    """What draws tables: texts are shown as they are – no markup, no emoji – and plain."""
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.segment import Segment

    class Plain(Console):
        def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
            for each in super().render(renderable, options):
                yield each if each.control else Segment(plain(each.text), each.style)

    return Plain(file=raw(stream or sys.stdout), **({"markup": False, "emoji": False, "highlight": False} | options))
