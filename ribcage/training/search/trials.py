"""Trials: each is an ordinary training run in this process, whose validations decide whether it is pruned."""

import contextlib
import gc
import io
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TextIO

import torch

from ribcage.bundle.spec import ModelSpec
from ribcage.runtime import files, terminal
from ribcage.runtime.messages import Message
from ribcage.training import run_folder
from ribcage.training.metrics_log import LOG_FILE, read_log
from ribcage.training.options import TrainingOptions
from ribcage.training.run import DiscontinuedRun, observed_validations
from ribcage.training.search.study import OpenTrial

OUTPUT_FILE = "output.txt"


class NoValidationError(ValueError):
    """The run has no validation result, so that trials cannot be compared."""


def run_trial(
    trial: OpenTrial,
    options: TrainingOptions,
    train: Callable[[], object],
    metric: str,
    *,
    first: bool = False,
    warned: set[str],
) -> None:
    """Train to the end, or until the trial is pruned or fails, and record how it ended.

    An interruption, and an error that would end every trial, are raised; the trial can then be resumed.

    Args:
        options: those of the run.
        metric: the number of the validation that selects the model.
        first: no trial has been trained so far: an error before the first step is one of the options or the data.
        warned: warnings that were printed before; those of this trial are added.
    """
    start, failed = time.monotonic(), False
    why, score = "", math.nan
    try:
        why = reported_before(trial, options.out, metric)
        if not why:
            watch = observed_validations(lambda epoch, found: observed(trial, epoch, found, metric))
            with watch, trial_output(options.out, warned):
                train()
            score = saved_score(options.out, metric)
    except DiscontinuedRun as stop:
        why = str(stop)
    except NoValidationError:
        raise
    except (ValueError, torch.OutOfMemoryError) as error:
        if first and not read_log(options.out / LOG_FILE):
            raise
        failed, why = True, " ".join(str(error).split())
    finally:
        trial.add_seconds(time.monotonic() - start)
        if torch.cuda.is_available():  # the memory of this trial, for the next one
            gc.collect()
            torch.cuda.empty_cache()
    if why:
        trial.end_early(why, failed=failed)
    else:
        trial.finish(score)


def observed(trial: OpenTrial, epoch: int, found: Mapping[str, float], metric: str) -> str:
    """Record a validation; returns why the trial is to be pruned, else ""."""
    if metric not in found:
        raise NoValidationError(
            f"The run has no validation result for {metric}, the metric by which trials are compared."
        )
    if math.isfinite(found[metric]):
        trial.report(epoch, found[metric])
    return pruned(trial, epoch)


def pruned(trial: OpenTrial, epoch: int) -> str:
    """Why the trial is to be pruned, else ""."""
    return f"Pruned after epoch {epoch}: below the median of the other trials." if trial.should_prune() else ""


def reported_before(trial: OpenTrial, folder: Path, metric: str) -> str:
    """Record the validations of an interrupted run that its process could not record; returns why the trial is to be
    pruned, else ""."""
    log = [line for line in read_log(folder / LOG_FILE) if line.validation and metric in line.validation]
    for line in log:
        if line.validation and math.isfinite(line.validation[metric]):
            trial.report(line.epoch, line.validation[metric])
    finished = folder.exists() and run_folder.read_state(folder).name == run_folder.FINISHED
    return pruned(trial, log[-1].epoch) if log and not finished else ""


def saved_score(folder: Path, metric: str) -> float:
    """The validation result of the model that the run saved."""
    found = ModelSpec.load(folder / "bundle" / "model.json").metrics.get("validation", {})
    if metric not in found:
        raise NoValidationError(
            f"{folder} has no validation result for {metric}, the metric by which trials are compared."
        )
    return float(found[metric])


@contextlib.contextmanager
def trial_output(folder: Path, warned: set[str]) -> Iterator[None]:
    """Write what a training prints to a file in its folder; new warnings are printed as well."""
    files.refuse_links(folder.parent, folder)
    folder.mkdir(parents=True, exist_ok=True)
    with (
        files.open_regular(folder / OUTPUT_FILE, "a", encoding="utf-8", errors="backslashreplace") as file,
        contextlib.redirect_stdout(_Output(file, sys.stdout, warned)),
    ):
        yield


class _Output(io.TextIOBase):
    """A stream that writes lines to a file, and warnings that are new to the terminal as well."""

    def __init__(self, file: TextIO, shown: TextIO, warned: set[str]) -> None:
        self.file, self.shown, self.warned, self.line = file, shown, warned, ""

    def write(self, text: str) -> int:
        *lines, self.line = (self.line + text).split("\n")
        for line in lines:
            print(terminal.plain_text(line), file=self.file, flush=True)
            if Message.parse(line).warning and line not in self.warned:
                self.warned.add(line)
                print(line, file=self.shown, flush=True)
        return len(text)
