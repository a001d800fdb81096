"""Audit: what is in one or several datasets, and what is wrong with them – as plain numbers that JSON can hold.

It looks for what makes an evaluation dishonest: patients on both sides of a split, images that occur twice (in one
folder, across folders, across the published splits of one dataset), findings without positives, impossible values.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd

from ribcage.data import dataset_folder, splits
from ribcage.data.importer import tables as importer_tables
from ribcage.data.index import SPLITS, Index
from ribcage.data.index import index_table as table_of
from ribcage.data.readers import tables
from ribcage.imaging import duplicates

EXAMPLES = 20  # pairs named one by one; the rest is counted
AGE_EDGES = np.arange(0, 101, 10)


@dataclass(frozen=True)
class Member:
    """One dataset under audit: its table, and what is known of its images when they were imported."""

    label: str
    index: Index
    dataset: dataset_folder.DatasetFolder | None = None
    lists: dict[str, np.ndarray] = field(default_factory=dict)
    """Bare lists under audit: name → (N,) bool, the rows that each one names."""
    bare: bool = False
    """Whether there is nothing but lists."""

    @property
    def fingerprints(self) -> dataset_folder.Fingerprints | None:
        """Of its images; None when there are only tables or links."""
        return self.dataset.fingerprints if self.dataset is not None and not self.dataset.facts.linked else None


def audit(members: Sequence[Member], *, near: bool = True) -> dict[str, Any]:
    """Everything; `near` also looks for near-copies, not only for identical images."""
    sets = [describe(member) for member in members]
    crossing = [crossed for one, other in pairs(members) for crossed in patients_across(one, other)]
    families = [family for member in members for family in [*split_families(member), *listed_splits(member)]]
    result = {
        "sets": sets,
        "identical": identical(members),
        "near": near_copies(members) if near else None,
        "not_compared": [member.label for member in members if member.fingerprints is None],
        "patients": crossing,
        "families": families,
    }
    return {"problems": problems(result), **result}


def pairs(members: Sequence[Member]) -> list[tuple[Member, Member]]:
    """Each dataset with itself, then each two."""
    return [(member, member) for member in members] + list(combinations(members, 2))


# ---- one dataset


def describe(member: Member) -> dict[str, Any]:
    """The counts of one dataset."""
    index, table = member.index, member.index.table
    facts = member.dataset.facts if member.dataset is not None else None
    return {
        "label": member.label,
        "bare": member.bare,
        "name": index.name,
        "source": facts.source if facts else "",
        "licence": facts.licence if facts else "",
        "root": str(index.root),
        "images": len(table),
        "patients": int((table["patient"].unique() != "").sum()),
        "without_patient": int((table["patient"] == "").sum()),
        "unknown_in_splits": int(((table["patient"] == "") & splits.rows_in_use(table["split"])).sum()),
        "studies": len(table.loc[table["study"] != "", ["patient", "study"]].drop_duplicates()),
        "rejected": facts.rejected if facts else 0,
        "stored": storage_phrase(facts) if facts else "tables only",
        "notes": facts.notes if facts else {},
        "splits": value_counts(table["split"], SPLITS),
        "split_patients": value_counts(
            table.loc[table["patient"] != "", ["split", "patient"]].drop_duplicates()["split"], SPLITS
        ),
        "findings": finding_counts(index),
        "views": value_counts(table["view"]),
        "sexes": value_counts(table["sex"]),
        "ages": ages(table["age"]),
        "sides": sides(table),
        "enlarged": importer_tables.enlarged(table, facts) if facts else "",
        "labelled": int((~np.isnan(index.labels)).any(axis=1).sum()) if index.findings else 0,
        "damaged": len(member.dataset.damaged()) if member.dataset is not None else 0,
        "without_test": [name for name, part in published(table).items() if "test" not in set(part)],
        "notices": notices(index),
        "boxes": value_counts(index.boxes["finding"]),
        "boxed_images": int(index.boxes["row"].nunique()),
    }


def storage_phrase(facts: dataset_folder.Facts) -> str:
    """How the images are kept, in a phrase."""
    if facts.linked:
        return f"linked, read at {facts.size} px"
    return f"{facts.size} × {facts.size} px, {facts.depth} bit, {facts.fit}, mean {facts.mean:.3f}, std {facts.std:.3f}"


def value_counts(values: pd.Series, order: Sequence[str] = ()) -> dict[str, int]:
    """How often each value occurs, in the given order, else the commonest first."""
    found = values.value_counts()
    names = [name for name in order if name in found.index] + [name for name in found.index if name not in order]
    return {str(name): int(found[name]) for name in names}


def finding_counts(index: Index) -> list[dict[str, Any]]:
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
    """Smallest, middle and largest width and height of the files' own images."""
    known = [name for name in ("width", "height") if name in table]
    return {name: [int(value) for value in np.percentile(table[name], [0, 50, 100])] for name in known if len(table)}


# ---- between splits and datasets


def identical(members: Sequence[Member]) -> dict[str, Any]:
    """Images whose stored pixels are the same, bit for bit."""
    rows = everybody(members)
    rows = rows[rows["pixels"].duplicated(keep=False)]
    return copy_groups(rows.assign(group=rows["pixels"]))


def near_copies(members: Sequence[Member]) -> dict[str, Any]:
    """Images that look the same though their pixels differ: re-encoded, resized, windowed, cropped …"""
    rows = everybody(members)
    first, second = near_copy_pairs(members)
    rows = rows.assign(group=components(len(rows), first, second))
    rows = rows[rows["group"].duplicated(keep=False)]
    return copy_groups(rows[rows.groupby("group")["pixels"].transform("nunique") > 1])


def everybody(members: Sequence[Member]) -> pd.DataFrame:
    """One table of all imported images: where each is, whose it is, what is said of it and its pixel hash."""
    tables = []
    for member in members:
        if member.fingerprints is not None:
            kept = member.index.table[["path", "patient", "split", *member.index.findings]]
            tables.append(kept.assign(set=member.label, name=member.index.name, pixels=member.fingerprints.pixels))
    columns = ["path", "patient", "split", "set", "name", "pixels"]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=columns)


def near_copy_pairs(members: Sequence[Member]) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of rows of `everybody` that look the same."""
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
    """A group number for each of `count` things: linked things have the same."""
    group = np.arange(count)
    while True:  # each round hands the smallest number one link further and then to the end of its chain
        smallest = group.copy()
        np.minimum.at(smallest, first, group[second])
        np.minimum.at(smallest, second, group[first])
        smallest = smallest[smallest]
        if (smallest == group).all():
            return group
        group = smallest


def copy_groups(rows: pd.DataFrame) -> dict[str, Any]:
    """Groups of copies: how many span two places, two patient numbers, two opinions; the first ones by name."""
    findings = [name for name in rows if name not in ("path", "patient", "split", "set", "name", "pixels", "group")]
    known = rows[rows["patient"] != ""]
    numbers = known.groupby(["group", "name"])["patient"].nunique()
    opinions = rows.groupby("group")[findings].nunique()  # unknown is no opinion
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


def shared_places(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """For each two splits (of one set or of two): how many groups of copies have members in both."""
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


def patients_across(one: Member, other: Member) -> list[dict[str, Any]]:
    """Patients found in two splits of one dataset, or in two datasets of one name space."""
    if one.index.name != other.index.name:  # numbers of two hospitals mean nothing to each other
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


def published(table: pd.DataFrame) -> dict[str, pd.Series]:
    """The published splits of one dataset, by their families."""
    return {str(name).removeprefix("split_"): table[name] for name in table if str(name).startswith("split_")}


def split_families(member: Member) -> list[dict[str, Any]]:
    """Where one dataset has several published splits: what one tests or chooses by and another trains on."""
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


def listed_splits(member: Member) -> list[dict[str, Any]]:
    """What bare lists have in common, each two of them."""
    found = [
        shared_rows(
            member, ("list", one), pd.Series(member.lists[one]), ("list", other), pd.Series(member.lists[other])
        )
        for one, other in combinations(member.lists, 2)
    ]
    return [each for each in found if each["images"] or each["patients"]]


def shared_rows(
    member: Member, one: tuple[str, str], rows: pd.Series, other: tuple[str, str], others: pd.Series
) -> dict[str, Any]:
    """The images and the patients that two splits, each of a family, have in common."""
    patients = splits.spelt(member.index.table["patient"])
    known = patients != ""
    own, theirs = set(patients[rows & known]), set(patients[others & known])
    return {
        "set": member.label, "one": list(one), "other": list(other),
        "images": int((rows & others).sum()), "of": int(rows.sum()),
        "patients": len(own & theirs), "of_patients": len(own),
    }  # fmt: skip


def notices(index: Index) -> list[str]:
    """What a table tells of itself that a reader must know."""
    table = index.table
    known = table["patient"][table["patient"] != ""]
    if index.name == "rsna" and len(known) and known.is_unique:
        return ["its patients are images: several images of one person may be in several splits (docs/datasets.md)"]
    return []


# ---- what to say of it


def problems(result: dict[str, Any]) -> list[str]:
    """Sentences for the reader, the worst first."""
    texts = [_family_text(family) for family in result["families"]]
    crossing = [one for one in result["patients"] if not _set_aside(*zip(one["sets"], one["splits"], strict=True))]
    texts += [_patients_text(crossed) for crossed in crossing]
    texts += _copies_texts("identical images", result["identical"])
    texts += _copies_texts("images that look the same", result["near"]) if result["near"] else []
    if given := _giving(result, crossing):
        texts.append(
            f"--drop-shared {given}, at import, in trainings and in evaluate, leaves out of {given} what it shares."
        )
    for described in result["sets"]:
        texts += _set_texts(described)
    if result["not_compared"]:
        names = ", ".join(result["not_compared"])
        texts.append(f"The images of {names} were not compared with any: they are not imported.")
    return texts


def count_of(count: int, thing: str) -> str:
    """1 image, 1,200 images"""
    return f"{count:,} {thing}{'s' * (count != 1)}"


def _giving(result: dict[str, Any], crossing: Sequence[dict[str, Any]]) -> str:
    """The split to leave shared patients and copies out of: the test split, if it has any; "" if none are shared."""
    joined = [tuple(one["splits"]) for one in crossing]
    joined += [(place["one"][1], place["other"][1]) for key in ("identical", "near") if result[key] for place in
               result[key]["places"]]  # fmt: skip
    shared = {name for one, other in joined if one and other and one != other for name in (one, other)}
    return next((name for name in ("test", "val") if name in shared), "")


def _family_text(family: dict[str, Any]) -> str:
    (one, part), (other, against) = family["one"], family["other"]
    own, theirs = (f"{split} of the {name} split" if name != "list" else f"list {split}"
                   for name, split in ((one, part), (other, against)))  # fmt: skip
    people = f" and {family['patients']:,} of its {family['of_patients']:,} patients" if family["patients"] else ""
    tested = " Never test a model of one on the other." if (part, against) == ("test", "train") else ""
    images = f"{family['images']:,} of the {family['of']:,} images in {own}"
    return f"{family['set']}: {images}{people} are in {theirs}.{tested}"


def _patients_text(crossed: dict[str, Any]) -> str:
    one, other = crossed["sets"]
    first, second = (split or "no split" for split in crossed["splits"])
    where = f"both {first} and {second}" if one == other else f"{first} of {one} and {second} of {other}"
    images = " and ".join(f"{count:,}" for count in crossed["images"])
    people = f"{count_of(crossed['patients'], 'patient')} {'is' if crossed['patients'] == 1 else 'are'}"
    return f"{one}: {people} in {where} ({images} images)."


def _copies_texts(kind: str, found: dict[str, Any]) -> list[str]:
    texts = [_place_text(place) for place in found["places"] if not _set_aside(place["one"], place["other"])]
    if not texts:
        return []
    for key, what in (("other_patient", "with two patient numbers"), ("other_labels", "with different labels")):
        texts += [f"{found[key]:,} {what}"] if found[key] else []
    groups = f"{found['groups']:,} group{'s' * (found['groups'] != 1)}"
    return [f"{groups} of {kind} ({found['images']:,} images): {'; '.join(texts)}."]


def _set_aside(one: Sequence[str], other: Sequence[str]) -> bool:
    """Whether two places of one dataset, each a set and a split, are a split and the images in none: these are
    neither learnt from nor tested on."""
    return one[0] == other[0] and bool(one[1]) != bool(other[1])


def _place_text(place: dict[str, Any]) -> str:
    one, other = (f"{split or 'no split'} of {name}" for name, split in (place["one"], place["other"]))
    if place["one"] == place["other"]:
        return f"{place['groups']:,} more than once in {one}"
    return f"{place['groups']:,} in both {one} and {other}"


def _set_texts(described: dict[str, Any]) -> list[str]:
    label, texts = described["label"], []
    if described["bare"]:
        return [f"{label}: patients are not known of names alone: name the dataset, too, to compare them."]
    if described["rejected"]:
        texts.append(f"{label}: {described['rejected']:,} images could not be imported; rejected.csv says why.")
    if described["unknown_in_splits"]:
        unknown = f"the patient of {count_of(described['unknown_in_splits'], 'image')} is not known"
        texts.append(f"{label}: {unknown}: one patient may be on both sides of a split.")
    if described["ages"].get("impossible"):
        texts.append(f"{label}: {described['ages']['impossible']:,} ages are below 0 or above 110 years.")
    if described["damaged"]:
        texts.append(f"{label}: {described['damaged']:,} images are not what was imported: their bytes have changed.")
    texts += [f"{label}: {notice}." for notice in described["notices"]]
    if not described["labelled"]:
        texts.append(f"{label}: no image has a label: no finding can be learnt from it or tested on it.")
    if set(described["splits"]) <= {""}:
        texts.append(f"{label}: no image is in a split: name a column, or give --split-list at import.")
    elif "test" not in described["splits"]:
        texts.append(f"{label}: no image is in the test split: a model of it cannot be tested on it.")
    texts += [f"{label}: the {family} split has no test images." for family in described["without_test"]]
    for split in described["splits"]:
        rows = [row for row in described["findings"] if row["split"] == split]
        empty = [row["finding"] for row in rows if row["positive"] == 0]
        one_sided = [row["finding"] for row in rows if row["positive"] and not row["negative"]]
        if one_sided and split:
            texts.append(
                f"{label}: no image in {split} is said to be without {', '.join(one_sided)}: no AUROC, unless blank "
                "labels count as absent (blank=zeros)."
            )
        if empty and split:
            texts.append(
                f"{label}: no positive image in {split} for {', '.join(empty)}: no AUROC can be computed there."
            )
    return texts


def members(words: Sequence[str], lists: Sequence[str] = (), **options: Any) -> list[Member]:
    """Every one of them, or all that is wrong with them at once; options are those of the datasets not imported."""
    if lists and not words:
        return [_bare(lists)]
    found, wrong = [], []
    for word in words:
        try:
            one = member(word, **options)
            named = splits.lists(lists, one.index.table["path"].tolist()) if lists else {}
            found.append(replace(one, lists=named))
        except (ValueError, OSError) as error:
            wrong.append(error)
    if wrong:
        texts = " ".join(str(error) for error in wrong)
        raise ValueError(texts) if any(isinstance(error, ValueError) for error in wrong) else FileNotFoundError(texts)
    return found


def _bare(lists: Sequence[str]) -> Member:
    """Lists by themselves: images are the same where their names are, or, where no list has a stem twice, the stems."""
    given = [list(dict.fromkeys(names)) for names in splits.names_listed(lists).values()]
    every = list(dict.fromkeys(name for names in given for name in names))
    stems = [tables.SUFFIX.sub("", name.rpartition("/")[2]) for name in every]
    by_stem = {stem: name for name, stem in sorted(zip(every, stems, strict=True), key=lambda pair: "." in pair[0])}
    unique = all(
        len({tables.SUFFIX.sub("", name.rpartition("/")[2]) for name in names}) == len(names) for names in given
    )
    paths = sorted(by_stem.values()) if unique else every
    index = Index("lists", table_of(pd.DataFrame({"path": paths})), ())
    return Member("lists", index, lists=splits.lists(lists, paths), bare=True)


def not_imported(word: str) -> tuple[str, str] | None:
    """The dataset and the root that NAME:ROOT means; None for a dataset folder."""
    name, colon, root = word.partition(":")
    meant = colon and not Path(word).exists() and name.isidentifier() and len(name) > 1  # C:/data is no dataset
    return (name, root) if meant else None


def member(word: str, **options: Any) -> Member:
    """A dataset folder, or NAME:ROOT for the tables of a dataset that has not been imported."""
    from ribcage.data import datasets

    if meant := not_imported(word):
        return Member(word, datasets.index(meant[0], Path(meant[1]), **options))
    opened = dataset_folder.open(word)
    return Member(word.rstrip("/\\"), opened.index, opened)
