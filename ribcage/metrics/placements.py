"""DeLong: the variance of AUROCs, and their covariance across findings and models, without resampling.

The placement of a positive is the share of negatives with lower scores, that of a negative the share of positives with
higher ones. The deviations of a patient's placements from the AUROC are its influence; variances and covariances are
sums of products of influences. DeLong et al. 1988, https://doi.org/10.2307/2531595; placements by sorting as in Sun &
Xu 2014, https://doi.org/10.1109/LSP.2014.2337313; several images of one patient as in Obuchowski 1997,
https://doi.org/10.2307/2533958. With one image per patient this is DeLong's estimate exactly.

Limits are Wilson's (`intervals`). If only the numbers of patients are known, AUROC is taken to vary by v (1 - v) (1 /
positive + 1 / negative) / 3, which is exact at v = .5. Where positives and negatives share scores (few levels, or
rounding), a few patients may all have the same score by chance, with zero variance. There the variance is at least v (1
- v) / m^2 with m patients of the rarer class, about what one more patient would add.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ribcage.metrics.effective_size import Patients, effective_size
from ribcage.metrics.intervals import Gap, Paired, Proportions
from ribcage.metrics.patients import patient_numbers
from ribcage.metrics.ranking import Ranking, checked_arrays, rank_scores


@dataclass(frozen=True)
class DeLong(Proportions):
    """AUROCs; the vectors are the influences of patients, three rows each, whose products sum to the covariance."""

    @property
    def pulls(self) -> np.ndarray:
        """(3 · patients, F); NaN where a class is empty or has only one patient, so that there is no variance."""
        return self.vectors

    @property
    def covariance(self) -> np.ndarray:
        """(F, F) across the findings, unbiased as published; `error` is that of the interval."""
        return self.pulls.T @ self.pulls


def delong(
    scores: np.ndarray, labels: np.ndarray, patients: np.ndarray | None = None, *, weights: np.ndarray | None = None
) -> DeLong:
    """AUROC and influences for every finding; without patients every image is its own."""
    return of_rankings(rank_scores(scores, labels, weights), patient_numbers(patients, len(scores)))


def of_rankings(rankings: Sequence[Ranking], codes: np.ndarray) -> DeLong:
    """`delong` from rankings whose rows belong to these patients (N,)."""
    found = [_pulls(ranking, codes) for ranking in rankings]
    value, pulls = np.array([value for value, _ in found]), np.stack([pulls for _, pulls in found], axis=1)
    sides = [sided(rankings, codes, positive).amount for positive in (True, False)]
    fewer, tied = np.minimum(*sides), np.array([ranking.tied for ranking in rankings], np.bool_)
    with np.errstate(divide="ignore"):
        alone = 3 / (1 / sides[0] + 1 / sides[1])
    least = np.divide(value * (1 - value), fewer**2, out=np.zeros(len(value)), where=tied & (fewer > 0))
    variance = np.maximum((pulls**2).sum(axis=0), least)  # NaN stays NaN
    return DeLong(value, effective_size(value, variance, fewer, alone), pulls)


def sided(rankings: Sequence[Ranking], codes: np.ndarray, positive: bool) -> Patients:
    """The patients with positive or with negative images."""
    people = int(codes.max(initial=-1)) + 1
    sides = [one.positive if positive else ~one.positive for one in rankings]
    return Patients.of(
        [
            np.bincount(codes[one.rows[side]], one.weights[side], people)
            for one, side in zip(rankings, sides, strict=True)
        ]
    )


def delong_difference(a: DeLong, b: DeLong) -> Paired:
    """The paired test: two models on the same rows, in the same order."""
    if a.pulls.shape != b.pulls.shape:
        raise ValueError(
            f"The two results have different numbers of patients or findings: (patients, findings) is "
            f"{a.pulls.shape} and {b.pulls.shape}. Compare models on the same images and findings."
        )
    return Paired(a, b)


def auroc_gap(
    scores: np.ndarray,
    labels: np.ndarray,
    inside: np.ndarray,
    patients: np.ndarray | None = None,
    *,
    weights: np.ndarray | None = None,
) -> Gap:
    """AUROC on the rows inside (N,) minus that on all others. The influences of patients with rows on both sides give
    the covariance."""
    scores, labels, _ = checked_arrays(scores, labels, weights)
    inside = np.asarray(inside, np.bool_)
    if inside.shape != (len(scores),):
        raise ValueError(
            f"The subgroup mask must have one boolean for each of the {len(scores)} rows, but has shape {inside.shape}."
        )
    sides = [np.where(side[:, None], labels, np.nan) for side in (inside, ~inside)]
    return Gap(*(delong(scores, own, patients, weights=weights) for own in sides))


def _pulls(ranking: Ranking, codes: np.ndarray) -> tuple[float, np.ndarray]:
    """AUROC and (3 · patients,) influences of one finding.

    With the sums P over a patient's positives and N over the negatives, and I, I+ and I- the numbers of patients in
    total, with positives and with negatives, the variance is (Obuchowski 1997, eq. 3 to 6)

      I+ / (I+ - 1) sum P^2  +  I- / (I- - 1) sum N^2  +  2 I / (I - 1) sum P N,

    the sum of the squares of sqrt(I / (I - 1)) (P + N) and of the remainders of P and of N.
    """
    people = int(codes.max(initial=-1)) + 1
    if not ranking.two_classes:
        return np.nan, np.full(3 * people, np.nan)
    placements = _placements(ranking)
    area = np.average(placements[ranking.positive], weights=ranking.weights[ranking.positive])
    sums, factors = [], []
    for side in (ranking.positive, ~ranking.positive):
        weights, owners = ranking.weights[side], codes[ranking.rows[side]]
        sums.append(np.bincount(owners, weights * (placements[side] - area) / weights.sum(), people))
        factors.append(_bessel(len(np.unique(owners))))
    both = _bessel(len(np.unique(codes[ranking.rows])))
    left = [np.sqrt(np.maximum(factor - both, 0)) * own for factor, own in zip(factors, sums, strict=True)]
    return float(area), np.concatenate([np.sqrt(both) * (sums[0] + sums[1]), *left])


def _bessel(count: int) -> float:
    return count / (count - 1) if count > 1 else np.nan


def _placements(ranking: Ranking) -> np.ndarray:
    """(n,) for a positive the share of negatives below it, for a negative of positives above it; ties at half."""
    true, false = ranking.steps()
    sizes = np.diff(ranking.ends, prepend=0)
    above, below = true - np.diff(true, prepend=0.0) / 2, false[-1] - false + np.diff(false, prepend=0.0) / 2
    return np.where(ranking.positive, np.repeat(below / false[-1], sizes), np.repeat(above / true[-1], sizes))
