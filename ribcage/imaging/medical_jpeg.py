"""JPEGs that only medicine uses and OpenCV cannot read: 12 bits (ITU T.81 extended sequential) and lossless.

Decoded in compiled loops that stay within their arrays for any input and release the GIL.
"""

import re
import struct

import numpy as np

from ribcage.imaging.jpeg_scan import LOSSLESS, JpegScan, read_scan, repaired
from ribcage.runtime.compiling import compiled

ZIGZAG = np.array([y * 8 + x for y, x in sorted(np.ndindex(8, 8), key=lambda p: (sum(p), p[sum(p) % 2 == 0]))])
# T.81 A.3.3: rows are the cosines of one frequency, so that block = COSINES.T @ coefficients @ COSINES.
COSINES = np.cos(np.outer(np.arange(8), 2 * np.arange(8) + 1) * np.pi / 16) / 2
COSINES[0] /= np.sqrt(2)
RESTARTS = range(0xD0, 0xD8)


def is_medical_jpeg(data: bytes) -> bool:
    """Whether this is a kind of JPEG that `decode_medical_jpeg` reads, judged by its header."""
    try:
        read_scan(repaired(data)[0])
    except (ValueError, struct.error, IndexError):
        return False
    return True


def decode_medical_jpeg(data: bytes) -> np.ndarray:
    """(H, W) uint16 of a JPEG with one component; (H, W, C) of a lossless one with several."""
    scan = read_scan(data)
    parts = _parts(data, scan.start)
    if scan.kind == LOSSLESS:
        return _lossless(scan, parts)
    return _sequential(scan, parts)


def _parts(data: bytes, start: int) -> list[np.ndarray]:
    """The coded bits between restarts, without byte stuffing and padded for reads past the end."""
    coded = np.frombuffer(data, np.uint8)[start:]
    places = np.flatnonzero(coded[:-1] == 0xFF)
    markers = coded[places + 1]  # 0: no marker but a stuffed byte
    first = next(iter(np.flatnonzero(markers)), None)
    if first is None or not (markers[first] == 0xFF or int(markers[first]) in RESTARTS):
        end = len(coded) if first is None else places[first]
        stuffed = places[:first] + 1
        return [np.concatenate([np.delete(coded[:end], stuffed), np.zeros(16, np.uint8)])]
    found = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]").search(data, start)
    parts = re.split(rb"\xff+[\xd0-\xd7]", data[start : found.start() if found else len(data)])
    return [np.frombuffer(part.replace(b"\xff\x00", b"\xff") + bytes(16), np.uint8) for part in parts]


def _lossless(scan: JpegScan, parts: list[np.ndarray]) -> np.ndarray:
    pixels = np.zeros((scan.height, scan.width, len(scan.dc)), np.uint16)
    rows = scan.interval // scan.width if scan.interval else scan.height
    if scan.interval % scan.width or len(parts) != -(-scan.height // rows):
        raise ValueError("the restart markers are misplaced")
    decode_rows = compiled(_decode_rows)
    for number, part in enumerate(parts):
        some = pixels[number * rows : (number + 1) * rows]
        if not decode_rows(part, scan.dc, scan.first, 1 << (scan.bits - scan.shift - 1), some):
            raise ValueError("the coded pixels are incomplete or invalid")
    pixels <<= np.uint16(scan.shift)
    return pixels if len(scan.dc) > 1 else pixels[..., 0]


def _sequential(scan: JpegScan, parts: list[np.ndarray]) -> np.ndarray:
    down, across = -(-scan.height // 8), -(-scan.width // 8)
    pixels = np.zeros((down * 8, across * 8), np.uint16)
    count = scan.interval or down * across
    if len(parts) != -(-down * across // count):
        raise ValueError("the restart markers are misplaced")
    decode_blocks = compiled(_decode_blocks)
    for number, part in enumerate(parts):
        first, last = number * count, min((number + 1) * count, down * across)
        if not decode_blocks(
            part, scan.dc[0], scan.ac, scan.quantisers, ZIGZAG, COSINES, scan.bits, first, last, pixels
        ):
            raise ValueError("the coded pixels are incomplete or invalid")
    return np.ascontiguousarray(pixels[: scan.height, : scan.width])


def _decode_rows(
    coded: np.ndarray, tables: np.ndarray, predictor: int, middle: int, pixels: np.ndarray
) -> bool:  # pragma: no cover
    """T.81 H.1.2: each pixel is a prediction from its neighbours plus a coded difference, modulo 65,536."""
    height, width, components = pixels.shape
    end = (len(coded) - 16) * 8
    word, at = np.int64(0), np.int64(0)  # `word` ends in the next `have` bits, which begin in bit `at`
    have: int | np.int64 = 0
    for y in range(height):
        for x in range(width):
            for c in range(components):
                if have < 32:
                    byte = (at + have) >> 3
                    for k in range(4):
                        word = word << 8 | np.int64(coded[byte + k])
                    have += 32
                found = np.int64(tables[c, (word >> (have - 16)) & 0xFFFF])
                length, size = found >> 8, found & 255
                if length == 0 or size > 16:
                    return False
                extra = size & 15  # a difference of 16 bits is always 32,768
                have -= length + extra
                at += length + extra
                if at > end:
                    return False
                difference = np.int64(32768) if size == 16 else (word >> have) & ((1 << extra) - 1)
                if extra > 0 and difference < 1 << (extra - 1):
                    difference -= (1 << extra) - 1
                left = np.int64(pixels[y, x - 1, c]) if x > 0 else 0
                above = np.int64(pixels[y - 1, x, c]) if y > 0 else 0
                corner = np.int64(pixels[y - 1, x - 1, c]) if x > 0 and y > 0 else 0
                if y == 0:
                    expected = left if x > 0 else np.int64(middle)
                elif x == 0 or predictor == 2:
                    expected = above
                elif predictor == 1:
                    expected = left
                elif predictor == 3:
                    expected = corner
                elif predictor == 4:
                    expected = left + above - corner
                elif predictor == 5:
                    expected = left + ((above - corner) >> 1)
                elif predictor == 6:
                    expected = above + ((left - corner) >> 1)
                else:
                    expected = (left + above) >> 1
                pixels[y, x, c] = np.uint16((expected + difference) & 0xFFFF)
    return True


def _decode_blocks(
    coded: np.ndarray,
    dc: np.ndarray,
    ac: np.ndarray,
    steps: np.ndarray,
    zigzag: np.ndarray,
    cosines: np.ndarray,
    bits: int,
    first: int,
    last: int,
    pixels: np.ndarray,
) -> bool:  # pragma: no cover
    """T.81 F.2: blocks of 8 x 8 frequencies, coded as runs of zeros and values."""
    across = pixels.shape[1] // 8
    end = (len(coded) - 16) * 8
    top = float((1 << bits) - 1)
    middle = float(1 << (bits - 1))
    half, rows, used = np.zeros((8, 8)), np.zeros((8, 8)), np.zeros(8, np.bool_)
    # `word` ends in the next `have` bits, which begin in bit `at`
    word, at, direct = np.int64(0), np.int64(0), np.int64(0)
    have: int | np.int64 = 0
    for number in range(first, last):
        half[:], used[:] = 0.0, False
        k: int | np.int64 = 0
        while k < 64:
            if have < 32:
                byte = (at + have) >> 3
                for n in range(4):
                    word = word << 8 | np.int64(coded[byte + n])
                have += 32
            ahead = (word >> (have - 16)) & 0xFFFF
            found = np.int64(dc[ahead] if k == 0 else ac[ahead])
            length, run, size = found >> 8, (found & 255) >> 4, found & 15
            if length == 0 or (k == 0 and run > 0):
                return False
            have -= length + size
            at += length + size
            if at > end:
                return False
            value = (word >> have) & ((1 << size) - 1)
            if size > 0 and value < 1 << (size - 1):
                value -= (1 << size) - 1
            if k == 0:
                direct += value
                value = direct
            elif size == 0 and run < 15:  # the rest of the block is zero
                break
            k += run
            if k > 63:
                return False
            u, v, scaled = zigzag[k] >> 3, zigzag[k] & 7, value * steps[k]
            used[u] = True
            for x in range(8):
                half[u, x] += scaled * cosines[v, x]
            k += 1
        rows[:] = middle
        for u in range(8):
            if used[u]:  # the others are zero
                for y in range(8):
                    for x in range(8):
                        rows[y, x] += half[u, x] * cosines[u, y]
        y0, x0 = number // across * 8, number % across * 8
        for y in range(8):
            for x in range(8):
                pixels[y0 + y, x0 + x] = np.uint16(min(max(rows[y, x] + 0.5, 0.0), top))
    return True
