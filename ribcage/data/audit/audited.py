"""Audited datasets: dataset folders, tables of datasets that are not imported, and plain lists of images."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd

from ribcage.data import dataset_folder, fingerprint_table, splits
from ribcage.data.index import Index
from ribcage.data.index import index_table as table_of
from ribcage.data.readers import tables
from ribcage.runtime.remote import addresses

EXAMPLES = 20  # pairs listed individually; the rest is counted


@dataclass(frozen=True)
class Member:
    """One audited dataset: its table and what the import recorded about its images."""

    label: str
    index: Index
    dataset: dataset_folder.DatasetFolder | None = None
    lists: dict[str, np.ndarray] = field(default_factory=dict)
    """Audited lists: name → (N,) bool, the rows in each list."""
    bare: bool = False
    """Whether there are only lists."""

    @property
    def fingerprints(self) -> fingerprint_table.Fingerprints | None:
        """Fingerprints of its images; None for tables and linked folders."""
        return self.dataset.fingerprints if self.dataset is not None and not self.dataset.facts.linked else None


def pairs(members: Sequence[Member]) -> list[tuple[Member, Member]]:
    """Each dataset with itself, then each pair."""
    return [(member, member) for member in members] + list(combinations(members, 2))


def members(words: Sequence[str], lists: Sequence[str] = (), **options: object) -> list[Member]:
    """All audited datasets, or one ValueError with all that is wrong; `options` are those of datasets that are not
    imported."""
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
    """Lists without a dataset: images are identified by name, or by stem if no list has a stem twice."""
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
    """The dataset and root in NAME:ROOT; None for a dataset folder."""
    if addresses.is_typed_address(word):
        return None
    name, colon, root = word.partition(":")
    meant = (
        colon and not Path(word).exists() and name.isidentifier() and len(name) > 1 and not root.startswith("//")
    )  # C:/data is no dataset
    return (name, root) if meant else None


def member(word: str, **options: object) -> Member:
    """A dataset folder, or NAME:ROOT for the tables of a dataset that has not been imported."""
    from ribcage.data import datasets

    if meant := not_imported(word):
        return Member(word, datasets.index(meant[0], meant[1], **options))
    opened = dataset_folder.open(word)
    return Member(word.rstrip("/\\"), opened.index, opened)
