"""Cohort: which rows of several dataset folders a model learns from, and which choose or test it."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ribcage.spelling import did_you_mean
from ribcage.store import Store

FRONTAL = ("PA", "AP")


def table(stores: Sequence[Store]) -> pd.DataFrame:
    """The tables of all sets, one below the other, with the name space of their patients."""
    tables = [store.index.table[["path", "patient", "view", "split"]].assign(name=store.index.name) for store in stores]
    return pd.concat(tables, ignore_index=True)


def rows_of(stores: Sequence[Store], *splits: str, frontal: bool = False) -> np.ndarray:
    """The rows of some splits, counted through all sets; an empty one is an error."""
    everything, chosen = table(stores), np.zeros(sum(map(len, stores)), bool)
    for split in splits:
        chosen |= _of_split(stores, everything, split, frontal)
    return np.flatnonzero(chosen)


def _of_split(stores: Sequence[Store], everything: pd.DataFrame, split: str, frontal: bool) -> np.ndarray:
    """(N,) bool"""
    chosen = everything["split"] == split
    if frontal:
        chosen &= everything["view"].isin(FRONTAL)
    if not chosen.any():
        known = sorted(set(everything["split"]) - {""})
        kind = "frontal picture" if frontal else "picture"
        folders = ", ".join(str(store.folder) for store in stores)
        hint = did_you_mean(split, known) or f" Splits: {', '.join(known) or 'none'}."
        raise ValueError(f"No {kind} of {folders} is in split {split!r}.{hint}")
    return chosen.to_numpy()


def share_of_patients(stores: Sequence[Store], rows: np.ndarray, share: float, seed: int = 0) -> np.ndarray:
    """The rows of so many of the patients. A smaller share is part of a larger one of the same seed."""
    if not 0 < share <= 1:
        raise ValueError(f"A share of the patients is more than 0 and at most 1, not {share}.")
    people = table(stores).iloc[rows]
    unknown = people["patient"] == ""
    names = people["name"] + "\0" + people["patient"].mask(unknown, "\0" + people["path"])
    codes, unique = pd.factorize(names)
    digests = [hashlib.blake2b(f"{seed}\0{name}".encode(), digest_size=8).digest() for name in unique]
    order = np.argsort(np.frombuffer(b"".join(digests), ">u8"), kind="stable")
    chosen = np.zeros(len(unique), bool)
    chosen[order[: max(1, round(share * len(unique)))]] = True
    return rows[chosen[codes]]


def distinct(stores: Sequence[Store]) -> None:
    """Raise where folders of one name hold the same picture: it would count double."""
    everything = table(stores)
    twice = int(everything.duplicated(["name", "path"]).sum())
    if twice:
        names = [store.index.name for store in stores]
        same = dict.fromkeys(str(store.folder) for store in stores if names.count(store.index.name) > 1)
        raise ValueError(
            f"{twice:,} pictures stand in more than one of {', '.join(same)} (the same set and path): "
            "give each once, or, where they are different pictures, import one under another --name."
        )


@dataclass(frozen=True)
class Overlap:
    """What two cohorts have in common."""

    pictures: int
    patients: int


def overlap(stores: Sequence[Store], learning: np.ndarray, choosing: np.ndarray) -> Overlap:
    """The pictures and the known patients that are in both."""
    everything = table(stores)
    names = (everything["name"] + "\0" + everything["patient"]).where(everything["patient"] != "")
    both = set(names.iloc[learning].dropna()) & set(names.iloc[choosing].dropna())
    return Overlap(len(np.intersect1d(learning, choosing)), len(both))


def apart(stores: Sequence[Store], learning: np.ndarray, choosing: np.ndarray, splits: tuple[str, str]) -> str:
    """Raise where pictures are learnt from that also choose; a sentence where only their patients are, else ""."""
    both, (train, val) = overlap(stores, learning, choosing), splits
    if both.pictures:
        raise ValueError(
            f"{both.pictures:,} pictures are in --train {train} and in --val {val}: who learns from them cannot choose "
            "by them. Give --val another split."
        )
    if not both.patients:
        return ""
    return (
        f"WARNING: {both.patients:,} patients are in {train!r} and in {val!r}: the best model, its temperature and its "
        "thresholds are chosen by people it has learnt from."
    )


def without_copies(stores: Sequence[Store], rows: np.ndarray, *splits: str) -> np.ndarray:
    """The rows of these splits without pictures that are, to the bit, in another split too.

    Linked folders have nothing to compare.
    """
    imported = [not store.facts.linked for store in stores]
    if not any(imported):
        return rows
    comparable = np.repeat(imported, [len(store) for store in stores])
    hashes = np.zeros(len(comparable), np.uint64)
    hashes[comparable] = np.concatenate([store.fingerprints.pixels for store in stores if not store.facts.linked])
    elsewhere = ~table(stores)["split"].isin([*splits, ""]).to_numpy() & comparable
    return rows[~(np.isin(hashes[rows], hashes[elsewhere]) & comparable[rows])]
