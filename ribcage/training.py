"""Training: a run in a folder. Logs every step, validates every epoch, saves often, stops when asked and goes on later.

runs/x/
├── options.json      what was asked, with every default filled in
├── metrics.jsonl     one line per step and per validation
├── state.json        running, finished, stopped or failed; how far, and why
├── checkpoint.pt     everything to go on from; replaced whole
├── bundle/           the best model so far, by validation
└── diverged.json     only after a loss that was not a number: the rows of that batch
"""

import json
import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

from ribcage import checkpoint, distributed, files, state
from ribcage.loop import DivergedError, Log, Run

Validate = Callable[[], dict[str, float]]


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


class Training:
    """A Run that lives in a folder.

    `validate` is called at the end of an epoch by every rank; `keep` stores the model when that was the best so far,
    at rank 0 alone.
    """

    def __init__(self, run: Run, folder: Path, plan: Plan, validate: Validate, keep: Callable[[], None]) -> None:
        self.run, self.folder, self.plan, self.validate, self.keep = run, folder, plan, validate, keep
        self.standing = Standing()
        self.signal: int | None = None

    def resume(self) -> None:
        """Go on from the folder's checkpoint; what was logged after it is cut off the log."""
        saved = checkpoint.load(self.folder / "checkpoint.pt")
        self.run.restore(saved["run"])
        self.standing = Standing(**saved["standing"])
        if distributed.rank() == 0:
            _cut_log(self.folder / "metrics.jsonl", self.run.step)

    def steps(self) -> Iterator[Log]:
        """Train to the end; every step's log is passed on after it was written."""
        if self._given_up():  # by a run that is asked to go on
            return
        saved = time.monotonic()
        with self._recorded(), self._listening(), _appending(self.folder / "metrics.jsonl") as log_file:
            try:
                for log in self.run.fit():
                    self._write(log_file, _numbers(log))
                    if log.epoch_done:
                        self._validate(log, log_file)
                    yield log
                    due = time.monotonic() - saved > 60 * self.plan.save_minutes
                    asked = distributed.anyone(self.signal is not None, self.run.device)
                    if log.epoch_done or due or asked:
                        self.save()
                        saved = time.monotonic()
                    if asked:
                        raise self._interrupted()
                    if self._given_up():
                        return
            except DivergedError as error:
                raise ValueError(f"{error} {self._what_then(error)}") from None

    def _what_then(self, error: DivergedError) -> str:
        """How to go on after a run diverged, and where the rows of the batch are."""
        file = self.folder / "diverged.json"
        if distributed.rank() == 0:
            files.write(file, json.dumps({"step": error.step, "rows": error.rows}) + "\n")
        how = "The same command with --resume and that goes on from the last good checkpoint."
        return how + (f" The rows of the batch are in {file}." if error.rows else "")

    def save(self) -> None:
        """Write the checkpoint; what is not finite is not written."""
        self.run.check()
        everything = {"run": self.run.state(), "standing": vars(self.standing)}
        if distributed.rank() == 0:
            checkpoint.save(self.folder / "checkpoint.pt", everything)
        distributed.from_first(None)  # nobody leaves before it is on the disk: who started us may end the others then

    def _validate(self, log: Log, log_file: TextIO | None) -> None:
        last = log.step == self.run.epochs * log.steps_in_epoch
        if not last and (log.epoch + 1) % self.plan.validate_every:
            return
        self.run.check()
        found = distributed.from_first(self.validate())
        self.standing.validated = log.step
        self._write(log_file, {"step": log.step, "epoch": log.epoch + 1, "validation": found})
        score, loss = found.get(self.plan.score, math.nan), found.get("loss", math.inf)
        better = score > self.standing.best or (score == self.standing.best and loss < self.standing.best_loss)
        if better or not self.standing.best_step or not self.plan.score:  # an undefined score keeps the first model
            self.standing.best, self.standing.best_loss = score, loss
            self.standing.best_step, self.standing.waiting = log.step, 0
            if distributed.rank() == 0:
                self.keep()
        else:
            self.standing.waiting += 1

    def _given_up(self) -> bool:
        return bool(self.plan.patience) and self.standing.waiting >= self.plan.patience

    def _write(self, log_file: TextIO | None, values: dict[str, Any]) -> None:
        if log_file is not None:
            log_file.write(json.dumps(values) + "\n")

    def _recorded(self) -> AbstractContextManager[None]:
        """While it lasts, rank 0 alone writes into the folder, and what became of the run stands in it."""
        return state.recorded(self.folder, self._place) if distributed.rank() == 0 else nullcontext()

    def _place(self) -> state.Place:
        """How far the run is."""
        steps = len(self.run.loader)
        return state.Place(self.run.step // max(1, steps), self.run.epochs, self.run.step, self.run.epochs * steps)

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
            raise KeyboardInterrupt("The last checkpoint is whole; --resume goes on from there.")
        self.training.signal = number


class _appending:  # noqa: N801 – used like a function
    """The log file at rank 0, None elsewhere; every line is handed to the system at once."""

    def __init__(self, file: Path) -> None:
        self.stream = files.opened(file, "a", encoding="utf-8", buffering=1) if distributed.rank() == 0 else None

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


def _cut_log(file: Path, step: int) -> None:
    """Keep only what was logged up to this step."""
    if not file.exists():
        return
    kept = []
    for line in file.read_text(encoding="utf-8").splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line)
        except (json.JSONDecodeError, KeyError):
            continue
    with files.atomic(file) as part:
        part.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
