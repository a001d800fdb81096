"""JPEG markers: the segments of a JPEG stream before its first scan."""

import struct
from collections.abc import Iterator

SCAN = 0xDA
FRAMES = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}  # F7: JPEG-LS


def segments(data: bytes) -> Iterator[tuple[int, bytes, int]]:
    """Marker, content and offset of each segment of a JPEG's header, up to the first scan."""
    at, marker = 2, 0
    while marker != SCAN:
        while data[at : at + 2] == b"\xff\xff":  # fill bytes
            at += 1
        lead, marker, length = struct.unpack_from(">BBH", data, at)
        if lead != 0xFF or marker in (0, 0xD8, 0xD9) or length < 2:
            return
        yield marker, data[at + 4 : at + 2 + length], at
        at += 2 + length


def shape(data: bytes) -> tuple[int, int, int] | None:
    """Width, height and channels in the frame header of a JPEG, lossless JPEG or JPEG-LS."""
    for marker, body, _ in segments(data):
        if marker in FRAMES:
            height, width, channels = struct.unpack_from(">HHB", body, 1)
            return width, height, channels
    return None
