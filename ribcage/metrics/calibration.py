"""Calibration: whether predicted probabilities match observed frequencies, and temperature scaling.

Temperature scaling divides logits by a number T, fitted on validation images: Guo et al. 2017,
https://arxiv.org/abs/1706.04599. It does not change the order of scores, so AUROC stays the same.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ribcage.metrics.effective_size import jackknife
from ribcage.metrics.intervals import Interval, normal_interval
from ribcage.metrics.patients import patient_numbers
from ribcage.metrics.ranking import Ranking, checked_arrays, rank_scores
from ribcage.metrics.thresholds import share

Slopes = Callable[[float], tuple[float, float]]
FEWEST_OF_CLASS = 50
"""Patients of the rarer class from which on the limits of a change of the Brier score have 92 to 95 % coverage
(`benchmarks/coverage.py --parts scaled`)."""
_DOUBLINGS, _STEPS = 60, 200


@dataclass(frozen=True)
class CalibrationBins:
    """Images of one finding in bins of probability, without empty bins; arrays of one length."""

    probability: np.ndarray
    """Mean probability in the bin."""
    positive: np.ndarray
    """Share of positives in the bin."""
    weight: np.ndarray

    @property
    def error(self) -> float:
        """Expected calibration error: mean absolute gap between probability and share of positives."""
        total = self.weight.sum()
        return float(self.weight @ np.abs(self.probability - self.positive) / total) if total else np.nan


@dataclass(frozen=True)
class Temperatures:
    """T of each finding. Where none could be fitted, T is 1 and the note gives the reason."""

    value: np.ndarray
    note: tuple[str, ...]
    """Empty where T was fitted."""


def brier(probabilities: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """(F,) mean squared difference of probability and label."""
    probabilities, labels, weights = checked_arrays(as_probabilities(probabilities), labels, weights)
    known = ~np.isnan(labels)
    return share(weights @ np.where(known, (probabilities - labels) ** 2, 0), weights @ known.astype(np.float64))


def brier_change(
    after: np.ndarray,
    before: np.ndarray,
    labels: np.ndarray,
    patients: np.ndarray | None = None,
    level: float = 0.95,
    *,
    fewest: int = FEWEST_OF_CLASS,
) -> Interval:
    """(F,) change of the Brier score on the same images, after minus before, paired over patients.

    fewest: patients with positive images, and with negative ones, below which there are no limits.
    """
    (after, labels, _), (before, _, _) = (checked_arrays(as_probabilities(each), labels) for each in (after, before))
    codes, known = patient_numbers(patients, len(labels)), ~np.isnan(labels)
    change = np.where(known, (after - labels) ** 2 - (before - labels) ** 2, 0.0)
    by_patient = [np.stack([np.bincount(codes, column) for column in each.T], axis=1) for each in (change, known)]
    value, variance = jackknife(*by_patient)
    few = np.minimum(*(_patients_with(labels == one, codes) for one in (0, 1))) < fewest
    return normal_interval(value, np.where(few, np.nan, np.sqrt(variance)), level)


def _patients_with(rows: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """(F,) number of patients (N,) who have one of the rows (N, F)."""
    return np.array([len(np.unique(codes[column])) for column in rows.T])


def calibration_bins(
    probabilities: np.ndarray,
    labels: np.ndarray,
    weights: np.ndarray | None = None,
    *,
    bins: int = 15,
    equal: Literal["mass", "width"] = "mass",
) -> list[CalibrationBins]:
    """The bins of each finding, either of equal weight (ties stay together) or of equal width."""
    if equal not in ("mass", "width") or bins < 1:
        raise ValueError(
            f"The number of bins must be at least 1, and the bins must have equal mass or equal width; {bins} bins of "
            f"equal {equal} were requested."
        )
    return [_bins(ranking, bins, equal) for ranking in rank_scores(as_probabilities(probabilities), labels, weights)]


def ece(
    probabilities: np.ndarray,
    labels: np.ndarray,
    weights: np.ndarray | None = None,
    *,
    bins: int = 15,
    equal: Literal["mass", "width"] = "mass",
) -> np.ndarray:
    """(F,) expected calibration error. It grows with the number of bins and with fewer images: report both."""
    return np.array([found.error for found in calibration_bins(probabilities, labels, weights, bins=bins, equal=equal)])


def temperatures(
    logits: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None, *, shared: bool = False
) -> Temperatures:
    """Maximum-likelihood T for sigmoid(logits / T), per finding or shared."""
    logits, labels, weights = checked_arrays(logits, labels, weights)
    findings = logits.shape[1]
    if shared:
        weights = np.repeat(weights, findings)
        logits, labels = logits.reshape(-1, 1), labels.reshape(-1, 1)
    found = [_temperature(z, y, weights) for z, y in zip(logits.T, labels.T, strict=True)]
    found = found * findings if shared else found
    return Temperatures(np.array([value for value, _ in found]), tuple(note for _, note in found))


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-logits)), without overflow."""
    falling = np.exp(-np.abs(logits))
    return np.where(logits >= 0, 1.0, falling) / (1 + falling)


def as_probabilities(values: np.ndarray) -> np.ndarray:
    """The values unchanged if all lie between 0 and 1 (or are NaN); else ValueError."""
    values = np.asarray(values, np.float64)
    strange = values[(values < 0) | (values > 1)]
    if len(strange):
        raise ValueError(
            f"Probabilities must be between 0 and 1, but one of them is {strange[0]:g}. Apply a sigmoid to logits "
            "first."
        )
    return values


def minimum(slopes: Slopes) -> float | None:
    """Minimum of a convex function of b > 0, by Newton steps within bounds; None if it is far from 1.

    slopes: b → first and second derivative.
    """
    low = high = 1.0
    for _ in range(_DOUBLINGS):
        if slopes(high)[0] >= 0:
            break
        low, high = high, high * 2
    for _ in range(_DOUBLINGS):
        if slopes(low)[0] <= 0:
            break
        low, high = low / 2, low
    if slopes(low)[0] > 0 or slopes(high)[0] < 0:
        return None
    b = (low + high) / 2
    for _ in range(_STEPS):
        first, second = slopes(b)
        low, high = (b, high) if first < 0 else (low, b)
        step = b - first / second if second > 0 else low
        new = step if low < step < high else (low + high) / 2
        if abs(new - b) <= 1e-15 * b:
            break
        b = new
    return b


def as_temperature(b: float | None, scale: float) -> tuple[float, str]:
    """T = scale / b for logits divided by their scale, or 1 and the reason."""
    found = 0.0 if b is None else scale / b
    return (found, "") if 0 < found < np.inf else (1.0, "the likelihood has no maximum")


def _temperature(logits: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> tuple[float, str]:
    # a temperature does not change an infinite logit
    used = ~np.isnan(labels) & (weights > 0) & np.isfinite(logits)
    z, y, w = logits[used], labels[used], weights[used]
    if not len(y) or y.min() == y.max():
        return 1.0, "labels have only one class"
    scale = max(float(np.abs(z).max()), np.finfo(float).tiny)
    z = z / scale
    if w @ (z * (0.5 - y)) >= 0:
        return 1.0, "positives score no higher than negatives"
    if not (np.where(y == 1, -z, z) > 0).any():
        return 1.0, "the sign of the logit separates the classes"

    def slopes(b: float) -> tuple[float, float]:
        """Derivatives of the mean log-loss in b = 1 / T."""
        p = sigmoid(b * z)
        return float(w @ (z * (p - y))), float(w @ (z * z * p * (1 - p)))

    return as_temperature(minimum(slopes), scale)


def _bins(ranking: Ranking, bins: int, equal: str) -> CalibrationBins:
    true, false = (np.diff(steps, prepend=0.0) for steps in ranking.steps())
    weight, levels = true + false, ranking.levels
    middle = (np.cumsum(weight) - weight / 2) / max(weight.sum(), np.finfo(float).tiny)
    place = np.minimum((bins * (1 - middle if equal == "mass" else levels)).astype(np.int64), bins - 1)
    total = np.bincount(place, weight, bins)
    full = total > 0
    probability, positive = (np.bincount(place, part, bins)[full] / total[full] for part in (weight * levels, true))
    return CalibrationBins(probability, positive, total[full])
