"""Reliability of a model on validation data, stored in its bundle: AUROC with its interval, and bins of similar
probability with their share of positives.

Images are ordered by probability and repeatedly halved: the upper half of the rest becomes a bin as long as it has
enough images. So bins are narrow where a finding is likely. Intervals are those of `metrics.intervals` and account for
several images of one patient.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from ribcage.metrics import effective_size, intervals, placements
from ribcage.metrics.patients import patient_numbers

FEWEST = 30
"""Minimum number of images in a bin."""
BINS = 10


class ReliabilityBin(NamedTuple):
    """Images of similar probability; in JSON a list of these five numbers."""

    low: float
    """Lowest probability in the bin; the lowest bin also includes all below it."""
    images: int
    positives: int
    least: float
    """95 % limits of the share of positives."""
    most: float


@dataclass(frozen=True)
class FindingReliability:
    """Reliability of one finding on validation data."""

    images: int
    """Number of images with a known label."""
    positives: int
    auroc: tuple[float | None, float | None, float | None]
    """Value, lower and upper limit; None where undefined."""
    bins: tuple[ReliabilityBin, ...]
    """In ascending order of probability."""

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "FindingReliability":
        """From an object that `is_reliability` accepts."""
        bins = tuple(ReliabilityBin(*one) for one in value["bins"])
        value_, low, high = value["auroc"]
        return cls(value["images"], value["positives"], (value_, low, high), bins)

    @property
    def auroc_interval(self) -> tuple[float, float, float] | None:
        """AUROC with its limits; None where one of them is undefined."""
        value, low, high = self.auroc
        return None if value is None or low is None or high is None else (value, low, high)

    def bin_of(self, probability: float) -> ReliabilityBin | None:
        """The bin of a probability; None if there are no bins."""
        return next((one for one in reversed(self.bins) if one.low <= probability), self.bins[0]) if self.bins else None


def finding_reliability(
    probabilities: np.ndarray, labels: np.ndarray, patients: np.ndarray | None = None
) -> tuple[FindingReliability, ...]:
    """The reliability of each finding.

    probabilities, labels: (N, F); a label that is NaN is unknown.
    """
    codes = patient_numbers(patients, len(labels))
    found = placements.delong(probabilities, labels, codes).interval()
    return tuple(
        FindingReliability(
            int((~np.isnan(labels[:, f])).sum()),
            int((labels[:, f] == 1).sum()),
            (_finite(found.value[f]), _finite(found.low[f]), _finite(found.high[f])),
            reliability_bins(probabilities[:, f], labels[:, f], codes),
        )
        for f in range(labels.shape[1])
    )


def reliability_bins(probabilities: np.ndarray, labels: np.ndarray, codes: np.ndarray) -> tuple[ReliabilityBin, ...]:
    """The bins of one finding (N,), in ascending order; equal probabilities share a bin."""
    rows = np.flatnonzero(~np.isnan(labels))
    rows = rows[np.argsort(probabilities[rows], kind="stable")]
    made, ordered = [], probabilities[rows]
    for start, end in _cuts(ordered):
        here = rows[start:end]
        least, most = positive_share_limits(labels[here], codes[here])
        made.append(ReliabilityBin(float(ordered[start]), len(here), int((labels[here] == 1).sum()), least, most))
    return tuple(made)


def _cuts(ordered: np.ndarray) -> list[tuple[int, int]]:
    """Start and end of the bins of ascending probabilities."""
    starts = [0] if len(ordered) else []
    while len(starts) < BINS and starts:
        middle = int(np.searchsorted(ordered, ordered[(starts[-1] + len(ordered)) // 2]))  # the first of its equals
        if middle - starts[-1] < FEWEST or len(ordered) - middle < FEWEST:
            break
        starts.append(middle)
    return list(pairwise([*starts, len(ordered)]))


def positive_share_limits(labels: np.ndarray, codes: np.ndarray) -> tuple[float, float]:
    """Wilson's limits of the share of ones among (n,) labels of these patients; 0 to 1 for one patient."""
    owners = np.unique(codes, return_inverse=True)[1]
    parts, wholes = (np.bincount(owners, each)[:, None] for each in (labels, np.ones(len(labels))))
    found = intervals.wilson(*effective_size.ratio(parts, wholes, np.full(1, len(labels))), kind="count")
    return (0.0, 1.0) if np.isnan(found.low[0]) else (float(found.low[0]), float(found.high[0]))


def is_reliability(value: object) -> bool:
    """Whether a JSON value is a list that `FindingReliability.from_json` can read."""
    return isinstance(value, list) and all(map(_is_finding_reliability, value))


def _is_finding_reliability(value: object) -> bool:
    if not isinstance(value, dict) or set(value) != {"images", "positives", "auroc", "bins"}:
        return False
    auroc, made = value["auroc"], value["bins"]
    if not (isinstance(auroc, list) and len(auroc) == 3 and all(one is None or _is_amount(one) for one in auroc)):
        return False
    if not (isinstance(made, list) and len(made) <= BINS):
        return False
    return all(map(_is_amount, (value["images"], value["positives"]))) and all(
        isinstance(one, list) and len(one) == 5 and all(map(_is_amount, one)) for one in made
    )


def _is_amount(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value >= 0


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
