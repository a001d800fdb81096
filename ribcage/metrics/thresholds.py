"""Thresholds: chosen on validation images, applied to others. A score at or above the threshold is positive."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ribcage.metrics.ranking import Ranking, checked_arrays, rank_scores

RULES = ("youden", "midpoint", "f1", "sensitivity", "specificity")
_SURE = 1e-6  # probabilities are limited to this distance from 0 and 1, so that one image cannot dominate a mean
_SLACK = 1e-12  # tolerance for rounding in sums of weights that should equal the requested share


@dataclass(frozen=True)
class ConfusionCounts:
    """True and false positives and negatives, by weight; arrays of one shape."""

    tp: np.ndarray
    fp: np.ndarray
    fn: np.ndarray
    tn: np.ndarray


def confusion_counts(
    scores: np.ndarray, labels: np.ndarray, thresholds: np.ndarray | float, weights: np.ndarray | None = None
) -> ConfusionCounts:
    """(F,) counts at one threshold per finding; NaN where the threshold is."""
    scores, labels, weights = checked_arrays(scores, labels, weights)
    return ConfusionCounts(*(weights @ cell for cell in outcomes(scores, labels, thresholds)))


def outcomes(scores: np.ndarray, labels: np.ndarray, thresholds: np.ndarray | float) -> np.ndarray:
    """(4, N, F): 1 where an image is a true positive, false positive, false negative, true negative; else 0."""
    thresholds = np.broadcast_to(np.asarray(thresholds, np.float64), scores.shape[1:])
    called = scores >= thresholds
    cells = np.stack([called & (labels == 1), called & (labels == 0), ~called & (labels == 1), ~called & (labels == 0)])
    return np.where(np.isnan(thresholds), np.nan, cells.astype(np.float64))


def choose_thresholds(
    scores: np.ndarray,
    labels: np.ndarray,
    rule: str = "youden",
    least: float = 0.9,
    weights: np.ndarray | None = None,
) -> np.ndarray:
    """(F,) thresholds by a rule of RULES; the highest of equally good ones. NaN where a class is missing.

    rule: youden (sensitivity + specificity), midpoint (of probabilities), f1, or `sensitivity` or `specificity`: the
      best of the other with this one ≥ `least`.
    """
    if rule not in RULES:
        raise ValueError(f"Unknown threshold rule {rule!r}; rules: {', '.join(RULES)}.")
    if not 0 <= least <= 1:
        raise ValueError(f"The minimum {rule} must be between 0 and 1, not {least:g}.")
    rankings = rank_scores(scores, labels, weights)
    if rule == "midpoint":
        return np.array([_midpoint(ranking) for ranking in rankings])
    return np.array([_chosen(ranking, rule, least) for ranking in rankings])


def _midpoint(ranking: Ranking) -> float:
    """Half-way, in log odds, between the means of positives and negatives.

    It has the same aim as `youden`, but depends on all images, not only on the few where the curve is highest: with few
    images it varies less. It does not depend on prevalence.
    """
    if not ranking.two_classes:
        return np.nan
    if ranking.scores[0] > 1 or ranking.scores[-1] < 0:
        raise ValueError("The rule 'midpoint' needs probabilities, but some scores are not between 0 and 1.")
    sure = np.clip(ranking.scores, _SURE, 1 - _SURE)
    odds, positive = np.log(sure / (1 - sure)), ranking.positive
    means = [np.average(odds[side], weights=ranking.weights[side]) for side in (positive, ~positive)]
    return float(1 / (1 + np.exp(-np.mean(means))))


def _chosen(ranking: Ranking, rule: str, least: float) -> float:
    if not ranking.two_classes:
        return np.nan
    # one more level above all scores: no image is called positive
    levels = np.append(np.nextafter(ranking.levels[0], np.inf), ranking.levels)
    true, false = (np.append(0.0, steps) for steps in ranking.steps())
    best = int(np.argmax(_GOODNESS[rule](true, false, least)))
    return float(levels[best]) if best or np.isfinite(levels[0]) else np.nan  # nothing lies above inf


def _youden(true: np.ndarray, false: np.ndarray, least: float) -> np.ndarray:
    return true * false[-1] - false * true[-1]  # without division, so that equal values compare equal


def _f1(true: np.ndarray, false: np.ndarray, least: float) -> np.ndarray:
    return 2 * true / (true + false + true[-1])


def _sensitive(true: np.ndarray, false: np.ndarray, least: float) -> np.ndarray:
    return np.where(true / true[-1] >= least - _SLACK, -false, -np.inf)


def _specific(true: np.ndarray, false: np.ndarray, least: float) -> np.ndarray:
    return np.where(1 - false / false[-1] >= least - _SLACK, true, -np.inf)


_GOODNESS: dict[str, Callable[[np.ndarray, np.ndarray, float], np.ndarray]] = {
    "youden": _youden,
    "f1": _f1,
    "sensitivity": _sensitive,
    "specificity": _specific,
}


def share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole, NaN where the whole is 0."""
    """part / whole, NaN where the whole is 0."""
    return np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=np.asarray(whole) > 0)
