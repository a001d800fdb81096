"""Cohort: which rows of several dataset folders a model learns from, and which choose or test it."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ribcage.data import splits
from ribcage.data.collection import Datasets
from ribcage.imaging import duplicates
from ribcage.runtime.spelling import did_you_mean


def count_known_patients(data: Datasets, rows: np.ndarray) -> int:
    """How many patients of these rows are known; one number in two name spaces is two patients."""
    people = data.table.iloc[rows]
    return len(people.loc[people["patient"] != "", ["name", "patient"]].drop_duplicates())


def share_of_patients(data: Datasets, rows: np.ndarray, share: float, seed: int = 0) -> np.ndarray:
    """The rows of so many of the patients. A smaller share is part of a larger one of the same seed."""
    if not 0 < share <= 1:
        raise ValueError(f"A fraction of the patients must be above 0 and at most 1, not {share}.")
    people = data.table.iloc[rows]
    unknown = people["patient"] == ""
    names = people["name"] + "\0" + people["patient"].mask(unknown, "\0" + people["path"])
    codes, unique = pd.factorize(names)
    digests = [hashlib.blake2b(f"{seed}\0{name}".encode(), digest_size=8).digest() for name in unique]
    order = np.argsort(np.frombuffer(b"".join(digests), ">u8"), kind="stable")
    chosen = np.zeros(len(unique), bool)
    chosen[order[: max(1, round(share * len(unique)))]] = True
    return rows[chosen[codes]]


def distinct(data: Datasets) -> None:
    """Raise where folders of one name hold the same image: it would count double."""
    everything = data.table
    twice = int(everything.duplicated(["name", "path"]).sum())
    if twice:
        names = [dataset.index.name for dataset in data]
        same = dict.fromkeys(str(dataset.folder) for dataset in data if names.count(dataset.index.name) > 1)
        raise ValueError(
            f"{twice:,} images stand in more than one of {', '.join(same)} (the same set and path): "
            "give each once, or, where they are different images, import one under another --name."
        )


def rows_that_give_way(data: Datasets, giving: Sequence[str]) -> np.ndarray:
    """(N,) bool: rows of the splits that give way which show patients, or are copies of images, of other splits. Of two
    splits that both give way, the one named first gives way to the other.

    Near-copies count as copies, as in `evaluation.leakage`. Of linked folders only the patients are known."""
    everything = data.table
    known = sorted(set(everything["split"]) - {""})
    if strange := [name for name in giving if name not in known]:
        hint = did_you_mean(strange[0], known)
        raise ValueError(f"--drop-shared {strange[0]}: there is no such split.{hint} Splits: {', '.join(known)}.")
    parts, names, images = everything["split"].to_numpy(object), data.patients, data.image_hashes
    prints = np.concatenate([each.fingerprints.prints for each in data])
    gone = np.zeros(len(parts), bool)
    for part in dict.fromkeys(giving):
        own, rest = (np.flatnonzero((parts == part) == mine) for mine in (True, False))
        rest = rest[parts[rest] != ""]
        found = splits.shared(names, parts, (part,)) | splits.shared(images, parts, (part,))
        found[own[duplicates.duplicates_between(prints[own], prints[rest]).first]] = True
        parts[found] = ""  # what has left its split is in nobody's way
        gone |= found
    return gone


def sharing(
    data: Datasets,
    learning: np.ndarray,
    choosing: np.ndarray,
    splits: tuple[str, str],
    giving: Sequence[str] = (),
) -> list[str]:
    """Before a training: a sentence about each other split that shares patients or images with what is learnt from or
    chosen by, and what solves it; `giving` names splits that are known to give way."""
    everything = data.table
    names, images = data.patients, data.image_hashes
    said = []
    for other in sorted(set(everything["split"]) - {"", *splits}):
        rows = np.flatnonzero(everything["split"] == other)
        for own, part in ((learning, splits[0]), (choosing, splits[1])):
            people, copies = (len(set(each[rows]) & set(each[own]) - {"", 0}) for each in (names, images))
            if not people and not copies:
                continue
            shared = ((people, "patient"), (copies, "image"))
            what = " and ".join(f"{count:,} {kind}{'s' * (count != 1)}" for count, kind in shared if count)
            verb = "is" if people + copies == 1 else "are"
            solved = f"'ribcage evaluate --split {other}' leaves them out, since --drop-shared {other} was given."
            open_ = (
                f"'ribcage evaluate' will refuse split {other!r}. --drop-shared {other} leaves them out of {other!r}, "
                f"--drop-shared {part} out of {part!r}."
            )
            warned = "" if other in giving else "WARNING: "
            said.append(f"{warned}{what} {verb} in {part!r} and in {other!r}: {solved if warned == '' else open_}")
    return said


@dataclass(frozen=True)
class Overlap:
    """What two cohorts have in common."""

    images: int
    patients: int


def split_overlap(data: Datasets, learning: np.ndarray, choosing: np.ndarray) -> Overlap:
    """The images and the known patients that are in both."""
    names = data.patients
    both = set(names[learning]) & set(names[choosing]) - {""}
    return Overlap(len(np.intersect1d(learning, choosing)), len(both))


def apart(data: Datasets, learning: np.ndarray, choosing: np.ndarray, splits: tuple[str, str]) -> str:
    """Raise where images are learnt from that also choose; a sentence where their patients are, or where none is known,
    else ""."""
    both, (train, val) = split_overlap(data, learning, choosing), splits
    if both.images:
        raise ValueError(
            f"{both.images:,} images are in --train {train} and in --val {val}: who learns from them cannot choose "
            "by them. Give --val another split."
        )
    if not both.patients:
        return _unknown(data, learning, choosing, splits)
    return (
        f"WARNING: {both.patients:,} patients are in {train!r} and in {val!r}: the best model, its temperature and its "
        f"thresholds are chosen by people it has learnt from. --drop-shared {val} leaves them out of {val!r}, "
        f"--drop-shared {train} out of {train!r}."
    )


def _unknown(data: Datasets, learning: np.ndarray, choosing: np.ndarray, splits: tuple[str, str]) -> str:
    """A sentence where nothing can tell whether patients are in both."""
    blind = [
        name for name, rows in zip(splits, (learning, choosing), strict=True) if not count_known_patients(data, rows)
    ]
    if not blind:
        return ""
    return (
        f"WARNING: no patient is known in {' and '.join(map(repr, blind))}: images of one patient may be learnt from "
        "and choose the model, which flatters it. Import with --patient-column or --patient-pattern."
    )


def without_copies(data: Datasets, rows: np.ndarray, *splits: str) -> np.ndarray:
    """The rows of these splits without images that are, to the bit, in another split too.

    Linked folders have nothing to compare.
    """
    if all(dataset.facts.linked for dataset in data):
        return rows
    comparable = np.repeat([not dataset.facts.linked for dataset in data], [len(dataset) for dataset in data])
    hashes = data.image_hashes
    elsewhere = ~data.table["split"].isin([*splits, ""]).to_numpy() & comparable
    return rows[~(np.isin(hashes[rows], hashes[elsewhere]) & comparable[rows])]
