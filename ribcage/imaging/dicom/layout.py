"""Layout: how pixels are stored according to the header."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ribcage.imaging.dicom.elements import element_numbers, element_texts, element_value, tag
from ribcage.imaging.dicom.transfer_syntaxes import known_name, valid_uid
from ribcage.imaging.gray_image import Limits, Note, UnreadableError

if TYPE_CHECKING:
    from pydicom import Dataset


PHOTOMETRIC = (
    *("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR", "RGB", "HSV", "ARGB", "CMYK", "XYB", "YBR_FULL", "YBR_FULL_422"),
    *("YBR_PARTIAL_422", "YBR_PARTIAL_420", "YBR_ICT", "YBR_RCT"),
)
"""Defined terms; other values may contain names and are not printed."""


@dataclass(frozen=True)
class Layout:
    """How pixels are stored according to the header, with contradictions resolved."""

    syntax: str
    width: int
    height: int
    samples: int
    photometric: str
    allocated: int
    bits: int
    high: int
    signed: bool
    notes: tuple[Note, ...] = ()


def read_layout(dataset: "Dataset", name: str, limits: Limits) -> Layout:
    """The pixel layout; a DICOM file without a readable image is an error of one line."""
    if tag("PixelData") not in dataset.keys():  # noqa: SIM118
        if "FloatPixelData" in dataset or "DoubleFloatPixelData" in dataset:
            raise UnreadableError(f"{name} has floating-point pixels; integers of up to 16 bits were expected.")
        if not any(keyword in dataset for keyword in ("SOPClassUID", "Rows", "DirectoryRecordSequence")):
            raise UnreadableError(f"{name} is a damaged DICOM file: its elements cannot be read.")
        uids = [*element_texts(dataset, "SOPClassUID"), *element_texts(dataset.file_meta, "MediaStorageSOPClassUID")]
        what = next((shown for uid in uids if (shown := known_name(uid) or valid_uid(uid))), "unknown")
        raise UnreadableError(f"{name} has no pixels (SOP class: {what}).")
    missing = [key for key in ("Rows", "Columns", "BitsAllocated", "PixelData") if not element_value(dataset, key)]
    if missing:
        raise UnreadableError(f"{name} is a damaged DICOM file: it has no {', '.join(missing)}.")
    frames = int((element_numbers(dataset, "NumberOfFrames") or [1])[0]) or 1  # an empty one is common
    if frames != 1:
        raise UnreadableError(f"{name} has {frames:.6g} frames; one image was expected.")
    width, height = (_whole(dataset, key, name) for key in ("Columns", "Rows"))
    limits.check_size(name, width, height)
    notes: list[Note] = []
    samples = _whole(dataset, "SamplesPerPixel", name) or 1
    photometric = _photometric(dataset, samples, notes)
    allocated = _whole(dataset, "BitsAllocated", name)
    bits = _whole(dataset, "BitsStored", name) or allocated
    if allocated not in (8, 16) or not 1 <= bits <= allocated or samples not in (1, 3):
        raise UnreadableError(
            f"{name} has {samples} sample{'s' * (samples != 1)} per pixel with {bits} bits ({allocated} allocated); "
            "one sample (greyscale) or three (colour) with up to 16 bits were expected."
        )
    high = bits - 1 if element_value(dataset, "HighBit") is None else _whole(dataset, "HighBit", name)
    if not bits - 1 <= high < allocated:
        read = f"HighBit {high} contradicts {bits} stored bits of {allocated}, read as {bits - 1}"
        notes.append(Note(read, caution=True))
        high = bits - 1
    sign = _whole(dataset, "PixelRepresentation", name)
    if sign not in (0, 1):
        raise UnreadableError(f"{name} has PixelRepresentation {sign}; 0 (unsigned) or 1 (signed) was expected.")
    return Layout(
        str(dataset.file_meta.TransferSyntaxUID), width, height, samples, photometric,
        allocated, bits, high, bool(sign), tuple(notes),
    )  # fmt: skip


def _photometric(dataset: "Dataset", samples: int, notes: list[Note]) -> str:
    """The photometric interpretation; replaced where it is missing, misspelt or does not fit the number of samples."""
    declared = str(element_value(dataset, "PhotometricInterpretation") or "").replace("\0", " ").strip().upper()
    known = "MONOCHROME" + declared[-1:] if declared.replace(" ", "")[:-1] == "MONOCHROME" else declared
    gray, colour = ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR"), ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_RCT")
    if known in (gray if samples == 1 else (*colour, "YBR_ICT")):
        return known
    taken = "MONOCHROME2" if samples == 1 else "RGB"
    shown = known if known in PHOTOMETRIC else "not a defined term,"
    what = f"{shown} with {samples} {'sample' if samples == 1 else 'samples'} per pixel" if declared else "missing"
    notes.append(Note(f"PhotometricInterpretation is {what}, read as {taken}", caution=True))
    return taken


def _whole(dataset: "Dataset", keyword: str, name: str) -> int:
    """The number in an element of 16 bits; 0 where it is missing or empty."""
    try:
        value: Any = element_value(dataset, keyword)
        number = int(value or 0)
    except Exception:  # anything that pydicom raises on a value that does not fit its element
        number = -1
    if not 0 <= number < 1 << 16:
        raise UnreadableError(f"{name} is a damaged DICOM file: the value of {keyword} is not a 16-bit integer.")
    return number
