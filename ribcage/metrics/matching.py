"""Matching: which detections are true positives at each IoU threshold.

In each image, detections are matched in descending order of scores: each takes the unmatched ground-truth box with the
highest IoU, if it reaches the threshold; otherwise it is a false positive. Images are independent, so matching is done
once for all resamples. Lin et al. 2014, https://arxiv.org/abs/1405.0312; equal to pycocotools.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ribcage.metrics.boxes import BoxTable
from ribcage.runtime.compiling import compiled

THRESHOLDS = tuple(round(0.4 + 0.05 * step, 2) for step in range(8))
"""IoU .40:.05:.75, of the RSNA challenge and of the protocol of frozen backbones."""


@dataclass(frozen=True)
class BoxMatches:
    """Detections of one finding in descending order of scores, and which are true positives. Ties are ordered by
    image."""

    images: np.ndarray
    """(M,) int64"""
    scores: np.ndarray
    """(M,) descending"""
    right: np.ndarray
    """(T, M) bool: at each threshold"""
    truths: np.ndarray
    """(count,) number of ground-truth boxes in each image"""

    def select(self, images: np.ndarray) -> "BoxMatches":
        """Matches on the images of a mask (count,); the other images become empty."""
        kept = images[self.images]
        truths = np.where(images, self.truths, 0)
        return BoxMatches(self.images[kept], self.scores[kept], self.right[:, kept], truths)


def match_boxes(
    found: BoxTable,
    true: BoxTable,
    count: int,
    thresholds: Sequence[float] = THRESHOLDS,
    *,
    above: bool = False,
    whole_pixels: bool = False,
) -> BoxMatches:
    """Match the boxes of `count` images.

    above: the IoU must exceed the threshold, not just reach it.
    whole_pixels: corners are pixels that belong to the box, which is one pixel wider and higher than their difference.
    """
    order = np.lexsort((-found.scores, found.images))
    pairs = BoxPairs.of(found.select(order), true, count)
    right = np.zeros((len(thresholds), len(found)), np.bool_)
    limits = np.asarray(thresholds, np.float64)
    if not above:
        limits = np.nextafter(np.minimum(limits, 1 - 1e-10), 0)  # to reach t is to exceed the number before t
    taken = np.zeros((len(thresholds), len(true)), np.bool_)
    compiled(_match)(pairs.found, pairs.true, pairs.overlaps(whole_pixels), limits, taken, right)
    ranked = np.argsort(-found.scores[order], kind="stable")
    order = order[ranked]
    return BoxMatches(found.images[order], found.scores[order], right[:, ranked], pairs.truths)


@dataclass(frozen=True)
class BoxPairs:
    """All pairs of a detection and a ground-truth box of its image."""

    found: np.ndarray
    """(P,) int64: index of the detection; ascending"""
    true: np.ndarray
    """(P,) int64: index of the ground-truth box, ordered by image"""
    boxes: np.ndarray
    """(P, 4) box of the detection"""
    others: np.ndarray
    """(P, 4) ground-truth box"""
    truths: np.ndarray
    """(count,) number of ground-truth boxes in each image"""

    @classmethod
    def of(cls, found: BoxTable, true: BoxTable, count: int) -> "BoxPairs":
        """The pairs of `count` images."""
        for marks in (found, true):
            if len(marks) and not (marks.images.min() >= 0 and marks.images.max() < count):
                low, high = marks.images.min(), marks.images.max()
                raise ValueError(
                    f"Boxes refer to images {low} to {high}; image numbers from 0 to {count - 1} were expected."
                )
        truths = np.bincount(true.images, minlength=count)
        many = truths[found.images]
        pairs = np.repeat(np.arange(len(found)), many)
        within = np.arange(len(pairs)) - np.repeat(np.cumsum(many) - many, many)
        places = (np.cumsum(truths) - truths)[found.images[pairs]] + within
        true_boxes = true.boxes[np.argsort(true.images, kind="stable")]
        return cls(pairs, places, found.boxes[pairs], true_boxes[places], truths)

    def overlaps(self, whole_pixels: bool = False) -> np.ndarray:
        """(P,) intersection over union."""
        extra = 1.0 if whole_pixels else 0.0
        low, high = np.maximum(self.boxes[:, :2], self.others[:, :2]), np.minimum(self.boxes[:, 2:], self.others[:, 2:])
        own, other = (_area(boxes[:, :2], boxes[:, 2:], extra) for boxes in (self.boxes, self.others))
        common = _area(low, high, extra)
        union = own + other - common
        return np.divide(common, union, out=np.zeros(len(union)), where=union > 0)

    def centred(self) -> np.ndarray:
        """(P,) whether the centre of the detection lies in the ground-truth box."""
        centres = (self.boxes[:, :2] + self.boxes[:, 2:]) / 2
        return ((self.others[:, :2] <= centres) & (centres <= self.others[:, 2:])).all(axis=1)


def _area(low: np.ndarray, high: np.ndarray, extra: float) -> np.ndarray:
    return np.maximum(high - low + extra, 0.0).prod(axis=1)


def _match(found, true, overlaps, limits, taken, right):  # type: ignore[no-untyped-def]
    """Match detections in order. taken: (T, K), right: (T, M)."""
    for t in range(len(limits)):
        start = 0
        while start < len(found):
            end, best, chosen = start, limits[t], -1
            while end < len(found) and found[end] == found[start]:
                if not taken[t, true[end]] and overlaps[end] > limits[t] and overlaps[end] >= best:
                    best, chosen = overlaps[end], true[end]  # of equals the later one, as in COCO
                end += 1
            if chosen >= 0:
                taken[t, chosen] = True
                right[t, found[start]] = True
            start = end
