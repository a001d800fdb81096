"""Estimates: a number with its interval, and rows of them by metric. None means undefined."""

from dataclasses import dataclass, field

import numpy as np

from ribcage.metrics.intervals import Interval
from ribcage.runtime.typed_json import INLINE


@dataclass(frozen=True)
class ScalarEstimate:
    """A number with its interval."""

    value: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class MeanEstimate(ScalarEstimate):
    """A mean over findings with its interval."""

    findings: int = 0
    """Number of findings for which the metric is defined."""


@dataclass(frozen=True)
class SubgroupGap(MeanEstimate):
    """The mean of a subgroup minus that of all other images."""

    images: int = 0
    """Number of the others."""
    positives: int = 0
    """Positive labels of the others."""


@dataclass(frozen=True, kw_only=True)
class MetricRow:
    """Metrics of one finding."""

    finding: str
    metrics: dict[str, ScalarEstimate] = field(default_factory=dict, metadata=INLINE)


def optional_float(value: float | None) -> float | None:
    """A float, or None for NaN."""
    return None if value is None or np.isnan(value) else float(value)


def scalar_estimate(interval: Interval, place: int = 0) -> ScalarEstimate:
    """One place of an interval of arrays."""
    return ScalarEstimate(*(optional_float(each[place]) for each in (interval.value, interval.low, interval.high)))


def mean_estimate(interval: Interval, findings: int) -> MeanEstimate:
    """A mean over so many findings."""
    one = scalar_estimate(interval)
    return MeanEstimate(one.value, one.low, one.high, findings)
