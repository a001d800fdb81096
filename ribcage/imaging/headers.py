"""Headers of PNG, JPEG, TIFF and BMP files: size, orientation and pixel format, checked before decoding.

A truncated file is refused, never partly read. The format follows from the first bytes, not from the file's name.
"""

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from ribcage.imaging import jpeg_markers, png_rows
from ribcage.imaging.gray_image import Limits, Note, UnreadableError

PNG, JPEG, BMP = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"BM"
TIFF = (b"II*\0", b"MM\0*")
# Common files that are not images: (offset, bytes at that place, description).
OTHERS = (
    (0, b"GIF8", "a GIF"),
    (8, b"WEBP", "a WebP image"),
    (0, b"\0\0\0\x0cjP  ", "a JPEG 2000 image"),
    (0, b"\xff\x4f\xff\x51", "a bare JPEG 2000 stream"),
    (0, b"II+\0", "a BigTIFF"),
    (0, b"MM\0+", "a BigTIFF"),
    (0, b"%PDF", "a PDF"),
    (0, b"PK\x03\x04", "a zip archive"),
    (0, b"\x1f\x8b", "gzip-compressed"),
    (0, b"\x93NUMPY", "a NumPy array"),
    (0, b"<!DOCTYPE", "a web page"),
    (0, b"<html", "a web page"),
    (0, b"version https://git-lfs", "a Git LFS pointer; fetch the real file with `git lfs pull`"),
)


@dataclass(frozen=True)
class Header:
    """Properties of an image file, in its stored orientation."""

    width: int
    height: int
    what: str
    """Kind of pixels, for the notes: gray, palette, RGB, RGBA, …"""
    orientation: int = 1
    """EXIF orientation, 1 … 8."""
    inverted: bool = False
    """White is zero, and OpenCV does not convert it."""
    notes: tuple[Note, ...] = ()
    flags: int = cv2.IMREAD_UNCHANGED
    """Flags for OpenCV's decoder."""
    file: bytes | None = None
    """Bytes to decode, if not the file itself."""
    pixels: np.ndarray | None = None
    """Decoded pixels, if the check of the file already decoded them."""

    @property
    def upright_size(self) -> tuple[int, int]:
        """(width, height) with the orientation applied."""
        return (self.height, self.width) if self.orientation >= 5 else (self.width, self.height)


def is_raster(data: bytes) -> bool:
    """Whether the first bytes are those of a format that `decode_raster` reads."""
    return data.startswith((PNG, JPEG, BMP, *TIFF))


def read_raster_header(data: bytes, name: str, limits: Limits) -> Header:
    """The header of a file that `is_raster` accepts."""
    readers: tuple[tuple[tuple[bytes, ...], str, Callable[[bytes, str, Limits], Header]], ...] = (
        ((PNG,), "PNG", _png),
        ((JPEG,), "JPEG", _jpeg),
        (TIFF, "TIFF", _tiff),
        ((BMP,), "BMP", _bmp),
    )
    for starts, kind, reader in readers:
        if data.startswith(starts):
            try:
                return reader(data, name, limits)
            except (struct.error, IndexError):
                raise UnreadableError(f"{name} is truncated: its {kind} header is incomplete.") from None
    raise UnreadableError(unknown_format(data, name))


def unknown_format(data: bytes, name: str) -> str:
    """Error message for a file that is not an image."""
    for at, starts, what in OTHERS:
        if data[at : at + len(starts)].lower() == starts.lower():
            return f"{name} is {what}. Ribcage reads PNG, JPEG, TIFF, BMP and DICOM."
    # its bytes are not shown: a table may name any file, and errors are stored in rejected.csv
    return f"{name} is not an image of a known format. Ribcage reads PNG, JPEG, TIFF, BMP and DICOM."


# -- PNG


def _png(data: bytes, name: str, limits: Limits) -> Header:
    """Check that every chunk up to IEND is there with its checksum; libpng would print to stderr otherwise."""
    at, orientation = len(PNG), 1
    seen: dict[bytes, list[bytes]] = {}
    for _ in range(200_000):
        length, kind = struct.unpack_from(">I4s", data, at)
        body = memoryview(data)[at + 8 : at + 8 + length]
        if len(data) < at + 12 + length:
            raise UnreadableError(f"{name} is truncated: the PNG ends before its IEND chunk.")
        if zlib.crc32(body, zlib.crc32(kind)) != struct.unpack_from(">I", data, at + 8 + length)[0]:
            raise UnreadableError(f"{name} is damaged: a checksum of the PNG does not match.")
        if (not seen and kind != b"IHDR") or (kind == b"IEND" and b"IDAT" not in seen):
            raise UnreadableError(f"{name} is damaged: it is not a complete PNG.")
        if kind == b"IEND":
            break
        if kind == b"acTL":
            raise UnreadableError(f"{name} is an animated PNG; one image was expected.")
        if kind == b"eXIf":
            orientation = _orientation(bytes(body))
        if kind in (b"IHDR", b"PLTE", b"tRNS", b"IDAT"):
            seen.setdefault(kind, []).append(bytes(body))
        at += 12 + length
    else:
        raise UnreadableError(f"{name} is a PNG with more than 200,000 chunks.")
    width, height, bits, colour, packing, filtering, interlaced = struct.unpack(">IIBBBBB", seen[b"IHDR"][0][:13])
    if bits not in _PNG_BITS.get(colour, ()) or packing or filtering or interlaced > 1:
        raise UnreadableError(f"{name} is damaged: its PNG header is invalid.")
    what = {0: "gray", 2: "RGB", 3: "palette", 4: "gray with alpha", 6: "RGBA"}[colour]
    notes = (Note("transparent colour ignored"),) if b"tRNS" in seen and colour in (0, 2) else ()
    limits.check_size(name, width, height)
    rows = _png_rows(seen, name)
    if what == "gray" and bits >= 8 and not interlaced and png_rows.is_worthwhile(width * height):
        pixels = png_rows.gray_levels(rows, width, height, bits)
        return Header(width, height, what, orientation, notes=notes, pixels=pixels)
    return Header(width, height, what, orientation, notes=notes, file=_plain_png(seen, rows, name))


_PNG_BITS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
_PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def _png_rows(seen: dict[bytes, list[bytes]], name: str) -> bytes:
    """The inflated rows of pixels, checked: none is missing, and each begins with a valid filter."""
    width, height, bits, colour, *_, interlaced = struct.unpack(">IIBBBBB", seen[b"IHDR"][0][:13])
    passes = _PASSES if interlaced else ((0, 0, 1, 1),)
    sizes = [(-(-(width - x) // across), -(-(height - y) // down)) for x, y, across, down in passes]
    rows = [((wide * bits * _PNG_CHANNELS[colour] + 7) // 8 + 1, high) for wide, high in sizes if wide > 0 < high]
    expected = sum(length * high for length, high in rows)
    try:
        unpacked = zlib.decompressobj()
        pixels = unpacked.decompress(b"".join(seen[b"IDAT"]), expected)
        unpacked.decompress(unpacked.unconsumed_tail, 1)  # the checksum
    except zlib.error:
        raise UnreadableError(f"{name} is damaged: its pixels cannot be decoded.") from None
    at, flat = 0, np.frombuffer(pixels, np.uint8)
    for length, high in rows:
        if len(flat) < expected or flat[at : at + length * high : length].max() > 4:
            raise UnreadableError(f"{name} is damaged: rows of pixels are missing or invalid.")
        at += length * high
    return pixels


def _plain_png(seen: dict[bytes, list[bytes]], rows: bytes, name: str) -> bytes:
    """A PNG of the checked rows of pixels alone: on any other oddity, libpng would print to stderr."""
    head = seen[b"IHDR"][0]
    bits, colour = head[8:10]
    parts = [(b"IHDR", head[:13])]
    if colour == 3:
        palette = seen.get(b"PLTE", [b""])[0]
        if not palette or len(palette) % 3 or len(palette) > 768:
            raise UnreadableError(f"{name} is damaged: it has no palette.")
        parts.append((b"PLTE", palette.ljust(3 << bits, b"\0")[: 3 << bits]))
        parts += [(b"tRNS", each[: 1 << bits]) for each in seen.get(b"tRNS", [])[:1] if each]
    parts += [(b"IDAT", zlib.compress(rows, 0)), (b"IEND", b"")]
    return PNG + b"".join(_chunk(kind, body) for kind, body in parts)


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


# -- JPEG, BMP and TIFF


def _jpeg(data: bytes, name: str, limits: Limits) -> Header:
    orientation, frame, scan = 1, None, 0
    for marker, body, at in jpeg_markers.segments(data):
        if marker == 0xE1 and body.startswith(b"Exif\0\0"):
            orientation = _orientation(body[6:])
        elif marker in jpeg_markers.FRAMES:
            frame = frame or (marker, *struct.unpack_from(">BHHB", body))
        scan = at
    if frame is None or marker != jpeg_markers.SCAN:
        raise UnreadableError(f"{name} is damaged: it is not a complete JPEG.")
    kind, bits, height, width, channels = frame
    if bits != 8 or kind not in (0xC0, 0xC1, 0xC2, 0xC9, 0xCA):
        raise UnreadableError(f"{name} is a {bits}-bit or lossless JPEG; an ordinary 8-bit JPEG was expected.")
    if data.rfind(b"\xff\xd9", scan) < 0:  # within the pixels, FF is always followed by 00 or a restart
        raise UnreadableError(f"{name} is truncated: the JPEG has no end marker.")
    if (kind in (0xC2, 0xCA) or channels > 1) and data.count(b"\xff\xda", scan) > 100:  # each scan takes a whole pass
        raise UnreadableError(f"{name} is a JPEG with more than 100 scans.")
    flags = cv2.IMREAD_IGNORE_ORIENTATION | (cv2.IMREAD_GRAYSCALE if channels == 1 else cv2.IMREAD_COLOR)
    return Header(width, height, {1: "gray", 4: "CMYK"}.get(channels, "RGB"), orientation, flags=flags)


def _bmp(data: bytes, name: str, limits: Limits) -> Header:
    start, size = struct.unpack_from("<II", data, 10)
    width, height, _, bits = struct.unpack_from("<HHHH" if size == 12 else "<iiHH", data, 18)
    compression = 0 if size == 12 else struct.unpack_from("<I", data, 30)[0]
    height = abs(height)  # negative: top row first
    if compression in (0, 3, 6) and len(data) < start + height * ((width * bits + 31) // 32 * 4):
        raise UnreadableError(f"{name} is truncated: rows of the BMP are missing.")
    what = "palette" if bits <= 8 else "RGB"
    return Header(width, height, what, flags=cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)


def _tiff(data: bytes, name: str, limits: Limits) -> Header:
    tags, following = _tiff_tags(data)
    if following:
        raise UnreadableError(f"{name} is a TIFF with several pages; one image was expected.")
    for places, lengths in ((273, 279), (324, 325)):
        strips = zip(tags.get(places, ()), tags.get(lengths, ()), strict=False)
        if any(start + length > len(data) for start, length in strips):
            raise UnreadableError(f"{name} is truncated: rows of the TIFF are missing.")
    width, height = (tags.get(tag, (0,))[0] for tag in (256, 257))
    bits, channels, kind, photometric = (tags.get(tag, (1,))[0] for tag in (258, 277, 339, 262))
    depths = (1, 4, 8, 16) if photometric == 3 else (1, 8, 16)  # 3: palette; OpenCV decodes no others
    if kind != 1 or bits not in depths or photometric not in (0, 1, 2, 3, 5, 6) or channels > 4:
        raise UnreadableError(
            f"{name} is a TIFF with an unsupported pixel format; greyscale or RGB with 8 or 16 bits was expected."
        )
    what = {0: "gray", 1: "gray", 3: "palette", 5: "CMYK"}.get(photometric, "RGB")
    notes, orientation = list[Note](), tags.get(274, (1,))[0]
    if channels > {"gray": 1, "palette": 1, "CMYK": 4}.get(what, 3):
        ignored = what == "gray"
        notes.append(Note(f"alpha channel {'ignored' if ignored else 'applied: transparent pixels became black'}"))
    if 2 <= orientation <= 8:  # OpenCV applies the orientation of a TIFF itself
        notes.append(Note(f"turned (EXIF {orientation})"))
    if orientation >= 5:
        width, height = height, width
    flags = cv2.IMREAD_ANYDEPTH | (cv2.IMREAD_GRAYSCALE if what == "gray" else cv2.IMREAD_COLOR)
    # libtiff inverts 8-bit images whose white is zero, but not 16-bit ones.
    return Header(width, height, what, flags=flags, inverted=photometric == 0 and bits == 16, notes=tuple(notes))


def _orientation(exif: bytes) -> int:
    """Orientation from an EXIF block, which is a small TIFF; 1 (as stored) if it is missing or damaged."""
    try:
        value = _tiff_tags(exif)[0].get(274, (1,))[0]
    except (struct.error, IndexError, UnreadableError):
        return 1
    return value if 1 <= value <= 8 else 1


def _tiff_tags(data: bytes) -> tuple[dict[int, tuple[int, ...]], int]:
    """The integer tags of the first directory, and the offset of the next directory (0: none)."""
    order = "<" if data[:2] == b"II" else ">"
    (at,) = struct.unpack_from(order + "I", data, 4)
    (count,) = struct.unpack_from(order + "H", data, at)
    tags = {}
    for entry in range(at + 2, at + 2 + 12 * count, 12):
        tag, kind, length = struct.unpack_from(order + "HHI", data, entry)
        size = _TIFF_BYTES.get(kind, 1) * length
        place = entry + 8 if size <= 4 else struct.unpack_from(order + "I", data, entry + 8)[0]
        if place + size > len(data):
            raise IndexError
        if kind in _TIFF_WHOLE and length:
            tags[tag] = struct.unpack_from(f"{order}{length}{_TIFF_WHOLE[kind]}", data, place)
    return tags, struct.unpack_from(order + "I", data, at + 2 + 12 * count)[0]


_TIFF_WHOLE = {1: "B", 3: "H", 4: "I"}
_TIFF_BYTES = {2: 1, 3: 2, 4: 4, 5: 8, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8}
