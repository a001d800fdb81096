"""Datasets: several dataset folders as one. Rows are numbered consecutively over the folders."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import overload

import numpy as np
import pandas as pd

from ribcage.data import dataset_folder, reader_policy, splits
from ribcage.data.dataset_folder import DatasetFolder
from ribcage.data.index import UNKNOWN
from ribcage.data.label_policy import IGNORE, Policy
from ribcage.data.mapped_index import LARGE
from ribcage.data.radiology_reports import Report
from ribcage.data.reader_policy import RowReadings
from ribcage.data.row_boxes import RowBoxes
from ribcage.data.row_masks import RowMasks, RowPoints
from ribcage.runtime.spelling import count_phrase, did_you_mean

CHANGED = (
    "The pixel hashes of some images differ from those computed at the import, so these images have changed: {}. "
    "Import the dataset again."
)
_BLOCK = 1 << 15
"""Rows at a time, so that intermediate results fit into the cache of the processor."""
FRONTAL = ("PA", "AP")
"""The views of a frontal image."""
LABELS = np.arange(-128, 128).astype(np.float32)
"""Code of a label + 128 → its value."""
LABELS[UNKNOWN + 128] = np.nan


@dataclass(frozen=True, eq=False)
class Datasets(Sequence[DatasetFolder]):
    """Several dataset folders; `row` always means a row of the concatenated table."""

    folders: tuple[DatasetFolder, ...]

    @classmethod
    def of(cls, folders: Iterable[DatasetFolder]) -> "Datasets":
        """From opened folders; an existing Datasets is returned unchanged."""
        return folders if isinstance(folders, Datasets) else cls(tuple(folders))

    @classmethod
    def open(cls, folders: Iterable[Path | str]) -> "Datasets":
        """Open several folders; one ValueError for all that is wrong with them."""
        opened, wrong = [], []
        for folder in folders:
            try:
                opened.append(dataset_folder.open(folder))
            except (ValueError, OSError) as error:
                wrong.append(str(error))
        if wrong:
            raise ValueError(" ".join(wrong))
        return cls(tuple(opened))

    def __len__(self) -> int:
        """Number of folders."""
        return len(self.folders)

    @overload
    def __getitem__(self, place: int) -> DatasetFolder: ...
    @overload
    def __getitem__(self, place: slice) -> "Datasets": ...
    def __getitem__(self, place: int | slice) -> "DatasetFolder | Datasets":
        return Datasets(self.folders[place]) if isinstance(place, slice) else self.folders[place]

    # ---- rows

    @cached_property
    def starts(self) -> np.ndarray:
        """(folders + 1,) int64: the first row of each folder and, last, the number of all rows."""
        return np.cumsum([0, *(len(one) for one in self.folders)], dtype=np.int64)

    @property
    def total(self) -> int:
        """Number of images in all folders."""
        return int(self.starts[-1])

    def source(self, rows: np.ndarray) -> np.ndarray:
        """(N,) int64: number of each row's folder."""
        return np.searchsorted(self.starts[1:], rows, side="right")

    def place_of(self, row: int) -> tuple[DatasetFolder, int]:
        """The folder of a row, and its row in that folder."""
        source = int(self.source(np.array([row]))[0])
        return self.folders[source], int(row - self.starts[source])

    def own_rows(self, rows: np.ndarray) -> list[np.ndarray]:
        """For each folder, those of the rows that are in it, numbered within the folder."""
        return [part - start for part, start in zip(self._parts(rows), self.starts, strict=False)]

    def _parts(self, rows: np.ndarray) -> list[np.ndarray]:
        """For each folder, those of the rows that are in it."""
        if bool((rows[1:] >= rows[:-1]).all()):  # the usual case, in which each folder has one part of the rows
            return np.split(rows, np.searchsorted(rows, self.starts[1:-1]))[: len(self)]
        return [rows[(rows >= start) & (rows < end)] for start, end in zip(self.starts, self.starts[1:], strict=False)]

    def rows_of(self, *splits: str, frontal: bool = False) -> np.ndarray:
        """The rows of these splits; ValueError if one has none. frontal: only PA and AP views."""
        chosen = np.zeros(self.total, bool)
        for split in splits:
            of_split = self.where("split", split)
            if frontal:
                of_split &= self.frontal
            if not of_split.any():
                known = sorted(set(self.splits) - {""})
                hint = did_you_mean(split, known) or f" Splits: {', '.join(known) or 'none'}."
                where = ", ".join(str(one.folder) for one in self.folders)
                raise ValueError(f"No {'frontal ' * frontal}image of {where} is in split {split!r}.{hint}")
            chosen |= of_split
        return np.flatnonzero(chosen)

    # ---- the tables

    @cached_property
    def table(self) -> pd.DataFrame:
        """Path, patient, view, split and, in `name`, the dataset of every image."""
        columns = ["path", "patient", "view", "split"]
        tables = [one.index.table[columns].assign(name=one.index.name) for one in self.folders]
        return pd.concat(tables, ignore_index=True)

    def column(self, name: str) -> np.ndarray:
        """(N,) one of the columns that every index has."""
        return np.concatenate([one.index.table[name].to_numpy() for one in self.folders])

    def where(self, name: str, *values: str) -> np.ndarray:
        """(N,) bool: whether the text in the column `split` or `view` is one of the values."""
        columns = (one.index.categories[name] for one in self.folders)
        return np.concatenate([np.array([text in values for text in texts], bool)[codes] for codes, texts in columns])

    @property
    def frontal(self) -> np.ndarray:
        """(N,) bool: PA and AP views."""
        return self.where("view", *FRONTAL)

    @property
    def splits(self) -> dict[str, int]:
        """Split → number of images; "" for images in no split."""
        counts = Counter[str]()
        for one in self.folders:
            codes, names = one.index.categories["split"]
            counts.update(dict(zip(names.tolist(), np.bincount(codes, minlength=len(names)).tolist(), strict=True)))
        return {name: count for name, count in sorted(counts.items()) if count}

    @cached_property
    def patients(self) -> np.ndarray:
        """(N,) str: a name for each patient, distinct between datasets and independent of spelling; "" if unknown."""
        named = self.table["name"] + "\0" + splits.spelt(self.table["patient"])
        return named.where(self.table["patient"] != "", "").to_numpy(object)

    @cached_property
    def patient_codes(self) -> np.ndarray:
        """(N,) int64: equal for rows of one patient, also in two folders of a dataset; each unknown patient has a
        separate negative number."""
        return self.patient_codes_of(np.arange(self.total))

    def patient_codes_of(self, rows: np.ndarray) -> np.ndarray:
        """(n,) int64: `patient_codes` of these rows."""

        def of_folder(source: int, own: np.ndarray) -> np.ndarray:
            return self._numbers[source][self.folders[source].index.patient_codes.of_rows(own)]

        codes = self._of_folders(rows, np.int64, of_folder)
        return np.where(codes < 0, -1 - rows, codes)

    @cached_property
    def _numbers(self) -> list[np.ndarray]:
        """For each folder, (K,) int64: the number, over all folders, of each of its patients; -1 if unknown. Only
        folders of the same dataset can have patients in common."""
        each = [one.index.patient_codes for one in self.folders]
        names = [one.index.name for one in self.folders]
        ends = np.cumsum([len(one.keys) for one in each], dtype=np.int64)
        unknown = np.concatenate([(one.keys == "").to_numpy(bool) for one in each])
        patients: np.ndarray = np.where(unknown, -1, np.arange(len(unknown)))
        if len(set(names)) < len(names):
            spelt = [(name + one.keys).to_numpy(object) for name, one in zip(names, each, strict=True)]
            patients = np.where(unknown, "", np.concatenate(spelt))
        numbers = np.where(unknown, -1, pd.factorize(patients)[0])
        return np.split(numbers.astype(np.int64), ends[:-1])

    def patients_present(self, rows: np.ndarray) -> np.ndarray:
        """(patient_count,) bool: the known patients of these rows, by their codes."""
        present = np.zeros(self.patient_count, bool)
        parts = zip(self.folders, self._parts(rows), self.starts.tolist(), self._numbers, strict=False)
        for one, part, start, numbers in parts:
            codes = numbers[one.index.patient_codes.present(part, start)]
            present[codes[codes >= 0]] = True
        return present

    @property
    def patient_count(self) -> int:
        """All known patients have codes below this number."""
        return 1 + max((int(numbers.max(initial=-1)) for numbers in self._numbers), default=-1)

    def _of_folders(
        self, rows: np.ndarray, kind: type, values: Callable[[int, np.ndarray], np.ndarray], width: tuple[int, ...] = ()
    ) -> np.ndarray:
        """(n, *width): for each row, what `values(folder, rows of the folder)` returns."""
        sources = self.source(rows)
        found: np.ndarray = np.empty((len(rows), *width), kind)
        for source in np.flatnonzero(np.bincount(sources, minlength=len(self))).tolist():
            places = np.flatnonzero(sources == source)
            found[places] = values(source, rows[places] - self.starts[source])
        return found

    @property
    def image_hashes(self) -> np.ndarray:
        """(N,) uint64 hashes of the stored pixels; 0 in linked folders, which store none."""
        return np.concatenate([one.pixel_hashes for one in self.folders])

    def hash_blocks(self, rows: np.ndarray) -> Iterator[np.ndarray]:
        """(n,) uint64: `image_hashes` of these rows, of some rows at a time, so that they fit into the processor's
        cache."""
        for start in range(0, len(rows), _BLOCK):
            part = rows[start : start + _BLOCK]
            first, last = self.source(np.array([part.min(), part.max()])).tolist()
            if first == last:
                yield self.folders[first].pixel_hashes[part - self.starts[first]]
            else:
                yield self._of_folders(part, np.uint64, lambda source, own: self.folders[source].pixel_hashes[own])

    # ---- labels and boxes

    @property
    def findings(self) -> tuple[str, ...]:
        """Findings of all datasets, without repetition."""
        return tuple(dict.fromkeys(name for one in self.folders for name in one.index.findings))

    def asked(self, findings: Sequence[str]) -> np.ndarray:
        """(folders, F) bool: whether a dataset labels a finding."""
        asked = [[name in one.index.findings for name in findings] for one in self.folders]
        return np.array(asked, bool).reshape(len(self), len(findings))

    def source_labels(self, findings: Sequence[str], readers: str = "majority") -> np.ndarray:
        """(N, F) float32 labels 1, 0, -1 (uncertain) and NaN (unknown) of all rows, as in the source; those of several
        readers are combined by `majority` or `any`."""
        return self.labels_of(np.arange(self.total), findings, readers)

    def labels_of(self, rows: np.ndarray, findings: Sequence[str], readers: str = "majority") -> np.ndarray:
        """(n, F) float32: `source_labels` of these rows."""
        return LabelTable.of(self, findings, readers).labels(rows)

    def readings(self, findings: Sequence[str]) -> RowReadings:
        """The labels of each reader in all datasets."""
        return RowReadings.of([one.index.readings for one in self.folders], self.starts.tolist(), findings)

    def known_labels(self, rows: np.ndarray, findings: Sequence[str], policy: Policy = IGNORE) -> np.ndarray:
        """(N, F) float32 labels 1, 0 and NaN of these rows under a policy, without its random numbers.

        NaN, too, where a dataset does not label a finding: no policy applies there.
        """
        policy = policy.settled
        return self.targets(rows, self.labels_of(rows, findings, policy.readers), findings, policy)

    def targets(
        self,
        rows: np.ndarray,
        labels: np.ndarray,
        findings: Sequence[str],
        policy: Policy,
        draws: np.ndarray | None = None,
    ) -> np.ndarray:
        """(N, F) float32 targets of these rows, whose labels are `labels`, under the policy for their dataset.

        NaN where a dataset does not label a finding: no policy applies there.
        """
        sources = self.source(rows)
        names = [one.index.name for one in self.folders]
        targets = policy.apply_by_dataset(labels, findings, sources, names, draws)
        targets[~self.asked(findings)[sources]] = np.nan
        return targets

    @property
    def names(self) -> list[str]:
        """The names of the datasets, without repetition."""
        return list(dict.fromkeys(one.index.name for one in self.folders))

    def boxes(self, findings: Sequence[str], readers: str = "majority") -> RowBoxes:
        """The ground-truth boxes of these findings in pixels of the stored images. Boxes of several readers are
        combined by `majority` or `any`; with `each`, all are returned with the number of their reading."""
        read = [one.index.readings for one in self.folders]
        return RowBoxes.of(self._box_tables(readers), read, self.starts.tolist(), findings)

    @property
    def structures(self) -> tuple[str, ...]:
        """Structures and findings with masks or points in any dataset, without repetition."""
        names = (
            name for one in self.folders for table in (one.masks, one.points) for name in table["structure"].unique()
        )
        return tuple(sorted(set(names)))

    def masks(self, structures: Sequence[str], readers: str = "majority") -> RowMasks:
        """The masks of these structures and findings; those of several readers are combined by `readers`."""
        return RowMasks.of([one.masks for one in self.folders], self.starts.tolist(), structures, readers)

    def points(self, structures: Sequence[str]) -> RowPoints:
        """The points of these structures and findings, from all readers."""
        return RowPoints.of([one.points for one in self.folders], self.starts.tolist(), structures)

    @cached_property
    def reports(self) -> pd.DataFrame:
        """The radiology reports of all datasets: the `rows` of their images, their sections and their language."""
        tables = [
            one.reports.assign(rows=[tuple(row + start for row in rows) for rows in one.reports["rows"]])
            for one, start in zip(self.folders, self.starts.tolist(), strict=False)
        ]
        return pd.concat(tables, ignore_index=True)

    def report_of(self, row: int) -> Report | None:
        """The radiology report on an image; None if there is none."""
        folder, own = self.place_of(row)
        return folder.report_of(own)

    def _box_tables(self, readers: str) -> list[pd.DataFrame]:
        """The boxes of each dataset; those of several readers are combined once."""
        if readers == "each":
            return [one.index.boxes for one in self.folders]
        if readers not in self._combined:
            self._combined[readers] = [reader_policy.combined_boxes(one.index, readers) for one in self.folders]
        return self._combined[readers]

    @cached_property
    def _combined(self) -> dict[str, list[pd.DataFrame]]:
        return {}

    # ---- images

    def image(self, row: int) -> np.ndarray:
        """(S, S): one stored image."""
        folder, own = self.place_of(row)
        return folder.image(own)

    def sides(self, rows: np.ndarray) -> np.ndarray:
        """(N,) float64: the side in pixels of each row's stored image."""
        return np.array([one.size for one in self.folders], np.float64)[self.source(rows)]

    def require_intact(self, rows: np.ndarray) -> None:
        """ValueError if the pixels of one of these images have changed since the import. Remote shards are not read for
        this, because their hashes are checked after each download. Of more than LARGE images, each is checked when it
        is first read instead (`PixelCheck`)."""
        if len(rows) > LARGE:
            return
        wrong = []
        for one, own in zip(self.folders, self.own_rows(rows), strict=True):
            if one.images.is_remote:
                continue
            damaged = one.damaged(np.unique(own))
            if len(damaged):
                wrong.append(f"{count_phrase(len(damaged), 'image')} of {one.folder} (first: row {damaged[0]})")
        if wrong:
            raise ValueError(CHANGED.format(", ".join(wrong)))


@dataclass(frozen=True)
class LabelTable:
    """The labels of some findings, which are read from the tables row by row."""

    data: Datasets
    columns: tuple[np.ndarray, ...]
    """For each folder, (F,) int64: the column of each finding in its `label_codes`; -1 if it does not label it."""
    read: tuple[tuple[np.ndarray, np.ndarray], ...]
    """For each folder, its rows whose labels are combined from those of several readers, and (n, F) these labels."""

    @classmethod
    def of(cls, data: Datasets, findings: Sequence[str], readers: str = "majority") -> "LabelTable":
        """Labels of several readers are combined by `majority` or `any`."""
        columns, read = [], []
        for one in data:
            own, index = [name for name in findings if name in one.index.findings], one.index
            place = {name: number for number, name in enumerate(index.findings)}
            columns.append(np.array([place.get(name, -1) for name in findings], np.int64))
            rows, combined = np.empty(0, np.int64), np.empty((0, len(findings)), np.float32)
            if readers == "any" and len(index.readings):
                rows = np.unique(index.readings["row"].to_numpy())
                combined = np.full((len(rows), len(findings)), np.nan, np.float32)
                combined[:, columns[-1] >= 0] = reader_policy.any_labels(index.readings, own, len(one))[rows]
            read.append((rows, combined))
        return cls(data, tuple(columns), tuple(read))

    def labels(self, rows: np.ndarray) -> np.ndarray:
        """(n, F) float32 labels 1, 0, -1 (uncertain) and NaN (unknown) of these rows, as in the source."""
        width = len(self.columns[0]) if self.columns else 0
        return self.data._of_folders(rows, np.float32, self._of_folder, (width,))

    def _of_folder(self, source: int, rows: np.ndarray) -> np.ndarray:
        columns, (read, combined) = self.columns[source], self.read[source]
        codes, known = self.data[source].index.label_codes[rows], columns >= 0
        labels = np.full((len(rows), len(columns)), np.nan, np.float32)
        labels[:, known] = LABELS[codes[:, columns[known]].astype(np.int16) + 128]
        if len(read):
            place = np.minimum(np.searchsorted(read, rows), len(read) - 1)
            found = read[place] == rows
            labels[found] = combined[place[found]]
        return labels
