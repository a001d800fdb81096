"""DICOM → one gray picture, by the standard's pipeline (PS3.3 C.7.6.3, C.11.1 and C.11.2):

    stored bits → modality LUT or slope and intercept → VOI LUT or window → inversion → 8 or 16 bit

All that happens to a pixel after it was decoded depends on its value alone. So it is worked out once for each of the at
most 65,536 values (`levels`, 0 … 2^BitsStored - 1, from the lowest to the highest value), then looked up.
"""

import importlib.util
import re
import struct
import warnings
import zlib
from collections.abc import Iterable, Iterator
from io import BytesIO
from typing import IO, TYPE_CHECKING, Any

import cv2
import numpy as np

from ribcage import raster
from ribcage.raster import Depth, Limits, Picture, UnreadableError

if TYPE_CHECKING:
    from pydicom import Dataset

IMPLICIT, EXPLICIT, BIG_ENDIAN = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"
DEFLATED, JPEG_BASELINE, RLE = "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.5"
UNCOMPRESSED = (IMPLICIT, EXPLICIT, BIG_ENDIAN, DEFLATED)
JPEG_EXTENDED, JPEG_LOSSLESS = "1.2.840.10008.1.2.4.51", ("1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70")
# Which plugin of pydicom decodes what, and what must be installed for it. Named, since pydicom's own first choice
# (GDCM) corrupts memory on some damaged files.
PLUGINS = {
    RLE: ("pydicom", ""),
    **dict.fromkeys((f"1.2.840.10008.1.2.4.{n}" for n in (80, 81)), ("pyjpegls", "pyjpegls")),
    **dict.fromkeys(
        (f"1.2.840.10008.1.2.4.{n}" for n in (90, 91, 201, 202, 203)), ("pylibjpeg", "pylibjpeg pylibjpeg-openjpeg")
    ),
}
RETIRED = tuple(f"1.2.840.10008.1.2.4.{n}" for n in (*range(52, 57), *range(58, 67)))
VIEWS = {
    **{"PA": "PA", "POSTERO ANTERIOR": "PA", "AP": "AP", "ANTERO POSTERIOR": "AP"},
    **dict.fromkeys(("LL", "RL", "LAT", "LATERAL", "LEFT LATERAL", "RIGHT LATERAL"), "LATERAL"),
}
# What `_tags` looks at, the character set of names with it.
TAGGED = (
    *("SpecificCharacterSet", "PatientID", "StudyInstanceUID", "ViewPosition", "ViewCodeSequence", "PatientSex"),
    *("SeriesInstanceUID", "PatientAge", "PatientBirthDate", "StudyDate", "Manufacturer", "Modality"),
    "BodyPartExamined",
)
META_BYTES = 1 << 16  # more than any file meta group has
# A window that leaves less than this share of the pixels between black and white shows next to nothing.
LEAST_SHOWN = 0.05


def recognised(data: bytes) -> bool:
    """Whether this is a DICOM: by its mark or, without the preamble, by a first element of group 2 or 8."""
    if data[128:132] == b"DICM":
        return True
    group, element, kind, length = struct.unpack("<HH2sH", data[:8].ljust(8, b"\xff"))
    implicit = length == 0 and kind[1] == 0  # a first element of less than 256 bytes
    return group in (2, 8) and element <= 0x0100 and (implicit or re.fullmatch(rb"[A-Z]{2}", kind) is not None)


def decode(data: bytes, name: str, *, depth: Depth, min_side: int | None, limits: Limits) -> Picture:
    """The picture in these bytes; `name` is how errors call it."""
    try:
        dataset = _dataset(data, name, limits)
        _check(dataset, name, limits)
        if dataset.SamplesPerPixel > 1 or dataset.PhotometricInterpretation == "PALETTE COLOR":
            pixels, notes = raster.gray(_colour(dataset, name, limits), dataset.PhotometricInterpretation)
            pixels, told = raster.to_depth(pixels, depth)
        else:
            levels, linear = _levels(dataset, name, min_side, limits)
            gray, notes = _shown(dataset, np.ones(len(_values(dataset))) if linear else _counts(levels, dataset))
            pixels, told = _looked_up(np.rint(gray * (2**depth - 1)), levels, depth), []
        return Picture(pixels, int(dataset.Columns), int(dataset.Rows), (*notes, *told), _tags(dataset))
    except UnreadableError:
        raise
    except Exception as error:  # whatever pydicom and its decoders raise on a hostile file
        raise UnreadableError(f"{name} is a damaged DICOM ({_short(error)}).") from None


def tags(stream: IO[bytes], name: str, limits: Limits) -> dict[str, str]:
    """`Picture.tags` from the header alone, whatever the pixels are; {} when it is damaged."""
    _require(name)
    try:
        stream.seek(0)
        head = stream.read(META_BYTES)
        if _meta_syntax(head) == DEFLATED.encode():  # the header is compressed, too
            return _tags(_dataset(head + stream.read(), name, limits))
        stream.seek(0)
        return _tags(_parsed(stream, stop_before_pixels=True, specific_tags=list(TAGGED)))
    except Exception:  # whatever pydicom raises on a hostile file: then nothing is known of it
        return {}


# -- What the file says -----------------------------------------------------------------------------------------------


def _dataset(data: bytes, name: str, limits: Limits) -> "Dataset":
    _require(name)
    if _meta_syntax(data) == DEFLATED.encode():
        _check_deflated(data, name, limits)
    return _parsed(BytesIO(data))


def _require(name: str) -> None:
    if importlib.util.find_spec("pydicom") is None:
        raise UnreadableError(f"{name} is a DICOM; reading it needs: pip install pydicom")


def _parsed(stream: IO[bytes], **how: Any) -> "Dataset":
    import pydicom

    # What pydicom finds odd but reads is no matter for the person at the keyboard.
    warnings.filterwarnings("ignore", module=r"pydicom(\.|$)")
    dataset = pydicom.dcmread(stream, force=True, **how)
    if not hasattr(dataset, "file_meta"):
        dataset.file_meta = pydicom.dataset.FileMetaDataset()
    if "TransferSyntaxUID" not in dataset.file_meta:
        implicit, little = dataset.original_encoding
        syntax = IMPLICIT if implicit else EXPLICIT if little else BIG_ENDIAN
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.UID(syntax)
    return dataset


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
        raise UnreadableError(f"{name} inflates to more than the limit of {limits.max_bytes / 1e6:,.0f} MB.")


def _check(dataset: "Dataset", name: str, limits: Limits) -> None:
    """One clear line for everything that is a DICOM, but no picture that can be read."""
    if "PixelData" not in dataset:
        what = getattr(dataset.get("SOPClassUID"), "name", "") or "unknown"
        raise UnreadableError(f"{name} has no pixels (its kind is {what}).")
    missing = [key for key in ("Rows", "Columns", "BitsAllocated", "PixelData") if not dataset.get(key)]
    if missing:
        raise UnreadableError(f"{name} is a damaged DICOM: it has no {', '.join(missing)}.")
    frames = int(dataset.get("NumberOfFrames") or 1)  # an empty one is common
    if frames != 1:
        raise UnreadableError(f"{name} holds {frames} frames; one picture is expected.")
    limits.check_size(name, int(dataset.Columns), int(dataset.Rows))
    dataset.SamplesPerPixel = int(dataset.get("SamplesPerPixel") or 1)
    dataset.PhotometricInterpretation = str(dataset.get("PhotometricInterpretation") or "MONOCHROME2").strip()
    allocated, stored = int(dataset.BitsAllocated), int(dataset.get("BitsStored") or dataset.BitsAllocated)
    if allocated not in (8, 16) or not 1 <= stored <= allocated or dataset.SamplesPerPixel not in (1, 3):
        raise UnreadableError(
            f"{name} stores {dataset.SamplesPerPixel} x {stored} bits in {allocated} per pixel; "
            "one gray value or three colours of up to 16 bits are expected."
        )
    dataset.BitsStored = stored


def _tags(dataset: "Dataset") -> dict[str, str]:
    sex = _text(dataset, "PatientSex").upper()[:1]
    return {
        "patient": _text(dataset, "PatientID"),
        "study": _text(dataset, "StudyInstanceUID"),
        "series": _text(dataset, "SeriesInstanceUID"),
        "view": _view(dataset),
        "sex": sex if sex in ("F", "M") else "",
        "age": _age(dataset),
        "manufacturer": _text(dataset, "Manufacturer"),
        "modality": _text(dataset, "Modality"),
        "body": _text(dataset, "BodyPartExamined"),
        "transfer_syntax": str(dataset.file_meta.TransferSyntaxUID),
    }


def _text(dataset: "Dataset", keyword: str) -> str:
    try:
        return " ".join(str(dataset.get(keyword) or "").replace("\0", " ").split())
    except Exception:  # a value that cannot be read is one that is not known
        return ""


def _view(dataset: "Dataset") -> str:
    """From ViewPosition, else from the words of ViewCodeSequence. (LLD and RLD, lying on a side, are no laterals.)"""
    codes = dataset.get("ViewCodeSequence") or []
    said = [_text(dataset, "ViewPosition"), *(_text(code, "CodeMeaning") for code in codes)]
    return next((VIEWS[word] for text in said if (word := text.upper().replace("-", " ")) in VIEWS), "")


def _age(dataset: "Dataset") -> str:
    """In years: from PatientAge (045Y, 010M, 003W, 012D, or a bare number of years), else from birth to study."""
    years: float | None = None
    if age := re.fullmatch(r"(\d{1,3})([YMWD]?)", _text(dataset, "PatientAge").upper()):
        years = int(age[1]) / {"M": 12, "W": 52.18, "D": 365.25}.get(age[2], 1)
    else:
        born, seen = (re.fullmatch(r"(\d{4})(\d{4})", _text(dataset, key)) for key in ("PatientBirthDate", "StudyDate"))
        if born and seen:
            years = int(seen[1]) - int(born[1]) - (seen[2] < born[2])
    return f"{years:.4g}" if years is not None and 0 <= years <= 120 else ""


# -- Decoding ---------------------------------------------------------------------------------------------------------


def _levels(dataset: "Dataset", name: str, min_side: int | None, limits: Limits) -> tuple[np.ndarray, bool]:
    """(H, W) uint8 or uint16: each pixel's place among the values that can be stored; and whether gray is linear in it,
    whatever the pixels are. Then an ordinary JPEG may be decoded reduced."""
    syntax = str(dataset.file_meta.TransferSyntaxUID)
    linear = dataset.BitsStored == 8 and not any(
        dataset.get(key) for key in ("ModalityLUTSequence", "VOILUTSequence", "WindowCenter")
    ) and "PixelPaddingValue" not in dataset  # fmt: skip
    if syntax in UNCOMPRESSED:
        raw = _uncompressed(dataset, name)
    elif syntax == JPEG_BASELINE:
        raw = raster.decode_jpeg(_frame(dataset, name), name, min_side=min_side if linear else None, limits=limits)
    else:
        raw = _decompressed(dataset, name)
    bits = int(dataset.BitsStored)
    unused = int(dataset.get("HighBit", bits - 1)) + 1 - bits if syntax in UNCOMPRESSED else 0
    levels = raw.view(f"u{raw.itemsize}")
    if unused > 0:
        levels = levels >> unused
    if bits < 8 * levels.itemsize:  # other bits may hold an overlay or the sign
        levels = levels & levels.dtype.type(2**bits - 1)
    if _signed(dataset):
        levels = levels ^ levels.dtype.type(2 ** (bits - 1))
    return levels, linear


def _signed(dataset: "Dataset") -> bool:
    return bool(dataset.get("PixelRepresentation"))


def _uncompressed(dataset: "Dataset", name: str) -> np.ndarray:
    shape = (int(dataset.Rows), int(dataset.Columns))
    size = int(dataset.BitsAllocated) // 8
    expected = shape[0] * shape[1] * size
    if len(dataset.PixelData) < expected:
        raise UnreadableError(f"{name} is cut short: {len(dataset.PixelData)} of {expected} bytes of pixels are there.")
    swapped = dataset.file_meta.TransferSyntaxUID == BIG_ENDIAN
    if swapped and size == 1 and dataset["PixelData"].VR == "OW":  # bytes were swapped in pairs
        return np.frombuffer(dataset.PixelData, ">u2").astype("<u2").view("u1")[:expected].reshape(shape)
    raw = np.frombuffer(dataset.PixelData, f"{'>' if swapped else '<'}u{size}", count=shape[0] * shape[1])
    return raw.astype(f"u{size}", copy=False).reshape(shape)


def _frame(dataset: "Dataset", name: str) -> bytes:
    """The compressed picture, once it is known to be whole and of the size that the DICOM says."""
    from pydicom.encaps import get_frame

    frame = get_frame(dataset.PixelData, 0, number_of_frames=1)
    shape = (int(dataset.Columns), int(dataset.Rows), int(dataset.SamplesPerPixel))
    if dataset.file_meta.TransferSyntaxUID == RLE:
        if len(frame) > 2 * np.prod(shape) * dataset.BitsAllocated // 8 + 1024:
            raise UnreadableError(f"{name} is damaged: its run lengths are more than its pixels.")
        return frame
    if b"\xff\xd9" not in frame[-64:]:
        raise UnreadableError(f"{name} is cut short: its compressed picture has no end marker.")
    coded = raster.jpeg_shape(frame) if frame[:2] == b"\xff\xd8" else _jpeg2000_shape(frame)
    if coded != shape:
        raise UnreadableError(f"{name} says (width, height, channels) {shape}, its compressed picture {coded}.")
    return frame


def _jpeg2000_shape(frame: bytes) -> tuple[int, int, int]:
    at = frame.index(b"\xff\x4f\xff\x51") + 8  # start of codestream, then its size
    right, bottom, left, top = struct.unpack_from(">4I", frame, at)
    return right - left, bottom - top, struct.unpack_from(">H", frame, at + 32)[0]


def _decompressed(dataset: "Dataset", name: str) -> np.ndarray:
    """What the decoder of this transfer syntax gives: (H, W), or (H, W, 3) RGB."""
    uid = dataset.file_meta.TransferSyntaxUID
    what = f"{uid.name} ({uid})"
    if uid in RETIRED:
        raise UnreadableError(f"{name} is compressed as {what}, which DICOM has retired and nothing decodes.")
    if uid not in PLUGINS and uid not in (JPEG_EXTENDED, *JPEG_LOSSLESS, *UNCOMPRESSED):
        raise UnreadableError(f"{name} is compressed as {what}, which cannot be read.")
    try:
        if uid in (JPEG_EXTENDED, *JPEG_LOSSLESS):
            from ribcage import jpeg

            return jpeg.decode(_frame(dataset, name))
        return _decoded_by_plugin(dataset, name)
    except UnreadableError:
        raise
    except Exception as error:
        raise UnreadableError(f"{name} is damaged: its {what} pixels cannot be decoded: {_short(error)}.") from None


def _decoded_by_plugin(dataset: "Dataset", name: str) -> np.ndarray:
    from pydicom.pixels import get_decoder

    uid = dataset.file_meta.TransferSyntaxUID
    decoder = get_decoder(uid)
    if uid in UNCOMPRESSED:
        return decoder.as_array(dataset)[0]
    plugin, package = PLUGINS[uid]
    if plugin not in decoder.available_plugins:
        raise UnreadableError(f"{name} is compressed as {uid.name} ({uid}). To read it: pip install {package}")
    _frame(dataset, name)
    return decoder.as_array(dataset, decoding_plugin=plugin)[0]


def _colour(dataset: "Dataset", name: str, limits: Limits) -> np.ndarray:
    """(H, W, 3) BGR of a DICOM in colour."""
    from pydicom.pixels import apply_color_lut

    if dataset.file_meta.TransferSyntaxUID == JPEG_BASELINE:
        return raster.decode_jpeg(_frame(dataset, name), name, min_side=None, limits=limits)
    pixels = _decompressed(dataset, name)
    if dataset.PhotometricInterpretation == "PALETTE COLOR":
        pixels = apply_color_lut(pixels, dataset)
    return np.ascontiguousarray(pixels[..., 2::-1])


def _short(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 160 else text[:157] + "..."


# -- From stored value to gray ----------------------------------------------------------------------------------------


def _counts(levels: np.ndarray, dataset: "Dataset") -> np.ndarray:
    """How many pixels have each level."""
    count = 2 ** int(dataset.BitsStored)
    return cv2.calcHist([levels], [0], None, [count], [0, count]).ravel()


def _values(dataset: "Dataset") -> np.ndarray:
    """The stored value of each level."""
    count = 2 ** int(dataset.BitsStored)
    return np.arange(count) - (count // 2 if _signed(dataset) else 0)


def _shown(dataset: "Dataset", counts: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """The gray of each level, 0 (air) … 1, and what was done for it."""
    values = _values(dataset)
    padding = _padding(dataset, values)
    padded = counts[padding].sum() > 0
    counts = np.where(padding, 0, counts)
    gray, notes = _windowed(dataset, _modality(dataset, values), counts)
    if why := _inverted(dataset, unusual=any("set aside" in note for note in notes)):
        gray, notes = 1 - gray, [*notes, f"inverted ({why})"]
    if padded:
        gray, notes = np.where(padding, 0, gray), [*notes, "padding made black"]
    return gray, notes


def _inverted(dataset: "Dataset", unusual: bool) -> str:
    """Why bright must become dark; "" when it must not.

    Pixels that are not meant for the eye, or not for the window they came with, follow the physics if the file tells
    it: sign +1 is more X-rays for higher values, which is air."""
    sign = _numbers(dataset, "PixelIntensityRelationshipSign")
    if sign and (unusual or _text(dataset, "PresentationIntentType").upper() == "FOR PROCESSING"):
        return "higher values are more X-rays" if sign[0] > 0 else ""
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        return "MONOCHROME1"
    return "INVERSE" if _text(dataset, "PresentationLUTShape").upper() == "INVERSE" else ""


def _padding(dataset: "Dataset", values: np.ndarray) -> np.ndarray:
    """Which levels mean that there is no picture here."""
    ends = _numbers(dataset, "PixelPaddingValue") + _numbers(dataset, "PixelPaddingRangeLimit")
    if "PixelPaddingValue" not in dataset or not ends:
        return np.zeros(len(values), bool)
    return (values >= min(ends)) & (values <= max(ends))


def _modality(dataset: "Dataset", values: np.ndarray) -> np.ndarray:
    if dataset.get("ModalityLUTSequence"):
        return _table(dataset, dataset.ModalityLUTSequence[0], values)[0]
    slope, intercept = _numbers(dataset, "RescaleSlope")[:1], _numbers(dataset, "RescaleIntercept")[:1]
    return values * (slope[0] if slope else 1.0) + (intercept[0] if intercept else 0.0)


def _windowed(dataset: "Dataset", values: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """The first VOI LUT or window that shows something, else all values that occur (8 bit: all that can be stored)."""
    notes: list[str] = []
    for what, gray in _views_of_interest(dataset, values):
        if _shows(gray, values, counts):
            return gray, [*notes, what]
        notes.append(f"{what} set aside: it would saturate the picture")
    occurring = values if dataset.BitsStored == 8 and not notes else values[counts > 0]
    low, high = (occurring.min(), occurring.max()) if len(occurring) else (0, 0)
    gray = np.clip((values - low) / max(high - low, 1e-9), 0, 1)
    return gray, notes if dataset.BitsStored == 8 and not notes else [*notes, f"range {low:g} to {high:g}"]


def _views_of_interest(dataset: "Dataset", values: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    for item in (dataset.get("VOILUTSequence") or [])[:1]:
        entries, bits = _table(dataset, item, values)
        yield "VOI LUT", np.clip(entries / (2**bits - 1), 0, 1)
    function = _text(dataset, "VOILUTFunction").upper() or "LINEAR"
    for centre, width in zip(_numbers(dataset, "WindowCenter"), _numbers(dataset, "WindowWidth"), strict=False):
        yield f"window {centre:g}/{width:g}", window(values, centre, width, function)


def window(values: np.ndarray, centre: float, width: float, function: str = "LINEAR") -> np.ndarray:
    """0 … 1 by PS3.3 C.11.2.1.2 (LINEAR) and C.11.2.1.3 (SIGMOID, LINEAR_EXACT)."""
    if function == "SIGMOID":
        return 1 / (1 + np.exp(np.clip(-4 * (values - centre) / (width or 1), -700, 700)))
    if function == "LINEAR_EXACT":
        return np.clip((values - centre) / max(width, 1e-9) + 0.5, 0, 1)
    return np.clip((values - (centre - 0.5)) / max(width - 1, 1e-9) + 0.5, 0, 1)


def _shows(gray: np.ndarray, values: np.ndarray, counts: np.ndarray) -> bool:
    """Whether enough pixels are neither black nor white, of those between the picture's own darkest and brightest."""
    seen = values[counts > 0]
    if not np.isfinite(gray).all():
        return False
    if len(seen) == 0:
        return True
    between = np.where((values > seen.min()) & (values < seen.max()), counts, 0)
    shown = between[(gray > 1 / 255) & (gray < 254 / 255)].sum()
    return bool(between.sum() == 0 or shown >= LEAST_SHOWN * between.sum())


def _table(dataset: "Dataset", item: "Dataset", values: np.ndarray) -> tuple[np.ndarray, int]:
    """These values looked up in a modality or VOI LUT (PS3.3 C.11.1.1.1), and how many bits its entries have."""
    count, first, bits = (int(number) for number in item.LUTDescriptor)
    count = count or 65536
    if first > 32767 and values.min() < 0:
        first -= 65536
    data: Any = item.LUTData
    if isinstance(data, bytes):
        order = ">" if dataset.file_meta.TransferSyntaxUID == BIG_ENDIAN else "<"
        data = np.frombuffer(data, "u1" if len(data) < 2 * count else f"{order}u2")
    entries = np.atleast_1d(np.asarray(data, np.float64))[:count]
    bits = bits if 8 <= bits <= 16 else int(entries.max()).bit_length()
    return entries[np.clip(values - first, 0, len(entries) - 1).astype(np.int64)], bits


def _numbers(dataset: "Dataset", keyword: str) -> list[float]:
    """All finite numbers of an element that may have none, one or several."""
    value = dataset.get(keyword)
    several = isinstance(value, Iterable) and not isinstance(value, str)
    numbers = [float(number) for number in (value if several else [value]) if number not in (None, "")]
    return [number for number in numbers if np.isfinite(number)]


def _looked_up(table: np.ndarray, levels: np.ndarray, depth: Depth) -> np.ndarray:
    table = table.astype(f"u{depth // 8}")
    if levels.dtype == np.uint8 and len(table) == 256:
        return cv2.LUT(levels, table)
    return np.take(table, levels)
