"""DICOM → one gray image, by the standard's pipeline (PS3.3 C.7.6.3, C.11.1 and C.11.2):

  stored bits → modality LUT or slope and intercept → VOI LUT or window → inversion → shutter → 8 or 16 bit

`stored_pixels` has the first step, `gray` the steps that depend on a pixel's value alone, `place` the shutter and
warnings about orientation and aspect ratio. docs/datasets.md lists how each attribute is used.
"""

import functools
import importlib.util
import logging
import re
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator
from io import BytesIO
from typing import TYPE_CHECKING, Any, BinaryIO

import cv2
import numpy as np

from ribcage.imaging import gray_image
from ribcage.imaging.dicom import elements, place, terms, value_of_interest
from ribcage.imaging.dicom import gray as dicom_gray
from ribcage.imaging.dicom.colour import are_signed, read_colour
from ribcage.imaging.dicom.decoders import short_error
from ribcage.imaging.dicom.layout import Layout, read_layout
from ribcage.imaging.dicom.level_counts import count_levels
from ribcage.imaging.dicom.stored_pixels import read_stored
from ribcage.imaging.dicom.transfer_syntaxes import BIG_ENDIAN, DEFLATED, EXPLICIT, IMPLICIT, valid_uid
from ribcage.imaging.gray_image import Depth, GrayImage, Limits, Note, UnreadableError

if TYPE_CHECKING:
    from pydicom import Dataset

TAGGED = (
    *("SpecificCharacterSet", "PatientID", "StudyInstanceUID", "ViewPosition", "ViewCodeSequence", "PatientSex"),
    *("SeriesInstanceUID", "PatientAge", "PatientBirthDate", "StudyDate", "Manufacturer", "Modality"),
    "BodyPartExamined",
)
"""The elements from which the tags of an image are read, and the character set of names."""
PIXELS = 0x7FE00010
"""Tag of the pixels."""
VIEWS = {
    **{"PA": "PA", "POSTERO ANTERIOR": "PA", "POSTEROANTERIOR": "PA"},
    **{"AP": "AP", "ANTERO POSTERIOR": "AP", "ANTEROPOSTERIOR": "AP"},
    **dict.fromkeys(("LL", "RL", "LAT", "LATERAL", "LEFT LATERAL", "RIGHT LATERAL"), "LATERAL"),
}
OTHER_VIEWS = {"LLD", "RLD", "DECUBITUS", "OBLIQUE", "AXIAL", "LORDOTIC", "LPO", "RPO", "LAO", "RAO", "SWIMMERS"}
"""Words that name other views than PA, AP and lateral, even beside them: 'AP AXIAL', 'PA LLD'."""
DUMMY_BIRTH = "19000101"
"""Dummy date of birth that de-identification often writes."""
META_BYTES = 1 << 16  # larger than any file meta group
LIBRARIES = ("pydicom", "pylibjpeg", "openjpeg", "jpeg_ls")


def is_dicom(data: bytes) -> bool:
    """Whether this is a DICOM file: by its magic bytes or, without preamble, by a first element of group 2 or 8."""
    if data[128:132] == b"DICM":
        return True
    group, element, kind, length = struct.unpack("<HH2sH", data[:8].ljust(8, b"\xff"))
    explicit = re.fullmatch(rb"[A-Z]{2}", kind) is not None
    if explicit and data[:3] == b"\0\x08\0":  # big endian
        return True
    implicit = length == 0 and kind[1] == 0  # a first element of less than 256 bytes
    return group in (2, 8) and element <= 0x0100 and (implicit or explicit)


def decode_dicom(
    data: bytes, name: str, *, depth: Depth, min_side: int | None, limits: Limits, window: str = ""
) -> GrayImage:
    """Decode a DICOM file from its bytes. `name` is the file's name in errors; `window` overrides the file's own
    window: an explanation such as LUNG, or centre and width such as 40,400."""
    asked = value_of_interest.parse_window(window)
    try:
        dataset, layout, unread = read_header(data, name, limits)
        if layout.samples > 1 or layout.photometric == "PALETTE COLOR":
            pixels, notes = _colour(dataset, layout, name, depth, limits)
            notes += [Note("--window was ignored: the image is in colour", caution=True)] if asked else []
        else:
            pixels, notes = _gray(dataset, layout, name, depth, min_side, limits, asked)
        notes = [*unread, *layout.notes, *notes, *place.cautions(dataset)]
        return GrayImage(pixels, layout.width, layout.height, tuple(notes), _tags(dataset))
    except UnreadableError:
        raise
    except Exception as error:  # anything that pydicom and its decoders raise on a hostile file
        raise UnreadableError(f"{name} is a damaged DICOM file ({short_error(error)}).") from None


def _gray(
    dataset: "Dataset",
    layout: Layout,
    name: str,
    depth: Depth,
    min_side: int | None,
    limits: Limits,
    window: value_of_interest.Window | None,
) -> tuple[np.ndarray, list[Note]]:
    """Pixels of a gray image, and notes on what was done."""
    # An ordinary JPEG may be decoded at reduced size where gray is linear in the stored value for all pixels.
    linear = layout.bits == 8 and not layout.signed and window is None and dicom_gray.by_value(dataset)
    stored = read_stored(dataset, layout, name, min_side=min_side if linear else None, limits=limits)
    linear = linear and stored.bits == 8 and not stored.signed
    inside, outside, more = (None, 0.0, []) if linear else place.shutter(dataset, layout.width, layout.height)
    counts = np.ones(1 << stored.bits) if linear else count_levels(stored.levels, stored.bits, inside)
    used = (counts > 0) | (stored.bits <= 8)
    used[[0, -1]] = True
    levels = np.flatnonzero(used)
    gray, notes = dicom_gray.gray_values(
        dataset,
        levels + stored.lowest,
        counts[levels].astype(np.float64),
        bits=stored.bits,
        monochrome1=layout.photometric == "MONOCHROME1",
        window=window,
    )
    top = (1 << depth) - 1
    table = np.zeros(1 << 8 * stored.levels.itemsize, f"u{depth // 8}")
    table[levels] = np.rint(gray * top)
    pixels = _looked_up(table, stored.levels)
    if inside is not None:
        pixels = np.where(inside, pixels, pixels.dtype.type(round(outside * top)))
    return pixels, [*stored.notes, *notes, *more]


def _colour(
    dataset: "Dataset", layout: Layout, name: str, depth: Depth, limits: Limits
) -> tuple[np.ndarray, list[Note]]:
    """Pixels of a colour image converted to gray, and notes on what was done."""
    colours, odd = read_colour(dataset, layout, name, limits)
    signed = layout.signed and layout.samples > 1
    if signed and are_signed(colours):
        raise UnreadableError(f"{name} has signed colour values; unsigned ones were expected.")
    pixels, notes = gray_image.to_gray(colours, layout.photometric)
    pixels, more = gray_image.to_depth(pixels, depth)
    inside, outside, covered = place.shutter(dataset, layout.width, layout.height)
    if inside is not None:
        pixels = np.where(inside, pixels, pixels.dtype.type(round(outside * ((1 << depth) - 1))))
    if signed:
        odd.append(Note("PixelRepresentation 1 ignored: colours are unsigned", caution=True))
    return pixels, [*odd, *notes, *more, *covered]


def _looked_up(table: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Each level replaced by its entry in the table, in place where possible."""
    if levels.itemsize > 1 and not _has_wide_tables():
        return np.take(table, levels)
    in_place = levels.dtype == table.dtype and levels.flags.writeable and levels.flags.c_contiguous
    return cv2.LUT(levels, table, levels if in_place else None)


@functools.cache
def _has_wide_tables() -> bool:
    """Whether this version of OpenCV looks up 16-bit pixels, which takes a third of NumPy's time."""
    try:
        return cv2.LUT(np.zeros((1, 1), np.uint16), np.zeros(1 << 16, np.uint8)) is not None
    except cv2.error:
        return False


def read_dicom_tags(stream: BinaryIO, name: str, limits: Limits) -> dict[str, str]:
    """`GrayImage.tags` from the header alone, even if the pixels cannot be decoded; {} if the header is damaged."""
    _require(name)
    from pydicom.datadict import tag_for_keyword

    try:
        stream.seek(0)
        head = stream.read(META_BYTES)
        if _meta_syntax(head) == DEFLATED.encode():  # the header is compressed, too
            return _tags(_dataset(head + stream.read(), name, limits))
        stream.seek(0)
        tagged = [tag_for_keyword(keyword) for keyword in TAGGED]
        return _tags(_parsed(stream, stop_when=lambda tag, *_: tag >= PIXELS, specific_tags=tagged))
    except Exception:  # anything that pydicom raises on a hostile file: no tags
        return {}


# -- The header -------------------------------------------------------------------------------------------------------


def read_header(data: bytes, name: str, limits: Limits) -> tuple["Dataset", Layout, list[Note]]:
    """The readable elements of the header, the pixel layout and notes on unreadable elements."""
    dataset = _dataset(data, name, limits)
    unread = elements.remove_unreadable(dataset)
    return dataset, read_layout(dataset, name, limits), unread


def _dataset(data: bytes, name: str, limits: Limits) -> "Dataset":
    _require(name)
    if _meta_syntax(data) == DEFLATED.encode():
        _check_deflated(data, name, limits)
    return _parsed(BytesIO(data), stop_when=_until_pixels())


def _until_pixels() -> Callable[[int, Any, int], bool]:
    """Stop condition for the parser: elements after the pixels, such as padding or another file, must not replace those
    before."""
    seen = False

    def stop(tag: int, *_: Any) -> bool:
        nonlocal seen
        before, seen = seen, seen or int.__eq__(tag, PIXELS)  # pydicom's own comparison of tags is slow
        return before

    return stop


def _require(name: str) -> None:
    if importlib.util.find_spec("pydicom") is None:
        raise UnreadableError(f"{name} is a DICOM file. Reading DICOM files needs pydicom: pip install pydicom")


def _parsed(stream: BinaryIO, **how: Any) -> "Dataset":
    import pydicom
    from pydicom.filereader import read_partial

    _quieten()
    dataset = read_partial(stream, force=True, **how)
    if not hasattr(dataset, "file_meta"):
        dataset.file_meta = pydicom.dataset.FileMetaDataset()
    if not dataset.file_meta.get("TransferSyntaxUID"):
        implicit, little = dataset.original_encoding
        syntax = IMPLICIT if implicit else EXPLICIT if little else BIG_ENDIAN
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.UID(syntax)
    return dataset


def _quieten() -> None:
    """Silence the libraries' warnings on odd but readable files: what matters is in the notes."""
    warnings.filterwarnings("ignore", module=rf"({'|'.join(LIBRARIES)})(\.|$)")
    for library in LIBRARIES:
        log = logging.getLogger(library)
        log.propagate = False  # its messages may contain text of the file, such as a patient's name
        if not log.handlers:
            log.addHandler(logging.NullHandler())


def _meta_elements(data: bytes) -> Iterator[tuple[int, bytes, int]]:
    """Number, content and end of each element of the file meta group, which is always explicit little endian."""
    at = 132 if data[128:132] == b"DICM" else 0
    while data[at : at + 2] == b"\x02\x00":
        element, kind, length = struct.unpack_from("<2xH2sH", data, at)
        at += 8
        if kind in (b"OB", b"OW", b"UN", b"SQ", b"UT", b"OF"):
            (length,) = struct.unpack_from("<I", data, at)
            at += 4
        yield element, data[at : at + length], at + length
        at += length


def _meta_syntax(data: bytes) -> bytes:
    return next((content.rstrip(b"\0 ") for element, content, _ in _meta_elements(data) if element == 0x10), b"")


def _check_deflated(data: bytes, name: str, limits: Limits) -> None:
    start = max(end for _, _, end in _meta_elements(data))
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    inflater.decompress(data[start:], int(limits.max_bytes))
    if inflater.unconsumed_tail:
        raise UnreadableError(f"{name} exceeds the limit of {limits.max_bytes / 1e6:,.0f} MB when it is decompressed.")


def _tags(dataset: "Dataset") -> dict[str, str]:
    sex = _text(dataset, "PatientSex").upper()[:1]
    return {
        "patient": _text(dataset, "PatientID"),
        "study": _text(dataset, "StudyInstanceUID"),
        "series": _text(dataset, "SeriesInstanceUID"),
        "view": _view(dataset),
        "sex": sex if sex in ("F", "M") else "",
        "age": _age(dataset),
        "manufacturer": terms.manufacturer(_text(dataset, "Manufacturer")),
        "modality": terms.modality(_text(dataset, "Modality")),
        "body": terms.body_part(_text(dataset, "BodyPartExamined")),
        "transfer_syntax": valid_uid(str(dataset.file_meta.TransferSyntaxUID)),
    }


def _text(dataset: "Dataset", keyword: str) -> str:
    try:
        return "\\".join(text for text in elements.element_texts(dataset, keyword) if text)
    except Exception:  # a value that cannot be read counts as missing
        return ""


def _view(dataset: "Dataset") -> str:
    """View from ViewPosition, else from ViewCodeSequence; "" where either names another view. (LLD and RLD are
    decubitus views, not laterals.)"""
    codes = elements.element_items(dataset, "ViewCodeSequence")
    texts = [_text(dataset, "ViewPosition"), *(_text(code, "CodeMeaning") for code in codes)]
    texts = [text.upper().replace("-", " ") for text in texts]
    if any(OTHER_VIEWS & set(text.split()) for text in texts):
        return ""
    return next((view for text in texts if (view := _named_view(text))), "")


def _named_view(text: str) -> str:
    """The one view that a text such as 'PA', 'AP ERECT' or 'XTABLE LATERAL' names."""
    named = {VIEWS[word] for word in text.split() if word in VIEWS}
    return VIEWS.get(text) or (named.pop() if len(named) == 1 else "")


def _age(dataset: "Dataset") -> str:
    """Age in years from PatientAge (045Y, 010M, 003W, 012D, or a number of years), else from birth and study dates."""
    years: float | None = None
    if age := re.fullmatch(r"(\d{1,3})([YMWD]?)", _text(dataset, "PatientAge").upper()):
        years = int(age[1]) / {"M": 12, "W": 52.18, "D": 365.25}.get(age[2], 1)
    else:
        born, seen = (re.fullmatch(r"(\d{4})(\d{4})", _text(dataset, key)) for key in ("PatientBirthDate", "StudyDate"))
        if born and seen and born[0] not in (seen[0], DUMMY_BIRTH):  # dates that de-identification often writes
            years = int(seen[1]) - int(born[1]) - (seen[2] < born[2])
    return f"{years:.4g}" if years is not None and 0 <= years <= 120 else ""
