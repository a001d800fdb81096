"""Pixel data → arrays: raw, run lengths, and each kind of compressed stream with its decoder."""

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from ribcage.imaging import codecs, medical_jpeg
from ribcage.imaging.dicom.layout import Layout
from ribcage.imaging.dicom.streams import ITEM, Stream, frame_bytes
from ribcage.imaging.dicom.transfer_syntaxes import BIG_ENDIAN, PLUGINS, RLE, syntax_name
from ribcage.imaging.gray_image import CAUTION, Limits, UnreadableError

if TYPE_CHECKING:
    from pydicom import Dataset


def raw_patterns(dataset: "Dataset", said: Layout, name: str) -> tuple[np.ndarray, list[str]]:
    """(H, W) patterns of the allocated bits, and what was odd about them."""
    size = said.allocated // 8
    notes = check_length(dataset, said.width * said.height * size, name)
    shape, count = (said.height, said.width), said.width * said.height
    swapped = said.syntax == BIG_ENDIAN
    if swapped and size == 1 and dataset["PixelData"].VR == "OW":  # bytes were swapped in pairs
        data = dataset.PixelData[: count + count % 2].ljust(count + count % 2, b"\0")
        return np.frombuffer(data, ">u2").astype("<u2").view("u1")[:count].reshape(shape), notes
    raw = np.frombuffer(dataset.PixelData, f"{'>' if swapped else '<'}u{size}", count=count)
    return raw.astype(f"u{size}", copy=False).reshape(shape), notes


def check_length(dataset: "Dataset", expected: int, name: str) -> list[str]:
    """Refuse pixels that are cut short or compressed against what the header says; note what follows them."""
    data = dataset.PixelData
    if data[:4] == ITEM and data[8 + int.from_bytes(data[4:8], "little") :].startswith(ITEM):
        raise UnreadableError(f"{name} says that its pixels are not compressed, but they are encapsulated.")
    if len(data) < expected:
        raise UnreadableError(f"{name} is truncated: {len(data)} of {expected} bytes of pixels are there.")
    if len(data) >= 2 * expected and expected > 1:
        raise UnreadableError(
            f"{name} holds {len(data)} bytes of pixels where Rows, Columns, SamplesPerPixel and BitsAllocated say "
            f"{expected}: several images, or more bits than it says."
        )
    more = len(data) - expected
    return [f"{CAUTION}{more} bytes after the pixels left out"] if more > 1 else []  # an even length is the rule


def run_length_patterns(dataset: "Dataset", said: Layout, name: str) -> np.ndarray:
    """(H, W) or (H, W, 3) patterns of the allocated bits."""
    from pydicom.encaps import encapsulate
    from pydicom.pixels import get_decoder

    frame, count = frame_bytes(dataset, said, name), said.width * said.height * said.samples * said.allocated // 8
    if len(frame) > 2 * count + 1024:
        raise UnreadableError(f"{name} is damaged: its run lengths exceed its pixels.")
    how: dict[str, Any] = {"samples_per_pixel": said.samples, "photometric_interpretation": said.photometric}
    how |= {"rows": said.height, "columns": said.width, "bits_allocated": said.allocated, "number_of_frames": 1}
    how |= {"bits_stored": said.allocated, "pixel_representation": 0, "pixel_keyword": "PixelData"}
    how["planar_configuration"] = 0
    try:
        pixels = encapsulate([frame], has_bot=False)
        array = get_decoder(RLE).as_array(pixels, raw=True, decoding_plugin=PLUGINS[RLE][0], **how)[0]
    except Exception as error:
        raise UnreadableError(f"{name} is damaged: its run lengths cannot be decoded: {short_error(error)}.") from None
    return np.ascontiguousarray(array)


def decode_stream(
    frame: bytes, stream: Stream, said: Layout, name: str, min_side: int | None, limits: Limits
) -> np.ndarray:
    """What the decoder of this stream gives: (H, W) or (H, W, 3) in whole numbers."""
    if stream.kind == "JPEG":
        return codecs.decode_jpeg(frame, name, min_side=min_side, limits=limits)[0]
    try:
        if stream.kind in ("lossless JPEG", "12-bit JPEG"):
            pixels = medical_jpeg.decode_medical_jpeg(frame)
        elif stream.kind == "JPEG-LS":
            pixels = _jpeg_ls(frame, stream, said, name)
        else:
            pixels = _jpeg2000(frame, said, name)
    except (UnreadableError, MemoryError):
        raise
    except medical_jpeg.UnsupportedError as error:
        raise UnreadableError(f"{name} holds a {stream.kind} of a kind that cannot be read: {error}.") from None
    except Exception as error:
        what = f"{stream.kind} pixels cannot be decoded: {short_error(error)}"
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
    return UnreadableError(f"{name} is compressed as {syntax_name(said.syntax)}. To read it: pip install {package}")


QUOTED = re.compile(r"""(?<!\w)b?(['"]).*?\1""")


def short_error(error: Exception) -> str:
    """An error of a library in at most 160 characters, without what it quotes of the file."""
    text = QUOTED.sub("'…'", " ".join(str(error).split())) or type(error).__name__
    return text if len(text) <= 160 else text[:157] + "..."
