"""Audit: what is in one or several data sets, and what is wrong with them – as plain numbers that JSON can hold.

It looks for what makes an evaluation dishonest: patients on both sides of a split, pictures that occur twice (in one
folder, across folders, across the published splits of one data set), findings without positives, impossible values.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ribcage import fingerprint
from ribcage import store as stores
from ribcage.index import SPLITS, Index

EXAMPLES = 20  # pairs named one by one; the rest is counted
AGE_EDGES = np.arange(0, 101, 10)


@dataclass(frozen=True)
class Member:
    """One data set under audit: its table, and what is known of its pictures when they were imported."""

    label: str
    index: Index
    store: stores.Store | None = None

    @property
    def fingerprints(self) -> stores.Fingerprints | None:
        """Of its pictures; None when there are only tables or links."""
        return self.store.fingerprints if self.store is not None and not self.store.facts.linked else None


def audit(members: Sequence[Member], *, near: bool = True) -> dict[str, Any]:
    """Everything; `near` also looks for near-copies, not only for identical pictures."""
    sets = [describe(member) for member in members]
    copies = identical(members)
    likenesses = near_copies(members) if near else []
    crossing = [crossed for one, other in pairs(members) for crossed in patients_across(one, other)]
    families = [family for member in members for family in split_families(member)]
    result = {"sets": sets, "identical": copies, "near": likenesses, "patients": crossing, "families": families}
    return {"problems": problems(result), **result}


def pairs(members: Sequence[Member]) -> list[tuple[Member, Member]]:
    """Each data set with itself, then each two."""
    return [(member, member) for member in members] + list(combinations(members, 2))


# ---- one data set


def describe(member: Member) -> dict[str, Any]:
    """The counts of one data set."""
    index, table = member.index, member.index.table
    facts = member.store.facts if member.store is not None else None
    return {
        "label": member.label,
        "name": index.name,
        "source": facts.source if facts else "",
        "licence": facts.licence if facts else "",
        "root": str(index.root),
        "pictures": len(table),
        "patients": int((table["patient"].unique() != "").sum()),
        "without_patient": int((table["patient"] == "").sum()),
        "studies": len(table.loc[table["study"] != "", ["patient", "study"]].drop_duplicates()),
        "rejected": facts.rejected if facts else 0,
        "stored": stored(facts) if facts else "tables only",
        "notes": facts.notes if facts else {},
        "splits": counts(table["split"], SPLITS),
        "split_patients": {
            name: int(part["patient"].replace("", np.nan).nunique()) for name, part in table.groupby("split")
        },
        "findings": findings(index),
        "views": counts(table["view"]),
        "sexes": counts(table["sex"]),
        "ages": ages(table["age"]),
        "sides": sides(table),
        "boxes": counts(index.boxes["finding"]),
        "boxed_pictures": int(index.boxes["row"].nunique()),
    }


def stored(facts: stores.Facts) -> str:
    """How the pictures are kept, in a phrase."""
    if facts.linked:
        return f"linked, read at {facts.size} px"
    return f"{facts.size} × {facts.size} px, {facts.depth} bit, {facts.fit}, mean {facts.mean:.3f}, std {facts.std:.3f}"


def counts(values: pd.Series, order: Sequence[str] = ()) -> dict[str, int]:
    """How often each value occurs, in the given order, else the commonest first."""
    found = values.value_counts()
    names = [name for name in order if name in found.index] or list(found.index)
    return {str(name): int(found[name]) for name in names}


def findings(index: Index) -> list[dict[str, Any]]:
    """For each finding and split: how many are positive, negative, uncertain and not said."""
    rows = []
    for split, part in index.table.groupby("split", sort=False):
        labels = part[list(index.findings)].to_numpy(np.float32)
        for number, finding in enumerate(index.findings):
            column = labels[:, number]
            rows.append(
                {
                    "finding": finding,
                    "split": split,
                    "positive": int((column == 1).sum()),
                    "negative": int((column == 0).sum()),
                    "uncertain": int((column == -1).sum()),
                    "unknown": int(np.isnan(column).sum()),
                }
            )
    return rows


def ages(values: pd.Series) -> dict[str, Any]:
    """Years: how many are known, the quartiles, a histogram by decade, and how many cannot be."""
    known = values.dropna()
    if known.empty:
        return {"known": 0}
    low, middle, high = (float(value) for value in np.percentile(known, [25, 50, 75]))
    histogram = np.histogram(known.clip(0, 100), AGE_EDGES)[0]
    strange = int(((known < 0) | (known > 110)).sum())
    children = int((known < 18).sum())
    return {
        "known": len(known), "quartiles": [low, middle, high], "children": children, "impossible": strange,
        "decades": {f"{edge}–{edge + 9}": int(count) for edge, count in zip(AGE_EDGES[:-1], histogram, strict=True)},
    }  # fmt: skip


def sides(table: pd.DataFrame) -> dict[str, list[int]]:
    """Smallest, middle and largest width and height of the files' own pictures."""
    known = [name for name in ("width", "height") if name in table]
    return {name: [int(value) for value in np.percentile(table[name], [0, 50, 100])] for name in known if len(table)}


# ---- between splits and data sets


def identical(members: Sequence[Member]) -> list[dict[str, Any]]:
    """Pictures whose stored pixels are the same, bit for bit."""
    found = []
    for one, other in pairs(members):
        if one.fingerprints is None or other.fingerprints is None:
            continue
        first, second = equal_pairs(one.fingerprints.pixels, None if one is other else other.fingerprints.pixels)
        found.append(pair_summary(one, other, first, second))
    return [summary for summary in found if summary["pairs"]]


def equal_pairs(values: np.ndarray, others: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """(i, j) of all equal values: within one array (i < j), or between two."""
    one = pd.DataFrame({"value": values, "first": np.arange(len(values))})
    two = one if others is None else pd.DataFrame({"value": others, "first": np.arange(len(others))})
    repeated = one[one["value"].duplicated(keep=False)] if others is None else one[one["value"].isin(two["value"])]
    joined = repeated.merge(two.rename(columns={"first": "second"}), on="value")
    joined = joined[joined["first"] < joined["second"]] if others is None else joined
    joined = joined.sort_values(["first", "second"])
    return joined["first"].to_numpy(), joined["second"].to_numpy()


def near_copies(members: Sequence[Member]) -> list[dict[str, Any]]:
    """Pictures that look the same: re-encoded, resized, windowed, cropped … (identical ones are not named again)."""
    found = []
    for one, other in pairs(members):
        if one.fingerprints is None or other.fingerprints is None:
            continue
        if one is other:
            matches = fingerprint.duplicates(one.fingerprints.prints, pictures=reader(one))
        else:
            matches = fingerprint.matches(
                one.fingerprints.prints, other.fingerprints.prints, pictures_a=reader(one), pictures_b=reader(other)
            )
        new = one.fingerprints.pixels[matches.first] != other.fingerprints.pixels[matches.second]
        found.append(pair_summary(one, other, matches.first[new], matches.second[new]))
    return [summary for summary in found if summary["pairs"]]


def reader(member: Member) -> Any:
    """row → picture, for a closer look at two that may be one."""
    return member.store.picture if member.store is not None else None


def pair_summary(one: Member, other: Member, first: np.ndarray, second: np.ndarray) -> dict[str, Any]:
    """Pairs of pictures, counted by split, by patient and by agreement of their labels; the first few by name."""
    left, right = one.index.table.iloc[first], other.index.table.iloc[second]
    splits = pd.Series(
        [
            " – ".join(sorted(pair) if one is other else pair)
            for pair in zip(left["split"], right["split"], strict=True)
        ],
        dtype="str",
    )
    known = (left["patient"].to_numpy() != "") & (right["patient"].to_numpy() != "")
    same = left["patient"].to_numpy() == right["patient"].to_numpy()
    shared = [name for name in one.index.findings if name in other.index.findings]
    labels = left[shared].to_numpy(np.float32), right[shared].to_numpy(np.float32)
    differ = ((labels[0] != labels[1]) & ~(np.isnan(labels[0]) & np.isnan(labels[1]))).any(axis=1)
    return {
        "sets": [one.label, other.label],
        "pairs": len(first),
        "by_split": counts(splits),
        "other_patient": int((known & ~same).sum()) if one is other else None,
        "other_labels": int(differ.sum()),
        "examples": [list(names) for names in zip(left["path"][:EXAMPLES], right["path"][:EXAMPLES], strict=True)],
    }


def patients_across(one: Member, other: Member) -> list[dict[str, Any]]:
    """Patients found in two splits of one data set, or in two data sets of one name space."""
    if one.index.name != other.index.name:  # numbers of two hospitals mean nothing to each other
        return []
    left, right = seen(one.index), seen(other.index)
    joined = left.merge(right, on="patient", suffixes=("_one", "_other"))
    if one is other:
        joined = joined[joined["split_one"] < joined["split_other"]]
    grouped = joined.groupby(["split_one", "split_other"])
    return [
        {
            "sets": [one.label, other.label],
            "splits": list(names),
            "patients": len(group),
            "pictures": [int(group["pictures_one"].sum()), int(group["pictures_other"].sum())],
            "examples": sorted(group["patient"])[:EXAMPLES],
        }
        for names, group in grouped
    ]


def seen(index: Index) -> pd.DataFrame:
    """Known patients by split, with their number of pictures."""
    table = index.table[index.table["patient"] != ""]
    return table.groupby(["patient", "split"]).size().rename("pictures").reset_index()


def split_families(member: Member) -> list[dict[str, Any]]:
    """Where one data set has several published splits: pictures that one tests on and another trains on."""
    table = member.index.table
    families = [str(name).removeprefix("split_") for name in table if str(name).startswith("split_")]
    found = []
    for tested, trained in [(one, other) for one in families for other in families if one != other]:
        test, train = table[f"split_{tested}"] == "test", table[f"split_{trained}"] == "train"
        both = int((test & train).sum())
        if both:
            found.append(
                {"set": member.label, "test_of": tested, "train_of": trained, "pictures": both, "of": int(test.sum())}
            )
    return found


# ---- what to say of it


def problems(result: dict[str, Any]) -> list[str]:
    """Sentences for the reader, the worst first."""
    texts = [_family_text(family) for family in result["families"]]
    texts += [_patients_text(crossed) for crossed in result["patients"]]
    for kind, summaries in (("identical", result["identical"]), ("near-identical", result["near"])):
        texts += [_copies_text(kind, summary) for summary in summaries]
    for described in result["sets"]:
        texts += _set_texts(described)
    return texts


def _family_text(family: dict[str, Any]) -> str:
    return (
        f"{family['set']}: {family['pictures']:,} of the {family['of']:,} test pictures of the {family['test_of']} "
        f"split are training pictures of the {family['train_of']} split. Never test a model of one on the other."
    )


def _patients_text(crossed: dict[str, Any]) -> str:
    one, other = crossed["sets"]
    first, second = (split or "no split" for split in crossed["splits"])
    where = f"both {first} and {second}" if one == other else f"{first} of {one} and {second} of {other}"
    pictures = " and ".join(f"{count:,}" for count in crossed["pictures"])
    return f"{one}: {crossed['patients']:,} patients are in {where} ({pictures} pictures)."


def _copies_text(kind: str, summary: dict[str, Any]) -> str:
    one, other = summary["sets"]
    where = one if one == other else f"{one} and {other}"
    splits = ", ".join(f"{split} {count:,}" for split, count in summary["by_split"].items())
    text = f"{where}: {summary['pairs']:,} pairs of {kind} pictures ({splits})"
    if summary["other_patient"]:
        text += f", {summary['other_patient']:,} under two patient numbers"
    return text + (f", {summary['other_labels']:,} with different labels." if summary["other_labels"] else ".")


def _set_texts(described: dict[str, Any]) -> list[str]:
    label, texts = described["label"], []
    if described["rejected"]:
        texts.append(f"{label}: {described['rejected']:,} pictures could not be imported; rejected.csv says why.")
    if described["without_patient"]:
        unknown = f"the patient of {described['without_patient']:,} pictures is not known"
        texts.append(f"{label}: {unknown}: one patient may be on both sides of a split.")
    if described["ages"].get("impossible"):
        texts.append(f"{label}: {described['ages']['impossible']:,} ages are below 0 or above 110 years.")
    for split in described["splits"]:
        rows = [row for row in described["findings"] if row["split"] == split]
        empty = [row["finding"] for row in rows if row["positive"] == 0]
        if empty and split:
            texts.append(
                f"{label}: no positive picture in {split} for {', '.join(empty)}: no AUROC can be computed there."
            )
    return texts


def member(word: str) -> Member:
    """A dataset folder, or NAME:ROOT for the tables of a data set that has not been imported."""
    from ribcage import datasets

    name, colon, root = word.partition(":")
    if colon and not Path(word).exists() and name in datasets.names():
        return Member(word, datasets.index(name, Path(root)))
    opened = stores.open(word)
    return Member(word.rstrip("/\\"), opened.index, opened)
