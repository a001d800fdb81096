"""Average precision of detections.

AP is the mean, over the recalls 0, .01 … 1, of the best precision at that recall or a higher one; mAP is its mean over
IoU thresholds. All detections count, however low their scores: a score threshold before AP would only cut off the end
of the curve. Lin et al. 2014, https://arxiv.org/abs/1405.0312; equal to pycocotools, also in that boxes of equal score
are ordered by image.

In a resample, each image counts as often as its patient was drawn, which equals the AP of correspondingly repeated
images (except for the order of boxes of equal score in one image, which is arbitrary).
"""

from collections.abc import Sequence

import numpy as np

from ribcage.metrics.boxes import BoxTable
from ribcage.metrics.matching import THRESHOLDS, BoxMatches, match_boxes
from ribcage.runtime.compiling import compiled

RECALLS = np.linspace(0, 1, 101)


def box_average_precision(
    found: BoxTable, true: BoxTable, count: int, thresholds: Sequence[float] = THRESHOLDS, *, whole_pixels: bool = False
) -> np.ndarray:
    """(T,) AP of one finding at each IoU threshold; NaN without ground-truth boxes."""
    matches = match_boxes(found, true, count, thresholds, whole_pixels=whole_pixels)
    return precisions(matches, np.arange(count), np.ones((count, 1), np.int32))[:, 0]


def precisions(matches: BoxMatches, patients: np.ndarray, times: np.ndarray) -> np.ndarray:
    """(T, B) AP at each threshold in each resample.

    patients: (count,) number of each image's patient, from 0.
    times: (people, B) int32, how often each patient was drawn.
    """
    truths = np.bincount(patients, matches.truths, len(times)).astype(np.int64)
    positives = np.einsum("pb,p->b", times, truths)
    any_right = np.flatnonzero(matches.right.any(axis=0))
    end = any_right[-1] + 1 if len(any_right) else 0  # below the last true positive nothing changes
    owners = patients[matches.images[:end]]
    right = np.ascontiguousarray(matches.right[:, any_right])
    return compiled(_precisions)(owners, any_right, right, positives, times, RECALLS)


def _precisions(owners, rows, right, positives, times, recalls):  # type: ignore[no-untyped-def]
    size = times.shape[1]
    called, at = np.zeros(size, np.int64), np.empty((len(rows), size), np.int64)
    start = 0
    for k in range(len(rows)):  # in descending order of scores: the number of boxes down to each true positive
        for i in range(start, rows[k] + 1):
            count = times[owners[i]]
            for r in range(size):
                called[r] += count[r]
        at[k] = called
        start = rows[k] + 1
    found = np.empty((len(right), size))
    for t in range(len(right)):
        hits, best = np.zeros(size, np.int64), np.zeros(size)
        place, total = np.full(size, len(recalls) - 1), np.zeros(size)
        for k in range(len(rows)):
            if right[t, k]:
                count = times[owners[rows[k]]]
                for r in range(size):
                    hits[r] += count[r]
        for k in range(len(rows) - 1, -1, -1):  # upwards: the best precision from here down
            if right[t, k]:
                count = times[owners[rows[k]]]
                for r in range(size):
                    if count[r] > 0:
                        best[r] = max(best[r], hits[r] / at[k, r])
                        while place[r] >= 0 and recalls[place[r]] > hits[r] / positives[r]:
                            place[r] -= 1  # never reached
                        hits[r] -= count[r]
                        while place[r] >= 0 and recalls[place[r]] > hits[r] / positives[r]:
                            total[r] += best[r]
                            place[r] -= 1
        for r in range(size):
            total[r] += best[r]  # recall 0
            found[t, r] = total[r] / len(recalls) if positives[r] > 0 else np.nan
    return found
