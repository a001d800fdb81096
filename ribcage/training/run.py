"""Run: a training run in its folder. It logs every step, validates, saves checkpoints, and stops on signals.

runs/x/
├── options.json             all options, with their defaults filled in, and changes of them on resuming
├── metrics.jsonl            one line per step and per validation
├── state.json               running, finished, stopped or failed; the epoch and step, and the reason
├── checkpoint.pt            all that is needed to resume; replaced atomically. With --shard, a folder: checkpoint
├── checkpoint.previous.pt   the checkpoint before it, used if it is damaged
├── bundle/                  the best model so far, by validation
└── diverged.json            after a step that was not finite, until the run is beyond it: the rows of that batch
"""

import contextlib
import contextvars
import json
import math
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

from ribcage.data.collection import Datasets
from ribcage.runtime import distributed, files, launcher, progress, resuming, threads
from ribcage.runtime.synchronised_norms import has_batch_norms
from ribcage.training import checkpoint, metrics_log, run_folder
from ribcage.training.options import TrainingOptions
from ribcage.training.saving import Saver
from ribcage.training.step_log import StepLog
from ribcage.training.tracking import Tracking, tracked
from ribcage.training.trainer import DivergedError, Trainer

Validate = Callable[[], dict[str, float]]
Observer = Callable[[int, Mapping[str, float]], str]
"""Receives the completed epochs and the numbers of each validation; returns why the run should end, else ""."""
_observer: contextvars.ContextVar[Observer | None] = contextvars.ContextVar("observer", default=None)

DIVERGED = "diverged.json"
RISK = 1.0
"""Minutes of training that may be lost if the run is killed during validation."""


class InterruptedRun(KeyboardInterrupt):
    """A signal stopped the run after it saved a checkpoint; `code` is the exit code."""

    def __init__(self, reason: str, code: int) -> None:
        super().__init__(reason)
        self.code = code


class DiscontinuedRun(InterruptedRun):
    """An observer of the validations ended the run after it saved a checkpoint."""


@contextlib.contextmanager
def observed_validations(observer: Observer) -> Iterator[None]:
    """Within the block, the observer is called after each validation of a run in this process."""
    token = _observer.set(observer)
    try:
        yield
    finally:
        _observer.reset(token)


@dataclass(frozen=True)
class Plan:
    """When to save, validate and stop early."""

    score: str = "auroc"
    """The metric that selects the best epoch; "": the last epoch is saved."""
    save_minutes: float = 10.0
    validate_every: int = 1
    """Epochs."""
    patience: int = 0
    """Validations without improvement before the run ends; 0: no early stopping."""


@dataclass
class Standing:
    """The state of the selection of the best epoch."""

    best: float = -math.inf
    best_loss: float = math.inf
    """The validation loss of the best epoch: of equal scores the lower loss is better."""
    best_step: int = 0
    waiting: int = 0
    """Validations since the best one."""
    validated: int = 0
    """The step of the last validation."""

    @classmethod
    def of(cls, values: dict[str, float]) -> "Standing":
        """From a checkpoint; TypeError for a value that is not a number."""
        if invalid := [name for name, value in values.items() if not isinstance(value, int | float)]:
            raise TypeError(f"the value of {invalid[0]} is not a number")
        return cls(**values)  # type: ignore[arg-type]


class Run:
    """A training run in a folder, which this process has locked (`opened_run`).

    `validate` is called by all ranks at the end of an epoch; `keep` saves the model on rank 0 if it is the best so far.
    """

    def __init__(
        self, trainer: Trainer[Any], folder: Path, plan: Plan, validate: Validate, keep: Callable[[], None]
    ) -> None:
        self.trainer, self.folder, self.plan, self.validate, self.keep = trainer, folder, plan, validate, keep
        self.standing = Standing()
        self.signal: int | None = None
        self._discontinued = ""
        self.tracking = Tracking()
        self._saver = Saver(folder)
        self._saved_at, self._saved_step = time.monotonic(), -1
        self._unwritten: deque[StepLog] = deque()

    def resume(self) -> str:
        """Continue from the newest intact checkpoint of the folder; later lines of the log are removed. A warning if
        that is not the last one written."""
        name, warning = distributed.run_on_first(lambda: _newest(self.folder))
        saved = checkpoint.load_checkpoint(self.folder / name)
        try:
            self.standing = Standing.of(saved["standing"])
            self.trainer.restore(saved["run"])
        except (KeyError, TypeError, ValueError, AttributeError, IndexError, RuntimeError) as error:
            what = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            raise ValueError(f"{self.folder / name} is not a checkpoint of this run ({what}).") from None
        if self.trainer.step > self.trainer.epochs * len(self.trainer.loader):
            raise ValueError(
                f"{self.folder / name} was saved at step {self.trainer.step:,}, which is beyond the end of this run."
            )
        self._saved_step = self.trainer.step
        distributed.run_on_first(lambda: self._settle(name))
        return str(warning)

    def steps(self) -> Iterator[StepLog]:
        """Train to the end; yield the log of every step."""
        if self._given_up():  # by the run that is resumed
            return
        self._saved_at = time.monotonic()
        file = self.folder / metrics_log.LOG_FILE
        recorded, explained = self._recorded(), launcher.lost_process_explained()
        with recorded, explained, self._listening(), self._saver.completed(), _appending(file) as log_file:
            try:
                if self._validation_due(self.trainer.step):  # the run was stopped between an epoch and its validation
                    self._validate(log_file)
                    self._end_if_discontinued()
                for log in self.trainer.fit():
                    self._take(log, log_file)
                    stopping = log.epoch_done and self._asked()
                    if not stopping and self._validation_due(log.step):
                        if distributed.any_process(self._minutes() > RISK):
                            self.save()  # a scheduler may kill the run before the validation ends
                        self._validate(log_file)
                    yield log
                    late = self._minutes() > self.plan.save_minutes
                    due, stopping, broken = distributed.any_of([late, self.signal is not None, self._saver.failed])
                    if broken:
                        self._saver.finish()  # raises its error
                    if log.epoch_done or due or stopping:
                        self._write_all(log_file)
                        self.save()
                    if stopping:
                        self._saver.finish()
                        raise self._interrupted()
                    if self._given_up():
                        return
                    self._end_if_discontinued()
                self._write_all(log_file)
            except DivergedError as error:
                self._write_all(log_file, error.step)
                raise distributed.echoed(ValueError(f"{error} {self._what_then(error)}")) from None

    def save(self) -> None:
        """Write a checkpoint; raise DivergedError instead if a value is not finite. With --shard, training may go on
        while it is written."""
        self.trainer.check()
        everything = {"run": self.trainer.state(), "standing": vars(self.standing)}
        self._saver.save(everything, self.trainer.step, again=self._saved_step == self.trainer.step)
        distributed.run_on_first(lambda: _recovered(self.folder / DIVERGED, self.trainer.step))
        self._saved_at, self._saved_step = time.monotonic(), self.trainer.step

    # ---- between the steps

    def _settle(self, name: str) -> None:
        """Restore the log to the step of the checkpoint; rename a newer checkpoint that is damaged."""
        checkpoint.set_damaged_aside(self.folder, name)
        with files.explained(self.folder, "Free some."):
            metrics_log.cut_log(self.folder / metrics_log.LOG_FILE, self.trainer.step)

    def _minutes(self) -> float:
        """Minutes since the last checkpoint."""
        return (time.monotonic() - self._saved_at) / 60

    def _asked(self) -> bool:
        """Whether any process got a signal to stop."""
        return distributed.any_process(self.signal is not None)

    def _what_then(self, error: DivergedError) -> str:
        """Advice after a divergence, and where the rows of the batch are written."""
        file = self.folder / DIVERGED
        distributed.run_on_first(
            lambda: files.write_text(file, json.dumps({"step": error.step, "rows": error.rows}) + "\n")
        )
        how = "Run the same command with --resume and the changed option to continue from the last checkpoint."
        self._saver.wait()
        if not distributed.run_on_first(lambda: checkpoint.has_checkpoint(self.folder)):
            again = "Run the same command with --resume and the changed option to start again"
            how = f"{again}, because there is no checkpoint yet."
        return how + (f" The rows of the batch are in {file}." if error.rows else "")

    def _validation_due(self, step: int) -> bool:
        """Whether the model is to be validated after this step, and has not been yet."""
        epoch, rest = divmod(step, len(self.trainer.loader))
        if rest or not step or self.standing.validated >= step:
            return False
        return epoch == self.trainer.epochs or epoch % self.plan.validate_every == 0

    def _validate(self, log_file: TextIO | None) -> None:
        self.trainer.check()
        self.trainer.gather()
        self._write_all(log_file)
        step = self.trainer.step
        found = distributed.broadcast_from_first(self.validate())
        self.standing.validated = step
        epoch = step // len(self.trainer.loader)
        self._write(log_file, metrics_log.validation_values(step, epoch, found))
        score, loss = found.get(self.plan.score, math.nan), found.get("loss", math.inf)
        better = score > self.standing.best or (score == self.standing.best and loss < self.standing.best_loss)
        if better or not self.standing.best_step or not self.plan.score:  # an undefined score keeps the first model
            self.standing.best, self.standing.best_loss = score, loss
            self.standing.best_step, self.standing.waiting = step, 0
            distributed.run_on_first(self.keep)
        else:
            self.standing.waiting += 1
        observer = _observer.get()
        if observer is not None and (reason := observer(epoch, found)) and epoch < self.trainer.epochs:
            self._discontinued = reason

    def _end_if_discontinued(self) -> None:
        if self._discontinued:
            self._saver.finish()
            raise DiscontinuedRun(self._discontinued, 0)

    def _given_up(self) -> bool:
        return bool(self.plan.patience) and self.standing.waiting >= self.plan.patience

    def _take(self, log: StepLog, log_file: TextIO | None) -> None:
        """Log the steps whose numbers can be read without waiting for the device."""
        self._unwritten.append(log)
        while len(self._unwritten) > self.trainer.lag:
            self._write(log_file, metrics_log.step_values(self._unwritten.popleft()))

    def _write_all(self, log_file: TextIO | None, until: int | None = None) -> None:
        """Log all steps that are not logged yet, up to a step."""
        while self._unwritten:
            log = self._unwritten.popleft()
            if until is None or log.step <= until:
                self._write(log_file, metrics_log.step_values(log))

    def _write(self, log_file: TextIO | None, values: Mapping[str, object]) -> None:
        if log_file is not None:
            with files.explained(self.folder, "Free some space, then resume from the last checkpoint."):
                log_file.write(json.dumps(values) + "\n")
            self.tracking.log(values)

    def _recorded(self) -> AbstractContextManager[None]:
        """Record the state of the run in its folder."""
        return run_folder.recorded_state(self.folder, self._place) if distributed.rank() == 0 else nullcontext()

    def _place(self) -> run_folder.RunPosition:
        """The position of the run."""
        steps = len(self.trainer.loader)
        return run_folder.RunPosition(
            self.trainer.step // max(1, steps), self.trainer.epochs, self.trainer.step, self.trainer.epochs * steps
        )

    # ---- signals

    def _listening(self) -> "_Listening":
        return _Listening(self)

    def _interrupted(self) -> InterruptedRun:
        name = signal.Signals(self.signal).name if self.signal is not None else "a signal to another process"
        code = 130 if self.signal == signal.SIGINT else 75
        return InterruptedRun(f"{name}: saved at step {self.trainer.step:,}.", code)


class _Listening:
    """SIGINT, SIGTERM and SIGUSR1 stop the run after the current step (only the main thread can receive them)."""

    def __init__(self, run: Run) -> None:
        self.run, self.before = run, dict[int, Any]()

    def __enter__(self) -> None:
        for name in ("SIGINT", "SIGTERM", "SIGUSR1"):
            if hasattr(signal, name) and threading.current_thread() is threading.main_thread():
                number = getattr(signal, name)
                self.before[number] = signal.signal(number, self._heard)

    def __exit__(self, *error: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _heard(self, number: int, frame: FrameType | None) -> None:
        if self.run.signal is not None and number == signal.SIGINT:  # second signal: do not wait for the step
            raise KeyboardInterrupt("The last checkpoint is intact.")
        self.run.signal = number


class _appending:  # noqa: N801 – used like a function
    """The log file on rank 0, None elsewhere; every line is flushed."""

    def __init__(self, file: Path) -> None:
        self.stream = files.open_regular(file, "a", encoding="utf-8", buffering=1) if distributed.rank() == 0 else None

    def __enter__(self) -> TextIO | None:
        return self.stream

    def __exit__(self, *error: object) -> None:
        if self.stream is not None:
            self.stream.close()


def _newest(folder: Path) -> tuple[str, str]:
    file, warning = checkpoint.newest(folder)
    return file.name, warning


def _recovered(file: Path, step: int) -> None:
    """Delete the record of a step that was not finite, once the run is beyond it."""
    with contextlib.suppress(FileNotFoundError, ValueError, KeyError, TypeError):
        if files.read_json(file)["step"] < step:
            file.unlink()


# ---- a run in its folder


@contextlib.contextmanager
def opened_run(
    command: str,
    options: TrainingOptions,
    run: Run,
    data: Datasets,
    teachers: Sequence[str] = (),
) -> Iterator[None]:
    """Lock the run folder, and start the run in it or resume it from its last checkpoint. Errors and interruptions get
    a note with the command line that resumes it.

    Args:
        teachers: hashes of the teachers' predictions or weights.
    """
    with contextlib.ExitStack() as stack:
        resumed = distributed.run_on_first(lambda: stack.enter_context(run_folder.locked(options)))
        if not resumed:
            distributed.run_on_first(lambda: run_folder.create(command, options, data, teachers))
        else:
            if warning := run.resume():
                run_folder.say(f"WARNING: {warning}")
            step = run.trainer.step
            normed = has_batch_norms(run.trainer.method)
            distributed.run_on_first(
                lambda: run_folder.record_changes(command, options, data, teachers, step, batch_norms=normed)
            )
        run.tracking = stack.enter_context(tracked(command, options, run.trainer.step, resumed=resumed))
        with resuming.resumed_by(run_folder.resume_command(command, options)):
            yield


def show_progress(run: Run, batch: int, note: Callable[[StepLog], str]) -> None:
    """Train to the end with a progress bar; `note` is the text beside it, made of the last step."""
    last: list[StepLog] = []

    def counts() -> Iterator[int]:
        for log in run.steps():
            last[:] = [log]
            yield log.images * distributed.world_size()

    if distributed.rank() > 0:
        list(counts())
        return
    if distributed.world_size() == 1 and (advice := threads.advice()):
        print(advice, file=sys.stderr, flush=True)
    steps = run.trainer.epochs * len(run.trainer.loader)
    shown = progress.track(
        counts(), steps * batch, "train", "images", run.trainer.step * batch, lambda: note(last[0]) if last else ""
    )
    list(shown)
