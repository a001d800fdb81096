"""Terminal: output in which text from files – findings, paths, errors – cannot control the terminal.

All output of a command goes through `guarded_streams`, which `cli` installs as standard output and standard error, or
through `console`, which draws tables. Both print control characters, bidirectional controls, invisible characters and
lone surrogates as escapes: `\\x1b`, `\\u202e`.

Some C codecs print to file descriptor 2 themselves (libjpeg: "Corrupt JPEG data"). While they run it is redirected to
the null device; Python's standard error has a descriptor of its own under `guarded_streams` and is not affected.
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

# C0 and C1 controls except tab and line feed; soft hyphen; Arabic letter mark; zero-width characters except those
# needed for Persian and Hindi (200C, 200D); bidirectional marks, embeddings, overrides and isolates; line and paragraph
# separators; fillers and tags; surrogates.
ACTING = (
    "\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u115f\u1160\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\u3164"
    "\ud800-\udfff\ufeff\uffa0\ufff0-\ufffb\U000e0000-\U000e0fff"
)
LONGEST_NAME = 200
"""Limit on the characters of a name, such as that of a finding or a reader."""
_ACTING = re.compile(f"[{ACTING}]")
_MORE = re.compile(f"[{ACTING}\t\n]")


def plain_text(text: str) -> str:
    """The text with control and invisible characters as escapes; tabs and line feeds stay."""
    return _ACTING.sub(_escape, text)


def plain_line(text: str) -> str:
    """`plain_text` on one line: tabs and line feeds become escapes, too."""
    return _MORE.sub(_escape, text)


def is_plain(text: str) -> bool:
    """Whether a text is one line without control or invisible characters."""
    return _MORE.search(text) is None


def is_name(value: object) -> bool:
    """Whether a value is a text of 1 to LONGEST_NAME characters that `is_plain`."""
    return isinstance(value, str) and 0 < len(value) <= LONGEST_NAME and is_plain(value)


def _escape(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape", "backslashreplace").decode("ascii")


class _Guarded:
    """A text stream that writes `plain_text`."""

    def __init__(self, under: TextIO) -> None:
        self.under = under

    def write(self, text: str) -> int:
        self.under.write(plain_text(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for each in lines:
            self.write(each)

    def __iter__(self) -> Iterator[str]:
        return iter(self.under)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.under, name)


def raw(stream: TextIO) -> TextIO:
    """The stream below a guarded one, for code that draws by itself."""
    return stream.under if isinstance(stream, _Guarded) else stream


@contextlib.contextmanager
def guarded_streams() -> Iterator[None]:
    """Within the block, all output is plain text."""
    before = sys.stdout, sys.stderr
    with _apart(raw(sys.stderr)) as errors:
        sys.stdout, sys.stderr = (cast(TextIO, _Guarded(stream)) for stream in (raw(sys.stdout), errors))
        try:
            yield
        finally:
            sys.stdout, sys.stderr = before


@contextlib.contextmanager
def _apart(stream: TextIO) -> Iterator[TextIO]:
    """The stream on a duplicate of descriptor 2; a stream on another descriptor is yielded as it is."""
    try:
        own = os.dup(2) if stream.fileno() == 2 else None
    except (OSError, ValueError):  # closed, or not a file
        own = None
    if own is None:
        yield stream
        return
    stream.flush()
    with os.fdopen(own, "w", encoding=stream.encoding, errors="replace", buffering=1) as apart:
        yield cast(TextIO, apart)


class _Codecs:
    """Context manager for threads that decode: the first to enter redirects descriptor 2, the last to leave restores
    it."""

    def __init__(self) -> None:
        self.lock, self.inside, self.saved = threading.Lock(), 0, -1
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
        with contextlib.suppress(OSError):  # no descriptor 2: nothing is printed anyway
            self.saved = os.dup(2)
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, 2)
            os.close(nowhere)

    def _open(self) -> None:
        if self.saved >= 0:
            os.dup2(self.saved, 2)
            os.close(self.saved)
        self.saved = -1

    def _forked(self) -> None:
        """No other thread decodes in a forked child."""
        self.lock, inside, self.inside = threading.Lock(), self.inside, 0
        if inside:
            self._open()


quiet_codecs = _Codecs()
"""`with quiet_codecs:` silences a decoder that prints."""


def console(stream: TextIO | None = None, **options: Any) -> "Console":
    """A rich console that prints texts literally – no markup, no emoji – and as `plain_text`."""
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.segment import Segment

    class Plain(Console):
        def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
            for each in super().render(renderable, options):
                yield each if each.control else Segment(plain_text(each.text), each.style)

    return Plain(file=raw(stream or sys.stdout), **({"markup": False, "emoji": False, "highlight": False} | options))
