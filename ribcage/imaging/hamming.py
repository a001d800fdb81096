"""Hamming search: all pairs of 256-bit hashes within a distance, among millions, in compiled code."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from ribcage.imaging.fingerprint import BITS
from ribcage.runtime.compiling import compiled
from ribcage.runtime.threads import available_cores

_BLOCK = 2048  # targets scanned at a time: 64 KiB, which fits into the cache
_EXACT = 1e10  # up to this many pairs, all are compared; takes two or three seconds
_SHARE = 16  # beyond it, each query is compared with the nearest sixteenth of the targets
Rows = tuple[np.ndarray, np.ndarray]  # (R,) image numbers and their (R, 4) hashes


def rows_within(a: Rows, b: Rows, max_distance: int) -> tuple[np.ndarray, np.ndarray]:
    """Image of a and image of b, for all rows within `max_distance` bits. The larger side is partitioned."""
    if len(a[0]) > len(b[0]):
        second, first = rows_within(b, a, max_distance)
        return first, second
    queries, targets = a[1], b[1]
    if len(queries) == 0:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    cells = _blocks(queries, targets) if len(queries) * len(targets) <= _EXACT else _neighbourhoods(queries, targets)
    with ThreadPoolExecutor(available_cores()) as pool:
        found = list(pool.map(lambda cell: _scanned(queries, targets, cell, max_distance), cells))
    query, target = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return a[0][query], b[0][target]


@dataclass(frozen=True)
class _Cell:
    """Some targets, and the queries to compare them with: those at most `limits` bits from the pivot."""

    rows: np.ndarray
    pivot: np.ndarray
    limits: np.ndarray


def _blocks(queries: np.ndarray, targets: np.ndarray) -> list[_Cell]:
    """All targets in order, each compared with every query."""
    limits = np.full(len(queries), BITS, np.uint64)
    starts = range(0, len(targets), _BLOCK)
    return [_Cell(np.arange(s, min(s + _BLOCK, len(targets))), targets[0], limits) for s in starts]


def _neighbourhoods(queries: np.ndarray, targets: np.ndarray) -> list[_Cell]:
    """Targets by their nearest pivot; each query is compared with the nearest cells that hold its share of the
    targets."""
    count = max(1, min(len(targets) // 64, 1024), len(targets) // _BLOCK)  # few pivots would not separate the targets
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

    with ThreadPoolExecutor(available_cores()) as pool:
        list(pool.map(probe, range(0, len(rows), 4096)))
    return nearest, limits


def _scanned(queries: np.ndarray, targets: np.ndarray, cell: _Cell, max_distance: int) -> tuple[np.ndarray, np.ndarray]:
    columns = [np.ascontiguousarray(word) for word in targets[cell.rows].T]
    room = 4096
    while True:
        query, target = np.empty(room, np.int64), np.empty(room, np.int64)
        count = compiled(_scan)(queries, cell.limits, cell.pivot, *columns, np.uint64(max_distance), query, target)
        if count <= room:
            return query[:count], cell.rows[target[:count]]
        room = count


# The four lines that count bits are repeated in both kernels: inline, the compiler turns them into one instruction and
# vectorises over eight targets. A separate function would prevent the on-disk cache.


def _scan(queries, limits, pivot, t0, t1, t2, t3, max_distance, query, target):  # type: ignore[no-untyped-def]
    """Write the pairs within `max_distance` bits and return their number, even if it exceeds the buffer."""
    found = 0
    far = np.uint64(256) - max_distance
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
                near += (total <= max_distance) | (total >= far)
            if near == 0:  # nearly always: pairs are written by a second, slower pass
                continue
            for j in range(len(s0)):
                total = np.uint64(0)
                for x in (a ^ s0[j], b ^ s1[j], c ^ s2[j], d ^ s3[j]):
                    x = x - ((x >> np.uint64(1)) & np.uint64(0x5555555555555555))
                    x = (x & np.uint64(0x3333333333333333)) + ((x >> np.uint64(2)) & np.uint64(0x3333333333333333))
                    x = (x + (x >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
                    total += (x * np.uint64(0x0101010101010101)) >> np.uint64(56)
                if total <= max_distance or total >= far:
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
