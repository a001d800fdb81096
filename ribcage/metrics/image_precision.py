"""Precision image by image, the metric of the RSNA challenge of 2018.

In each image TP / (TP + FP + FN), the mean over overlaps above .40:.05:.75; then the mean over the images. A
image with nothing there and nothing found is left out; with nothing there and something found it counts 0. So it
needs a cut: which boxes are called at all. https://www.kaggle.com/c/rsna-pneumonia-detection-challenge/overview"""

import numpy as np

from ribcage.metrics.boxes import BoxTable
from ribcage.metrics.matching import match_boxes


def image_precision(found: BoxTable, true: BoxTable, count: int, cut: float = -np.inf) -> np.ndarray:
    """(count,) of the boxes of at least this score; NaN where an image is left out."""
    matches = match_boxes(found.at_least(cut), true, count, above=True)
    called = np.bincount(matches.images, minlength=count)
    hits = np.array([np.bincount(matches.images[row], minlength=count) for row in matches.right])
    union = called + matches.truths - hits
    return np.divide(hits, union, out=np.full(hits.shape, np.nan), where=union > 0).mean(axis=0)


def best_score_threshold(found: BoxTable, true: BoxTable, count: int) -> tuple[float, float]:
    """The score to cut at for the best mean, and that mean; (inf, 0) if it is best to call nothing, NaN without truth.
    For validation: what is tested does not choose its own cut."""
    if not len(true):
        return np.nan, np.nan
    matches = match_boxes(found, true, count, above=True)
    order = np.argsort(matches.images, kind="stable")
    images, right = matches.images[order], matches.right[:, order]
    starts = np.flatnonzero(np.diff(images, prepend=-1))
    sizes = np.diff(np.append(starts, len(images)))
    nth = np.arange(len(images)) - np.repeat(starts, sizes) + 1  # how many boxes are called down to this one
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
