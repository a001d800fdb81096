"""Rankings: the images of one finding in descending order of scores, and the metrics of the order alone.

AUROC is the probability that a positive scores higher than a negative, ties counted half. Average precision is the
step-wise area sum_k (R_k - R_k-1) P_k over the distinct scores. Both are exact; both are NaN where a class is missing.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np


@dataclass(frozen=True)
class Ranking:
    """The rows of one finding with a known label and a weight above 0, in descending order of scores."""

    rows: np.ndarray
    """(n,) row numbers in the table."""
    scores: np.ndarray
    positive: np.ndarray
    """(n,) bool."""
    weights: np.ndarray
    ends: np.ndarray
    """(G,) ends of the groups of equal scores; the last is n."""

    def steps(self) -> tuple[np.ndarray, np.ndarray]:
        """(G,) cumulative weights of true and of false positives, at a threshold at each group."""
        last = self.ends - 1
        true = np.cumsum(np.where(self.positive, self.weights, 0.0))[last]
        false = np.cumsum(np.where(self.positive, 0.0, self.weights))[last]
        return true, false

    @property
    def levels(self) -> np.ndarray:
        """(G,) the distinct scores, descending."""
        return self.scores[self.ends - 1]

    @property
    def two_classes(self) -> bool:
        """Whether there are positives and negatives."""
        return bool(self.positive.any() and not self.positive.all())

    @property
    def tied(self) -> bool:
        """Whether a positive and a negative have the same score."""
        true, false = (np.diff(steps, prepend=0.0) for steps in self.steps())
        return bool(((true > 0) & (false > 0)).any())


class MacroMean(NamedTuple):
    """A mean over findings and the number of findings for which the metric is defined."""

    mean: float
    used: int


def rank_scores(scores: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None) -> list[Ranking]:
    """One ranking per finding from (N, F) scores and labels 1, 0 and NaN (unknown), and (N,) weights."""
    scores, labels, weights = checked_arrays(scores, labels, weights)
    return [_ranked(score, label, weights) for score, label in zip(scores.T, labels.T, strict=True)]


def auroc(scores: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """(F,) area under the ROC curve."""
    return np.array([area(ranking) for ranking in rank_scores(scores, labels, weights)])


def average_precision(scores: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """(F,) step-wise average precision, without interpolation."""
    return np.array([precision(ranking) for ranking in rank_scores(scores, labels, weights)])


def macro_mean(values: np.ndarray) -> MacroMean:
    """The mean over the findings for which the metric is defined."""
    defined = values[~np.isnan(values)]
    return MacroMean(float(defined.mean()) if len(defined) else np.nan, len(defined))


def area(ranking: Ranking) -> float:
    """AUROC: one minus the share of pairs in the wrong order."""
    if not ranking.two_classes:
        return np.nan
    true, false = ranking.steps()
    gained = np.diff(true, prepend=0.0)
    wrong = gained @ (false - np.diff(false, prepend=0.0) / 2)  # negatives above, and half of the ties
    return float(1 - wrong / (true[-1] * false[-1]))


def precision(ranking: Ranking) -> float:
    """Average precision."""
    if not ranking.two_classes:
        return np.nan
    true, false = ranking.steps()
    return float(np.diff(true, prepend=0.0) @ (true / (true + false)) / true[-1])


def checked_arrays(
    scores: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(N, F) float64 scores and labels and (N,) weights; ValueError if they are invalid."""
    scores, labels = (np.asarray(values, np.float64) for values in (scores, labels))
    if scores.shape != labels.shape or scores.ndim not in (1, 2):
        raise ValueError(
            f"Scores and labels must both have the shape (images, findings), but have the shapes {scores.shape} and "
            f"{labels.shape}."
        )
    scores, labels = (values.reshape(len(values), -1) if values.ndim == 1 else values for values in (scores, labels))
    known = ~np.isnan(labels)
    strange = labels[known & (labels != 0) & (labels != 1)]
    if len(strange):
        raise ValueError(
            f"Labels must be 1, 0 or NaN, but one of them is {strange[0]:g}. Apply an uncertainty policy first."
        )
    lost = np.argwhere(np.isnan(scores) & known)
    if len(lost):
        raise ValueError(
            f"Every known label needs a score, but the score of finding {lost[0, 1]} in row {lost[0, 0]} is NaN."
        )
    return scores, labels, _checked_weights(weights, len(scores))


def _checked_weights(weights: np.ndarray | None, count: int) -> np.ndarray:
    if weights is None:
        return np.ones(count)
    weights = np.asarray(weights, np.float64)
    if weights.shape != (count,) or not np.isfinite(weights).all() or (weights < 0).any():
        raise ValueError(
            f"weights must be {count} finite, non-negative numbers; an array of shape {weights.shape} was given."
        )
    return weights


def _ranked(scores: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> Ranking:
    rows = np.flatnonzero(~np.isnan(labels) & (weights > 0))
    rows = rows[np.argsort(-scores[rows])]
    ordered = scores[rows]
    ends = np.append(np.flatnonzero(ordered[1:] != ordered[:-1]) + 1, len(rows)) if len(rows) else np.empty(0, np.int64)
    return Ranking(rows, ordered, labels[rows] == 1, weights[rows], ends)
