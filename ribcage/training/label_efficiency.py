"""Label efficiency: the AUROC of a probe on frozen features for several numbers of labelled training images.

Each number is drawn several times, always whole patients; a smaller subset is part of the larger ones with the same
seed. The curve and the forecasts are those of `metrics/learning_curve.py`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ribcage import metrics
from ribcage.data import selection
from ribcage.data.collection import Datasets
from ribcage.metrics import learning_curve
from ribcage.metrics.estimates import ScalarEstimate
from ribcage.metrics.learning_curve import CurvePoints, FittedCurve, Forecast
from ribcage.training.probe import FeatureTable, chosen_scores, classifiers, two_classes

FEWEST_IMAGES, STEPS = 50, 7
"""Smallest of the default numbers of images, and their maximum number."""


@dataclass(frozen=True)
class LabelCount:
    """The AUROC with one number of labelled images."""

    images: float
    """Mean number of training images of the subsets."""
    subsets: int
    positives: float
    """Mean number of positive labels of the finding, or per finding for the macro mean."""
    auroc: ScalarEstimate
    """Mean over the subsets; the interval includes the variance over subsets and over test patients."""
    sd: float | None
    """Standard deviation over the subsets; None for a single one."""


@dataclass(frozen=True)
class Band:
    """The fitted curve and the limits of its 95 % interval."""

    images: tuple[float, ...]
    value: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


@dataclass(frozen=True)
class LabelCurve:
    """The learning curve of a finding, or of the macro mean."""

    name: str
    counts: tuple[LabelCount, ...]
    reason: str
    """Why there is no forecast; "" if there is one."""
    parameters: tuple[float, ...] = ()
    """a, b and c of a - b n^-c."""
    forecasts: tuple[Forecast, ...] = ()
    band: Band | None = None


@dataclass(frozen=True)
class LabelCurves:
    """The learning curves of a probe."""

    macro: LabelCurve
    averaged: tuple[str, ...]
    """The findings of the macro mean: those with both classes in all subsets and in the test images."""
    findings: tuple[LabelCurve, ...]
    available: int
    """Training images."""
    tested: int
    """Test images."""


@dataclass(frozen=True)
class SubsetScores:
    """AUROCs of probes on all subsets of one number of images."""

    images: np.ndarray
    """(R,)"""
    positives: np.ndarray
    """(R, F)"""
    aurocs: np.ndarray
    """(R, F); NaN where a class is missing in training or test."""
    pulls: np.ndarray
    """(M, F) influences of test patients on the mean AUROC; NaN where it is not defined."""


def default_counts(available: int) -> tuple[float, ...]:
    """Numbers of images, each half of the next, up to all of them."""
    steps = [available / 2**step for step in range(STEPS) if step == 0 or available / 2**step >= FEWEST_IMAGES]
    return (*(float(round(count)) for count in reversed(steps[1:])), 1.0)


def subset_scores(
    data: Datasets, parts: Sequence[FeatureTable], amounts: Sequence[float], seeds: int
) -> Iterator[SubsetScores]:
    """For each amount – a share of the patients up to 1, else a number of images – the probes on its subsets; parts are
    the features of the training, validation and test images."""
    train, val, test = parts
    patients = data.patient_codes[test.rows]
    for amount in amounts:
        found = []
        for seed in range(seeds if amount != 1 else 1):
            part = train.take(np.isin(train.rows, subset(data, train.rows, amount, seed)))
            *_, read = [one for name, one in classifiers(train).items() if name != "kNN"]  # attention, if there is any
            scores = chosen_scores(read(part, val, test), val.labels)
            exact = metrics.delong(scores, test.labels, patients)
            defined = two_classes(part.labels)
            found.append((part, np.where(defined, exact.value, np.nan), np.where(defined, exact.pulls, np.nan)))
        yield SubsetScores(
            np.array([len(part.rows) for part, _, _ in found]),
            np.array([np.nansum(part.labels == 1, 0) for part, _, _ in found]),
            np.array([value for _, value, _ in found]),
            np.sum([pulls for _, _, pulls in found], 0) / len(found),
        )


def subset(data: Datasets, rows: np.ndarray, amount: float, seed: int) -> np.ndarray:
    """The rows of a share of the patients, or of a number of images."""
    if amount <= 1:
        return selection.share_of_patients(data, rows, amount, seed)
    return selection.images_of_patients(data, rows, int(amount), seed)


def label_curves(
    found: Sequence[SubsetScores], findings: Sequence[str], available: int, tested: int, factors: Sequence[float]
) -> LabelCurves:
    """The curves of the macro mean and of each finding."""
    found = sorted(found, key=lambda one: float(one.images.mean()))
    defined = np.array([_defined(one) for one in found])  # (K, F)
    always = np.asarray(defined.all(0))
    if not always.any():
        raise ValueError(
            f"No finding has positive and negative labels in all subsets of {found[0].images.mean():,.0f} images and "
            f"in the test images. Use larger --counts or --labels."
        )
    each = tuple(
        label_curve(name, [one for one, known in zip(found, defined[:, place], strict=True) if known], [place],
                    available, factors)
        for place, name in enumerate(findings)
    )  # fmt: skip
    macro = label_curve("mean", found, np.flatnonzero(always).tolist(), available, factors)
    names = tuple(name for name, is_so in zip(findings, always, strict=True) if is_so)
    return LabelCurves(macro, names, each, available, tested)


def _defined(one: SubsetScores) -> np.ndarray:
    """(F,) whether the AUROC and its variance are known in every subset."""
    return np.asarray(~np.isnan(one.aurocs).any(0) & ~np.isnan(one.pulls).any(0))


def label_curve(
    name: str, found: Sequence[SubsetScores], places: Sequence[int], available: int, factors: Sequence[float]
) -> LabelCurve:
    """The curve of the mean over these findings."""
    if not found:
        return LabelCurve(name, (), "No subset has positive and negative labels in training and test.")
    values = np.full((len(found), max(len(one.images) for one in found)), np.nan)
    for place, one in enumerate(found):
        values[place, : len(one.images)] = one.aurocs[:, places].mean(1)
    counts = np.array([float(one.images.mean()) for one in found])
    pulls = np.stack([one.pulls[:, places].mean(1) for one in found], 1)
    points = CurvePoints(counts, values, pulls, available)
    low, high = learning_curve.point_intervals(points)
    rows = tuple(
        LabelCount(
            float(counts[place]), len(one.images), float(one.positives[:, places].mean()),
            ScalarEstimate(float(points.means[place]), float(low[place]), float(high[place])),
            float(np.nanstd(values[place], ddof=1)) if len(one.images) > 1 else None,
        )
        for place, one in enumerate(found)
    )  # fmt: skip
    if reason := learning_curve.why_no_forecast(points):
        return LabelCurve(name, rows, reason)
    fitted = learning_curve.fit_learning_curve(points, factors)
    b = fitted.b * fitted.largest**fitted.c
    return LabelCurve(name, rows, "", (fitted.a, b, fitted.c), fitted.forecasts, _band(fitted, counts, factors))


def _band(fitted: FittedCurve, counts: np.ndarray, factors: Sequence[float]) -> Band:
    """The curve from the smallest count to the farthest forecast."""
    images = np.geomspace(counts[0], counts[-1] * max([1.0, *factors]), 60)
    return Band(tuple(images.tolist()), *(tuple(one.tolist()) for one in fitted.band(images)))
