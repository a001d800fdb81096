"""Elements of a DICOM header as the pipeline reads them: functional groups merged with the others, unreadable ones
removed."""

import functools
import math
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from ribcage.imaging.gray_image import Note

if TYPE_CHECKING:
    from pydicom import Dataset
    from pydicom.tag import BaseTag

NUMBERS = (
    *("RescaleSlope", "RescaleIntercept", "WindowCenter", "WindowWidth", "PixelPaddingValue", "PixelPaddingRangeLimit"),
    *("PixelIntensityRelationshipSign", "NumberOfFrames", "PixelSpacing", "ImagerPixelSpacing", "PixelAspectRatio"),
    *("NominalScannedPixelSpacing", "ShutterLeftVerticalEdge", "ShutterRightVerticalEdge"),
    *("ShutterUpperHorizontalEdge", "ShutterLowerHorizontalEdge", "CenterOfCircularShutter", "RadiusOfCircularShutter"),
    *("VerticesOfThePolygonalShutter", "ShutterPresentationValue"),
)
OTHERS = (
    *("ModalityLUTSequence", "VOILUTSequence", "VOILUTFunction", "WindowCenterWidthExplanation", "PatientOrientation"),
    *("PresentationLUTShape", "PresentationIntentType", "ShutterShape", "BurnedInAnnotation", "ImageHorizontalFlip"),
    *("ImageRotation", "PlanarConfiguration"),
)
GROUPS = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")


def remove_unreadable(dataset: "Dataset") -> list[Note]:
    """Remove optional elements that cannot be read from the header, in place; returns notes on them."""
    notes = _lift(dataset)
    for keyword in (*NUMBERS, *OTHERS):
        if tag(keyword) in dataset.keys() and not _legible(dataset, keyword):  # noqa: SIM118
            delattr(dataset, keyword)
            notes.append(Note(f"{keyword} cannot be read and was ignored", caution=True))
    return notes


def element_value(dataset: "Dataset", keyword: str) -> object:
    """The value of an element; None without one. (`Dataset.get` takes ten times as long to find that there is none, and
    most elements that are asked for are missing.)"""
    number = tag(keyword)
    if number not in dataset.keys():  # noqa: SIM118
        return None
    try:
        return dataset[number].value
    except AttributeError:  # also caught by `Dataset.get`
        return None


def element_items(dataset: "Dataset", keyword: str) -> list["Dataset"]:
    """The items of a sequence; none without one."""
    items: Any = element_value(dataset, keyword)
    return list(items or [])


@functools.cache
def tag(keyword: str) -> "BaseTag":
    """The group and element number of a keyword."""
    from pydicom.tag import Tag

    return Tag(keyword)


def element_numbers(dataset: "Dataset", keyword: str, *, gaps: bool = False) -> list[float]:
    """All finite numbers of an element with any number of values; with `gaps`, unreadable ones in between are NaN, so
    that the positions stay."""
    found = [_number(value) for value in _several(element_value(dataset, keyword))]
    while found and not math.isfinite(found[-1]):
        found.pop()
    return [number if math.isfinite(number) else np.nan for number in found if gaps or math.isfinite(number)]


def element_texts(dataset: "Dataset", keyword: str) -> list[str]:
    """All texts of an element with any number of values."""
    values = _several(element_value(dataset, keyword))
    return [" ".join(str(one).replace("\0", " ").split()) for one in values if one is not None]


def _lift(dataset: "Dataset") -> list[Note]:
    """Merge the functional groups of an enhanced image (PS3.3 C.7.6.16) into the header: shared ones, then those of its
    frame."""
    unread = False
    for keyword in GROUPS:
        for group in element_items(dataset, keyword)[:1]:
            for number in group.keys():  # noqa: SIM118 – iterating over a dataset decodes its elements
                try:
                    macro = group[number]
                    lifted: Any = macro.value[0] if macro.VR == "SQ" and macro.value else {}
                    for name in (name for name in (*NUMBERS, *OTHERS) if name in lifted):
                        dataset[name] = lifted[name]
                except Exception:  # anything that pydicom raises on a value that does not fit its element
                    unread = True
    return [Note("a functional group cannot be read and was ignored", caution=True)] if unread else []


def _legible(dataset: "Dataset", keyword: str) -> bool:
    try:
        values = list(_several(element_value(dataset, keyword)))
    except Exception:  # anything that pydicom raises on a value that does not fit its element
        return False
    if keyword not in NUMBERS:
        return True
    given = [value for value in values if value is not None and str(value).strip("\0 ")]
    return not given or any(math.isfinite(_number(value)) for value in given)


def _several(value: Any) -> Iterator[Any]:
    several = isinstance(value, Iterable) and not isinstance(value, str | bytes)
    yield from value if several else [value]


def _number(value: Any) -> float:
    """A number, or NaN. Some writers use a decimal comma."""
    try:
        return float(value.replace(",", ".") if isinstance(value, str) else value)
    except (TypeError, ValueError):
        return np.nan
