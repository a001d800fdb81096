"""DICOM images in colour → blue, green and red, for conversion to gray."""

from typing import TYPE_CHECKING

import cv2
import numpy as np

from ribcage.imaging import codecs
from ribcage.imaging.dicom.decoders import check_length, decode_stream, run_length_patterns
from ribcage.imaging.dicom.layout import Layout
from ribcage.imaging.dicom.stored_pixels import StoredPixels, read_stored
from ribcage.imaging.dicom.streams import read_stream
from ribcage.imaging.dicom.transfer_syntaxes import RLE, UNCOMPRESSED
from ribcage.imaging.gray_image import CAUTION, Limits, UnreadableError

if TYPE_CHECKING:
    from pydicom import Dataset

ADOBE_RGB = b"\xff\xee\x00\x0eAdobe\x00\x64" + bytes(5)
"""The segment that says that the components of a JPEG are red, green and blue."""


def read_colour(dataset: "Dataset", said: Layout, name: str, limits: Limits) -> tuple[np.ndarray, list[str]]:
    """(H, W, 3) BGR of a DICOM in colour, spanning its type, or (H, W) where its decoder makes it gray; and what was
    done and odd about it."""
    if said.photometric == "PALETTE COLOR":
        return _palette_colour(dataset, read_stored(dataset, said, name, min_side=None, limits=limits))
    if said.syntax in UNCOMPRESSED:
        return _raw_colour(dataset, said, name)
    if said.syntax == RLE:
        pixels, notes = _stored_bits(run_length_patterns(dataset, said, name), said)
        return _spanned(_as_bgr(pixels, said.photometric), said.bits), notes
    frame, stream, notes = read_stream(dataset, said, name)
    if stream.signed:
        raise UnreadableError(f"{name} has signed colour values, which are not valid.")
    if stream.kind == "JPEG":
        if stream.rgb is None and said.photometric == "RGB":
            frame = frame[:2] + ADOBE_RGB + frame[2:]
        pixels, done = codecs.decode_jpeg(frame, name, min_side=None, limits=limits)
        return pixels, [*notes, *done]
    pixels = decode_stream(frame, stream, said, name, None, limits)
    if stream.bits != said.bits:
        notes.append(f"{CAUTION}the {stream.kind} stream holds {stream}, the header says {said.bits} bit")
    return _spanned(_as_bgr(pixels, "RGB" if stream.rgb else said.photometric), stream.bits), notes


def _raw_colour(dataset: "Dataset", said: Layout, name: str) -> tuple[np.ndarray, list[str]]:
    from pydicom.pixels import get_decoder

    if str(dataset.get("PhotometricInterpretation")).startswith("YBR_PARTIAL"):
        raise UnreadableError(f"{name} has YBR_PARTIAL colours that are not compressed, which DICOM has retired.")
    halved = said.photometric == "YBR_FULL_422"
    count = said.width * said.height * (2 if halved else 3)
    notes = check_length(dataset, count * said.allocated // 8, name)
    planar = dataset.get("PlanarConfiguration")
    if planar not in (0, 1):
        notes.append(f"{CAUTION}PlanarConfiguration is missing, colours taken pixel by pixel")
        dataset.PlanarConfiguration = 0
    dataset.PhotometricInterpretation, dataset.SamplesPerPixel = said.photometric, said.samples
    dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = said.allocated, said.allocated - 1, 0
    pixels, told = _stored_bits(get_decoder(said.syntax).as_array(dataset)[0], said)
    return _spanned(pixels[..., 2::-1], said.bits), [*notes, *told]


def _palette_colour(dataset: "Dataset", read: StoredPixels) -> tuple[np.ndarray, list[str]]:
    """Stored values looked up in a palette, spanning the bits that its entries need."""
    from pydicom.pixels import apply_color_lut

    count, first, said_bits = (int(number) for number in dataset.RedPaletteColorLookupTableDescriptor)
    if said_bits not in (8, 16):  # nothing else is allowed, and pydicom reads nothing else
        dataset.RedPaletteColorLookupTableDescriptor = [count, first, 8 if said_bits < 8 else 16]
    colours = apply_color_lut(read.pixels, dataset)[..., 2::-1]
    needed = max(8, int(colours.max()).bit_length())
    told = [f"a palette says {said_bits} bits and uses {needed}: {needed} bits taken"] if needed < said_bits else []
    return _spanned(colours, needed), [*read.notes, *told]


def _stored_bits(pixels: np.ndarray, said: Layout) -> tuple[np.ndarray, list[str]]:
    """The stored bits of colours, moved to the lowest place; and that they were."""
    shift = said.high + 1 - said.bits
    if not shift:
        return pixels, []
    stored = (pixels >> shift) & pixels.dtype.type((1 << said.bits) - 1)
    return stored, [f"colours taken from bits {shift} to {said.high}"]


def _as_bgr(pixels: np.ndarray, photometric: str) -> np.ndarray:
    """Red, green, blue or luminance and two colour differences (PS3.3 C.7.6.3.1.2) as blue, green, red."""
    if photometric not in ("YBR_FULL", "YBR_FULL_422"):
        return pixels[..., 2::-1]
    return cv2.cvtColor(np.ascontiguousarray(pixels[..., (0, 2, 1)]), cv2.COLOR_YCrCb2BGR)


def _spanned(pixels: np.ndarray, bits: int) -> np.ndarray:
    """Colours of so many bits (0: all) scaled to the whole range of their type."""
    pixels = np.ascontiguousarray(pixels)
    most = 8 * pixels.itemsize
    if not 0 < bits < most:
        return pixels
    top, whole = (1 << bits) - 1, (1 << most) - 1
    return np.rint(np.minimum(pixels, top) * (whole / top)).astype(pixels.dtype)
