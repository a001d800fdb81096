"""JPEG pixels: a greyscale baseline JPEG, in about two thirds of the time that libjpeg-turbo takes.

The pixels equal those of libjpeg-turbo with its accurate integer transform, the default. One lookup decodes up to two
coefficients with their codes, and sixteen blocks are transformed side by side. Whatever is unusual in the stream is
left to libjpeg-turbo.
"""

import functools
import itertools
import struct
import sys

import numpy as np

from ribcage.imaging import jpeg_markers
from ribcage.imaging.jpeg_scan import AC, SCAN_END, SEQUENTIAL, ZIGZAG, huffman_codes, huffman_tables
from ribcage.runtime.compiling import compiled, is_numba_installed

AHEAD = 11
"""Bits that are looked up together: one or two codes, each with the bits of its coefficient."""
LARGEST = 1 << 14
"""Coefficients and intermediate results below this limit do not overflow in libjpeg-turbo's 16-bit registers."""
OPENCV_FIRST = 5_000
"""JPEGs of a process that are left to OpenCV first, because loading the compiled function takes about as long as it
saves on this number of JPEGs of 390 × 320 px."""
OUTSIDE = 127
"""A step that leads out of any block."""
LONGEST = 512
"""Zeros after the coded pixels: more than the bytes of one block, which are read before their number is checked."""
VALID = {0, 1, 2, 3, AC, AC + 1, AC + 2, AC + 3}
"""Numbers of quantisation tables (with 8 bits), DC tables and, + AC, AC tables."""
KNOWN_AFTER = 3
"""Uses of the same Huffman tables after which their lookup table is built: it takes as long as decoding an image."""
Level = np.int32
Count = int | np.int64
_number = itertools.count()


def is_worthwhile() -> bool:
    """Whether this process has decoded so many JPEGs that the compiled function should be loaded; counts this one."""
    return next(_number) >= OPENCV_FIRST and sys.byteorder == "little" and is_numba_installed()


def decode_gray(data: bytes) -> np.ndarray | None:
    """(H, W) uint8; None if the JPEG is not a plain one that can be decoded here."""
    try:
        header = _read_header(data)
        if header is None or next(_uses(*header[3])) < KNOWN_AFTER:
            return None
        height, width, quantisers, codes, start = header
        lookups = _lookups(*codes)
    except (ValueError, struct.error, IndexError):
        return None
    down, across = -(-height // 8), -(-width // 8)
    if down * across > 4 * len(data):  # a block takes at least two bits
        return None
    coded = np.frombuffer(data[start:] + b"\xff\xd9" + bytes(16), np.uint8)
    plain = np.zeros(len(coded) + LONGEST, np.uint8)
    pixels = np.empty((8 * down, across), np.uint64)
    decode = compiled(_decode)
    done = decode(coded, _words(coded), plain, _words(plain), *lookups, quantisers, NATURAL, pixels)
    return np.ascontiguousarray(pixels.view(np.uint8)[:height, :width]) if done else None


def _words(coded: np.ndarray) -> np.ndarray:
    """The eight bytes that begin at each byte, as one number."""
    return np.ndarray((len(coded) - 7,), np.uint64, coded.data, strides=(1,))


def _read_header(data: bytes) -> tuple[int, int, np.ndarray, tuple[bytes, bytes], int] | None:
    """Height, width, (256,) quantisation steps in the order of the stream (0 outside the block), the DC and AC codes,
    and the offset of the coded pixels."""
    frame, header, start = b"", b"", 0
    steps: dict[int, bytes] = {}
    codes: dict[int, bytes] = {}
    for marker, body, at in jpeg_markers.segments(data):
        if marker in SEQUENTIAL and not frame:
            frame = body
        elif marker == 0xDB and len(body) % 65 == 0:
            steps |= {body[k]: body[k + 1 : k + 65] for k in range(0, len(body), 65)}
        elif marker == 0xC4:
            codes |= huffman_tables(body)
        elif marker == jpeg_markers.SCAN:
            header, start = body, at + 4 + len(body)
        elif not (0xE0 <= marker <= 0xEF or marker == 0xFE):  # application data and comments
            return None
    bits, height, width, components, number, sampling, table = struct.unpack(">BHHBBBB", frame)
    if (bits, components, sampling) != (8, 1, 0x11) or len(header) != 6 or header[0] != 1 or header[1] != number:
        return None
    found = steps.get(table), codes.get(header[2] >> 4), codes.get(AC | header[2] & 15)
    if not all(found) or header[3:] != SCAN_END or not height or not width or {*steps, *codes} - VALID:
        return None
    step, dc, ac = (each or b"" for each in found)
    if max(dc[16:], default=0) > 15:
        return None
    return height, width, np.frombuffer(step + bytes(192), np.uint8).astype(np.int64), (dc, ac), start


@functools.lru_cache(maxsize=64)
def _uses(dc: bytes, ac: bytes) -> "itertools.count[int]":
    """Counts how often these tables were used."""
    return itertools.count()


@functools.lru_cache(maxsize=8)
def _lookups(dc: bytes, ac: bytes) -> tuple[np.ndarray, ...]:
    """(65536,) uint16 codes for DC and AC, and for AC the tables of `_coefficients`."""
    direct, other = huffman_codes(dc), huffman_codes(ac)
    if direct[-1] or other[-1]:
        raise ValueError("a code consists of ones alone, which JPEG forbids")
    return direct, other, *_coefficients(other)


def _coefficients(ac: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each value of the next 11 bits, the coefficients that lie in them in whole, at most two, as (2048,) int64:
    bits taken, + 2⁸ * first step, + 2¹⁶ * step in all, + 2²⁴ * second place, + 2³² * first value (16 bits),
    + 2⁴⁸ * second value; 0 if there is none. A step leads from a coefficient to the next that is not 0; the end of a
    block is a step of 64. Without a second coefficient, its place is outside the block. The second table, (2048,)
    uint8, holds the bits that the first coefficient takes."""
    values = np.arange(1 << AHEAD)
    code = ac[values << (16 - AHEAD)].astype(np.int64)
    length, run, size = code >> 8, (code & 255) >> 4, code & 15
    taken = length + size
    known = (length > 0) & (taken <= AHEAD)
    taken = np.where(known, taken, 0)
    coded = np.where(known, values >> (AHEAD - taken), 0) & ((1 << size) - 1)
    coefficient = np.where(coded >> np.maximum(size - 1, 0) == 0, coded - (1 << size) + 1, coded)
    last = (size == 0) & (run < 15)
    step = np.where(last, 64, run + 1)
    after = (values << taken) & ((1 << AHEAD) - 1)
    two = known & ~last & known[after] & (taken + taken[after] <= AHEAD)
    bits, steps = taken + two * taken[after], step + two * step[after]
    second, value = np.where(two, steps, OUTSIDE), two * coefficient[after]
    found = bits | step << 8 | steps << 16 | second << 24 | (coefficient & 0xFFFF) << 32 | value << 48
    return np.where(known, found, 0), taken.astype(np.uint8)


NATURAL = np.full(256, 64)
"""ZIGZAG, and 64 for coefficients outside the block."""
NATURAL[:64] = ZIGZAG


def _decode(
    coded: np.ndarray,
    coded_words: np.ndarray,
    plain: np.ndarray,
    plain_words: np.ndarray,
    dc: np.ndarray,
    ac: np.ndarray,
    coefficients: np.ndarray,
    lengths: np.ndarray,
    steps: np.ndarray,
    natural: np.ndarray,
    pixels: np.ndarray,
) -> bool:  # pragma: no cover
    """T.81 F.2. `plain` becomes the coded pixels without stuffed bytes; `bits` begins with the next `have` of its bits.
    `block` holds the coefficients of 16 blocks: the same coefficient of all, then the next."""

    def transformed(
        a: Level, b: Level, c: Level, d: Level, e: Level, f: Level, g: Level, h: Level, half: int, shift: int
    ) -> tuple[Level, Level, Level, Level, Level, Level, Level, Level]:
        """The inverse cosine transform of eight numbers in 13-bit fixed point: Loeffler et al. 1989, as in
        libjpeg-turbo's jidctint.c."""
        both = np.int32(np.int32(c + g) * 4433)
        third, second = np.int32(both - np.int32(g * 15137)), np.int32(both + np.int32(c * 6270))
        first, fourth = np.int32(np.int32(a + e) << 13), np.int32(np.int32(a - e) << 13)
        p, s = np.int32(first + second + half), np.int32(first - second + half)
        q, r = np.int32(fourth + third + half), np.int32(fourth - third + half)
        u, v, w, x = np.int32(h + b), np.int32(f + d), np.int32(h + d), np.int32(f + b)
        y = np.int32(np.int32(w + x) * 9633)
        u, v = np.int32(u * -7373), np.int32(v * -20995)
        w, x = np.int32(np.int32(w * -16069) + y), np.int32(np.int32(x * -3196) + y)
        h, f = np.int32(np.int32(h * 2446) + u + w), np.int32(np.int32(f * 16819) + v + x)
        d, b = np.int32(np.int32(d * 25172) + v + w), np.int32(np.int32(b * 12299) + u + x)
        return (
            np.int32(np.int32(p + b) >> shift), np.int32(np.int32(q + d) >> shift),
            np.int32(np.int32(r + f) >> shift), np.int32(np.int32(s + h) >> shift),
            np.int32(np.int32(s - h) >> shift), np.int32(np.int32(r - f) >> shift),
            np.int32(np.int32(q - d) >> shift), np.int32(np.int32(p - b) >> shift),
        )  # fmt: skip

    def packed(a: Level, b: Level, c: Level, d: Level) -> np.uint32:
        """Four gray levels in one number."""
        one, two = min(max(int(a) + 128, 0), 255), min(max(int(b) + 128, 0), 255)
        three, four = min(max(int(c) + 128, 0), 255), min(max(int(d) + 128, 0), 255)
        return np.uint32(np.uint32(one) | np.uint32(two) << 8 | np.uint32(three) << 16 | np.uint32(four) << 24)

    def refilled(bits: np.uint64, have: Count, word: np.uint64) -> np.uint64:
        """The bits with those of the next eight bytes after them."""
        one, two = np.uint64(0x00FF00FF00FF00FF), np.uint64(0x0000FFFF0000FFFF)
        word = (word & one) << np.uint64(8) | (word >> np.uint64(8)) & one  # the first byte becomes the highest
        word = (word & two) << np.uint64(16) | (word >> np.uint64(16)) & two
        return bits | (word << np.uint64(32) | word >> np.uint64(32)) >> np.uint64(have)

    at: Count = 0
    size = 0
    while True:  # ends at the marker that follows the coded pixels
        word = coded_words[at]
        if (~word - np.uint64(0x0101010101010101)) & word & np.uint64(0x8080808080808080) == 0:  # none of them is FF
            plain_words[size] = word
            at, size = at + 8, size + 8
            continue
        plain[size] = coded[at]
        at, size = at + 1, size + 1
        if coded[at - 1] == 255:
            if coded[at] != 0:  # a marker
                break
            at += 1
    size -= 1
    plain[size] = 0

    at, have = 0, np.int64(0)
    bits, direct = np.uint64(0), np.int64(0)
    block, sums, line = np.zeros(1040, np.int32), np.empty(1024, np.int32), np.empty(16, np.uint64)
    places = np.empty(16, np.int64)
    across, values = pixels.shape[1], pixels.reshape(-1)
    total = pixels.shape[0] // 8 * across
    for number in range(total):
        lane = number & 15
        bits = refilled(bits, have, plain_words[at])
        at, have = at + ((63 - have) >> 3), have | 56
        code = np.int64(dc[bits >> np.uint64(48)])
        length, width = code >> 8, code & 255
        if length == 0 or width > 15:
            return False
        bits, have = bits << np.uint64(length), have - length - width
        value = np.int64(bits >> np.uint64(63 - width) >> np.uint64(1))
        bits = bits << np.uint64(width)
        value -= ((1 << width) - 1) * (value << 1 >> width == 0)  # without a branch, which could not be predicted
        direct += value
        level = direct * steps[0]
        if not -LARGEST < level < LARGEST:
            return False
        block[lane] = level
        k = np.int64(0)
        while k < 63:
            bits = refilled(bits, have, plain_words[at])
            at, have = at + ((63 - have) >> 3), have | 56
            for _ in range(5):  # 55 bits at most
                found = coefficients[bits >> np.uint64(64 - AHEAD)]
                if found == 0:  # a longer code, for which there may not be enough bits
                    bits = refilled(bits, have, plain_words[at])
                    at, have = at + ((63 - have) >> 3), have | 56
                    code = np.int64(ac[bits >> np.uint64(48)])
                    length, run, width = code >> 8, (code & 255) >> 4, code & 15
                    if length == 0:
                        return False
                    bits, have = bits << np.uint64(length), have - length - width
                    value = np.int64(bits >> np.uint64(63 - width) >> np.uint64(1))
                    bits = bits << np.uint64(width)
                    value -= ((1 << width) - 1) * (value << 1 >> width == 0)
                    k += 64 if width == 0 and run < 15 else run + 1
                    if k > 63 and width > 0:
                        return False
                    block[natural[np.uint64(k)] * 16 + lane] = value * steps[np.uint64(k)]
                    break
                before, taken = bits, found & 255
                bits, have = bits << np.uint64(taken), have - taken
                first, second = k + ((found >> 8) & 255), k + ((found >> 24) & 255)
                value = np.int64(np.int16(found >> 32))
                block[natural[np.uint64(second)] * 16 + lane] = (found >> 48) * steps[np.uint64(second)]
                block[natural[np.uint64(first)] * 16 + lane] = value * steps[np.uint64(first)]
                k += (found >> 16) & 255
                if k >= 63:
                    if (first > 63 and value != 0) or (first < 63 < second and found >> 48 != 0):
                        return False
                    if first >= 63:  # if there is a second code, it is one of the next block
                        length = np.int64(lengths[before >> np.uint64(64 - AHEAD)])
                        bits, have = before << np.uint64(length), have + taken - length
                    break
        if at > size + 8:
            return False
        places[lane] = number // across * 8 * across + number % across
        if lane < 15 and number < total - 1:
            continue
        largest = np.int32(0)
        for i in range(1024):
            largest = max(largest, abs(block[i]))
        for i in range(8):
            for j in range(16):
                cell = i * 16 + j
                (
                    sums[cell], sums[cell + 128], sums[cell + 256], sums[cell + 384],
                    sums[cell + 512], sums[cell + 640], sums[cell + 768], sums[cell + 896],
                ) = transformed(
                    block[cell], block[cell + 128], block[cell + 256], block[cell + 384],
                    block[cell + 512], block[cell + 640], block[cell + 768], block[cell + 896], 1 << 10, 11,
                )  # fmt: skip
        for i in range(1024):
            largest = max(largest, abs(sums[i]))
        if largest >= LARGEST:
            return False
        for i in range(8):
            for j in range(16):
                cell = i * 128 + j
                a, b, c, d, e, f, g, h = transformed(
                    sums[cell], sums[cell + 16], sums[cell + 32], sums[cell + 48],
                    sums[cell + 64], sums[cell + 80], sums[cell + 96], sums[cell + 112], 1 << 17, 18,
                )  # fmt: skip
                line[j] = np.uint64(packed(a, b, c, d)) | np.uint64(packed(e, f, g, h)) << np.uint64(32)
            for j in range(lane + 1):
                values[places[j] + i * across] = line[j]
        for i in range(1024):
            block[i] = 0
    return bool(8 * at - have <= 8 * size)
