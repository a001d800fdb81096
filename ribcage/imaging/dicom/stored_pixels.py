"""DICOM pixel data → stored values of one gray image.

A compressed stream declares its own number of bits and, for JPEG 2000, its sign. Where it contradicts the header, the
stream is followed and a note says so. Where the pixels contradict both, the interpretation with the smoother image is
taken, since a misread bit or sign breaks an image along every edge of its range.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from ribcage.imaging.dicom.decoders import decode_stream, raw_patterns, run_length_patterns
from ribcage.imaging.dicom.layout import Layout
from ribcage.imaging.dicom.streams import Stream, read_stream
from ribcage.imaging.dicom.transfer_syntaxes import RLE, UNCOMPRESSED
from ribcage.imaging.gray_image import CAUTION, Limits

if TYPE_CHECKING:
    from pydicom import Dataset

# Another interpretation of the pixels is only taken when the mean difference of neighbours is below this share of that
# in the declared one.
SMOOTHER = 0.8
SAMPLED = 256
"""Number of rows and columns sampled for that."""


@dataclass(frozen=True)
class StoredPixels:
    """Gray pixels as stored."""

    levels: np.ndarray
    """(H, W) uint8 or uint16: the rank of each pixel among the values that can be stored; 0 is the lowest."""
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


def read_stored(dataset: "Dataset", layout: Layout, name: str, *, min_side: int | None, limits: Limits) -> StoredPixels:
    """Stored values of a gray image. With `min_side`, an ordinary JPEG may be reduced, but not below that many pixels
    on its shorter side."""
    if layout.syntax in UNCOMPRESSED:
        return _unpacked(*raw_patterns(dataset, layout, name), layout, _has_overlay(dataset, layout))
    if layout.syntax == RLE:
        return _unpacked(run_length_patterns(dataset, layout, name), [], layout, _has_overlay(dataset, layout))
    frame, stream, notes = read_stream(dataset, layout, name)
    pixels = decode_stream(frame, stream, layout, name, min_side, limits)
    return replace(read := _settled(pixels, stream, layout), notes=(*notes, *read.notes))


def _unpacked(patterns: np.ndarray, notes: Sequence[str], layout: Layout, overlay: bool) -> StoredPixels:
    """Uncompressed pixels: the stored bits out of those allocated."""
    bits, shift = layout.bits, layout.high + 1 - layout.bits
    used = _used(patterns) if patterns.itemsize * 8 > bits else 0
    asked = _read(patterns >> shift if shift else patterns, bits, layout.signed)
    if shift and not used >> bits and used % (1 << shift) and not overlay:
        note = f"{CAUTION}HighBit {layout.high} contradicts the pixels, which lie in the lowest {bits} bits"
        return replace(_read(patterns, bits, layout.signed), notes=(*notes, note))
    if shift:
        return replace(asked, notes=(*notes, f"pixels read from bits {shift} to {layout.high}"))
    if not used >> bits:
        return replace(asked, notes=tuple(notes))
    width = _signed_bits(patterns)
    if layout.signed and width <= bits:  # sign-extended above the stored bits
        return replace(asked, notes=tuple(notes))
    if overlay:
        return replace(asked, notes=(*notes, f"an overlay above bit {bits - 1} ignored"))
    other = _read(patterns, layout.allocated, layout.signed)
    extended = layout.signed and width < layout.allocated and _some_extend(patterns, bits)
    if (_smoothest(other, asked) if extended else _smoothest(asked, other)) is other:
        uses = width if layout.signed else used.bit_length()
        note = f"BitsStored {bits} contradicts the pixels, which use {uses} bits"
    else:
        other, note = asked, f"bits above {bits - 1} are used and were ignored"
    return replace(other, notes=(*notes, f"{CAUTION}{note}"))


def _used(patterns: np.ndarray) -> int:
    """Bitwise OR of all pixels."""
    return int(np.bitwise_or.reduce(patterns, axis=None))


def _settled(pixels: np.ndarray, stream: Stream, layout: Layout) -> StoredPixels:
    """Pixels of a compressed stream, read as the stream declares, or as the header does where the stream cannot."""
    shift = layout.high + 1 - layout.bits
    if shift and stream.bits == layout.high + 1 and not stream.signed and not _used(pixels) % (1 << shift):
        note = f"pixels read from bits {shift} to {layout.high}"
        return replace(_read(pixels >> shift, layout.bits, layout.signed), notes=(note,))
    fewer = stream.bits > layout.bits and _within(pixels, layout.bits, bool(stream.signed))
    bits = layout.bits if fewer else stream.bits
    if stream.signed:
        own = _valued(pixels, bits)
        other = _read(pixels.view(f"u{pixels.itemsize}"), stream.bits, signed=False)
        read = own if layout.signed else _smoothest(own, other)
    elif not layout.signed:
        read = _read(pixels, bits, signed=False)
    else:  # a negative value can only have been stored as its two's complement
        own, other = _read(pixels, bits, signed=False), _read(pixels, bits, signed=True)
        free = stream.signed is None and stream.kind in ("lossless JPEG", "JPEG-LS") and stream.bits == layout.bits
        read = other if free else _smoothest(*((own, other) if stream.signed is False else (other, own)))
    if layout.signed and read.signed and read.bits > layout.bits and _within(read.pixels, layout.bits, signed=True):
        read = _valued(read.pixels, layout.bits)  # sign-extended above the stored bits
    if stream.bits == layout.bits and read.signed == layout.signed and stream.signed in (None, layout.signed):
        return read
    same = read.bits == layout.bits and read.signed == layout.signed and stream.signed in (None, layout.signed)
    if same and stream.kind == "12-bit JPEG":  # such a stream has 12 bits whatever is stored
        return read
    note = f"the {stream.kind} stream has {stream}, the header {_words(layout.bits, layout.signed)}"
    return replace(read, notes=(f"{'' if same else CAUTION}{note}; read as {_words(read.bits, read.signed)}",))


def _words(bits: int, signed: bool) -> str:
    return f"{bits} bit {'signed' if signed else 'unsigned'}"


def _read(patterns: np.ndarray, bits: int, signed: bool) -> StoredPixels:
    """Raw values read as numbers of this many bits and sign."""
    levels = patterns if bits >= 8 * patterns.itemsize else patterns & patterns.dtype.type((1 << bits) - 1)
    if signed:
        levels = levels ^ levels.dtype.type(1 << (bits - 1))
    return StoredPixels(levels, bits, signed)


def _valued(pixels: np.ndarray, bits: int) -> StoredPixels:
    """Signed numbers as they are."""
    levels = (pixels.astype(np.int32) + (1 << (bits - 1))).astype(np.uint8 if bits <= 8 else np.uint16)
    return StoredPixels(levels, bits, signed=True)


def _within(pixels: np.ndarray, bits: int, signed: bool) -> bool:
    """Whether all these values fit into so many bits."""
    low, high = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)
    return bool(low <= int(pixels.min()) and int(pixels.max()) <= high)


def _signed_bits(patterns: np.ndarray) -> int:
    """The fewest bits that hold all these patterns as signed numbers."""
    numbers = patterns.view(f"i{patterns.itemsize}")
    return 1 + max(int(numbers.max()), ~int(numbers.min()), 0).bit_length()


def _some_extend(patterns: np.ndarray, bits: int) -> bool:
    """Whether the bits above the stored ones repeat the sign of any negative number."""
    return bool((patterns.view(f"i{patterns.itemsize}") >> (bits - 1) == -1).any())


def _smoothest(asked: StoredPixels, other: StoredPixels) -> StoredPixels:
    """The requested interpretation, unless the other one is much smoother."""
    return other if _roughness(other) < SMOOTHER * _roughness(asked) else asked


def _roughness(read: StoredPixels) -> float:
    """Mean difference between neighbours."""
    high, wide = read.levels.shape
    rows = read.levels[:: max(1, high // SAMPLED)].astype(np.int32)
    columns = read.levels[:, :: max(1, wide // SAMPLED)].astype(np.int32)
    across, down = np.abs(np.diff(rows, axis=1)), np.abs(np.diff(columns, axis=0))
    return float(across.sum() / max(across.size, 1) + down.sum() / max(down.size, 1))


def _has_overlay(dataset: "Dataset", layout: Layout) -> bool:
    """Whether the header declares an overlay in unused bits of the pixels, an old practice."""
    for group in range(0x6000, 0x6020, 2):
        place = dataset.get((group, 0x0102))
        if (
            place is not None
            and isinstance(place.value, int)
            and not layout.high - layout.bits < place.value <= layout.high
        ):
            return True
    return False
