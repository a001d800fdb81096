"""Comparison: several models' predictions of the same images → differences with their intervals and p-values.

Every model is compared with the first. Both tests are paired: how the models vary together is taken from the same
resamples of patients, or from DeLong's covariance; an interval without 0 and p < .05 are the same. Accuracy and F1 are
at the thresholds that each model was evaluated at; their means are over the findings for which every model that has any
has one, so that means can be laid beside each other. p-values are adjusted by Holm over all findings and models asked
about; the means over findings are a question of their own, adjusted over the models. Beside it stands what each model
costs, where its bundle is known.
"""

import contextlib
import fnmatch
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ribcage import metrics
from ribcage.bundle import cost
from ribcage.bundle.io import WEIGHTS_FILE, find_bundle
from ribcage.evaluation import own_predictions
from ribcage.evaluation.classification import LEVEL
from ribcage.evaluation.labelled import patient_names
from ribcage.inference import predictions
from ribcage.metrics import Comparison
from ribcage.metrics.evaluation import (
    METRICS_FILE,
    ClassificationEvaluation,
    MeanEstimate,
    ScalarEstimate,
    ThresholdRow,
    mean_estimate,
    optional_float,
    read_evaluation,
    scalar_estimate,
)
from ribcage.runtime import files
from ribcage.runtime.typed_json import INLINE

METRICS = ("auroc", "ap", "auroc_delong", "accuracy", "f1")
PREDICTIONS = "predictions.parquet"
LEAST = 4
"""Digits of a key that can mean a test."""


@dataclass(frozen=True)
class ComparisonEntry:
    """A model in the comparison."""

    name: str
    table: pd.DataFrame
    """Its predictions."""
    warnings: tuple[str, ...] = ()
    """Those of its evaluation."""
    rule: str = ""
    """How its thresholds were chosen; "" where none are known."""
    thresholds: dict[str, float | None] = field(default_factory=dict)
    """By finding."""
    bundle: Path | None = None
    """The folder of the model itself, where it is known."""
    assumptions: tuple[str, ...] = ()
    """What had to be assumed about its table."""


def entries(words: Sequence[str], on: str = "", thresholds: Sequence[str] = ()) -> list[ComparisonEntry]:
    """Tables of predictions, folders of evaluations, or runs that were evaluated; `on` says which evaluation,
    `thresholds` are of tables that know none."""
    files = chosen(words, on)
    read: dict[int, ComparisonEntry] = {}
    for place in sorted(range(len(files)), key=lambda place: files[place].suffix != ".parquet"):  # own tables last
        theirs = [name for one in read.values() for name in predictions.findings_of_table(one.table) if name]
        read[place] = comparison_entry(words[place], files[place], theirs)
    found = [read[place] for place in range(len(files))]
    known = list(dict.fromkeys(name for one in found for name in predictions.findings_of_table(one.table)))
    asked = own_predictions.thresholds(thresholds, known)
    if asked and all(one.thresholds for one in found):
        raise ValueError("--thresholds applies to tables without thresholds, and all of these have some.")
    return [one if one.thresholds or not asked else replace(one, rule="as given", thresholds=asked) for one in found]


def comparison_entry(word: str, file: Path | None = None, theirs: Sequence[str] = ()) -> ComparisonEntry:
    """A model by the table of its predictions; `theirs` are the findings of the other models."""
    file = file or chosen([word])[0]
    beside = file.parent / METRICS_FILE
    found = read_evaluation(beside) if file.name == PREDICTIONS and beside.is_file() else None
    table, assumptions = own_predictions.read_own_predictions(file, theirs)
    own = ComparisonEntry(word.rstrip("/\\"), table, bundle=owner(Path(word), file), assumptions=assumptions)
    if not isinstance(found, ClassificationEvaluation):
        return own
    rule = found.rule + " on the tested images" * (found.protocol == "peers")
    thresholds = {row.finding: row.threshold for row in found.findings}
    return replace(own, warnings=found.warnings, rule=rule, thresholds=thresholds)


def owner(place: Path, file: Path) -> Path | None:
    """The bundle that made a table of predictions: of the run named, or of the run whose evaluation it is."""
    above = file.parent.parent
    for folder in (place, *([above.parent] if above.name == "evaluation" else [])):
        if folder.is_dir():
            with contextlib.suppress(FileNotFoundError):
                return find_bundle(folder)
    return None


def chosen(words: Sequence[str], on: str = "") -> list[Path]:
    """The tables of predictions meant: of runs that were evaluated several times those whose test all have in common.

    on: the name of an evaluation, such as nih-test, or the first digits of a test's key.
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
    why = f"{len(common) or 'no'} tests are common to all" if known > 1 else "which one is meant is not known"
    raise ValueError(
        f"{place} was evaluated {len(files)} times: {names}; {why}. Choose one with --on NAME or --on KEY."
    )


def test_key(file: Path) -> str:
    """The key of the test that a table of predictions is of; "" where it is not known."""
    try:
        return str(files.read_json(file.parent / "metrics.json")["test"]["key"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def tables(place: Path, on: str = "") -> list[Path]:
    """The tables of predictions that may be meant; never none."""
    if not place.exists():
        raise FileNotFoundError(f"{place} does not exist.")
    if place.is_file():
        return [place]
    if (place / PREDICTIONS).is_file():
        return [place / PREDICTIONS]
    every = sorted((place / "evaluation").glob(f"*/{PREDICTIONS}"))
    found = [file for file in every if is_meant(file, on)]
    if not found:
        others = [file.parent.name for file in every]
        there = (
            f"It was evaluated on {', '.join(others)}."
            if others
            else f"Make them: ribcage evaluate {shlex.quote(str(place))} --data …"
        )
        raise FileNotFoundError(f"{place} holds no predictions{f' on {on}' if on else ''}. {there}")
    return found


def is_meant(file: Path, on: str) -> bool:
    """Whether `on` means the evaluation of this table: by its name, with or without the key behind it, by its key, or
    by a pattern."""
    name, own = file.parent.name, test_key(file)
    if not on or name == on or fnmatch.fnmatchcase(name, on):
        return True
    return bool(own) and (name == f"{on}-{own[:6]}" or (len(on) >= LEAST and own.startswith(on.lower())))


@dataclass(frozen=True)
class Aligned:
    """The same images and findings for all."""

    findings: tuple[str, ...]
    scores: list[np.ndarray]
    """One (N, F) for each model."""
    labels: np.ndarray
    patients: np.ndarray
    """(N,) as the table says that knows most of them; "" where unknown."""
    left_out: dict[str, int]
    """Images of a model that not all others have."""
    findings_left_out: dict[str, tuple[str, ...]]


def align(entries: Sequence[ComparisonEntry]) -> Aligned:
    """Bring all to the images and findings that everybody has."""
    entries = own_predictions_placed(entries)
    tables = [keyed(one) for one in entries]
    images = tables[0].index
    for table in tables[1:]:
        images = images[images.isin(table.index)]
    known = [predictions.findings_of_table(one.table) for one in entries]
    findings = tuple(name for name in known[0] if all(name in names for names in known[1:]))
    if not len(images) or not findings:
        lacking = "image" if not len(images) else "finding"
        raise ValueError(f"{', '.join(one.name for one in entries)} have no {lacking} in common.")
    common = [table.loc[images] for table in tables]
    labels = [table[[name + predictions.LABEL for name in findings]].to_numpy(np.float64) for table in common]
    for one, theirs in zip(entries[1:], labels[1:], strict=True):
        other = int((~((theirs == labels[0]) | (np.isnan(theirs) & np.isnan(labels[0])))).any(axis=1).sum())
        if other:
            raise ValueError(
                f"{other:,} images have different labels in {one.name} and {entries[0].name}: "
                "evaluate both on the same data with the same --policy."
            )
    told = max(common, key=lambda table: int((table["patient"] != "").sum()))  # of equals the first
    return Aligned(
        findings,
        [table[list(findings)].to_numpy(np.float64) for table in common],
        labels[0],
        patient_names(told),
        {one.name: len(table) - len(images) for one, table in zip(entries, tables, strict=True)},
        {
            one.name: tuple(name for name in names if name not in findings)
            for one, names in zip(entries, known, strict=True)
        },
    )


def own_predictions_placed(entries: Sequence[ComparisonEntry]) -> list[ComparisonEntry]:
    """The same; tables of anybody's get the sets, paths and labels of those of ours that they do not say."""
    full = [one.table for one in entries if own_predictions.is_whole(one.table)]
    return [replace(one, table=own_predictions.aligned_table(one.table, full, one.name)) for one in entries]


def keyed(one: ComparisonEntry) -> pd.DataFrame:
    """A table by set and path."""
    table = one.table.set_index(one.table["set"] + "\0" + one.table["path"])
    twice = int(table.index.duplicated().sum())
    if twice:
        raise ValueError(f"{one.name} has {twice:,} images twice (the same dataset and path).")
    return table


@dataclass(frozen=True, kw_only=True)
class Difference(ScalarEstimate):
    """The metric of a model minus that of the first."""

    p: float | None
    adjusted: float | None
    """p after Holm's adjustment."""


@dataclass(frozen=True, kw_only=True)
class ComparedCosts:
    """What a model costs: counts for one image, bytes on disk, and latency if it was measured."""

    parameters: int
    thop: int
    multiply_adds: int
    outside: int
    bytes: int
    latency: cost.Latency | None


@dataclass(frozen=True, kw_only=True)
class ComparedModel:
    """One model."""

    name: str
    warnings: tuple[str, ...]
    assumptions: tuple[str, ...]
    rule: str
    costs: ComparedCosts | None
    macro: dict[str, MeanEstimate]
    findings: tuple[ThresholdRow, ...]


@dataclass(frozen=True, kw_only=True)
class DifferenceRow:
    """One finding of two models."""

    finding: str
    metrics: dict[str, Difference] = field(default_factory=dict, metadata=INLINE)


@dataclass(frozen=True, kw_only=True)
class ModelDifference:
    """A model minus the first."""

    model: str
    minus: str
    findings: tuple[DifferenceRow, ...]
    macro: dict[str, Difference]


@dataclass(frozen=True, kw_only=True)
class ComparisonResult:
    """All numbers of a comparison."""

    images: int
    patients: int
    without_patient: int
    left_out: dict[str, int]
    """Images of each model that not all others have."""
    findings_left_out: dict[str, tuple[str, ...]]
    rated: tuple[str, ...]
    """Findings in the means of accuracy and F1."""
    level: float
    resamples: int
    seed: int
    models: tuple[ComparedModel, ...]
    differences: tuple[ModelDifference, ...]


def compare(
    entries: Sequence[ComparisonEntry], *, resamples: int = 1000, seed: int = 0, timing: cost.Timing | None = None
) -> ComparisonResult:
    """All numbers.

    timing: how to measure the latency of each model, for the first batch size; None does not.
    """
    if len(entries) < 2:
        raise ValueError("A comparison needs two or more models.")
    if len({one.name for one in entries}) < len(entries):
        raise ValueError("The same predictions were given twice.")
    data = align(entries)
    options: dict[str, Any] = {"resamples": resamples, "seed": seed}
    models = list(zip(data.scores, [at(one, data.findings) for one in entries], strict=True))
    options["rated"] = rated([thresholds for _, thresholds in models])
    wholes = [
        metrics.summarise(scores, data.labels, data.patients, thresholds=thresholds, **options).metrics
        for scores, thresholds in models
    ]
    pairs = [
        metrics.compare_scores(
            scores, models[0][0], data.labels, data.patients, at=(thresholds, models[0][1]), **options
        )
        for scores, thresholds in models[1:]
    ]
    return ComparisonResult(
        images=len(data.labels),
        patients=len(set(data.patients.tolist()) - {""}),
        without_patient=int((data.patients == "").sum()),
        left_out=data.left_out,
        findings_left_out=data.findings_left_out,
        rated=tuple(name for name, counts in zip(data.findings, options["rated"], strict=True) if counts),
        level=LEVEL,
        resamples=resamples,
        seed=seed,
        models=tuple(
            ComparedModel(
                name=one.name,
                warnings=one.warnings,
                assumptions=one.assumptions,
                rule=one.rule,
                costs=cost,
                macro={name: mean_estimate(whole[name].macro, whole[name].averaged) for name in METRICS},
                findings=tuple(
                    ThresholdRow(
                        finding=finding,
                        threshold=optional_float(chosen[place]),
                        metrics={name: scalar_estimate(whole[name].findings, place) for name in METRICS},
                    )
                    for place, finding in enumerate(data.findings)
                ),
            )
            for one, whole, (_, chosen), cost in zip(entries, wholes, models, costs(entries, timing), strict=True)
        ),
        differences=differences(entries, data, pairs),
    )


def at(one: ComparisonEntry, findings: Sequence[str]) -> np.ndarray:
    """(F,) its thresholds; NaN where it has none."""
    found = [one.thresholds.get(name) for name in findings]
    return np.array([np.nan if each is None else each for each in found])


def rated(thresholds: Sequence[np.ndarray]) -> np.ndarray:
    """(F,) the findings for which all models have a threshold that have any at all."""
    known = ~np.isnan(np.stack(thresholds))  # (models, F)
    return known.any(axis=0) & known[known.any(axis=1)].all(axis=0)


def costs(entries: Sequence[ComparisonEntry], timing: cost.Timing | None = None) -> list[ComparedCosts | None]:
    """What each model costs; None where its bundle is not known."""
    subjects = [None if one.bundle is None else cost.Subject.of(one.bundle) for one in entries]
    known = [one for one in subjects if one is not None]
    times = iter(cost.measured_by_turns(known, timing) if timing else [None] * len(known))
    return [
        None
        if one is None or one.folder is None
        else ComparedCosts(
            **asdict(cost.count_operations(one)),
            bytes=(find_bundle(one.folder) / WEIGHTS_FILE).stat().st_size,
            latency=next(times),
        )
        for one in subjects
    ]


def differences(
    entries: Sequence[ComparisonEntry], data: Aligned, pairs: Sequence[dict[str, Comparison]]
) -> tuple[ModelDifference, ...]:
    """Each model minus the first."""
    adjusted = {name: holm_over_models([pair[name].p for pair in pairs]) for name in METRICS}
    found = []
    for n, (one, pair) in enumerate(zip(entries[1:], pairs, strict=True)):
        cells = [
            {name: _difference(pair[name], place, adjusted[name][n, place]) for name in METRICS}
            for place in range(len(data.findings) + 1)
        ]
        rows = [DifferenceRow(finding=name, metrics=cell) for name, cell in zip(data.findings, cells, strict=False)]
        found.append(ModelDifference(model=one.name, minus=entries[0].name, findings=tuple(rows), macro=cells[-1]))
    return tuple(found)


def _difference(pair: Comparison, place: int, adjusted: float) -> Difference:
    one = scalar_estimate(pair.interval, place)
    return Difference(
        value=one.value, low=one.low, high=one.high, p=optional_float(pair.p[place]), adjusted=optional_float(adjusted)
    )


def holm_over_models(p: Sequence[np.ndarray]) -> np.ndarray:
    """(models, F + 1) adjusted: findings of all models together, the means among themselves."""
    asked = np.stack(p)
    findings = metrics.holm(asked[:, :-1].ravel()).reshape(asked[:, :-1].shape)
    return np.concatenate([findings, metrics.holm(asked[:, -1])[:, None]], axis=1)


def thresholded(model: ComparedModel) -> list[tuple[str, bool]]:
    """The findings, and whether this model of a result has a threshold for them."""
    return [(row.finding, row.threshold is not None) for row in model.findings]


def comparison_notes(result: ComparisonResult) -> list[str]:
    """Sentences about what was left out and what is not honest."""
    texts = [f"{model.name}: {text}" for model in result.models for text in model.warnings]
    texts += [f"{model.name}: {text}." for model in result.models for text in model.assumptions]
    texts += [
        f"{model.name} has no accuracy and F1: its thresholds are not known. --thresholds gives them."
        for model in result.models
        if not any(has for _, has in thresholded(model))
    ]
    alike = [row.finding for row in result.models[0].findings if row.metrics["auroc"].value is None]
    if alike:
        texts.append(
            f"{', '.join(alike)}: only one class is known in these images, so not in the means that need both."
        )
    for model in result.models:
        lacked = [finding for finding, has in thresholded(model) if not has]
        if 0 < len(lacked) < len(model.findings):
            texts.append(
                f"{', '.join(lacked)}: not in the means of accuracy and F1, since {model.name} has no threshold "
                f"for {'it' if len(lacked) == 1 else 'them'}."
            )
    texts += [
        f"{model.name} was not timed after export: {model.costs.latency.why}"
        for model in result.models
        if model.costs and model.costs.latency and model.costs.latency.why
    ]
    if without := result.without_patient:
        texts.append(f"The patient of {without:,} images is not known: each counts as a patient of its own.")
    for name, count in result.left_out.items():
        if count:
            texts.append(f"{count:,} images of {name} are left out: not every model has predictions of them.")
    for name, findings in result.findings_left_out.items():
        if findings:
            texts.append(f"{', '.join(findings)} of {name}: left out, since not every model knows it.")
    return texts
