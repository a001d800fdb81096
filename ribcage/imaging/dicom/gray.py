"""Stored values → gray, by the standard's pipeline (PS3.3 C.7.6.3, C.11.1 and C.11.2):

    modality LUT or slope and intercept → VOI LUT or window → inversion

All that happens to a pixel here depends on its value alone. So it is worked out once for each of the at most 65,536
values, from the lowest to the highest, then looked up.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ribcage.imaging.dicom.elements import element_numbers, element_texts
from ribcage.imaging.dicom.transfer_syntaxes import BIG_ENDIAN
from ribcage.imaging.gray_image import CAUTION

if TYPE_CHECKING:
    from pydicom import Dataset

# A window that leaves less than this share of the pixels between black and white, or maps them to less than this
# share of the gray range, shows next to nothing.
LEAST_SHOWN = 0.1
# Without a usable window: from one to the other percentile of the pixels, widened by this share of their distance.
ROBUST = (1.0, 99.0)
WIDENED = 0.1
USUAL = ("NORMAL", "STANDARD", "DEFAULT")
"""Explanations of the window that the maker meant to be taken."""
EXPLANATION = re.compile(r"[\w /+.-]{1,24}")
"""What is repeated of an explanation; anything else might be a name."""
MOST = 1e12
"""Output values beyond are no image's."""
MOST_CHOICES = 64
LEAST_LEFT = 0.05
"""Padding that leaves less of the pixels is not believed."""


@dataclass(frozen=True)
class Window:
    """What somebody asks for instead of the file's own choice: an explanation, or centre and width."""

    name: str = ""
    centre: float = 0.0
    width: float = 0.0


def parse_window(text: str) -> Window | None:
    """'LUNG' or '-600,1500' (centre, width in the units of the file); None where nothing is asked for."""
    if not text.strip():
        return None
    parts = text.replace("/", ",").split(",")
    try:
        element_numbers = [float(part) for part in parts]
    except ValueError:
        return Window(text.strip())
    if len(element_numbers) != 2 or not np.isfinite(element_numbers).all() or not element_numbers[1] >= 1:
        raise ValueError(f"--window {text!r} is neither a name nor CENTRE,WIDTH with a width of at least 1.")
    return Window("", *element_numbers)


@dataclass(frozen=True)
class Choice:
    """One way in which the file may be shown."""

    note: str
    name: str
    gray: np.ndarray


def gray_values(
    dataset: "Dataset", values: np.ndarray, counts: np.ndarray, *, bits: int, monochrome1: bool, window: Window | None
) -> tuple[np.ndarray, list[str]]:
    """The gray of each stored value, 0 (air) … 1, and what was done for it; `counts` says how often each occurs."""
    with np.errstate(all="ignore"):  # what overflows is set aside below
        padding, odd = _padding(dataset, values, counts)
        padded = counts[padding].sum() > 0
        counts = np.where(padding, 0, counts)
        output, notes = _modality(dataset, values)
        gray, told = _windowed(dataset, output, counts, bits, window)
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


# ---- modality


def _modality(dataset: "Dataset", values: np.ndarray) -> tuple[np.ndarray, list[str]]:
    tables, notes = _usable(dataset, "ModalityLUTSequence")
    if tables:
        entries, _, told = _table(dataset, tables[0], values)
        odd = [note for note in told if note.startswith(CAUTION)]  # how many bits it says does not matter here
        return entries, [*notes, "modality LUT", *odd]
    slope, intercept = (
        element_numbers(dataset, "RescaleSlope")[:1] or [1.0],
        element_numbers(dataset, "RescaleIntercept")[:1] or [0.0],
    )
    output = values * slope[0] + intercept[0]
    if slope[0] == 0 or not np.abs(output).max() < MOST or len(np.unique(output[[0, -1]])) == 1:
        return values.astype(np.float64), [*notes, f"{CAUTION}RescaleSlope {slope[0]:g} ignored: it leaves no image"]
    return output, notes


def _usable(dataset: "Dataset", keyword: str) -> tuple[list["Dataset"], list[str]]:
    """The tables of a sequence that hold something; and that others do not."""
    items = list(dataset.get(keyword) or [])[:MOST_CHOICES]
    what = "modality" if keyword.startswith("Modality") else "VOI"
    good = [item for item in items if _holds(item)]
    broken = sum(not _is_empty(item) for item in items) > len(good)
    notes = [f"empty {what} LUT ignored"] if any(map(_is_empty, items)) else []
    return good, [*notes, *([f"{CAUTION}a {what} LUT that cannot be read was ignored"] if broken else [])]


def _is_empty(item: "Dataset") -> bool:
    try:
        return not _size(item.get("LUTData"))
    except Exception:  # whatever pydicom raises on a value that does not fit its element
        return False


def _holds(item: "Dataset") -> bool:
    try:
        return len([int(number) for number in item.LUTDescriptor]) == 3 and not _is_empty(item)
    except Exception:  # the same
        return False


def _size(data: Any) -> int:
    return len(data) if hasattr(data, "__len__") else int(data is not None)


def _table(dataset: "Dataset", item: "Dataset", values: np.ndarray) -> tuple[np.ndarray, int, list[str]]:
    """These values looked up in a modality or VOI LUT (PS3.3 C.11.1.1.1), how many bits its entries have, and what was
    odd about it."""
    count, first, said = (int(number) for number in item.LUTDescriptor)
    count = count % 65536 or 65536  # written as a signed number, a large one is negative
    if first > 32767 and values.min() < 0:
        first -= 65536
    elif first < 0 <= values.min() and first + 65536 <= values.max():
        first += 65536
    entries = _entries(dataset, item.LUTData, count, said)
    notes = [f"{CAUTION}a LUT has {len(entries)} of its {count} entries"] if len(entries) < count else []
    needed = max(1, int(entries.max()).bit_length())
    bits = said
    if not 8 <= said <= 16 or needed != said:
        bits = needed
        notes.append(f"a LUT says {said} bits and ends at {int(entries.max())}: {bits} bits taken")
    places = np.clip(np.nan_to_num(values - first), 0, len(entries) - 1).astype(np.int64)
    return entries[places], bits, notes


def _entries(dataset: "Dataset", data: Any, count: int, bits: int) -> np.ndarray:
    """The entries of a LUT, however they are written: as words, as bytes, or as bytes two to a word."""
    if isinstance(data, bytes):
        order = ">" if dataset.file_meta.TransferSyntaxUID == BIG_ENDIAN else "<"
        data = np.frombuffer(data[: len(data) // 2 * 2] if len(data) >= 2 * count else data,
                             "u1" if len(data) < 2 * count else f"{order}u2")  # fmt: skip
    entries = np.atleast_1d(np.asarray(data, np.float64))
    entries = np.where(entries < 0, entries + 65536, entries)  # written as signed numbers
    if bits <= 8 and len(entries) == -(-count // 2) < count:
        entries = entries.astype("<u2").view("u1").astype(np.float64)  # the low byte comes first
    return entries[:count]


# ---- values of interest


def _windowed(
    dataset: "Dataset", values: np.ndarray, counts: np.ndarray, bits: int, window: Window | None
) -> tuple[np.ndarray, list[str]]:
    """What was asked for, else the first VOI LUT or window that shows something, else a robust range of the values
    that occur (8 bit: all that can be stored)."""
    choices, notes = _choices(dataset, values)
    if window is not None:
        choices, missing = _preferred(choices, values, window)
        notes += missing
    for choice in choices:
        if not (why := useless(choice.gray, values, counts)):
            return choice.gray, [*notes, choice.note]
        own = "" if window is None or choice is not choices[0] else CAUTION
        notes.append(f"{own}{choice.note} set aside: it would {why}")
    if bits <= 8 and not any("set aside" in note for note in notes):  # already meant for the eye
        return _stretched(values, float(values.min()), float(values.max())), notes
    low, high, told = robust_range(values, counts)
    return _stretched(values, low, high), [*notes, told]


def _stretched(values: np.ndarray, low: float, high: float) -> np.ndarray:
    return np.clip((values - low) / max(high - low, 1e-9), 0, 1)


def _choices(dataset: "Dataset", values: np.ndarray) -> tuple[list[Choice], list[str]]:
    """The VOI LUTs, then the windows; of several the one first that its maker calls the normal one."""
    tables, notes = _usable(dataset, "VOILUTSequence")
    found: list[Choice] = []
    for item in tables:
        entries, bits, odd = _table(dataset, item, values)
        name = _text(item, "LUTExplanation")
        note = "; ".join([f"VOI LUT{_which(name, len(tables))}", *odd])
        found.append(Choice(note, name, np.clip(entries / ((1 << bits) - 1), 0, 1)))
    windows = list(_windows(dataset, values, notes))
    usual = sorted(range(len(found)), key=lambda k: not _is_usual(found[k].name))
    return [*(found[k] for k in usual), *sorted(windows, key=lambda choice: not _is_usual(choice.name))], notes


def _windows(dataset: "Dataset", values: np.ndarray, notes: list[str]) -> Iterator[Choice]:
    centres, widths = (
        element_numbers(dataset, key, gaps=True)[:MOST_CHOICES] for key in ("WindowCenter", "WindowWidth")
    )
    if len(centres) != len(widths):
        notes.append(f"{CAUTION}{len(centres)} window centres and {len(widths)} widths")
    names = element_texts(dataset, "WindowCenterWidthExplanation")
    function = _text(dataset, "VOILUTFunction").upper() or "LINEAR"
    if function not in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
        notes.append(f"{CAUTION}an unknown VOILUTFunction taken as LINEAR")
        function = "LINEAR"
    pairs = list(zip(centres, widths, strict=False))
    for place, (centre, width) in enumerate(pairs):
        name = names[place] if place < len(names) else ""
        if not width >= (1 if function == "LINEAR" else 1e-9):
            notes.append(f"window {centre:g}/{width:g} set aside: its width is invalid")
            continue
        how = "" if function == "LINEAR" else f" {function}"
        note = f"window {centre:g}/{width:g}{how}{_which(name, len(pairs))}"
        yield Choice(note, name, windowed(values, centre, width, function))


def _which(name: str, count: int) -> str:
    """What tells one of several apart."""
    said = name if EXPLANATION.fullmatch(name) else ""
    several = f"one of {count}" if count > 1 else ""
    return f" ({', '.join(filter(None, (said, several)))})" if several else ""


def _is_usual(name: str) -> bool:
    return name.strip().upper() in USUAL


def _preferred(choices: list[Choice], values: np.ndarray, window: Window) -> tuple[list[Choice], list[str]]:
    """The choices with the one first that was asked for; and that the file has none such."""
    if not window.name:
        note = f"window {window.centre:g}/{window.width:g} as asked for"
        return [Choice(note, "", windowed(values, window.centre, window.width)), *choices], []
    wanted = window.name.upper()
    own = [choice for choice in choices if choice.name.strip().upper() == wanted]
    others = [choice for choice in choices if choice.name.strip().upper() != wanted]
    return [*own, *others], [] if own else [f"{CAUTION}no window of the name asked for"]


def windowed(values: np.ndarray, centre: float, width: float, function: str = "LINEAR") -> np.ndarray:
    """0 … 1 by PS3.3 C.11.2.1.2 (LINEAR) and C.11.2.1.3 (SIGMOID, LINEAR_EXACT)."""
    if function == "SIGMOID":
        return 1 / (1 + np.exp(np.clip(-4 * (values - centre) / (width or 1), -700, 700)))
    if function == "LINEAR_EXACT":
        return np.clip((values - centre) / max(width, 1e-9) + 0.5, 0, 1)
    return np.clip((values - (centre - 0.5)) / max(width - 1, 1e-9) + 0.5, 0, 1)


def useless(gray: np.ndarray, values: np.ndarray, counts: np.ndarray) -> str:
    """What is wrong with this gray, "" when nothing is: of the pixels between the image's own darkest and brightest
    value, enough must be neither black nor white, and they must differ."""
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
    darkest, brightest = _percentiles(gray, between, (0.5, 99.5))
    if brightest - darkest < LEAST_SHOWN:
        return f"use {100 * (brightest - darkest):.0f} % of the gray range"
    return ""


def robust_range(values: np.ndarray, counts: np.ndarray) -> tuple[float, float, str]:
    """From black to white where no window says it, so that letters, markers and borders do not squeeze the anatomy.

    The darkest and the brightest value are left out, as borders and letters have them, and few pixels far from all
    others; of the rest the range goes from the 1st to the 99th percentile and a tenth beyond on both sides, but never
    beyond what occurs."""
    seen = values[counts > 0]
    if not len(seen):
        return 0.0, 0.0, "range 0 to 0"
    least, most = float(seen.min()), float(seen.max())
    between = np.where((values > least) & (values < most), counts, 0)
    between = between if between.sum() else counts
    low, high = _percentiles(values, _without_outliers(values, between), ROBUST)
    wider = WIDENED * (high - low)
    low, high = max(low - wider, least), min(high + wider, most)
    whole = (low, high) == (least, most)
    return low, high, f"range {low:.6g} to {high:.6g}{'' if whole else f' of {least:.6g} to {most:.6g}'}"


def _without_outliers(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The counts without up to a twentieth of the pixels at either end that lie further from all others than those
    reach themselves."""
    order = np.argsort(values, kind="stable")
    ordered, number = values[order], counts[order]
    there = np.flatnonzero(number)
    total, below = number.sum(), np.cumsum(number[there])
    gaps = np.diff(ordered[there])
    first, last = 0, len(there) - 1
    body = np.subtract(*_percentiles(values, counts, (95.0, 5.0)))
    for place in np.flatnonzero(gaps > max(body, 0)):
        if below[place] <= 0.05 * total:
            first = max(first, int(place) + 1)
        elif total - below[place] <= 0.05 * total:
            last = min(last, int(place))
    kept = np.zeros_like(counts)
    kept[order[there[first : last + 1]]] = number[there[first : last + 1]]
    return kept if kept.sum() else counts


def _percentiles(values: np.ndarray, counts: np.ndarray, asked: tuple[float, float]) -> tuple[float, float]:
    """Of values that occur so often."""
    values, counts = values[counts > 0], counts[counts > 0]
    order = np.argsort(values, kind="stable")
    below = np.cumsum(counts[order])
    places = [int(np.searchsorted(below, share / 100 * below[-1])) for share in asked]
    first, last = (float(values[order[min(place, len(order) - 1)]]) for place in places)
    return first, last


# ---- inversion and padding


def _inverted(dataset: "Dataset", monochrome1: bool, unusual: bool, falling: bool) -> tuple[bool, list[str]]:
    """Whether bright must become dark, and why.

    Pixels that are not meant for the eye, or not for the window they came with, or whose header contradicts itself,
    follow the physics if the file tells it: sign +1 is more X-rays for higher stored values, which is air.

    falling: the gray of higher stored values is darker, by a negative slope or a table."""
    sign = next(
        (number for number in element_numbers(dataset, "PixelIntensityRelationshipSign") if number in (1, -1)), None
    )
    shape = _text(dataset, "PresentationLUTShape").upper()
    raw = _text(dataset, "PresentationIntentType").upper() == "FOR PROCESSING"
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


def _text(dataset: "Dataset", keyword: str) -> str:
    return next(iter(element_texts(dataset, keyword)), "")
