"""JPEG scan: the header of a sequential or lossless JPEG with its quantisation and Huffman tables, for decoders that
read the coded pixels themselves."""

import functools
import struct
from dataclasses import dataclass

import numpy as np

from ribcage.imaging import jpeg_markers

SEQUENTIAL, LOSSLESS = (0xC0, 0xC1), 0xC3
SCAN_END = bytes((0, 63, 0))
"""First and last frequency and dropped bits of a sequential scan: all and none."""
ZIGZAG = np.array([y * 8 + x for y, x in sorted(np.ndindex(8, 8), key=lambda p: (sum(p), p[sum(p) % 2 == 0]))])
"""(64,): row * 8 + column of the coefficients of a block, in the order of the stream."""
AC = 16
"""Added to the numbers of the Huffman tables of AC coefficients."""


class UnsupportedError(ValueError):
    """A kind of JPEG that is not supported here, though it may be valid."""


@dataclass(frozen=True)
class JpegScan:
    """What a decoder needs to know about the coded pixels."""

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
    """Offset of the coded pixels."""


def repaired(data: bytes) -> tuple[bytes, str]:
    """The JPEG with the only scan header that is valid in a sequential one (T.81 table B.3), and a text if it was
    replaced: some writers leave it empty, and other decoders ignore it."""
    sequential = False
    for marker, body, at in jpeg_markers.segments(data):
        sequential |= marker in SEQUENTIAL
        if marker == 0xDA and sequential and body[-3:] != SCAN_END:
            end = at + 4 + len(body)
            return data[: end - 3] + SCAN_END + data[end:], "the JPEG's invalid scan header was ignored"
    return data, ""


def read_scan(data: bytes) -> JpegScan:
    """The scan of a sequential JPEG with one component or of a lossless JPEG with one or three."""
    frame, header, interval = b"", b"", 0
    quantisers: dict[int, np.ndarray] = {}
    tables: dict[int, np.ndarray] = {}
    start, kind = 0, 0
    for marker, body, at in jpeg_markers.segments(data):
        if marker in (*SEQUENTIAL, LOSSLESS):
            kind, frame = marker, body
        elif 0xC0 <= marker <= 0xCF and marker != 0xC4:
            raise UnsupportedError("the JPEG is arithmetic-coded, or neither sequential nor lossless")
        elif marker == 0xDB:
            quantisers |= _quantisers(body)
        elif marker == 0xC4:
            tables |= {number: huffman_codes(table) for number, table in huffman_tables(body).items()}
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
    dc, ac = [tables.get(each >> 4) for each in chosen], tables.get(AC | chosen[0] & 15)
    if any(each is None for each in dc) or (not lossless and (ac is None or table not in quantisers)):
        raise ValueError("a Huffman or quantisation table is missing")
    codes = np.stack([each for each in dc if each is not None])
    quantiser = quantisers.get(table, np.ones(64))
    ac = codes[0] if ac is None else ac
    return JpegScan(kind, bits, height, width, first, shift & 15, quantiser, codes, ac, interval, start)


def _quantisers(body: bytes) -> dict[int, np.ndarray]:
    """(64,) quantisation steps in zigzag order of each table in this segment."""
    found = {}
    while body:
        size = 1 + (body[0] >> 4 != 0)
        found[body[0] & 15] = np.frombuffer(body, f">u{size}", 64, 1).astype(np.float64)
        body = body[1 + 64 * size :]
    return found


def huffman_tables(body: bytes) -> dict[int, bytes]:
    """The tables in a segment, in the form that `huffman_codes` reads, by their number, + AC."""
    found = {}
    while body:
        size = 17 + sum(body[1:17])
        if len(body) < size:
            raise ValueError("a Huffman table has too many codes")
        found[body[0]], body = body[1:size], body[size:]
    return found


@functools.lru_cache(maxsize=16)
def huffman_codes(table: bytes) -> np.ndarray:
    """(65536,) uint16: for each value of the next 16 bits, code length * 256 + symbol. `table` is the number of codes
    of each length, 1 to 16, and their symbols."""
    counts, symbols = table[:16], table[16:]
    codes, at, used = np.zeros(65536, np.uint16), 0, 0
    for length, count in enumerate(counts, 1):
        for symbol in symbols[used : used + count]:
            span = 1 << (16 - length)
            codes[at : at + span] = length << 8 | symbol
            at += span
        used += count
    if at > 65536 or len(symbols) < used:
        raise ValueError("a Huffman table has too many codes")
    codes.setflags(write=False)
    return codes
