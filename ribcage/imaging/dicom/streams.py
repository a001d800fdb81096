"""Compressed pixel data: the stream in a DICOM file and the properties it declares."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ribcage.imaging import jpeg_markers, jpeg_scan
from ribcage.imaging.dicom.layout import Layout
from ribcage.imaging.dicom.transfer_syntaxes import (
    JPEG_BASELINE,
    JPEG_EXTENDED,
    JPEG_LOSSLESS,
    PLUGINS,
    READ,
    RETIRED,
    RLE,
    syntax_name,
)
from ribcage.imaging.gray_image import Note, UnreadableError

if TYPE_CHECKING:
    from pydicom import Dataset

ITEM = b"\xfe\xff\x00\xe0"
"""First bytes of encapsulated pixel data."""
STREAMS = (b"\xff\xd8\xff", b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP  ")
"""First bytes of JPEG (also lossless and LS) and JPEG 2000."""
RUNS = b"\x40\0\0\0"
"""Offset of the first run-length segment: after the number of segments and fifteen offsets."""


@dataclass(frozen=True)
class Stream:
    """Properties that a compressed image declares itself."""

    kind: str
    """JPEG, 12-bit JPEG, lossless JPEG, JPEG-LS or JPEG 2000."""
    width: int
    height: int
    channels: int
    bits: int
    signed: bool | None = None
    """None: not declared by this kind."""
    rgb: bool | None = None
    """Whether the decoder returns red, green and blue; None: the header decides."""

    def __str__(self) -> str:
        sign = "" if self.signed is None else " signed" if self.signed else " unsigned"
        return f"{self.bits} bit{sign}"


def read_stream(dataset: "Dataset", layout: Layout, name: str) -> tuple[bytes, Stream, list[Note]]:
    """The compressed image, checked to be complete and of the size in the header, its description, and notes."""
    uid = layout.syntax
    if uid in RETIRED:
        raise UnreadableError(
            f"{name} is compressed as {syntax_name(uid)}, a retired transfer syntax for which there is no decoder."
        )
    if uid not in READ:
        raise UnreadableError(f"{name} stores its pixels as {syntax_name(uid)}, which is not supported.")
    frame = frame_bytes(dataset, layout, name).rstrip(b"\0")
    stream = describe_stream(frame)
    if stream is None:
        raise UnreadableError(f"{name} is damaged: its pixels are not a valid stream of {syntax_name(uid)}.")
    if b"\xff\xd9" not in frame[-64:]:
        raise UnreadableError(f"{name} is truncated: its compressed image has no end marker.")
    shape, coded = (layout.width, layout.height, layout.samples), (stream.width, stream.height, stream.channels)
    if coded != shape:
        raise UnreadableError(
            f"{name} declares the size (width, height, channels) {shape}, but its compressed image has the size "
            f"{coded}."
        )
    if not 1 <= stream.bits <= 16:
        raise UnreadableError(
            f"{name} has a compressed image with {stream.bits} bits per pixel; up to 16 bits were expected."
        )
    expected = _expected(uid)
    notes = (
        []
        if stream.kind in expected
        else [Note(f"a {stream.kind} stream, but the header declares {expected[0]}", caution=True)]
    )
    if stream.kind in ("JPEG", "12-bit JPEG"):
        frame, odd = jpeg_scan.repaired(frame)
        notes += [Note(odd, caution=True)] if odd else []
    return frame, stream, notes


def frame_bytes(dataset: "Dataset", layout: Layout, name: str) -> bytes:
    """The one compressed image, regardless of the offset table and the number of fragments."""
    parts = list(_items(dataset.PixelData))
    if not parts:
        raise UnreadableError(
            f"{name} declares its pixels as {syntax_name(layout.syntax)}, but they are not encapsulated."
        )
    if not _starts(parts[0], layout.syntax):  # the offset table, which some writers leave out
        parts = parts[1:]
    count = sum(_starts(part, layout.syntax) for part in parts)
    if count > 1:
        raise UnreadableError(f"{name} has {count} compressed images; one was expected.")
    return b"".join(parts)


def _items(data: bytes) -> Iterator[bytes]:
    at = 0
    while data[at : at + 4] == ITEM and len(data) >= at + 8:
        length = int.from_bytes(data[at + 4 : at + 8], "little")
        yield data[at + 8 : at + 8 + length]
        at += 8 + length


def _starts(part: bytes, syntax: str) -> bool:
    """Whether a compressed image begins here."""
    return part[4:8] == RUNS if syntax == RLE else part.startswith(STREAMS)


def _expected(uid: str) -> tuple[str, ...]:
    """The kinds of stream that a transfer syntax allows."""
    if uid in (JPEG_BASELINE, JPEG_EXTENDED):
        return ("JPEG", "12-bit JPEG")
    if uid in JPEG_LOSSLESS:
        return ("lossless JPEG",)
    return ("JPEG-LS",) if PLUGINS[uid][0] == "pyjpegls" else ("JPEG 2000",)


def describe_stream(frame: bytes) -> Stream | None:
    """The properties of a compressed image; None if it is not recognised."""
    try:
        return _described_jpeg(frame) if frame[:2] == b"\xff\xd8" else _described_jpeg2000(frame)
    except (struct.error, IndexError, ValueError):
        return None


def _described_jpeg(frame: bytes) -> Stream | None:
    rgb: bool | None = None
    for marker, body, _ in jpeg_markers.segments(frame):
        if marker == 0xE0 and body[:5] == b"JFIF\0":
            rgb = True if rgb is None else rgb  # JFIF allows only YCbCr colours, which the decoder converts
        elif marker == 0xEE and body[:5] == b"Adobe":
            rgb = True
        elif marker in jpeg_markers.FRAMES:
            bits, height, width, channels = struct.unpack_from(">BHHB", body)
            rgb = True if len(set(body[7::3])) > 1 else rgb  # the subsampled components are colour differences
            ordinary = bits == 8 and marker in (0xC0, 0xC1, 0xC2)
            kind = "JPEG" if ordinary else {0xC3: "lossless JPEG", 0xF7: "JPEG-LS"}.get(marker, "12-bit JPEG")
            return Stream(kind, width, height, channels, bits, rgb=rgb if ordinary else None)
    return None


def _described_jpeg2000(frame: bytes) -> Stream | None:
    """SIZ (ITU T.800 A.5.1) has the depth and sign of each component, COD (A.6.1) whether colours were transformed."""
    at = frame.index(b"\xff\x4f\xff\x51") + 8  # after the start of codestream and its size
    right, bottom, left, top = struct.unpack_from(">4I", frame, at)
    (channels,) = struct.unpack_from(">H", frame, at + 32)
    depths = set(frame[at + 34 : at + 34 + 3 * channels : 3])
    if len(depths) != 1:  # components of different depths
        return None
    (depth,) = depths
    coding = frame.find(b"\xff\x52", at)
    rgb = True if coding > 0 and channels == 3 and frame[coding + 8] == 1 else None
    return Stream("JPEG 2000", right - left, bottom - top, channels, (depth & 127) + 1, bool(depth >> 7), rgb)
