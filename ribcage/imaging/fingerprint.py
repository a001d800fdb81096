"""Fingerprints: perceptual hashes of radiographs, robust to resizing, compression, windowing, inversion, mirroring,
rotation by quarter turns, cropping and padding. `duplicates` finds the pairs.

An image becomes a few 256-bit hashes: area-resize to 64×64, replace gray values by their ranks, apply a 2-D cosine
transform, and take the signs of the 256 lowest frequencies. A monotonic change of gray values hardly affects the bits,
and inversion flips them all. Mirroring changes the signs of odd frequencies and a quarter turn exchanges rows and
columns, so the bits of all eight orientations follow from those of one and need not be stored. The same is done for the
image without its border and for centre crops of that, so that a crop of one image matches the whole of another.
"""

import functools
import hashlib
import unicodedata
from collections.abc import Sequence

import cv2
import numpy as np

BITS = 256
GRID = 64
_CROPS = (0, 3, 6, 9, 12, 15)  # in 128ths of each side: none, 2.3 % … 11.7 %
VARIANTS = 1 + len(_CROPS)
_FINE = 32  # positions are multiples of 1/32 pixel, so that every sum is exact and equal on all machines
_LEVELS = 1024
_SMALLEST = 8  # pixels a side; smaller images are not radiographs
# The eight orientations of a square: transposed first, then rows reversed, then columns reversed.
TURNS = ((0, 0, 0), (0, 0, 1), (0, 1, 0), (0, 1, 1), (1, 0, 0), (1, 0, 1), (1, 1, 0), (1, 1, 1))
TURN_NAMES = ("as it is", "mirrored", "upside down and mirrored", "turned by 180°", "transposed",
              "turned by 90°", "turned by 270°", "transposed the other way")  # fmt: skip


def fingerprint(pixels: np.ndarray) -> np.ndarray:
    """(VARIANTS, 4) uint64: the image, the image without its border, its centre crops; equal on every machine. A
    variant without content (constant, nearly black, too small) is all zero and matches nothing."""
    bits = _waves(rank_images(pixels)) > 0
    return np.packbits(bits, axis=1, bitorder="little").view("<u8").astype(np.uint64)


def turned_prints(prints: np.ndarray, turn: int) -> np.ndarray:
    """The fingerprints (…, 4) of the same images in another orientation. For a transposed one, two of 256 bits stay
    unchanged, since their counterparts are not stored."""
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
    """For each bit of a turned fingerprint: the bit it comes from, and whether its sign changes."""
    transposed, upside, mirrored = TURNS[turn]
    rows, columns = _frequencies()
    place = {key: number for number, key in enumerate(zip(rows.tolist(), columns.tolist(), strict=True))}
    swapped = [place.get((column, row), number) for (row, column), number in place.items()]
    source = np.array(swapped if transposed else list(place.values()))
    return source, ((upside * rows + mirrored * columns) % 2).astype(np.uint8)


def turned_ranks(ranks: np.ndarray, turn: int) -> np.ndarray:
    """The ranks of the same image in another orientation."""
    transposed, upside, mirrored = TURNS[turn]
    ranks = ranks.T if transposed else ranks
    return np.ascontiguousarray(ranks[:: -1 if upside else 1, :: -1 if mirrored else 1])


def with_all_variants(prints: np.ndarray) -> np.ndarray:
    """Fingerprints of an older version, which had fewer crops, padded with empty ones."""
    lacking = VARIANTS - prints.shape[1] if prints.ndim == 3 else 0
    return np.pad(prints, ((0, 0), (0, lacking), (0, 0))) if lacking > 0 else prints


def pixel_hash(pixels: np.ndarray) -> int:
    """64-bit hash of the exact pixels, their shape and their dtype."""
    little = np.ascontiguousarray(pixels, dtype=pixels.dtype.newbyteorder("<"))
    head = f"{little.dtype.str} {little.shape}".encode()
    return int.from_bytes(hashlib.blake2b(head + b"\n" + little.tobytes(), digest_size=8).digest(), "little")


def contents_hash(pixel_hashes: Sequence[int] | np.ndarray) -> str:
    """Hash of several images in order, by their pixel hashes."""
    return hashlib.blake2b(np.asarray(pixel_hashes, np.uint64).astype("<u8").tobytes(), digest_size=16).hexdigest()


def patient_fingerprint(dataset: str, patient: str, key: bytes = b"") -> int:
    """64-bit pseudonym of a patient of a dataset, independent of case, character width and leading zeros. Without a
    key, anyone who can list the dataset's patients can compute and compare them."""
    text = "\0".join([_plain(dataset), canonical_patient(patient)]).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8, key=key, person=b"ribcage patient").digest(), "little")


def canonical_patient(patient: str) -> str:
    """Canonical spelling of a patient identifier: '007', ' 7' and the full-width '７' are '7'."""
    plain = _plain(patient)
    return plain.lstrip("0") or "0" if plain.isdecimal() else plain


def _plain(text: str) -> str:
    return unicodedata.normalize("NFKC", text).strip().casefold()


# ---- from pixels to ranks


def rank_images(pixels: np.ndarray) -> np.ndarray:
    """(V, 64, 64) float64 integers: each cell's rank among its variant's cells, centred; zero without content."""
    if pixels.ndim != 2 or pixels.dtype not in (np.uint8, np.uint16):
        raise ValueError(
            f"A fingerprint is computed from a uint8 or uint16 array of shape (height, width), not from {pixels.dtype} "
            f"of shape {pixels.shape}."
        )
    ranks = np.zeros((VARIANTS, GRID, GRID))
    if min(pixels.shape) < _SMALLEST:
        return ranks
    image = _ten_bits(pixels)
    height, width = image.shape
    # Sums of bytes fit into 32 bits up to 8 million pixels, which is three times as fast.
    narrow = image.dtype == np.uint8 and image.size < 2**23
    sums = cv2.integral(image, sdepth=cv2.CV_32S if narrow else cv2.CV_64F)
    whole = _cells(sums, _edges(0, height, 0), _edges(0, width, 0))
    variance = _variance(np.rint(whole).reshape(1, -1))[0]
    if variance < 1:  # gray levels squared: only noise
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
    """Sixteen-bit images scaled to 0 … 1,023, so that sums of squares stay exact."""
    if pixels.dtype == np.uint8:
        return np.ascontiguousarray(pixels)
    raised = pixels - pixels.min()
    return np.ascontiguousarray(raised >> max(0, int(raised.max()).bit_length() - 10))


def _variance(lines: np.ndarray) -> np.ndarray:
    """Exact variance of each line of integers."""
    count, values = lines.shape[1], lines.astype(np.int64)
    return ((values * values).sum(axis=1) * count - values.sum(axis=1) ** 2) / count**2


def _content(image: np.ndarray, variance: float) -> tuple[int, int, int, int]:
    """Top, bottom, left, right of the image without uniform rows and columns at its edges. Rows and columns alternate,
    since a white frame hides the black margin inside it."""
    height, width = image.shape
    top, bottom, left, right = 0, height, 0, width
    limit = variance / 160  # a standard deviation of 8 % of the image's: above the noise and JPEG ringing of a border
    for _ in range(2):
        lines = image[top:bottom, left:right]
        top, bottom = top + _margin(lines, limit), bottom - _margin(lines[::-1], limit)
        if bottom <= top:  # all rows are uniform
            return 0, height, 0, width
        lines = image[top:bottom, left:right].T
        left, right = left + _margin(lines, limit), right - _margin(lines[::-1], limit)
        if min(bottom - top, right - left) < _SMALLEST or 3 * (bottom - top) < height or 3 * (right - left) < width:
            return 0, height, 0, width
    return top, bottom, left, right


def _margin(lines: np.ndarray, limit: float) -> int:
    """Number of leading lines that vary less than the limit; searched in growing steps, since most images have none."""
    start, step = 0, 4
    while start < len(lines):
        varied = np.flatnonzero(_variance(lines[start : start + step]) > limit)
        if len(varied):
            return start + int(varied[0])
        start, step = start + step, 2 * step
    return len(lines)


def _edges(start: int, stop: int, crop: int) -> np.ndarray:
    """(65,) positions of the grid lines over start … stop less `crop` 128ths on each side, in 1/32 pixel."""
    steps = crop * GRID + (128 - 2 * crop) * np.arange(GRID + 1)
    return start * _FINE + steps * ((stop - start) * _FINE) // (128 * GRID)


def _cells(sums: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """(64, 64) mean gray of each cell. The integral is linear between pixels, so cells may end within pixels."""
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


# ---- from ranks to bits


def _waves(ranks: np.ndarray) -> np.ndarray:
    """(V, 256) coefficients of the lowest frequencies: integers below 2^53, so exact in any order of summation."""
    table = _cosines()
    rows, columns = _frequencies()
    return np.ascontiguousarray((table @ ranks @ table.T)[:, rows, columns])


@functools.cache
def _frequencies() -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the 256 lowest frequencies after the constant, by their radius."""
    rows, columns = np.indices((GRID, GRID)).reshape(2, -1)
    order = np.argsort(rows * rows + columns * columns, kind="stable")[1 : BITS + 1]
    return rows[order], columns[order]


@functools.cache
def _cosines() -> np.ndarray:
    """(K, 64) cosines of the transform in multiples of 1/1024, as many as `_frequencies` needs."""
    waves = np.arange(max(map(np.max, _frequencies())) + 1)
    return np.rint(1024 * np.cos(np.pi / GRID * np.outer(waves, np.arange(GRID) + 0.5)))
