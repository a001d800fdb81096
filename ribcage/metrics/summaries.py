"""Summaries: every metric of every finding with its interval, for all images, for subgroups, and for two models."""

from dataclasses import dataclass, replace
from typing import TypedDict, TypeVar, Unpack

import numpy as np

from ribcage.metrics.intervals import Interval, Paired, Proportions, concatenated, holm
from ribcage.metrics.patients import patient_numbers
from ribcage.metrics.placements import delong, delong_difference
from ribcage.metrics.ranking import checked_arrays
from ribcage.metrics.resampling import bootstrap, paired_difference
from ribcage.metrics.thresholds import RATES

FEWEST_FOR_MEAN_PRECISION = 200
"""Positives of each finding, from which on the mean average precision has an interval."""


@dataclass(frozen=True)
class Estimate:
    """One metric."""

    findings: Interval
    """(F,)"""
    macro: Interval
    """(1,) the mean over the findings that are defined."""
    averaged: int
    """How many findings are defined."""


@dataclass(frozen=True)
class MetricSummary:
    """What is known of each finding, and how well the scores tell it."""

    n: np.ndarray
    """(F,) rows whose label is known."""
    positives: np.ndarray
    patients: int
    metrics: dict[str, Estimate]
    """By name: auroc, auroc_delong, ap; with thresholds accuracy, f1, …; with probabilities brier."""


@dataclass(frozen=True)
class Comparison:
    """Model a minus model b on the same images: one metric, each finding and last the mean over findings."""

    interval: Interval
    """(F + 1,)"""
    p: np.ndarray
    """(F + 1,)"""
    adjusted: np.ndarray
    """(F + 1,) Holm's p over the findings; the mean is one question of its own and stays as it is."""


class BootstrapOptions(TypedDict, total=False):
    """What `bootstrap` takes by name."""

    weights: np.ndarray | None
    thresholds: np.ndarray | float | None
    probabilities: np.ndarray | None
    resamples: int
    seed: int
    threads: int | None


def summarise(
    scores: np.ndarray,
    labels: np.ndarray,
    patients: np.ndarray | None = None,
    *,
    level: float = 0.95,
    rated: np.ndarray | None = None,
    **options: Unpack[BootstrapOptions],
) -> MetricSummary:
    """All metrics with their intervals over patients; options as in `bootstrap`.

    rated: (F,) whether a finding's rates go into their means; by default all that are defined do.
    """
    scores, labels, weights = checked_arrays(scores, labels, options.get("weights"))
    found = bootstrap(scores, labels, patients, **options)
    exact = delong(scores, labels, patients, weights=weights)
    metrics = {
        name: _estimate(values, _meant(name, values, rated), level)
        for name, values in {**found, "auroc_delong": exact}.items()
    }
    positives = (labels == 1).sum(axis=0)
    metrics["ap"] = without_uncertain_mean(metrics["ap"], positives)
    people = int(patient_numbers(patients, len(scores)).max(initial=-1)) + 1
    return MetricSummary((~np.isnan(labels)).sum(axis=0), positives, people, metrics)


def without_uncertain_mean(precision: Estimate, positives: np.ndarray) -> Estimate:
    """Average precision whose mean over several findings has no interval where one of them has few positives.

    AP is too large on average then, and by the same direction for all findings: the interval of their mean would hold
    the truth too rarely (`benchmarks/coverage.py --parts rare`).
    """
    defined = ~np.isnan(precision.findings.value)
    if precision.averaged < 2 or positives[defined].min() >= FEWEST_FOR_MEAN_PRECISION:
        return precision
    none = np.full(1, np.nan)
    return replace(precision, macro=Interval(precision.macro.value, none, none, none))


def summarise_groups(
    groups: np.ndarray,
    scores: np.ndarray,
    labels: np.ndarray,
    patients: np.ndarray | None = None,
    *,
    level: float = 0.95,
    **options: Unpack[BootstrapOptions],
) -> dict[str, MetricSummary]:
    """The summary of each value in groups (N,), in their order; empty, None and NaN are 'unknown', last."""
    names = np.array(["" if value is None or value != value else str(value) for value in np.asarray(groups).tolist()])
    scores, labels, _ = checked_arrays(scores, labels, options.get("weights"))
    if names.shape != (len(scores),):
        raise ValueError(f"Groups are {names.shape}; there must be one value for each of the {len(scores)} rows.")
    codes = patient_numbers(patients, len(scores))
    found = {}
    for name in sorted(set(names.tolist()), key=lambda name: (name == "", name)):
        rows = np.flatnonzero(names == name)
        own = _of_rows(options, rows)
        found[name or "unknown"] = summarise(scores[rows], labels[rows], codes[rows], level=level, **own)
    return found


def compare_scores(
    a: np.ndarray,
    b: np.ndarray,
    labels: np.ndarray,
    patients: np.ndarray | None = None,
    *,
    level: float = 0.95,
    at: tuple[np.ndarray, np.ndarray] | None = None,
    rated: np.ndarray | None = None,
    **options: Unpack[BootstrapOptions],
) -> dict[str, Comparison]:
    """Two models' scores on the same rows: auroc and ap over the same resamples, and auroc_delong.

    at: the thresholds (F,) of a and of b; with them the rates, too.
    rated: as in `summary`.
    """
    labels = checked_arrays(a, labels)[1]
    own = [options.copy(), options.copy()]
    for one, thresholds in zip(own, at or (), strict=False):
        one["thresholds"] = thresholds
    models = [bootstrap(scores, labels, patients, **one) for scores, one in zip((a, b), own, strict=True)]
    exact = [delong(scores, labels, patients, weights=options.get("weights")) for scores in (a, b)]
    names = ("auroc", "ap", *(RATES if at else ()))
    apart = {name: paired_difference(models[0][name], models[1][name]) for name in names}
    apart["auroc_delong"] = delong_difference(*exact)
    return {name: _compared(values, _meant(name, values, rated), level) for name, values in apart.items()}


Measured = TypeVar("Measured", Proportions, Paired)


def _meant(name: str, values: Measured, rated: np.ndarray | None) -> Measured:
    """What the mean is over."""
    return values if rated is None or name not in RATES else values.over(rated)


def _estimate(values: Proportions, meant: Proportions, level: float) -> Estimate:
    averaged = int((~np.isnan(meant.value)).sum())
    return Estimate(values.interval(level), meant.macro().interval(level), averaged)


def _compared(apart: Paired, meant: Paired, level: float) -> Comparison:
    mean = meant.macro()
    p = np.append(apart.p_value(), mean.p_value())
    return Comparison(concatenated(apart.interval(level), mean.interval(level)), p, _adjusted(p))


def _adjusted(p: np.ndarray) -> np.ndarray:
    return np.append(holm(p[:-1]), p[-1:])


def _of_rows(options: BootstrapOptions, rows: np.ndarray) -> BootstrapOptions:
    own = options.copy()
    if (weights := options.get("weights")) is not None:
        own["weights"] = np.asarray(weights)[rows]
    if (probabilities := options.get("probabilities")) is not None:
        own["probabilities"] = np.asarray(probabilities)[rows]
    return own
