"""Selection: the rows of several dataset folders used for training, validation and testing."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from ribcage.data import datasets, splits
from ribcage.data.collection import Datasets
from ribcage.data.dataset_folder import DatasetFolder
from ribcage.data.patient_codes import KNOWN
from ribcage.imaging import duplicates
from ribcage.runtime.messages import Message
from ribcage.runtime.spelling import count_phrase, did_you_mean


def count_known_patients(data: Datasets, rows: np.ndarray) -> int:
    """Number of known patients of these rows; equal numbers in two namespaces are two patients."""
    names, own = [one.index.name for one in data], data.own_rows(rows)
    if len(set(names)) < len(names):  # two folders of one dataset may have patients in common
        people = data.table.iloc[rows]
        return len(people.loc[people["patient"] != "", ["name", "patient"]].drop_duplicates())
    return sum(one.index.patient_codes.count_spelt(chosen) for one, chosen in zip(data, own, strict=True))


def share_of_patients(data: Datasets, rows: np.ndarray, share: float, seed: int = 0) -> np.ndarray:
    """The rows of a share of the patients. A smaller share is a subset of a larger one with the same seed."""
    if not 0 < share <= 1:
        raise ValueError(f"The fraction of the patients must be above 0 and at most 1, not {share}.")
    if share == 1:
        return rows
    place = _patient_order(data, rows, seed)
    return rows[place < max(1, round(share * (place.max() + 1)))]


def images_of_patients(data: Datasets, rows: np.ndarray, count: int, seed: int = 0) -> np.ndarray:
    """The rows of the fewest patients with at least this number of images, in the order of `share_of_patients`: a
    smaller number is a subset of a larger one with the same seed."""
    if not 1 <= count <= len(rows):
        raise ValueError(f"The number of images must be from 1 to {len(rows):,}, not {count:,}.")
    place = _patient_order(data, rows, seed)
    return rows[place <= np.searchsorted(np.cumsum(np.bincount(place)), count)]


def _patient_order(data: Datasets, rows: np.ndarray, seed: int) -> np.ndarray:
    """(N,) the place of each row's patient in a random order; a row without a patient is its own."""
    people = data.table.iloc[rows]
    unknown = people["patient"] == ""
    names = people["name"] + "\0" + people["patient"].mask(unknown, "\0" + people["path"])
    codes, unique = pd.factorize(names)
    digests = [hashlib.blake2b(f"{seed}\0{name}".encode(), digest_size=8).digest() for name in unique]
    place = np.empty(len(unique), np.int64)
    place[np.argsort(np.frombuffer(b"".join(digests), ">u8"), kind="stable")] = np.arange(len(unique))
    return np.asarray(place[codes])


def distinct(data: Datasets) -> None:
    """Raise if folders of one dataset have an image in common: it would count twice."""
    names = [dataset.index.name for dataset in data]
    if len(set(names)) == len(names) and not any(one.index.has_repeated_paths for one in data):
        return
    everything = data.table
    twice = int(everything.duplicated(["name", "path"]).sum())
    if twice:
        same = dict.fromkeys(str(dataset.folder) for dataset in data if names.count(dataset.index.name) > 1)
        raise ValueError(
            f"{count_phrase(twice, 'image is', 'images are')} in more than one of {', '.join(same)} "
            "(same dataset and path): pass each folder once or, if the images differ, import one of them again under "
            "another --name."
        )


def rows_that_give_way(data: Datasets, giving: Sequence[str]) -> np.ndarray:
    """(N,) bool: rows of the splits in `giving` that share a patient with, or are duplicates of, images in other
    splits. Between two splits in `giving`, rows of the one named first are removed.

    Near-duplicates count, as in `evaluation.leakage`. In linked folders only patients are known.
    """
    everything = data.table
    known = sorted(set(everything["split"]) - {""})
    if strange := [name for name in giving if name not in known]:
        hint = did_you_mean(strange[0], known)
        raise ValueError(
            f"--drop-shared {strange[0]}: the data have no split of this name.{hint} Splits: {', '.join(known)}."
        )
    parts, names, images = everything["split"].to_numpy(object), data.patients, data.image_hashes
    prints = np.concatenate([each.fingerprints.prints for each in data])
    gone = np.zeros(len(parts), bool)
    for part in dict.fromkeys(giving):
        own, rest = (np.flatnonzero((parts == part) == mine) for mine in (True, False))
        rest = rest[parts[rest] != ""]
        found = splits.shared(names, parts, (part,)) | splits.shared(images, parts, (part,))
        found[own[duplicates.duplicates_between(prints[own], prints[rest]).first]] = True
        parts[found] = ""  # removed rows no longer count for other splits
        gone |= found
    return gone


def sharing(
    data: Datasets,
    learning: np.ndarray,
    choosing: np.ndarray,
    splits: tuple[str, str],
    giving: Sequence[str] = (),
) -> list[Message]:
    """Before training: a sentence about each other split that shares patients or images with the training or validation
    rows, and its remedy; `giving` are splits from which shared images are removed."""
    found: list[Message] = []
    others = sorted(set(data.splits) - {"", *splits})
    for other in others:
        rows = np.flatnonzero(data.where("split", other))
        for own, part in ((learning, splits[0]), (choosing, splits[1])):
            people, copies = _common_patients(data, rows, own), _common_images(data, rows, own)
            if not people and not copies:
                continue
            shared = ((people, "patient"), (copies, "image"))
            what = " and ".join(f"{count:,} {kind}{'s' * (count != 1)}" for count, kind in shared if count)
            verb = "is" if people + copies == 1 else "are"
            solved = f"'ribcage evaluate --split {other}' removes them, since --drop-shared {other} was given."
            open_ = (
                f"'ribcage evaluate' will refuse split {other!r}. --drop-shared {other} removes them from {other!r}, "
                f"--drop-shared {part} from {part!r}."
            )
            remedy = solved if other in giving else open_
            text = f"{what} {verb} in {part!r} and in {other!r}: {remedy}"
            found.append(Message(text, warning=other not in giving))
    return found


@dataclass(frozen=True)
class Overlap:
    """Images and patients shared by two selections."""

    images: int
    patients: int


def split_overlap(data: Datasets, learning: np.ndarray, choosing: np.ndarray) -> Overlap:
    """The images and the known patients in both."""
    chosen = np.zeros(data.total, bool)
    chosen[choosing] = True
    both = np.unique(learning[chosen[learning]])
    return Overlap(len(both), _common_patients(data, learning, choosing))


def _common_patients(data: Datasets, rows: np.ndarray, others: np.ndarray) -> int:
    """Number of known patients that occur in both."""
    return int((data.patients_present(rows) & data.patients_present(others)).sum())


def _common_images(data: Datasets, rows: np.ndarray, others: np.ndarray) -> int:
    """Number of known image hashes that occur in both."""
    longer, shorter = sorted((rows, others), key=len, reverse=True)
    hashes = HashSet(np.concatenate([np.empty(0, np.uint64), *data.hash_blocks(shorter)]))
    found = [block[hashes.contain(block)] for block in data.hash_blocks(longer)]
    return int((np.unique(np.concatenate([np.empty(0, np.uint64), *found])) != 0).sum())


class HashSet:
    """A set of evenly distributed uint64 hashes. A bit map of their highest bits excludes most other hashes, since
    looking up millions of hashes takes seconds."""

    def __init__(self, hashes: np.ndarray) -> None:
        self._hashes, bits = np.sort(hashes), min(26, 4 + len(hashes).bit_length())
        self._lower, self._there = np.uint64(64 - bits), np.zeros(1 << bits, bool)
        self._there[self._hashes >> self._lower] = True

    def contain(self, hashes: np.ndarray) -> np.ndarray:
        """(N,) bool: whether each of these is in the set."""
        found: np.ndarray = self._there[hashes >> self._lower]
        likely = hashes[found]
        if len(likely):
            place = np.minimum(np.searchsorted(self._hashes, likely), len(self._hashes) - 1)
            found[found] = self._hashes[place] == likely
        return found


def apart(data: Datasets, learning: np.ndarray, choosing: np.ndarray, splits: tuple[str, str]) -> list[Message]:
    """Raise if training and validation share images; returns a warning if they share patients, or if no patient is
    known, and sentences about shared identifiers."""
    both, (train, val) = split_overlap(data, learning, choosing), splits
    if both.images:
        raise ValueError(
            f"{count_phrase(both.images, 'image is', 'images are')} in both --train {train} and --val {val}, so "
            "the model would be validated on training images. Use another split for --val."
        )
    shared = (
        f"{count_phrase(both.patients, 'patient is', 'patients are')} in {train!r} and in {val!r}: "
        "the best epoch, the temperature and the thresholds would be chosen on training patients. "
        f"--drop-shared {val} removes their images from {val!r}, "
        f"--drop-shared {train} from {train!r}."
    )
    warning = shared if both.patients else _unknown(data, learning, choosing, splits)
    warnings = [Message(warning, warning=True)] if warning else []
    return warnings + [Message(text) for text in shared_codes(data)]


def shared_codes(data: Datasets) -> list[str]:
    """Notes on folders of one source and different names in which the same patient identifiers occur."""
    if len(data) < 2:
        return []
    notes = []
    for a, b in combinations(data, 2):
        alike = (a.facts.dataset, a.facts.source) == (b.facts.dataset, b.facts.source)
        if alike and a.index.name != b.index.name and (count := _common_identifiers(a, b)):
            notes.append(
                f"{count:,} patient identifiers occur in both {a.folder} and {b.folder}, which were imported from the "
                f"same kind of source under different names ({a.index.name}, {b.index.name}), so they count as "
                "different patients. If they are the same patients, import both folders with the same --name."
            )
    return notes


def _common_identifiers(a: DatasetFolder, b: DatasetFolder) -> int:
    """Number of patient identifiers, in their canonical spelling, that occur in both."""
    own, other = (pa.array(one.index.patient_codes.keys, pa.large_string()) for one in (a, b))
    both = own.filter(pc.is_in(own, other))
    return len(both) - sum(pc.sum(pc.equal(both, key)).as_py() or 0 for key in ("", KNOWN))


def _unknown(data: Datasets, learning: np.ndarray, choosing: np.ndarray, splits: tuple[str, str]) -> str:
    """A warning if unknown patients may be in both."""
    blind = [
        name for name, rows in zip(splits, (learning, choosing), strict=True) if not count_known_patients(data, rows)
    ]
    if not blind:
        return ""
    advised = any(datasets.has_option(one.facts.dataset, "patient_column") for one in data)
    return (
        f"No patient identifiers are known in {' and '.join(map(repr, blind))}: images of one patient may be in "
        f"training and in validation, which biases results upwards."
    ) + " Import with --patient-column or --patient-pattern." * advised


def without_copies(data: Datasets, rows: np.ndarray, *splits: str) -> np.ndarray:
    """The rows of these splits without images that are bit-identical to one in another split."""
    return rows[~copied_elsewhere(data, rows, *splits)]


def copied_elsewhere(data: Datasets, rows: np.ndarray, *splits: str) -> np.ndarray:
    """(n,) bool: which of these rows of these splits are bit-identical to an image in another split.

    Linked folders have no pixels to compare.
    """
    if all(dataset.facts.linked for dataset in data):
        return np.zeros(len(rows), bool)
    elsewhere = ~data.where("split", *splits, "")
    for dataset, start in zip(data, data.starts.tolist(), strict=False):
        if dataset.facts.linked:
            elsewhere[start : start + len(dataset)] = False
    hashes = HashSet(np.concatenate([np.empty(0, np.uint64), *data.hash_blocks(np.flatnonzero(elsewhere))]))
    copied = np.concatenate([np.empty(0, bool), *map(hashes.contain, data.hash_blocks(rows))])
    if any(dataset.facts.linked for dataset in data):
        copied &= ~np.array([dataset.facts.linked for dataset in data])[data.source(rows)]
    return copied
