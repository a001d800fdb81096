"""Precision per image, the metric of the RSNA challenge of 2018.

In each image TP / (TP + FP + FN), averaged over IoU above .40:.05:.75; then the mean over images. An image without
ground-truth boxes is left out if nothing is detected, and counts 0 otherwise. It therefore needs a score threshold.
https://www.kaggle.com/c/rsna-pneumonia-detection-challenge/overview
"""

import numpy as np

from ribcage.metrics.boxes import BoxTable
from ribcage.metrics.matching import match_boxes


def image_precision(found: BoxTable, true: BoxTable, count: int, cut: float = -np.inf) -> np.ndarray:
    """(count,) precision of the boxes with at least this score; NaN where an image is left out."""
    matches = match_boxes(found.at_least(cut), true, count, above=True)
    called = np.bincount(matches.images, minlength=count)
    hits = np.array([np.bincount(matches.images[row], minlength=count) for row in matches.right])
    union = called + matches.truths - hits
    return np.divide(hits, union, out=np.full(hits.shape, np.nan), where=union > 0).mean(axis=0)


def best_score_threshold(found: BoxTable, true: BoxTable, count: int) -> tuple[float, float]:
    """The score threshold with the best mean precision, and that mean; (inf, 0) if no box is best, NaN without ground
    truth. Use on validation data only."""
    if not len(true):
        return np.nan, np.nan
    matches = match_boxes(found, true, count, above=True)
    order = np.argsort(matches.images, kind="stable")
    images, right = matches.images[order], matches.right[:, order]
    starts = np.flatnonzero(np.diff(images, prepend=-1))
    sizes = np.diff(np.append(starts, len(images)))
    nth = np.arange(len(images)) - np.repeat(starts, sizes) + 1  # number of boxes down to this one
    hits = np.cumsum(right, axis=1)
    hits -= np.repeat((hits - right)[:, starts], sizes, axis=1)
    precision = (hits / (nth + matches.truths[images] - hits)).mean(axis=0)
    gain = np.where(nth == 1, precision, np.diff(precision, prepend=0.0))
    joins = (nth == 1) & (matches.truths[images] == 0)
    down = np.argsort(order)  # back to the order of the scores
    means = np.cumsum(gain[down]) / ((matches.truths > 0).sum() + np.cumsum(joins[down]))
    last = np.flatnonzero(np.append(matches.scores[1:] != matches.scores[:-1], True)[: len(means)])
    best = last[np.argmax(means[last])] if len(last) else None
    if best is None or means[best] <= 0:
        return np.inf, 0.0
    return float(matches.scores[best]), float(means[best])
