"""The models of a comparison: which table of predictions each word means, and what stands beside it."""

import contextlib
import fnmatch
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ribcage.bundle.io import find_bundle
from ribcage.evaluation import own_predictions
from ribcage.inference.prediction_table import PREDICTIONS_FILE, PredictionTable
from ribcage.metrics.classification_evaluation import ClassificationEvaluation
from ribcage.metrics.evaluation_file import METRICS_FILE, read_evaluation
from ribcage.runtime import files
from ribcage.runtime.remote import addresses, cache, objects
from ribcage.runtime.remote.addresses import address_text

LEAST = 4
"""Minimum number of digits that identify a test by its key."""


@dataclass(frozen=True)
class ComparisonEntry:
    """A model in the comparison."""

    name: str
    table: PredictionTable
    warnings: tuple[str, ...] = ()
    """Warnings of its evaluation."""
    rule: str = ""
    """Rule of its thresholds; "" if it has none."""
    thresholds: dict[str, float | None] = field(default_factory=dict)
    """By finding."""
    bundle: Path | None = None
    """The model's folder, if known."""
    assumptions: tuple[str, ...] = ()
    """Assumptions made in reading the table."""


def entries(words: Sequence[str], on: str = "", thresholds: Sequence[str] = ()) -> list[ComparisonEntry]:
    """The models to compare, from tables of predictions, folders of evaluations, or evaluated runs.

    on: which evaluation of a run.
    thresholds: for tables without thresholds.
    """
    places = [local_results(word) for word in words]
    files = chosen(places, on)
    read: dict[int, ComparisonEntry] = {}
    for place in sorted(range(len(files)), key=lambda place: files[place].suffix != ".parquet"):  # own tables last
        theirs = [name for one in read.values() for name in one.table.findings if name]
        read[place] = comparison_entry(words[place], files[place], theirs)
    found = [read[place] for place in range(len(files))]
    known = list(dict.fromkeys(name for one in found for name in one.table.findings))
    asked = own_predictions.thresholds(thresholds, known)
    if asked and all(one.thresholds for one in found):
        raise ValueError(
            "--thresholds applies to tables without thresholds, but all of these tables have thresholds. "
            "Leave the option out."
        )
    return [one if one.thresholds or not asked else replace(one, rule="as given", thresholds=asked) for one in found]


def local_results(word: str) -> Path:
    """The local file or folder that a word refers to; of a remote one, a copy of the table or of all results."""
    if not addresses.is_remote(word):
        return Path(word)
    if objects.exists(word):
        return cache.local_copy(word)
    local = cache.local_tree(word, lambda name: name.rpartition("/")[2] in (PREDICTIONS_FILE, METRICS_FILE))
    for file in (local / "evaluation").glob(f"*/{PREDICTIONS_FILE}"):
        if not (file.parent / METRICS_FILE).exists():  # written last: the folder is being written, or is incomplete
            file.unlink()
    return local


def comparison_entry(word: str, file: Path | None = None, theirs: Sequence[str] = ()) -> ComparisonEntry:
    """A model from its table of predictions. theirs: findings of the other models."""
    file = file or chosen([local_results(word)])[0]
    beside = file.parent / METRICS_FILE
    found = read_evaluation(beside) if file.name == PREDICTIONS_FILE and beside.is_file() else None
    table, assumptions = own_predictions.read_own_predictions(file, theirs)
    own = ComparisonEntry(word.rstrip("/\\"), table, bundle=owner(Path(word), file), assumptions=assumptions)
    if not isinstance(found, ClassificationEvaluation):
        return own
    rule = found.rule + " on the tested images" * (found.protocol == "peers")
    thresholds = {row.finding: row.threshold for row in found.findings}
    return replace(own, warnings=found.warnings, rule=rule, thresholds=thresholds)


def owner(place: Path, file: Path) -> Path | None:
    """The bundle that a table of predictions was made with: that of the run named, or of the run the evaluation lies
    in."""
    if addresses.is_remote(place):
        file = place if objects.exists(place) else place / PREDICTIONS_FILE
    above = file.parent.parent
    for folder in (place, *([above.parent] if above.name == "evaluation" else [])):
        if addresses.is_remote(folder) or folder.is_dir():
            with contextlib.suppress(FileNotFoundError):
                return find_bundle(folder)
    return None


def chosen(words: Sequence[Path | str], on: str = "") -> list[Path]:
    """The table of predictions of each model; of runs with several evaluations, those of the one test that all have in
    common.

    on: name of an evaluation, such as nih-test, or the first digits of a test's key.
    """
    several = [tables(Path(word), on) for word in words]
    if all(len(files) == 1 for files in several):
        return [files[0] for files in several]
    named = [next((file for file in files if file.parent.name == on), None) for files in several]
    found = [file for file in named if file]
    if len(found) == len(words) and len({test_key(file) for file in found}) == 1:
        return found
    keys = [{test_key(file): file for file in files} for files in several]
    common = [one for one in keys[0] if one and all(one in own for own in keys[1:])]
    if len(common) == 1:
        return [own[common[0]] for own in keys]
    if not common and all(file or len(files) == 1 for file, files in zip(named, several, strict=True)):
        return [file or files[0] for file, files in zip(named, several, strict=True)]
    place, files = next((word, files) for word, files in zip(words, several, strict=True) if len(files) > 1)
    names = ", ".join(f"{file.parent.name}{f' ({test_key(file)[:6]})' if test_key(file) else ''}" for file in files)
    known = sum(any(own) for own in keys)
    unknown = "Evaluations on the same test data cannot be identified, because their test keys are missing"
    why = f"The models have {len(common) or 'no'} evaluations on the same test data in common" if known > 1 else unknown
    raise ValueError(
        f"{address_text(place)} was evaluated {len(files)} times: {names}. {why}. Choose an evaluation with --on, by "
        f"its name or by the test key in parentheses."
    )


def test_key(file: Path) -> str:
    """The key of the test that a table of predictions belongs to; "" if unknown."""
    try:
        return str(files.read_json(file.parent / "metrics.json")["test"]["key"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def tables(place: Path, on: str = "") -> list[Path]:
    """The tables of predictions that a path and `on` may refer to; at least one."""
    if not place.exists():
        raise FileNotFoundError(f"{place} does not exist.")
    if place.is_file():
        return [place]
    if (place / PREDICTIONS_FILE).is_file():
        return [place / PREDICTIONS_FILE]
    every = sorted((place / "evaluation").glob(f"*/{PREDICTIONS_FILE}"))
    found = [file for file in every if is_meant(file, on)]
    if not found:
        others = [file.parent.name for file in every]
        there = (
            f"It was evaluated on {', '.join(others)}."
            if others
            else f"Create predictions with: ribcage evaluate {shlex.quote(address_text(place))} --data …"
        )
        raise FileNotFoundError(f"{address_text(place)} has no predictions{f' on {on}' if on else ''}. {there}")
    return found


def is_meant(file: Path, on: str) -> bool:
    """Whether `on` refers to the evaluation of this table: by its name, with or without the appended key, by its key,
    or by a pattern."""
    name, own = file.parent.name, test_key(file)
    if not on or name == on or fnmatch.fnmatchcase(name, on):
        return True
    return bool(own) and (name == f"{on}-{own[:6]}" or (len(on) >= LEAST and own.startswith(on.lower())))
