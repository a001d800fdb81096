"""Bootstrap over patients: patients are resampled with replacement, with all their images.

Resamples have addresses: patient k of resample r is a function of (seed, r, k), so the same seed gives the same
resamples in any order and for any number of threads. In a resample an image counts as often as its patient was drawn;
so images are sorted once, and one pass over the ranking serves many resamples.

Resamples give the variance of average precision and of detection metrics, and the correlations of metrics and models;
the variance of AUROC is DeLong's (`placements`), that of rates is that of a ratio of sums over patients (`intervals`).
Efron & Tibshirani 1993, An Introduction to the Bootstrap; Field & Welsh 2007,
https://doi.org/10.1111/j.1467-9868.2007.00593.x
"""

import zlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from ribcage.metrics.calibration import as_probabilities
from ribcage.metrics.definitions import load_metric, metric_names
from ribcage.metrics.definitions.base import Evidence, Images, Metric, OfSums, Ranked, variances
from ribcage.metrics.effective_size import Patients, effective_size
from ribcage.metrics.intervals import Gap, Paired, Proportions
from ribcage.metrics.patients import patient_numbers
from ribcage.metrics.ranking import Ranking, checked_arrays, rank_scores
from ribcage.runtime import rng
from ribcage.runtime.compiling import compiled
from ribcage.runtime.threads import available_cores

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
        variance = patients.bessel * variances(resampled)
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
    """Every metric of every finding in every resample, by name; those at a threshold or of probabilities if given.

    patients: one code per row; a negative number, an empty text or None counts as a separate patient.
    threads: None uses all cores. The result does not depend on it.
    """
    if resamples < 1 or not 0 <= seed < 1 << 64:
        raise ValueError(
            f"The number of resamples is {resamples} and the seed is {seed}, but there must be at least 1 resample, "
            f"and the seed must be between 0 and 2⁶⁴ - 1."
        )
    scores, labels, weights = checked_arrays(scores, labels, weights)
    codes = patient_numbers(patients, len(scores))
    people = int(codes.max(initial=-1)) + 1
    images = Images(scores, labels, _thresholds(thresholds, scores), _probabilities(probabilities, labels))
    defined = {name: load_metric(name) for name in metric_names() if images.allow(load_metric(name).needs)}
    rankings = rank_scores(scores, labels, weights)
    walks = [_walk(ranking, codes) for ranking in rankings]
    terms = _terms(images, defined)
    sums = np.array(list(terms.values())).reshape(len(terms), *scores.shape) * weights[:, None]  # (K, N, F)
    by_patient = _by_patient(sums, codes, people)

    def metrics(times: np.ndarray) -> dict[str, np.ndarray]:
        return _metrics(defined, walks, times, dict(zip(terms, _summed(by_patient, times), strict=True)))

    with ThreadPoolExecutor(threads or available_cores()) as pool:
        drawn = [(range(s, min(s + BLOCK, resamples))) for s in range(0, resamples, BLOCK)]
        parts = list(pool.map(lambda block: metrics(times_drawn(seed, block, people)), drawn))
    value = {name: found[0] for name, found in metrics(np.ones((people, 1), np.int32)).items()}
    drawn_of = {name: np.concatenate([part[name] for part in parts]) for name in value}
    address = (seed, zlib.crc32(codes.tobytes()))
    evidence = Evidence(rankings, codes, tuple(terms), by_patient, np.einsum("n,knf->kf", weights, sums))
    return {name: _resampled(one, value[name], drawn_of[name], evidence, address) for name, one in defined.items()}


def _resampled(
    metric: Metric, value: np.ndarray, drawn: np.ndarray, evidence: Evidence, address: tuple[int, int]
) -> Resampled:
    if not metric.interval:
        return Resampled(value, np.full(len(value), np.nan), drawn, address=address)
    size, ends = metric.effective_n(value, drawn, evidence), {"lowest": metric.lowest, "width": metric.width}
    return Resampled(value, size, drawn, metric.kind, address=address, **ends)


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
        raise ValueError(
            "A paired difference requires both results to have the same patients, seed, number of "
            "resamples and findings."
        )


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


def _walked(walks: list[_Walk], times: np.ndarray) -> dict[str, np.ndarray]:
    """(B, F) AUROC and AP, by the names of `_DESCENT`."""
    found = np.empty((2, times.shape[1], len(walks)))
    for column, walk in enumerate(walks):
        found[:, :, column] = compiled(_descend)(*walk, times)
    return dict(zip(_DESCENT, found, strict=True))


_DESCENT = ("auroc", "ap")
"""Metrics of the ranking that one compiled walk computes together, about ten times as fast as from their `steps`."""


def _stepped(metric: Ranked, walks: list[_Walk], times: np.ndarray) -> np.ndarray:
    """(B, F) any metric of the ranking, from its definition."""
    found = np.full((times.shape[1], len(walks)), np.nan)
    for column, (patients, weights, positive, ends) in enumerate(walks):
        if len(ends):
            drawn = weights[:, None] * times[patients]  # (n, B)
            sides = (np.where(side[:, None], drawn, 0.0).cumsum(axis=0)[ends - 1] for side in (positive, ~positive))
            true, false = sides
            both = (true[-1] > 0) & (false[-1] > 0)
            found[both, column] = metric.steps(true[:, both], false[:, both])
    return found


def _thresholds(thresholds: np.ndarray | float | None, scores: np.ndarray) -> np.ndarray | None:
    """(F,)"""
    return None if thresholds is None else np.broadcast_to(np.asarray(thresholds, np.float64), scores.shape[1:])


def _probabilities(probabilities: np.ndarray | None, labels: np.ndarray) -> np.ndarray | None:
    """(N, F), all between 0 and 1."""
    if probabilities is None:
        return None
    probabilities = as_probabilities(probabilities)
    return checked_arrays(probabilities[:, None] if probabilities.ndim == 1 else probabilities, labels)[0]


def _terms(images: Images, defined: Mapping[str, Metric]) -> dict[str, np.ndarray]:
    """(N, F) each: what is only added up, each once however many metrics need it."""
    summed = [one for one in defined.values() if isinstance(one, OfSums)]
    known = dict(images.terms)
    for one in summed:
        known |= one.own(images) if one.own else {}
    needed = {name for one in summed for name in one.sums}
    return {name: term for name, term in known.items() if name in needed}


def _by_patient(sums: np.ndarray, codes: np.ndarray, people: int) -> np.ndarray:
    """(people, K, F)"""
    columns = [np.bincount(codes, column, people) for part in sums for column in part.T]
    return np.array(columns).T.reshape(people, len(sums), sums.shape[2])


def _summed(by_patient: np.ndarray, times: np.ndarray) -> np.ndarray:
    """(K, B, F)"""
    people, kinds, findings = by_patient.shape
    total = compiled(_add)(np.ascontiguousarray(by_patient.reshape(people, kinds * findings)), times)
    return total.reshape(kinds, findings, times.shape[1]).swapaxes(1, 2)


def _metrics(
    defined: Mapping[str, Metric], walks: list[_Walk], times: np.ndarray, sums: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """(B, F) each."""
    found = _walked(walks, times)
    for name, one in defined.items():
        if isinstance(one, OfSums):
            found[name] = one.of(sums)
        elif isinstance(one, Ranked) and name not in found:
            found[name] = _stepped(one, walks, times)
    return {name: found[name] for name in defined}


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
