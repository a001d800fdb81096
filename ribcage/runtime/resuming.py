"""Resuming: an error that ends a run carries the command line that resumes it, as a note that `cli` prints."""

import contextlib
from collections.abc import Iterator

BEGINNING = "To resume: "


@contextlib.contextmanager
def resumed_by(command: str) -> Iterator[None]:
    """Within the block, errors and interruptions get a note with this command line."""
    try:
        yield
    except (Exception, KeyboardInterrupt) as error:
        error.add_note(BEGINNING + command)
        raise


@contextlib.contextmanager
def resumed_instead_by(command: str) -> Iterator[None]:
    """The same for a command that starts runs: its command line takes the place of that of the run."""
    try:
        yield
    except (Exception, KeyboardInterrupt) as error:
        if resume_note(error):
            error.add_note(BEGINNING + command)
        raise


def resume_note(error: BaseException) -> str:
    """The last note of this kind; "" where there is none."""
    notes = [note for note in getattr(error, "__notes__", ()) if note.startswith(BEGINNING)]
    return notes[-1] if notes else ""
