"""The kinds of metrics: what follows from the ranking of the images, and what follows from sums over images.

Sums are taken over images and, in each resample, over patients once for all metrics, so a metric that is a function of
sums costs next to nothing. A kind says what a value is computed from and how many independent observations it is worth
(`effective_n`); the limits follow from these (`intervals`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, reduce
from operator import add
from typing import Literal

import numpy as np

from ribcage.metrics.effective_size import Patients, effective_size, ratio
from ribcage.metrics.intervals import Kind
from ribcage.metrics.placements import of_rankings, sided
from ribcage.metrics.ranking import Ranking
from ribcage.metrics.thresholds import outcomes, share

Need = Literal["scores", "threshold", "probabilities"]
"""What a metric is computed from, beside the labels."""
Table = Literal["findings", "comparison", "subgroups", "card"]
"""Tables of a report. Every metric at a threshold is also in the tables of thresholds."""
Sums = Mapping[str, np.ndarray]
"""By name: weighted sums over images, (F,) or (resamples, F)."""


@dataclass(frozen=True)
class Images:
    """The images that are evaluated."""

    scores: np.ndarray
    """(N, F)"""
    labels: np.ndarray
    """(N, F) 1, 0, NaN for unknown."""
    thresholds: np.ndarray | None = None
    """(F,)"""
    probabilities: np.ndarray | None = None
    """(N, F)"""

    def allow(self, need: Need) -> bool:
        """Whether what a metric needs is known."""
        known = {"scores": True, "threshold": self.thresholds is not None}
        return known.get(need, self.probabilities is not None)

    @cached_property
    def terms(self) -> dict[str, np.ndarray]:
        """(N, F) each: what every metric may sum. At thresholds tp, fp, fn and tn, 1 where an image is one, else 0, NaN
        without a threshold; with probabilities their squared_error, 0 where the label is unknown, and known, 1 or 0."""
        found: dict[str, np.ndarray] = {}
        if self.thresholds is not None:
            found |= zip(("tp", "fp", "fn", "tn"), outcomes(self.scores, self.labels, self.thresholds), strict=True)
        if self.probabilities is not None:
            known = ~np.isnan(self.labels)
            found["squared_error"] = np.where(known, (self.probabilities - self.labels) ** 2, 0.0)
            found["known"] = known.astype(np.float64)
        return found


@dataclass(frozen=True)
class Evidence:
    """Who the images belong to: what variances over patients are computed from."""

    rankings: list[Ranking]
    codes: np.ndarray
    """(N,) patients."""
    names: tuple[str, ...]
    """Of the sums."""
    by_patient: np.ndarray
    """(patients, K, F) each sum over the images of a patient."""
    squares: np.ndarray
    """(K, F) sums over images of weight × summand."""

    def of(self, names: tuple[str, ...]) -> np.ndarray:
        """(patients, F) several sums together."""
        places = [self.names.index(name) for name in names]
        return self.by_patient[:, places[0]] if len(places) == 1 else self.by_patient[:, places].sum(axis=1)

    def counted(self, names: tuple[str, ...]) -> np.ndarray:
        """(F,) how many images these sums count; of images with unequal weights as many equal ones."""
        whole = self.of(names).sum(axis=0)
        squares = self.squares[[self.names.index(name) for name in names]].sum(axis=0)
        return np.divide(whole**2, squares, out=np.full(len(squares), np.nan), where=squares > 0)

    @cached_property
    def positive(self) -> Patients:
        """The patients with positive images."""
        return sided(self.rankings, self.codes, True)

    @cached_property
    def rarer(self) -> Patients:
        """The patients with positive or with negative images, whichever are fewer."""
        return self.positive.fewer(sided(self.rankings, self.codes, False))

    @cached_property
    def area_size(self) -> np.ndarray:
        """(F,) the effective size of AUROC."""
        return of_rankings(self.rankings, self.codes).effective_n


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A metric of each finding."""

    label: str
    """Its name in sentences and tables."""
    heading: str = ""
    """Its name in narrow tables; "" for the label."""
    needs: Need = "threshold"
    lowest: float = 0.0
    highest: float = 1.0
    higher_is_better: bool = True
    tables: tuple[Table, ...] = ("findings", "comparison")
    wide: bool = True
    """Whether a narrow terminal leaves out its column."""
    order: float = 50
    """Place among the metrics; the first ones are those of AUROC (0) to the Brier score (90)."""
    kind: Kind = "mean"
    """What its limits are made for."""
    interval: bool = True
    """Whether it has an interval: not where none was found to hold."""
    mean_from: int = 0
    """Positives of each finding, from which on the mean over findings has an interval."""

    variance = "–"
    """How its variance is estimated, for the table of metrics in the docs."""

    @property
    def title(self) -> str:
        """The heading of a column."""
        return self.heading or self.label

    @property
    def width(self) -> float:
        """From the lowest to the highest value."""
        return self.highest - self.lowest

    def effective_n(self, value: np.ndarray, drawn: np.ndarray, evidence: Evidence) -> np.ndarray:
        """(F,) the number of independent observations that vary as much; NaN where there is no interval.

        value: (F,) on the images; drawn: (R, F) in the resamples, of which one is enough unless they give the variance.
        """
        raise NotImplementedError

    def shares(self, value: np.ndarray) -> np.ndarray:
        """Values as shares of the way from the lowest to the highest."""
        return (value - self.lowest) / self.width


@dataclass(frozen=True, kw_only=True)
class Ranked(Metric):
    """A metric of the ranking: the variance is that of the resamples, over the patients of the rarer class."""

    variance = "bootstrap by patient"
    steps: Callable[[np.ndarray, np.ndarray], np.ndarray]
    """(G, R) weights of the true and of the false positives down to each distinct score, in each resample → (R,)."""
    needs: Need = "scores"

    def effective_n(self, value: np.ndarray, drawn: np.ndarray, evidence: Evidence) -> np.ndarray:
        """From the variance of the resamples."""
        patients = evidence.rarer
        variance = patients.bessel * variances(self.shares(drawn))
        found = effective_size(self.shares(value), variance, patients.amount, patients.amount)
        return np.where(np.isnan(evidence.area_size), np.nan, found)


@dataclass(frozen=True, kw_only=True)
class OfSums(Metric):
    """A metric that is a function of sums over images.

    own: summands of its own, by name, (N, F) each, beside those of `Images.terms`; 0 where the label is unknown.
    """

    own: Callable[[Images], dict[str, np.ndarray]] | None = None

    @property
    def sums(self) -> tuple[str, ...]:
        """The names of the sums."""
        raise NotImplementedError

    def of(self, sums: Sums) -> np.ndarray:
        """(…, F) its value."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class Ratio(OfSums):
    """A ratio of sums: the variance is that of the jackknife over patients, at least that of independent images.

    counts: whether the sums count images.
    positives: whether it is undefined without positive images; if these are of one patient, it has no interval.
    value: the value where it is not the ratio itself but follows from it.
    """

    variance = "jackknife by patient (ratio of sums)"
    part: tuple[str, ...]
    whole: tuple[str, ...]
    counts: bool = True
    positives: bool = False
    kind: Kind = "count"
    value: Callable[[Sums], np.ndarray] | None = None

    @property
    def sums(self) -> tuple[str, ...]:
        """The names of the sums."""
        return tuple(dict.fromkeys(self.part + self.whole))

    def of(self, sums: Sums) -> np.ndarray:
        """(…, F) the ratio, NaN where its denominator is 0; or what follows from it."""
        if self.value is not None:
            return self.value(sums)
        part, whole = (reduce(add, [sums[name] for name in names]) for names in (self.part, self.whole))
        return share(part, whole)

    def effective_n(self, value: np.ndarray, drawn: np.ndarray, evidence: Evidence) -> np.ndarray:
        """From the jackknife; resamples are not needed."""
        counted = evidence.counted(self.whole) if self.counts else None
        found = ratio(evidence.of(self.part), evidence.of(self.whole), counted)[1]
        return np.where(evidence.positive.count > 1, found, np.nan) if self.positives else found


@dataclass(frozen=True, kw_only=True)
class Function(OfSums):
    """Any other function of sums: the variance is that of the jackknife over patients, behind which there are as many
    as in the smallest group."""

    variance = "jackknife by patient"
    names: tuple[str, ...]
    value: Callable[[Sums], np.ndarray]
    groups: tuple[tuple[str, ...], ...] = ()
    """Sums that count the images of a group together, beside the classes."""

    @property
    def sums(self) -> tuple[str, ...]:
        """The names of the sums."""
        return self.names

    def of(self, sums: Sums) -> np.ndarray:
        """(…, F) its value."""
        return self.value(sums)

    def effective_n(self, value: np.ndarray, drawn: np.ndarray, evidence: Evidence) -> np.ndarray:
        """From how far it moves without each patient; resamples are not needed."""
        each = {name: evidence.of((name,)) for name in self.names}  # (patients, F)
        moved = (value - self.of({name: one.sum(axis=0) - one for name, one in each.items()})) / self.width
        everyone = Patients.of(list(np.sum([np.abs(one) for one in each.values()], axis=0).T))
        variance = (np.nan_to_num(moved) ** 2).sum(axis=0) / everyone.bessel
        alone = self._fewest(evidence)
        return effective_size(self.shares(value), variance, alone, alone)

    def _fewest(self, evidence: Evidence) -> np.ndarray:
        """(F,) the patients of the rarer class or, if fewer, of one of `groups`; each of these counts at least 2."""
        of_groups = [Patients.of(list(evidence.of(names).T)).amount for names in self.groups]
        return np.minimum.reduce([evidence.rarer.amount, *(np.maximum(each, 2.0) for each in of_groups)])


def variances(resampled: np.ndarray) -> np.ndarray:
    """(F,) of the resamples that are defined; NaN of fewer than two."""
    known = ~np.isnan(resampled)
    counts, filled = known.sum(axis=0), np.where(known, resampled, 0.0)
    means = np.divide(filled.sum(axis=0), counts, out=np.zeros(len(counts)), where=counts > 0)
    squares = (np.where(known, resampled - means, 0.0) ** 2).sum(axis=0)
    return np.divide(squares, counts - 1, out=np.full(len(counts), np.nan), where=counts > 1)
