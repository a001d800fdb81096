"""JPEGs that only medicine uses and OpenCV cannot read: 12 bits (ITU T.81 extended sequential) and lossless.

Decoded in compiled loops that stay within their arrays for any input and release the GIL.
"""

import re
import struct
from dataclasses import dataclass

import numpy as np

from ribcage.imaging import jpeg_markers
from ribcage.runtime.compiling import compiled

SEQUENTIAL, LOSSLESS = (0xC0, 0xC1), 0xC3
SCAN_END = bytes((0, 63, 0))
"""First and last frequency and dropped bits of a sequential scan: all and none."""
ZIGZAG = np.array([y * 8 + x for y, x in sorted(np.ndindex(8, 8), key=lambda p: (sum(p), p[sum(p) % 2 == 0]))])
# T.81 A.3.3: rows are the cosines of one frequency, so that block = COSINES.T @ coefficients @ COSINES.
COSINES = np.cos(np.outer(np.arange(8), 2 * np.arange(8) + 1) * np.pi / 16) / 2
COSINES[0] /= np.sqrt(2)


class UnsupportedError(ValueError):
    """A kind of JPEG that is not supported here, though it may be valid."""


@dataclass(frozen=True)
class _Scan:
    kind: int
    bits: int
    height: int
    width: int
    first: int
    """Ss of the scan header: the first frequency, or the predictor of a lossless JPEG."""
    shift: int
    """Al: the number of low bits dropped before coding."""
    quantisers: np.ndarray
    dc: np.ndarray
    """(C, 65536): the codes of each component."""
    ac: np.ndarray
    interval: int
    """Blocks or pixels between restarts; 0: all."""
    start: int


def repaired(data: bytes) -> tuple[bytes, list[str]]:
    """The JPEG with the only scan header that is valid in a sequential one (T.81 table B.3), and a note if it was
    replaced: some writers leave it empty, and other decoders ignore it."""
    sequential = False
    for marker, body, at in jpeg_markers.segments(data):
        sequential |= marker in SEQUENTIAL
        if marker == 0xDA and sequential and body[-3:] != SCAN_END:
            end = at + 4 + len(body)
            return data[: end - 3] + SCAN_END + data[end:], ["the JPEG's invalid scan header was ignored"]
    return data, []


def is_medical_jpeg(data: bytes) -> bool:
    """Whether this is a kind of JPEG that `decode_medical_jpeg` reads, judged by its header."""
    try:
        _scan(repaired(data)[0])
    except (ValueError, struct.error, IndexError):
        return False
    return True


def decode_medical_jpeg(data: bytes) -> np.ndarray:
    """(H, W) uint16 of a JPEG with one component; (H, W, C) of a lossless one with several."""
    scan = _scan(data)
    parts = _parts(data, scan.start)
    if scan.kind == LOSSLESS:
        return _lossless(scan, parts)
    return _sequential(scan, parts)


def _scan(data: bytes) -> _Scan:
    frame, header, interval = b"", b"", 0
    quantisers: dict[int, np.ndarray] = {}
    tables: dict[tuple[int, int], np.ndarray] = {}
    start, kind = 0, 0
    for marker, body, at in jpeg_markers.segments(data):
        if marker in (*SEQUENTIAL, LOSSLESS):
            kind, frame = marker, body
        elif 0xC0 <= marker <= 0xCF and marker != 0xC4:
            raise UnsupportedError("the JPEG is arithmetic-coded, or neither sequential nor lossless")
        elif marker == 0xDB:
            quantisers |= _quantisers(body)
        elif marker == 0xC4:
            tables |= _huffman_tables(body)
        elif marker == 0xDD:
            (interval,) = struct.unpack(">H", body)
        elif marker == 0xDA:
            header, start = body, at + 4 + len(body)
    bits, height, width, components = struct.unpack_from(">BHHB", frame)
    lossless = kind == LOSSLESS
    if components not in ((1, 3) if lossless else (1,)) or len(header) != 4 + 2 * components or header[0] != components:
        raise UnsupportedError(
            f"the JPEG must have one component{', or three components in one scan' if lossless else ''}"
        )
    first, _, shift = header[-3:]
    if not 2 <= bits <= 16 or (not lossless and (bits > 12 or header[-3:] != SCAN_END)):
        raise ValueError("the scan header is invalid for a sequential JPEG")
    if lossless and (not 1 <= first <= 7 or not shift < bits or (components > 1 and set(frame[7::3]) != {0x11})):
        raise ValueError("the scan header is invalid for a lossless JPEG")
    chosen, table = header[2 : 2 + 2 * components : 2], frame[8]
    dc, ac = [tables.get((0, each >> 4)) for each in chosen], tables.get((1, chosen[0] & 15))
    if any(each is None for each in dc) or (not lossless and (ac is None or table not in quantisers)):
        raise ValueError("a Huffman or quantisation table is missing")
    codes = np.stack([each for each in dc if each is not None])
    quantiser = quantisers.get(table, np.ones(64))
    ac = codes[0] if ac is None else ac
    return _Scan(kind, bits, height, width, first, shift & 15, quantiser, codes, ac, interval, start)


def _quantisers(body: bytes) -> dict[int, np.ndarray]:
    """(64,) quantisation steps in zigzag order of each table in this segment."""
    found = {}
    while body:
        size = 1 + (body[0] >> 4 != 0)
        found[body[0] & 15] = np.frombuffer(body, f">u{size}", 64, 1).astype(np.float64)
        body = body[1 + 64 * size :]
    return found


def _huffman_tables(body: bytes) -> dict[tuple[int, int], np.ndarray]:
    """For each table and each value of the next 16 bits: code length * 256 + symbol."""
    found = {}
    while body:
        counts, symbols = np.frombuffer(body, np.uint8, 16, 1), body[17:]
        table, at, used = np.zeros(65536, np.int32), 0, 0
        for length, count in enumerate(counts.tolist(), 1):
            for symbol in symbols[used : used + count]:
                span = 1 << (16 - length)
                table[at : at + span] = length << 8 | symbol
                at += span
            used += count
        if at > 65536 or len(symbols) < used:
            raise ValueError("a Huffman table has too many codes")
        found[body[0] >> 4, body[0] & 15] = table
        body = symbols[used:]
    return found


def _parts(data: bytes, start: int) -> list[np.ndarray]:
    """The coded bits between restarts, without byte stuffing and padded for reads past the end."""
    end = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]").search(data, start)
    parts = re.split(rb"\xff+[\xd0-\xd7]", data[start : end.start() if end else len(data)])
    return [np.frombuffer(part.replace(b"\xff\x00", b"\xff") + bytes(16), np.uint8) for part in parts]


def _lossless(scan: _Scan, parts: list[np.ndarray]) -> np.ndarray:
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


def _sequential(scan: _Scan, parts: list[np.ndarray]) -> np.ndarray:
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
    at = 0
    for y in range(height):
        for x in range(width):
            for c in range(components):
                byte = at >> 3
                word = np.int64(0)
                for k in range(5):
                    word = word << 8 | np.int64(coded[byte + k])
                found = tables[c, (word >> (24 - (at & 7))) & 0xFFFF]
                length, size = found >> 8, found & 255
                if length == 0 or size > 16:
                    return False
                difference = np.int64(0)
                if size == 16:
                    difference = np.int64(32768)
                elif size > 0:
                    difference = (word >> (40 - (at & 7) - length - size)) & ((1 << size) - 1)
                    if difference < 1 << (size - 1):
                        difference -= (1 << size) - 1
                    at += size
                at += length
                if at > end:
                    return False
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
    block, half = np.zeros((8, 8)), np.zeros((8, 8))
    at, direct = 0, np.int64(0)
    for number in range(first, last):
        block[:] = 0
        k = 0
        while k < 64:
            byte = at >> 3
            word = np.int64(0)
            for n in range(5):
                word = word << 8 | np.int64(coded[byte + n])
            ahead = (word >> (24 - (at & 7))) & 0xFFFF
            found = dc[ahead] if k == 0 else ac[ahead]
            length, run, size = found >> 8, (found & 255) >> 4, found & 15
            if length == 0 or (k == 0 and run > 0):
                return False
            value = np.int64(0)
            if size > 0:
                value = (word >> (40 - (at & 7) - length - size)) & ((1 << size) - 1)
                if value < 1 << (size - 1):
                    value -= (1 << size) - 1
            at += length + size
            if at > end:
                return False
            if k == 0:
                direct += value
                block[0, 0] = direct * steps[0]
                k = 1
                continue
            if size == 0 and run < 15:  # the rest of the block is zero
                break
            k += run
            if k > 63:
                return False
            block[zigzag[k] >> 3, zigzag[k] & 7] = value * steps[k]
            k += 1
        for u in range(8):
            for x in range(8):
                half[u, x] = 0.0
                for v in range(8):
                    half[u, x] += block[u, v] * cosines[v, x]
        y0, x0 = number // across * 8, number % across * 8
        for y in range(8):
            for x in range(8):
                value_here = middle
                for u in range(8):
                    value_here += half[u, x] * cosines[u, y]
                pixels[y0 + y, x0 + x] = np.uint16(min(max(value_here + 0.5, 0.0), top))
    return True
