"""Patients and images shared by two splits or two datasets."""

from itertools import combinations

import pandas as pd

from ribcage.data import splits
from ribcage.data.audit.audited import EXAMPLES, Member
from ribcage.data.audit.counts import published
from ribcage.data.audit.result import SharedPatients, SharedSplits
from ribcage.data.index import Index


def patients_across(one: Member, other: Member) -> list[SharedPatients]:
    """Patients in two splits of a dataset, or in two datasets with common patient numbers."""
    if one.index.name != other.index.name:  # patient numbers of different hospitals are unrelated
        return []
    left, right = patients_by_split(one.index), patients_by_split(other.index)
    joined = left.merge(right, on="patient", suffixes=("_one", "_other"))
    if one is other:
        joined = joined[joined["split_one"] < joined["split_other"]]
    grouped = joined.groupby(["split_one", "split_other"])
    return [
        {
            "sets": [one.label, other.label],
            "splits": list(names),
            "patients": len(group),
            "images": [int(group["images_one"].sum()), int(group["images_other"].sum())],
            "examples": sorted(group["patient"])[:EXAMPLES],
        }
        for names, group in grouped
    ]


def patients_by_split(index: Index) -> pd.DataFrame:
    """Known patients by split, with their number of images."""
    table = index.table[index.table["patient"] != ""]
    return table.groupby(["patient", "split"]).size().rename("images").reset_index()


def split_families(member: Member) -> list[SharedSplits]:
    """Contradictions between several published splits of a dataset: what one uses for testing or validation and another
    for training."""
    families = published(member.index.table)
    asked = (("test", "train"), ("test", "val"), ("val", "train"))
    found = [
        shared_rows(member, (one, part), families[one] == part, (other, against), families[other] == against)
        for one in families
        for other in families
        for part, against in asked
        if one != other
    ]
    return [each for each in found if each["images"] or each["patients"]]


def listed_splits(member: Member) -> list[SharedSplits]:
    """Images shared by each pair of lists."""
    found = [
        shared_rows(
            member, ("list", one), pd.Series(member.lists[one]), ("list", other), pd.Series(member.lists[other])
        )
        for one, other in combinations(member.lists, 2)
    ]
    return [each for each in found if each["images"] or each["patients"]]


def shared_rows(
    member: Member, one: tuple[str, str], rows: pd.Series, other: tuple[str, str], others: pd.Series
) -> SharedSplits:
    """The images and patients shared by two splits, each of a published split."""
    patients = splits.spelt(member.index.table["patient"])
    known = patients != ""
    own, theirs = set(patients[rows & known]), set(patients[others & known])
    return {
        "set": member.label, "one": list(one), "other": list(other),
        "images": int((rows & others).sum()), "of": int(rows.sum()),
        "patients": len(own & theirs), "of_patients": len(own),
    }  # fmt: skip
