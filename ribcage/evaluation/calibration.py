"""Calibration: temperature and thresholds, fitted on validation predictions."""

import numpy as np

from ribcage import metrics
from ribcage.inference.predictions import Predictions
from ribcage.metrics import multiclass
from ribcage.metrics.estimates import optional_float

RULES = {
    "youden": ("youden", 0.0),
    "midpoint": ("midpoint", 0.0),
    "f1": ("f1", 0.0),
    "sensitivity_95": ("sensitivity", 0.95),
    "specificity_95": ("specificity", 0.95),
}
"""Rule → its name in `metrics.choose_thresholds`, and the minimum sensitivity or specificity."""


def fit_on_validation(
    logits: np.ndarray, labels: np.ndarray, *, exclusive: bool = False
) -> tuple[tuple[float, ...], dict[str, tuple[float | None, ...]]]:
    """Temperatures and thresholds of a model from validation logits (N, F) and labels 1, 0, NaN."""
    findings = tuple(map(str, range(logits.shape[1])))
    # not rounded to float32: thresholds are scores, and have to be reached by the scores they are chosen from
    predicted = Predictions(findings, np.arange(len(logits)), np.asarray(logits), exclusive)
    if exclusive:
        temperature = np.full(len(findings), multiclass.temperature(predicted.logits, class_numbers(labels))[0])
    else:
        temperature = metrics.temperatures(predicted.logits, labels).value
    probabilities = predicted.probabilities(tuple(temperature.tolist()))
    return tuple(temperature.tolist()), thresholds_by_rule(probabilities, labels)


def thresholds_by_rule(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, tuple[float | None, ...]]:
    """Rule → one threshold per finding; None if a class is missing."""
    return {
        name: tuple(map(optional_float, metrics.choose_thresholds(probabilities, labels, rule, least)))
        for name, (rule, least) in RULES.items()
    }


def class_numbers(labels: np.ndarray) -> np.ndarray:
    """(N,) index of the only positive finding; NaN if a label is unknown, or if none or several are positive."""
    one = (np.nan_to_num(labels) == 1).sum(axis=1) == 1
    return np.where(one & ~np.isnan(labels).any(axis=1), np.nan_to_num(labels).argmax(axis=1), np.nan)
