"""The elements of a DICOM header as the steps of the pipeline read them: those of functional groups beside all others,
and none whose value means nothing."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from ribcage.imaging.gray_image import CAUTION

if TYPE_CHECKING:
    from pydicom import Dataset

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


def remove_unreadable(dataset: "Dataset") -> list[str]:
    """Make the header legible in place: elements that an image can do without are taken away where they cannot be
    read, which is said."""
    notes = _lift(dataset)
    for keyword in (*NUMBERS, *OTHERS):
        if keyword in dataset and not _legible(dataset, keyword):
            delattr(dataset, keyword)
            notes.append(f"{CAUTION}{keyword} cannot be read and was ignored")
    return notes


def element_numbers(dataset: "Dataset", keyword: str, *, gaps: bool = False) -> list[float]:
    """All finite numbers of an element that may have none, one or several; with `gaps` those between them that cannot
    be read are NaN, so that each keeps its place."""
    found = [_number(value) for value in _several(dataset.get(keyword))]
    while found and not np.isfinite(found[-1]):
        found.pop()
    return [number if np.isfinite(number) else np.nan for number in found if gaps or np.isfinite(number)]


def element_texts(dataset: "Dataset", keyword: str) -> list[str]:
    """All texts of an element that may have none, one or several."""
    said = _several(dataset.get(keyword))
    return [" ".join(str(one).replace("\0", " ").split()) for one in said if one is not None]


def safe_text(text: str) -> str:
    """Text of a file that may be repeated in a note or an error."""
    return "".join(letter if letter.isalnum() or letter in " _.,-" else "?" for letter in text)


def _lift(dataset: "Dataset") -> list[str]:
    """What enhanced images say of their one frame in functional groups (PS3.3 C.7.6.16): of all frames, then of it."""
    unread = False
    for keyword in GROUPS:
        for group in list(dataset.get(keyword) or [])[:1]:
            for tag in group.keys():  # noqa: SIM118 – a dataset iterates over its elements, and decodes them
                try:
                    macro = group[tag]
                    lifted: Any = macro.value[0] if macro.VR == "SQ" and macro.value else {}
                    for name in (name for name in (*NUMBERS, *OTHERS) if name in lifted):
                        dataset[name] = lifted[name]
                except Exception:  # whatever pydicom raises on a value that does not fit its element
                    unread = True
    return [f"{CAUTION}a functional group cannot be read and was ignored"] if unread else []


def _legible(dataset: "Dataset", keyword: str) -> bool:
    try:
        values = list(_several(dataset.get(keyword)))
    except Exception:  # whatever pydicom raises on a value that does not fit its element
        return False
    said = [value for value in values if value is not None and str(value).strip("\0 ")]
    return keyword not in NUMBERS or not said or any(np.isfinite(_number(value)) for value in said)


def _several(value: Any) -> Iterator[Any]:
    several = isinstance(value, Iterable) and not isinstance(value, str | bytes)
    yield from value if several else [value]


def _number(value: Any) -> float:
    """NaN where it is none. Some writers put a decimal comma."""
    try:
        return float(value.replace(",", ".") if isinstance(value, str) else value)
    except (TypeError, ValueError):
        return np.nan
