"""Pointing game: whether the maximum of a saliency map lies in a ground-truth box, and the IoU of boxes from maps.

The pointing game (Zhang et al. 2016, https://arxiv.org/abs/1608.00507) has one point for each image and finding with a
ground-truth box. It is a hit if it lies in one of the boxes, or no further from it than a tolerance; a point that is
NaN is a miss. Images without a ground-truth box do not count. Baselines that ignore the image: a random point, the
centre of the image, the centre of the mean box of all other patients.

`bootstrap_shares` turns hits into rates with intervals, by the bootstrap over patients, with the same resamples for all
columns.
"""

import zlib

import numpy as np

from ribcage.metrics.boxes import BoxTable
from ribcage.metrics.effective_size import ratio
from ribcage.metrics.matching import BoxPairs
from ribcage.metrics.patients import patient_numbers
from ribcage.metrics.resampling import BLOCK, Resampled, times_drawn

TOLERANCE = 15 / 1024
"""Tolerance of the published game, 15 pixels, as a share of the side of the image."""
OVERLAPS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
"""IoU thresholds at which boxes from maps are usually reported."""


def point_hits(points: np.ndarray, true: BoxTable, tolerance: float) -> np.ndarray:
    """(count,) 1 where the image's point (count, 2) lies in one of its ground-truth boxes or within `tolerance` (in the
    units of the boxes) of one; else 0; NaN where the image has no ground-truth box."""
    x, y = points[true.images].T
    x0, y0, x1, y1 = true.boxes.T
    away = np.hypot(np.maximum(np.maximum(x0 - x, x - x1), 0), np.maximum(np.maximum(y0 - y, y - y1), 0))
    return _best(away <= tolerance, true, len(points))  # NaN compares as false


def chance_of_hit(true: BoxTable, count: int, side: int, tolerance: float, cells: int = 128) -> np.ndarray:
    """(count,) probability that a random point hits: the share of a grid of points that does."""
    places = (np.arange(cells) + 0.5) * (side / cells)
    grid = np.stack(np.meshgrid(places, places), axis=2).reshape(-1, 2)
    chance = np.full(count, np.nan)
    for image in np.unique(true.images).tolist():
        boxes = true.boxes[true.images == image]
        one = BoxTable.ground_truth(np.repeat(np.arange(len(grid)), len(boxes)), np.tile(boxes, (len(grid), 1)))
        chance[image] = point_hits(grid, one, tolerance).mean()
    return chance


def mean_boxes(true: BoxTable, patients: np.ndarray | None, count: int) -> np.ndarray:
    """(count, 4) for each image the mean ground-truth box of all other patients; NaN where they have none."""
    codes = patient_numbers(patients, count)
    sums, numbers = np.zeros((codes.max(initial=-1) + 1, 4)), np.zeros(codes.max(initial=-1) + 1)
    np.add.at(sums, codes[true.images], true.boxes)
    np.add.at(numbers, codes[true.images], 1)
    others = numbers.sum() - numbers
    means = np.full(sums.shape, np.nan)
    np.divide(sums.sum(0) - sums, others[:, None], out=means, where=others[:, None] > 0)
    return means[codes]


def box_centres(boxes: np.ndarray) -> np.ndarray:
    """(M, 2) x, y of (M, 4) boxes."""
    return (boxes[:, :2] + boxes[:, 2:]) / 2


def best_overlaps(found: BoxTable, true: BoxTable, count: int) -> np.ndarray:
    """(M,) for each ground-truth box the highest IoU with a detection in the same image; 0 without detections."""
    pairs = BoxPairs.of(found, true, count)
    best = np.zeros(len(true))
    np.maximum.at(best, np.argsort(true.images, kind="stable")[pairs.true], pairs.overlaps())
    return best


def highest_scoring(found: BoxTable) -> BoxTable:
    """The box with the highest score in each image; the first of equal ones."""
    order = np.lexsort((-found.scores, found.images))
    first = np.diff(found.images[order], prepend=-1) != 0
    return found.select(order[first])


def bootstrap_shares(
    parts: np.ndarray,
    of: np.ndarray,
    patients: np.ndarray | None = None,
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> Resampled:
    """(N, K) parts of (N, K) wholes, NaN where nothing counts → for each of K columns the sum of the parts over that of
    the wholes, in every resample. NaN where the wholes are 0."""
    if parts.shape != of.shape or parts.ndim != 2:
        raise ValueError(
            f"Numerators have shape {parts.shape} and denominators have shape {of.shape}; both must be "
            f"(images, columns)."
        )
    if resamples < 1 or not 0 <= seed < 1 << 64:
        raise ValueError(
            f"The number of resamples is {resamples} and the seed is {seed}, but there must be at least 1 resample, "
            f"and the seed must be between 0 and 2⁶⁴ - 1."
        )
    codes = patient_numbers(patients, len(parts))
    people, columns = int(codes.max(initial=-1)) + 1, parts.shape[1]
    counted = ~(np.isnan(parts) | np.isnan(of))
    sums = np.zeros((people, 2 * columns))
    np.add.at(sums, codes, np.where(np.tile(counted, 2), np.concatenate([parts, of], axis=1), 0.0))

    def drawn(times: np.ndarray) -> np.ndarray:
        total = times.T.astype(np.float64) @ sums
        part, whole = total[:, :columns], total[:, columns:]
        return np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)

    blocks = [range(start, min(start + BLOCK, resamples)) for start in range(0, resamples, BLOCK)]
    resampled = np.concatenate([drawn(times_drawn(seed, block, people)) for block in blocks])
    value, effective_n = ratio(sums[:, :columns], sums[:, columns:])
    return Resampled(value, effective_n, resampled, address=(seed, zlib.crc32(codes.tobytes())))


def _best(hit: np.ndarray, true: BoxTable, count: int) -> np.ndarray:
    """(count,) whether any of an image's boxes is hit; NaN where it has none."""
    best = np.full(count, np.nan)
    best[true.images] = 0.0
    best[true.images[hit]] = 1.0
    return best
