"""Matthews correlation coefficient (Matthews 1975): the correlation between labels and predictions at the threshold."""

import numpy as np

from ribcage.metrics.definitions.base import Function, Sums


def correlation(sums: Sums) -> np.ndarray:
    """(TP TN - FP FN) / sqrt((TP + FP) (TP + FN) (TN + FP) (TN + FN)); 0 where all images are on one side of the
    threshold, NaN where a class is missing."""
    tp, fp, fn, tn = (sums[name] for name in ("tp", "fp", "fn", "tn"))
    calls, classes = (tp + fp) * (tn + fn), (tp + fn) * (tn + fp)
    root = np.sqrt(calls) * np.sqrt(classes)
    value = np.divide(tp * tn - fp * fn, root, out=np.zeros(np.shape(root)), where=root > 0)
    return np.where(classes > 0, np.clip(value, -1.0, 1.0), np.nan)


METRIC = Function(
    label="MCC",
    names=("tp", "fp", "fn", "tn"),
    groups=(("tp", "fp"), ("fn", "tn")),
    value=correlation,
    lowest=-1.0,
    order=80,
)
