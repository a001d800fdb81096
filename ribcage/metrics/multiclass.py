"""Multi-class metrics: exactly one of K classes is true for each image, with softmax scores.

classes are (N,) numbers of the true class, NaN for unknown; scores and logits are (N, K).
"""

import numpy as np

from ribcage.metrics.calibration import as_temperature, minimum


def one_versus_rest(classes: np.ndarray, count: int) -> np.ndarray:
    """(N, K) labels 1, 0 and NaN, with which the metrics of findings apply to classes; macro AUROC is their mean."""
    classes = _checked(classes, count)
    return np.where(np.isnan(classes)[:, None], np.nan, classes[:, None] == np.arange(count)).astype(np.float64)


def correct(scores: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """(N,) 1 where the true class has the highest score, else 0, NaN where it is unknown. Of equal scores the first
    class counts."""
    classes = _checked(classes, scores.shape[1])
    return np.where(np.isnan(classes), np.nan, scores.argmax(axis=1) == classes).astype(np.float64)


def accuracy(scores: np.ndarray, classes: np.ndarray, weights: np.ndarray | None = None) -> float:
    """Share of images whose highest score is that of the true class."""
    right = correct(scores, classes)
    weights = np.where(np.isnan(right), 0.0, 1.0 if weights is None else weights)
    return float(np.nansum(weights * right) / weights.sum()) if weights.sum() else np.nan


def softmax(logits: np.ndarray) -> np.ndarray:
    """(N, K) exp(z_k) / sum exp(z_j), without overflow."""
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    return raised / raised.sum(axis=1, keepdims=True)


def temperature(logits: np.ndarray, classes: np.ndarray, weights: np.ndarray | None = None) -> tuple[float, str]:
    """Maximum-likelihood T for softmax(logits / T), or 1 and the reason."""
    classes = _checked(classes, logits.shape[1])
    known = ~np.isnan(classes) & np.isfinite(logits).all(axis=1)
    z, true = logits[known].astype(np.float64), classes[known].astype(np.int64)
    w = np.ones(len(z)) if weights is None else np.asarray(weights, np.float64)[known]
    if not len(z) or true.min() == true.max():
        return 1.0, "labels have only one class"
    scale = max(float(np.abs(z).max()), np.finfo(float).tiny)
    z = z / scale
    z = z - z[np.arange(len(z)), true][:, None]  # relative to the true class
    if w @ z.mean(axis=1) >= 0:
        return 1.0, "the true class scores no higher than the others"
    if not (z[w > 0] > 0).any():
        return 1.0, "the true class always scores highest"

    def slopes(b: float) -> tuple[float, float]:
        p = softmax(b * z)
        mean = (p * z).sum(axis=1)
        return float(w @ mean), float(w @ ((p * z * z).sum(axis=1) - mean**2))

    return as_temperature(minimum(slopes), scale)


def _checked(classes: np.ndarray, count: int) -> np.ndarray:
    classes = np.asarray(classes, np.float64)
    known = classes[~np.isnan(classes)]
    strange = known[(known < 0) | (known >= count) | (known != np.floor(known))]
    if classes.ndim != 1 or len(strange):
        came = f"contain {strange[0]:g}" if len(strange) else f"have shape {classes.shape}"
        raise ValueError(
            f"The classes must be an array with one number per image, from 0 to {count - 1} or NaN, but they {came}."
        )
    return classes
