"""Warnings about an image, from its DICOM tags, its decoding and its pixels; and warnings about the check itself."""

import math
from collections.abc import Sequence

import numpy as np

from ribcage.bundle import counterexamples
from ribcage.bundle.ood.check import CLASSES, LATERAL, MIRRORED, OTHER, OODCheck
from ribcage.bundle.ood.fitting import ADULT, ENOUGH, FEWEST, RARE, is_common
from ribcage.imaging import appearance
from ribcage.imaging.dicom import terms
from ribcage.imaging.gray_image import Note


def image_warnings(
    check: OODCheck | None, square: np.ndarray, tags: dict[str, str], notes: Sequence[Note] = ()
) -> tuple[str, ...]:
    """Warnings about an image, one sentence each: its DICOM tags, how it was read, and its pixels."""
    cautions = [f"{note.text[:1].upper()}{note.text[1:]}." for note in notes if note.caution]
    return (*_of_tags(check, tags), *cautions, *_of_pixels(check, square))


def _of_tags(check: OODCheck | None, tags: dict[str, str]) -> list[str]:
    """Warnings about DICOM tags."""
    said = [f"{one[:1].upper()}{one[1:]}." for one in terms.unlike_chest(tags)]
    if tags.get("view") == "LATERAL" and (how := _rare(check, "view", "laterals")):
        said.append(f"Not a frontal image: the DICOM view is lateral; {how}.")
    if (age := _age(tags.get("age", ""))) is not None:
        who, which = ("A child", "of children") if age < ADULT else ("An adult", "of adults")
        if how := _rare(check, "age", which):
            said.append(f"{who}: the DICOM age is {age:.3g} years; {how}.")
    return said


def _rare(check: OODCheck | None, what: str, which: str) -> str:
    """How rare such images were in training; "" if they were common or the image is of an adult and ages are
    unknown."""
    every, such = (check.ages if what == "age" else check.views).tolist() if check else (0, 0)
    if which == "of adults":
        such = every - such
    if check is None or not every:
        usual = which == "of adults"
        return "" if usual else f"it is unknown how many training images were {which}"
    return (
        ""
        if is_common((every, such))
        else f"of the {every:,} {_whose(check)} with a known {what}, {such:,} were {which}"
    )


def _whose(check: OODCheck) -> str:
    """Description of the images that a check was fitted on."""
    return "training images" if check.learnt else "images on which its thresholds were chosen"


def _age(text: str) -> float | None:
    """Age in years."""
    try:
        age = float(text)
    except ValueError:
        return None
    return age if 0 <= age < math.inf else None


def _of_pixels(check: OODCheck | None, square: np.ndarray) -> list[str]:
    """Warnings about pixels."""
    if appearance.is_blank(square):
        return ["Empty: its pixels are nearly equal."]
    if check is None:
        return []
    vector = appearance.vector(counterexamples.plainly(appearance.cropped_content(square)))[None]
    look = int(check.noticed(vector)[0])
    return [] if look < 0 else [f"{_sentence(check, look)} {_worth(check, look)}"]


def _sentence(check: OODCheck, look: int) -> str:
    """One sentence for the class of a flagged image."""
    if look == 0:
        return f"Unlike the {_whose(check)}."
    if look == MIRRORED:
        return "Possibly mirrored: the heart seems to be on the right side."
    if look == LATERAL:
        return "Possibly a lateral or oblique view."
    if look == OTHER:
        return "Possibly not a frontal chest radiograph."
    return f"Possibly {CLASSES[look]}."


def _worth(check: OODCheck, look: int) -> str:
    """How often held-out images get the same warning, unaltered and altered."""
    if not check.held_out:
        return "This warning was not tested on validation images."
    alarms = f"This warning occurs for {check.alarms[look]:,} of {check.held_out:,} validation images"
    if check.altered[look]:
        alarms += f", and for {check.altered[look]:,} of the {check.held_out:,} after the corresponding alteration"
    return alarms + "."


def weakness(check: OODCheck | None) -> str:
    """A warning about a model without a reliable check; "" for others."""
    if check is None:
        return (
            f"The model has no OOD check (which requires {FEWEST} training images): warnings come from DICOM tags only."
        )
    if not check.held_out:
        return f"The OOD check was fitted on {check.fitted_on:,} images and not tested."
    share = check.alarms.sum() / check.held_out
    if check.fitted_on < ENOUGH or check.held_out < ENOUGH // 2:
        return (
            f"The OOD check was fitted on only {check.fitted_on:,} images and tested on {check.held_out:,} "
            f"validation images ({check.alarms.sum():,} with a warning): it detects rotated images reliably, but "
            f"little else."
        )
    return f"The OOD check gives a warning for {share:.0%} of the validation images." if share > RARE else ""
