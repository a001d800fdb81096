"""Pixel data → arrays: raw, run-length encoded, and each kind of compressed stream."""

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from ribcage.imaging import codecs, jpeg_scan, medical_jpeg
from ribcage.imaging.dicom.layout import Layout
from ribcage.imaging.dicom.streams import ITEM, Stream, frame_bytes
from ribcage.imaging.dicom.transfer_syntaxes import BIG_ENDIAN, PLUGINS, RLE, syntax_name
from ribcage.imaging.gray_image import Limits, Note, UnreadableError

if TYPE_CHECKING:
    from pydicom import Dataset


def raw_patterns(dataset: "Dataset", layout: Layout, name: str) -> tuple[np.ndarray, list[Note]]:
    """(H, W) raw values of the allocated bits, and notes."""
    size = layout.allocated // 8
    notes = check_length(dataset, layout.width * layout.height * size, name)
    shape, count = (layout.height, layout.width), layout.width * layout.height
    swapped = layout.syntax == BIG_ENDIAN
    if swapped and size == 1 and dataset["PixelData"].VR == "OW":  # byte pairs were swapped
        data = dataset.PixelData[: count + count % 2].ljust(count + count % 2, b"\0")
        return np.frombuffer(data, ">u2").astype("<u2").view("u1")[:count].reshape(shape), notes
    raw = np.frombuffer(dataset.PixelData, f"{'>' if swapped else '<'}u{size}", count=count)
    return raw.astype(f"u{size}", copy=False).reshape(shape), notes


def check_length(dataset: "Dataset", expected: int, name: str) -> list[Note]:
    """Refuse pixels that are truncated, or compressed contrary to the header; note bytes after them."""
    data = dataset.PixelData
    after = 8 + int.from_bytes(data[4:8], "little")
    if data[:4] == ITEM and data[after : after + 4] == ITEM:
        raise UnreadableError(f"{name} declares uncompressed pixels, but they are encapsulated.")
    if len(data) < expected:
        raise UnreadableError(f"{name} is truncated: it has only {len(data)} of {expected} bytes of pixel data.")
    if len(data) >= 2 * expected and expected > 1:
        raise UnreadableError(
            f"{name} has {len(data)} bytes of pixel data, but Rows, Columns, SamplesPerPixel and BitsAllocated imply "
            f"{expected}: the file may contain several images, or pixels with more bits than declared."
        )
    more = len(data) - expected
    if more <= 1:  # an even length is required
        return []
    return [Note(f"{more} bytes after the pixels ignored", caution=True)]


def run_length_patterns(dataset: "Dataset", layout: Layout, name: str) -> np.ndarray:
    """(H, W) or (H, W, 3) raw values of the allocated bits."""
    from pydicom.encaps import encapsulate
    from pydicom.pixels import get_decoder

    frame, count = (
        frame_bytes(dataset, layout, name),
        layout.width * layout.height * layout.samples * layout.allocated // 8,
    )
    if len(frame) > 2 * count + 1024:
        raise UnreadableError(f"{name} is damaged: the run lengths of its RLE data exceed the size of the image.")
    how: dict[str, Any] = {"samples_per_pixel": layout.samples, "photometric_interpretation": layout.photometric}
    how |= {"rows": layout.height, "columns": layout.width, "bits_allocated": layout.allocated, "number_of_frames": 1}
    how |= {"bits_stored": layout.allocated, "pixel_representation": 0, "pixel_keyword": "PixelData"}
    how["planar_configuration"] = 0
    try:
        pixels = encapsulate([frame], has_bot=False)
        array = get_decoder(RLE).as_array(pixels, raw=True, decoding_plugin=PLUGINS[RLE][0], **how)[0]
    except Exception as error:
        raise UnreadableError(f"{name} is damaged: its RLE data cannot be decoded: {short_error(error)}.") from None
    return np.ascontiguousarray(array)


def decode_stream(
    frame: bytes, stream: Stream, layout: Layout, name: str, min_side: int | None, limits: Limits
) -> np.ndarray:
    """(H, W) or (H, W, 3) integers from the decoder of this kind of stream."""
    if stream.kind == "JPEG":
        return codecs.decode_jpeg(frame, name, min_side=min_side, limits=limits)[0]
    try:
        if stream.kind in ("lossless JPEG", "12-bit JPEG"):
            pixels = medical_jpeg.decode_medical_jpeg(frame)
        elif stream.kind == "JPEG-LS":
            pixels = _jpeg_ls(frame, stream, layout, name)
        else:
            pixels = _jpeg2000(frame, layout, name)
    except (UnreadableError, MemoryError):
        raise
    except jpeg_scan.UnsupportedError as error:
        raise UnreadableError(f"{name} has an unsupported kind of JPEG: {error}.") from None
    except Exception as error:
        what = f"{stream.kind} pixels cannot be decoded: {short_error(error)}"
        raise UnreadableError(f"{name} is damaged: its {what}.") from None
    if pixels.shape[:2] != (layout.height, layout.width):
        raise UnreadableError(f"{name} is damaged: its decoded stream does not have the declared size.")
    return pixels if stream.bits > 8 or stream.signed else pixels.astype(np.uint8)


def _jpeg_ls(frame: bytes, stream: Stream, layout: Layout, name: str) -> np.ndarray:
    try:
        import jpeg_ls
    except ImportError:
        raise _missing(layout, name) from None
    data, info = jpeg_ls.decode_buffer(frame)
    flat = np.frombuffer(data, np.uint8 if info["bits_per_sample"] <= 8 else "<u2")
    shape = stream.height, stream.width
    if stream.channels == 1:
        return flat.reshape(shape)
    if info["interleave_mode"] == 0:
        return np.moveaxis(flat.reshape(stream.channels, *shape), 0, -1)
    return flat.reshape(*shape, stream.channels)


def _jpeg2000(frame: bytes, layout: Layout, name: str) -> np.ndarray:
    try:
        import openjpeg
    except ImportError:
        raise _missing(layout, name) from None
    return np.asarray(openjpeg.decode(frame))


def _missing(layout: Layout, name: str) -> UnreadableError:
    package = PLUGINS.get(layout.syntax, ("", "pyjpegls pylibjpeg pylibjpeg-openjpeg"))[1]
    return UnreadableError(
        f"{name} is compressed as {syntax_name(layout.syntax)}. To read the file, install a "
        f"decoder: pip install {package}"
    )


QUOTED = re.compile(r"""(?<!\w)b?['"].*['"]""")
"""From the first quotation mark to the last, since a quotation may itself contain quotation marks."""


PLUGIN = re.compile(r"^Unable to decode as exceptions were raised by all available plugins: \w+: ")
"""What pydicom writes before a plugin's own message."""


def short_error(error: Exception) -> str:
    """Message of a library's error in at most 160 characters, without quotations from the file."""
    text = PLUGIN.sub("", QUOTED.sub("'…'", " ".join(str(error).split()))) or type(error).__name__
    return text if len(text) <= 160 else text[:157] + "..."
