"""Terminal: what is printed. Text from files – findings, paths, errors – cannot act on the terminal that shows it.

Everything that a command prints goes through one of two doors: `guarded` streams, which `cli` puts in the place of
standard output and standard error, and `console`, which draws tables. Both show control characters, marks that turn the
direction of writing, invisible and unpaired characters as what they are: `\\x1b`, `\\u202e`.

Codecs written in C print on their own account (libjpeg: "Corrupt JPEG data"). While one works, file descriptor 2 leads
nowhere; Python's standard error, which `guarded` gives a descriptor of its own, does not notice.
"""

import contextlib
import os
import re
import sys
import threading
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


def plain_text(text: str) -> str:
    """The text with what would act on a terminal or a page shown as an escape; tabs and new lines stay."""
    return _ACTING.sub(_escape, text)


def plain_line(text: str) -> str:
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
        self.under.write(plain_text(text))
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
    with _apart(raw(sys.stderr)) as errors:
        sys.stdout, sys.stderr = (cast(TextIO, _Guarded(stream)) for stream in (raw(sys.stdout), errors))
        try:
            yield
        finally:
            sys.stdout, sys.stderr = before


@contextlib.contextmanager
def _apart(stream: TextIO) -> Iterator[TextIO]:
    """The same place to write to by another descriptor than 2; any other stream as it is."""
    try:
        own = os.dup(2) if stream.fileno() == 2 else None
    except (OSError, ValueError):  # closed, or no file at all
        own = None
    if own is None:
        yield stream
        return
    stream.flush()
    with os.fdopen(own, "w", encoding=stream.encoding, errors="replace", buffering=1) as apart:
        yield cast(TextIO, apart)


class _Codecs:
    """Several threads may decode at once: the first one in closes descriptor 2, the last one out opens it."""

    def __init__(self) -> None:
        self.lock, self.inside, self.kept = threading.Lock(), 0, -1
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forked)

    def __enter__(self) -> None:
        with self.lock:
            if not self.inside:
                self._close()
            self.inside += 1

    def __exit__(self, *error: object) -> None:
        with self.lock:
            self.inside -= 1
            if not self.inside:
                self._open()

    def _close(self) -> None:
        with contextlib.suppress(OSError):  # there is no descriptor 2: nothing is printed anyway
            self.kept = os.dup(2)
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, 2)
            os.close(nowhere)

    def _open(self) -> None:
        if self.kept >= 0:
            os.dup2(self.kept, 2)
            os.close(self.kept)
        self.kept = -1

    def _forked(self) -> None:
        """In the child no other thread decodes any more."""
        self.lock, inside, self.inside = threading.Lock(), self.inside, 0
        if inside:
            self._open()


quiet_codecs = _Codecs()
"""`with quiet_codecs:` around a decoder that would print."""


def console(stream: TextIO | None = None, **options: Any) -> "Console":
    """What draws tables: texts are shown as they are – no markup, no emoji – and plain."""
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.segment import Segment

    class Plain(Console):
        def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
            for each in super().render(renderable, options):
                yield each if each.control else Segment(plain_text(each.text), each.style)

    return Plain(file=raw(stream or sys.stdout), **({"markup": False, "emoji": False, "highlight": False} | options))
