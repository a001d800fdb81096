"""Progress: one line with the count, speed and remaining time of a long job."""

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TextIO

from ribcage.runtime import terminal

PLAIN_SECONDS = 10.0  # between two lines in a log file or a pipe, where a line cannot be redrawn
NOTEBOOK_SECONDS = 0.5  # in a notebook, where a line is overwritten


def track(
    counts: Iterable[int], total: int, label: str, unit: str, done: int = 0, note: Callable[[], str] = str
) -> Iterator[int]:
    """Yield the counts of finished items and show progress on standard error.

    `done` items were finished before; `note` returns more text for the line.
    """
    stream = sys.stderr
    yield from (_bar if stream.isatty() else _lines)(counts, total, label, unit, done, note, stream)


@contextlib.contextmanager
def working(what: str) -> Iterator[None]:
    """Print what begins on standard error, and every ten seconds the time since: for work without a count."""
    stream, start, ended = sys.stderr, time.monotonic(), threading.Event()

    def remind() -> None:
        while not ended.wait(PLAIN_SECONDS):
            print(f"still {what}, {time.monotonic() - start:.0f} s", file=stream, flush=True)

    print(f"{what} …", file=stream, flush=True)
    thread = threading.Thread(target=remind, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        if time.monotonic() - start >= PLAIN_SECONDS:
            print(f"{what}: {time.monotonic() - start:.0f} s", file=stream, flush=True)


def _notebook() -> bool:
    """Whether output goes to a notebook."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return hasattr(shell, "kernel")


def _bar(
    counts: Iterable[int], total: int, label: str, unit: str, done: int, note: Callable[[], str], stream: TextIO
) -> Iterator[int]:
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    rate, last = TextColumn("{task.fields[rate]}"), TextColumn("{task.fields[note]}")
    columns = (TextColumn(label), BarColumn(), MofNCompleteColumn(), rate, TimeElapsedColumn(), TextColumn("left"))
    with Progress(*columns, TimeRemainingColumn(), last, console=terminal.console(stream)) as progress:
        task = progress.add_task(label, total=total, completed=done, rate="", note="")
        start, here = time.monotonic(), 0
        for count in counts:
            here += count
            speed = f"{here / max(time.monotonic() - start, 1e-9):,.0f} {unit}/s"
            progress.update(task, advance=count, rate=speed, note=note())
            yield count


def _lines(
    counts: Iterable[int], total: int, label: str, unit: str, done: int, note: Callable[[], str], stream: TextIO
) -> Iterator[int]:
    start = printed = time.monotonic()
    here, notebook = 0, _notebook()
    for count in counts:
        here += count
        now = time.monotonic()
        if now - printed >= (NOTEBOOK_SECONDS if notebook else PLAIN_SECONDS) or done + here == total:
            printed, rate = now, here / max(now - start, 1e-9)
            left = time.strftime("%H:%M:%S", time.gmtime((total - done - here) / max(rate, 1e-9)))
            more = f", {note()}" if note() else ""
            line = f"{label} {done + here:,}/{total:,}, {rate:,.0f} {unit}/s, {left} left{more}"
            over = notebook and done + here < total
            print(f"\r{line:<100}" if notebook else line, end="" if over else "\n", file=stream, flush=True)
        yield count
