"""Raw elements: the header of a DICOM file in the usual form, scanned for the elements that the pipeline reads.

pydicom's parser also creates all other elements and the items of all sequences, which takes several times as long. The
scan only finds where elements lie; pydicom converts their values. It ends without a result at anything that is not in
the usual form, and the file is then left to that parser.
"""

import functools
import struct
from collections.abc import Iterator
from io import BytesIO
from typing import TYPE_CHECKING, Any

from ribcage.imaging.dicom.elements import GROUPS, NUMBERS, OTHERS, tag
from ribcage.imaging.dicom.transfer_syntaxes import BIG_ENDIAN, DEFLATED, IMPLICIT, READ, UNCOMPRESSED

if TYPE_CHECKING:
    from pydicom import Dataset
    from pydicom.dataelem import DataElement, RawDataElement
    from pydicom.tag import BaseTag

TAGGED = (
    *("SpecificCharacterSet", "PatientID", "StudyInstanceUID", "ViewPosition", "ViewCodeSequence", "PatientSex"),
    *("SeriesInstanceUID", "PatientAge", "PatientBirthDate", "StudyDate", "Manufacturer", "Modality"),
    "BodyPartExamined",
)
"""The elements from which the tags of an image are read, and the character set of names."""
IMAGE_GROUPS = (0x0028, 0x7FE0)
"""Groups whose elements are all kept: the layout of the pixels with palettes, and the pixels."""
PIXELS, CHARACTER_SET, SYNTAX = 0x7FE00010, 0x00080005, 0x00020010
ITEM, ITEM_END, SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
UNDEFINED = 0xFFFFFFFF
SHORT = frozenset(b"AE AS AT CS DA DS DT FL FD IS LO LT PN SH SL SS ST TM UI UL US".split())
"""Value representations with a length of 16 bits."""
LONG = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
"""Value representations with a length of 32 bits."""
MOST_NESTED = 8
Place = tuple[int, str | None, int, int, int]
"""Number, value representation (None: implicit), and start, length and end of the value of an element."""
_explicit, _implicit, _long = (struct.Struct(form).unpack_from for form in ("<HH2sH", "<HHI", "<I"))


class UnusualError(ValueError):
    """A header that is left to pydicom's parser."""


def scanned_dataset(data: bytes) -> "Dataset | None":
    """The elements of a little-endian DICOM file that the pipeline reads, up to the pixels; None if the file is not in
    the usual form."""
    from pydicom.dataset import Dataset, FileMetaDataset

    try:
        meta: dict[BaseTag, Any] = {}
        at = 132
        while data[at : at + 2] == b"\x02\x00":
            place = _explicit_place(data, at)
            meta[_base(place[0])], at = _raw(data, place), place[4]
        syntax = str((meta[_base(SYNTAX)].value or b"").rstrip(b"\0 "), "ascii")
        kind = data[at + 4 : at + 6]
        explicit = syntax != IMPLICIT
        if data[128:132] != b"DICM" or syntax not in READ or syntax in (BIG_ENDIAN, DEFLATED):
            return None
        if (kind in SHORT or kind in LONG) != explicit:
            return None
        found: dict[BaseTag, Any] = {}
        for place in _places(data, at, _explicit_place if explicit else _implicit_place):
            sequence = place[3] == UNDEFINED and place[0] != PIXELS
            # uncompressed pixels are not copied, unless their words are not aligned
            viewed = place[0] == PIXELS and place[1] in (None, "OB", "OW") and place[2] % 2 == 0
            source = memoryview(data) if viewed and syntax in UNCOMPRESSED else data
            found[_base(place[0])] = _sequence(data, place, _encoding(found)) if sequence else _raw(source, place)
    except (UnusualError, struct.error, KeyError, UnicodeDecodeError):
        return None
    dataset = Dataset(found)
    dataset.file_meta = FileMetaDataset(meta)
    dataset.set_original_encoding(not explicit, True, _encoding(found))
    return dataset


def _places(data: bytes, at: int, place_at: Any) -> Iterator[Place]:
    """The places of the elements that the pipeline reads, up to the pixels."""
    kept, last = _kept(), 0
    while last != PIXELS:
        number, kind, start, length, end = place_at(data, at)
        if number <= last or not 2 < number >> 16 < 0xFFFE:
            raise UnusualError
        if length == UNDEFINED:
            end = _after_items(data, start) - 8 if number == PIXELS else _after_sequence(data, start, kind)
        if number in kept or number >> 16 in IMAGE_GROUPS:
            yield number, kind, start, length, end
        at, last = end, number


@functools.cache
def _kept() -> frozenset[int]:
    """Numbers of the elements that the pipeline reads, besides `IMAGE_GROUPS`. The last ones are OverlayBitPosition."""
    names = (*NUMBERS, *OTHERS, *GROUPS, *TAGGED, "SOPClassUID")
    return frozenset((*map(tag, names), *(group << 16 | 0x0102 for group in range(0x6000, 0x6020, 2))))


def _explicit_place(data: bytes, at: int) -> Place:
    """The place of the element that begins here. If its length is undefined, its end is its start."""
    group, element, kind, length = _explicit(data, at)
    at += 8
    if kind in LONG:
        (length,) = _long(data, at)
        at += 4
    elif kind not in SHORT:
        raise UnusualError
    end = at if length == UNDEFINED else at + length
    if end > len(data):
        raise UnusualError
    return group << 16 | element, str(kind, "ascii"), at, length, end


def _implicit_place(data: bytes, at: int) -> Place:
    """The same with implicit value representations."""
    group, element, length = _implicit(data, at)
    if length > len(data) - at - 8:  # also if it is undefined
        raise UnusualError
    return group << 16 | element, None, at + 8, length, at + 8 + length


def _after_items(data: bytes, at: int) -> int:
    """The end of the items of encapsulated pixels, each of which has a length."""
    while True:
        group, element, length = _implicit(data, at)
        at += 8
        if group << 16 | element == SEQUENCE_END:
            return at
        if group << 16 | element != ITEM or length > len(data) - at:
            raise UnusualError
        at += length


def _after_sequence(data: bytes, at: int, kind: str | None, depth: int = 0) -> int:
    """The end of a sequence of undefined length with explicit value representations."""
    if kind != "SQ" or depth > MOST_NESTED:
        raise UnusualError
    while True:
        group, element, length = _implicit(data, at)
        at += 8
        if group << 16 | element == SEQUENCE_END:
            return at
        if group << 16 | element != ITEM:
            raise UnusualError
        if length != UNDEFINED:
            at += length
            continue
        while _implicit(data, at)[:2] != (ITEM_END >> 16, ITEM_END & 0xFFFF):
            _, inner, start, length, at = _explicit_place(data, at)
            at = _after_sequence(data, start, inner, depth + 1) if length == UNDEFINED else at
        at += 8


def _raw(data: bytes | memoryview, place: Place) -> "RawDataElement":
    """An element with its value as in the file."""
    from pydicom.dataelem import RawDataElement, empty_value_for_VR

    number, kind, start, length, end = place
    value: Any = data[start:end] if end > start else empty_value_for_VR(kind, raw=True)
    return RawDataElement(_base(number), kind, length, value, start, kind is None, True)


def _sequence(data: bytes, place: Place, encoding: Any) -> "DataElement":
    """A sequence of undefined length, read by pydicom."""
    from pydicom.dataelem import DataElement
    from pydicom.filereader import read_sequence

    number, kind, start, length, end = place
    items = read_sequence(BytesIO(data[start:end]), False, True, length, encoding, start)
    return DataElement(_base(number), str(kind), items, start, is_undefined_length=True)


def _encoding(found: dict["BaseTag", Any]) -> Any:
    """The character set of the elements."""
    from pydicom.charset import convert_encodings, default_encoding
    from pydicom.dataelem import convert_raw_data_element

    named = found.get(_base(CHARACTER_SET))
    return default_encoding if named is None else convert_encodings(convert_raw_data_element(named).value)


@functools.cache
def _base(number: int) -> "BaseTag":
    from pydicom.tag import BaseTag

    return BaseTag(number)
