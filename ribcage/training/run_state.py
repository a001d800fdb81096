"""State: whether a run is running, finished, stopped or failed – told truly, also of one that was killed.

A running one holds a lock, which goes with its process however that ends. How it ended stands in `state.json`; where
that still says "running" and nobody holds the lock, the run was killed.
"""

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from ribcage.runtime import files

FILE = "state.json"
NAMES = RUNNING, FINISHED, STOPPED, FAILED = "running", "finished", "stopped", "failed"


@dataclass(frozen=True)
class Place:
    """How far a run is."""

    epoch: int
    """Epochs that are done."""
    epochs: int
    step: int
    steps: int


@dataclass(frozen=True)
class State:
    """How a run stands, where it is, and why it ended if not by coming to its end."""

    name: str
    place: Place | None = None
    why: str = ""


@contextlib.contextmanager
def recorded(folder: Path, place: Callable[[], Place]) -> Iterator[None]:
    """While it lasts, the run in this folder is running; then it is what became of it. The caller holds the lock."""
    _write(folder, State(RUNNING, place()))
    try:
        yield
    except (KeyboardInterrupt, GeneratorExit) as stop:
        _write(folder, State(STOPPED, place(), str(stop)))
        raise
    except BaseException as error:
        _write(folder, State(FAILED, place(), " ".join(f"{type(error).__name__}: {error}".split())))
        raise
    here = place()
    early = "" if here.step >= here.steps else "No better validation for as long as --patience allows."
    _write(folder, State(FINISHED, here, early))


def read(folder: Path) -> State:
    """How the run in this folder stands."""
    said = _said(folder)
    written = files.is_written(folder)
    if written:
        return State(RUNNING, said.place)
    if said.name != RUNNING:
        return said
    if written is None:
        return State(RUNNING, said.place, "Or killed: this system does not tell.")
    return State(STOPPED, said.place, "Killed; --resume goes on from the last checkpoint.")


def _said(folder: Path) -> State:
    """What state.json says; a run without one and without a log came to no step."""
    try:
        said = files.read_json(folder / FILE)
        place = Place(**said["place"]) if said["place"] else None
        if said["name"] not in NAMES or (place and any(type(count) is not int for count in vars(place).values())):
            raise ValueError("not what Ribcage writes")
        return State(said["name"], place, str(said["why"]))
    except FileNotFoundError:
        log = folder / "metrics.jsonl"
        if log.exists() and log.stat().st_size:
            return State(STOPPED, None, f"How it ended is not known: {FILE} is missing.")
        return State(FAILED, None, "It came to no step.")
    except (OSError, ValueError, TypeError, KeyError):
        return State(STOPPED, None, f"{FILE} cannot be read.")


def _write(folder: Path, state: State) -> None:
    with contextlib.suppress(OSError), files.atomic(folder / FILE) as part:  # a full disk must not hide what happened
        part.write_text(json.dumps(asdict(state), ensure_ascii=False) + "\n", encoding="utf-8")
