"""Samples: a small DICOM file in every transfer syntax that can be written here, to test which can be read.

Two kinds of JPEG that only medicine uses have no encoder: for these a constant image is written, which needs only
zeros.
"""

import importlib
from io import BytesIO
from typing import Any

import numpy as np

from ribcage.imaging import dicom
from ribcage.imaging.dicom import transfer_syntaxes
from ribcage.imaging.gray_image import Limits

JPEG = "1.2.840.10008.1.2.4."
SYNTAXES = {
    transfer_syntaxes.IMPLICIT: "implicit little endian",
    transfer_syntaxes.EXPLICIT: "explicit little endian",
    transfer_syntaxes.BIG_ENDIAN: "explicit big endian",
    transfer_syntaxes.DEFLATED: "deflated",
    transfer_syntaxes.RLE: "RLE",
    transfer_syntaxes.JPEG_BASELINE: "JPEG, 8 bits",
    transfer_syntaxes.JPEG_EXTENDED: "JPEG, 12 bits",
    f"{JPEG}57": "JPEG, lossless",
    f"{JPEG}70": "JPEG, lossless, first-order",
    f"{JPEG}80": "JPEG-LS, lossless",
    f"{JPEG}81": "JPEG-LS, near-lossless",
    f"{JPEG}90": "JPEG 2000, lossless",
    f"{JPEG}91": "JPEG 2000",
    f"{JPEG}201": "HTJ2K, lossless",
    f"{JPEG}202": "HTJ2K, lossless, RPCL",
    f"{JPEG}203": "HTJ2K",
}
LOSSY = {transfer_syntaxes.JPEG_BASELINE: 8, f"{JPEG}81": 2, f"{JPEG}91": 8}
"""Largest error of a pixel."""
UNWRITTEN = (f"{JPEG}201", f"{JPEG}202", f"{JPEG}203")
SIDE = 32


def required_package(syntax: str) -> str:
    """The packages besides pydicom needed to read a transfer syntax."""
    own = "numba" if syntax in (transfer_syntaxes.JPEG_EXTENDED, *transfer_syntaxes.JPEG_LOSSLESS) else ""
    return transfer_syntaxes.PLUGINS.get(syntax, ("", own))[1] or own or "pydicom"


def try_syntax(syntax: str) -> tuple[str, bool, str]:
    """Result of reading a transfer syntax, whether it was right, and the package that reads it."""
    if syntax in UNWRITTEN:
        plugin, needed = transfer_syntaxes.PLUGINS[syntax]
        from pydicom.pixels import get_decoder

        there = plugin in get_decoder(syntax).available_plugins
        result = f"not tested, no encoder for a sample; decoder: {plugin}" if there else f"{plugin} is missing"
        return result, there, needed
    pixels = (np.arange(SIDE * SIDE) // 4).astype(np.uint8).reshape(SIDE, SIDE)
    gray = syntax in (transfer_syntaxes.JPEG_EXTENDED, *transfer_syntaxes.JPEG_LOSSLESS)
    found = dicom.decode_dicom(sample_file(syntax, pixels), "a sample", depth=8, min_side=None, limits=Limits()).pixels
    # the range of a constant image is one value: only that it was read can be tested
    if syntax == transfer_syntaxes.JPEG_EXTENDED:
        return "read", found.shape == (SIDE, SIDE), required_package(syntax)
    wrong = int(np.abs(found.astype(int) - (128 if gray else pixels)).max())
    good = wrong <= LOSSY.get(syntax, 0)
    return "read" if good else f"read wrongly, off by {wrong}", good, required_package(syntax)


def sample_file(syntax: str, pixels: np.ndarray) -> bytes:
    """A DICOM file of these pixels; constant where the syntax has no encoder."""
    from pydicom.encaps import encapsulate

    made = _described(syntax, pixels, bits=12 if syntax == transfer_syntaxes.JPEG_EXTENDED else 8)
    if syntax == transfer_syntaxes.JPEG_BASELINE:
        import cv2

        frame = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
    elif syntax in (transfer_syntaxes.JPEG_EXTENDED, *transfer_syntaxes.JPEG_LOSSLESS):
        frame = one_gray(lossless=syntax != transfer_syntaxes.JPEG_EXTENDED)
    elif syntax in transfer_syntaxes.UNCOMPRESSED:
        return _bytes(made)
    else:
        return _bytes(_compressed(made, syntax))
    made.PixelData = encapsulate([frame])
    made["PixelData"].VR = "OB"
    return _bytes(made)


def _described(syntax: str, pixels: np.ndarray, bits: int) -> Any:
    """A dataset with these pixels, uncompressed."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import UID, SecondaryCaptureImageStorage, generate_uid

    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = UID(syntax)
    made.SOPClassUID = made.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    made.SOPInstanceUID = made.file_meta.MediaStorageSOPInstanceUID = generate_uid(None)
    made.Rows, made.Columns = pixels.shape
    made.SamplesPerPixel, made.PhotometricInterpretation, made.PixelRepresentation = 1, "MONOCHROME2", 0
    made.BitsAllocated, made.BitsStored, made.HighBit = (8 if bits == 8 else 16), bits, bits - 1
    made.PixelData = pixels.tobytes()
    made["PixelData"].VR = "OB"
    return made


def _compressed(made: Any, syntax: str) -> Any:
    from pydicom.uid import UID

    made.file_meta.TransferSyntaxUID = UID(transfer_syntaxes.EXPLICIT)
    how: dict[str, Any] = {"encoding_plugin": transfer_syntaxes.PLUGINS[syntax][0]}
    how |= {"jls_error": 1} if syntax == f"{JPEG}81" else {}
    how |= {"j2k_cr": [2]} if syntax == f"{JPEG}91" else {}
    made.compress(UID(syntax), generate_instance_uid=False, **how)
    return made


def _bytes(made: Any) -> bytes:
    stream = BytesIO()
    importlib.import_module("pydicom").dcmwrite(stream, made, enforce_file_format=True)
    return stream.getvalue()


def one_gray(*, lossless: bool) -> bytes:
    """A constant JPEG: all differences are zero, whose code is a single 0 bit (ITU T.81, B.2 and H.2)."""

    def segment(marker: int, body: bytes) -> bytes:
        return bytes((0xFF, marker)) + (len(body) + 2).to_bytes(2, "big") + body

    def table(place: int) -> bytes:  # one code of one bit, for the symbol 0
        return segment(0xC4, bytes((place, 1, *[0] * 15, 0)))

    size = SIDE.to_bytes(2, "big")
    frame = bytes((8 if lossless else 12,)) + size + size + bytes((1, 1, 0x11, 0))
    parts = [b"\xff\xd8"]
    if lossless:
        parts += [segment(0xC3, frame), table(0x00), segment(0xDA, bytes((1, 1, 0x00, 1, 0, 0)))]
        bits = SIDE * SIDE
    else:
        parts += [segment(0xDB, bytes((0, *[1] * 64))), segment(0xC1, frame), table(0x00), table(0x10)]
        parts += [segment(0xDA, bytes((1, 1, 0x00, 0, 63, 0)))]
        bits = 2 * (SIDE // 8) ** 2  # a block: no difference, end of block
    return b"".join([*parts, bytes(-(-bits // 8)), b"\xff\xd9"])
