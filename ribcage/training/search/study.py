"""Study: the trials of a search, in a journal that several processes and machines share without a server.

tune/x/
├── tune.json          command, options, search space and seed
├── journal.log        the trials, as Optuna's JournalStorage records them
├── trial-0007/        the run folder of a trial; output.txt is what the training printed
├── trial-0007.claim   locked by the process that works on the trial (claims.py)
├── trials.csv         the result: a line per trial,
├── trials.html        a page with plots,
└── best.toml          and the options of the best trial as a recipe

The journal is locked by a file that is created with O_EXCL, which is atomic on NFS 3 and later and on local disks.
Optuna's default is a symbolic link instead: Windows permits those only to administrators, and the age of a link whose
path is relative cannot be read, so the lock of a killed process would never be released. A lock that is older than half
a minute is released.

The values of trial n are drawn by TPE with a seed made from --seed and n, so a search that was stopped continues as if
it had not been, and two processes never draw the same values. Trials are pruned by MedianPruner: after FIRST finished
trials, a trial ends early if its best validation so far is below the median of the others after the same epoch, but
not at its first validation, which often follows directly after the warm-up and is uninformative. Hyperband needs more
trials than the tens that are usual here, and a budget per trial.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ribcage.runtime import files
from ribcage.training.search import claims
from ribcage.training.search.record import JOURNAL_FILE
from ribcage.training.search.space import Dimension, Value

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler
    from optuna.storages.journal import JournalFileBackend
    from optuna.study import Study
    from optuna.trial import FrozenTrial, Trial

FIRST = 5
"""Finished trials before the first one is pruned."""
STATES = FINISHED, PRUNED, FAILED, RUNNING, INTERRUPTED = "finished", "pruned", "failed", "running", "interrupted"
NAME = "tune"


@dataclass(frozen=True)
class TrialRecord:
    """A trial: its values, how it ended, and its result."""

    number: int
    """From 1 on."""
    state: str
    """finished, pruned, failed, running, or interrupted (stopped or killed, to be resumed)."""
    values: dict[str, Value]
    """Option → its value."""
    score: float | None
    """The metric on the validation split: of the saved model; of a trial that did not finish, at its last epoch."""
    epoch: int
    """Of the last validation."""
    seconds: float
    """Wall-clock time, without the parts that were killed."""
    why: str
    """Why it was pruned or failed."""

    @property
    def folder(self) -> str:
        """The name of its run folder."""
        return trial_name(self.number)


def trial_name(number: int) -> str:
    """The name of the run folder of a trial."""
    return f"trial-{number:04d}"


def best_trial(records: Sequence[TrialRecord]) -> TrialRecord | None:
    """The finished trial with the highest score, of equal ones the first; None without a finished trial."""
    finished = [one for one in records if one.state == FINISHED and one.score is not None]
    return max(finished, key=lambda one: (one.score, -one.number), default=None)


class OpenTrial:
    """A trial that this process works on."""

    def __init__(self, trial: "Trial", space: Sequence[Dimension]) -> None:
        self._trial, self.number = trial, trial.number + 1
        self.values: dict[str, Value] = {one.flag.name: trial.params[one.flag.name] for one in space}

    def report(self, epoch: int, score: float) -> None:
        """Record a validation, unless it was recorded before the trial was interrupted."""
        if epoch not in self._frozen().intermediate_values:
            self._trial.report(score, epoch)

    def should_prune(self) -> bool:
        """Whether the validations so far, of which there are at least two, are worse than those of other trials."""
        return len(self._frozen().intermediate_values) > 1 and self._trial.should_prune()

    def add_seconds(self, seconds: float) -> None:
        """Record the time of this part of the trial."""
        self._trial.set_user_attr("seconds", self._frozen().user_attrs.get("seconds", 0.0) + seconds)

    def finish(self, score: float) -> None:
        """Record the result."""
        self._trial.study.tell(self._trial, score)

    def end_early(self, why: str, *, failed: bool = False) -> None:
        """Record that it was pruned or failed. The sampler takes both for bad values: a failed trial, which it would
        ignore, would be repeated nearby."""
        from optuna.trial import TrialState

        self._trial.set_user_attr("failed", failed)
        self._trial.set_user_attr("why", why)
        self._trial.study.tell(self._trial, state=TrialState.PRUNED)

    def _frozen(self) -> "FrozenTrial":
        return self._trial.study.get_trials(deepcopy=False)[self.number - 1]


class SharedStudy:
    """The trials of a search in a folder; other processes may work on it at the same time."""

    def __init__(self, folder: Path, space: Sequence[Dimension], *, seed: int, prune: bool) -> None:
        import optuna
        from optuna.storages import JournalStorage

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.folder, self.space, self.seed = folder, space, seed
        with self.locked():
            pruner = optuna.pruners.MedianPruner(FIRST) if prune else optuna.pruners.NopPruner()
            journal = _journal(folder / JOURNAL_FILE)
            with _damage_explained(folder / JOURNAL_FILE):
                self.study: Study = optuna.create_study(
                    storage=JournalStorage(journal),
                    study_name=NAME,
                    direction="maximize",
                    pruner=pruner,
                    load_if_exists=True,
                )
                self.records()

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Within the block, no other process takes a trial or writes the results."""
        with locked_folder(self.folder):
            yield

    @contextlib.contextmanager
    def next_trial(self, count: int) -> Iterator[OpenTrial | None]:
        """Claim an interrupted trial or, as long as there are fewer than `count`, a new one; None if there is none."""
        with contextlib.ExitStack() as stack:
            with self.locked():
                trial = self._interrupted_trial(stack) or self._new_trial(stack, count)
            yield trial

    def records(self) -> list[TrialRecord]:
        """All trials."""
        return [self._record(one) for one in self.study.get_trials(deepcopy=False)]

    def _interrupted_trial(self, stack: contextlib.ExitStack) -> OpenTrial | None:
        from optuna.trial import Trial, TrialState

        for one in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if claims.is_abandoned(self._claim(one.number + 1)):
                stack.enter_context(claims.held(self._claim(one.number + 1)))
                self.study.sampler = _sampler(self.seed, one.number)
                return self._opened(Trial(self.study, one._trial_id))  # ask() has no way to continue a trial
        return None

    def _new_trial(self, stack: contextlib.ExitStack, count: int) -> OpenTrial | None:
        number = len(self.study.get_trials(deepcopy=False))
        if number >= count:
            return None
        stack.enter_context(claims.held(self._claim(number + 1)))
        self.study.sampler = _sampler(self.seed, number)
        return self._opened(self.study.ask())

    def _opened(self, trial: "Trial") -> OpenTrial:
        """The trial with all of its values: those that are recorded, else drawn now."""
        for one in self.space:
            one.draw(trial)
        return OpenTrial(trial, self.space)

    def _claim(self, number: int) -> Path:
        return self.folder / f"{trial_name(number)}.claim"

    def _record(self, trial: "FrozenTrial") -> TrialRecord:
        own, last = trial.user_attrs, trial.last_step
        state = self._state(trial)
        score = trial.value if trial.value is not None else trial.intermediate_values[last] if last else None
        return TrialRecord(
            number=trial.number + 1,
            state=state,
            values={one.flag.name: trial.params[one.flag.name] for one in self.space if one.flag.name in trial.params},
            score=None if state == FAILED else score,
            epoch=last or 0,
            seconds=float(own.get("seconds", 0.0)),
            why=str(own.get("why", "")),
        )

    def _state(self, trial: "FrozenTrial") -> str:
        from optuna.trial import TrialState

        if trial.state == TrialState.COMPLETE:
            return FINISHED
        if trial.state.is_finished():
            return FAILED if trial.user_attrs.get("failed", trial.state == TrialState.FAIL) else PRUNED
        return INTERRUPTED if claims.is_abandoned(self._claim(trial.number + 1)) else RUNNING


@contextlib.contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Lock the folder of a search for a moment; waits for other processes."""
    with files.explained(folder, "Free some."), _locked(folder / "search"):
        yield


@contextlib.contextmanager
def _locked(file: Path) -> Iterator[None]:
    from optuna.storages.journal import JournalFileOpenLock

    lock = JournalFileOpenLock(str(file))
    lock.acquire()
    try:
        yield
    finally:
        with contextlib.suppress(RuntimeError):  # released by another process, which took it for abandoned
            lock.release()


def _journal(file: Path) -> "JournalFileBackend":
    """The journal, without an incomplete last line: a full disk or a killed process may leave one, to which the next
    line would be added."""
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

    with _locked(file), files.open_regular(file, "ab+") as stream:
        stream.seek(0)
        content = stream.read()
        stream.truncate(content.rfind(b"\n") + 1)
    return JournalFileBackend(str(file), JournalFileOpenLock(str(file)))


@contextlib.contextmanager
def _damage_explained(journal: Path) -> Iterator[None]:
    """Turn what Optuna raises for lines that it cannot read into one clear line."""
    try:
        yield
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, AssertionError, RuntimeError) as error:
        what = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise ValueError(f"{journal} is damaged ({what}). Choose another --out.") from None


def _sampler(seed: int, number: int) -> "BaseSampler":
    """TPE for the trial with this number."""
    from optuna.samplers import TPESampler

    return TPESampler(seed=int(np.random.SeedSequence((seed, number)).generate_state(1)[0]))
