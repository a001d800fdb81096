"""Bootstrap over patients: patients are resampled with replacement, with all their images.

Resamples have addresses: patient k of resample r is a function of (seed, r, k), so the same seed gives the same
resamples in any order and for any number of threads. In a resample an image counts as often as its patient was drawn;
so images are sorted once, and one pass over the ranking serves many resamples.

Resamples give the variance of average precision and of detection metrics, and the correlations of metrics and models;
the variance of AUROC is DeLong's (`placements`), that of rates is that of a ratio of sums over patients (`intervals`).
Efron & Tibshirani 1993, An Introduction to the Bootstrap; Field & Welsh 2007,
https://doi.org/10.1111/j.1467-9868.2007.00593.x
"""

import os
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np

from ribcage.metrics.calibration import as_probabilities
from ribcage.metrics.effective_size import Patients, effective_size, ratio
from ribcage.metrics.intervals import Gap, Kind, Paired, Proportions
from ribcage.metrics.patients import patient_numbers
from ribcage.metrics.placements import of_rankings, sided
from ribcage.metrics.ranking import Ranking, checked_arrays, rank_scores
from ribcage.metrics.thresholds import ConfusionCounts, outcomes, rates, share
from ribcage.runtime import rng
from ribcage.runtime.compiling import compiled

STREAM = 0xFFFB
"""Stream of random numbers of the resamples."""
BLOCK = 64  # resamples at a time, so that the counts of all patients fit into the cache
_WORDS = rng.WORDS << 16  # numbers per row; further ones come from the next epoch


@dataclass(frozen=True)
class Resampled(Proportions):
    """A metric of each finding: its value on the original images and in each resample, and its effective size."""

    address: tuple[int, int] = (0, 0)
    """Seed and a checksum of the patients: equal addresses mean equal resamples."""

    @property
    def resampled(self) -> np.ndarray:
        """(R, F); NaN where a class is empty in a resample."""
        return self.vectors

    @classmethod
    def of(cls, value: np.ndarray, resampled: np.ndarray, patients: Patients, address: tuple[int, int]) -> "Resampled":
        """With the effective size that follows from the variance of the resamples."""
        variance = patients.bessel * _variances(resampled)
        return cls(value, effective_size(value, variance, patients.amount, patients.amount), resampled, address=address)


def bootstrap(
    scores: np.ndarray,
    labels: np.ndarray,
    patients: np.ndarray | None = None,
    *,
    weights: np.ndarray | None = None,
    thresholds: np.ndarray | float | None = None,
    probabilities: np.ndarray | None = None,
    resamples: int = 1000,
    seed: int = 0,
    threads: int | None = None,
) -> dict[str, Resampled]:
    """AUROC and AP of every finding in every resample; rates if thresholds are given, Brier score if probabilities are.

    patients: one code per row; a negative number, an empty text or None counts as a separate patient. threads: None
    uses all cores. The result does not depend on it.
    """
    if resamples < 1 or not 0 <= seed < 1 << 64:
        raise ValueError(f"{resamples} resamples with seed {seed}: expected at least 1, and a seed from 0 to 2⁶⁴ - 1.")
    scores, labels, weights = checked_arrays(scores, labels, weights)
    codes = patient_numbers(patients, len(scores))
    people = int(codes.max(initial=-1)) + 1
    rankings = rank_scores(scores, labels, weights)
    walks = [_walk(ranking, codes) for ranking in rankings]
    sums = _sums(scores, labels, weights, thresholds, probabilities)  # (K, N, F)
    by_patient = _by_patient(sums, codes, people)

    def metrics(times: np.ndarray) -> dict[str, np.ndarray]:
        return _metrics(_walked(walks, times), _summed(by_patient, times), thresholds is not None)

    with ThreadPoolExecutor(threads or os.cpu_count()) as pool:
        drawn = [(range(s, min(s + BLOCK, resamples))) for s in range(0, resamples, BLOCK)]
        parts = list(pool.map(lambda block: metrics(times_drawn(seed, block, people)), drawn))
    value = {name: found[0] for name, found in metrics(np.ones((people, 1), np.int32)).items()}
    drawn_of = {name: np.concatenate([part[name] for part in parts]) for name in value}
    address = (seed, zlib.crc32(codes.tobytes()))
    positive, negative = (sided(rankings, codes, side) for side in (True, False))
    area = of_rankings(rankings, codes).effective_n
    precision = Resampled.of(value["ap"], drawn_of["ap"], positive.fewer(negative), address)
    found = {
        "auroc": Resampled(value["auroc"], area, drawn_of["auroc"], address=address),
        "ap": replace(precision, effective_n=np.where(np.isnan(area), np.nan, precision.effective_n)),
    }
    effective = (
        {} if thresholds is None else _effective_sizes(by_patient, np.einsum("n,knf->kf", weights, sums[:4]), positive)
    )
    if probabilities is not None:
        effective["brier"] = ratio(by_patient[:, -2], by_patient[:, -1])[1]
    return found | {
        name: Resampled(value[name], own, drawn_of[name], _KINDS.get(name, "count"), address=address)
        for name, own in effective.items()
    }


def paired_difference(a: Resampled, b: Resampled) -> Paired:
    """a - b: two models on the same images and the same resamples."""
    _check_same_resamples(a, b)
    return Paired(a, b)


def bootstrap_gap(a: Resampled, b: Resampled) -> Gap:
    """a - b: one model on two groups of images, with the same resamples of the patients of both."""
    _check_same_resamples(a, b)
    return Gap(a, b)


def _check_same_resamples(a: Resampled, b: Resampled) -> None:
    if a.address != b.address or a.resampled.shape != b.resampled.shape:
        raise ValueError("A difference needs the same patients, seed, number of resamples and findings on both sides.")


def resample(seed: int, number: int, people: int) -> np.ndarray:
    """(people,) the patients drawn in one resample, with replacement; `times_drawn` counts them."""
    chunks = range(0, people, _WORDS)
    row = np.array([number])
    words = [rng.random_words(seed, epoch, row, STREAM, min(_WORDS, people - s))[0] for epoch, s in enumerate(chunks)]
    return (np.concatenate(words).astype(np.uint64) * np.uint64(people) >> np.uint64(32)).astype(np.int64)


def times_drawn(seed: int, numbers: range, people: int) -> np.ndarray:
    """(people, B) int32: how often each patient was drawn in resamples `numbers`."""
    times = np.zeros((people, len(numbers)), np.int32)
    compiled(_draw)(np.uint64(seed & 0xFFFFFFFF), np.uint64(seed >> 32), numbers.start, np.uint64(STREAM << 16), times)
    return times


_Walk = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def _walk(ranking: Ranking, codes: np.ndarray) -> _Walk:
    """Patient, weight and class of each row in the order of the ranking, and the ends of its stretches: a group of
    equal scores that includes positives, or all negatives between two such groups, whose order does not matter."""
    ends = ranking.ends
    if len(ends):
        starts = np.append(0, ends[:-1])
        positives = np.logical_or.reduceat(ranking.positive, starts)
        ends = ends[positives | np.append(positives[1:], True)]
    return codes[ranking.rows], ranking.weights, ranking.positive, ends


def _walked(walks: list[_Walk], times: np.ndarray) -> np.ndarray:
    """(2, B, F) AUROC and AP."""
    found = np.empty((2, times.shape[1], len(walks)))
    for column, walk in enumerate(walks):
        found[:, :, column] = compiled(_descend)(*walk, times)
    return found


def _sums(
    scores: np.ndarray,
    labels: np.ndarray,
    weights: np.ndarray,
    thresholds: np.ndarray | float | None,
    probabilities: np.ndarray | None,
) -> np.ndarray:
    """(K, N, F) additive statistics: the four outcomes, and the squared error with its weight."""
    parts = [] if thresholds is None else list(outcomes(scores, labels, thresholds))
    if probabilities is not None:
        probabilities = as_probabilities(probabilities)
        columns = probabilities[:, None] if probabilities.ndim == 1 else probabilities
        probabilities, _, _ = checked_arrays(columns, labels)
        known = ~np.isnan(labels)
        parts += [np.where(known, (probabilities - labels) ** 2, 0.0), known.astype(np.float64)]
    return np.array(parts).reshape(len(parts), *scores.shape) * weights[:, None]


def _by_patient(sums: np.ndarray, codes: np.ndarray, people: int) -> np.ndarray:
    """(people, K, F)"""
    columns = [np.bincount(codes, column, people) for part in sums for column in part.T]
    return np.array(columns).T.reshape(people, len(sums), sums.shape[2])


def _summed(by_patient: np.ndarray, times: np.ndarray) -> np.ndarray:
    """(K, B, F)"""
    people, kinds, findings = by_patient.shape
    total = compiled(_add)(np.ascontiguousarray(by_patient.reshape(people, kinds * findings)), times)
    return total.reshape(kinds, findings, times.shape[1]).swapaxes(1, 2)


def _metrics(walked: np.ndarray, summed: np.ndarray, at_thresholds: bool) -> dict[str, np.ndarray]:
    """(B, F) each."""
    found = {"auroc": walked[0], "ap": walked[1]}
    if at_thresholds:
        found |= rates(ConfusionCounts(*summed[:4]))
    if len(summed) % 4:
        found["brier"] = share(summed[-2], summed[-1])
    return found


_KINDS: dict[str, Kind] = {"f1": "f1", "brier": "mean"}
_CELLS = {
    "accuracy": ((0, 3), (0, 1, 2, 3)),
    "f1": ((0,), (0, 1, 2)),  # F1 = 2 J / (1 + J) of J = TP / (TP + FP + FN)
    "sensitivity": ((0,), (0, 2)),
    "specificity": ((3,), (1, 3)),
    "ppv": ((0,), (0, 1)),
    "npv": ((3,), (2, 3)),
}
"""Numerator and denominator of each rate, as indices of TP, FP, FN and TN."""


def _effective_sizes(by_patient: np.ndarray, squares: np.ndarray, positive: Patients) -> dict[str, np.ndarray]:
    """(F,) the effective size of each rate. squares: (4, F) sums of squared weights of each outcome."""
    found = {}
    for name, cells in _CELLS.items():
        parts, wholes = (by_patient[:, list(each)].sum(axis=1) for each in cells)
        square = squares[list(cells[1])].sum(axis=0)
        images = np.divide(wholes.sum(axis=0) ** 2, square, out=np.full(len(square), np.nan), where=square > 0)
        found[name] = ratio(parts, wholes, images)[1]
    found["f1"] = np.where(positive.count > 1, found["f1"], np.nan)
    return found


def _variances(resampled: np.ndarray) -> np.ndarray:
    """(F,) variance over the resamples for which the metric is defined; NaN for fewer than two."""
    known = ~np.isnan(resampled)
    counts, filled = known.sum(axis=0), np.where(known, resampled, 0.0)
    means = np.divide(filled.sum(axis=0), counts, out=np.zeros(len(counts)), where=counts > 0)
    squares = (np.where(known, resampled - means, 0.0) ** 2).sum(axis=0)
    return np.divide(squares, counts - 1, out=np.full(len(counts), np.nan), where=counts > 1)


def _draw(k0, k1, first, stream, times):  # type: ignore[no-untyped-def]
    """Count the patients of each resample. The ten rounds are those of `rng`, eight counters at a time."""
    low, half = np.uint64(0xFFFFFFFF), np.uint64(32)
    people = np.uint64(len(times))
    blocks = (len(times) + 3) // 4
    words = np.empty((4, blocks), np.uint64)
    for column in range(times.shape[1]):
        row = np.uint64(first + column)
        for block in range(blocks):
            c0, c1 = row & low, row >> half
            c2, c3 = np.uint64(block >> 16), stream | np.uint64(block & 0xFFFF)
            a, b = k0, k1
            for _ in range(10):
                left, right = c0 * np.uint64(0xD2511F53), c2 * np.uint64(0xCD9E8D57)
                c0, c1 = (right >> half) ^ c1 ^ a, right & low
                c2, c3 = (left >> half) ^ c3 ^ b, left & low
                a, b = (a + np.uint64(0x9E3779B9)) & low, (b + np.uint64(0xBB67AE85)) & low
            words[0, block], words[1, block] = (c0 * people) >> half, (c1 * people) >> half
            words[2, block], words[3, block] = (c2 * people) >> half, (c3 * people) >> half
        for place in range(len(times)):
            times[words[place & 3, place >> 2], column] += 1


def _descend(patients, weights, positive, ends, times):  # type: ignore[no-untyped-def]
    """(2, B) AUROC and AP of one finding in every resample: `ranking.area` and `ranking.precision` step by step."""
    size = times.shape[1]
    true, false, wrong, gain = np.zeros(size), np.zeros(size), np.zeros(size), np.zeros(size)
    hits, misses = np.zeros(size), np.zeros(size)
    start = 0
    for end in ends:
        any_positive = False
        for i in range(start, end):
            any_positive |= positive[i]
        if not any_positive:
            for i in range(start, end):
                weight, count = weights[i], times[patients[i]]
                for r in range(size):
                    false[r] += weight * count[r]
        else:
            hits[:] = 0
            misses[:] = 0
            for i in range(start, end):
                weight, count = weights[i], times[patients[i]]
                group = hits if positive[i] else misses
                for r in range(size):
                    group[r] += weight * count[r]
            for r in range(size):
                wrong[r] += hits[r] * (false[r] + misses[r] / 2)
                true[r] += hits[r]
                false[r] += misses[r]
                called = true[r] + false[r]
                gain[r] += hits[r] * true[r] / (called if called > 0 else 1.0)
        start = end
    found = np.full((2, size), np.nan)
    for r in range(size):
        if true[r] > 0 and false[r] > 0:
            found[0, r] = 1 - wrong[r] / (true[r] * false[r])
            found[1, r] = gain[r] / true[r]
    return found


def _add(by_patient, times):  # type: ignore[no-untyped-def]
    """(K, B) sums over patients, each as often as drawn, in a fixed order so that they are equal to the bit."""
    total = np.zeros((by_patient.shape[1], times.shape[1]))
    for patient in range(len(times)):
        count = times[patient]
        for k in range(by_patient.shape[1]):
            value = by_patient[patient, k]
            if value != 0:
                sums = total[k]
                for r in range(len(count)):
                    sums[r] += value * count[r]
    return total
