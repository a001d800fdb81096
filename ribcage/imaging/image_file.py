"""Reads an image file (PNG, JPEG, TIFF, BMP, DICOM) as a gray image and fits it into a square.

Coordinates are continuous: pixel (0, 0) covers [0, 1) x [0, 1) and has its centre at (0.5, 0.5); a box at (x, y) covers
[x, x + width) x [y, y + height). Every matrix here maps coordinates of the original image (`GrayImage.width` x
`GrayImage.height`, even if decoded at reduced size) to those of the stored square. For programs with integers at pixel
centres, such as OpenCV's warp, add 0.5 before and subtract 0.5 after.
"""

import stat
from pathlib import Path
from typing import Literal

import cv2
import numpy as np

from ribcage.imaging import codecs, headers
from ribcage.imaging.gray_image import Depth, GrayImage, Limits, Note, UnreadableError
from ribcage.runtime.remote import addresses, objects

__all__ = [
    "Depth",
    "Fit",
    "GrayImage",
    "Limits",
    "Note",
    "UnreadableError",
    "decode_image",
    "file_content",
    "fit",
    "fit_matrix",
    "read_image",
    "read_tags",
]

Fit = Literal["pad", "crop", "squash"]
"""How an image becomes a square: black borders, the middle square, or both sides stretched."""


def read_image(
    file: Path,
    *,
    depth: Depth = 8,
    min_side: int | None = None,
    limits: Limits = Limits(),  # noqa: B008
    bits: int | None = None,
    window: str = "",
) -> GrayImage:
    """Read an image file.

    With `min_side` the image may be decoded at reduced size (faster for JPEG), but not below that many pixels on its
    shorter side. `bits` is the number of bits that a 16-bit PNG or TIFF uses, as 12-bit detectors often save them
    unscaled. `window` overrides the window of a DICOM file: an explanation such as LUNG, or CENTRE,WIDTH.
    """
    data = file_content(file, limits)
    return decode_image(data, str(file), depth=depth, min_side=min_side, limits=limits, bits=bits, window=window)


def read_tags(file: Path, *, limits: Limits = Limits()) -> dict[str, str]:  # noqa: B008
    """`read_image(file).tags` from the header of a DICOM file alone; {} for any other file."""
    try:
        found = file.stat()
        if not stat.S_ISREG(found.st_mode) or found.st_size > limits.max_bytes:
            return {}
        with file.open("rb") as stream:
            head = stream.read(132)
            if headers.is_raster(head) and head[128:] != b"DICM":
                return {}
            from ribcage.imaging import dicom

            return dicom.read_dicom_tags(stream, str(file), limits) if dicom.is_dicom(head) else {}
    except OSError:
        return {}


def decode_image(
    data: bytes,
    name: str,
    *,
    depth: Depth = 8,
    min_side: int | None = None,
    limits: Limits = Limits(),  # noqa: B008
    bits: int | None = None,
    window: str = "",
) -> GrayImage:
    """Decode an image file from its bytes; `name` is the file's name in errors."""
    limits.check_bytes(name, len(data))
    if headers.is_raster(data) and data[128:132] != b"DICM":
        return codecs.decode_raster(data, name, depth=depth, min_side=min_side, limits=limits, bits=bits)
    from ribcage.imaging import dicom  # its libraries load only when a DICOM file is read

    if dicom.is_dicom(data):
        return dicom.decode_dicom(data, name, depth=depth, min_side=min_side, limits=limits, window=window)
    raise UnreadableError(headers.unknown_format(data, name))


def fit_matrix(width: int, height: int, size: int, how: Fit) -> np.ndarray:
    """(2, 3) float64: from a point in an image of this size to its place in the stored square."""
    wide, high = _scaled(width, height, size, how)
    return np.array(
        [[wide / width, 0, _offset(wide, size)], [0, high / height, _offset(high, size)]],
        dtype=np.float64,
    )


def fit(pixels: np.ndarray, size: int, how: Fit, of: tuple[int, int] | None = None) -> tuple[np.ndarray, np.ndarray]:
    """The image as a (size, size) square, and the matrix from the original image to it.

    `of` is the width and height of the original when the pixels were decoded at reduced size. Shrinks by area
    averaging, enlarges linearly.
    """
    width, height = of or pixels.shape[::-1]
    wide, high = _scaled(width, height, size, how)
    scaled = _resized(pixels, wide, high)
    square = np.zeros((size, size), pixels.dtype)
    x, y = _offset(wide, size), _offset(high, size)
    square[max(y, 0) : y + high, max(x, 0) : x + wide] = scaled[max(-y, 0) :, max(-x, 0) :][:size, :size]
    return square, fit_matrix(width, height, size, how)


def _scaled(width: int, height: int, size: int, how: Fit) -> tuple[int, int]:
    """Width and height of the whole image, in whole pixels, at the scale of the square."""
    if how == "squash":
        return size, size
    side = max(width, height) if how == "pad" else min(width, height)
    return max(1, round(width * size / side)), max(1, round(height * size / side))


def _offset(length: int, size: int) -> int:
    """Offset of an image of this length in the square; negative when it is cropped."""
    return (size - length) // 2


def _resized(pixels: np.ndarray, width: int, height: int) -> np.ndarray:
    high, wide = pixels.shape
    if (wide, high) == (width, height):
        return pixels
    if (width < wide and height > high) or (width > wide and height < high):
        pixels = _resized(pixels, min(width, wide), min(height, high))  # shrink and enlarge each axis separately
        high, wide = pixels.shape
    if width > wide or height > high:
        return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_LINEAR)
    return _shrunk(pixels, width, height)


def _shrunk(pixels: np.ndarray, width: int, height: int) -> np.ndarray:
    """Average over whole pixels as far as possible, then blur and interpolate linearly for the rest.

    Averaging over fractions of pixels (OpenCV's area mode at a fractional factor) looks the same and takes three times
    as long.
    """
    high, wide = pixels.shape
    whole = min(wide // width, high // height)
    if whole > 1:  # only a border left over by the whole factor is resized along
        pixels = cv2.resize(pixels, (wide // whole, high // whole), interpolation=cv2.INTER_AREA)
        high, wide = pixels.shape
    sigmas = [0.5 * max((was / now) ** 2 - 1, 0) ** 0.5 for was, now in ((wide, width), (high, height))]
    if max(sigmas) > 0.2:
        size = [2 * int(np.ceil(2 * sigma)) + 1 for sigma in sigmas]
        pixels = cv2.GaussianBlur(pixels, (size[0], size[1]), max(sigmas[0], 1e-3), sigmaY=max(sigmas[1], 1e-3))
    return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_LINEAR)


def file_content(file: Path, limits: Limits) -> bytes:
    """All bytes of a regular file that is not too large. (OpenCV itself cannot open every name on every system.)"""
    if addresses.is_remote(file):
        return objects.read_source_file(file, lambda size: limits.check_bytes(str(file), size))
    try:
        found = file.stat()
        if stat.S_ISDIR(found.st_mode):
            raise UnreadableError(f"{file} is a directory, not an image.")
        if not stat.S_ISREG(found.st_mode):
            raise UnreadableError(f"{file} is not a regular file.")
        limits.check_bytes(str(file), found.st_size)
        with file.open("rb") as stream:  # if the file grows meanwhile, no more than was checked
            return stream.read(found.st_size)
    except FileNotFoundError:
        raise FileNotFoundError(f"{file} does not exist.") from None
    except OSError as error:
        raise UnreadableError(f"{file} cannot be opened: {error.strerror}.") from None
