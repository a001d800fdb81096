"""FROC: sensitivity against false positives per image.

A detection hits a ground-truth box by its centre or by overlap. A ground-truth box counts as detected at the score of
the best detection that hits it; further hits of it are ignored; a detection that hits nothing is a false positive. A
score threshold includes all detections of one score or none. Bunch et al. 1978, https://doi.org/10.1117/12.955926; the
rates 1/8 … 8 as in Setio et al. 2017, https://doi.org/10.1016/j.media.2017.06.015, but with the best sensitivity up to
a rate instead of interpolation.
"""

from dataclasses import dataclass

import numpy as np

from ribcage.metrics.boxes import BoxTable
from ribcage.metrics.matching import BoxPairs
from ribcage.runtime.compiling import compiled

RATES = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""False positives per image."""


@dataclass(frozen=True)
class Events:
    """Events in descending order of scores: a ground-truth box is detected, or a false positive occurs."""

    images: np.ndarray
    """(E,) int64"""
    found: np.ndarray
    """(E,) bool: whether a ground-truth box is detected"""
    scores: np.ndarray
    """(E,) descending"""
    truths: np.ndarray
    """(count,) number of ground-truth boxes in each image"""

    @property
    def ends(self) -> np.ndarray:
        """(G,) ends of the groups of equal scores."""
        last = np.append(self.scores[1:] != self.scores[:-1], True)[: len(self.scores)]
        return np.flatnonzero(last) + 1


def froc_events(found: BoxTable, true: BoxTable, count: int, overlap: float | None = None) -> Events:
    """The events of a score threshold that descends. overlap: IoU of a hit; None: the centre must lie in the
    ground-truth box."""
    best, hitting, pairs = best_hits(found, true, count, overlap)
    owners = np.repeat(np.arange(count), pairs.truths)
    hit = np.isfinite(best)
    scores = np.concatenate([best[hit], found.scores[~hitting]])
    images = np.concatenate([owners[hit], found.images[~hitting]])
    order = np.argsort(-scores, kind="stable")
    return Events(images[order], (np.arange(len(scores)) < hit.sum())[order], scores[order], pairs.truths)


def best_hits(
    found: BoxTable, true: BoxTable, count: int, overlap: float | None = None
) -> tuple[np.ndarray, np.ndarray, BoxPairs]:
    """(K,) best score that hits each ground-truth box, ordered by image, -inf if none does; (M,) which detections hit
    any; and the pairs."""
    pairs = BoxPairs.of(found, true, count)
    hit = pairs.centred() if overlap is None else pairs.overlaps() >= overlap
    best = np.full(len(true), -np.inf)
    np.maximum.at(best, pairs.true[hit], found.scores[pairs.found[hit]])
    hitting = np.zeros(len(found), np.bool_)
    hitting[pairs.found[hit]] = True
    return best, hitting, pairs


def froc_curve(events: Events, images: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(G + 1,) false positives per image, sensitivity and score at each threshold; the first is above all scores."""
    ends = np.append(0, events.ends)
    hits = np.append(0, np.cumsum(events.found))[ends]
    sensitivity = hits / events.truths.sum() if events.truths.sum() else np.full(len(ends), np.nan)
    return (ends - hits) / max(images, 1), sensitivity, np.append(np.inf, events.scores)[ends]


def sensitivities(
    events: Events, images: np.ndarray, patients: np.ndarray, times: np.ndarray, rates: tuple[float, ...] = RATES
) -> np.ndarray:
    """(len(rates), B) best sensitivity with at most that many false positives per image, in each resample.

    images: (count,) bool mask of the images that count.
    patients: (count,) number of each image's patient, from 0.
    times: (people, B) int32, how often each patient was drawn.
    """
    counts = np.array([np.bincount(patients, each, len(times)) for each in (events.truths, images)], np.int64)
    truths, shown = np.einsum("pb,kp->kb", times, counts)
    owners = patients[events.images]
    hits = compiled(_hits)(owners, events.found, events.ends, np.outer(rates, shown), times)
    return np.divide(hits, truths, out=np.full(hits.shape, np.nan), where=truths > 0)


def _hits(owners, found, ends, most, times):  # type: ignore[no-untyped-def]
    """(len(rates), B) ground-truth boxes detected before the false positives exceed `most`, which ascends along its
    rows."""
    size, rates = times.shape[1], len(most)
    hits = np.zeros((rates, size), np.int64)
    true, false, before = np.zeros(size, np.int64), np.zeros(size, np.int64), np.zeros(size, np.int64)
    place, still, start = np.zeros(size, np.int64), size, 0
    for end in ends:
        before[:] = true
        for i in range(start, end):
            group, count = true if found[i] else false, times[owners[i]]
            for r in range(size):
                group[r] += count[r]
        for r in range(size):
            while place[r] < rates and false[r] > most[place[r], r]:
                hits[place[r], r] = before[r]
                place[r] += 1
                still -= place[r] == rates
        if still == 0:
            break
        start = end
    for r in range(size):
        for k in range(place[r], rates):
            hits[k, r] = true[r]
    return hits
