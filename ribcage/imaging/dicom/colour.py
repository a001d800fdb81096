"""DICOM colour images → blue, green and red, for conversion to gray."""

from typing import TYPE_CHECKING

import cv2
import numpy as np

from ribcage.imaging import codecs
from ribcage.imaging.dicom.decoders import check_length, decode_stream, run_length_patterns
from ribcage.imaging.dicom.layout import Layout
from ribcage.imaging.dicom.stored_pixels import SMOOTHER, StoredPixels, read_stored
from ribcage.imaging.dicom.streams import read_stream
from ribcage.imaging.dicom.transfer_syntaxes import BIG_ENDIAN, RLE, UNCOMPRESSED
from ribcage.imaging.gray_image import Limits, Note, UnreadableError

if TYPE_CHECKING:
    from pydicom import Dataset

ADOBE_RGB = b"\xff\xee\x00\x0eAdobe\x00\x64" + bytes(5)
"""JPEG segment that declares the components as red, green and blue."""
DIFFERENCES = ("YBR_FULL", "YBR_FULL_422")
# The photometric interpretation is contradicted if only the other one makes nearly all pixels grey, as in a radiograph.
GRAY_SHARE, TINT = 0.9, 0.02
"""Share of pixels, and the largest colour of a grey pixel as a share of the range."""
REARRANGED = 0.1
"""PlanarConfiguration is contradicted if the other arrangement leaves less than this share of the coloured pixels."""


def read_colour(dataset: "Dataset", layout: Layout, name: str, limits: Limits) -> tuple[np.ndarray, list[Note]]:
    """(H, W, 3) BGR of a DICOM colour image, over the full range of its dtype, or (H, W) where its decoder returns
    gray; and notes."""
    if layout.photometric == "PALETTE COLOR":
        if any(f"{colour}PaletteColorLookupTableDescriptor" not in dataset for colour in ("Red", "Green", "Blue")):
            raise UnreadableError(f"{name} has PALETTE COLOR pixels, but no palette.")
        return _palette_colour(dataset, read_stored(dataset, layout, name, min_side=None, limits=limits))
    if layout.syntax in UNCOMPRESSED:
        return _raw_colour(dataset, layout, name)
    if layout.syntax == RLE:
        pixels, notes = _stored_bits(run_length_patterns(dataset, layout, name), layout)
        pixels, odd = _as_bgr(_spanned(pixels, layout.bits), layout.photometric)
        return pixels, [*notes, *odd]
    frame, stream, notes = read_stream(dataset, layout, name)
    if stream.signed:
        raise UnreadableError(f"{name} has signed colour values; unsigned ones were expected.")
    if stream.kind == "JPEG":
        if stream.rgb is None and layout.photometric == "RGB":
            frame = frame[:2] + ADOBE_RGB + frame[2:]
        pixels, done = codecs.decode_jpeg(frame, name, min_side=None, limits=limits)
        return pixels, [*notes, *done]
    pixels = decode_stream(frame, stream, layout, name, None, limits)
    if stream.bits != layout.bits:
        notes.append(Note(f"the {stream.kind} stream has {stream}, the header {layout.bits} bit", caution=True))
    pixels, odd = _as_bgr(_spanned(pixels, stream.bits), "RGB" if stream.rgb else layout.photometric)
    return pixels, [*notes, *odd]


def are_signed(colours: np.ndarray) -> bool:
    """Whether unsigned (H, W, 3) colours are much smoother when they are read as signed numbers. Black and white are
    left out: as signed numbers they are neighbours."""
    if colours.ndim != 3:
        return False
    top = int(np.iinfo(colours.dtype).max)
    green = colours[..., 1].astype(np.int32)
    inner = (green > 0) & (green < top)
    both = inner[:, 1:] & inner[:, :-1]
    steps, other = (np.abs(np.diff(each, axis=1))[both].sum() for each in (green, green ^ (top + 1) // 2))
    return bool(other < SMOOTHER * steps)


def _raw_colour(dataset: "Dataset", layout: Layout, name: str) -> tuple[np.ndarray, list[Note]]:
    from pydicom.pixels import get_decoder

    if str(dataset.get("PhotometricInterpretation")).startswith("YBR_PARTIAL"):
        raise UnreadableError(f"{name} uses uncompressed YBR_PARTIAL colours, which the DICOM standard has retired.")
    whole = layout.width * layout.height * 3 * layout.allocated // 8
    photometric, odd = layout.photometric, list[Note]()
    if photometric == "YBR_FULL_422" and whole <= len(dataset.PixelData) <= whole + 1:
        photometric = "YBR_FULL"
        odd = [Note("YBR_FULL_422 contradicts the length of the pixel data, read as YBR_FULL", caution=True)]
    halved = photometric == "YBR_FULL_422"
    if halved and layout.width % 2:
        raise UnreadableError(
            f"{name} uses YBR_FULL_422 colours, which require an even number of columns, but has {layout.width} "
            "columns."
        )
    notes = [*odd, *check_length(dataset, whole * 2 // 3 if halved else whole, name)]
    planar = dataset.get("PlanarConfiguration")
    if planar not in (0, 1):
        notes.append(Note("PlanarConfiguration is missing, read as interleaved colours", caution=True))
        dataset.PlanarConfiguration = 0
    dataset.PhotometricInterpretation, dataset.SamplesPerPixel = photometric, layout.samples
    dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = layout.allocated, layout.allocated - 1, 0
    pixels, more = _stored_bits(get_decoder(layout.syntax).as_array(dataset, raw=True)[0], layout)
    pixels, rearranged = (pixels, []) if halved else _arranged(pixels, planar=dataset.PlanarConfiguration == 1)
    pixels, contradicted = _as_bgr(_spanned(pixels, layout.bits), photometric)
    return pixels, [*notes, *more, *rearranged, *contradicted]


def _arranged(pixels: np.ndarray, *, planar: bool) -> tuple[np.ndarray, list[Note]]:
    """(H, W, 3) colours in the declared arrangement, or in the other one with a caution if only that one makes nearly
    all pixels exactly grey."""
    high, wide, _ = pixels.shape
    if planar:
        other = np.moveaxis(pixels, -1, 0).reshape(high, wide, 3)
    else:
        other = np.moveaxis(pixels.reshape(3, high, wide), 0, -1)
    coloured, left = (float(np.mean(np.ptp(each[::4, ::4], axis=-1) > 0)) for each in (pixels, other))
    if left < REARRANGED * coloured:
        text = f"PlanarConfiguration {int(planar)} contradicts the pixels, read as {int(not planar)}"
        return other, [Note(text, caution=True)]
    return pixels, []


def _palette_colour(dataset: "Dataset", read: StoredPixels) -> tuple[np.ndarray, list[Note]]:
    """Stored values looked up in a palette, scaled to the bits that its entries need."""
    from pydicom.pixels import apply_color_lut

    if dataset.file_meta.TransferSyntaxUID == BIG_ENDIAN:  # pydicom reads the entries as little endian
        _swap_palette(dataset)
    count, first, declared_bits = (int(number) for number in dataset.RedPaletteColorLookupTableDescriptor)
    if declared_bits not in (8, 16):  # pydicom reads no other depths, and no others are allowed
        dataset.RedPaletteColorLookupTableDescriptor = [count, first, 8 if declared_bits < 8 else 16]
    colours = apply_color_lut(read.pixels, dataset)[..., 2::-1]
    needed = max(8, int(colours.max()).bit_length())
    more = (
        [Note(f"a palette declares {declared_bits} bits and uses {needed}: read as {needed}")]
        if needed < declared_bits
        else []
    )
    return _spanned(colours, needed), [*read.notes, *more]


def _swap_palette(dataset: "Dataset") -> None:
    """Swap the bytes of each word of the palette, in place."""
    for colour in ("Red", "Green", "Blue"):
        for kind in ("", "Segmented"):
            keyword = f"{kind}{colour}PaletteColorLookupTableData"
            if isinstance(data := dataset.get(keyword), bytes) and len(data) % 2 == 0:
                dataset[keyword].value = np.frombuffer(data, ">u2").astype("<u2").tobytes()


def _stored_bits(pixels: np.ndarray, layout: Layout) -> tuple[np.ndarray, list[Note]]:
    """The stored bits of colours, shifted down to bit 0, and a note if they were shifted."""
    shift = layout.high + 1 - layout.bits
    if not shift and not layout.signed:
        return pixels, []
    stored = (pixels >> shift) & pixels.dtype.type((1 << layout.bits) - 1)
    if not shift:
        return stored, []
    return stored, [Note(f"colours read from bits {shift} to {layout.high}")]


def _as_bgr(pixels: np.ndarray, photometric: str) -> tuple[np.ndarray, list[Note]]:
    """RGB, or luminance and two colour differences (PS3.3 C.7.6.3.1.2), as BGR; and a caution if the pixels are grey
    only by the other interpretation, which is then used."""
    taken = photometric
    as_rgb, as_differences = _gray_shares(pixels)
    if photometric in DIFFERENCES and as_differences < GRAY_SHARE <= as_rgb:
        taken = "RGB"
    elif photometric not in DIFFERENCES and as_rgb < GRAY_SHARE <= as_differences:
        taken = "YBR_FULL"
    contradicted = [Note(f"{photometric} contradicts the pixels, read as {taken}", caution=True)]
    notes = [] if taken == photometric else contradicted
    if taken not in DIFFERENCES:
        return pixels[..., 2::-1], notes
    return cv2.cvtColor(np.ascontiguousarray(pixels[..., (0, 2, 1)]), cv2.COLOR_YCrCb2BGR), notes


def _gray_shares(pixels: np.ndarray) -> tuple[float, float]:
    """Share of grey pixels, if the components are red, green and blue, and if they are luminance and differences."""
    top = int(np.iinfo(pixels.dtype).max)
    first, second, third = np.moveaxis(pixels[::4, ::4].astype(np.int32), -1, 0)
    middle = (top + 1) // 2
    as_rgb = np.maximum(np.abs(second - first), np.abs(third - second))
    as_differences = np.maximum(np.abs(second - middle), np.abs(third - middle))
    return float(np.mean(as_rgb <= TINT * top)), float(np.mean(as_differences <= TINT * top))


def _spanned(pixels: np.ndarray, bits: int) -> np.ndarray:
    """Colours of this many bits (0: all) scaled to the full range of their dtype."""
    pixels = np.ascontiguousarray(pixels)
    most = 8 * pixels.itemsize
    if not 0 < bits < most:
        return pixels
    top, whole = (1 << bits) - 1, (1 << most) - 1
    return np.rint(np.minimum(pixels, top) * (whole / top)).astype(pixels.dtype)
