"""JPEGs that only medicine uses and OpenCV cannot read: 12 bits (ITU T.81 extended sequential) and lossless.

Decoded in compiled loops that stay within their arrays for any input and release the GIL.
"""

import re
import struct
from collections.abc import Callable

import numpy as np

from ribcage.imaging.jpeg_scan import LOSSLESS, ZIGZAG, JpegScan, read_scan, repaired
from ribcage.runtime.compiling import compiled

# T.81 A.3.3: rows are the cosines of one frequency, so that block = COSINES.T @ coefficients @ COSINES.
COSINES = np.cos(np.outer(np.arange(8), 2 * np.arange(8) + 1) * np.pi / 16) / 2
COSINES[0] /= np.sqrt(2)
AHEAD = 12
"""Bits that are looked up first: few codes have more, and the table stays in the processor's fastest cache."""
MARKER = re.compile(rb"\xff([^\x00\xff])")


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
    return _lossless(scan, data) if scan.kind == LOSSLESS else _sequential(scan, data)


def _lossless(scan: JpegScan, data: bytes) -> np.ndarray:
    pixels = np.empty((scan.height, scan.width, len(scan.dc)), np.uint16)
    if scan.interval % scan.width:
        raise ValueError("the restart markers are misplaced")
    rows = scan.interval // scan.width or scan.height
    short, middle = _short_codes(scan.dc), 1 << (scan.bits - scan.shift - 1)
    decode_differences, add_predictions = compiled(_decode_differences), compiled(_add_predictions)

    def decode_rows(coded: np.ndarray, start: int, part: int) -> int:
        some = pixels[part * rows : (part + 1) * rows]
        end = int(decode_differences(coded, start, short, scan.dc, some))
        add_predictions(scan.first, middle, some)
        return end

    _decode_parts(data, scan.start, -(-scan.height // rows), decode_rows)
    if scan.shift:
        pixels <<= np.uint16(scan.shift)
    return pixels if len(scan.dc) > 1 else pixels[..., 0]


def _sequential(scan: JpegScan, data: bytes) -> np.ndarray:
    down, across = -(-scan.height // 8), -(-scan.width // 8)
    pixels = np.empty((down * 8, across * 8), np.uint16)
    count = scan.interval or down * across
    codes = np.stack([scan.dc[0], scan.ac])
    short, decode = _short_codes(codes), compiled(_decode_blocks)
    # the image of each coefficient of 1, in zigzag order
    images = np.einsum("k,ky,kx->kyx", scan.quantisers, COSINES[ZIGZAG >> 3], COSINES[ZIGZAG & 7])
    images = images.reshape(64, 64).astype(np.float32)

    def decode_blocks(coded: np.ndarray, start: int, part: int) -> int:
        first, last = part * count, min((part + 1) * count, down * across)
        return int(decode(coded, start, short, codes, images, scan.bits, first, last, pixels))

    _decode_parts(data, scan.start, -(-down * across // count), decode_blocks)
    return np.ascontiguousarray(pixels[: scan.height, : scan.width])


def _decode_parts(data: bytes, start: int, count: int, decode: Callable[[np.ndarray, int, int], int]) -> None:
    """Decode this many parts, with a restart marker between each of them and the next one."""
    coded = np.frombuffer(data, np.uint8)
    for part in range(count):
        end = decode(coded, start, part)
        if end < 0:
            raise ValueError("the coded pixels are incomplete or invalid")
        marker = MARKER.search(data, end)
        restart = marker is not None and 0xD0 <= marker[1][0] <= 0xD7
        if restart == (part == count - 1):
            raise ValueError("the restart markers are misplaced")
        start = marker.end() if marker else len(data)


def _short_codes(codes: np.ndarray) -> np.ndarray:
    """The codes by the next `AHEAD` bits instead of the next 16; 0 for longer ones."""
    short = codes[:, :: 1 << (16 - AHEAD)]
    return np.where(short >> 8 <= AHEAD, short, 0).astype(np.uint16)


def _decode_differences(
    coded: np.ndarray, at: int, short: np.ndarray, codes: np.ndarray, differences: np.ndarray
) -> int:  # pragma: no cover
    """T.81 H.1.2: the difference of each pixel from its prediction, modulo 65,536. Returns the offset of the first byte
    that was not read; -1 if the coded bits are too few or contain an invalid code."""
    height, width, components = differences.shape
    size = len(coded)
    # `word` ends in the next `have` bits; after the end of the coded bits, `lent` zeros are appended to it
    word, have, lent = np.int64(0), np.int64(0), np.int64(0)
    for y in range(height):
        for x in range(width):
            for c in range(components):
                if have < 32:
                    four = np.int64(0xFF)
                    if at + 4 <= size:
                        four = np.int64(coded[at]) << 24 | np.int64(coded[at + 1]) << 16
                        four |= np.int64(coded[at + 2]) << 8 | np.int64(coded[at + 3])
                    if (0xFEFEFEFE - four) & four & 0x80808080:  # one of the bytes is FF
                        four = np.int64(0)
                        for _ in range(4):
                            byte = np.int64(coded[at]) if at < size else np.int64(0)
                            following = coded[at + 1] if at + 1 < size else 0
                            if at >= size or (byte == 0xFF and 0 < following < 0xFF):  # the end, or a marker
                                byte = np.int64(0)
                                lent += 8
                            else:
                                at += 2 if byte == 0xFF and following == 0 else 1
                            four = four << 8 | byte
                        if lent > 64:
                            return -1
                    else:
                        at += 4
                    word = word << 32 | four
                    have += 32
                found = np.int64(short[c, (word >> (have - AHEAD)) & ((1 << AHEAD) - 1)])
                if found == 0:
                    found = np.int64(codes[c, (word >> (have - 16)) & 0xFFFF])
                length, bits = found >> 8, found & 255
                if length == 0 or bits > 16:
                    return -1
                extra = bits & 15  # a difference of 16 bits is always 32,768
                have -= length + extra
                value = (word >> have) & ((1 << extra) - 1)
                if value < (1 << extra) >> 1:
                    value -= (1 << extra) - 1
                if bits == 16:
                    value = np.int64(32768)
                differences[y, x, c] = np.uint16(value & 0xFFFF)
    return at if have >= lent else -1


def _add_predictions(predictor: int, middle: int, pixels: np.ndarray) -> None:  # pragma: no cover
    """T.81 H.1.2.1: each pixel is predicted from its neighbours; `pixels` holds the differences before."""
    height, width, components = pixels.shape
    for c in range(components):
        for y in range(height):
            corner = np.int64(pixels[y - 1, 0, c]) if y > 0 else np.int64(middle)
            left = (corner + np.int64(pixels[y, 0, c])) & 0xFFFF
            pixels[y, 0, c] = np.uint16(left)
            if y == 0 or predictor == 1:
                for x in range(1, width):
                    left = (left + np.int64(pixels[y, x, c])) & 0xFFFF
                    pixels[y, x, c] = np.uint16(left)
                continue
            for x in range(1, width):
                above = np.int64(pixels[y - 1, x, c])
                if predictor == 2:
                    expected = above
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
                left = (expected + np.int64(pixels[y, x, c])) & 0xFFFF
                pixels[y, x, c] = np.uint16(left)
                corner = above


def _decode_blocks(
    coded: np.ndarray,
    at: int,
    short: np.ndarray,
    codes: np.ndarray,
    images: np.ndarray,
    bits: int,
    first: int,
    last: int,
    pixels: np.ndarray,
) -> int:  # pragma: no cover
    """T.81 F.2: blocks of 8 x 8 coefficients, coded as runs of zeros and values. A block of pixels is the sum of the
    `images` of its coefficients, most of which are zero. In single precision, the sum of at most 64 terms
    is off by less than 0.02 (64 roundings of numbers below 8192). Returns the same as `_decode_differences`."""
    across, size = pixels.shape[1] // 8, len(coded)
    zero, top, middle = np.float32(0), np.float32((1 << bits) - 1), np.float32((1 << (bits - 1)) + 0.5)
    block, levels = np.zeros(64, np.float32), np.zeros(64, np.uint16)
    word, have, lent, direct = np.int64(0), np.int64(0), np.int64(0), np.int64(0)
    for number in range(first, last):
        k = np.int64(0)
        while k < 64:
            if have < 32:
                four = np.int64(0xFF)
                if at + 4 <= size:
                    four = np.int64(coded[at]) << 24 | np.int64(coded[at + 1]) << 16
                    four |= np.int64(coded[at + 2]) << 8 | np.int64(coded[at + 3])
                if (0xFEFEFEFE - four) & four & 0x80808080:  # one of the bytes is FF
                    four = np.int64(0)
                    for _ in range(4):
                        byte = np.int64(coded[at]) if at < size else np.int64(0)
                        following = coded[at + 1] if at + 1 < size else 0
                        if at >= size or (byte == 0xFF and 0 < following < 0xFF):  # the end, or a marker
                            byte = np.int64(0)
                            lent += 8
                        else:
                            at += 2 if byte == 0xFF and following == 0 else 1
                        four = four << 8 | byte
                    if lent > 64:
                        return -1
                else:
                    at += 4
                word = word << 32 | four
                have += 32
            kind = 1 if k > 0 else 0
            found = np.int64(short[kind, (word >> (have - AHEAD)) & ((1 << AHEAD) - 1)])
            if found == 0:
                found = np.int64(codes[kind, (word >> (have - 16)) & 0xFFFF])
            length, run, extra = found >> 8, (found & 255) >> 4, found & 15
            if length == 0 or (k == 0 and run > 0):
                return -1
            have -= length + extra
            value = (word >> have) & ((1 << extra) - 1)
            if value < (1 << extra) >> 1:
                value -= (1 << extra) - 1
            if k == 0:
                direct += value
                flat = middle + np.float32(direct) * images[0, 0]
                for i in range(64):
                    block[i] = flat
            else:
                if extra == 0 and run < 15:  # the rest of the block is zero
                    break
                k += run
                if k > 63:
                    return -1
                factor = np.float32(value)
                for i in range(64):
                    block[i] += factor * images[k, i]
            k += 1
        for i in range(64):
            levels[i] = np.uint16(np.int32(min(max(block[i], zero), top)))
        y0, x0 = number // across * 8, number % across * 8
        for y in range(8):
            for x in range(8):
                pixels[y0 + y, x0 + x] = levels[8 * y + x]
    return at if have >= lent else -1
