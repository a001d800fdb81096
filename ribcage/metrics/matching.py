"""Matching: which found boxes are right, at each overlap that is asked for.

In each image the found boxes choose in the order of their scores: each takes the true box that it overlaps most
among those not yet taken, if by at least the threshold. What takes none is wrong. Nothing here knows other images,
so it is done once for all resamples. Lin et al. 2014, https://arxiv.org/abs/1405.0312; equal to pycocotools."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ribcage.metrics.boxes import BoxTable
from ribcage.runtime.compiling import compiled

THRESHOLDS = tuple(round(0.4 + 0.05 * step, 2) for step in range(8))
"""IoU .40:.05:.75, of the challenge and of the protocol of frozen backbones."""


@dataclass(frozen=True)
class BoxMatches:
    """Found boxes of one finding down their scores, and which are right. Equal scores: in the order of the images."""

    images: np.ndarray
    """(M,) int64"""
    scores: np.ndarray
    """(M,) descending"""
    right: np.ndarray
    """(T, M) bool: at each threshold"""
    truths: np.ndarray
    """(count,) true boxes of each image"""

    def select(self, images: np.ndarray) -> "BoxMatches":
        """On the images of a mask (count,); the others then have nothing in them."""
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

    above: overlap must exceed the threshold, not just reach it.
    whole_pixels: corners are pixels that belong to the box, so that it is one pixel wider and higher than their
        difference says.
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
    """Every found box with every true box of its image."""

    found: np.ndarray
    """(P,) int64: which found box; ascending"""
    true: np.ndarray
    """(P,) int64: which true box, counted image by image"""
    boxes: np.ndarray
    """(P, 4) the found one"""
    others: np.ndarray
    """(P, 4) the true one"""
    truths: np.ndarray
    """(count,) true boxes of each image"""

    @classmethod
    def of(cls, found: BoxTable, true: BoxTable, count: int) -> "BoxPairs":
        """Those of `count` images."""
        for marks in (found, true):
            if len(marks) and not (marks.images.min() >= 0 and marks.images.max() < count):
                low, high = marks.images.min(), marks.images.max()
                raise ValueError(f"Boxes are on images {low} to {high}; expected 0 to {count - 1}.")
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
        """(P,) whether the centre of the found box lies in the true one."""
        centres = (self.boxes[:, :2] + self.boxes[:, 2:]) / 2
        return ((self.others[:, :2] <= centres) & (centres <= self.others[:, 2:])).all(axis=1)


def _area(low: np.ndarray, high: np.ndarray, extra: float) -> np.ndarray:
    return np.maximum(high - low + extra, 0.0).prod(axis=1)


def _match(found, true, overlaps, limits, taken, right):  # type: ignore[no-untyped-def]
    """Found boxes choose in their order. taken: (T, K), right: (T, M)."""
    for t in range(len(limits)):
        start = 0
        while start < len(found):
            end, best, chosen = start, limits[t], -1
            while end < len(found) and found[end] == found[start]:
                if not taken[t, true[end]] and overlaps[end] > limits[t] and overlaps[end] >= best:
                    best, chosen = overlaps[end], true[end]  # of equals the later one, as COCO
                end += 1
            if chosen >= 0:
                taken[t, chosen] = True
                right[t, found[start]] = True
            start = end
