"""Result of a search: a table of the trials, and the best one as a recipe."""

import itertools
import json
import math
import shlex
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ribcage.runtime import files, flags
from ribcage.runtime.spreadsheet import write_csv_rows
from ribcage.training.options import LEFT_OPEN, TrainingOptions, written_options
from ribcage.training.search.record import TABLE_FILE
from ribcage.training.search.space import Dimension, Value, plain_number
from ribcage.training.search.study import FINISHED, STATES, TrialRecord, best_trial

METRIC_NAMES = {"auroc": "mean AUROC", "map": "mAP"}
RECIPE_FILE = "best.toml"


@dataclass(frozen=True)
class SearchResult:
    """The trials of a search."""

    folder: Path
    command: str
    """The training command."""
    data: tuple[str, ...]
    metric: str
    """auroc or map, on the validation split."""
    val: str
    """The validation split."""
    space: tuple[Dimension, ...]
    trials: tuple[TrialRecord, ...]

    @property
    def best(self) -> TrialRecord | None:
        """The finished trial with the highest score of those whose model still exists."""
        return best_trial([one for one in self.trials if self.has_model(one)])

    @property
    def deleted(self) -> tuple[TrialRecord, ...]:
        """Finished trials with a higher score than the best one, whose models have been deleted."""
        best = self.best
        better = (one for one in ranked(self.trials) if one.state == FINISHED)
        return tuple(itertools.takewhile(lambda one: best is None or one.number != best.number, better))

    def has_model(self, trial: TrialRecord) -> bool:
        """Whether the model of a trial still exists."""
        return (self.folder / trial.folder / "bundle" / "model.json").is_file()

    @property
    def names(self) -> tuple[str, ...]:
        """The options that are varied."""
        return tuple(one.flag.name for one in self.space)


def write_trials(result: SearchResult) -> Path:
    """trials.csv: a line per trial, in the order in which they were started."""
    head = ["trial", "state", *result.names, result.metric, "epoch", "seconds", "folder", "reason"]
    rows = [
        [
            one.number,
            one.state,
            *(one.values.get(name, "") for name in result.names),
            "" if one.score is None or math.isnan(one.score) else f"{one.score:.6f}",
            one.epoch,
            f"{one.seconds:.1f}",
            one.folder,
            one.why,
        ]
        for one in result.trials
    ]
    with files.explained(result.folder, "Free some."), files.atomic(result.folder / TABLE_FILE) as part:
        write_csv_rows(head, rows, part)
    return result.folder / TABLE_FILE


def write_recipe(result: SearchResult, options: TrainingOptions) -> Path | None:
    """best.toml: the options of the best trial, for --recipe; None if no trial has finished.

    Args:
        options: those of a trial, of which the values of the best one replace those that were varied.
    """
    best = result.best
    if best is None:
        return None
    head = [f"# {part}".rstrip() for line in recipe_head(result, best) for part in _wrapped(line)]
    lines = [f"{name} = {toml_value(value)}" for name, value in recipe_values(result, best, options).items()]
    files.write_text(result.folder / RECIPE_FILE, "\n".join([*head, *lines]) + "\n")
    return result.folder / RECIPE_FILE


def deleted_text(result: SearchResult) -> str:
    """A sentence about trials with higher scores whose models have been deleted; "" without any."""
    if not result.deleted:
        return ""
    names = ", ".join(f"{one.folder} ({one.score:.4f})" for one in result.deleted)
    return f"Trials with a higher {METRIC_NAMES[result.metric]} whose models have been deleted: {names}."


def recipe_head(result: SearchResult, best: TrialRecord) -> list[str]:
    """The comment: how to use the recipe, and how its result was selected."""
    file, run = str(result.folder / RECIPE_FILE), str(result.folder / best.folder)
    train = ["ribcage", result.command, "--recipe", file, "--data", *result.data, "--out", str(result.folder / "best")]
    return [
        f"The best of {counted(result)} of a hyperparameter search with 'ribcage tune {result.command}'.",
        "",
        f"  {shlex.join(train)}",
        "",
        f"Data: {', '.join(result.data)}",
        f"Source: {result.folder}, trial {best.number}; its run folder is {run}.",
        f"Expected: {METRIC_NAMES[result.metric]} {best.score:.4f} on split {result.val!r}. The trial was selected "
        f"because this value is the highest of {len(result.trials)} trials, so the value is optimistic. Evaluate the "
        "model once on the test split.",
        *([deleted_text(result)] if result.deleted else []),
        f"Cost: {best.seconds:.0f} s for this trial, {sum(one.seconds for one in result.trials):.0f} s for all.",
        "",
    ]


def _wrapped(line: str) -> list[str]:
    """A line of the comment; commands stay on one line."""
    return [line] if line.startswith(" ") else textwrap.wrap(line, 110, break_on_hyphens=False) or [""]


def counted(result: SearchResult) -> str:
    """20 trials (14 finished, 5 pruned, 1 failed)"""
    counts = Counter(one.state for one in result.trials)
    states = ", ".join(f"{counts[name]} {name}" for name in STATES if counts[name])
    return f"{len(result.trials)} trials ({states})" if len(result.trials) > 1 else f"1 trial ({states})"


def recipe_values(result: SearchResult, best: TrialRecord, options: TrainingOptions) -> dict[str, object]:
    """The options of the best trial that differ from the defaults, and those that were left open, as they were filled
    in for it."""
    written = written_options(result.folder / best.folder)
    defaults = {name: flags.field_default(field) for name, field in options.__dataclass_fields__.items()}
    given = {name: value for name, value in vars(options).items() if value != defaults.get(name)}
    left_open = {name: written[name] for name in ("epochs", *LEFT_OPEN) if written.get(name) not in (None, [], "")}
    chosen = {one.flag.name: one.option_value(best.values[one.flag.name]) for one in result.space}
    return {
        name: value
        for name, value in {**given, **left_open, **chosen}.items()
        if name not in ("data", "out", "resume", "threads", "devices", "save_minutes")
    }


def toml_value(value: object) -> str:
    """A value of an option as TOML."""
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(toml_value, value))}]"
    return (
        str(value).lower()
        if isinstance(value, bool)
        else json.dumps(value if _plain(value) else str(value), ensure_ascii=False)
    )


def _plain(value: object) -> bool:
    return isinstance(value, int | float | str)


def value_text(value: Value) -> str:
    """A value with three significant digits, for tables on the terminal and on pages."""
    return (
        value if isinstance(value, str) else plain_number(float(f"{value:.3g}") if isinstance(value, float) else value)
    )


def values_text(values: Mapping[str, Value]) -> str:
    """lr 0.001, weight-decay 0.05"""
    return ", ".join(f"{name.replace('_', '-')} {value_text(value) or '(none)'}" for name, value in values.items())


def ranked(trials: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Finished trials by their score, the best first, then the others in their order."""
    finished = [one for one in trials if one.state == FINISHED]
    others = [one for one in trials if one.state != FINISHED]
    return [*sorted(finished, key=lambda one: -(one.score or 0.0)), *others]
