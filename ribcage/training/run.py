"""Training: a run in a folder. Logs every step, validates every epoch, saves often, stops when asked and goes on later.

runs/x/
├── options.json             what was asked, with every default filled in; and what was changed when the run went on
├── metrics.jsonl            one line per step and per validation
├── state.json               running, finished, stopped or failed; how far, and why
├── checkpoint.pt            everything to go on from; replaced whole
├── checkpoint.previous.pt   the one before, should that be damaged
├── bundle/                  the best model so far, by validation
└── diverged.json            after a step that was not finite, until the run is beyond it: the rows of that batch
"""

import contextlib
import json
import math
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

from ribcage.runtime import distributed, files
from ribcage.training import checkpoint, run_state
from ribcage.training.trainer import DivergedError, Log, Run

Validate = Callable[[], dict[str, float]]


DIVERGED = "diverged.json"
RISK = 1.0
"""Minutes of training that may be lost when a run is killed while it validates."""


class InterruptedRun(KeyboardInterrupt):
    """The run was asked to stop and has saved itself; `code` is what the program should exit with."""

    def __init__(self, reason: str, code: int) -> None:
        super().__init__(reason)
        self.code = code


@dataclass(frozen=True)
class Plan:
    """When to save, to validate and to give up."""

    score: str = "auroc"
    """The number of a validation that the best model is chosen by; "": the last one is kept."""
    save_minutes: float = 10.0
    validate_every: int = 1
    """Epochs."""
    patience: int = 0
    """Validations without a better one before the run ends; 0 never ends it."""


@dataclass
class Standing:
    """How the run stands, beside its weights."""

    best: float = -math.inf
    best_loss: float = math.inf
    """The validation's loss then: of equal scores the lower loss is better."""
    best_step: int = 0
    waiting: int = 0
    """Validations since the best one."""
    validated: int = 0
    """The step of the last validation."""

    @classmethod
    def of(cls, values: dict[str, Any]) -> "Standing":
        """What a checkpoint says, if it is numbers."""
        if strange := [name for name, value in values.items() if not isinstance(value, int | float)]:
            raise TypeError(f"{strange[0]} is not a number")
        return cls(**values)


class Training:
    """A Run that lives in a folder, which is this process's alone while it trains (`running.going`).

    `validate` is called at the end of an epoch by every rank; `keep` stores the model when that was the best so far,
    at rank 0 alone.
    """

    def __init__(self, run: Run, folder: Path, plan: Plan, validate: Validate, keep: Callable[[], None]) -> None:
        self.run, self.folder, self.plan, self.validate, self.keep = run, folder, plan, validate, keep
        self.standing = Standing()
        self.signal: int | None = None
        self._saved_at, self._saved_step = time.monotonic(), -1
        self._unwritten: deque[Log] = deque()

    def resume(self) -> str:
        """Go on from the folder's newest checkpoint that is whole; what was logged after it is cut off the log. A
        sentence where that is not the last one written."""
        name, said = distributed.run_on_first(lambda: _newest(self.folder))
        saved = checkpoint.load(self.folder / name)
        try:
            self.standing = Standing.of(saved["standing"])
            self.run.restore(saved["run"])
        except (KeyError, TypeError, ValueError, AttributeError, IndexError, RuntimeError) as error:
            what = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            raise ValueError(f"{self.folder / name} is not a checkpoint of this run ({what}).") from None
        if self.run.step > self.run.epochs * len(self.run.loader):
            raise ValueError(f"{self.folder / name} is at step {self.run.step:,}, beyond the end of this run.")
        self._saved_step = self.run.step
        distributed.run_on_first(lambda: self._settle(name))
        return str(said)

    def steps(self) -> Iterator[Log]:
        """Train to the end; every step's log is passed on."""
        if self._given_up():  # by a run that is asked to go on
            return
        self._saved_at = time.monotonic()
        file = self.folder / "metrics.jsonl"
        with self._recorded(), distributed.lost_process_explained(), self._listening(), _appending(file) as log_file:
            try:
                if self._validation_due(self.run.step):  # it was asked to stop between an epoch and its validation
                    self._validate(log_file)
                for log in self.run.fit():
                    self._take(log, log_file)
                    asked = log.epoch_done and self._asked()
                    if not asked and self._validation_due(log.step):
                        if distributed.anyone(self._minutes() > RISK, self.run.device):
                            self.save()  # a validation may outlast the patience of who stops us
                        self._validate(log_file)
                    yield log
                    late = self._minutes() > self.plan.save_minutes
                    due, asked = distributed.any_of([late, self.signal is not None], self.run.device)
                    if log.epoch_done or due or asked:
                        self._write_all(log_file)
                        self.save()
                    if asked:
                        raise self._interrupted()
                    if self._given_up():
                        return
                self._write_all(log_file)
            except DivergedError as error:
                self._write_all(log_file, error.step)
                raise distributed.echoed(ValueError(f"{error} {self._what_then(error)}")) from None

    def save(self) -> None:
        """Write the checkpoint; what is not finite is not written."""
        self.run.check()
        everything = {"run": self.run.state(), "standing": vars(self.standing)}
        file, again = self.folder / checkpoint.FILE, self._saved_step == self.run.step
        distributed.run_on_first(lambda: checkpoint.save(file, everything, again=again))
        distributed.run_on_first(lambda: _recovered(self.folder / DIVERGED, self.run.step))
        self._saved_at, self._saved_step = time.monotonic(), self.run.step

    # ---- between the steps

    def _settle(self, name: str) -> None:
        """What lies in the folder as it was when the checkpoint was written; a damaged newer one steps aside."""
        if name != checkpoint.FILE and (self.folder / checkpoint.FILE).exists():
            (self.folder / checkpoint.FILE).replace(self.folder / checkpoint.DAMAGED)
        with files.explained(self.folder, "Free some."):
            _cut_log(self.folder / "metrics.jsonl", self.run.step)

    def _minutes(self) -> float:
        """Since the last checkpoint."""
        return (time.monotonic() - self._saved_at) / 60

    def _asked(self) -> bool:
        """Whether any process was asked to stop."""
        return distributed.anyone(self.signal is not None, self.run.device)

    def _what_then(self, error: DivergedError) -> str:
        """How to go on after a run diverged, and where the rows of the batch are."""
        file = self.folder / DIVERGED
        distributed.run_on_first(
            lambda: files.write_text(file, json.dumps({"step": error.step, "rows": error.rows}) + "\n")
        )
        how = "The same command with --resume and that goes on from the last good checkpoint."
        if self._saved_step < 0:
            how = "The same command with --resume and that begins again: nothing was saved yet."
        return how + (f" The rows of the batch are in {file}." if error.rows else "")

    def _validation_due(self, step: int) -> bool:
        """Whether the model is to be validated after this step, and was not yet."""
        epoch, rest = divmod(step, len(self.run.loader))
        if rest or not step or self.standing.validated >= step:
            return False
        return epoch == self.run.epochs or epoch % self.plan.validate_every == 0

    def _validate(self, log_file: TextIO | None) -> None:
        self.run.check()
        self._write_all(log_file)
        step = self.run.step
        found = distributed.broadcast_from_first(self.validate())
        self.standing.validated = step
        self._write(log_file, {"step": step, "epoch": step // len(self.run.loader), "validation": found})
        score, loss = found.get(self.plan.score, math.nan), found.get("loss", math.inf)
        better = score > self.standing.best or (score == self.standing.best and loss < self.standing.best_loss)
        if better or not self.standing.best_step or not self.plan.score:  # an undefined score keeps the first model
            self.standing.best, self.standing.best_loss = score, loss
            self.standing.best_step, self.standing.waiting = step, 0
            distributed.run_on_first(self.keep)
        else:
            self.standing.waiting += 1

    def _given_up(self) -> bool:
        return bool(self.plan.patience) and self.standing.waiting >= self.plan.patience

    def _take(self, log: Log, log_file: TextIO | None) -> None:
        """Write the steps of which all is known without waiting for a device."""
        self._unwritten.append(log)
        while len(self._unwritten) > self.run.lag:
            self._write(log_file, _numbers(self._unwritten.popleft()))

    def _write_all(self, log_file: TextIO | None, until: int | None = None) -> None:
        """Write what is not written yet, up to a step."""
        while self._unwritten:
            log = self._unwritten.popleft()
            if until is None or log.step <= until:
                self._write(log_file, _numbers(log))

    def _write(self, log_file: TextIO | None, values: dict[str, Any]) -> None:
        if log_file is not None:
            with files.explained(self.folder, "Free some; --resume goes on from the last checkpoint."):
                log_file.write(json.dumps(values) + "\n")

    def _recorded(self) -> AbstractContextManager[None]:
        """While it lasts, what becomes of the run stands in its folder."""
        return run_state.recorded(self.folder, self._place) if distributed.rank() == 0 else nullcontext()

    def _place(self) -> run_state.Place:
        """How far the run is."""
        steps = len(self.run.loader)
        return run_state.Place(self.run.step // max(1, steps), self.run.epochs, self.run.step, self.run.epochs * steps)

    # ---- being asked to stop

    def _listening(self) -> "_Listening":
        return _Listening(self)

    def _interrupted(self) -> InterruptedRun:
        asked = signal.Signals(self.signal).name if self.signal is not None else "another process"
        code = 130 if self.signal == signal.SIGINT else 75
        return InterruptedRun(f"{asked}: saved at step {self.run.step:,}; --resume goes on from there.", code)


class _Listening:
    """While it lasts, SIGINT, SIGTERM and SIGUSR1 ask the training to stop after its step."""

    def __init__(self, training: Training) -> None:
        self.training, self.before = training, dict[int, Any]()

    def __enter__(self) -> None:
        for name in ("SIGINT", "SIGTERM", "SIGUSR1"):
            if hasattr(signal, name):
                number = getattr(signal, name)
                self.before[number] = signal.signal(number, self._heard)

    def __exit__(self, *error: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _heard(self, number: int, frame: FrameType | None) -> None:
        if self.training.signal is not None and number == signal.SIGINT:  # asked twice: do not wait for the step
            raise KeyboardInterrupt("The last checkpoint is intact; --resume continues from it.")
        self.training.signal = number


class _appending:  # noqa: N801 – used like a function
    """The log file at rank 0, None elsewhere; every line is handed to the system at once."""

    def __init__(self, file: Path) -> None:
        self.stream = files.open_regular(file, "a", encoding="utf-8", buffering=1) if distributed.rank() == 0 else None

    def __enter__(self) -> TextIO | None:
        return self.stream

    def __exit__(self, *error: object) -> None:
        if self.stream is not None:
            self.stream.close()


def _numbers(log: Log) -> dict[str, Any]:
    """A step as it is written down."""
    return {
        "step": log.step,
        "epoch": log.epoch + 1,
        "loss": log.loss,
        "lr": log.rate,
        "seconds": round(log.seconds, 4),
        "waited": round(log.waited, 4),
        **log.values,
    }


def _newest(folder: Path) -> tuple[str, str]:
    file, said = checkpoint.newest(folder)
    return file.name, said


def _recovered(file: Path, step: int) -> None:
    """Take away the note of a step that was not finite, once the run is beyond it."""
    with contextlib.suppress(FileNotFoundError, ValueError, KeyError, TypeError):
        if files.read_json(file)["step"] < step:
            file.unlink()


def _cut_log(file: Path, step: int) -> None:
    """Keep only what was logged up to this step."""
    if not file.exists():
        return
    lines = files.regular(file).read_text(encoding="utf-8", errors="replace").splitlines()
    files.write_text(file, "".join(line + "\n" for line in lines if _step(line) <= step))


def _step(line: str) -> float:
    """The step that a line of the log is of; infinity where it is none, as the last one may be that was cut off."""
    with contextlib.suppress(ValueError, RecursionError):
        said = json.loads(line)
        if isinstance(said, dict) and isinstance(said.get("step"), int):
            return int(said["step"])
    return math.inf
