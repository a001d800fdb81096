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
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TextIO

from ribcage.data.collection import Datasets
from ribcage.runtime import distributed, files, launcher, progress, resuming, signals, threads
from ribcage.runtime.messages import Message
from ribcage.runtime.spelling import count_phrase
from ribcage.runtime.synchronised_norms import has_batch_norms
from ribcage.training import checkpoint, metrics_log, run_folder
from ribcage.training.options import TrainingOptions
from ribcage.training.saving import Saver
from ribcage.training.standing import Standing
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


class InterruptedRun(signals.Interruption):
    """A signal stopped the run after it saved a checkpoint."""


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
        self._replacing = False

    def resume(self) -> list[str]:
        """Continue from the newest intact checkpoint of the folder; later lines of the log are removed. Returns
        warnings if that is not the last one written, or if lines of earlier steps are missing from the log."""
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
        missing = distributed.run_on_first(lambda: self._settle(name))
        return [text for text in (warning, missing) if text]

    def replace_model(self) -> Message | None:
        """Save a model in place of the best one, which was deleted: that of the checkpoint, which `steps` validates
        first, or, if it was saved between two validations, that of the next one. Returns a sentence about it; None if
        no model has been saved yet."""
        deleted, step = self.standing.best_step, self.trainer.step
        if not deleted:
            return None
        self._replacing = self.standing.validated == step
        self.standing = replace(self.standing, best=-math.inf, best_loss=math.inf, best_step=0)
        folder = self.folder / "bundle"
        if deleted == step:
            return Message(f"{folder} was deleted. The model is saved again from the checkpoint.")
        instead = f"the model of step {step:,}" if self._replacing else "the best model from now on"
        return Message(
            f"{folder} was deleted. The checkpoint of step {step:,} does not contain the best model, which is that of "
            f"step {deleted:,}. Instead, {instead} is saved.",
            warning=True,
        )

    def steps(self) -> Iterator[StepLog]:
        """Train to the end; yield the log of every step."""
        if self._given_up() and not self._replacing:  # by the run that is resumed
            return
        self._saved_at = time.monotonic()
        recorded, explained = self._recorded(), launcher.lost_process_explained()
        stopping, saving = signals.deferred(self._receive), self._saver.completed()
        with recorded, explained, stopping, saving, _appending(self.folder / metrics_log.LOG_FILE) as log_file:
            try:
                yield from self._steps(log_file)
            except DivergedError as error:
                self._write_all(log_file, error.step)
                raise distributed.echoed(ValueError(f"{error} {self._what_then(error)}")) from None

    def _steps(self, log_file: TextIO | None) -> Iterator[StepLog]:
        """The steps, with the validations and checkpoints between them."""
        if self._replacing:
            self._save_replacement()
        if self._given_up():
            return
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

    def save(self) -> None:
        """Write a checkpoint; raise DivergedError instead if a value is not finite. With --shard, training may go on
        while it is written."""
        self.trainer.check()
        everything = {"run": self.trainer.state(), "standing": vars(self.standing)}
        self._saver.save(everything, self.trainer.step, again=self._saved_step == self.trainer.step)
        distributed.run_on_first(lambda: _recovered(self.folder / DIVERGED, self.trainer.step))
        self._saved_at, self._saved_step = time.monotonic(), self.trainer.step

    # ---- between the steps

    def _settle(self, name: str) -> str:
        """Restore the log to the step of the checkpoint, and rename a newer checkpoint that is damaged. Returns a
        warning if lines are missing from the log; "" otherwise."""
        checkpoint.set_damaged_aside(self.folder, name)
        step, file = self.trainer.step, self.folder / metrics_log.LOG_FILE
        with files.explained(self.folder, "Free some."):
            missing = metrics_log.cut_log(file, step, step // len(self.trainer.loader))
        if not missing:
            return ""
        return (
            f"{file} has no lines for {missing:,} of the {count_phrase(step, 'step')} before the checkpoint, so it was "
            f"deleted, shortened or damaged. Training continues, and a line in the file records the gap."
        )

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
        """Validate the model, log the result, save the model if it is the best so far, and call the observer."""
        step = self.trainer.step
        epoch = step // len(self.trainer.loader)
        found = self._validated(log_file)
        self.standing.validated = step
        self._write(log_file, metrics_log.validation_values(step, epoch, found))
        self._select(found)
        observer = _observer.get()
        if observer is not None and (reason := observer(epoch, found)) and epoch < self.trainer.epochs:
            self._discontinued = reason

    def _validated(self, log_file: TextIO | None) -> dict[str, float]:
        """The numbers of a validation; the steps before it are logged first."""
        self.trainer.check()
        self.trainer.gather()
        self._write_all(log_file)
        return distributed.broadcast_from_first(self.validate())

    def _select(self, found: Mapping[str, float]) -> None:
        """Save the model if these numbers are the best so far."""
        score, loss = found.get(self.plan.score, math.nan), found.get("loss", math.inf)
        if self.standing.take(self.trainer.step, score, loss, last=not self.plan.score):
            distributed.run_on_first(self.keep)

    def _save_replacement(self) -> None:
        """Validate the model of the checkpoint again and save it. Early stopping is not affected."""
        waiting = self.standing.waiting
        self._select(self._validated(None))
        self.standing.waiting, self._replacing = waiting, False
        self.save()

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

    def _receive(self, number: int) -> None:
        """Stop after the current step."""
        if self.signal is not None and number == signal.SIGINT:  # second signal: do not wait for the step
            raise KeyboardInterrupt("The last checkpoint is intact.")
        self.signal = number

    def _interrupted(self) -> InterruptedRun:
        name = signal.Signals(self.signal).name if self.signal is not None else "a signal to another process"
        code = 130 if self.signal == signal.SIGINT else signals.REQUEUE
        return InterruptedRun(f"{name}: saved at step {self.trainer.step:,}.", code)


@contextlib.contextmanager
def _appending(file: Path) -> Iterator[TextIO | None]:
    """The log file on rank 0, None elsewhere; every line is flushed."""
    if distributed.rank():
        yield None
        return
    with files.open_regular(file, "a", encoding="utf-8", buffering=1) as stream:
        yield stream


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
            for warning in run.resume():
                run_folder.warn(warning)
            there = distributed.run_on_first((options.out / "bundle" / "model.json").exists)
            if not there and (message := run.replace_model()):
                run_folder.say(message)
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
