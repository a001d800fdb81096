"""DICOM pixel data → stored values of one gray image.

A compressed stream declares its own number of bits and, for JPEG 2000, its sign. Where it contradicts the header, the
stream is followed and a note says so. Where the pixels contradict both, the interpretation with the smoother image is
taken, since a misread bit or sign breaks an image along every edge of its range.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import cv2
import numpy as np

from ribcage.imaging.dicom.decoders import decode_stream, raw_patterns, run_length_patterns
from ribcage.imaging.dicom.elements import element_numbers
from ribcage.imaging.dicom.layout import Layout
from ribcage.imaging.dicom.modality import usable_tables
from ribcage.imaging.dicom.streams import Stream, read_stream
from ribcage.imaging.dicom.transfer_syntaxes import RLE, UNCOMPRESSED
from ribcage.imaging.gray_image import Limits, Note

if TYPE_CHECKING:
    from pydicom import Dataset

# Another interpretation of the pixels is only taken when the mean difference of neighbours is below this share of that
# in the declared one.
SMOOTHER = 0.8
SAMPLED = 256
"""Number of rows and columns sampled for that."""
# The other interpretation is also taken if, in the declared one, neighbours differ almost like random pairs of pixels,
# and in the other one far less: too few bits leave differences that are small but random.
NOISE, IMAGE = 0.5, 0.2
PAIRS = 4096
# The bytes of each pixel are only swapped if that more than halves the difference of neighbours, relative to random
# pairs; smoother images than these are not tested. No correct image of 8 to 16 bits came below a factor of 0.9.
SWAPPED, SMOOTH = 0.5, 0.03
FEWEST_NEGATIVE = 3
"""Different negative numbers that show a sign; white letters may be one large number."""


@dataclass(frozen=True)
class StoredPixels:
    """Gray pixels as stored."""

    levels: np.ndarray
    """(H, W) uint8 or uint16: the rank of each pixel among the values that can be stored; 0 is the lowest."""
    bits: int
    signed: bool
    notes: tuple[Note, ...] = ()

    @property
    def lowest(self) -> int:
        """The stored value of level 0."""
        return -(1 << self.bits - 1) if self.signed else 0

    @property
    def pixels(self) -> np.ndarray:
        """(H, W) int32: the stored values."""
        return self.levels.astype(np.int32) + self.lowest


def read_stored(dataset: "Dataset", layout: Layout, name: str, *, min_side: int | None, limits: Limits) -> StoredPixels:
    """Stored values of a gray image. With `min_side`, an ordinary JPEG may be reduced, but not below that many pixels
    on its shorter side."""
    if layout.syntax in (*UNCOMPRESSED, RLE):
        patterns, odd = (
            (run_length_patterns(dataset, layout, name), [])
            if layout.syntax == RLE
            else raw_patterns(dataset, layout, name)
        )
        patterns, swapped = _ordered(patterns, layout)
        read = _beside_padding(dataset, patterns, layout) or _unpacked(dataset, patterns, layout)
        return replace(read, notes=(*odd, *swapped, *read.notes))
    frame, stream, notes = read_stream(dataset, layout, name)
    pixels = decode_stream(frame, stream, layout, name, min_side, limits)
    overlay = _has_overlay(dataset, layout)
    return replace(read := _settled(pixels, stream, layout, overlay), notes=(*notes, *read.notes))


def _ordered(patterns: np.ndarray, layout: Layout) -> tuple[np.ndarray, list[Note]]:
    """Patterns with the two bytes of each pixel in the order that gives an image, and a caution if that is the reverse
    of the declared one."""
    if patterns.itemsize == 1:
        return patterns, []
    samples = _samples(patterns)
    declared = _relative_roughness(_read(each, layout.allocated, layout.signed).levels for each in samples)
    if declared <= SMOOTH:
        return patterns, []
    swapped = (_read(each.byteswap(), layout.allocated, layout.signed).levels for each in samples)
    if _relative_roughness(swapped) >= SWAPPED * declared:
        return patterns, []
    return patterns.byteswap(), [Note("the bytes of each pixel were in the reverse order", caution=True)]


def _beside_padding(dataset: "Dataset", patterns: np.ndarray, layout: Layout) -> StoredPixels | None:
    """All allocated bits, if only the padding value needs more than the stored ones; else None."""
    bits, spare = layout.bits, layout.allocated - layout.bits
    ends = element_numbers(dataset, "PixelPaddingValue")[:1]
    if not ends or not spare or layout.high != bits - 1 or not _used(patterns) >> bits:
        return None
    ends = [int(end) % (1 << layout.allocated) for end in ends + element_numbers(dataset, "PixelPaddingRangeLimit")[:1]]
    padding = (patterns >= min(ends)) & (patterns <= max(ends))
    rest = patterns[~padding]
    if not padding.any() or not rest.size:
        return None
    if not layout.signed:
        return None if _used(rest) >> bits else _read(patterns, layout.allocated, signed=False)
    if _signed_bits(patterns) <= bits or (_signed_bits(rest) > bits and _used(rest) >> bits):
        return None
    extended = (patterns << spare).view(f"i{patterns.itemsize}") >> spare
    return _read(np.where(padding, patterns, extended.view(patterns.dtype)), layout.allocated, signed=True)


def _unpacked(dataset: "Dataset", patterns: np.ndarray, layout: Layout) -> StoredPixels:
    """Uncompressed pixels: the stored bits out of those allocated."""
    bits, shift, overlay = layout.bits, layout.high + 1 - layout.bits, _has_overlay(dataset, layout)
    used = _used(patterns) if patterns.itemsize * 8 > bits else 0
    fits = not shift and not used >> bits
    asked = _read(patterns >> shift if shift else patterns, bits, layout.signed, fits=fits)
    if shift and not used >> bits and used % (1 << shift) and not overlay:
        note = Note(f"HighBit {layout.high} contradicts the pixels, which lie in the lowest {bits} bits", caution=True)
        return replace(_read(patterns, bits, layout.signed), notes=(note,))
    if shift:
        return replace(asked, notes=(Note(f"pixels read from bits {shift} to {layout.high}"),))
    if not used >> bits:
        return asked
    width = _signed_bits(patterns)
    if layout.signed and width <= bits:  # sign-extended above the stored bits
        return asked
    if overlay:
        return replace(asked, notes=(Note(f"an overlay above bit {bits - 1} ignored"),))
    if not layout.signed and width < layout.allocated and _negatives(patterns) >= FEWEST_NEGATIVE:
        other = _read(patterns, layout.allocated if width > bits else bits, signed=True)
        if width <= bits or _smoothest(asked, other) is other:
            note = Note(f"PixelRepresentation 0 contradicts the pixels, read as {width} bit signed", caution=True)
            return replace(other, notes=(note,))
    other = _read(patterns, layout.allocated, layout.signed)
    extended = layout.signed and width < layout.allocated and _some_extend(patterns, bits)
    taken = _smoothest(other, asked) if extended else _smoothest(asked, other)
    if taken is other and not _table_fits(dataset, layout):
        uses = width if layout.signed else used.bit_length()
        text = f"BitsStored {bits} contradicts the pixels, which use {uses} bits"
    else:
        other, text = asked, f"bits above {bits - 1} are used and were ignored"
    return replace(other, notes=(Note(text, caution=True),))


def _table_fits(dataset: "Dataset", layout: Layout) -> bool:
    """Whether the modality LUT, else the VOI LUT, has one entry for each value that the declared bits can store."""
    tables = usable_tables(dataset, "ModalityLUTSequence")[0] or usable_tables(dataset, "VOILUTSequence")[0]
    count, first = (int(number) for number in tables[0].LUTDescriptor[:2]) if tables else (0, 0)
    lowest = -(1 << (layout.bits - 1)) if layout.signed else 0
    return bool(tables) and (count % 65536, first % 65536) == ((1 << layout.bits) % 65536, lowest % 65536)


def _used(patterns: np.ndarray) -> int:
    """Bitwise OR of all pixels."""
    return int(np.bitwise_or.reduce(patterns, axis=None))


def _settled(pixels: np.ndarray, stream: Stream, layout: Layout, overlay: bool) -> StoredPixels:
    """Pixels of a compressed stream, read as the stream declares, or as the header does where the stream cannot."""
    shift = layout.high + 1 - layout.bits
    if overlay and not shift and not stream.signed and stream.bits > layout.bits and _used(pixels) >> layout.bits:
        note = Note(f"an overlay above bit {layout.bits - 1} ignored")
        return replace(_read(pixels, layout.bits, layout.signed), notes=(note,))
    if shift and stream.bits == layout.high + 1 and not stream.signed and not _used(pixels) % (1 << shift):
        note = Note(f"pixels read from bits {shift} to {layout.high}")
        return replace(_read(pixels >> shift, layout.bits, layout.signed), notes=(note,))
    fewer = stream.bits > layout.bits and _within(pixels, layout.bits, bool(stream.signed))
    bits = layout.bits if fewer else stream.bits
    if stream.signed:
        own = _valued(pixels, bits)
        other = _read(pixels.view(f"u{pixels.itemsize}"), stream.bits, signed=False)
        read = own if layout.signed else _smoothest(own, other)
    elif not layout.signed:
        whole = stream.signed is None and stream.bits == 8 * pixels.itemsize > layout.bits
        extended = whole and _signed_bits(pixels) <= layout.bits and _negatives(pixels) >= FEWEST_NEGATIVE
        read = _read(pixels, layout.bits if extended else bits, signed=extended, fits=fewer and not extended)
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
    text = f"the {stream.kind} stream has {stream}, the header {_words(layout.bits, layout.signed)}"
    return replace(read, notes=(Note(f"{text}; read as {_words(read.bits, read.signed)}", caution=not same),))


def _words(bits: int, signed: bool) -> str:
    return f"{bits} bit {'signed' if signed else 'unsigned'}"


def _read(patterns: np.ndarray, bits: int, signed: bool, *, fits: bool = False) -> StoredPixels:
    """Raw values read as numbers of this many bits and sign; `fits` if it is known that they need no more bits."""
    top = (1 << bits) - 1
    fits = fits or bits >= 8 * patterns.itemsize or int(patterns.max()) <= top
    levels = patterns if fits else patterns & patterns.dtype.type(top)
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
    above = not signed and pixels.dtype.kind == "u"
    return bool((above or low <= int(pixels.min())) and int(pixels.max()) <= high)


def _signed_bits(patterns: np.ndarray) -> int:
    """The fewest bits that hold all these patterns as signed numbers."""
    numbers = patterns.view(f"i{patterns.itemsize}")
    return 1 + max(int(numbers.max()), ~int(numbers.min()), 0).bit_length()


def _negatives(patterns: np.ndarray) -> int:
    """Number of different negative numbers among these patterns."""
    numbers = patterns.view(f"i{patterns.itemsize}")
    return len(np.unique(numbers[numbers < 0]))


def _some_extend(patterns: np.ndarray, bits: int) -> bool:
    """Whether the bits above the stored ones repeat the sign of any negative number."""
    return bool((patterns.view(f"i{patterns.itemsize}") >> (bits - 1) == -1).any())


def _smoothest(asked: StoredPixels, other: StoredPixels) -> StoredPixels:
    """The requested interpretation, unless the other one is much smoother."""
    if _roughness(other) < SMOOTHER * _roughness(asked):
        return other
    noisy = _relative_roughness(_samples(asked.levels)) > NOISE
    return other if noisy and _relative_roughness(_samples(other.levels)) < IMAGE else asked


def _samples(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Some rows, some columns, and (2, PAIRS) random pairs of pixels."""
    high, wide = pixels.shape
    columns = np.ascontiguousarray(pixels[:, :: max(1, wide // SAMPLED)])
    pairs = np.random.default_rng(0).integers(0, pixels.size, (2, PAIRS))
    return pixels[:: max(1, high // SAMPLED)], columns, pixels.ravel()[pairs]


def _relative_roughness(samples: Iterable[np.ndarray]) -> float:
    """Mean difference between neighbours over that between random pairs of pixels."""
    rows, columns, pairs = samples
    one, another = pairs.astype(np.int32)
    return _difference(rows, columns) / 2 / max(float(np.abs(one - another).mean()), 1e-9)


def _roughness(read: StoredPixels) -> float:
    """Mean difference between neighbours."""
    rows, columns, _ = _samples(read.levels)
    return _difference(rows, columns)


def _difference(rows: np.ndarray, columns: np.ndarray) -> float:
    """Mean difference of neighbours along the rows, plus that along the columns."""
    return _mean_difference(rows[:, 1:], rows[:, :-1]) + _mean_difference(columns[1:], columns[:-1])


def _mean_difference(one: np.ndarray, another: np.ndarray) -> float:
    return cv2.norm(one, another, cv2.NORM_L1) / one.size if one.size else 0.0


def _has_overlay(dataset: "Dataset", layout: Layout) -> bool:
    """Whether the header declares an overlay in unused bits of the pixels, an old practice."""
    numbers = (group << 16 | 0x0102 for group in range(0x6000, 0x6020, 2))  # OverlayBitPosition
    places = [dataset[number].value for number in numbers if number in dataset.keys()]  # noqa: SIM118
    return any(isinstance(place, int) and not layout.high - layout.bits < place <= layout.high for place in places)
