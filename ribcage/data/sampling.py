"""Sampling: the rows of an epoch and their order, and images of the same patient.

Everything is a function of (seed, epoch): it depends neither on the number of processes nor on where a run was
interrupted. An address is a row and, above 32 bits, how often the row occurred before in the epoch, so that repeated
images get other views.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ribcage.data.block_shuffle import BlockOrder, BlockShuffle
from ribcage.data.collection import Datasets
from ribcage.runtime import rng

_ROW_BITS = np.int64(32)
_BLOCK = 1 << 16
"""Images at a time, so that intermediate results take little memory."""


def rows_of_addresses(addresses: np.ndarray) -> np.ndarray:
    """(N,) int64: the row of each address."""
    return addresses & 0xFFFFFFFF


def selected_rows(rows: np.ndarray | None, total: int) -> np.ndarray:
    """Row numbers, from row numbers, from a boolean mask, or (None) of all rows."""
    if rows is None:
        return np.arange(total)
    chosen = np.asarray(rows)
    if chosen.dtype == bool:
        if len(chosen) != total:
            raise ValueError(
                f"rows must have one boolean for each of the {total:,} images, but has {len(chosen):,} booleans."
            )
        return np.flatnonzero(chosen)
    if len(chosen) and not np.issubdtype(chosen.dtype, np.integer):
        raise ValueError(f"rows must be integers or booleans, not {chosen.dtype}.")
    return chosen.astype(np.int64, copy=False)


def weight_per_row(data: Datasets, rows: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(N,) sampling weights of rows, from one weight per row or one per dataset (its share of a batch)."""
    if weights.shape == rows.shape:
        return weights
    if weights.shape != (len(data),):
        raise ValueError(
            f"weights must have one value per dataset ({len(data)}) or one per row ({len(rows)}), but has "
            f"{weights.size} values."
        )
    sources = data.source(rows)
    counts = np.bincount(sources, minlength=len(data))
    return (weights / np.maximum(counts, 1))[sources]


def class_weights(labels: np.ndarray) -> np.ndarray:
    """(N, F) labels → (N,) the probability of each image if a class is drawn first, all with equal probability, and
    then an image of it. The classes are the findings with a positive label, and the images without a positive label."""
    blocks = [slice(start, start + _BLOCK) for start in range(0, len(labels), _BLOCK)]
    counts = sum((_classes(labels[block]).sum(axis=0) for block in blocks), np.zeros(labels.shape[1] + 1))
    found = [(_classes(labels[block])[:, counts > 0] / counts[counts > 0]).mean(axis=1) for block in blocks]
    return np.concatenate(found)


def _classes(labels: np.ndarray) -> np.ndarray:
    """(N, F + 1) float64: 1 for the classes of each image, else 0."""
    positive = labels > 0.5  # unknown labels are not positive
    return np.column_stack([positive, ~positive.any(axis=1)]).astype(np.float64)


@dataclass(frozen=True)
class Sampler:
    """The order of the rows of an epoch."""

    rows: np.ndarray
    seed: int
    shuffle: bool
    weights: np.ndarray | None = None
    """(N,) one per row: rows are drawn with replacement."""
    blocks: BlockOrder | None = None
    """If set, the rows are shuffled block by block."""

    @property
    def ahead(self) -> int:
        """Number of images of a process whose shards are downloaded in advance."""
        return (BlockShuffle() if self.blocks is None else self.blocks.shuffle).ahead

    def order(self, epoch: int) -> np.ndarray:
        """(N,) int64 addresses."""
        rows = self.rows
        if self.weights is not None and self.blocks is None:
            return self._drawn(epoch, self.weights)
        if self.weights is not None:
            rows = rows[rng.choices(self.seed, epoch, self.weights, len(rows))]
        if self.blocks is not None:
            rows = self.blocks.ordered(self.seed, epoch, rows)
        else:
            rows = rows[rng.permutation(self.seed, epoch, len(rows))] if self.shuffle else rows.copy()
        if self._has_repeats:
            rows |= repeats(rows) << _ROW_BITS
        return rows

    def _drawn(self, epoch: int, weights: np.ndarray) -> np.ndarray:
        """(N,) int64 addresses of rows that are drawn with replacement."""
        positions, draws = rng.sorted_choices(self.seed, epoch, weights, len(self.rows))
        addresses = np.empty(len(self.rows), np.int64)
        for part, before in _occurrences(positions):
            addresses[draws[part]] = self.rows[positions[part]] | before << _ROW_BITS
        if self._repeated_rows:
            addresses = rows_of_addresses(addresses)
            addresses |= repeats(addresses) << _ROW_BITS
        return addresses

    @property
    def _has_repeats(self) -> bool:
        return self.weights is not None or self._repeated_rows

    @cached_property
    def _repeated_rows(self) -> bool:
        """Whether a row occurs more than once in `rows`."""
        return not _ascending(self.rows) and len(np.unique(self.rows)) < len(self.rows)


def _ascending(rows: np.ndarray) -> bool:
    """Whether each row is larger than the one before it."""
    return bool((rows[1:] > rows[:-1]).all())


def repeats(rows: np.ndarray) -> np.ndarray:
    """(N,) int64: how often each row occurred before."""
    ordered, order = _grouped(rows)
    found = np.empty_like(rows)
    for part, before in _occurrences(ordered):
        found[order[part]] = before
    return found


def _occurrences(ordered: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """For each part of an ascending array, (n,) int64: how often each number occurred before."""
    first = 0  # the place of the first number that is equal to the last one
    for start in range(0, len(ordered), _BLOCK):
        part = slice(start, min(start + _BLOCK, len(ordered)))
        places, numbers = np.arange(part.start, part.stop), ordered[part]
        firsts = places.copy()
        firsts[1:][numbers[1:] == numbers[:-1]] = 0
        if start and numbers[0] == ordered[start - 1]:
            firsts[0] = first
        np.maximum.accumulate(firsts, out=firsts)
        first = int(firsts[-1])
        yield part, places - firsts


def _grouped(groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The numbers 0 … 2³⁴ in ascending order, and the place of each; of equal numbers, the first place comes first.

    It equals a stable argsort, but sorts one number that holds both, which is several times faster.
    """
    bits = max(len(groups) - 1, 1).bit_length()
    both = groups << bits
    for start in range(0, len(both), _BLOCK):
        both[start : start + _BLOCK] |= np.arange(start, min(start + _BLOCK, len(both)))
    both.sort()
    order = both & ((1 << bits) - 1)
    both >>= bits
    return both, order


@dataclass(frozen=True)
class SamePatient:
    """The rows grouped by patient and dataset."""

    rows: np.ndarray
    """Sorted by patient."""
    first: np.ndarray
    """Start of each patient in `rows`; last, the end."""
    ascending: np.ndarray
    """The rows in ascending order."""
    patient: np.ndarray
    """Number of the patient of each of these."""

    @classmethod
    def of(cls, data: Datasets, rows: np.ndarray) -> "SamePatient":
        """Group these rows."""
        rows = rows if _ascending(rows) else np.sort(rows)
        patients, sources = data.patient_codes_of(rows), data.source(rows)
        patients = np.where(patients < 0, data.patient_count + np.arange(len(rows)), patients)
        groups, order = _grouped(sources * (data.patient_count + len(rows)) + patients)
        new = np.diff(groups, prepend=-1) != 0
        numbers = np.empty(len(rows), np.int32)
        numbers[order] = np.cumsum(new, dtype=np.int32) - 1
        return cls(rows[order], np.append(np.flatnonzero(new), len(rows)), rows, numbers)

    def draw(self, rows: np.ndarray, chance: np.ndarray) -> np.ndarray:
        """(N,) a row of the same patient for each row, possibly itself; chance in [0, 1)."""
        patient = self.patient[np.searchsorted(self.ascending, rows)]
        first, end = self.first[patient], self.first[patient + 1]
        return self.rows[first + (chance * (end - first)).astype(np.int64)]
