"""DICOM pixel data → the values that are stored, for one gray image; or its colours.

A compressed stream says itself how many bits it holds and, if it is JPEG 2000, of which sign. Where it contradicts the
header, the stream is followed and that is noted; where the pixels themselves contradict both, the reading whose
neighbouring pixels are alike is taken, since a misread bit or sign tears an image along every edge of its range.
"""

import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from ribcage.imaging import jpeg_markers, medical_jpeg, raster
from ribcage.imaging.dicom.elements import numbers
from ribcage.imaging.raster import CAUTION, Limits, UnreadableError

if TYPE_CHECKING:
    from pydicom import Dataset

IMPLICIT, EXPLICIT, BIG_ENDIAN = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"
DEFLATED, JPEG_BASELINE, RLE = "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.5"
UNCOMPRESSED = (IMPLICIT, EXPLICIT, BIG_ENDIAN, DEFLATED)
JPEG_EXTENDED, JPEG_LOSSLESS = "1.2.840.10008.1.2.4.51", ("1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70")
# Which plugin of pydicom decodes what, and what must be installed for it. Named, since pydicom's own first choice
# (GDCM) corrupts memory on some damaged files.
PLUGINS = {
    RLE: ("pydicom", ""),
    **dict.fromkeys((f"1.2.840.10008.1.2.4.{n}" for n in (80, 81)), ("pyjpegls", "pyjpegls")),
    **dict.fromkeys(
        (f"1.2.840.10008.1.2.4.{n}" for n in (90, 91, 201, 202, 203)), ("pylibjpeg", "pylibjpeg pylibjpeg-openjpeg")
    ),
}
# Those that pydicom has no name for.
NEWER = {
    "1.2.840.10008.1.2.4.110": "JPEG XL Lossless",
    "1.2.840.10008.1.2.4.111": "JPEG XL JPEG Recompression",
    "1.2.840.10008.1.2.4.112": "JPEG XL",
    "1.2.840.10008.1.2.8.1": "Deflated Image Frame Compression",
}
RETIRED = tuple(f"1.2.840.10008.1.2.4.{n}" for n in (*range(52, 57), *range(58, 67)))
READ = (*UNCOMPRESSED, JPEG_BASELINE, JPEG_EXTENDED, *JPEG_LOSSLESS, *PLUGINS)
# Another reading of the pixels is only taken when its neighbours differ by less than this share of what they differ by
# in the reading that the file asks for.
SMOOTHER = 0.8
SAMPLED = 256
"""Rows and columns that are looked at for that."""
QUOTED = re.compile(r"""(?<!\w)b?(['"]).*?\1""")
ITEM = b"\xfe\xff\x00\xe0"
"""What encapsulated pixel data begin with."""
STREAMS = (b"\xff\xd8\xff", b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP  ")
"""What JPEG (also lossless and LS) and JPEG 2000 begin with."""
RUNS = b"\x40\0\0\0"
"""Where the first of the segments of run lengths begins: after the number of them and fifteen places."""
ADOBE_RGB = b"\xff\xee\x00\x0eAdobe\x00\x64" + bytes(5)
"""The segment that says that the components of a JPEG are red, green and blue."""


@dataclass(frozen=True)
class Layout:
    """How the header says that pixels are stored, contradictions in it settled."""

    syntax: str
    width: int
    height: int
    samples: int
    photometric: str
    allocated: int
    bits: int
    high: int
    signed: bool
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Stored:
    """The gray pixels as they are stored."""

    levels: np.ndarray
    """(H, W) uint8 or uint16: each pixel's place among the values that can be stored; 0 is the lowest."""
    bits: int
    signed: bool
    notes: tuple[str, ...] = ()

    @property
    def values(self) -> np.ndarray:
        """The stored value of each level."""
        count = 1 << self.bits
        return np.arange(count) - (count // 2 if self.signed else 0)

    @property
    def pixels(self) -> np.ndarray:
        """(H, W) int32: the stored values."""
        return self.levels.astype(np.int32) - ((1 << self.bits) // 2 if self.signed else 0)


@dataclass(frozen=True)
class Stream:
    """What a compressed image says of itself."""

    kind: str
    """JPEG, 12-bit JPEG, lossless JPEG, JPEG-LS or JPEG 2000."""
    width: int
    height: int
    channels: int
    bits: int
    signed: bool | None = None
    """None: this kind cannot say."""
    rgb: bool | None = None
    """Whether the decoder gives red, green and blue; None: that is for the header to say."""

    def __str__(self) -> str:
        sign = "" if self.signed is None else " signed" if self.signed else " unsigned"
        return f"{self.bits} bit{sign}"


# ---- what the header says


def layout(dataset: "Dataset", name: str, limits: Limits) -> Layout:
    """How the pixels are stored; one clear line for everything that is a DICOM, but no image that can be read."""
    if "PixelData" not in dataset:
        if "FloatPixelData" in dataset or "DoubleFloatPixelData" in dataset:
            raise UnreadableError(f"{name} has floating-point pixels; whole numbers of up to 16 bits are expected.")
        if not any(keyword in dataset for keyword in ("SOPClassUID", "Rows", "DirectoryRecordSequence")):
            raise UnreadableError(f"{name} is a damaged DICOM: its elements cannot be read.")
        what = getattr(dataset.get("SOPClassUID") or dataset.file_meta.get("MediaStorageSOPClassUID"), "name", "")
        raise UnreadableError(f"{name} has no pixels (its kind is {what or 'unknown'}).")
    missing = [key for key in ("Rows", "Columns", "BitsAllocated", "PixelData") if not dataset.get(key)]
    if missing:
        raise UnreadableError(f"{name} is a damaged DICOM: it has no {', '.join(missing)}.")
    frames = int((numbers(dataset, "NumberOfFrames") or [1])[0]) or 1  # an empty one is common
    if frames != 1:
        raise UnreadableError(f"{name} holds {frames} frames; one image is expected.")
    limits.check_size(name, int(dataset.Columns), int(dataset.Rows))
    notes: list[str] = []
    samples = int(dataset.get("SamplesPerPixel") or 1)
    photometric = _photometric(dataset, samples, notes)
    allocated = int(dataset.BitsAllocated)
    bits = int(dataset.get("BitsStored") or allocated)
    if allocated not in (8, 16) or not 1 <= bits <= allocated or samples not in (1, 3):
        raise UnreadableError(
            f"{name} stores {samples} x {bits} bits in {allocated} per pixel; "
            "one gray value or three colours of up to 16 bits are expected."
        )
    high = int(bits - 1 if dataset.get("HighBit") is None else dataset.HighBit)
    if not bits - 1 <= high < allocated:
        notes.append(f"{CAUTION}HighBit {high} contradicts {bits} stored bits of {allocated}, {bits - 1} taken")
        high = bits - 1
    sign = dataset.get("PixelRepresentation")
    if sign not in (None, "", 0, 1):
        raise UnreadableError(f"{name} has PixelRepresentation {sign}; 0 (unsigned) or 1 (signed) is expected.")
    return Layout(
        str(dataset.file_meta.TransferSyntaxUID), int(dataset.Columns), int(dataset.Rows), samples, photometric,
        allocated, bits, high, bool(sign), tuple(notes),
    )  # fmt: skip


def _photometric(dataset: "Dataset", samples: int, notes: list[str]) -> str:
    """The photometric interpretation, also where it is missing, misspelled or of another number of samples."""
    said = str(dataset.get("PhotometricInterpretation") or "").replace("\0", " ").strip().upper()
    known = "MONOCHROME" + said[-1:] if said.replace(" ", "")[:-1] == "MONOCHROME" else said
    gray, colour = ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR"), ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_RCT")
    if known in (gray if samples == 1 else (*colour, "YBR_ICT")):
        return known
    taken = "MONOCHROME2" if samples == 1 else "RGB"
    what = "missing" if not said else f"{said[:16]} with {samples} {'sample' if samples == 1 else 'samples'} per pixel"
    notes.append(f"{CAUTION}PhotometricInterpretation is {_plain(what)}, {taken} taken")
    return taken


def _plain(text: str) -> str:
    return "".join(letter if letter.isalnum() or letter in " _.,-" else "?" for letter in text)


# ---- gray


def stored(dataset: "Dataset", said: Layout, name: str, *, min_side: int | None, limits: Limits) -> Stored:
    """The values of a gray image. With `min_side` an ordinary JPEG comes reduced, as long as the shorter side keeps
    that many pixels."""
    if said.syntax in UNCOMPRESSED:
        return _unpacked(*_uncompressed(dataset, said, name), said, _has_overlay(dataset, said))
    if said.syntax == RLE:
        return _unpacked(_run_lengths(dataset, said, name), [], said, _has_overlay(dataset, said))
    frame, stream, notes = _stream(dataset, said, name)
    pixels = _decoded(frame, stream, said, name, min_side, limits)
    return replace(read := _settled(pixels, stream, said), notes=(*notes, *read.notes))


def _unpacked(patterns: np.ndarray, notes: Sequence[str], said: Layout, overlay: bool) -> Stored:
    """Uncompressed pixels: the stored bits among those allocated."""
    bits, shift = said.bits, said.high + 1 - said.bits
    used = _used(patterns) if patterns.itemsize * 8 > bits else 0
    asked = _read(patterns >> shift if shift else patterns, bits, said.signed)
    if shift and not used >> bits and used % (1 << shift) and not overlay:
        told = f"{CAUTION}HighBit {said.high} contradicts the pixels, which lie in the lowest {bits} bits"
        return replace(_read(patterns, bits, said.signed), notes=(*notes, told))
    if shift:
        return replace(asked, notes=(*notes, f"pixels taken from bits {shift} to {said.high}"))
    if not used >> bits or (said.signed and _extends(patterns, bits)):
        return replace(asked, notes=tuple(notes))
    if overlay:
        return replace(asked, notes=(*notes, f"an overlay above bit {bits - 1} left out"))
    other = _read(patterns, said.allocated, said.signed)
    if _smoothest(asked, other) is other:
        told = f"BitsStored {bits} contradicts the pixels, which use {used.bit_length()} bits"
    else:
        other, told = asked, f"bits above {bits - 1} are used and were left out"
    return replace(other, notes=(*notes, f"{CAUTION}{told}"))


def _used(patterns: np.ndarray) -> int:
    """All bits that occur."""
    return int(np.bitwise_or.reduce(patterns, axis=None))


def _settled(pixels: np.ndarray, stream: Stream, said: Layout) -> Stored:
    """The pixels of a compressed stream, read as the stream says; as the header says where the stream cannot."""
    shift = said.high + 1 - said.bits
    if shift and stream.bits == said.high + 1 and not stream.signed and not _used(pixels) % (1 << shift):
        told = f"pixels taken from bits {shift} to {said.high}"
        return replace(_read(pixels >> shift, said.bits, said.signed), notes=(told,))
    fewer = stream.bits > said.bits and _within(pixels, said.bits, bool(stream.signed))
    bits = said.bits if fewer else stream.bits
    if stream.signed:
        own = _valued(pixels, bits)
        other = _read(pixels.view(f"u{pixels.itemsize}"), stream.bits, signed=False)
        read = own if said.signed else _smoothest(own, other)
    elif not said.signed:
        read = _read(pixels, bits, signed=False)
    else:  # a negative value can only have been stored as its two's complement
        own, other = _read(pixels, bits, signed=False), _read(pixels, bits, signed=True)
        free = stream.signed is None and stream.kind in ("lossless JPEG", "JPEG-LS") and stream.bits == said.bits
        read = other if free else _smoothest(*((own, other) if stream.signed is False else (other, own)))
    if said.signed and read.signed and read.bits > said.bits and _within(read.pixels, said.bits, signed=True):
        read = _valued(read.pixels, said.bits)  # coded with their sign repeated above the bits that are stored
    if stream.bits == said.bits and read.signed == said.signed and stream.signed in (None, said.signed):
        return read
    same = read.bits == said.bits and read.signed == said.signed and stream.signed in (None, said.signed)
    if same and stream.kind == "12-bit JPEG":  # which holds 12 bits whatever is stored
        return read
    told = f"the {stream.kind} stream holds {stream}, the header says {_words(said.bits, said.signed)}"
    return replace(read, notes=(f"{'' if same else CAUTION}{told}; read as {_words(read.bits, read.signed)}",))


def _words(bits: int, signed: bool) -> str:
    return f"{bits} bit {'signed' if signed else 'unsigned'}"


def _read(patterns: np.ndarray, bits: int, signed: bool) -> Stored:
    """Patterns of bits as numbers."""
    levels = patterns if bits >= 8 * patterns.itemsize else patterns & patterns.dtype.type((1 << bits) - 1)
    if signed:
        levels = levels ^ levels.dtype.type(1 << (bits - 1))
    return Stored(levels, bits, signed)


def _valued(pixels: np.ndarray, bits: int) -> Stored:
    """Signed numbers as they are."""
    levels = (pixels.astype(np.int32) + (1 << (bits - 1))).astype(np.uint8 if bits <= 8 else np.uint16)
    return Stored(levels, bits, signed=True)


def _within(pixels: np.ndarray, bits: int, signed: bool) -> bool:
    """Whether all these values could have been stored in so many bits."""
    low, high = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)
    return bool(low <= int(pixels.min()) and int(pixels.max()) <= high)


def _extends(patterns: np.ndarray, bits: int) -> bool:
    """Whether the bits above those stored are zero or repeat their sign, in every pixel."""
    numbers = patterns.view(f"i{patterns.itemsize}")
    return bool(((patterns >> bits == 0) | (numbers >> (bits - 1) == -1)).all())


def _smoothest(asked: Stored, other: Stored) -> Stored:
    """The reading that was asked for, unless the other is much smoother."""
    return other if _roughness(other) < SMOOTHER * _roughness(asked) else asked


def _roughness(read: Stored) -> float:
    """Mean difference between neighbours."""
    high, wide = read.levels.shape
    rows = read.levels[:: max(1, high // SAMPLED)].astype(np.int32)
    columns = read.levels[:, :: max(1, wide // SAMPLED)].astype(np.int32)
    across, down = np.abs(np.diff(rows, axis=1)), np.abs(np.diff(columns, axis=0))
    return float(across.sum() / max(across.size, 1) + down.sum() / max(down.size, 1))


def _has_overlay(dataset: "Dataset", said: Layout) -> bool:
    """Whether the header says that unused bits of the pixels hold an overlay, as was usual long ago."""
    for group in range(0x6000, 0x6020, 2):
        place = dataset.get((group, 0x0102))
        if place is not None and isinstance(place.value, int) and not said.high - said.bits < place.value <= said.high:
            return True
    return False


# ---- decoding


def _uncompressed(dataset: "Dataset", said: Layout, name: str) -> tuple[np.ndarray, list[str]]:
    """(H, W) patterns of the allocated bits, and what was odd about them."""
    size = said.allocated // 8
    notes = _check_length(dataset, said.width * said.height * size, name)
    shape, count = (said.height, said.width), said.width * said.height
    swapped = said.syntax == BIG_ENDIAN
    if swapped and size == 1 and dataset["PixelData"].VR == "OW":  # bytes were swapped in pairs
        data = dataset.PixelData[: count + count % 2].ljust(count + count % 2, b"\0")
        return np.frombuffer(data, ">u2").astype("<u2").view("u1")[:count].reshape(shape), notes
    raw = np.frombuffer(dataset.PixelData, f"{'>' if swapped else '<'}u{size}", count=count)
    return raw.astype(f"u{size}", copy=False).reshape(shape), notes


def _check_length(dataset: "Dataset", expected: int, name: str) -> list[str]:
    """Refuse pixels that are cut short or compressed against what the header says; note what follows them."""
    data = dataset.PixelData
    if data[:4] == ITEM and data[8 + int.from_bytes(data[4:8], "little") :].startswith(ITEM):
        raise UnreadableError(f"{name} says that its pixels are not compressed, but they are encapsulated.")
    if len(data) < expected:
        raise UnreadableError(f"{name} is cut short: {len(data)} of {expected} bytes of pixels are there.")
    if len(data) >= 2 * expected and expected > 1:
        raise UnreadableError(
            f"{name} holds {len(data)} bytes of pixels where Rows, Columns, SamplesPerPixel and BitsAllocated say "
            f"{expected}: several images, or more bits than it says."
        )
    more = len(data) - expected
    return [f"{CAUTION}{more} bytes after the pixels left out"] if more > 1 else []  # an even length is the rule


def _run_lengths(dataset: "Dataset", said: Layout, name: str) -> np.ndarray:
    """(H, W) or (H, W, 3) patterns of the allocated bits."""
    from pydicom.encaps import encapsulate
    from pydicom.pixels import get_decoder

    frame, count = _frame(dataset, said, name), said.width * said.height * said.samples * said.allocated // 8
    if len(frame) > 2 * count + 1024:
        raise UnreadableError(f"{name} is damaged: its run lengths are more than its pixels.")
    how: dict[str, Any] = {"samples_per_pixel": said.samples, "photometric_interpretation": said.photometric}
    how |= {"rows": said.height, "columns": said.width, "bits_allocated": said.allocated, "number_of_frames": 1}
    how |= {"bits_stored": said.allocated, "pixel_representation": 0, "pixel_keyword": "PixelData"}
    how["planar_configuration"] = 0
    try:
        pixels = encapsulate([frame], has_bot=False)
        array = get_decoder(RLE).as_array(pixels, raw=True, decoding_plugin=PLUGINS[RLE][0], **how)[0]
    except Exception as error:
        raise UnreadableError(f"{name} is damaged: its run lengths cannot be decoded: {short(error)}.") from None
    return np.ascontiguousarray(array)


def _frame(dataset: "Dataset", said: Layout, name: str) -> bytes:
    """The one compressed image, whatever the offset table says and in however many fragments it lies."""
    parts = list(_items(dataset.PixelData))
    if not parts:
        raise UnreadableError(f"{name} says that its pixels are {_syntax(said.syntax)}, but they are not encapsulated.")
    if not _starts(parts[0], said.syntax):  # the offset table, which some writers leave out
        parts = parts[1:]
    count = sum(_starts(part, said.syntax) for part in parts)
    if count > 1:
        raise UnreadableError(f"{name} holds {count} compressed images; one is expected.")
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


def _stream(dataset: "Dataset", said: Layout, name: str) -> tuple[bytes, Stream, list[str]]:
    """The compressed image, once it is known to be whole and of the size that the header says; and what it is."""
    uid = said.syntax
    if uid in RETIRED:
        raise UnreadableError(f"{name} is compressed as {_syntax(uid)}, which DICOM has retired and nothing decodes.")
    if uid not in READ:
        raise UnreadableError(f"{name} stores its pixels as {_syntax(uid)}, which cannot be read.")
    frame = _frame(dataset, said, name).rstrip(b"\0")
    stream = described(frame)
    if stream is None:
        raise UnreadableError(f"{name} is damaged: its pixels are no stream of {_syntax(uid)}.")
    if b"\xff\xd9" not in frame[-64:]:
        raise UnreadableError(f"{name} is cut short: its compressed image has no end marker.")
    shape, coded = (said.width, said.height, said.samples), (stream.width, stream.height, stream.channels)
    if coded != shape:
        raise UnreadableError(f"{name} says (width, height, channels) {shape}, its compressed image {coded}.")
    if not 1 <= stream.bits <= 16:
        raise UnreadableError(f"{name} holds {stream.bits} bits per pixel in its stream; up to 16 are expected.")
    expected = _expected(uid)
    notes = [] if stream.kind in expected else [f"{CAUTION}a {stream.kind} stream where the header says {expected[0]}"]
    if stream.kind in ("JPEG", "12-bit JPEG"):
        frame, odd = medical_jpeg.repaired(frame)
        notes += [f"{CAUTION}{each}" for each in odd]
    return frame, stream, notes


def _expected(uid: str) -> tuple[str, ...]:
    """The kinds of stream that a transfer syntax may hold."""
    if uid in (JPEG_BASELINE, JPEG_EXTENDED):
        return ("JPEG", "12-bit JPEG")
    if uid in JPEG_LOSSLESS:
        return ("lossless JPEG",)
    return ("JPEG-LS",) if PLUGINS[uid][0] == "pyjpegls" else ("JPEG 2000",)


def _syntax(uid: str) -> str:
    """The name of a transfer syntax and its number."""
    from pydicom.uid import UID

    known = UID(uid).name
    return f"{NEWER.get(uid, 'an unknown transfer syntax') if known == uid else known} ({_plain(uid[:64])})"


def described(frame: bytes) -> Stream | None:
    """What a compressed image says of itself; None where it is none that is known."""
    try:
        return _described_jpeg(frame) if frame[:2] == b"\xff\xd8" else _described_jpeg2000(frame)
    except (struct.error, IndexError, ValueError):
        return None


def _described_jpeg(frame: bytes) -> Stream | None:
    told: bool | None = None
    for marker, body, _ in jpeg_markers.segments(frame):
        if marker == 0xE0 and body[:5] == b"JFIF\0":
            told = True if told is None else told  # JFIF has no other colours than YCbCr, which the decoder converts
        elif marker == 0xEE and body[:5] == b"Adobe":
            told = True
        elif marker in jpeg_markers.FRAMES:
            bits, height, width, channels = struct.unpack_from(">BHHB", body)
            told = True if len(set(body[7::3])) > 1 else told  # what is sampled less often is a colour difference
            ordinary = bits == 8 and marker in (0xC0, 0xC1, 0xC2)
            kind = "JPEG" if ordinary else {0xC3: "lossless JPEG", 0xF7: "JPEG-LS"}.get(marker, "12-bit JPEG")
            return Stream(kind, width, height, channels, bits, rgb=told if ordinary else None)
    return None


def _described_jpeg2000(frame: bytes) -> Stream | None:
    """SIZ (ITU T.800 A.5.1) has the depth and sign of each component, COD (A.6.1) whether colours were transformed."""
    at = frame.index(b"\xff\x4f\xff\x51") + 8  # start of codestream, then its size
    right, bottom, left, top = struct.unpack_from(">4I", frame, at)
    (channels,) = struct.unpack_from(">H", frame, at + 32)
    depths = set(frame[at + 34 : at + 34 + 3 * channels : 3])
    if len(depths) != 1:  # components of different depths
        return None
    (depth,) = depths
    coding = frame.find(b"\xff\x52", at)
    rgb = True if coding > 0 and channels == 3 and frame[coding + 8] == 1 else None
    return Stream("JPEG 2000", right - left, bottom - top, channels, (depth & 127) + 1, bool(depth >> 7), rgb)


def _decoded(frame: bytes, stream: Stream, said: Layout, name: str, min_side: int | None, limits: Limits) -> np.ndarray:
    """What the decoder of this stream gives: (H, W) or (H, W, 3) in whole numbers."""
    if stream.kind == "JPEG":
        return raster.decode_jpeg(frame, name, min_side=min_side, limits=limits)[0]
    try:
        if stream.kind in ("lossless JPEG", "12-bit JPEG"):
            pixels = medical_jpeg.decode(frame)
        elif stream.kind == "JPEG-LS":
            pixels = _jpeg_ls(frame, stream, said, name)
        else:
            pixels = _jpeg2000(frame, said, name)
    except (UnreadableError, MemoryError):
        raise
    except medical_jpeg.UnsupportedError as error:
        raise UnreadableError(f"{name} holds a {stream.kind} of a kind that cannot be read: {error}.") from None
    except Exception as error:
        what = f"{stream.kind} pixels cannot be decoded: {short(error)}"
        raise UnreadableError(f"{name} is damaged: its {what}.") from None
    if pixels.shape[:2] != (said.height, said.width):
        raise UnreadableError(f"{name} is damaged: its stream decodes to another size than it says.")
    return pixels if stream.bits > 8 or stream.signed else pixels.astype(np.uint8)


def _jpeg_ls(frame: bytes, stream: Stream, said: Layout, name: str) -> np.ndarray:
    try:
        import jpeg_ls
    except ImportError:
        raise _missing(said, name) from None
    data, told = jpeg_ls.decode_buffer(frame)
    flat = np.frombuffer(data, np.uint8 if told["bits_per_sample"] <= 8 else "<u2")
    shape = stream.height, stream.width
    if stream.channels == 1:
        return flat.reshape(shape)
    if told["interleave_mode"] == 0:
        return np.moveaxis(flat.reshape(stream.channels, *shape), 0, -1)
    return flat.reshape(*shape, stream.channels)


def _jpeg2000(frame: bytes, said: Layout, name: str) -> np.ndarray:
    try:
        import openjpeg
    except ImportError:
        raise _missing(said, name) from None
    return np.asarray(openjpeg.decode(frame))


def _missing(said: Layout, name: str) -> UnreadableError:
    package = PLUGINS.get(said.syntax, ("", "pyjpegls pylibjpeg pylibjpeg-openjpeg"))[1]
    return UnreadableError(f"{name} is compressed as {_syntax(said.syntax)}. To read it: pip install {package}")


# ---- colour


def colour(dataset: "Dataset", said: Layout, name: str, limits: Limits) -> tuple[np.ndarray, list[str]]:
    """(H, W, 3) BGR of a DICOM in colour, spanning its type, or (H, W) where its decoder makes it gray; and what was
    done and odd about it."""
    if said.photometric == "PALETTE COLOR":
        from pydicom.pixels import apply_color_lut

        read = stored(dataset, said, name, min_side=None, limits=limits)
        colours = apply_color_lut(read.pixels, dataset)[..., 2::-1]
        few = int(colours.max()) < 256 and colours.itemsize > 1  # bytes that are written as words
        said_bits = int(dataset.RedPaletteColorLookupTableDescriptor[2])
        told = [f"a palette says {said_bits} bits and uses 8: 8 bits taken"] if few and said_bits > 8 else []
        return _spanned(colours, 8 if few else 0), [*read.notes, *told]
    if said.syntax in UNCOMPRESSED:
        return _raw_colour(dataset, said, name)
    if said.syntax == RLE:
        return _spanned(_as_bgr(_run_lengths(dataset, said, name), said.photometric), said.bits), []
    frame, stream, notes = _stream(dataset, said, name)
    if stream.signed:
        raise UnreadableError(f"{name} has colours of signed numbers, which make no colour.")
    if stream.kind == "JPEG":
        if stream.rgb is None and said.photometric == "RGB":
            frame = frame[:2] + ADOBE_RGB + frame[2:]
        pixels, done = raster.decode_jpeg(frame, name, min_side=None, limits=limits)
        return pixels, [*notes, *done]
    pixels = _decoded(frame, stream, said, name, None, limits)
    if stream.bits != said.bits:
        notes.append(f"{CAUTION}the {stream.kind} stream holds {stream}, the header says {said.bits} bit")
    return _spanned(_as_bgr(pixels, "RGB" if stream.rgb else said.photometric), stream.bits), notes


def _raw_colour(dataset: "Dataset", said: Layout, name: str) -> tuple[np.ndarray, list[str]]:
    from pydicom.pixels import get_decoder

    if str(dataset.get("PhotometricInterpretation")).startswith("YBR_PARTIAL"):
        raise UnreadableError(f"{name} has YBR_PARTIAL colours that are not compressed, which DICOM has retired.")
    halved = said.photometric == "YBR_FULL_422"
    count = said.width * said.height * (2 if halved else 3)
    notes = _check_length(dataset, count * said.allocated // 8, name)
    planar = dataset.get("PlanarConfiguration")
    if planar not in (0, 1):
        notes.append(f"{CAUTION}PlanarConfiguration is missing, colours taken pixel by pixel")
        dataset.PlanarConfiguration = 0
    dataset.PhotometricInterpretation, dataset.SamplesPerPixel = said.photometric, said.samples
    dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = said.bits, said.high, 0
    pixels = get_decoder(said.syntax).as_array(dataset)[0]
    return _spanned(pixels[..., 2::-1], said.bits), notes


def _as_bgr(pixels: np.ndarray, photometric: str) -> np.ndarray:
    """Red, green, blue or luminance and two colour differences (PS3.3 C.7.6.3.1.2) as blue, green, red."""
    if photometric not in ("YBR_FULL", "YBR_FULL_422"):
        return pixels[..., 2::-1]
    return cv2.cvtColor(np.ascontiguousarray(pixels[..., (0, 2, 1)]), cv2.COLOR_YCrCb2BGR)


def _spanned(pixels: np.ndarray, bits: int) -> np.ndarray:
    """Colours of so many bits (0: all) spread over all that their type has."""
    pixels = np.ascontiguousarray(pixels)
    most = 8 * pixels.itemsize
    if not 0 < bits < most:
        return pixels
    top, whole = (1 << bits) - 1, (1 << most) - 1
    return np.rint(np.minimum(pixels, top) * (whole / top)).astype(pixels.dtype)


def short(error: Exception) -> str:
    """An error of a library in at most 160 characters, without what it quotes of the file."""
    text = QUOTED.sub("'…'", " ".join(str(error).split())) or type(error).__name__
    return text if len(text) <= 160 else text[:157] + "..."
