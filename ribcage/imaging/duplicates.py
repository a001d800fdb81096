"""Near-duplicates: pairs of images with close fingerprints and, if the images are available, matching structure.

The distance of two fingerprints is the smallest Hamming distance over `_pairs` of their variants, as d or 256 - d (a
negative). Close fingerprints are candidates. A candidate is confirmed by aligning the two images and correlating their
local contrast: ribs and vessels of the same exposure coincide, those of another study do not.
"""

import functools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np

from ribcage.imaging.fingerprint import BITS, GRID, TURNS, VARIANTS, rank_images, turned_prints, turned_ranks
from ribcage.imaging.hamming import Rows, rows_within
from ribcage.runtime.threads import available_cores

STRICT = 32
"""Largest distance of a duplicate without images; changes of size, format and gray scale stay below it."""
LOOSE = 60
"""Largest distance of a candidate to be confirmed with images; beyond it, other patients outnumber crops."""
_MIRRORED = 1
_INVERSE = (0, 1, 2, 3, 4, 6, 5, 7)
PixelReader = Callable[[int], np.ndarray]


@dataclass(frozen=True)
class DuplicatePairs:
    """Near-duplicate pairs, ordered by first, then second; each pair once."""

    first: np.ndarray
    """(M,) int64 rows of the first collection; within one collection, first < second."""
    second: np.ndarray
    """(M,) int64 rows of the second collection."""
    distance: np.ndarray
    """(M,) int16: differing bits of 256."""
    likeness: np.ndarray
    """(M,) float32: correlation of local contrast after alignment; NaN where no images were compared."""
    turn: np.ndarray
    """(M,) int8: orientation of the first relative to the second (`TURNS`); 0: equal."""

    def __len__(self) -> int:
        return len(self.first)


def duplicates_within(
    prints: np.ndarray, *, images: PixelReader | None = None, max_distance: int | None = None
) -> DuplicatePairs:
    """Near-duplicate pairs within one collection of (N, VARIANTS, 4) fingerprints.

    `images(row)` returns the pixels of a row; it is called from several threads. With it, candidates up to
    `max_distance` bits (default LOOSE) are confirmed by alignment; without it, pairs up to `max_distance` (default
    STRICT) count as duplicates.
    """
    prints = _checked(prints)
    candidates = _candidates(prints, None, _limit(max_distance, images is not None, len(prints)))
    return candidates if images is None else _confirmed(candidates, prints, prints, images, images)


def duplicates_between(
    prints_a: np.ndarray,
    prints_b: np.ndarray,
    *,
    images_a: PixelReader | None = None,
    images_b: PixelReader | None = None,
    max_distance: int | None = None,
) -> DuplicatePairs:
    """Near-duplicate pairs across two collections, as in `duplicates_within`. Images are used if both have them."""
    prints_a, prints_b = _checked(prints_a), _checked(prints_b)
    seen = images_a is not None and images_b is not None
    candidates = _candidates(
        prints_a, prints_b, _limit(max_distance, seen, int((len(prints_a) * len(prints_b)) ** 0.5))
    )
    if images_a is None or images_b is None:
        return candidates
    return _confirmed(candidates, prints_a, prints_b, images_a, images_b)


# ---- candidates


def _checked(prints: np.ndarray) -> np.ndarray:
    prints = np.asarray(prints)
    if prints.shape[1:] != (VARIANTS, BITS // 64) or prints.dtype != np.uint64:
        raise ValueError(
            f"Fingerprints must be a uint64 array of shape (N, {VARIANTS}, 4), not "
            f"{prints.dtype} of shape {prints.shape}."
        )
    return prints


def _limit(max_distance: int | None, seen: bool, rows: int) -> int:
    if max_distance is None:
        return _loose(rows) if seen else STRICT
    if not 0 <= max_distance < BITS // 2:
        raise ValueError(f"max_distance must be between 0 and {BITS // 2 - 1} bits, not {max_distance}.")
    return max_distance


def _loose(rows: int) -> int:
    """LOOSE, less ten bits per tenfold above 100,000 images. That makes chance candidates about ten times rarer, so
    that the number of comparisons (1 ms each) grows linearly, not quadratically."""
    return max(STRICT, LOOSE - max(0, round(10 * np.log10(max(rows, 1) / 1e5))))


def _candidates(prints: np.ndarray, others: np.ndarray | None, max_distance: int) -> DuplicatePairs:
    """Pairs within `max_distance` bits; `others` None means within `prints`."""
    b = prints if others is None else others
    keys, turns = [np.empty(0, np.int64)], [np.empty(0, np.int8)]
    for turn in range(len(TURNS)):
        if others is None and _INVERSE[turn] < turn:
            continue  # symmetric to pairs already compared
        sides = list(_sides(turned_prints(prints, turn), b, others is None, crops=turn <= _MIRRORED))
        found = [rows_within(*each, max_distance) for each in sides]
        first, second = (np.concatenate(parts) for parts in zip(*found, strict=True))
        other = np.full(len(first), turn, np.int8)
        if others is None:
            other[first > second] = _INVERSE[turn]
            first, second = np.minimum(first, second), np.maximum(first, second)
            first, second, other = first[first != second], second[first != second], other[first != second]
        keys.append(first * max(1, len(b)) + second)
        turns.append(other)
    return _nearest(prints, b, np.concatenate(keys), np.concatenate(turns))


def _nearest(a: np.ndarray, b: np.ndarray, keys: np.ndarray, turns: np.ndarray) -> DuplicatePairs:
    """Each pair once, in the orientation with the smallest distance."""
    both = np.unique(keys * len(TURNS) + turns)
    keys, turns = both // len(TURNS), (both % len(TURNS)).astype(np.int8)
    first, second = np.divmod(keys, max(1, len(b)))
    apart = _apart(a, b, first, second, turns)
    order = np.lexsort((turns, apart, keys))
    order = order[np.flatnonzero(np.diff(keys[order], prepend=-1))]
    empty = np.full(len(order), np.nan, np.float32)
    return DuplicatePairs(first[order], second[order], apart[order], empty, turns[order])


def _apart(a: np.ndarray, b: np.ndarray, first: np.ndarray, second: np.ndarray, turns: np.ndarray) -> np.ndarray:
    """(M,) int16: smallest distance of each pair in this orientation over all variants."""
    least = np.full(len(first), BITS, np.int16)
    for turn in np.unique(turns).tolist():
        rows = np.flatnonzero(turns == turn)
        for start in range(0, len(rows), 1 << 20):
            part = rows[start : start + (1 << 20)]
            moved, other = turned_prints(a[first[part]], turn), b[second[part]]
            for i, j in _pairs(turn):
                apart = np.bitwise_count(moved[:, i] ^ other[:, j]).sum(axis=1, dtype=np.int16)
                apart = np.minimum(apart, BITS - apart)
                apart[~(moved[:, i].any(axis=1) & other[:, j].any(axis=1))] = BITS
                least[part] = np.minimum(least[part], apart)
    return least


def _sides(a: np.ndarray, b: np.ndarray, within: bool, crops: bool) -> Iterator[tuple[Rows, Rows]]:
    """The sets of variants to compare: whole images where a border makes them differ, else borderless ones, one side
    also cropped."""
    variants = VARIANTS if crops else 2
    bordered_a, bordered_b = ((prints[:, 0] != prints[:, 1]).any(axis=1) for prints in (a, b))
    yield _rows(a, (0,), bordered_a), _rows(b, (0,))
    yield _rows(a, (1,)), _rows(b, range(1, variants))
    if not within:
        yield _rows(a, (0,), ~bordered_a), _rows(b, (0,), bordered_b)
        if crops:
            yield _rows(a, range(2, variants)), _rows(b, (1,))


def _rows(prints: np.ndarray, variants: range | tuple[int, ...], chosen: np.ndarray | None = None) -> Rows:
    """The fingerprints of these variants that have content, with their image numbers."""
    chosen = np.ones(len(prints), bool) if chosen is None else chosen
    full = [np.flatnonzero(chosen & prints[:, variant].any(axis=1)) for variant in variants]
    bits = [prints[rows, variant] for rows, variant in zip(full, variants, strict=True)]
    return np.concatenate(full), np.concatenate(bits)


# ---- confirmation


def _confirmed(
    found: DuplicatePairs, prints_a: np.ndarray, prints_b: np.ndarray, read_a: PixelReader, read_b: PixelReader
) -> DuplicatePairs:
    """The candidates whose structure matches after alignment."""
    seen_a = functools.lru_cache(1024)(lambda row: _seen(read_a(row)))
    seen_b = seen_a if read_a is read_b else functools.lru_cache(1024)(lambda row: _seen(read_b(row)))

    def compare(first: int, second: int, turn: int) -> tuple[float, float]:
        i, j, flipped = _closest(turned_prints(prints_a[first], turn), prints_b[second], turn)
        (one, side), (other, far_side) = seen_a(first), seen_b(second)
        alike = likeness(turned_ranks(one[i], turn), other[j] * (-1 if flipped else 1))
        return alike, min(side, far_side)

    with ThreadPoolExecutor(available_cores()) as pool:
        pairs = (found.first.tolist(), found.second.tolist(), found.turn.tolist())
        alike, sides = np.array(list(pool.map(compare, *pairs)), np.float32).reshape(-1, 2).T
    same = alike >= _needed(found.distance, sides)
    return DuplicatePairs(found.first[same], found.second[same], found.distance[same], alike[same], found.turn[same])


def _seen(pixels: np.ndarray) -> tuple[np.ndarray, int]:
    return rank_images(pixels), min(pixels.shape)


_SMALL = 128  # pixels a side; images stored smaller have lost the fine structure that tells exposures apart


def _needed(distance: np.ndarray, sides: np.ndarray) -> np.ndarray:
    """The correlation that confirms a candidate; it rises with the distance. Small copies (28 px) have close bits but
    lose fine structure; crops have distant bits but keep it; another study of the patient has neither. Between small
    images other exposures of a patient correlate more, so the limit is higher."""
    return np.interp(distance, (24, 44), (0.45, 0.82)) + np.where(
        sides < _SMALL, np.interp(distance, (24, 44), (0, 0.08)), 0
    )


def _pairs(turn: int = 0) -> list[tuple[int, int]]:
    """The variants of two images to compare; crops only between images of the same orientation or mirrored."""
    crops = range(2, VARIANTS if turn <= _MIRRORED else 2)
    return [(0, 0), (1, 1), *((1, crop) for crop in crops), *((crop, 1) for crop in crops)]


def _closest(a: np.ndarray, b: np.ndarray, turn: int = 0) -> tuple[int, int, bool]:
    """The variants of two fingerprints that agree best, and whether one is the negative of the other."""
    full = np.logical_and.outer(a.any(axis=1), b.any(axis=1))
    distance = np.bitwise_count(a[:, None] ^ b[None]).sum(axis=2, dtype=np.int64)  # (V, V)
    i, j = min(
        (pair for pair in _pairs(turn) if full[pair]), key=lambda pair: min(distance[pair], BITS - distance[pair])
    )
    return i, j, bool(distance[i, j] > BITS // 2)


def likeness(a: np.ndarray, b: np.ndarray) -> float:
    """Correlation of the local contrast of two (64, 64) rank images after the best affine alignment."""
    one, other = _local_contrast(a), _local_contrast(b)
    warp = np.eye(2, 3, dtype=np.float32)
    stop = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 30, 1e-4)
    try:
        _, found = cv2.findTransformECC(one, other, warp, cv2.MOTION_AFFINE, stop)
    except cv2.error:  # nothing in common to align
        return 0.0
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    moved, seen = (cv2.warpAffine(image, found, (GRID, GRID), flags=flags) for image in (other, _inner()))
    shared = np.minimum(seen, _inner()) > 0.5
    if shared.sum() < GRID * GRID / 2:
        return 0.0
    return float(np.corrcoef(one[shared], moved[shared])[0, 1])


def _local_contrast(ranks: np.ndarray) -> np.ndarray:
    """Each cell relative to the mean and standard deviation of its surroundings. Fine structure is what two studies of
    one patient share least, and local histogram equalisation changes it least."""
    gray = ranks.astype(np.float32) / (2 * GRID * GRID)
    mean = cv2.GaussianBlur(gray, (0, 0), 1.5)
    variance = cv2.GaussianBlur(gray * gray, (0, 0), 1.5) - mean * mean
    return (gray - mean) / np.sqrt(np.maximum(variance, 0) + 0.03**2)


@functools.cache
def _inner() -> np.ndarray:
    """(64, 64) ones with a border of zeros."""
    return cv2.copyMakeBorder(np.ones((GRID - 4, GRID - 4), np.float32), 2, 2, 2, 2, cv2.BORDER_CONSTANT, value=0)
