"""Splits by a hash of the patient where none is published, equal on every machine and in any order."""

import hashlib
import logging
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd

from ribcage.data.readers import tables
from ribcage.data.readers.image_folders import report_other_folders
from ribcage.data.readers.table_text import printable_text
from ribcage.imaging.fingerprint import canonical_patient
from ribcage.runtime.remote.cache import local_place
from ribcage.runtime.spelling import count_phrase

log = logging.getLogger("ribcage")

SHARES = {"train": 0.7, "val": 0.1, "test": 0.2}
# Share of validation taken from a published training split: about that of others on the official ChestX-ray14 lists.
VAL_SHARE = 1 / 8


def completed_splits(split: pd.Series, patients: pd.Series, paths: pd.Series) -> pd.Series:
    """The given split. Without one, patients are assigned by hash; a missing validation split is taken from training;
    both with a warning."""
    parts = set(split)
    if parts <= {""}:
        return assigned(patients, paths)
    if {"train", "test"} <= parts and "val" not in parts:
        log.warning("There is no validation split: one in eight training %s is assigned to it.", _units(patients))
        return carve(split, patients, paths)
    return split


def assigned(patients: pd.Series, paths: pd.Series, shares: dict[str, float] = SHARES) -> pd.Series:
    """`by_patient`, with a warning."""
    said = "/".join(f"{100 * share:g}" for share in shares.values())
    log.warning("There is no published split: %s are assigned to splits %s by a hash.", _units(patients), said)
    return by_patient(patients, paths, shares)


def rows_in_use(split: pd.Series) -> pd.Series:
    """(N,) bool: the rows of a training, validation or test split; all rows if there is no split."""
    return (split != "") | (split == "").all()


def _units(patients: pd.Series) -> str:
    """Unit of a split: patients, or images if none is known."""
    return "patients" if (patients != "").any() else "images (no patient is known)"


def by_patient(patients: pd.Series, paths: pd.Series, shares: dict[str, float] = SHARES) -> pd.Series:
    """Split of each row; all spellings of a patient's name have the same.

    A row without a patient ("") counts as a separate patient, by its path.
    """
    fractions = _fractions(spelt(patients).where(patients != "", "\x1f" + paths))
    edges = np.cumsum(list(shares.values()))
    part = np.searchsorted(edges / edges[-1], fractions, side="right")
    return pd.Series(np.array(list(shares), dtype=object)[part], index=patients.index, dtype="str")


def carve(split: pd.Series, patients: pd.Series, paths: pd.Series, share: float = VAL_SHARE) -> pd.Series:
    """Add a validation split, this share of the training patients, to a split that has none."""
    parts = by_patient(patients, paths, {"val": share, "train": 1 - share})
    return split.mask((split == "train") & (parts == "val"), "val")


def choose(frame: pd.DataFrame, wanted: str, published: Sequence[str], shares: dict[str, float] = SHARES) -> pd.Series:
    """The requested split: a published one (column split_NAME), `patient`, or `auto`: the first that is there."""
    there = [name for name in published if f"split_{name}" in frame]
    if wanted in there or (wanted == "auto" and there):
        return frame[f"split_{there[0] if wanted == 'auto' else wanted}"]
    if wanted not in ("auto", "patient"):
        raise FileNotFoundError(
            f"The lists of the {wanted} split are missing. Add them, or use --split {' or '.join([*there, 'patient'])}."
        )
    if wanted == "auto":
        return assigned(frame["patient"], frame["path"], shares)
    return by_patient(frame["patient"], frame["path"], shares)


def names_listed(words: Sequence[str]) -> dict[str, list[str]]:
    """Name → entries of its lists, from words such as train=FILE."""
    given: dict[str, list[str]] = {}
    for word in words:
        name, equals, file = word.partition("=")
        if not (name.strip() and equals and file):
            raise ValueError(f"--split-list takes NAME=FILE, such as train=train_list.txt, not {word!r}.")
        given.setdefault(name.strip(), []).extend(tables.bare_list(local_place(Path(file).expanduser())))
    return given


def lists(words: Sequence[str], paths: Sequence[str]) -> dict[str, np.ndarray]:
    """Name → (N,) bool: the rows in plain lists of images, from words such as train=FILE; a name may have several
    lists. Images are listed by path, name or stem."""
    place, found = {path: row for row, path in enumerate(paths)}, {}
    for name, images in names_listed(words).items():
        matched = tables.matched_files(images, paths)[0]
        report_other_folders(images, matched, f"the list {name!r}")
        meant = [place.get(path, -1) for path in matched]
        strange = next((image for image, row in zip(images, meant, strict=True) if row < 0), "")
        rows = np.array([row for row in meant if row >= 0], np.int64)
        if not len(rows):
            raise ValueError(
                f"--split-list {name}: none of its {len(images):,} entries, such as {printable_text(strange)}, "
                f"is an image of this dataset, whose first image is {printable_text(str(paths[0]))}."
            )
        if len(rows) < len(images):
            log.warning(
                "%s of %s in the list %r could not be found in the dataset, such as %s.",
                f"{len(images) - len(rows):,}",
                count_phrase(len(images), "entry", "entries"),
                name,
                printable_text(strange),
            )
        found[name] = np.zeros(len(paths), bool)
        found[name][rows] = True
    return found


def refuse_shared(lists: Sequence[tuple[str, str, Sequence[str]]]) -> None:
    """ValueError if an image is in two of a dataset's published lists (file, split, images) for different splits.

    A list of training and validation images together (train_val_list.txt) may share images with one of either.
    """
    for (file, split, images), (other, other_split, others) in combinations(lists, 2):
        together = "train_val" in Path(file).name + Path(other).name and "test" not in (split, other_split)
        shared = set() if split == other_split or together else set(images) & set(others)
        if shared:
            raise ValueError(
                f"{file} and {other} list {count_phrase(len(shared), 'common image')}, such as "
                f"{printable_text(min(shared))}, but are lists of different splits. Download them again."
            )


def report_unlisted(split: pd.Series, name: str) -> pd.Series:
    """The split of each image in published lists, with a warning if some images are in none of them."""
    if none := int((split == "").sum()):
        log.warning(
            "%s in no list of the %s split, and in no split.", count_phrase(none, "image is", "images are"), name
        )
    return split


def from_lists(words: Sequence[str], patients: pd.Series, paths: pd.Series) -> pd.Series:
    """The split from lists; an image in two of them is an error, a patient in two a warning."""
    found = lists(words, paths.tolist())
    strange = [name for name in found if name not in SHARES]
    if strange:
        raise ValueError(f"--split-list {strange[0]}: the name of a split must be train, val or test.")
    split = pd.Series("", paths.index, dtype="str")
    for one, other in combinations(found, 2):
        if both := int((found[one] & found[other]).sum()):
            raise ValueError(
                f"{count_phrase(both, 'image is', 'images are')} in the lists of both {one} and {other}. To see which, "
                f"run 'ribcage inspect'."
            )
    for name, rows in found.items():
        split[rows] = name
    known = spelt(patients[(patients != "") & (split != "")])
    crossing = int((split[known.index].groupby(known).nunique() > 1).sum())
    if crossing:
        people = count_phrase(crossing, "patient is", "patients are")
        log.warning("%s in several lists; --drop-shared test removes their images from test.", people)
    if none := int((split == "").sum()):
        log.warning("%s in no list, and so in no split.", count_phrase(none, "image is", "images are"))
    return completed_splits(split, patients, paths)


def _fractions(names: pd.Series) -> np.ndarray:
    """One number in [0, 1) per name; equal names have equal numbers."""
    codes, unique = pd.factorize(names)
    digests = b"".join(hashlib.blake2b(str(name).encode(), digest_size=8).digest() for name in unique)
    # 53 bits fit a float exactly, so that no fraction rounds up to 1
    return (np.frombuffer(digests, ">u8") >> np.uint64(11))[codes] / 2.0**53


def spelt(patients: pd.Series) -> pd.Series:
    """Canonical spelling of patient names."""
    return patients.map({name: canonical_patient(name) for name in patients.unique()})


def shared(names: np.ndarray | pd.Series, split: np.ndarray | pd.Series, giving: Sequence[str]) -> np.ndarray:
    """(N,) bool: rows of the splits in `giving` whose name (of a patient or an image) is also in another split.

    Between two splits in `giving`, rows of the one named first are removed. Rows without a name ("" or 0) and rows of
    no split are ignored. Names of patients must be canonical (see `spelt`).
    """
    codes, unique = pd.factorize(np.asarray(names))
    splits = np.asarray(split)
    known = np.array([bool(name) and name == name for name in unique], bool)[codes] & (splits != "")
    gone = np.zeros(len(codes), bool)
    for part in dict.fromkeys(giving):
        own, elsewhere = (splits == part) & known, np.zeros(len(unique), bool)
        elsewhere[codes[known & ~own & ~gone]] = True
        gone |= own & ~gone & elsewhere[codes]
    return gone
