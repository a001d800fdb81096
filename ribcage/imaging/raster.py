"""PNG, JPEG, TIFF and BMP → one gray image; and the types that every reader of images shares.

Sizes are read from the header and checked before anything is decoded, a file that ends too early is refused and never
half read, and the type is told by the first bytes, never by the name.
"""

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import cv2
import numpy as np

from ribcage.imaging import jpeg_markers
from ribcage.runtime.terminal import quiet_codecs

Depth = Literal[8, 16]
CAUTION = "caution: "
"""How a note begins that whoever uses the image should see: it may not be what it seems."""

# OpenCV describes every bad file on stderr; here the one line of UnreadableError says it.
if hasattr(cv2, "setLogLevel"):  # OpenCV 4
    cv2.setLogLevel(0)
else:
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


class UnreadableError(ValueError):
    """This is not an image that can be read; the reason is one line."""

    def __init__(self, reason: str) -> None:
        line = " ".join(reason.split())
        super().__init__("".join(letter if letter.isprintable() else "?" for letter in line))


@dataclass(frozen=True)
class Limits:
    """What a file may ask for before it is refused."""

    max_pixels: float = 100e6
    max_bytes: float = 512e6
    max_aspect: float = 100.0
    """Longer side over shorter side."""

    def check_bytes(self, name: str, count: int) -> None:
        """Refuse an empty file and one that is too large."""
        if count == 0:
            raise UnreadableError(f"{name} is empty.")
        if count > self.max_bytes:
            raise UnreadableError(f"{name} has {count / 1e6:,.0f} MB; the limit is {self.max_bytes / 1e6:,.0f} MB.")

    def check_size(self, name: str, width: int, height: int) -> None:
        """Refuse an image of no pixels, too many, or of an absurd shape."""
        if width < 1 or height < 1:
            raise UnreadableError(f"{name} says it has {width} x {height} pixels.")
        if width * height > self.max_pixels:
            raise UnreadableError(
                f"{name} says it has {width} x {height} pixels; the limit is {self.max_pixels / 1e6:,.0f} million."
            )
        if max(width, height) > self.max_aspect * min(width, height):
            raise UnreadableError(f"{name} has {width} x {height} pixels, which is a line, not a radiograph.")


@dataclass(frozen=True)
class GrayImage:
    """A gray image that spans its dtype's range, dark where the radiograph shows air."""

    pixels: np.ndarray
    """(H, W) uint8 or uint16. When it was decoded reduced, it still spans the whole image exactly."""
    width: int
    height: int
    """Of the file's own image as a person sees it (EXIF orientation applied), before any reduction."""
    notes: tuple[str, ...] = ()
    """What was done to it."""
    tags: dict[str, str] = field(default_factory=dict)
    """DICOM only: patient, study, view, sex, age, manufacturer, modality, body, transfer_syntax."""


@dataclass(frozen=True)
class Header:
    """What a file says of itself, in the orientation in which it is stored."""

    width: int
    height: int
    what: str
    """How it stores a pixel, for the notes: gray, palette, RGB, RGBA, …"""
    orientation: int = 1
    """EXIF orientation, 1 … 8."""
    inverted: bool = False
    """White is zero, and OpenCV leaves it so."""
    notes: tuple[str, ...] = ()
    flags: int = cv2.IMREAD_UNCHANGED
    """How OpenCV must decode it."""
    file: bytes | None = None
    """What it must decode where that is not the file as it is."""


# 10- to 14-bit detectors are often saved unscaled in 16 bits; a scaled radiograph never leaves its top two bits empty.
FEW_BITS = 14

MIDDLE = 128  # what libjpeg makes of coded pixels that are missing
PNG, JPEG, BMP = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"BM"
TIFF = (b"II*\0", b"MM\0*")
# What people most often have instead of an image: (where, what the bytes are, what it is).
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


def recognised(data: bytes) -> bool:
    """Whether the first bytes are those of a format that `decode` reads."""
    return data.startswith((PNG, JPEG, BMP, *TIFF))


def decode(
    data: bytes, name: str, *, depth: Depth, min_side: int | None, limits: Limits, bits: int | None = None
) -> GrayImage:
    """The image in these bytes; `name` is how errors call it, `bits` how many of 16 hold the image."""
    header = _header(data, name, limits)
    pixels, notes = _decoded(data, name, header, min_side, limits)
    width, height = header.width, header.height
    if header.orientation != 1:
        pixels, notes = oriented(pixels, header.orientation), [*notes, f"turned (EXIF {header.orientation})"]
    if header.orientation >= 5:
        width, height = height, width
    if bits is not None and pixels.dtype == np.uint16 and (most := int(pixels.max())) >> bits:
        raise UnreadableError(f"{name} holds the value {most}, but {bits} bits end at {(1 << bits) - 1}.")
    pixels, told = to_depth(pixels, depth, bits)
    return GrayImage(pixels, width, height, (*notes, *told))


def decode_jpeg(data: bytes, name: str, *, min_side: int | None, limits: Limits) -> tuple[np.ndarray, list[str]]:
    """The gray levels of a JPEG that is part of another file, as it is stored there, and what was done for them."""
    return _decoded(data, name, _header(data, name, limits), min_side, limits)


def _decoded(
    data: bytes, name: str, header: Header, min_side: int | None, limits: Limits
) -> tuple[np.ndarray, list[str]]:
    limits.check_size(name, header.width, header.height)
    # JPEG stores blocks of 8 x 8 frequencies, so 1/2, 1/4 and 1/8 of the size need only the low ones.
    factor = _reduction(header, min_side) if data.startswith(JPEG) else 1
    colours = _stored(data, name, header, factor)
    unfinished = _unfinished(data, name, header, colours, factor) if data.startswith(JPEG) else []
    pixels, notes = gray(colours, header.what)
    notes += unfinished
    if header.inverted:
        pixels, notes = np.bitwise_not(pixels), [*notes, "inverted (white is zero)"]
    if factor > 1:
        pixels = _spanning(pixels, header.width / factor, header.height / factor)
    return pixels, [*notes, *header.notes]


def _unfinished(data: bytes, name: str, header: Header, pixels: np.ndarray, factor: int) -> list[str]:
    """Refuse a JPEG whose coded pixels end before the image does, though it has an end marker.

    OpenCV's decoder fills the rest with its middle gray and says nothing. So only images that end in that gray need a
    closer look; ours does not read colours, and then that is noted."""
    side = max(1, 8 // factor)
    last = pixels[-(((header.height - 1) % 8) // factor + 1) :, -(((header.width - 1) % 8) // factor + 1) :]
    if last.shape[0] > side or not (last == MIDDLE).all():
        return []
    from ribcage.imaging import medical_jpeg

    if header.what != "gray" or not medical_jpeg.readable(data):
        return [f"{CAUTION}the JPEG ends in the gray that stands for missing pixels"]
    try:
        medical_jpeg.decode(medical_jpeg.repaired(data)[0])
    except ValueError:
        raise UnreadableError(f"{name} is cut short: its coded pixels end before the image does.") from None
    return []


def gray(pixels: np.ndarray, what: str) -> tuple[np.ndarray, list[str]]:
    """One channel of (H, W), (H, W, 3) BGR or (H, W, 4) BGRA, and what had to be done for it."""
    if pixels.ndim == 2:
        return pixels, []
    blue, green, red, *alpha = cv2.split(pixels)
    if cv2.norm(blue, green, cv2.NORM_INF) == 0 == cv2.norm(green, red, cv2.NORM_INF):
        one, notes = green, [] if what.startswith("gray") else [f"{what} that is gray"]
    else:
        one, notes = cv2.cvtColor(pixels[..., :3], cv2.COLOR_BGR2GRAY), [f"colour ({what}) made gray"]
    top = np.iinfo(pixels.dtype).max
    if alpha and cv2.minMaxLoc(alpha[0])[0] < top:
        one, notes = cv2.multiply(one, alpha[0], scale=1 / top), [*notes, "transparent parts made black"]
    return one, notes


def oriented(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """The image as a person sees it, from how the camera stored it (EXIF tag 274)."""
    if orientation >= 5:
        pixels = cv2.transpose(pixels)
    flip = {2: 1, 3: -1, 4: 0, 6: 1, 7: -1, 8: 0}.get(orientation)
    return pixels if flip is None else cv2.flip(pixels, flip)


def to_depth(pixels: np.ndarray, depth: Depth, bits: int | None = None) -> tuple[np.ndarray, list[str]]:
    """The same image in 8 or 16 bits; 0 and 2^bits - 1 (`bits` None: all that the type has) become black and white.

    What is white never depends on the image's own brightest pixel: two images of one detector stay comparable."""
    if pixels.dtype == np.uint8:
        return (pixels, []) if depth == 8 else (pixels.astype(np.uint16) * 257, ["8 bit to 16"])
    top, notes = (1 << (bits or 16)) - 1, []
    if bits is not None and bits < 16:
        notes = [f"{bits} bit stored in 16: 0-{top} made the whole range"]
    elif (used := int(pixels.max()).bit_length()) <= FEW_BITS:
        notes = [f"only {used} of 16 bits used, which is dark"]
    if depth == 8:
        return cv2.convertScaleAbs(pixels, alpha=255 / top), [*notes, "16 bit to 8"]
    return (pixels if top == 65535 else _stretched(pixels, top)), notes


def _stretched(pixels: np.ndarray, top: int) -> np.ndarray:
    table = np.rint(np.arange(top + 1) * (65535 / top)).astype(np.uint16)
    return np.take(table, pixels)


def _reduction(header: Header, min_side: int | None) -> int:
    if min_side is None:
        return 1
    return next((k for k in (8, 4, 2) if min(header.width, header.height) >= k * min_side), 1)


def _stored(data: bytes, name: str, header: Header, factor: int) -> np.ndarray:
    """Decoded, as it lies in the file (a TIFF: as it is seen), at 1/factor of its size."""
    reduced = {2: cv2.IMREAD_REDUCED_GRAYSCALE_2, 4: cv2.IMREAD_REDUCED_GRAYSCALE_4, 8: cv2.IMREAD_REDUCED_GRAYSCALE_8}
    flags = header.flags | reduced.get(factor, 0)
    if header.file is not None:
        data = header.file
    try:
        with quiet_codecs:
            pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise UnreadableError(f"{name} cannot be decoded ({error.err or error}).") from None
    if pixels is None:
        raise UnreadableError(f"{name} is damaged: its pixels cannot be decoded.")
    if pixels.shape[:2] != (-(-header.height // factor), -(-header.width // factor)):
        raise UnreadableError(f"{name} is damaged: its pixels do not have the size that it says.")
    if pixels.dtype not in (np.uint8, np.uint16):
        raise UnreadableError(f"{name} holds {pixels.dtype} pixels; 8 or 16 bit are expected.")
    return pixels


def _spanning(pixels: np.ndarray, width: float, height: float) -> np.ndarray:
    """Stretch a reduced image by less than a pixel, so that it ends where the file's image ends.

    The last block of a JPEG reaches beyond the edge when the side is no multiple of the factor."""
    high, wide = pixels.shape
    across, down = width / wide, height / high
    if across == down == 1:
        return pixels
    matrix = np.array([[across, 0, (across - 1) / 2], [0, down, (down - 1) / 2]])
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(pixels, matrix, (wide, high), flags=flags, borderMode=cv2.BORDER_REPLICATE)


# -- Headers ----------------------------------------------------------------------------------------------------------


def _header(data: bytes, name: str, limits: Limits) -> Header:
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
                raise UnreadableError(f"{name} is cut short: its {kind} header is incomplete.") from None
    raise UnreadableError(unknown(data, name))


def unknown(data: bytes, name: str) -> str:
    """What to say of a file that is no image."""
    for at, starts, what in OTHERS:
        if data[at : at + len(starts)].lower() == starts.lower():
            return f"{name} is {what}. Ribcage reads PNG, JPEG, TIFF, BMP and DICOM."
    # its bytes are not shown: a table may name any file, and errors are kept in rejected.csv
    return f"{name} is not an image of a known format. Ribcage reads PNG, JPEG, TIFF, BMP and DICOM."


def _png(data: bytes, name: str, limits: Limits) -> Header:
    """Every chunk up to IEND is there and has its checksum; libpng would print to stderr otherwise."""
    at, orientation = len(PNG), 1
    seen: dict[bytes, list[bytes]] = {}
    for _ in range(200_000):
        length, kind = struct.unpack_from(">I4s", data, at)
        body = memoryview(data)[at + 8 : at + 8 + length]
        if len(data) < at + 12 + length:
            raise UnreadableError(f"{name} is cut short: a PNG ends with IEND, this one in the middle of its data.")
        if zlib.crc32(body, zlib.crc32(kind)) != struct.unpack_from(">I", data, at + 8 + length)[0]:
            raise UnreadableError(f"{name} is damaged: a checksum of the PNG does not match.")
        if (not seen and kind != b"IHDR") or (kind == b"IEND" and b"IDAT" not in seen):
            raise UnreadableError(f"{name} is damaged: it is no complete PNG.")
        if kind == b"IEND":
            break
        if kind == b"acTL":
            raise UnreadableError(f"{name} is an animated PNG; one image is expected.")
        if kind == b"eXIf":
            orientation = _orientation(bytes(body))
        if kind in (b"IHDR", b"PLTE", b"tRNS", b"IDAT"):
            seen.setdefault(kind, []).append(bytes(body))
        at += 12 + length
    else:
        raise UnreadableError(f"{name} is a PNG of more than 200,000 pieces.")
    width, height, bits, colour, packing, filtering, interlaced = struct.unpack(">IIBBBBB", seen[b"IHDR"][0][:13])
    if bits not in _PNG_BITS.get(colour, ()) or packing or filtering or interlaced > 1:
        raise UnreadableError(f"{name} is damaged: its PNG header makes no sense.")
    what = {0: "gray", 2: "RGB", 3: "palette", 4: "gray with alpha", 6: "RGBA"}[colour]
    notes = ("a transparent colour ignored",) if b"tRNS" in seen and colour in (0, 2) else ()
    limits.check_size(name, width, height)
    return Header(width, height, what, orientation, notes=notes, file=_plain_png(seen, name))


_PNG_BITS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
_PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def _plain_png(seen: dict[bytes, list[bytes]], name: str) -> bytes:
    """The pixels alone, unpacked and known to be whole: of anything else that is odd, libpng prints to stderr."""
    head = seen[b"IHDR"][0]
    width, height, bits, colour, *_, interlaced = struct.unpack(">IIBBBBB", head[:13])
    passes = _PASSES if interlaced else ((0, 0, 1, 1),)
    sizes = [(-(-(width - x) // across), -(-(height - y) // down)) for x, y, across, down in passes]
    rows = [((wide * bits * _PNG_CHANNELS[colour] + 7) // 8 + 1, high) for wide, high in sizes if wide > 0 < high]
    expected = sum(length * high for length, high in rows)
    try:
        unpacked = zlib.decompressobj()
        pixels = unpacked.decompress(b"".join(seen[b"IDAT"]), expected)
        unpacked.decompress(unpacked.unconsumed_tail, 1)  # its checksum
    except zlib.error:
        raise UnreadableError(f"{name} is damaged: its pixels cannot be decoded.") from None
    at, flat = 0, np.frombuffer(pixels, np.uint8)
    for length, high in rows:
        if len(flat) < expected or flat[at : at + length * high : length].max() > 4:  # each row begins with its filter
            raise UnreadableError(f"{name} is damaged: rows of its pixels are missing or make no sense.")
        at += length * high
    parts = [(b"IHDR", head[:13])]
    if colour == 3:
        palette = seen.get(b"PLTE", [b""])[0]
        if not palette or len(palette) % 3 or len(palette) > 768:
            raise UnreadableError(f"{name} is damaged: it has no palette.")
        parts.append((b"PLTE", palette.ljust(3 << bits, b"\0")[: 3 << bits]))
        parts += [(b"tRNS", each[: 1 << bits]) for each in seen.get(b"tRNS", [])[:1] if each]
    parts += [(b"IDAT", zlib.compress(pixels, 0)), (b"IEND", b"")]
    return PNG + b"".join(_chunk(kind, body) for kind, body in parts)


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _jpeg(data: bytes, name: str, limits: Limits) -> Header:
    orientation, frame, scan = 1, None, 0
    for marker, body, at in jpeg_markers.segments(data):
        if marker == 0xE1 and body.startswith(b"Exif\0\0"):
            orientation = _orientation(body[6:])
        elif marker in jpeg_markers.FRAMES:
            frame = frame or (marker, *struct.unpack_from(">BHHB", body))
        scan = at
    if frame is None or marker != jpeg_markers.SCAN:
        raise UnreadableError(f"{name} is damaged: it is no complete JPEG.")
    kind, bits, height, width, channels = frame
    if bits != 8 or kind not in (0xC0, 0xC1, 0xC2, 0xC9, 0xCA):
        raise UnreadableError(f"{name} is a {bits}-bit or lossless JPEG; only ordinary 8-bit JPEGs can be read.")
    if data.rfind(b"\xff\xd9", scan) < 0:  # within the pixels FF is always followed by 00 or a restart
        raise UnreadableError(f"{name} is cut short: the JPEG has no end marker.")
    if (kind in (0xC2, 0xCA) or channels > 1) and data.count(b"\xff\xda", scan) > 100:  # each takes a whole pass
        raise UnreadableError(f"{name} is a JPEG of more than 100 scans.")
    flags = cv2.IMREAD_IGNORE_ORIENTATION | (cv2.IMREAD_GRAYSCALE if channels == 1 else cv2.IMREAD_COLOR)
    return Header(width, height, {1: "gray", 4: "CMYK"}.get(channels, "RGB"), orientation, flags=flags)


def _bmp(data: bytes, name: str, limits: Limits) -> Header:
    start, size = struct.unpack_from("<II", data, 10)
    width, height, _, bits = struct.unpack_from("<HHHH" if size == 12 else "<iiHH", data, 18)
    compression = 0 if size == 12 else struct.unpack_from("<I", data, 30)[0]
    height = abs(height)  # negative: the top row comes first
    if compression in (0, 3, 6) and len(data) < start + height * ((width * bits + 31) // 32 * 4):
        raise UnreadableError(f"{name} is cut short: rows of the BMP are missing.")
    what = "palette" if bits <= 8 else "RGB"
    return Header(width, height, what, flags=cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)


def _tiff(data: bytes, name: str, limits: Limits) -> Header:
    tags, following = _tiff_tags(data)
    if following:
        raise UnreadableError(f"{name} is a TIFF of several pages; one image is expected.")
    for places, lengths in ((273, 279), (324, 325)):
        strips = zip(tags.get(places, ()), tags.get(lengths, ()), strict=False)
        if any(start + length > len(data) for start, length in strips):
            raise UnreadableError(f"{name} is cut short: rows of the TIFF are missing.")
    width, height = (tags.get(tag, (0,))[0] for tag in (256, 257))
    bits, channels, kind, photometric = (tags.get(tag, (1,))[0] for tag in (258, 277, 339, 262))
    if kind != 1 or bits not in (1, 2, 4, 8, 16) or photometric not in (0, 1, 2, 3, 5, 6) or channels > 4:
        raise UnreadableError(f"{name} is a TIFF of an unusual kind; 8 or 16 bit, gray or RGB are expected.")
    what = {0: "gray", 1: "gray", 3: "palette", 5: "CMYK"}.get(photometric, "RGB")
    notes, orientation = [], tags.get(274, (1,))[0]
    if channels > {"gray": 1, "palette": 1, "CMYK": 4}.get(what, 3):
        notes.append(
            "an alpha channel left out" if what == "gray" else "an alpha channel applied: transparent is black"
        )
    if 2 <= orientation <= 8:  # OpenCV turns a TIFF itself
        notes.append(f"turned (EXIF {orientation})")
    if orientation >= 5:
        width, height = height, width
    flags = cv2.IMREAD_ANYDEPTH | (cv2.IMREAD_GRAYSCALE if what == "gray" else cv2.IMREAD_COLOR)
    # libtiff inverts 8-bit images whose white is zero, not 16-bit ones.
    return Header(width, height, what, flags=flags, inverted=photometric == 0 and bits == 16, notes=tuple(notes))


def _orientation(exif: bytes) -> int:
    """Of an EXIF block, which is a small TIFF; 1 (as stored) when it does not say or is damaged."""
    try:
        value = _tiff_tags(exif)[0].get(274, (1,))[0]
    except (struct.error, IndexError, UnreadableError):
        return 1
    return value if 1 <= value <= 8 else 1


def _tiff_tags(data: bytes) -> tuple[dict[int, tuple[int, ...]], int]:
    """The whole-number tags of the first directory, and where the next directory is (0: nowhere)."""
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
