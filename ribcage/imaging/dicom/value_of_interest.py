"""VOI LUT or window: which part of the values is shown (PS3.3 C.11.2), as the file says or as somebody asks."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ribcage.imaging.dicom import terms
from ribcage.imaging.dicom.elements import element_numbers, element_texts
from ribcage.imaging.dicom.modality import MOST_CHOICES, element_text, lookup_table, usable_tables
from ribcage.imaging.dicom.robust_range import percentiles_of_counts, robust_range
from ribcage.imaging.gray_image import Note

if TYPE_CHECKING:
    from pydicom import Dataset


# A window is unusable if it leaves less than this share of the pixels between black and white, or maps them to less
# than this share of the gray range.
LEAST_SHOWN = 0.1
USUAL = ("NORMAL", "STANDARD", "DEFAULT")
"""Window explanations that mark the manufacturer's default."""


@dataclass(frozen=True)
class Window:
    """A window requested instead of the file's own: an explanation, or centre and width."""

    name: str = ""
    centre: float = 0.0
    width: float = 0.0


def parse_window(text: str) -> Window | None:
    """Parse 'LUNG' or '-600,1500' (centre and width in the units of the file); None for ""."""
    if not text.strip():
        return None
    parts = text.replace("/", ",").split(",")
    try:
        element_numbers = [float(part) for part in parts]
    except ValueError:
        return Window(text.strip())
    if len(element_numbers) != 2 or not np.isfinite(element_numbers).all() or not element_numbers[1] >= 1:
        raise ValueError(f"--window {text!r} must be a name, or CENTRE,WIDTH with a width of at least 1.")
    return Window("", *element_numbers)


@dataclass(frozen=True)
class Choice:
    """One of the windows or VOI LUTs of the file."""

    note: str
    name: str
    gray: np.ndarray
    cautions: tuple[Note, ...] = ()
    invalid: str = ""
    """Why it cannot be applied to any image."""


@dataclass(frozen=True)
class ShownValues:
    """The gray of each value, from 0 to 1 before any inversion."""

    gray: np.ndarray
    notes: list[Note]
    unusable: bool
    """Whether a window or VOI LUT of the file could not be applied."""


def shown_values(
    dataset: "Dataset", values: np.ndarray, counts: np.ndarray, bits: int, window: Window | None
) -> ShownValues:
    """Apply the requested window, else the first usable VOI LUT or window, else a robust range of the values that occur
    (8 bit: of those that can be stored)."""
    choices, notes = _choices(dataset, values, counts)
    if window is not None:
        choices, missing = _preferred(choices, values, window)
        notes += missing
    for number, choice in enumerate(choices):
        why = useless(choice.gray, values, counts)
        why = choice.invalid or (why and f"it would {why}")
        if not why:
            return ShownValues(choice.gray, [*notes, *choice.cautions, Note(choice.note)], unusable=number > 0)
        requested = window is not None and not number
        notes.append(Note(f"{choice.note} unusable: {why}", caution=requested))
    if bits <= 8 and not choices:  # 8-bit pixels are meant for display
        return ShownValues(_stretched(values, float(values.min()), float(values.max())), notes, unusable=False)
    low, high, note = robust_range(values, counts)
    return ShownValues(_stretched(values, low, high), [*notes, Note(note)], unusable=bool(choices))


def _stretched(values: np.ndarray, low: float, high: float) -> np.ndarray:
    return np.clip((values - low) / max(high - low, 1e-9), 0, 1)


def _choices(dataset: "Dataset", values: np.ndarray, counts: np.ndarray) -> tuple[list[Choice], list[Note]]:
    """The VOI LUTs, then the windows; the one that the manufacturer names as normal comes first."""
    tables, notes = usable_tables(dataset, "VOILUTSequence")
    found: list[Choice] = []
    for item in tables:
        entries, bits, odd = lookup_table(dataset, item, values, counts)
        name = element_text(item, "LUTExplanation")
        cautions = tuple(each for each in odd if each.caution)
        note = "; ".join([f"VOI LUT{_which(name, len(tables))}", *(each.text for each in odd if not each.caution)])
        found.append(Choice(note, name, np.clip(entries / ((1 << bits) - 1), 0, 1), cautions))
    windows = list(_windows(dataset, values, notes))
    usual = sorted(range(len(found)), key=lambda k: not _is_usual(found[k].name))
    return [*(found[k] for k in usual), *sorted(windows, key=lambda choice: not _is_usual(choice.name))], notes


def _windows(dataset: "Dataset", values: np.ndarray, notes: list[Note]) -> Iterator[Choice]:
    centres, widths = (
        element_numbers(dataset, key, gaps=True)[:MOST_CHOICES] for key in ("WindowCenter", "WindowWidth")
    )
    if len(centres) != len(widths):
        differ = f"the number of window centres ({len(centres)}) differs from that of widths ({len(widths)})"
        notes.append(Note(differ, caution=True))
    names = element_texts(dataset, "WindowCenterWidthExplanation")
    function = element_text(dataset, "VOILUTFunction").upper() or "LINEAR"
    if function not in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
        notes.append(Note("an unknown VOILUTFunction was read as LINEAR", caution=True))
        function = "LINEAR"
    pairs = list(zip(centres, widths, strict=False))
    for place, (centre, width) in enumerate(pairs):
        name = names[place] if place < len(names) else ""
        if not np.isfinite([centre, width]).all():
            missing = f"window {place + 1} of {len(pairs)}"
            yield Choice(missing, name, values, invalid="its centre or width is missing")
            continue
        how = "" if function == "LINEAR" else f" {function}"
        note = f"window {centre:g}/{width:g}{how}{_which(name, len(pairs))}"
        invalid = "" if width >= (1 if function == "LINEAR" else 1e-9) else "its width is invalid"
        yield Choice(note, name, windowed(values, centre, width, function), invalid=invalid)


def _which(name: str, count: int) -> str:
    """Text that tells several windows apart."""
    shown = terms.explanation(name)
    several = f"one of {count}" if count > 1 else ""
    return f" ({', '.join(filter(None, (shown, several)))})" if several else ""


def _is_usual(name: str) -> bool:
    return name.strip().upper() in USUAL


def _preferred(choices: list[Choice], values: np.ndarray, window: Window) -> tuple[list[Choice], list[Note]]:
    """The choices with the requested one first, and a note if the file does not have it."""
    if not window.name:
        note = f"window {window.centre:g}/{window.width:g} as requested"
        return [Choice(note, "", windowed(values, window.centre, window.width)), *choices], []
    wanted = window.name.upper()
    own = [choice for choice in choices if choice.name.strip().upper() == wanted]
    others = [choice for choice in choices if choice.name.strip().upper() != wanted]
    return [*own, *others], [] if own else [Note("no window has the requested name", caution=True)]


def windowed(values: np.ndarray, centre: float, width: float, function: str = "LINEAR") -> np.ndarray:
    """0 … 1 by PS3.3 C.11.2.1.2 (LINEAR) and C.11.2.1.3 (SIGMOID, LINEAR_EXACT)."""
    if function == "SIGMOID":
        return 1 / (1 + np.exp(np.clip(-4 * (values - centre) / (width or 1), -700, 700)))
    if function == "LINEAR_EXACT":
        return np.clip((values - centre) / max(width, 1e-9) + 0.5, 0, 1)
    return np.clip((values - (centre - 0.5)) / max(width - 1, 1e-9) + 0.5, 0, 1)


def useless(gray: np.ndarray, values: np.ndarray, counts: np.ndarray) -> str:
    """Why this gray is unusable, or "". Of the pixels between the darkest and the brightest value of the image, enough
    must be neither black nor white, and they must differ."""
    if not np.isfinite(gray).all():
        return "not be finite"
    seen = values[counts > 0]
    if len(seen) < 3:
        return ""
    between = np.where((values > seen.min()) & (values < seen.max()), counts, 0)
    if not between.sum():
        return ""
    shown = between[(gray > 1 / 255) & (gray < 254 / 255)].sum()
    if shown < LEAST_SHOWN * between.sum():
        return "saturate the image"
    darkest, brightest = percentiles_of_counts(gray, between, (0.5, 99.5))
    if brightest - darkest < LEAST_SHOWN:
        return f"use only {100 * (brightest - darkest):.0f} % of the grey range"
    return ""
