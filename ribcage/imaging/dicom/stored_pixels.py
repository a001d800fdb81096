"""DICOM pixel data → the values that are stored, for one gray image.

A compressed stream says itself how many bits it holds and, if it is JPEG 2000, of which sign. Where it contradicts the
header, the stream is followed and that is noted; where the pixels themselves contradict both, the reading whose
neighbouring pixels are alike is taken, since a misread bit or sign tears an image along every edge of its range.
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

# Another reading of the pixels is only taken when its neighbours differ by less than this share of what they differ by
# in the reading that the file asks for.
SMOOTHER = 0.8
SAMPLED = 256
"""Rows and columns that are looked at for that."""


@dataclass(frozen=True)
class StoredPixels:
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


def read_stored(dataset: "Dataset", said: Layout, name: str, *, min_side: int | None, limits: Limits) -> StoredPixels:
    """The values of a gray image. With `min_side` an ordinary JPEG comes reduced, as long as the shorter side keeps
    that many pixels."""
    if said.syntax in UNCOMPRESSED:
        return _unpacked(*raw_patterns(dataset, said, name), said, _has_overlay(dataset, said))
    if said.syntax == RLE:
        return _unpacked(run_length_patterns(dataset, said, name), [], said, _has_overlay(dataset, said))
    frame, stream, notes = read_stream(dataset, said, name)
    pixels = decode_stream(frame, stream, said, name, min_side, limits)
    return replace(read := _settled(pixels, stream, said), notes=(*notes, *read.notes))


def _unpacked(patterns: np.ndarray, notes: Sequence[str], said: Layout, overlay: bool) -> StoredPixels:
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


def _settled(pixels: np.ndarray, stream: Stream, said: Layout) -> StoredPixels:
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


def _read(patterns: np.ndarray, bits: int, signed: bool) -> StoredPixels:
    """Patterns of bits as numbers."""
    levels = patterns if bits >= 8 * patterns.itemsize else patterns & patterns.dtype.type((1 << bits) - 1)
    if signed:
        levels = levels ^ levels.dtype.type(1 << (bits - 1))
    return StoredPixels(levels, bits, signed)


def _valued(pixels: np.ndarray, bits: int) -> StoredPixels:
    """Signed numbers as they are."""
    levels = (pixels.astype(np.int32) + (1 << (bits - 1))).astype(np.uint8 if bits <= 8 else np.uint16)
    return StoredPixels(levels, bits, signed=True)


def _within(pixels: np.ndarray, bits: int, signed: bool) -> bool:
    """Whether all these values could have been stored in so many bits."""
    low, high = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)
    return bool(low <= int(pixels.min()) and int(pixels.max()) <= high)


def _extends(patterns: np.ndarray, bits: int) -> bool:
    """Whether the bits above those stored are zero or repeat their sign, in every pixel."""
    numbers = patterns.view(f"i{patterns.itemsize}")
    return bool(((patterns >> bits == 0) | (numbers >> (bits - 1) == -1)).all())


def _smoothest(asked: StoredPixels, other: StoredPixels) -> StoredPixels:
    """The reading that was asked for, unless the other is much smoother."""
    return other if _roughness(other) < SMOOTHER * _roughness(asked) else asked


def _roughness(read: StoredPixels) -> float:
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
