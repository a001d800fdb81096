"""Duplicate images: identical pixels, or near-duplicates."""

from collections.abc import Sequence
from typing import cast

import numpy as np
import pandas as pd

from ribcage.data.audit.audited import EXAMPLES, Member, pairs
from ribcage.data.audit.result import Copies, SharedCopies
from ribcage.imaging import duplicates


def identical(members: Sequence[Member]) -> Copies:
    """Images whose stored pixels are identical."""
    rows = everybody(members)
    rows = rows[rows["pixels"].duplicated(keep=False)]
    return copy_groups(rows.assign(group=rows["pixels"]))


def near_copies(members: Sequence[Member]) -> Copies:
    """Near-duplicates: images that were re-encoded, resized, windowed, cropped …"""
    rows = everybody(members)
    first, second = near_copy_pairs(members)
    rows = rows.assign(group=components(len(rows), first, second))
    rows = rows[rows["group"].duplicated(keep=False)]
    return copy_groups(rows[rows.groupby("group")["pixels"].transform("nunique") > 1])


def everybody(members: Sequence[Member]) -> pd.DataFrame:
    """One table of all imported images: dataset, row, patient, labels and pixel hash."""
    tables = []
    for member in members:
        if member.fingerprints is not None:
            kept = member.index.table[["path", "patient", "split", *member.index.findings]]
            tables.append(kept.assign(set=member.label, name=member.index.name, pixels=member.fingerprints.pixels))
    columns = ["path", "patient", "split", "set", "name", "pixels"]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=columns)


def near_copy_pairs(members: Sequence[Member]) -> tuple[np.ndarray, np.ndarray]:
    """Near-duplicate pairs, as rows of the table of all images."""
    imported = [member for member in members if member.fingerprints is not None]
    start = dict(zip(map(id, imported), np.cumsum([0, *(len(member.index) for member in imported)]), strict=False))
    found = [np.empty((2, 0), np.int64)]
    for one, other in pairs(imported):
        matches = _matches(one, other)
        found.append(np.stack([matches.first + start[id(one)], matches.second + start[id(other)]]))
    first, second = np.concatenate(found, axis=1)
    return first, second


def _matches(one: Member, other: Member) -> duplicates.DuplicatePairs:
    assert one.fingerprints is not None and other.fingerprints is not None
    assert one.dataset is not None and other.dataset is not None
    if one is other:
        return duplicates.duplicates_within(one.fingerprints.prints, images=one.dataset.image)
    prints = one.fingerprints.prints, other.fingerprints.prints
    return duplicates.duplicates_between(*prints, images_a=one.dataset.image, images_b=other.dataset.image)


def components(count: int, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """A group number for each of `count` nodes; connected nodes have the same."""
    group = np.arange(count)
    while True:  # each round propagates the smallest number along one link, then to the end of its chain
        smallest = group.copy()
        np.minimum.at(smallest, first, group[second])
        np.minimum.at(smallest, second, group[first])
        smallest = smallest[smallest]
        if (smallest == group).all():
            return group
        group = smallest


def copy_groups(rows: pd.DataFrame) -> Copies:
    """Groups of duplicates: how many span two splits, two patients or different labels; the first ones by name."""
    findings = [name for name in rows if name not in ("path", "patient", "split", "set", "name", "pixels", "group")]
    known = rows[rows["patient"] != ""]
    numbers = known.groupby(["group", "name"])["patient"].nunique()
    opinions = rows.groupby("group")[findings].nunique()  # unknown labels do not count
    return {
        "groups": int(rows["group"].nunique()),
        "images": len(rows),
        "places": shared_places(rows),
        "other_patient": int((numbers > 1).groupby("group").any().sum()) if len(numbers) else 0,
        "other_labels": int((opinions > 1).any(axis=1).sum()),
        "examples": [
            [[row.set, row.split, row.path] for row in group.itertuples()]
            for _, group in list(rows.groupby("group", sort=False))[:EXAMPLES]
        ],
    }


def shared_places(rows: pd.DataFrame) -> list[SharedCopies]:
    """For each pair of splits, of one or two datasets: the number of groups of duplicates with members in both."""
    counted = rows.groupby(["group", "set", "split"], sort=False).size().rename("copies").reset_index()
    joined = counted.merge(counted, on="group", suffixes=("_one", "_other"))
    one, other = (joined["set" + side] + "\0" + joined["split" + side] for side in ("_one", "_other"))
    joined = joined[(one < other) | ((one == other) & (joined["copies_one"] > 1))]
    sizes = joined.groupby(["set_one", "split_one", "set_other", "split_other"]).size().reset_index(name="groups")
    return [
        {
            "one": [row.set_one, row.split_one],
            "other": [row.set_other, row.split_other],
            "groups": int(cast(int, row.groups)),
        }
        for row in sizes.itertuples()
    ]
