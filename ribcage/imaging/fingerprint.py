"""Fingerprints: find the same radiograph again after it was resized, compressed, windowed, inverted, mirrored, turned,
cropped or padded.

An image becomes a few 256-bit words. Area-resize to 64×64, replace gray values by their ranks, 2-D cosine transform,
keep the signs of the 256 lowest frequencies: a change of gray scale that keeps the order leaves the bits almost alone,
and inversion flips them all. Mirroring changes the signs of odd frequencies and a quarter turn exchanges rows and
columns, so the bits of all eight positions follow from those of one, and nothing more is kept for them. The same is
done for the image without its border and for centre crops of that, so that a crop of one image meets the whole of the
other. Two prints are compared by the smallest Hamming distance over `_pairs`, counted from either end (d or 256 - d).

Close bits make a candidate. With the images at hand, a candidate is confirmed by aligning the two and correlating
their local contrast: ribs and vessels of one exposure fall on each other, those of another study do not.
"""

import functools
import hashlib
import os
import unicodedata
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np

from ribcage.runtime.compiling import compiled

BITS = 256
STRICT = 32
"""Largest distance of a duplicate when no images are given; changes of size, format and gray scale are less."""
LOOSE = 60
"""Largest distance of a candidate when images confirm it; beyond it, other patients outnumber crops."""

_GRID = 64
_CROPS = (0, 3, 6, 9, 12, 15)  # in 128ths of each side: none, 2.3 % … 11.7 %
VARIANTS = 1 + len(_CROPS)
_FINE = 32  # positions are whole numbers of 1/32 pixel, so every sum is exact and no machine rounds differently
_LEVELS = 1024
_SMALLEST = 8  # pixels a side; less is not a radiograph
Reader = Callable[[int], np.ndarray]
# The eight positions of a square: transposed first, then rows reversed, then columns reversed.
TURNS = ((0, 0, 0), (0, 0, 1), (0, 1, 0), (0, 1, 1), (1, 0, 0), (1, 0, 1), (1, 1, 0), (1, 1, 1))
TURN_NAMES = ("as it is", "mirrored", "upside down and mirrored", "turned by 180°", "transposed",
              "turned by 90°", "turned by 270°", "transposed the other way")  # fmt: skip
_MIRRORED = 1
_INVERSE = (0, 1, 2, 3, 4, 6, 5, 7)


@dataclass(frozen=True)
class Matches:
    """Pairs of near-duplicates, ordered by first, then second; each pair once."""

    first: np.ndarray
    """(M,) int64 rows of the first collection; within one collection, first < second."""
    second: np.ndarray
    """(M,) int64 rows of the second collection."""
    distance: np.ndarray
    """(M,) int16: differing bits of 256."""
    likeness: np.ndarray
    """(M,) float32: correlation of local contrast after alignment; NaN where no images were compared."""
    turn: np.ndarray
    """(M,) int8: how the first lies compared with the second (`TURNS`); 0: alike."""

    def __len__(self) -> int:
        return len(self.first)


def fingerprint(pixels: np.ndarray) -> np.ndarray:
    """(VARIANTS, 4) uint64: the image, the image without its border, its centre crops; equal on every machine.
    A variant without content (constant, nearly black, too small) is all zero and matches nothing."""
    bits = _waves(_ranks(pixels)) > 0
    return np.packbits(bits, axis=1, bitorder="little").view("<u8").astype(np.uint64)


def turned(prints: np.ndarray, turn: int) -> np.ndarray:
    """The prints (…, 4) of the same images in another position. Of a transposed one, two of 256 bits stay as they are,
    since their counterparts are not among those that are kept."""
    if turn == 0:
        return prints
    source, odd = _turned_bits(turn)
    words = np.packbits(odd, bitorder="little").view("<u8").astype(np.uint64)
    moved = prints
    if TURNS[turn][0]:
        flat = np.ascontiguousarray(prints, "<u8").reshape(-1, BITS // 64)
        moved = np.empty_like(flat)
        for start in range(0, len(flat), 1 << 16):
            bits = np.unpackbits(flat[start : start + (1 << 16)].view(np.uint8), axis=1, bitorder="little")
            packed = np.packbits(bits[:, source], axis=1, bitorder="little")
            moved[start : start + (1 << 16)] = np.ascontiguousarray(packed).view("<u8")
        moved = moved.astype(np.uint64).reshape(prints.shape)
    return np.where(prints.any(axis=-1, keepdims=True), moved ^ words, np.uint64(0))


@functools.cache
def _turned_bits(turn: int) -> tuple[np.ndarray, np.ndarray]:
    """For each bit of a turned print: which bit of the print it comes from, and whether its sign changes."""
    transposed, upside, mirrored = TURNS[turn]
    rows, columns = _frequencies()
    place = {key: number for number, key in enumerate(zip(rows.tolist(), columns.tolist(), strict=True))}
    swapped = [place.get((column, row), number) for (row, column), number in place.items()]
    source = np.array(swapped if transposed else list(place.values()))
    return source, ((upside * rows + mirrored * columns) % 2).astype(np.uint8)


def _turned_ranks(ranks: np.ndarray, turn: int) -> np.ndarray:
    transposed, upside, mirrored = TURNS[turn]
    ranks = ranks.T if transposed else ranks
    return np.ascontiguousarray(ranks[:: -1 if upside else 1, :: -1 if mirrored else 1])


def widened(prints: np.ndarray) -> np.ndarray:
    """Prints of an older version, which kept fewer crops, with empty ones in the place of those it lacks."""
    lacking = VARIANTS - prints.shape[1] if prints.ndim == 3 else 0
    return np.pad(prints, ((0, 0), (0, lacking), (0, 0))) if lacking > 0 else prints


def pixel_hash(pixels: np.ndarray) -> int:
    """64 bits of the exact pixels, their shape and their type."""
    little = np.ascontiguousarray(pixels, dtype=pixels.dtype.newbyteorder("<"))
    head = f"{little.dtype.str} {little.shape}".encode()
    return int.from_bytes(hashlib.blake2b(head + b"\n" + little.tobytes(), digest_size=8).digest(), "little")


def patient_fingerprint(dataset: str, patient: str, key: bytes = b"") -> int:
    """64 bits that stand for one patient of one data set: whatever the case, width or leading zeros.
    Without a key, whoever can list a data set's patients can compute them all and compare."""
    text = "\0".join([_plain(dataset), same_patient(patient)]).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8, key=key, person=b"ribcage patient").digest(), "little")


def same_patient(patient: str) -> str:
    """What all spellings of one patient's name share: '007', ' 7' and the full-width '７' are '7'."""
    plain = _plain(patient)
    return plain.lstrip("0") or "0" if plain.isdecimal() else plain


def _plain(text: str) -> str:
    return unicodedata.normalize("NFKC", text).strip().casefold()


def duplicates(prints: np.ndarray, *, images: Reader | None = None, cut: int | None = None) -> Matches:
    """Near-duplicate pairs within one collection of (N, VARIANTS, 4) prints.

    `images(row)` returns the pixels behind a print; it is called from several threads. With it, candidates up to
    `cut` bits (default LOOSE) are confirmed by alignment; without it, `cut` (default STRICT) decides alone.
    """
    prints = _checked(prints)
    candidates = _candidates(prints, None, _cut(cut, images is not None, len(prints)))
    return candidates if images is None else _confirmed(candidates, prints, prints, images, images)


def matches(
    prints_a: np.ndarray,
    prints_b: np.ndarray,
    *,
    images_a: Reader | None = None,
    images_b: Reader | None = None,
    cut: int | None = None,
) -> Matches:
    """Near-duplicate pairs across two collections; see `duplicates`. Images count only when both sides give them."""
    prints_a, prints_b = _checked(prints_a), _checked(prints_b)
    seen = images_a is not None and images_b is not None
    candidates = _candidates(prints_a, prints_b, _cut(cut, seen, int((len(prints_a) * len(prints_b)) ** 0.5)))
    if images_a is None or images_b is None:
        return candidates
    return _confirmed(candidates, prints_a, prints_b, images_a, images_b)


# --- from pixels to ranks -------------------------------------------------------------------------------------------


def _ranks(pixels: np.ndarray) -> np.ndarray:
    """(V, 64, 64) float64 whole numbers: each cell's rank among its variant's cells, centred; zero without content."""
    if pixels.ndim != 2 or pixels.dtype not in (np.uint8, np.uint16):
        raise ValueError(
            f"A fingerprint needs (height, width) uint8 or uint16 pixels, not {pixels.shape} {pixels.dtype}."
        )
    ranks = np.zeros((VARIANTS, _GRID, _GRID))
    if min(pixels.shape) < _SMALLEST:
        return ranks
    image = _ten_bits(pixels)
    height, width = image.shape
    # A sum of bytes fits 32 bits up to 8 million pixels, and is made three times as fast there.
    narrow = image.dtype == np.uint8 and image.size < 2**23
    sums = cv2.integral(image, sdepth=cv2.CV_32S if narrow else cv2.CV_64F)
    whole = _cells(sums, _edges(0, height, 0), _edges(0, width, 0))
    variance = _variance(np.rint(whole).reshape(1, -1))[0]
    if variance < 1:  # gray levels squared: nothing but noise
        return ranks
    ranks[0] = _ranked(whole)
    content = _content(image, variance)
    for variant, crop in enumerate(_CROPS, 1):
        if not crop and content == (0, height, 0, width):
            ranks[variant] = ranks[0]
            continue
        top, bottom, left, right = content
        ranks[variant] = _ranked(_cells(sums, _edges(top, bottom, crop), _edges(left, right, crop)))
    return ranks


def _ten_bits(pixels: np.ndarray) -> np.ndarray:
    """Sixteen-bit images from zero up and below 1,024, so that sums of squares stay exact."""
    if pixels.dtype == np.uint8:
        return np.ascontiguousarray(pixels)
    raised = pixels - pixels.min()
    return np.ascontiguousarray(raised >> max(0, int(raised.max()).bit_length() - 10))


def _variance(lines: np.ndarray) -> np.ndarray:
    """Variance of each line of whole numbers, summed exactly."""
    count, values = lines.shape[1], lines.astype(np.int64)
    return ((values * values).sum(axis=1) * count - values.sum(axis=1) ** 2) / count**2


def _content(image: np.ndarray, variance: float) -> tuple[int, int, int, int]:
    """Top, bottom, left, right of the image without the rows and columns of one gray at its edges.
    Rows and columns take turns, since a white frame hides the black margin inside it."""
    height, width = image.shape
    top, bottom, left, right = 0, height, 0, width
    limit = variance / 160  # a standard deviation of 8 % of the image's: noise and JPEG ringing of a border pass
    for _ in range(2):
        lines = image[top:bottom, left:right]
        top, bottom = top + _margin(lines, limit), bottom - _margin(lines[::-1], limit)
        lines = image[top:bottom, left:right].T
        left, right = left + _margin(lines, limit), right - _margin(lines[::-1], limit)
        if min(bottom - top, right - left) < _SMALLEST or 3 * (bottom - top) < height or 3 * (right - left) < width:
            return 0, height, 0, width
    return top, bottom, left, right


def _margin(lines: np.ndarray, limit: float) -> int:
    """How many lines from the first on vary less than the limit; looked up in growing steps, since most have none."""
    start, step = 0, 4
    while start < len(lines):
        varied = np.flatnonzero(_variance(lines[start : start + step]) > limit)
        if len(varied):
            return start + int(varied[0])
        start, step = start + step, 2 * step
    return len(lines)


def _edges(start: int, stop: int, crop: int) -> np.ndarray:
    """(65,) positions of the grid lines over start … stop less `crop` 128ths on each side, in 1/32 pixel."""
    steps = crop * _GRID + (128 - 2 * crop) * np.arange(_GRID + 1)
    return start * _FINE + steps * ((stop - start) * _FINE) // (128 * _GRID)


def _cells(sums: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """(64, 64) mean gray of each cell. The integral is linear between pixels, so cells may cut them."""
    below, part = np.minimum(rows // _FINE + 1, len(sums) - 1), (rows % _FINE)[:, None]
    lines = sums[rows // _FINE] * (_FINE - part) + sums[below] * part
    after, part = np.minimum(columns // _FINE + 1, sums.shape[1] - 1), columns % _FINE
    corners = lines[:, columns // _FINE] * (_FINE - part) + lines[:, after] * part
    return np.diff(np.diff(corners, axis=0), axis=1) / np.outer(np.diff(rows), np.diff(columns))


def _ranked(cells: np.ndarray) -> np.ndarray:
    """Mean rank of each cell's gray level, doubled and centred; all zero when one level fills three quarters."""
    low, high = cells.min(), cells.max()
    if low == high:
        return np.zeros_like(cells)
    levels = ((cells - low) * ((_LEVELS - 1) / (high - low))).astype(np.int64)
    counts = np.bincount(levels.ravel(), minlength=_LEVELS)
    if 4 * counts.max() > 3 * cells.size:
        return np.zeros_like(cells)
    return (2 * np.cumsum(counts) - counts - cells.size).astype(np.float64)[levels]


def _waves(ranks: np.ndarray) -> np.ndarray:
    """(V, 256) coefficients of the lowest frequencies: whole numbers below 2^53, so exact in any order of summation."""
    table = _cosines()
    rows, columns = _frequencies()
    return np.ascontiguousarray((table @ ranks @ table.T)[:, rows, columns])


@functools.cache
def _frequencies() -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the 256 lowest frequencies after the constant, by their radius."""
    rows, columns = np.indices((_GRID, _GRID)).reshape(2, -1)
    order = np.argsort(rows * rows + columns * columns, kind="stable")[1 : BITS + 1]
    return rows[order], columns[order]


@functools.cache
def _cosines() -> np.ndarray:
    """(K, 64) cosines of the transform in whole 1/1024, as many as `_frequencies` needs."""
    waves = np.arange(max(map(np.max, _frequencies())) + 1)
    return np.rint(1024 * np.cos(np.pi / _GRID * np.outer(waves, np.arange(_GRID) + 0.5)))


# --- from bits to candidates ----------------------------------------------------------------------------------------

_BLOCK = 2048  # targets scanned at a time: 64 KiB, which stays in the cache
_EXACT = 1e10  # pairs up to which all are compared; two seconds or three
_SHARE = 16  # beyond it, each query looks at the nearest sixteenth of the targets


def _checked(prints: np.ndarray) -> np.ndarray:
    prints = np.asarray(prints)
    if prints.shape[1:] != (VARIANTS, BITS // 64) or prints.dtype != np.uint64:
        raise ValueError(f"Prints must be (N, {VARIANTS}, 4) uint64, not {prints.shape} {prints.dtype}.")
    return prints


def _cut(cut: int | None, seen: bool, rows: int) -> int:
    if cut is None:
        return _loose(rows) if seen else STRICT
    if not 0 <= cut < BITS // 2:
        raise ValueError(f"cut is {cut}; it must be 0 to {BITS // 2 - 1} bits.")
    return cut


def _loose(rows: int) -> int:
    """LOOSE, less ten bits for each tenfold above 100,000 images: that makes chance candidates about ten times rarer,
    so that the comparisons, a millisecond each, grow as the images do and not as their pairs."""
    return max(STRICT, LOOSE - max(0, round(10 * np.log10(max(rows, 1) / 1e5))))


def _candidates(prints: np.ndarray, others: np.ndarray | None, cut: int) -> Matches:
    """Pairs within `cut` bits; `others` None means within `prints`."""
    b = prints if others is None else others
    keys, turns = [np.empty(0, np.int64)], [np.empty(0, np.int8)]
    for turn in range(len(TURNS)):
        if others is None and _INVERSE[turn] < turn:
            continue  # the same pairs from the other side
        sides = list(_sides(turned(prints, turn), b, others is None, crops=turn <= _MIRRORED))
        found = [_joined(*each, cut) for each in sides]
        first, second = (np.concatenate(parts) for parts in zip(*found, strict=True))
        other = np.full(len(first), turn, np.int8)
        if others is None:
            other[first > second] = _INVERSE[turn]
            first, second = np.minimum(first, second), np.maximum(first, second)
            first, second, other = first[first != second], second[first != second], other[first != second]
        keys.append(first * max(1, len(b)) + second)
        turns.append(other)
    return _nearest(prints, b, np.concatenate(keys), np.concatenate(turns))


def _nearest(a: np.ndarray, b: np.ndarray, keys: np.ndarray, turns: np.ndarray) -> Matches:
    """Each pair once, in the position in which it is nearest."""
    both = np.unique(keys * len(TURNS) + turns)
    keys, turns = both // len(TURNS), (both % len(TURNS)).astype(np.int8)
    first, second = np.divmod(keys, max(1, len(b)))
    apart = _apart(a, b, first, second, turns)
    order = np.lexsort((turns, apart, keys))
    order = order[np.flatnonzero(np.diff(keys[order], prepend=-1))]
    empty = np.full(len(order), np.nan, np.float32)
    return Matches(first[order], second[order], apart[order], empty, turns[order])


def _apart(a: np.ndarray, b: np.ndarray, first: np.ndarray, second: np.ndarray, turns: np.ndarray) -> np.ndarray:
    """(M,) int16: the smallest distance of each pair in this position, whichever variants led to it."""
    least = np.full(len(first), BITS, np.int16)
    for turn in np.unique(turns).tolist():
        rows = np.flatnonzero(turns == turn)
        for start in range(0, len(rows), 1 << 20):
            part = rows[start : start + (1 << 20)]
            moved, other = turned(a[first[part]], turn), b[second[part]]
            for i, j in _pairs(turn):
                apart = np.bitwise_count(moved[:, i] ^ other[:, j]).sum(axis=1, dtype=np.int16)
                apart = np.minimum(apart, BITS - apart)
                apart[~(moved[:, i].any(axis=1) & other[:, j].any(axis=1))] = BITS
                least[part] = np.minimum(least[part], apart)
    return least


Rows = tuple[np.ndarray, np.ndarray]  # (R,) image numbers and (R, 4) their bits


def _sides(a: np.ndarray, b: np.ndarray, within: bool, crops: bool) -> Iterator[tuple[Rows, Rows]]:
    """What is compared with what: wholes where a border makes them differ, else borderless, one side also cropped."""
    variants = VARIANTS if crops else 2
    bordered_a, bordered_b = ((prints[:, 0] != prints[:, 1]).any(axis=1) for prints in (a, b))
    yield _rows(a, (0,), bordered_a), _rows(b, (0,))
    yield _rows(a, (1,)), _rows(b, range(1, variants))
    if not within:
        yield _rows(a, (0,), ~bordered_a), _rows(b, (0,), bordered_b)
        if crops:
            yield _rows(a, range(2, variants)), _rows(b, (1,))


def _rows(prints: np.ndarray, variants: range | tuple[int, ...], chosen: np.ndarray | None = None) -> Rows:
    """The bits of these variants that have content, with the number of their image."""
    chosen = np.ones(len(prints), bool) if chosen is None else chosen
    full = [np.flatnonzero(chosen & prints[:, variant].any(axis=1)) for variant in variants]
    bits = [prints[rows, variant] for rows, variant in zip(full, variants, strict=True)]
    return np.concatenate(full), np.concatenate(bits)


def _joined(a: Rows, b: Rows, cut: int) -> tuple[np.ndarray, np.ndarray]:
    """Image of a and image of b, for all rows within `cut` bits. The larger side is the one divided."""
    if len(a[0]) > len(b[0]):
        second, first = _joined(b, a, cut)
        return first, second
    queries, targets = a[1], b[1]
    if len(queries) == 0:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    cells = _blocks(queries, targets) if len(queries) * len(targets) <= _EXACT else _neighbourhoods(queries, targets)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = list(pool.map(lambda cell: _scanned(queries, targets, cell, cut), cells))
    query, target = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return a[0][query], b[0][target]


@dataclass(frozen=True)
class _Cell:
    """Some targets, and which queries look at them: those at most `limits` bits from the pivot."""

    rows: np.ndarray
    pivot: np.ndarray
    limits: np.ndarray


def _blocks(queries: np.ndarray, targets: np.ndarray) -> list[_Cell]:
    """All targets in their order, each looked at by every query."""
    limits = np.full(len(queries), BITS, np.uint64)
    starts = range(0, len(targets), _BLOCK)
    return [_Cell(np.arange(s, min(s + _BLOCK, len(targets))), targets[0], limits) for s in starts]


def _neighbourhoods(queries: np.ndarray, targets: np.ndarray) -> list[_Cell]:
    """Targets by their nearest pivot; each query looks at the nearest cells that hold its share of the targets."""
    count = max(1, min(len(targets) // 64, 1024), len(targets) // _BLOCK)  # few pivots would tell little
    pivots = targets[np.sort(np.random.default_rng(0).choice(len(targets), count, replace=False))]
    nearest, _ = _probed(targets, pivots, np.zeros(count, np.int64), 0)
    sizes = np.bincount(nearest, minlength=count)
    _, limits = _probed(queries, pivots, sizes, -(-len(targets) // _SHARE))
    order = np.argsort(nearest, kind="stable")
    parts = np.split(order, np.cumsum(sizes)[:-1])
    return [_Cell(rows, pivot, limits) for rows, pivot in zip(parts, pivots, strict=True) if len(rows)]


def _probed(rows: np.ndarray, pivots: np.ndarray, sizes: np.ndarray, share: int) -> tuple[np.ndarray, np.ndarray]:
    columns = [np.ascontiguousarray(word) for word in pivots.T]
    nearest, limits = np.empty(len(rows), np.int64), np.empty(len(rows), np.uint64)

    def probe(start: int) -> None:
        part = slice(start, start + 4096)
        compiled(_probe)(rows[part], *columns, sizes, share, nearest[part], limits[part])

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(probe, range(0, len(rows), 4096)))
    return nearest, limits


def _scanned(queries: np.ndarray, targets: np.ndarray, cell: _Cell, cut: int) -> tuple[np.ndarray, np.ndarray]:
    columns = [np.ascontiguousarray(word) for word in targets[cell.rows].T]
    room = 4096
    while True:
        query, target = np.empty(room, np.int64), np.empty(room, np.int64)
        count = compiled(_scan)(queries, cell.limits, cell.pivot, *columns, np.uint64(cut), query, target)
        if count <= room:
            return query[:count], cell.rows[target[:count]]
        room = count


# The four lines that count ones stand in both kernels as the compiler knows them: it makes one instruction of
# them and takes eight targets at a time. In a function of their own they would keep the machine code from the disk.


def _scan(queries, limits, pivot, t0, t1, t2, t3, cut, query, target):  # type: ignore[no-untyped-def]
    """Write the pairs within `cut` bits and return how many there are, also when the room did not suffice."""
    found = 0
    far = np.uint64(256) - cut
    for q in range(len(queries)):
        a, b, c, d = queries[q, 0], queries[q, 1], queries[q, 2], queries[q, 3]
        total = np.uint64(0)
        for x in (a ^ pivot[0], b ^ pivot[1], c ^ pivot[2], d ^ pivot[3]):
            x = x - ((x >> np.uint64(1)) & np.uint64(0x5555555555555555))
            x = (x & np.uint64(0x3333333333333333)) + ((x >> np.uint64(2)) & np.uint64(0x3333333333333333))
            x = (x + (x >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
            total += (x * np.uint64(0x0101010101010101)) >> np.uint64(56)
        if min(total, np.uint64(256) - total) > limits[q]:
            continue
        for start in range(0, len(t0), 128):
            stop = start + 128
            s0, s1, s2, s3 = t0[start:stop], t1[start:stop], t2[start:stop], t3[start:stop]
            near = 0
            for j in range(len(s0)):
                total = np.uint64(0)
                for x in (a ^ s0[j], b ^ s1[j], c ^ s2[j], d ^ s3[j]):
                    x = x - ((x >> np.uint64(1)) & np.uint64(0x5555555555555555))
                    x = (x & np.uint64(0x3333333333333333)) + ((x >> np.uint64(2)) & np.uint64(0x3333333333333333))
                    x = (x + (x >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
                    total += (x * np.uint64(0x0101010101010101)) >> np.uint64(56)
                near += (total <= cut) | (total >= far)
            if near == 0:  # nearly always: the pairs are written by a second, slower pass
                continue
            for j in range(len(s0)):
                total = np.uint64(0)
                for x in (a ^ s0[j], b ^ s1[j], c ^ s2[j], d ^ s3[j]):
                    x = x - ((x >> np.uint64(1)) & np.uint64(0x5555555555555555))
                    x = (x & np.uint64(0x3333333333333333)) + ((x >> np.uint64(2)) & np.uint64(0x3333333333333333))
                    x = (x + (x >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
                    total += (x * np.uint64(0x0101010101010101)) >> np.uint64(56)
                if total <= cut or total >= far:
                    if found < len(query):
                        query[found], target[found] = q, start + j
                    found += 1
    return found


def _probe(rows, p0, p1, p2, p3, sizes, share, nearest, limits):  # type: ignore[no-untyped-def]
    """For each row the nearest pivot, and the distance within which the pivots' cells hold `share` targets."""
    distances = np.empty(len(p0), np.int64)
    held = np.empty(129, np.int64)
    for r in range(len(rows)):
        a, b, c, d = rows[r, 0], rows[r, 1], rows[r, 2], rows[r, 3]
        best = np.uint64(0xFFFFFFFFFFFFFFFF)
        for j in range(len(p0)):
            total = np.uint64(0)
            for x in (a ^ p0[j], b ^ p1[j], c ^ p2[j], d ^ p3[j]):
                x = x - ((x >> np.uint64(1)) & np.uint64(0x5555555555555555))
                x = (x & np.uint64(0x3333333333333333)) + ((x >> np.uint64(2)) & np.uint64(0x3333333333333333))
                x = (x + (x >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
                total += (x * np.uint64(0x0101010101010101)) >> np.uint64(56)
            total = min(total, np.uint64(256) - total)
            distances[j] = total
            best = min(best, total << np.uint64(32) | np.uint64(j))
        nearest[r] = best & np.uint64(0xFFFFFFFF)
        if share > 0:
            held[:] = 0
            for j in range(len(p0)):
                held[distances[j]] += sizes[j]
            limit, inside = 0, held[0]
            while inside < share:
                limit += 1
                inside += held[limit]
            limits[r] = limit


# --- from candidates to duplicates ----------------------------------------------------------------------------------


def _confirmed(found: Matches, prints_a: np.ndarray, prints_b: np.ndarray, read_a: Reader, read_b: Reader) -> Matches:
    """The candidates that look the same after alignment."""
    seen_a = functools.lru_cache(1024)(lambda row: _seen(read_a(row)))
    seen_b = seen_a if read_a is read_b else functools.lru_cache(1024)(lambda row: _seen(read_b(row)))

    def compare(first: int, second: int, turn: int) -> tuple[float, float]:
        i, j, flipped = _closest(turned(prints_a[first], turn), prints_b[second], turn)
        (one, side), (other, far_side) = seen_a(first), seen_b(second)
        alike = likeness(_turned_ranks(one[i], turn), other[j] * (-1 if flipped else 1))
        return alike, min(side, far_side)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        pairs = (found.first.tolist(), found.second.tolist(), found.turn.tolist())
        alike, sides = np.array(list(pool.map(compare, *pairs)), np.float32).reshape(-1, 2).T
    same = alike >= _needed(found.distance, sides)
    return Matches(found.first[same], found.second[same], found.distance[same], alike[same], found.turn[same])


def _seen(pixels: np.ndarray) -> tuple[np.ndarray, int]:
    return _ranks(pixels), min(pixels.shape)


_SMALL = 128  # pixels a side; what is stored smaller has lost the structure by which exposures differ


def _needed(distance: np.ndarray, sides: np.ndarray) -> np.ndarray:
    """The likeness that confirms a candidate: the farther the bits, the more. Small copies (28 px) keep close bits and
    lose their fine structure; crops lose bits and keep it; another study of the patient has neither. Where images are
    small, other exposures of a patient come nearer, so that more is asked."""
    return np.interp(distance, (24, 44), (0.45, 0.82)) + np.where(
        sides < _SMALL, np.interp(distance, (24, 44), (0, 0.08)), 0
    )


def _pairs(turn: int = 0) -> list[tuple[int, int]]:
    """Which variants of two images are compared; crops only of those that lie alike or are mirrored."""
    crops = range(2, VARIANTS if turn <= _MIRRORED else 2)
    return [(0, 0), (1, 1), *((1, crop) for crop in crops), *((crop, 1) for crop in crops)]


def _closest(a: np.ndarray, b: np.ndarray, turn: int = 0) -> tuple[int, int, bool]:
    """The variants of two prints that agree best, and whether one is the negative of the other."""
    full = np.logical_and.outer(a.any(axis=1), b.any(axis=1))
    distance = np.bitwise_count(a[:, None] ^ b[None]).sum(axis=2, dtype=np.int64)  # (V, V)
    i, j = min(
        (pair for pair in _pairs(turn) if full[pair]), key=lambda pair: min(distance[pair], BITS - distance[pair])
    )
    return i, j, bool(distance[i, j] > BITS // 2)


def likeness(a: np.ndarray, b: np.ndarray) -> float:
    """Correlation of the local contrast of two (64, 64) rank images after the affine shift that aligns them best."""
    one, other = _local_contrast(a), _local_contrast(b)
    warp = np.eye(2, 3, dtype=np.float32)
    stop = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 30, 1e-4)
    try:
        _, found = cv2.findTransformECC(one, other, warp, cv2.MOTION_AFFINE, stop)
    except cv2.error:  # the two have nothing in common that could be aligned
        return 0.0
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    moved, seen = (cv2.warpAffine(image, found, (_GRID, _GRID), flags=flags) for image in (other, _inner()))
    shared = np.minimum(seen, _inner()) > 0.5
    if shared.sum() < _GRID * _GRID / 2:
        return 0.0
    return float(np.corrcoef(one[shared], moved[shared])[0, 1])


def _local_contrast(ranks: np.ndarray) -> np.ndarray:
    """Each cell against the mean and the spread of its close surroundings: the finer the structure, the less
    two studies of one patient share it, and the less a local equalisation changes it."""
    gray = ranks.astype(np.float32) / (2 * _GRID * _GRID)
    mean = cv2.GaussianBlur(gray, (0, 0), 1.5)
    variance = cv2.GaussianBlur(gray * gray, (0, 0), 1.5) - mean * mean
    return (gray - mean) / np.sqrt(np.maximum(variance, 0) + 0.03**2)


@functools.cache
def _inner() -> np.ndarray:
    """(64, 64) ones with a rim of zeros."""
    return cv2.copyMakeBorder(np.ones((_GRID - 4, _GRID - 4), np.float32), 2, 2, 2, 2, cv2.BORDER_CONSTANT, value=0)
