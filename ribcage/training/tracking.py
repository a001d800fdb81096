"""Tracking: passes the log of a run on to the trackers of `--track`, on rank 0.

Each tracker has a thread of its own, so that training waits for no server and no disk, and an error of a tracker is a
warning. What is sent is decided here: the options without folders, the numbers of the log, images (`--track-images`)
and how the run ended; no path, no patient id, no message of an error.
"""

import contextlib
import queue
import re
import secrets
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from ribcage.runtime import distributed, files
from ribcage.training import run_folder
from ribcage.training.metrics_log import LOG_FILE, TrackedNumbers, tracked_numbers
from ribcage.training.options import TrainingOptions, as_json
from ribcage.training.trackers import load_tracker
from ribcage.training.trackers.base import TrackedImage, TrackedRun

ID_FILE = "tracking.json"
"""Holds the id of the run for trackers."""
NOT_SENT = ("member", "resume", "track", "track_images")
WAITING = 100_000
"""Lines that may wait for a tracker; later ones are lost to it."""
PATIENCE = {run_folder.FINISHED: 60.0, run_folder.STOPPED: 20.0, run_folder.FAILED: 20.0}
"""Seconds that the end of a run waits for its trackers; a scheduler gives a stopped run little time."""


@dataclass(frozen=True)
class _Images:
    """Images of a step."""

    name: str
    images: Sequence[TrackedImage]
    step: int


@dataclass(frozen=True)
class _End:
    """The end of a run."""

    state: str


class _Worker(threading.Thread):
    """The thread of a tracker."""

    def __init__(self, name: str, run: TrackedRun, images: bool) -> None:
        super().__init__(name=f"tracker {name}", daemon=True)
        self.tracker, self.tracked, self.images = name, run, images
        self.tasks: queue.Queue[TrackedNumbers | _Images | _End] = queue.Queue(WAITING)
        self.error = ""

    def add(self, task: "TrackedNumbers | _Images | _End") -> None:
        """Add a task, unless the tracker has failed or cannot keep up."""
        if self.error or (isinstance(task, _Images) and not self.images):
            return
        try:
            self.tasks.put_nowait(task)
        except queue.Full:
            self.error = f"{WAITING:,} lines wait for it"

    def run(self) -> None:
        """Begin the run, log what comes, and end it."""
        try:
            tracker = load_tracker(self.tracker)(self.tracked)
            while not self.error:
                tasks = self._next()
                tracker.log([task for task in tasks if isinstance(task, TrackedNumbers)])
                for task in tasks:
                    if isinstance(task, _Images):
                        tracker.show(task.name, task.images, task.step)
                    if isinstance(task, _End):
                        tracker.close(task.state)
                        return
        except BaseException as error:  # whatever it is, it must not end the training
            self.error = " ".join(f"{type(error).__name__}: {error}".split())[:200]

    def _next(self) -> "list[TrackedNumbers | _Images | _End]":
        """Wait for a task; all tasks that there are."""
        tasks = [self.tasks.get()]
        with contextlib.suppress(queue.Empty):
            while True:
                tasks.append(self.tasks.get_nowait())
        return tasks


class Tracking:
    """The trackers of a run; none by default."""

    def __init__(self, workers: Sequence[_Worker] = ()) -> None:
        self.workers = list(workers)
        for worker in self.workers:
            worker.start()

    def log(self, values: Mapping[str, object]) -> None:
        """Pass on a line of the log."""
        if self.workers:
            self._add(tracked_numbers(values, datetime.now(UTC).timestamp()))

    def show(self, name: str, images: Sequence[TrackedImage], step: int) -> None:
        """Pass on images."""
        if images:
            self._add(_Images(name, images, step))

    @property
    def wants_images(self) -> bool:
        """Whether any tracker takes images."""
        return any(worker.images for worker in self.workers)

    def close(self, state: str) -> None:
        """End the run in all trackers, and wait for them for a while."""
        late = time.monotonic() + PATIENCE[state]
        self._add(_End(state))
        for worker in list(self.workers):
            worker.join(max(0.0, late - time.monotonic()))
            if worker.is_alive() and not worker.error:
                worker.error = f"not done {PATIENCE[state]:g} s after the end of the run"
        self._drop_failed()

    def _add(self, task: TrackedNumbers | _Images | _End) -> None:
        for worker in self.workers:
            worker.add(task)
        self._drop_failed()

    def _drop_failed(self) -> None:
        """Warn of trackers that failed, once."""
        for worker in [one for one in self.workers if one.error]:
            self.workers.remove(worker)
            _warn(worker.tracker, worker.error)


@contextlib.contextmanager
def tracked(command: str, options: TrainingOptions, step: int = 0, *, resumed: bool = False) -> Iterator[Tracking]:
    """The trackers of a run that is begun, or resumed at a step, in its locked folder; they are told how it ends."""
    tracking = _begun(command, options, step, resumed) if options.track and distributed.rank() == 0 else Tracking()
    try:
        yield tracking
    except (KeyboardInterrupt, GeneratorExit):
        tracking.close(run_folder.STOPPED)
        raise
    except BaseException:
        tracking.close(run_folder.FAILED)
        raise
    tracking.close(run_folder.FINISHED)


def sent_options(command: str, options: TrainingOptions) -> dict[str, str | float | None]:
    """The options that are sent: all but those of tracking, with names of files and folders for their paths."""
    plain = as_json(options)
    member = plain.get("member")
    plain |= member if isinstance(member, dict) else {}
    sent: dict[str, str | float | None] = {"command": command}
    for name, value in plain.items():
        if name in NOT_SENT:
            continue
        if isinstance(value, list):
            sent[name] = " ".join(without_folders(str(one)) for one in value)
        else:
            sent[name] = value if isinstance(value, int | float | None) else without_folders(str(value))
    return sent


def without_folders(text: str) -> str:
    """The last part of a path or an address; other text as it is."""
    if not re.search(r"[\\/]", text):
        return text
    return re.split(r"[\\/]", re.split(r"[?#]", text)[0].rstrip("\\/"))[-1]


def _begun(command: str, options: TrainingOptions, step: int, resumed: bool) -> Tracking:
    try:
        identifier = _run_id(options.out, resumed)
    except OSError as error:
        for name in options.track:
            _warn(name, " ".join(str(error).split()))
        return Tracking()
    out = options.out.absolute()
    run = TrackedRun(identifier, out.name, out, sent_options(command, options), step)
    return Tracking([_Worker(name, run, _takes_images(name, options)) for name in dict.fromkeys(options.track)])


def _takes_images(name: str, options: TrainingOptions) -> bool:
    return options.track_images == "all" or (options.track_images == "local" and load_tracker(name).is_local())


def _run_id(folder: Path, resumed: bool) -> str:
    """The id of the run in this folder; a new one if it begins, or was not tracked until now."""
    file = folder / ID_FILE
    if resumed:
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
            known = files.read_json(file)["id"]
            if re.fullmatch(r"[0-9a-f]{16}", known):
                return str(known)
    identifier = secrets.token_hex(8)
    files.write_text(file, f'{{"id": "{identifier}"}}\n')
    return identifier


def _warn(tracker: str, error: str) -> None:
    run_folder.warn(
        f"--track {tracker} has stopped ({error.rstrip('.')}). Training continues, and {LOG_FILE} has the log."
    )
