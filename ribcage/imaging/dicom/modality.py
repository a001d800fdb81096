"""Modality LUT, or slope and intercept: stored values → values with a meaning (PS3.3 C.11.1), and tables in general."""

from typing import TYPE_CHECKING, Any

import numpy as np

from ribcage.imaging.dicom.elements import element_items, element_numbers, element_texts, element_value
from ribcage.imaging.dicom.transfer_syntaxes import BIG_ENDIAN
from ribcage.imaging.gray_image import Note

if TYPE_CHECKING:
    from pydicom import Dataset


MOST_CHOICES = 64
MOST = 1e12
"""Limit on output values; no image exceeds it."""


def modality_values(dataset: "Dataset", values: np.ndarray) -> tuple[np.ndarray, list[Note]]:
    """The stored values in the units of the modality, and notes on what was done."""
    tables, notes = usable_tables(dataset, "ModalityLUTSequence")
    if tables:
        entries, _, more = lookup_table(dataset, tables[0], values)
        odd = [note for note in more if note.caution]  # the number of bits does not matter here
        return entries, [*notes, Note("modality LUT"), *odd]
    slope, intercept = (
        element_numbers(dataset, "RescaleSlope")[:1] or [1.0],
        element_numbers(dataset, "RescaleIntercept")[:1] or [0.0],
    )
    output = values * slope[0] + intercept[0]
    if slope[0] == 0 or not np.abs(output).max() < MOST or len(np.unique(output[[0, -1]])) == 1:
        ignored = (
            f"RescaleSlope {slope[0]:g} and RescaleIntercept {intercept[0]:g} ignored, because the image "
            "would become constant or invalid"
        )
        return values.astype(np.float64), [*notes, Note(ignored, caution=True)]
    return output, notes


def usable_tables(dataset: "Dataset", keyword: str) -> tuple[list["Dataset"], list[Note]]:
    """The non-empty tables of a sequence, and notes on the others."""
    items = element_items(dataset, keyword)[:MOST_CHOICES]
    what = "modality" if keyword.startswith("Modality") else "VOI"
    good = [item for item in items if _holds(item)]
    broken = sum(not _is_empty(item) for item in items) > len(good)
    notes = [Note(f"an empty {what} LUT was ignored")] if any(map(_is_empty, items)) else []
    return good, [*notes, *([Note(f"an unreadable {what} LUT was ignored", caution=True)] if broken else [])]


def _is_empty(item: "Dataset") -> bool:
    try:
        return not _size(element_value(item, "LUTData"))
    except Exception:  # anything that pydicom raises on a value that does not fit its element
        return False


def _holds(item: "Dataset") -> bool:
    try:
        return len([int(number) for number in item.LUTDescriptor]) == 3 and not _is_empty(item)
    except Exception:  # as above
        return False


def _size(data: Any) -> int:
    return len(data) if hasattr(data, "__len__") else int(data is not None)


def lookup_table(
    dataset: "Dataset", item: "Dataset", values: np.ndarray, counts: np.ndarray | None = None
) -> tuple[np.ndarray, int, list[Note]]:
    """The values looked up in a modality or VOI LUT (PS3.3 C.11.1.1.1), the number of bits of its entries, and notes;
    `counts` is how often each value occurs (None: each integer from the first to the last once)."""
    count, first, declared = (int(number) for number in item.LUTDescriptor)
    count = count % 65536 or 65536  # written as a signed number, a large count is negative
    first = _first(first, count, values, counts)
    entries = _entries(dataset, item.LUTData, count, declared)
    notes = [Note(f"a LUT has {len(entries)} of its {count} entries", caution=True)] if len(entries) < count else []
    needed = max(1, int(entries.max()).bit_length())
    bits = declared
    if not 8 <= declared <= 16 or needed != declared:
        bits = needed
        notes.append(Note(f"a LUT declares {declared} bits and ends at {int(entries.max())}: read as {bits} bits"))
    places = np.clip(np.nan_to_num(values - first), 0, len(entries) - 1).astype(np.int64)
    return entries[places], bits, notes


def _first(first: int, count: int, values: np.ndarray, counts: np.ndarray | None) -> int:
    """The first value of a LUT, which may be written with the wrong sign: the reading in which the LUT covers more
    pixels."""
    other = first
    if first > 32767 and values.min() < 0:
        other = first - 65536
    elif first < 0 <= values.min():
        other = first + 65536

    def covered(start: int) -> float:
        if counts is None:
            return float(max(0, min(start + count, values[-1] + 1) - max(start, values[0])))
        return float(counts[(values >= start) & (values < start + count)].sum())

    return other if covered(other) > covered(first) else first


def _entries(dataset: "Dataset", data: Any, count: int, bits: int) -> np.ndarray:
    """The entries of a LUT, written as words, as bytes, or as two bytes to a word."""
    if isinstance(data, bytes):
        order = ">" if dataset.file_meta.TransferSyntaxUID == BIG_ENDIAN else "<"
        words = np.frombuffer(data[: len(data) // 2 * 2], f"{order}u2")
        # more bytes than that are words, even if some are missing
        as_bytes = len(data) <= count + count % 2 and (bits <= 8 or _are_bytes(data, words))
        data = np.frombuffer(data, "u1") if as_bytes else words
    entries = np.atleast_1d(np.asarray(data, np.float64))
    entries = np.where(entries < 0, entries + 65536, entries)  # written as signed numbers
    if bits <= 8 and len(entries) == -(-count // 2) < count:
        entries = entries.astype("<u2").view("u1").astype(np.float64)  # low byte first
    return entries[:count]


def _are_bytes(data: bytes, words: np.ndarray) -> bool:
    """Whether this LUT has an entry in each byte: the bytes of larger entries alternate between low and high ones."""

    def variation(entries: np.ndarray) -> float:
        steps = np.abs(np.diff(entries.astype(np.float64)))
        return float(steps.sum() / max(np.ptp(entries), 1))

    return variation(np.frombuffer(data, "u1")) <= 2 * variation(words)


def element_text(dataset: "Dataset", keyword: str) -> str:
    """The first text of an element; "" without one."""
    return next(iter(element_texts(dataset, keyword)), "")
