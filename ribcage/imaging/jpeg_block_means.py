"""JPEG block means: a grey 8-bit JPEG at 1/8 of its size, from the first coefficient of each 8 x 8 block alone.

The pixels equal those of libjpeg-turbo. It decodes every coefficient of a block, although only the mean is needed; here
the others are skipped, several at once: the next 13 bits determine how many coefficients they hold in whole. Whatever
is unusual in the stream is left to libjpeg-turbo.
"""

import itertools
import struct

import numpy as np

from ribcage.imaging.jpeg_scan import SEQUENTIAL, read_scan
from ribcage.runtime.compiling import compiled, is_numba_installed

AHEAD = 13
"""Bits that are looked up together; the table of 16 kB stays in the fastest cache of the processor."""
LAST = 1 << 11
"""In that table: the block ends within these bits."""
OPENCV_FIRST = 100
"""JPEGs of a process that are left to OpenCV first: it decodes about as many while the compiled loop is loaded."""
_number = itertools.count()


def is_worthwhile() -> bool:
    """Whether this process has decoded so many JPEGs that the compiled loop should be loaded; counts this one."""
    return next(_number) >= OPENCV_FIRST and is_numba_installed()


def decode_block_means(data: bytes) -> np.ndarray | None:
    """(H / 8, W / 8) uint8, both rounded up; None if the JPEG is not a plain one that can be decoded here."""
    try:
        scan = read_scan(data)
    except (ValueError, struct.error, IndexError):
        return None
    complete = any(codes[-1] for codes in (scan.dc[0], scan.ac))  # a code of ones alone, which JPEG forbids
    if scan.kind not in SEQUENTIAL or scan.bits != 8 or scan.interval or complete:
        return None
    coded = np.frombuffer(data + b"\xff\xd9\0\0", np.uint8)
    pixels = np.empty((-(-scan.height // 8), -(-scan.width // 8)), np.uint8)
    decode = compiled(_decode_means)
    done = decode(coded, scan.start, scan.dc[0], scan.ac, _skips(scan.ac), int(scan.quantisers[0]), pixels)
    return pixels if done else None


def _skips(ac: np.ndarray) -> np.ndarray:
    """(8192,) uint16: for each value of the next 13 bits, how many bits the coefficients take that lie in them in
    whole, + 32 * the number of coefficients, + LAST if the block ends with them."""
    values = np.arange(1 << AHEAD)
    code = ac[values << (16 - AHEAD)].astype(np.int64)
    length, run, size = code >> 8, (code & 255) >> 4, code & 15
    ends = (size == 0) & (run < 15)
    taken, passed = length + size, np.where(ends, 0, run + 1)
    known = (length > 0) & (taken <= AHEAD)
    bits, count, last = np.zeros_like(values), np.zeros_like(values), np.zeros(len(values), bool)
    going = known
    while going.any():
        following = (values << bits) & (len(values) - 1)
        going = going & known[following] & (bits + taken[following] <= AHEAD) & (count + passed[following] < 63)
        last |= going & ends[following]
        bits += np.where(going, taken[following], 0)
        count += np.where(going, passed[following], 0)
        going = going & ~last
    return (bits + 32 * count + LAST * last).astype(np.uint16)


def _decode_means(
    coded: np.ndarray, at: int, dc: np.ndarray, ac: np.ndarray, skips: np.ndarray, step: int, pixels: np.ndarray
) -> bool:  # pragma: no cover
    """T.81 F.2: `word` ends in the next `have` bits. `coded` ends with a marker and two bytes."""
    word, direct, missing = np.int64(0), np.int64(0), 0
    have: int | np.int64 = 0
    for y in range(pixels.shape[0]):
        for x in range(pixels.shape[1]):
            k: int | np.int64 = 0
            while k < 64:
                if have < 32:
                    following = np.int64(coded[at]) << 24 | np.int64(coded[at + 1]) << 16
                    following |= np.int64(coded[at + 2]) << 8 | np.int64(coded[at + 3])
                    if (0xFEFEFEFE - following) & following & 0x80808080:  # one of the bytes is FF
                        following = np.int64(0)
                        for _ in range(4):
                            byte = np.int64(coded[at])
                            if byte < 255:
                                at += 1
                            elif coded[at + 1] == 0:  # byte stuffing
                                at += 2
                            else:  # a marker
                                byte = np.int64(0)
                                missing += 8
                            following = following << 8 | byte
                        if missing > 64:
                            return False
                    else:
                        at += 4
                    word, have = word << 32 | following, have + 32
                if k > 0:
                    skip = np.int64(skips[(word >> (have - AHEAD)) & ((1 << AHEAD) - 1)])
                    if skip and k + ((skip >> 5) & 63) < 64:
                        have -= skip & 31
                        k = 64 if skip & LAST else k + ((skip >> 5) & 63)
                        continue
                ahead = (word >> (have - 16)) & 0xFFFF
                code = np.int64(dc[ahead] if k == 0 else ac[ahead])
                length, run, size = code >> 8, (code & 255) >> 4, code & 15
                if length == 0 or (k == 0 and run > 0):
                    return False
                have -= length + size
                if k == 0:
                    if size > 0:
                        value = (word >> have) & ((1 << size) - 1)
                        direct += value if value >> (size - 1) else value - (1 << size) + 1
                    k = 1
                elif size == 0 and run < 15:
                    k = 64
                else:
                    k += run + 1
            mean = (direct * step + 4) >> 3
            if k > 64 or not -512 <= mean < 512 or not -32768 <= direct < 32768:  # beyond libjpeg's tables
                return False
            pixels[y, x] = min(max(mean + 128, 0), 255)
    return bool(have >= missing)
