"""PNG, JPEG, TIFF and BMP → one gray image, in steps:

header → decoded pixels → one channel → upright → 8 or 16 bits
"""

import cv2
import numpy as np

from ribcage.imaging import gif, jpeg_block_means, jpeg_pixels, jpeg_scan, medical_jpeg
from ribcage.imaging.gray_image import Depth, GrayImage, Limits, Note, UnreadableError, to_depth, to_gray, upright
from ribcage.imaging.headers import JPEG, Header, read_raster_header
from ribcage.runtime.terminal import quiet_codecs

# OpenCV reports every bad file on stderr; here UnreadableError does, in one line.
if hasattr(cv2, "setLogLevel"):  # OpenCV 4
    cv2.setLogLevel(0)
else:
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)

MISSING = 128
"""The gray that libjpeg fills in for missing pixels."""


def decode_raster(
    data: bytes, name: str, *, depth: Depth, min_side: int | None, limits: Limits, bits: int | None = None
) -> GrayImage:
    """Decode an image file from its bytes.

    name: the file's name in errors.
    bits: of 16 that the image uses; None: all.
    """
    header = read_raster_header(data, name, limits)
    pixels, notes = _gray_levels(data, name, header, min_side, limits)
    if bits is not None and pixels.dtype == np.uint16 and (most := int(pixels.max())) >> bits:
        raise UnreadableError(
            f"{name} has a pixel value of {most}, but the maximum for {bits} bits is {(1 << bits) - 1}."
        )
    if header.inverted:
        pixels, notes = pixels.dtype.type((1 << (bits or 16)) - 1) - pixels, [*notes, Note("inverted (white is zero)")]
    pixels, turned = upright(pixels, header.orientation)
    pixels, scaled = to_depth(pixels, depth, bits)
    width, height = header.upright_size
    return GrayImage(pixels, width, height, (*notes, *turned, *scaled))


def decode_jpeg(data: bytes, name: str, *, min_side: int | None, limits: Limits) -> tuple[np.ndarray, list[Note]]:
    """Stored gray levels of a JPEG inside another file, and notes on what was done."""
    return _gray_levels(data, name, read_raster_header(data, name, limits), min_side, limits)


def decode_levels(data: bytes, name: str, limits: Limits) -> np.ndarray:
    """(H, W) uint8 or uint16: the stored gray levels of an image file, which may be a GIF, upright and not scaled."""
    if data.startswith(gif.START):
        return gif.decode_gif(data, name, limits)
    header = read_raster_header(data, name, limits)
    pixels, _ = _gray_levels(data, name, header, None, limits)
    return upright(pixels, header.orientation)[0]


def _gray_levels(
    data: bytes, name: str, header: Header, min_side: int | None, limits: Limits
) -> tuple[np.ndarray, list[Note]]:
    """One channel as stored, and notes. A JPEG may be decoded at reduced size, but not below `min_side` on its shorter
    side."""
    limits.check_size(name, header.width, header.height)
    jpeg = data.startswith(JPEG)
    factor = _reduction(header, min_side) if jpeg else 1
    complete = _decoded_here(data, header, factor) if jpeg and header.what == "gray" else None
    decoded = _decoded(data, name, header, factor) if complete is None else complete
    pixels, notes = to_gray(decoded, header.what)
    if jpeg and complete is None:
        notes += _check_complete(data, name, header, decoded, factor)
    if factor > 1:
        pixels = _spanning(pixels, header.width / factor, header.height / factor)
    return pixels, [*notes, *header.notes]


def _reduction(header: Header, min_side: int | None) -> int:
    """Denominator of the size at which a JPEG is decoded: its 8 x 8 frequency blocks allow 1/2, 1/4 and 1/8."""
    if min_side is None:
        return 1
    return next((k for k in (8, 4, 2) if min(header.width, header.height) >= k * min_side), 1)


def _decoded_here(data: bytes, header: Header, factor: int) -> np.ndarray | None:
    """A complete grey JPEG at 1/factor of its size, if it can be decoded without OpenCV, which takes about twice as
    long."""
    if factor == 8 and jpeg_block_means.is_worthwhile():
        return jpeg_block_means.decode_block_means(data)
    if factor == 1 and jpeg_pixels.is_worthwhile():
        return jpeg_pixels.decode_gray(data)
    return None


def _decoded(data: bytes, name: str, header: Header, factor: int) -> np.ndarray:
    """Pixels and channels as stored (OpenCV applies the orientation of a TIFF), at 1/factor of their size."""
    if header.pixels is not None:
        return header.pixels
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
        raise UnreadableError(f"{name} is damaged: its decoded size differs from the size in its header.")
    if pixels.dtype not in (np.uint8, np.uint16):
        raise UnreadableError(f"{name} has pixels of type {pixels.dtype}; 8 or 16 bits per pixel were expected.")
    return pixels


def _check_complete(data: bytes, name: str, header: Header, pixels: np.ndarray, factor: int) -> list[Note]:
    """Refuse a JPEG whose coded pixels end early although it has an end marker.

    OpenCV fills the rest with gray 128 without a warning. Only images that end in that gray are decoded again by
    `medical_jpeg`, which detects it; as that cannot decode colour, colour images only get a note.
    """
    side = max(1, 8 // factor)
    last = pixels[-(((header.height - 1) % 8) // factor + 1) :, -(((header.width - 1) % 8) // factor + 1) :]
    if last.shape[0] > side or not (last == MISSING).all():
        return []
    if header.what != "gray" or not medical_jpeg.is_medical_jpeg(data):
        return [Note("the JPEG ends in uniform grey, as if pixels were missing", caution=True)]
    try:
        medical_jpeg.decode_medical_jpeg(jpeg_scan.repaired(data)[0])
    except ValueError:
        raise UnreadableError(
            f"{name} is truncated: its compressed pixel data end before the image is complete."
        ) from None
    return []


def _spanning(pixels: np.ndarray, width: float, height: float) -> np.ndarray:
    """Stretch a reduced image by less than a pixel, so that its edge matches the original's.

    The last block of a JPEG exceeds the edge when the side is not a multiple of the factor.
    """
    high, wide = pixels.shape
    across, down = width / wide, height / high
    if across == down == 1:
        return pixels
    matrix = np.array([[across, 0, (across - 1) / 2], [0, down, (down - 1) / 2]])
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(pixels, matrix, (wide, high), flags=flags, borderMode=cv2.BORDER_REPLICATE)
