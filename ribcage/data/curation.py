"""Curation: chooses a subset of images without near-duplicates, with balanced labels, that covers the feature space.

The features of all images are clustered by spherical k-means; the cluster centres are the prototypes. The subset
contains the same number of images of every cluster, as far as the clusters are large enough, as in the balanced
sampling of Vo et al. 2024, https://arxiv.org/abs/2405.15613. Within a cluster, the images are evenly spaced by their
distance from the prototype, so that both typical and unusual images are chosen.
"""

from dataclasses import dataclass

import numpy as np

SELECTED, DUPLICATE, LEFT_OUT = "selected", "near-duplicate", "left out"
"""Values of the column `curation`."""
COLUMN = "curation"
ROUNDS = 30
"""Limit on the iterations of k-means."""
LEAST, MOST = 10, 1000
"""Limits on the default number of prototypes."""
BLOCK = 4096
"""Rows per matrix product."""


@dataclass(frozen=True)
class Clusters:
    """The cluster of every image."""

    numbers: np.ndarray
    """(N,) int64."""
    distances: np.ndarray
    """(N,) float32: cosine distance from the prototype."""
    count: int


def cluster(features: np.ndarray, count: int, seed: int = 0) -> Clusters:
    """Cluster (N, D) features by spherical k-means; fewer clusters if there are fewer images."""
    unit = _unit(features)
    count = min(count, len(unit))
    centres = _first_centres(unit, count, np.random.default_rng(seed))
    numbers, distances = _nearest(unit, centres)
    for _ in range(ROUNDS):
        sums = np.zeros_like(centres)
        np.add.at(sums, numbers, unit)
        occupied = np.bincount(numbers, minlength=count) > 0
        centres = np.where(occupied[:, None], _unit(sums), centres)
        before, (numbers, distances) = numbers, _nearest(unit, centres)
        if (numbers == before).all():
            break
    return Clusters(numbers, distances, count)


def selected(
    clusters: Clusters, labels: np.ndarray, count: int, *, candidates: np.ndarray, balance: float = 0.5
) -> np.ndarray:
    """(N,) bool: the chosen images, `count` of the candidates or all of them.

    labels: (N, F), 1 for positive images. balance: part of `count` that is divided equally among the findings; their
    positive images are chosen first, those of the rarest finding before the others.
    """
    chosen = np.zeros(len(candidates), bool)
    positive = labels == 1
    share = int(balance * count / max(1, positive.shape[1]))
    for finding in np.argsort(positive[candidates].sum(0), kind="stable"):
        missing = share - int((chosen & positive[:, finding]).sum())
        _choose(clusters, chosen, candidates & positive[:, finding], min(missing, count - int(chosen.sum())))
    _choose(clusters, chosen, candidates, count - int(chosen.sum()))
    return chosen


def representatives(groups: np.ndarray) -> np.ndarray:
    """(N,) bool: the first image of each group of near-duplicates."""
    first = np.zeros(len(groups), bool)
    first[np.unique(groups, return_index=True)[1]] = True
    return first


def _choose(clusters: Clusters, chosen: np.ndarray, candidates: np.ndarray, count: int) -> None:
    """Choose more images, so that the numbers of chosen images of all clusters become as equal as possible."""
    left = np.flatnonzero(candidates & ~chosen)
    left = left[np.lexsort((left, clusters.distances[left], clusters.numbers[left]))]
    numbers = clusters.numbers[left]
    available = np.bincount(numbers, minlength=clusters.count)
    quotas = _equalised(np.bincount(clusters.numbers[chosen], minlength=clusters.count), available, count)
    starts = np.cumsum(available) - available
    for start, size, quota in zip(starts, available, quotas, strict=True):
        chosen[left[start + (2 * np.arange(quota) + 1) * size // (2 * max(1, quota))]] = True


def _equalised(already: np.ndarray, available: np.ndarray, count: int) -> np.ndarray:
    """(K,) int64: how many of the available images of each cluster to add, `count` in total if there are so many, so
    that already + added is as equal as possible."""
    count = max(0, min(count, int(available.sum())))
    low, high = 0, int((already + available).max(initial=0))
    while low < high:  # the highest level that does not need more than `count`
        middle = (low + high + 1) // 2
        low, high = (middle, high) if _filled(already, available, middle).sum() <= count else (low, middle - 1)
    added = _filled(already, available, low)
    more = np.flatnonzero((already + added <= low) & (added < available))
    added[more[: count - int(added.sum())]] += 1
    return added


def _filled(already: np.ndarray, available: np.ndarray, level: int) -> np.ndarray:
    return np.clip(level - already, 0, available)


def _first_centres(unit: np.ndarray, count: int, chance: np.random.Generator) -> np.ndarray:
    """(K, D) rows, drawn with probabilities proportional to their squared distance from the nearest row that was drawn
    before (k-means++)."""
    drawn, distances = [int(chance.integers(len(unit)))], np.full(len(unit), np.inf)
    while len(drawn) < count:
        distances = np.minimum(distances, (1 - unit @ unit[drawn[-1]]).clip(0))
        distances[drawn] = 0
        total = np.cumsum(distances, dtype=np.float64)
        drawn.append(min(int(np.searchsorted(total, chance.random() * total[-1], side="right")), len(unit) - 1))
    return unit[drawn]


def _nearest(unit: np.ndarray, centres: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The nearest centre of every row, and its cosine distance."""
    numbers, distances = np.empty(len(unit), np.int64), np.empty(len(unit), np.float32)
    for start in range(0, len(unit), BLOCK):
        similar = unit[start : start + BLOCK] @ centres.T  # (BLOCK, K)
        numbers[start : start + BLOCK] = best = similar.argmax(1)
        distances[start : start + BLOCK] = 1 - similar[np.arange(len(best)), best]
    return numbers, distances


def _unit(rows: np.ndarray) -> np.ndarray:
    """The rows, scaled to length 1."""
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True).clip(1e-12)).astype(np.float32)
