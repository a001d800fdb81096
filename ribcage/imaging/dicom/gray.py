"""Stored values → gray, by the standard's pipeline (PS3.3 C.7.6.3, C.11.1 and C.11.2):

    modality LUT or slope and intercept → VOI LUT or window → inversion

All that happens to a pixel here depends on its value alone. So it is worked out once for each of the at most 65,536
values, from the lowest to the highest, then looked up.
"""

from typing import TYPE_CHECKING

import numpy as np

from ribcage.imaging.dicom.elements import element_numbers
from ribcage.imaging.dicom.modality import element_text, modality_values
from ribcage.imaging.dicom.value_of_interest import Window, shown_values
from ribcage.imaging.gray_image import CAUTION

if TYPE_CHECKING:
    from pydicom import Dataset

LEAST_LEFT = 0.05
"""Padding that leaves less of the pixels is not believed."""


def gray_values(
    dataset: "Dataset", values: np.ndarray, counts: np.ndarray, *, bits: int, monochrome1: bool, window: Window | None
) -> tuple[np.ndarray, list[str]]:
    """The gray of each stored value, 0 (air) … 1, and what was done for it; `counts` says how often each occurs."""
    with np.errstate(all="ignore"):  # what overflows is set aside below
        padding, odd = _padding(dataset, values, counts)
        padded = counts[padding].sum() > 0
        counts = np.where(padding, 0, counts)
        output, notes = modality_values(dataset, values)
        gray, told = shown_values(dataset, output, counts, bits, window)
    notes = [*odd, *notes, *told]
    unusual = any("set aside" in note for note in notes)
    inverted, why = _inverted(dataset, monochrome1, unusual, falling=_falls(gray, values, counts))
    if inverted:
        gray = 1 - gray
    if padded:
        gray = np.where(padding, 0, gray)
    return gray, [*notes, *why, *(["padding made black"] if padded else [])]


def by_value(dataset: "Dataset") -> bool:
    """Whether the header asks for nothing that depends on more than a pixel's place among the values."""
    named = ("ModalityLUTSequence", "VOILUTSequence", "WindowCenter", "PixelPaddingValue", "ShutterShape")
    return not any(dataset.get(key) not in (None, "") for key in named)


def _inverted(dataset: "Dataset", monochrome1: bool, unusual: bool, falling: bool) -> tuple[bool, list[str]]:
    """Whether bright must become dark, and why.

    Pixels that are not meant for the eye, or not for the window they came with, or whose header contradicts itself,
    follow the physics if the file tells it: sign +1 is more X-rays for higher stored values, which is air.

    falling: the gray of higher stored values is darker, by a negative slope or a table."""
    sign = next(
        (number for number in element_numbers(dataset, "PixelIntensityRelationshipSign") if number in (1, -1)), None
    )
    shape = element_text(dataset, "PresentationLUTShape").upper()
    raw = element_text(dataset, "PresentationIntentType").upper() == "FOR PROCESSING"
    kind = "MONOCHROME1" if monochrome1 else "MONOCHROME2"
    notes = [f"{CAUTION}pixels for processing, not meant for the eye"] if raw else []
    contradicts = shape == ("IDENTITY" if monochrome1 else "INVERSE")
    if contradicts:
        notes.append(f"{CAUTION}PresentationLUTShape {shape} contradicts {kind}")
    said = "MONOCHROME1" if monochrome1 else shape if shape == "INVERSE" else ""
    if sign is not None:
        bright_air = (sign > 0) != falling
        follow = unusual or raw or contradicts
        if bright_air != bool(said):
            taken = "the sign" if follow else said or kind
            notes.append(f"{CAUTION}PixelIntensityRelationshipSign {sign:g} contradicts {said or kind}, {taken} taken")
        if follow:
            return bright_air, [*notes, *(["inverted (air is bright by its sign)"] if bright_air else [])]
    return bool(said), [*notes, *([f"inverted ({said})"] if said else [])]


def _falls(gray: np.ndarray, values: np.ndarray, counts: np.ndarray) -> bool:
    """Whether higher stored values are darker, over the pixels that occur."""
    apart = values - np.average(values, weights=counts) if counts.sum() > 0 else np.zeros(len(values))
    return bool((counts * apart) @ np.nan_to_num(gray) < 0)


def _padding(dataset: "Dataset", values: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Which values mean that there is no image here, and what was odd about that. A negative one may be written as a
    large unsigned number and the other way round."""
    ends = element_numbers(dataset, "PixelPaddingValue")[:1] + element_numbers(dataset, "PixelPaddingRangeLimit")[:1]
    nothing = np.zeros(len(values), bool)
    if not element_numbers(dataset, "PixelPaddingValue"):
        return nothing, []
    signed = values[0] < 0
    ends = [(end + 32768) % 65536 - 32768 if signed else end % 65536 for end in ends]
    ends = [end - len(values) if signed and end > values[-1] else end for end in ends]  # of fewer than 16 bits
    padding = (values >= min(ends)) & (values <= max(ends))
    left = 1 - counts[padding].sum() / max(counts.sum(), 1)
    if left < LEAST_LEFT:
        return nothing, [f"{CAUTION}padding that covers all but {100 * left:.0f} % was not applied"]
    return padding, []
