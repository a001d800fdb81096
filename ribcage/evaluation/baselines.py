"""Baselines of a classifier that do not use the image: the prevalence, the view alone, and shuffled labels."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ribcage import metrics
from ribcage.data.collection import Datasets
from ribcage.data.label_policy import Policy
from ribcage.evaluation.labelled import LabelledPredictions
from ribcage.inference import predictions as inference
from ribcage.metrics.classification_evaluation import ClassificationBaselines, ConstantRow, ShuffledLabels
from ribcage.metrics.definitions import metrics_of
from ribcage.metrics.estimates import MetricRow, ScalarEstimate, mean_estimate, optional_float, scalar_estimate
from ribcage.runtime import rng

SHUFFLES = 100


@dataclass(frozen=True)
class BaselineData:
    """Images that the baselines are fitted to."""

    name: str
    """Description of the images."""
    labels: np.ndarray
    """(N, F), after the label policy."""
    views: np.ndarray
    """(N,) PA, AP, LATERAL or ""."""

    @classmethod
    def of(cls, name: str, data: Datasets, rows: np.ndarray, findings: Sequence[str], policy: Policy) -> "BaselineData":
        """From these rows of the datasets."""
        return cls(
            name, data.known_labels(rows, findings, policy), inference.row_context(data, rows)["view"].to_numpy(str)
        )


def classification_baselines(
    data: LabelledPredictions, fitting: BaselineData | None, *, resamples: int, seed: int
) -> ClassificationBaselines:
    """Baselines of a test: a constant prediction, a prediction from the view alone, and shuffled labels."""
    shuffled = shuffled_labels(data, seed)
    if fitting is None:
        return ClassificationBaselines(fitted_on="", shuffled=shuffled)
    prevalence, by_view = view_shares(fitting)
    views = data.about["view"].to_numpy(str)
    scores = np.stack([by_view.get(view, prevalence) for view in views.tolist()])
    known = ~np.isnan(prevalence)
    labels, scores = np.where(known, data.labels, np.nan), np.where(known, scores, 0.5)
    found = metrics.summarise(
        scores, labels, data.patients, probabilities=scores, resamples=resamples, seed=seed
    ).metrics
    without_threshold = (*metrics_of("scores"), *metrics_of("probabilities"))
    return ClassificationBaselines(
        fitted_on=fitting.name,
        shuffled=shuffled,
        prevalence=tuple(
            constant_row(name, float(prevalence[place]), data.labels[:, place])
            for place, name in enumerate(data.findings)
        ),
        view=tuple(
            MetricRow(
                finding=name,
                metrics={key: scalar_estimate(found[key].findings, place) for key in without_threshold},
            )
            for place, name in enumerate(data.findings)
        ),
        view_macro=mean_estimate(found["auroc"].macro, found["auroc"].averaged),
    )


def constant_row(finding: str, share: float, labels: np.ndarray) -> ConstantRow:
    """AP, Brier score and accuracy of predicting the same probability for every image."""
    known = labels[~np.isnan(labels)]
    if not len(known) or np.isnan(share):
        return ConstantRow(finding=finding, prevalence=optional_float(share), ap=None, brier=None, accuracy=None)
    brier, correct = np.square(share - known).mean(), ((share >= 0.5) == (known == 1)).mean()
    precision = known.mean() if 0 < known.mean() < 1 else None  # undefined if only one class is known
    return ConstantRow(
        finding=finding,
        prevalence=optional_float(share),
        ap=optional_float(precision),
        brier=optional_float(brier),
        accuracy=optional_float(correct),
    )


def view_shares(fitting: BaselineData) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """(F,) prevalence, and the prevalence per view, shrunk towards the overall prevalence with the weight of one
    image."""
    with np.errstate(invalid="ignore"):
        known = ~np.isnan(fitting.labels)
        whole = np.nansum(fitting.labels, axis=0) / known.sum(axis=0)
    shares = {}
    for view in np.unique(fitting.views).tolist():
        rows = fitting.views == view
        shares[view] = (np.nansum(fitting.labels[rows], axis=0) + whole) / (known[rows].sum(axis=0) + 1)
    return whole, shares


def shuffled_labels(data: LabelledPredictions, seed: int) -> ShuffledLabels:
    """AUROC with labels permuted among the images (all findings of an image together): median and 95 % range."""
    drawn = np.array([shuffled_aurocs(data, rng.permutation(seed, time, len(data))) for time in range(SHUFFLES)])
    defined = ~np.isnan(drawn).all(axis=0)
    quantiles = np.full((3, drawn.shape[1]), np.nan)
    quantiles[:, defined] = np.percentile(drawn[:, defined], [50, 2.5, 97.5], axis=0)
    mean = np.percentile(drawn[:, defined].mean(axis=1), [50, 2.5, 97.5]) if defined.any() else np.full(3, np.nan)
    rows = [
        MetricRow(finding=name, metrics={"auroc": ScalarEstimate(*map(optional_float, quantiles[:, place]))})
        for place, name in enumerate(data.findings)
    ]
    return ShuffledLabels(times=SHUFFLES, findings=tuple(rows), macro=ScalarEstimate(*map(optional_float, mean)))


def shuffled_aurocs(data: LabelledPredictions, order: np.ndarray) -> list[float]:
    """AUROC of each finding when its known labels are taken in this order."""
    found = []
    for ranks, known, labels in data.ranks:
        places = order[known[order]]
        positive = labels[places] == 1
        count, rest = int(positive.sum()), len(positive) - int(positive.sum())
        lower = ranks[positive].sum() - count * (count + 1) / 2
        found.append(lower / (count * rest) if count and rest else np.nan)
    return found
