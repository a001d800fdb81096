"""DeLong: the variance of AUROCs, and their covariance across findings and across models, without resampling.

Each positive has a placement: the share of negatives it outscores. Each negative has one among the positives. How far
these lie from the AUROC is each patient's pull on it, and variances and covariances are sums of products of pulls.
DeLong et al. 1988, https://doi.org/10.2307/2531595; placements by sorting as Sun & Xu 2014,
https://doi.org/10.1109/LSP.2014.2337313; several pictures of one patient as Obuchowski 1997,
https://doi.org/10.2307/2533958. With one picture per patient this is DeLong's estimate exactly.

Limits are symmetric in the logit. The plain ones pass 1 and cover less: with 15 positives at an AUROC of .96 the 95 %
limits hold the truth in 92 % of samples, the plain ones in 82 %."""

from dataclasses import dataclass

import numpy as np

from ribcage.metrics import intervals
from ribcage.metrics.intervals import Interval
from ribcage.metrics.patients import numbered
from ribcage.metrics.ranking import Ranking, rank


@dataclass(frozen=True)
class DeLong:
    """AUROCs, and what each patient pulls at them."""

    value: np.ndarray
    """(F,)"""
    pulls: np.ndarray
    """(patients, F); NaN where a class is empty or has only one patient, who cannot show a spread."""

    @property
    def covariance(self) -> np.ndarray:
        """(F, F) across the findings."""
        return self.pulls.T @ self.pulls

    @property
    def error(self) -> np.ndarray:
        """(F,) standard errors."""
        return np.sqrt((self.pulls**2).sum(axis=0))

    def interval(self, level: float = 0.95) -> Interval:
        """Logit limits."""
        return intervals.logit(self.value, self.error, level)

    def macro(self) -> "DeLong":
        """The mean AUROC of the findings that are defined, with their covariance in its variance."""
        kept = ~np.isnan(self.value)
        if not kept.any():
            return DeLong(np.full(1, np.nan), np.full((len(self.pulls), 1), np.nan))
        return DeLong(self.value[kept].mean(keepdims=True), self.pulls[:, kept].mean(axis=1, keepdims=True))


@dataclass(frozen=True)
class Difference:
    """a - b on the same pictures."""

    interval: Interval
    p: np.ndarray


def delong(
    scores: np.ndarray, labels: np.ndarray, patients: np.ndarray | None = None, *, weights: np.ndarray | None = None
) -> DeLong:
    """AUROC and pulls of every finding; without patients every picture is its own."""
    codes = numbered(patients, len(scores))
    found = [_pulls(ranking, codes) for ranking in rank(scores, labels, weights)]
    return DeLong(np.array([value for value, _ in found]), np.stack([pulls for _, pulls in found], axis=1))


def difference(a: DeLong, b: DeLong, level: float = 0.95) -> Difference:
    """The paired test: two models on the same rows, in the same order."""
    if a.pulls.shape != b.pulls.shape:
        raise ValueError(
            f"Patients and findings differ: {a.pulls.shape} and {b.pulls.shape}; compare on the same rows."
        )
    value = a.value - b.value
    error = np.sqrt(((a.pulls - b.pulls) ** 2).sum(axis=0))
    return Difference(intervals.plain(value, error, level), intervals.two_sided(value, error))


def _pulls(ranking: Ranking, codes: np.ndarray) -> tuple[float, np.ndarray]:
    """AUROC and (patients,) pulls of one finding."""
    people = int(codes.max(initial=-1)) + 1
    if not ranking.two_classes:
        return np.nan, np.full(people, np.nan)
    placements = _placements(ranking)
    area = np.average(placements[ranking.positive], weights=ranking.weights[ranking.positive])
    pulls = np.zeros(people)
    for side in (ranking.positive, ~ranking.positive):
        weights, owners = ranking.weights[side], codes[ranking.rows[side]]
        count = len(np.unique(owners))
        pull = np.bincount(owners, weights * (placements[side] - area) / weights.sum(), people)
        pulls += pull * (np.sqrt(count / (count - 1)) if count > 1 else np.nan)
    return float(area), pulls


def _placements(ranking: Ranking) -> np.ndarray:
    """(n,) for a positive the share of negatives below it, for a negative of positives above it; ties at half."""
    true, false = ranking.steps()
    sizes = np.diff(ranking.ends, prepend=0)
    above, below = true - np.diff(true, prepend=0.0) / 2, false[-1] - false + np.diff(false, prepend=0.0) / 2
    return np.where(ranking.positive, np.repeat(below / false[-1], sizes), np.repeat(above / true[-1], sizes))
