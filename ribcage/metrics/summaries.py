"""Summaries: all metrics of all findings with their intervals, for all images, for subgroups, and for two models."""

from dataclasses import dataclass, replace
from typing import TypedDict, TypeVar, Unpack

import numpy as np

from ribcage.metrics.definitions import load_metric, metrics_of
from ribcage.metrics.intervals import Interval, Paired, Proportions, concatenated, holm
from ribcage.metrics.patients import patient_numbers
from ribcage.metrics.placements import delong, delong_difference
from ribcage.metrics.ranking import checked_arrays
from ribcage.metrics.resampling import bootstrap, paired_difference

UNKNOWN_GROUP = "unknown"
"""The subgroup of rows whose value is not known."""


@dataclass(frozen=True)
class Estimate:
    """One metric."""

    findings: Interval
    macro: Interval
    """(1,) the mean over the findings for which the metric is defined."""
    averaged: int
    """Number of findings for which the metric is defined."""


@dataclass(frozen=True)
class MetricSummary:
    """Number of known labels and metrics of each finding."""

    n: np.ndarray
    """(F,) rows with a known label."""
    positives: np.ndarray
    patients: int
    metrics: dict[str, Estimate]
    """By name, those of `definitions`, and auroc_delong: AUROC whose differences are tested by DeLong's covariance."""


@dataclass(frozen=True)
class Comparison:
    """Model a minus model b on the same images: one metric for each finding, the mean over findings last."""

    interval: Interval
    """(F + 1,)"""
    p: np.ndarray
    """(F + 1,)"""
    adjusted: np.ndarray
    """(F + 1,) Holm's p over the findings; the mean is a separate test and not adjusted."""


class BootstrapOptions(TypedDict, total=False):
    """Keyword arguments of `bootstrap`."""

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

    rated: (F,) whether a finding's rates count in their means; by default all that are defined do.
    """
    scores, labels, weights = checked_arrays(scores, labels, options.get("weights"))
    found = bootstrap(scores, labels, patients, **options)
    exact = delong(scores, labels, patients, weights=weights)
    metrics = {
        name: _estimate(values, _meant(name, values, rated), level)
        for name, values in {**found, "auroc_delong": exact}.items()
    }
    positives = (labels == 1).sum(axis=0)
    metrics |= {name: without_uncertain_mean(metrics[name], positives, _mean_from(name)) for name in found}
    people = int(patient_numbers(patients, len(scores)).max(initial=-1)) + 1
    return MetricSummary((~np.isnan(labels)).sum(axis=0), positives, people, metrics)


def without_uncertain_mean(estimate: Estimate, positives: np.ndarray, fewest: int) -> Estimate:
    """The same without an interval of the mean over several findings where one of them has fewer positives."""
    return replace(estimate, macro=certain_mean(estimate.macro, estimate.findings.value, positives, fewest))


def certain_mean(mean: Interval, values: np.ndarray, positives: np.ndarray, fewest: int) -> Interval:
    """The mean over the defined values (F,), without limits if it is over several findings and one of them has fewer
    positives."""
    defined = ~np.isnan(values)
    if defined.sum() < 2 or positives[defined].min() >= fewest:
        return mean
    none = np.full(1, np.nan)
    return Interval(mean.value, none, none, none)


def summarise_groups(
    groups: np.ndarray,
    scores: np.ndarray,
    labels: np.ndarray,
    patients: np.ndarray | None = None,
    *,
    level: float = 0.95,
    **options: Unpack[BootstrapOptions],
) -> dict[str, MetricSummary]:
    """A summary for each value of groups (N,), in their order; empty, None, NaN and the word are 'unknown', last."""
    names = np.array(["" if value is None or value != value else str(value) for value in np.asarray(groups).tolist()])
    names = np.where(names == UNKNOWN_GROUP, "", names)
    scores, labels, _ = checked_arrays(scores, labels, options.get("weights"))
    if names.shape != (len(scores),):
        raise ValueError(f"groups must have one value for each of the {len(scores)} rows, but has shape {names.shape}.")
    codes = patient_numbers(patients, len(scores))
    found = {}
    for name in sorted(set(names.tolist()), key=lambda name: (name == "", name)):
        rows = np.flatnonzero(names == name)
        own = _of_rows(options, rows)
        found[name or UNKNOWN_GROUP] = summarise(scores[rows], labels[rows], codes[rows], level=level, **own)
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
    """Two models' scores on the same rows: every metric of scores over the same resamples, and auroc_delong.

    at: the thresholds (F,) of a and of b; with them every metric at a threshold, too.
    rated: as in `summarise`.
    """
    labels = checked_arrays(a, labels)[1]
    own = [options.copy(), options.copy()]
    for one, thresholds in zip(own, at or (), strict=False):
        one["thresholds"] = thresholds
    models = [bootstrap(scores, labels, patients, **one) for scores, one in zip((a, b), own, strict=True)]
    exact = [delong(scores, labels, patients, weights=options.get("weights")) for scores in (a, b)]
    names = (*metrics_of("scores"), *(metrics_of("threshold") if at else ()))
    apart = {name: paired_difference(models[0][name], models[1][name]) for name in names}
    apart["auroc_delong"] = delong_difference(*exact)
    positives = (labels == 1).sum(axis=0)
    return {
        name: _compared(name, values, _meant(name, values, rated), positives, level) for name, values in apart.items()
    }


Measured = TypeVar("Measured", Proportions, Paired)


def _meant(name: str, values: Measured, rated: np.ndarray | None) -> Measured:
    """The values that the mean is over."""
    return values if rated is None or name not in metrics_of("threshold") else values.over(rated)


def _estimate(values: Proportions, meant: Proportions, level: float) -> Estimate:
    averaged = int((~np.isnan(meant.value)).sum())
    return Estimate(values.interval(level), meant.macro().interval(level), averaged)


def _compared(name: str, apart: Paired, meant: Paired, positives: np.ndarray, level: float) -> Comparison:
    mean = meant.macro()
    p = np.append(apart.p_value(), mean.p_value())
    limits = certain_mean(mean.interval(level), meant.value, positives, _mean_from(name))
    return Comparison(concatenated(apart.interval(level), limits), p, _adjusted(p))


def _mean_from(name: str) -> int:
    """Fewest positives of each finding for an interval of the mean over findings."""
    return 0 if name == "auroc_delong" else load_metric(name).mean_from


def _adjusted(p: np.ndarray) -> np.ndarray:
    return np.append(holm(p[:-1]), p[-1:])


def _of_rows(options: BootstrapOptions, rows: np.ndarray) -> BootstrapOptions:
    own = options.copy()
    if (weights := options.get("weights")) is not None:
        own["weights"] = np.asarray(weights)[rows]
    if (probabilities := options.get("probabilities")) is not None:
        own["probabilities"] = np.asarray(probabilities)[rows]
    return own
