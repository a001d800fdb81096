"""Stored values → gray, by the standard's pipeline (PS3.3 C.7.6.3, C.11.1 and C.11.2):

  modality LUT or slope and intercept → VOI LUT or window → inversion

Each step depends on a pixel's value alone. It is computed once for each of the at most 65,536 stored values that occur,
in ascending order, and then looked up.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from ribcage.imaging.dicom.elements import element_numbers, element_value
from ribcage.imaging.dicom.modality import element_text, modality_values
from ribcage.imaging.dicom.value_of_interest import Window, shown_values
from ribcage.imaging.gray_image import Note

if TYPE_CHECKING:
    from pydicom import Dataset

LEAST_LEFT = 0.05
"""Padding is ignored if it leaves less than this share of the pixels."""


def gray_values(
    dataset: "Dataset", values: np.ndarray, counts: np.ndarray, *, bits: int, monochrome1: bool, window: Window | None
) -> tuple[np.ndarray, list[Note]]:
    """Gray of each stored value, from 0 (air) to 1, and notes. `values` are in ascending order, `counts` is how often
    each occurs. Values that do not occur may be left out, except for the lowest and the highest that can be stored and,
    of up to 8 bits, all."""
    with np.errstate(all="ignore"):  # overflows are handled below
        padding, odd = _padding(dataset, values, counts)
        padded = counts[padding].sum() > 0
        counts = np.where(padding, 0, counts)
        output, notes = modality_values(dataset, values)
        shown = shown_values(dataset, output, counts, bits, window)
    gray, notes = shown.gray, [*odd, *notes, *shown.notes]
    inverted, why = _inverted(dataset, monochrome1, shown.unusable, lambda: _falls(gray, values, counts))
    if inverted:
        gray = 1 - gray
    if padded:
        gray = np.where(padding, 0, gray)
    return gray, [*notes, *why, *([Note("padding set to black")] if padded else [])]


def by_value(dataset: "Dataset") -> bool:
    """Whether all steps that the header requests depend on a pixel's value alone."""
    named = ("ModalityLUTSequence", "VOILUTSequence", "WindowCenter", "PixelPaddingValue", "ShutterShape")
    return not any(element_value(dataset, key) not in (None, "") for key in named)


def _inverted(
    dataset: "Dataset", monochrome1: bool, unusual: bool, falls: Callable[[], bool]
) -> tuple[bool, list[Note]]:
    """Whether to invert, and notes.

    Pixels that are not for presentation, are not shown with their own window, or have a contradictory header follow
    PixelIntensityRelationshipSign if present: +1 means that higher stored values are more X-rays, which is air.

    falls: whether higher stored values are darker, by a negative slope or a table.
    """
    sign = next(
        (number for number in element_numbers(dataset, "PixelIntensityRelationshipSign") if number in (1, -1)), None
    )
    shape = element_text(dataset, "PresentationLUTShape").upper()
    raw = element_text(dataset, "PresentationIntentType").upper() == "FOR PROCESSING"
    kind = "MONOCHROME1" if monochrome1 else "MONOCHROME2"
    notes = [Note("the pixels are for processing, not for presentation", caution=True)] if raw else []
    contradicts = shape == ("IDENTITY" if monochrome1 else "INVERSE")
    if contradicts:
        notes.append(Note(f"PresentationLUTShape {shape} contradicts {kind}", caution=True))
    inverted_by = "MONOCHROME1" if monochrome1 else shape if shape == "INVERSE" else ""
    if sign is not None:
        bright_air = (sign > 0) != falls()
        follow = unusual or raw or contradicts
        if bright_air != bool(inverted_by):
            taken = "the sign" if follow else inverted_by or kind
            read = f"PixelIntensityRelationshipSign {sign:g} contradicts {inverted_by or kind}, read as {taken}"
            notes.append(Note(read, caution=True))
        if follow:
            inverted = [Note("inverted (air is bright by PixelIntensityRelationshipSign)")]
            return bright_air, [*notes, *(inverted if bright_air else [])]
    return bool(inverted_by), [*notes, *([Note(f"inverted ({inverted_by})")] if inverted_by else [])]


def _falls(gray: np.ndarray, values: np.ndarray, counts: np.ndarray) -> bool:
    """Whether higher stored values are darker, over the values that occur."""
    apart = values - np.average(values, weights=counts) if counts.sum() > 0 else np.zeros(len(values))
    return bool((counts * apart * np.nan_to_num(gray)).sum() < 0)


def _padding(dataset: "Dataset", values: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, list[Note]]:
    """Which values are padding, and notes. A negative padding value may be written as a large unsigned number and vice
    versa."""
    ends = element_numbers(dataset, "PixelPaddingValue")[:1] + element_numbers(dataset, "PixelPaddingRangeLimit")[:1]
    nothing = np.zeros(len(values), bool)
    if not element_numbers(dataset, "PixelPaddingValue"):
        return nothing, []
    signed = values[0] < 0
    ends = [(end + 32768) % 65536 - 32768 if signed else end % 65536 for end in ends]
    count = int(values[-1] - values[0]) + 1
    ends = [end - count if signed and end > values[-1] else end for end in ends]  # of fewer than 16 bits
    padding = (values >= min(ends)) & (values <= max(ends))
    left = 1 - counts[padding].sum() / max(counts.sum(), 1)
    if left < LEAST_LEFT:
        return nothing, [Note(f"padding that covers all but {100 * left:.0f} % of the image was ignored", caution=True)]
    return padding, []
