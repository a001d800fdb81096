"""Warnings about an image – what its DICOM says, how it was read, how it looks – and about the check itself."""

import math
import re
from collections.abc import Sequence

import numpy as np

from ribcage.bundle import counterexamples
from ribcage.bundle.ood.check import CLASSES, LATERAL, MIRRORED, OTHER, OODCheck
from ribcage.bundle.ood.fitting import ADULT, ENOUGH, FEWEST, RARE, is_common
from ribcage.imaging import appearance, image_file

RADIOGRAPHS = ("", "CR", "DX", "RG", "DR", "OT", "SC")
"""Modalities of plain radiographs, and uninformative ones."""
WORD = re.compile(r"[\w ]{1,16}")
"""What a DICOM may call a part of the body; anything else may be a name."""
CHEST = ("CHEST", "THORAX", "TORAX", "LUNG", "RIB", "STERNUM", "HEART", "BRUSTKORB", "胸", "肺")
"""Words of body parts that are in a chest radiograph."""


def image_warnings(
    check: OODCheck | None, square: np.ndarray, tags: dict[str, str], notes: Sequence[str] = ()
) -> tuple[str, ...]:
    """Warnings about an image, one sentence each: its DICOM tags, how it was read, and its pixels."""
    said = [note.removeprefix(image_file.CAUTION) for note in notes if note.startswith(image_file.CAUTION)]
    cautions = [f"{note[:1].upper()}{note[1:]}." for note in said]
    dark = [
        f"Perhaps too dark: {note.removesuffix(': the image is dark')}." for note in notes if note.endswith("is dark")
    ]
    return (*_of_tags(check, tags), *cautions, *dark, *_of_pixels(check, square))


def _of_tags(check: OODCheck | None, tags: dict[str, str]) -> list[str]:
    """Warnings about DICOM tags."""
    said = []
    modality, body = (_shown(tags.get(name, "")) for name in ("modality", "body"))
    if body and not WORD.fullmatch(body):
        body = "that is no DICOM word"
    if modality.upper() not in RADIOGRAPHS:
        said.append(f"No plain radiograph: its DICOM says modality {modality}.")
    if body and not any(word in body.upper() for word in CHEST):
        said.append(f"Perhaps no chest: its DICOM says body part {body}.")
    if tags.get("view") == "LATERAL" and (how := _rare(check, "view", "laterals")):
        said.append(f"Not a frontal image: its DICOM says it is a lateral; {how}.")
    if (age := _age(tags.get("age", ""))) is not None:
        who, which = ("A child", "of children") if age < ADULT else ("An adult", "of adults")
        if how := _rare(check, "age", which):
            said.append(f"{who}: its DICOM says age {age:.3g}; {how}.")
    return said


def _rare(check: OODCheck | None, what: str, which: str) -> str:
    """How rare such images were in training; "" where they were common, or where adults are as likely as not."""
    every, such = (check.ages if what == "age" else check.views).tolist() if check else (0, 0)
    if which == "of adults":
        such = every - such
    if check is None or not every:
        usual = which == "of adults"
        return "" if usual else f"how many training images were {which} is not known"
    return (
        "" if is_common((every, such)) else f"of {_whose(check)} with a known {what}, {every:,}, {such:,} were {which}"
    )


def _whose(check: OODCheck) -> str:
    """The images that a check was fitted on, in words."""
    return "the training images" if check.learnt else "the images that its thresholds were chosen on"


def _age(text: str) -> float | None:
    """In years."""
    try:
        age = float(text)
    except ValueError:
        return None
    return age if 0 <= age < math.inf else None


def _shown(text: str) -> str:
    """Text from a file, short and without control characters."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)[:40]


def _of_pixels(check: OODCheck | None, square: np.ndarray) -> list[str]:
    """Warnings about pixels."""
    if appearance.is_blank(square):
        return ["Empty: its pixels are all but equal."]
    if check is None:
        return []
    vector = appearance.vector(counterexamples.plainly(appearance.cropped_content(square)))[None]
    look = int(check.noticed(vector)[0])
    return [] if look < 0 else [f"{_said_of(check, look)} {_worth(check, look)}"]


def _said_of(check: OODCheck, look: int) -> str:
    """One sentence for the class that an image looks like."""
    if look == 0:
        return f"Unlike {_whose(check)}."
    if look == MIRRORED:
        return "Perhaps mirrored, left for right: the heart seems to be on the other side."
    if look == LATERAL:
        return "Looks like a lateral or oblique view."
    if look == OTHER:
        return "Perhaps no frontal chest radiograph."
    return f"Looks {CLASSES[look]}."


def _worth(check: OODCheck, look: int) -> str:
    """How often held-out images get the same warning, as they are and so altered."""
    if not check.held_out:
        return "This warning was tested on no validation image."
    alarms = f"{check.alarms[look]:,} of {check.held_out:,} validation images get this warning, too"
    if check.altered[look]:
        alarms += f", and {check.altered[look]:,} when they are altered like that"
    return alarms + "."


def weakness(check: OODCheck | None) -> str:
    """A warning about a model whose check is unreliable; "" for others."""
    if check is None:
        return f"The model has no OOD check (it needs {FEWEST} training images): warnings are from DICOM tags only."
    if not check.held_out:
        return f"The OOD check was fitted on {check.fitted_on:,} images and tested on none."
    share = check.alarms.sum() / check.held_out
    if check.fitted_on < ENOUGH or check.held_out < ENOUGH // 2:
        return (
            f"The OOD check is from few images ({check.fitted_on:,}, and {check.held_out:,} of validation, of which "
            f"{check.alarms.sum():,} get a warning): it detects turned images, but little else reliably."
        )
    return f"The OOD check warns about {share:.0%} of the validation images themselves." if share > RARE else ""
