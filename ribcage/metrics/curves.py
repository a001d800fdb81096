"""Curves: points of ROC, precision-recall and histogram plots."""

from dataclasses import dataclass

import numpy as np

from ribcage.metrics.ranking import Ranking, rank_scores
from ribcage.metrics.thresholds import share


@dataclass(frozen=True)
class Curve:
    """Points from the highest threshold to the lowest; the first threshold is inf, where no image is called
    positive."""

    x: np.ndarray
    y: np.ndarray
    threshold: np.ndarray


@dataclass(frozen=True)
class Histogram:
    """Histogram of the scores of positives and negatives."""

    edges: np.ndarray
    positive: np.ndarray
    negative: np.ndarray


def roc(scores: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None) -> list[Curve]:
    """False positive rate and sensitivity of each finding; collinear points are left out."""
    return [_roc(ranking) for ranking in rank_scores(scores, labels, weights)]


def precision_recall(scores: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None) -> list[Curve]:
    """Recall and precision of each finding; points between two of equal recall are left out."""
    return [_precision_recall(ranking) for ranking in rank_scores(scores, labels, weights)]


def histogram(
    scores: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None, *, bins: int = 50
) -> list[Histogram]:
    """Bins of equal width of each finding's finite scores."""
    return [_histogram(ranking, bins) for ranking in rank_scores(scores, labels, weights)]


def _from_nobody(ranking: Ranking) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """True positives, false positives and thresholds, starting where no image is called positive."""
    true, false = ranking.steps()
    return np.append(0.0, true), np.append(0.0, false), np.append(np.inf, ranking.levels)


def _roc(ranking: Ranking) -> Curve:
    true, false, levels = _from_nobody(ranking)
    up, right = np.diff(true), np.diff(false)
    bend = up[1:] * right[:-1] != up[:-1] * right[1:]
    kept = np.concatenate([[True], bend, [True]])[: len(levels)]
    return Curve(_of(false, false[-1])[kept], _of(true, true[-1])[kept], levels[kept])


def _precision_recall(ranking: Ranking) -> Curve:
    true, false, levels = _from_nobody(ranking)
    gained = np.diff(true) > 0
    kept = np.concatenate([[True], gained]) | np.concatenate([gained, [True]])
    precision = share(true, true + false)
    precision[0] = 1.0  # by convention, at the start of the curve
    return Curve(_of(true, true[-1])[kept], precision[kept], levels[kept])


def _histogram(ranking: Ranking, bins: int) -> Histogram:
    finite = ranking.scores[np.isfinite(ranking.scores)]
    edges = np.histogram_bin_edges(finite, bins)
    sides = (ranking.positive, ~ranking.positive)
    counts = [np.histogram(ranking.scores[side], edges, weights=ranking.weights[side])[0] for side in sides]
    return Histogram(edges, *counts)


def _of(part: np.ndarray, whole: float) -> np.ndarray:
    return share(part, np.broadcast_to(whole, part.shape))
