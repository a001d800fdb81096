"""Search for hyperparameters: train with different options, and select them on the validation split.

COMMAND is finetune, localise or distil, whose options are passed on. --space names the options to vary; values are
drawn with Optuna (TPE), and trials that are worse than the median of the others end early. Each trial is a run folder
in --out. Results are trials.csv, trials.html and the recipe best.toml; the test split is not used. The same command
continues a search that was stopped; several processes and machines that run it on the same folder share the trials.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from ribcage.runtime.remote.places import Place

if TYPE_CHECKING:
    from ribcage.runtime.flags import Flag
    from ribcage.training.options import TrainingOptions
    from ribcage.training.search.result import SearchResult
    from ribcage.training.search.space import Dimension
    from ribcage.training.search.study import OpenTrial, SharedStudy

POSITIONAL = ("command",)
PLACES = {"data": Place.DATASET, "out": Place.FOLDER_OUT, "init": Place.WEIGHTS, "teacher": Place.PREDICTOR}
METRICS = {"finetune": "auroc", "localise": "map", "distil": "auroc"}
"""Training commands, and the metric by which their runs select the best epoch."""
EXAMPLES = (
    "tune finetune --data data/nih --space lr=1e-5..1e-2:log weight-decay=0..0.1 augment=gentle,strong --out tune/nih",
    "tune finetune --recipe finetune-nih --data data/nih --space drop-path=0..0.3 --trials 40 --out tune/drop",
)


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of a search; those of the training command are added."""

    command: str
    """Training command."""
    data: tuple[str, ...]
    """Dataset folders."""
    space: tuple[str, ...]
    """Options to vary, as NAME=LOW..HIGH (with :log for a logarithmic scale, :int for whole numbers) or NAME=A,B,C."""
    out: Path
    """Folder to write the search to, with a run folder for each trial."""
    trials: int = 20
    """Number of trials in all, including those of earlier and parallel runs of this search."""
    prune: bool = True
    """End a trial early if its best validation score so far is below the median of the other trials after the same
    epoch."""
    seed: int = 0
    """Random seed of the search and of every trial."""
    member: dict[str, object] = field(default_factory=dict)


def members() -> tuple[str, ...]:
    """The training commands that validate."""
    return tuple(METRICS)


def training_module(name: str) -> ModuleType:
    """The module of a training command."""
    import importlib

    from ribcage.runtime.limits import UsageError
    from ribcage.runtime.spelling import did_you_mean

    if name not in METRICS:
        raise UsageError(
            f"tune cannot run the command {name!r}.{did_you_mean(name, METRICS)} COMMAND must be one of "
            f"{', '.join(METRICS)}."
        )
    return importlib.import_module(f"ribcage.commands.{name}")


def member(name: str) -> Callable[..., None]:
    """A function whose keywords are the options of the training command."""
    from ribcage.runtime import flags

    own = {one.name for one in dataclasses.fields(Options)} | {"resume", "devices"}
    return flags.keyword_function([one for one in training_flags(name) if one.name not in own])


def training_flags(name: str) -> "list[Flag]":
    """The options of the training command."""
    from ribcage.runtime import flags

    module = training_module(name)
    return [one for one in flags.read_flags(module, []) if one.name not in getattr(module, "UNAVAILABLE", ())]


def run(options: Options) -> "SearchResult":
    """Train until there are enough trials; write and return the result."""
    import shlex
    import sys

    from ribcage.runtime import flags, resuming
    from ribcage.training.search.study import SharedStudy

    module = training_module(options.command)
    require_optuna()
    space, training = checked(options, module)
    begin(options, space, training)
    again = shlex.join(["ribcage", "tune", *flags.option_line(sys.modules[__name__], options)])
    with resuming.resumed_instead_by(again):
        study = SharedStudy(options.out, space, seed=options.seed, prune=options.prune)
        print(introduction(options, study), flush=True)
        try:
            search(options, study, module, training)
        finally:
            found = result(options, study, training)
            write(found, study, training)
    report(found)
    return found


def require_optuna() -> None:
    """Raise ImportError with the line that installs it, if Optuna is missing."""
    import importlib.util

    if importlib.util.find_spec("optuna") is None:
        raise ImportError("tune needs optuna: pip install 'ribcage[tune]'")


def checked(options: Options, module: ModuleType) -> "tuple[list[Dimension], TrainingOptions]":
    """The search space, and the options of the training command; one ValueError with all that is wrong."""
    from ribcage.runtime import launch_variables, limits
    from ribcage.training.search import space

    wrong: list[str] = []
    dimensions: list[Dimension] = []
    try:
        dimensions = space.read_space(options.space, training_flags(options.command))
    except ValueError as error:
        wrong.append(str(error).removesuffix("."))
    training = module.Options(**{**options.member, "data": options.data, "out": options.out, "seed": options.seed})

    def faults(changes: Mapping[str, object]) -> list[str]:
        changed = dataclasses.replace(training, **changes)
        return [*limits.faults(changed), *getattr(module, "wrong", lambda _: [])(changed)]

    varied = {one.flag.name: one.option_value(one.extremes()[0]) for one in dimensions}
    wrong += faults(varied) + space.space_faults(dimensions, faults)
    if options.trials < 1:
        wrong.append(f"--trials {options.trials} must be at least 1")
    if launch_variables.launched():
        wrong.append("tune does not run under torchrun or srun: start the command once per GPU with the same --out")
    if wrong:
        raise ValueError("; ".join(dict.fromkeys(wrong)) + ".")
    return dimensions, training


def begin(options: Options, space: "Sequence[Dimension]", training: "TrainingOptions") -> None:
    """Create the folder of the search, or check that it has the same search."""
    from ribcage.data import selection
    from ribcage.data.collection import Datasets
    from ribcage.runtime import files
    from ribcage.training import run_folder
    from ribcage.training.search import record, study
    from ribcage.training.teachers import opening

    data = Datasets.open(options.data)
    selection.distinct(data)
    hashes = opening.content_hashes(getattr(training, "teacher", ()))
    words = [f"{one.flag.name}={one.text()}" for one in space]
    asked = {**run_folder.record(options.command, training, data, hashes), "space": words, "prune": options.prune}
    record.check_folder(options.out)
    with files.explained(options.out, "Free some."):
        options.out.mkdir(parents=True, exist_ok=True)
    with study.locked_folder(options.out):
        record.begin_or_continue(options.out, asked)


def introduction(options: Options, study: "SharedStudy") -> str:
    """A sentence about the search, and about the trials that there are."""
    there = study.records()
    names = ", ".join(f"{one.flag.name.replace('_', '-')} {one.text()}" for one in study.space)
    text = f"Searching {names} in {options.trials} trials."
    return text + (f" {len(there)} were started before." if there else "")


def search(options: Options, study: "SharedStudy", module: ModuleType, training: "TrainingOptions") -> None:
    """Run trials until there are enough; the results are written after each."""
    from ribcage.training.search import trials

    warned: set[str] = set()
    while True:
        with study.next_trial(options.trials) as trial:
            if trial is None:
                return
            asked = trial_options(trial, study, training)
            first = not any(one.epoch for one in study.records())
            trials.run_trial(
                trial, asked, lambda asked=asked: module.run(asked), METRICS[options.command],  # type: ignore[misc]
                first=first, warned=warned,
            )  # fmt: skip
        found = result(options, study, training)
        write(found, study, training)
        print(trial_line(found, trial.number, options.trials), flush=True)


def trial_options(trial: "OpenTrial", study: "SharedStudy", training: "TrainingOptions") -> "TrainingOptions":
    """The options of a trial, which is resumed if it was begun before."""
    from ribcage.training.search.study import trial_name

    values: dict[str, Any] = {one.flag.name: one.option_value(trial.values[one.flag.name]) for one in study.space}
    return dataclasses.replace(training, **values, out=study.folder / trial_name(trial.number), resume="auto")


def result(options: Options, study: "SharedStudy", training: "TrainingOptions") -> "SearchResult":
    """The trials so far."""
    from ribcage.training.search.result import SearchResult

    return SearchResult(
        folder=options.out,
        command=options.command,
        data=options.data,
        metric=METRICS[options.command],
        val=str(getattr(training, "val", "")),
        space=tuple(study.space),
        trials=tuple(study.records()),
    )


def write(found: "SearchResult", study: "SharedStudy", training: "TrainingOptions") -> None:
    """The table, the page and the recipe; one process writes at a time."""
    from ribcage.reports.search import write_search_page
    from ribcage.training.search.result import write_recipe, write_trials

    with study.locked():
        found = dataclasses.replace(found, trials=tuple(study.records()))  # another process may have finished one
        write_trials(found)
        write_search_page(found)
        write_recipe(found, training)


def trial_line(found: "SearchResult", number: int, count: int) -> str:
    """One line about a trial that has ended."""
    from ribcage.training.search.result import METRIC_NAMES, values_text

    one, best = found.trials[number - 1], found.best
    parts = [f"trial {number} of {count}", values_text(one.values)]
    parts += [f"{METRIC_NAMES[found.metric]} {one.score:.4f}"] if one.score is not None else []
    parts += [f"{one.state}, {one.seconds:.0f} s"] + [one.why] * (one.state == "failed")
    parts += [f"best {best.score:.4f} ({best.folder})"] if best else []
    return " · ".join(parts)


def report(found: "SearchResult") -> None:
    """Print the best trial, the files, and what to do next."""
    import shlex

    from ribcage.reports.search import PAGE_FILE
    from ribcage.training.search import record
    from ribcage.training.search import result as results

    running = sum(one.state in ("running", "interrupted") for one in found.trials)
    if running:
        print(
            f"Trials that are running in other processes or were recently killed on another machine: {running}. "
            f"Run the same command again to resume the trials that were killed."
        )
    written = f"{found.folder / record.TABLE_FILE} and {found.folder / PAGE_FILE}"
    best = found.best
    if found.deleted:
        print(results.deleted_text(found))
    if best is None:
        print(
            f"No trial has a model. Wrote {written}." if found.deleted else f"No trial has finished. Wrote {written}."
        )
        return
    print(
        f"Best of {results.counted(found)}: {best.folder}, {results.METRIC_NAMES[found.metric]} {best.score:.4f} on "
        f"split {found.val!r}, with {results.values_text(best.values)}. The value is optimistic, because the trial was "
        f"selected by it."
    )
    print(f"Wrote {written}. --recipe {found.folder / results.RECIPE_FILE} repeats the trial.")
    test = shlex.join(["ribcage", "evaluate", str(found.folder / best.folder), "--data", *found.data])
    print(f"To test its model (once): {test}")
