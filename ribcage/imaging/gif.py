"""GIF: reads the first image of a GIF file, in which masks are sometimes published.

The GIF 89a specification, https://www.w3.org/Graphics/GIF/spec-gif89a.txt. OpenCV cannot read GIF in all of its
versions.
"""

import struct
from collections.abc import Iterator

import numpy as np

from ribcage.imaging.gray_image import Limits, UnreadableError

START = b"GIF8"
EXTENSION, IMAGE = 0x21, 0x2C


def decode_gif(data: bytes, name: str, limits: Limits) -> np.ndarray:
    """(H, W) uint8: the green channel of the first image."""
    try:
        return _first_image(data, name, limits)
    except (IndexError, struct.error):
        raise UnreadableError(f"{name} is truncated: the GIF ends before its first image is complete.") from None


def _first_image(data: bytes, name: str, limits: Limits) -> np.ndarray:
    flags, at = data[10], 13
    palette = data[at : at + 3 * (2 << (flags & 7))] if flags & 0x80 else b""
    at += len(palette)
    while data[at] == EXTENSION:
        at = _after_blocks(data, at + 2)
    if data[at] != IMAGE:
        raise UnreadableError(f"{name} is damaged: the GIF contains no image.")
    left, top, width, height, flags = struct.unpack_from("<HHHHB", data, at + 1)
    limits.check_size(name, width, height)
    if (left, top, width, height) != (0, 0, *struct.unpack_from("<HH", data, 6)) or flags & 0x40:
        raise UnreadableError(
            f"{name} is a GIF that is interlaced or whose image does not fill the frame, which is not supported. "
            f"Convert it to PNG."
        )
    at += 10
    if flags & 0x80:
        palette = data[at : at + 3 * (2 << (flags & 7))]
        at += 3 * (2 << (flags & 7))
    blocks = []
    start = at + 1
    while length := data[start]:
        blocks.append(data[start + 1 : start + 1 + length])
        start += 1 + length
    indices = _decompressed(b"".join(blocks), data[at], width * height, name)
    levels = np.frombuffer(palette, np.uint8)[1::3]
    if not len(levels) or int(indices.max()) >= len(levels):
        raise UnreadableError(f"{name} is damaged: the GIF uses colours that are not in its palette.")
    return levels[indices].reshape(height, width)


def _decompressed(data: bytes, size: int, count: int, name: str) -> np.ndarray:
    """(count,) uint8 palette indices from the LZW codes of an image."""
    if not 2 <= size <= 8:
        raise UnreadableError(f"{name} is damaged: the GIF has an invalid code size.")
    found, length = list[bytes](), 0
    for sequence in _sequences(data, size, name):
        found.append(sequence)
        length += len(sequence)
        if length >= count:
            break
    if length < count:
        raise UnreadableError(f"{name} is truncated: the GIF has {length:,} of {count:,} pixels.")
    return np.frombuffer(b"".join(found)[:count], np.uint8)


def _sequences(data: bytes, size: int, name: str) -> Iterator[bytes]:
    """The palette indices of each LZW code, until the code that ends the image."""
    clear = 1 << size
    table, bits, previous = _start_table(clear), size + 1, b""
    buffer, filled = 0, 0
    for byte in data:
        buffer |= byte << filled
        filled += 8
        while filled >= bits:
            code = buffer & ((1 << bits) - 1)
            buffer >>= bits
            filled -= bits
            if code == clear:
                table, bits, previous = _start_table(clear), size + 1, b""
                continue
            if code == clear + 1:
                return
            if code > len(table) or (code == len(table) and not previous):
                raise UnreadableError(f"{name} is damaged: the GIF has an invalid code.")
            entry = table[code] if code < len(table) else previous + previous[:1]
            yield entry
            if previous and len(table) < 4096:
                table.append(previous + entry[:1])
                bits += len(table) == 1 << bits and bits < 12
            previous = entry


def _start_table(clear: int) -> list[bytes]:
    """The sequences of the first codes; the last two codes stand for no pixels."""
    return [bytes([index]) for index in range(clear)] + [b"", b""]


def _after_blocks(data: bytes, at: int) -> int:
    """Place after a chain of blocks, each of which begins with its length."""
    while data[at]:
        at += 1 + data[at]
    return at + 1
