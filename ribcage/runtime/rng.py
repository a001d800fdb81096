"""Random numbers by address: the same (seed, epoch, row, stream) always gives the same numbers.

The state of an ordinary generator depends on previous draws; here each draw depends on its address only. A batch is the
same for any number of threads and ranks, and a resumed run equals one that was never interrupted.

The generator is Philox4x32-10: ten rounds of multiplication and mixing turn a counter into four 32-bit words. Salmon et
al. 2011, "Parallel random numbers: as easy as 1, 2, 3", https://doi.org/10.1145/2063384.2063405
"""

import numpy as np

WORDS = 4
"""32-bit words per counter."""
ROUNDS = 10
_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_WEYL = (0x9E3779B9, 0xBB67AE85)
_LOW, _HALF = np.uint64(0xFFFFFFFF), np.uint64(32)
_CHUNK = 1 << 13  # counters at a time, so that intermediate results fit into the second-level cache of a core
_BLOCK = 1 << 20  # positions at a time, so that intermediate results take little memory

# Streams: the views of an image are numbered from 0 up; other uses of random numbers are named, from the top down.
ORDER, SAMPLE, LABELS, NOISE, SAME_PATIENT, METHOD, READER = 0xFFFF, 0xFFFE, 0xFFFD, 0xFFFC, 0xFFFB, 0xFFFA, 0xFFF9
MIXING = 0xFFF9
BLOCKS, WITHIN, PATCHES = 0xFFF8, 0xFFF7, 0xFFF6


def uniform(seed: int, epoch: int, rows: np.ndarray, stream: int, count: int) -> np.ndarray:
    """(N, count) float64 in [0, 1), in steps of 2⁻³². The first columns do not depend on count."""
    return random_words(seed, epoch, rows, stream, count) * 2.0**-32


def whole(seed: int, epoch: int, rows: np.ndarray, stream: int) -> np.ndarray:
    """(N,) int64 from 0 to 2⁶³ - 1, one per row; may serve as the address of further draws."""
    low, high = random_words(seed, epoch, rows, stream, 2).T.astype(np.int64)
    return low | (high & 0x7FFFFFFF) << 32


def random_words(seed: int, epoch: int, rows: np.ndarray, stream: int, count: int) -> np.ndarray:
    """(N, count) uint32: the words from which `uniform` is made."""
    rows = np.asarray(rows, np.uint64)
    blocks = -(-count // WORDS)
    _check(epoch, stream, blocks)
    counters = np.empty((WORDS, len(rows), blocks), np.uint64)
    counters[0] = (rows & _LOW)[:, None]
    counters[1] = (rows >> _HALF)[:, None]
    counters[2] = epoch
    counters[3] = (stream << 16) + np.arange(blocks, dtype=np.uint64)
    mixed = philox(counters.reshape(WORDS, -1), _key(seed))  # (4, N · blocks)
    return mixed.T.reshape(len(rows), blocks * WORDS)[:, :count]


def random_orders(chance: np.ndarray, count: int) -> np.ndarray:
    """(N, count) int64: for each number in `chance`, a permutation of 0 … count-1."""
    return np.argsort(random_words(0, 0, chance, METHOD, count), axis=1, kind="stable")


def generator(chance: int, stream: int) -> np.random.Generator:
    """A generator of other distributions, whose numbers depend only on a number of `whole` and on the stream."""
    return np.random.Generator(np.random.Philox(key=chance | stream << 64))


def permutation(seed: int, epoch: int, count: int, stream: int = ORDER) -> np.ndarray:
    """(count,) int64: the permutation of 0 … count-1 for this epoch."""
    bits = np.uint64(max(count - 1, 1).bit_length())
    # the low bits hold the position: no two keys are equal, so the order does not depend on the sorting algorithm
    keys = _with_positions(_long_words(seed, epoch, count, stream), bits)
    keys.sort()
    keys &= (np.uint64(1) << bits) - np.uint64(1)
    return keys.view(np.int64)


def _with_positions(words: np.ndarray, bits: np.uint64) -> np.ndarray:
    """The words, of which the lowest bits are replaced by the position."""
    for start in range(0, len(words), _CHUNK):
        part = words[start : start + _CHUNK]
        part >>= bits
        part <<= bits
        part |= np.arange(start, start + len(part), dtype=np.uint64)
    return words


def permutation_within(seed: int, epoch: int, spans: np.ndarray, stream: int) -> np.ndarray:
    """(N,) int64: a permutation of 0 … N-1 that moves no number out of its span; spans: (S,) their sizes, of sum N."""
    ends = np.cumsum(spans)
    found = np.empty(int(ends[-1]) if len(ends) else 0, np.int64)
    start = done = 0
    while done < len(spans):  # some spans at a time, to limit memory
        until = max(done + 1, int(np.searchsorted(ends, start + _BLOCK, side="right")))
        end = int(ends[until - 1])
        found[start:end] = start + _permuted_spans(seed, epoch, spans[done:until], start, stream)
        start, done = end, until
    return found


def _permuted_spans(seed: int, epoch: int, spans: np.ndarray, start: int, stream: int) -> np.ndarray:
    """As `permutation_within`, for spans that begin at a position."""
    total = int(spans.sum())
    low, top = np.uint64(int(spans.max()).bit_length()), np.uint64(len(spans).bit_length())
    first = np.repeat(np.cumsum(spans) - spans, spans)
    words = random_words(seed, epoch, np.arange(start // 2, -(-(start + total) // 2)), stream, WORDS)
    pairs = words.reshape(-1, 2)[start % 2 :][:total].astype(np.uint64)
    keys = (pairs[:, 0] << _HALF | pairs[:, 1]) >> (low + top) << low
    keys |= np.repeat(np.arange(len(spans), dtype=np.uint64), spans) << (np.uint64(64) - top)
    keys |= (np.arange(total) - first).astype(np.uint64)  # no two are equal: any sorting algorithm gives the same order
    keys.sort()
    return first + (keys & ((np.uint64(1) << low) - np.uint64(1))).astype(np.int64)


def choices(seed: int, epoch: int, weights: np.ndarray, count: int) -> np.ndarray:
    """(count,) int64: positions drawn with replacement, with probabilities in proportion to the weights."""
    positions, draws = sorted_choices(seed, epoch, weights, count)
    found = np.empty(count, np.int64)
    found[draws] = positions
    return found


def sorted_choices(seed: int, epoch: int, weights: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """(count,) int64: the positions of `choices` in ascending order, and the draw of each, from 0; the draws of one
    position are in ascending order.

    Sorting is much faster than looking up each draw at a random place of an array that does not fit into the cache.
    """
    weights = np.asarray(weights, np.float64)
    if not len(weights) or not np.isfinite(weights).all() or weights.min() < 0 or weights.sum() <= 0:
        raise ValueError("Weights must be finite and non-negative, and at least one must be above 0.")
    bits = np.uint64(max(count - 1, 1).bit_length())
    # Sorted by their highest bits; the lowest hold the number of the draw, and are computed again where they matter.
    keys = _with_positions(_long_words(seed, epoch, count, SAMPLE), bits)
    keys.sort()
    edges = np.cumsum(weights)
    last = len(weights) - 1 - int(np.argmax(weights[::-1] > 0))  # where share · total rounds up to the total
    lowest = (np.uint64(1) << bits) - np.uint64(1)
    for start in range(0, count, _CHUNK):
        part = keys[start : start + _CHUNK]
        draws = part & lowest
        least, most = (_shares(words, edges[-1]) for words in (part & ~lowest, part | lowest))
        places = _reached(edges, least)
        unsure = np.flatnonzero(edges[np.minimum(places, last)] <= most)
        places[unsure] = np.searchsorted(
            edges, _shares(_long_words_at(seed, epoch, draws[unsure], SAMPLE), edges[-1]), side="right"
        )
        part[:] = np.minimum(places, last).view(np.uint64) << bits | draws
    keys.sort()
    positions = (keys >> bits).view(np.int64)
    keys &= lowest
    return positions, keys.view(np.int64)


def _shares(words: np.ndarray, total: float) -> np.ndarray:
    """(N,) float64: random words as numbers between 0 and the total."""
    shares: np.ndarray = (words >> np.uint64(11)) * 2.0**-53 * total
    return shares


def _reached(edges: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """`np.searchsorted(edges, shares, side="right")` for ascending shares.

    The range of the shares is divided into equal bins. The search for a share begins at the first edge of its bin.
    """
    low, high = float(shares[0]), float(shares[-1])
    first, end = np.searchsorted(edges, (low, high), side="right").tolist()
    bins = 2 * len(shares)
    scale = bins / (high - low) if high > low else 0.0
    if not np.isfinite(scale):
        return np.searchsorted(edges, shares, side="right")
    near = np.append(edges[first:end], np.inf)
    counts = np.bincount(((near[:-1] - low) * scale).astype(np.int64), minlength=bins + 1)
    places: np.ndarray = (np.cumsum(counts) - counts)[((shares - low) * scale).astype(np.int64)]
    left = np.flatnonzero(near[places] <= shares)
    for _ in range(8):
        places[left] += 1
        left = left[near[places[left]] <= shares[left]]
    places[left] = np.searchsorted(near, shares[left], side="right")  # many edges in one bin
    return places + first


def philox(counters: np.ndarray, key: tuple[int, int]) -> np.ndarray:
    """(4, M) uint64 words → (4, M): Philox4x32-10 of each counter."""
    mixed = np.empty_like(counters)
    for start in range(0, counters.shape[1], _CHUNK):
        part = slice(start, start + _CHUNK)
        mixed[:, part] = _rounds(counters[:, part], key)
    return mixed


def _rounds(counters: np.ndarray | tuple[np.ndarray, ...], key: tuple[int, int]) -> tuple[np.ndarray, ...]:
    c0, c1, c2, c3 = counters
    for step in range(ROUNDS):
        k0, k1 = (np.uint64((word + step * weyl) & 0xFFFFFFFF) for word, weyl in zip(key, _WEYL, strict=True))
        left, right = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]  # 32 × 32 bits → 64 bits: no overflow
        c0, c1 = (right >> _HALF) ^ c1 ^ k0, right & _LOW
        c2, c3 = (left >> _HALF) ^ c3 ^ k1, left & _LOW
    return c0, c1, c2, c3


def _long_words(seed: int, epoch: int, count: int, stream: int) -> np.ndarray:
    """(count,) uint64, each made of two of `random_words`; one counter serves two of them."""
    _check(epoch, stream, 1)
    key, rows = _key(seed), -(-count // 2)
    words = np.empty((rows, 2), np.uint64)
    for start in range(0, rows, _CHUNK):
        row = np.arange(start, min(start + _CHUNK, rows), dtype=np.uint64)
        constant = (np.full_like(row, value) for value in (epoch, stream << 16))
        mixed = _rounds((row & _LOW, row >> _HALF, *constant), key)
        words[start : start + len(row)] = np.stack([mixed[0] << _HALF | mixed[1], mixed[2] << _HALF | mixed[3]], 1)
    return words.reshape(-1)[:count]


def _long_words_at(seed: int, epoch: int, places: np.ndarray, stream: int) -> np.ndarray:
    """(N,) uint64: those of `_long_words` at these places."""
    pairs = random_words(seed, epoch, places // 2, stream, WORDS).astype(np.uint64).reshape(-1, 2, 2)
    high, low = pairs[np.arange(len(places)), (places % 2).astype(np.int64)].T
    return high << _HALF | low


def _key(seed: int) -> tuple[int, int]:
    if not 0 <= seed < 1 << 64:
        raise ValueError(f"The seed must be between 0 and 2⁶⁴ - 1, not {seed}.")
    return seed & 0xFFFFFFFF, seed >> 32


def _check(epoch: int, stream: int, blocks: int) -> None:
    if not 0 <= epoch < 1 << 32:
        raise ValueError(f"The epoch must be between 0 and 2³² - 1, not {epoch}.")
    if not 0 <= stream <= 0xFFFF:
        raise ValueError(f"The view number must be between 0 and {NOISE - 1}, not {stream}.")
    if blocks > 1 << 16:
        raise ValueError(
            f"{blocks * WORDS:,} random numbers were requested for one row; the maximum is {WORDS << 16:,}."
        )
