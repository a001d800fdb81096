"""Dataset folder: the images of a dataset, its index and their fingerprints, written by `ribcage import`.

`images.npy` (N, S, S) is plain NumPy and memory-mapped; with `--images-per-shard`, the images are divided among shards,
`images-00000.npy` and so on, whose sizes and hashes are in `dataset.json`. `index.parquet` is the Index,
`readings.parquet` the labels of each reader where several readers labelled the images, `masks.parquet` and
`points.parquet` what was drawn on them, `reports.parquet` the radiology reports, `fingerprints.parquet` identifies
images and patients across folders, `dataset.json` records the source. `dataset.json` is written last: a folder without
it is incomplete and cannot be opened. A linked folder has no images.npy; its images are read from their original files
each time.
"""

import contextlib
import functools
import importlib.metadata
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd

from ribcage import __version__
from ribcage.data import datasets, mapped_index
from ribcage.data.dataset_facts import Facts, why_not_opened
from ribcage.data.fingerprint_table import Fingerprints, patient_hashes, pixel_column
from ribcage.data.image_store import (
    HEADER,
    IMAGES_FILE,
    ArrayStore,
    ImageStore,
    LinkedStore,
    RemoteStore,
    ShardStore,
    open_array,
    shard_name,
    shard_sizes,
    warn_of_download,
)
from ribcage.data.index import SIDES, Index
from ribcage.data.masks import MASKS_FILE, load_masks, no_masks, stored_masks_of
from ribcage.data.points import POINTS_FILE, load_points, no_points
from ribcage.data.radiology_reports import REPORTS_FILE, Report, RowReports, load_reports, no_reports, report_numbers
from ribcage.data.readings import READINGS_FILE
from ribcage.data.table_hash import require_table, table_hash
from ribcage.imaging import fingerprint, image_file
from ribcage.reports import html
from ribcage.runtime import files
from ribcage.runtime.remote import addresses, cache
from ribcage.runtime.remote.cache import local_file

_BLOCK = 256
"""Images whose hashes are computed by one thread at a time."""
SHOWN = 12
"""Images shown in a notebook."""
BESIDE = (READINGS_FILE, REPORTS_FILE, MASKS_FILE, POINTS_FILE)
"""Tables beside index.parquet, each of which is written only if it is not empty."""
EAGER = (READINGS_FILE,)
"""Those of them that are read when a folder is opened; the others are read on first use."""
INDEX_FILE, FINGERPRINTS_FILE = "index.parquet", "fingerprints.parquet"
TABLES = (INDEX_FILE, *BESIDE, FINGERPRINTS_FILE)


@dataclass(frozen=True)
class DatasetFolder:
    """An opened dataset folder."""

    folder: Path
    """A local folder or, as a path, a remote address."""
    facts: Facts
    index: Index
    images: ImageStore
    """(N, S, S) uint8 or uint16."""

    def __len__(self) -> int:
        return len(self.index)

    @property
    def size(self) -> int:
        """Side of a stored image in pixels."""
        return self.facts.size

    @property
    def mean(self) -> float:
        """Mean of all pixels, scaled to 0 … 1."""
        return self.facts.mean

    @property
    def std(self) -> float:
        """Standard deviation of all pixels, scaled to 0 … 1."""
        return self.facts.std

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of a stored pixel."""
        return np.dtype(np.uint8 if self.facts.depth == 8 else np.uint16)

    def _repr_html_(self) -> str:
        """In a notebook: evenly spaced images, and a summary."""
        counts = self.index.table["split"].value_counts()
        said = [(str(len(self)), "images"), *((str(count), part or "no split") for part, count in counts.items())]
        rows = np.unique(np.linspace(0, len(self) - 1, SHOWN).astype(int)) if len(self) else ()
        figures = []
        for row in rows:
            found = [name for name in self.index.findings if self.index.table[name].iloc[row] == 1]
            boxes = self.index.boxes[self.index.boxes["row"] == row][list(SIDES)]
            with contextlib.suppress(ValueError, OSError):  # a missing linked file
                pixels = np.asarray(self.image(row))
                drawn = list(boxes.itertuples(index=False, name=None))
                figures.append(html.gray_figure(pixels, ", ".join(found), drawn, masks=self.masks_of(row)))
        return html.notebook_page(self.facts.name, said, figures)

    def damaged(self, rows: np.ndarray | None = None) -> np.ndarray:
        """The rows (default: of all) whose pixels have changed since the import, by their hashes; about a gigabyte per
        second and core. Empty for a linked folder, which stores neither pixels nor hashes."""
        if self.facts.linked:
            return np.empty(0, np.int64)
        chosen = np.arange(len(self)) if rows is None else rows
        starts = range(0, len(chosen), _BLOCK)
        with ThreadPoolExecutor() as pool:
            found = list(pool.map(lambda start: self._damaged(chosen[start : start + _BLOCK]), starts))
        return np.concatenate([chosen[:0], *found])

    def _damaged(self, rows: np.ndarray) -> np.ndarray:
        images = self.images.read(rows.tolist())
        return rows[np.array([fingerprint.pixel_hash(image) for image in images], np.uint64) != self.pixel_hashes[rows]]

    def image(self, row: int) -> np.ndarray:
        """(S, S): one stored image."""
        return self.images[row]

    @cached_property
    def fingerprints(self) -> "Fingerprints":
        """Fingerprints of all images and patients, read on first use. A linked folder has only those of its
        patients."""
        if self.facts.linked:
            return Fingerprints.of_patients(self.index, private=self.private)
        file = local_file(self.folder, FINGERPRINTS_FILE)
        require_table(file, self.facts)
        found = Fingerprints.load(file)
        if len(found.pixels) != len(self):
            raise ValueError(
                f"{file} has {len(found.pixels):,} rows, but the dataset has {len(self):,} images. Import the dataset "
                f"again."
            )
        keyed, unkeyed = patient_hashes(self.index, private=self.private), patient_hashes(self.index)
        return replace(found, patients=keyed, unkeyed=unkeyed)

    @cached_property
    def pixel_hashes(self) -> np.ndarray:
        """(N,) uint64 hashes of the stored pixels, without reading the other fingerprints; 0 in a linked folder, which
        stores none. Those of a large folder are memory-mapped."""
        if self.facts.linked:
            return np.zeros(len(self), np.uint64)
        file, mapped = local_file(self.folder, FINGERPRINTS_FILE), None

        def read() -> np.ndarray:
            require_table(file, self.facts)
            return pixel_column(file)

        if len(self) > mapped_index.LARGE:
            mapped = mapped_index.open_pixel_hashes(self.facts.tables.get(file.name, ""), read)
        hashes = read() if mapped is None else mapped
        if len(hashes) != len(self):
            raise ValueError(
                f"{file} has {len(hashes):,} rows, but the dataset has {len(self):,} images. Import the dataset again."
            )
        return hashes

    @cached_property
    def reports(self) -> pd.DataFrame:
        """One row per radiology report: the `rows` of its images, its sections and its language; read on first use."""
        if self._mapped_reports is not None:
            return self._mapped_reports.frame
        return self._table(REPORTS_FILE, load_reports) if REPORTS_FILE in self.facts.tables else no_reports()

    @cached_property
    def masks(self) -> pd.DataFrame:
        """One row per mask, with its place in the stored image (see `data.masks`); read on first use."""
        return self._annotations(MASKS_FILE, load_masks, no_masks)

    @cached_property
    def points(self) -> pd.DataFrame:
        """One row per point, in pixels of the stored image (see `data.points`); read on first use."""
        return self._annotations(POINTS_FILE, load_points, no_points)

    def _annotations(
        self, name: str, load: Callable[[Path, int], pd.DataFrame], empty: Callable[[], pd.DataFrame]
    ) -> pd.DataFrame:
        """A table beside the index, memory-mapped if it is large; the empty one if the folder has none."""
        if name not in self.facts.tables:
            return empty()
        file, digest = local_file(self.folder, name), self.facts.tables[name]
        return mapped_index.open_annotations(file, digest, len(self), lambda: self._table(name, load))

    @cached_property
    def _mapped_reports(self) -> mapped_index.MappedReports | None:
        """The reports, if there are many."""
        if (digest := self.facts.tables.get(REPORTS_FILE)) is None:
            return None
        file, read = local_file(self.folder, REPORTS_FILE), lambda: self._table(REPORTS_FILE, load_reports)
        return mapped_index.MappedReports.open(file, digest, len(self), read)

    def _table(self, name: str, load: Callable[[Path, int], pd.DataFrame]) -> pd.DataFrame:
        """A table beside the index, checked and in memory."""
        file = local_file(self.folder, name)
        require_table(file, self.facts)
        return load(file, len(self))

    def masks_of(self, row: int) -> dict[str, np.ndarray]:
        """Structure → (S, S) uint8: 1 where any of its masks covers a pixel of the stored image."""
        return stored_masks_of(self.masks, row, self.size)

    def report_of(self, row: int) -> Report | None:
        """The radiology report on an image; None if there is none."""
        return self._row_reports.of_row(row)

    @cached_property
    def _row_reports(self) -> RowReports:
        if self._mapped_reports is not None:
            return self._mapped_reports.by_row
        return RowReports(self.reports, report_numbers(self.reports, len(self)))

    @property
    def table_files(self) -> list[str]:
        """Names of the Parquet files of the folder."""
        return [name for name in TABLES if name in self.facts.tables]

    def require_tables(self) -> None:
        """ValueError if a table, read or not, has changed since the import. A copy of the folder records new hashes,
        so it would make such a table valid."""
        for name in self.table_files:
            require_table(local_file(self.folder, name), self.facts)

    @property
    def tables_with_labels(self) -> list[str]:
        """Hashes of index.parquet and, if there is one, readings.parquet."""
        return [self.facts.tables[name] for name in (INDEX_FILE, READINGS_FILE) if name in self.facts.tables]

    @property
    def private(self) -> bool:
        """Whether its patient identifiers are private, and are hashed with the site's key."""
        return not datasets.published_patients(self.facts.dataset, self.facts.options)


def open(folder: Path | str) -> DatasetFolder:
    """Open a dataset folder, local or at a remote address."""
    folder = addresses.parse_place(str(folder))
    if not addresses.is_remote(folder) and not (folder / "dataset.json").is_file():
        raise FileNotFoundError(why_not_opened(folder))
    facts = Facts.load(local_file(folder, "dataset.json"))
    beside = [name for name in EAGER if name in facts.tables]
    for name in beside:
        require_table(local_file(folder, name), facts)
    index = _open_index(local_file(folder, INDEX_FILE), facts, beside)
    images = open_images(folder, facts, index)
    if len(index) != facts.images:
        raise ValueError(
            f"The index of {folder} has {len(index):,} rows, but the dataset has {facts.images:,} images. Import the "
            f"dataset again."
        )
    return DatasetFolder(folder, facts, index, images)


def _open_index(file: Path, facts: Facts, beside: list[str]) -> Index:
    """The index with these tables beside it; that of a large folder is memory-mapped."""
    if facts.images > mapped_index.LARGE and not beside:
        mapped = mapped_index.open_index(file, facts.tables.get(file.name, ""), lambda: require_table(file, facts))
        if mapped is not None:
            return mapped
    require_table(file, facts)
    return Index.load(file, beside)


def save_index(index: Index, file: Path) -> None:
    """Write an index and the tables beside it that are not empty."""
    with files.atomic(file) as part:
        index.save(part)
    written = index.beside
    for name in BESIDE:
        if name not in written:
            file.with_name(name).unlink(missing_ok=True)
            continue
        with files.atomic(file.with_name(name)) as part:
            written[name](part)


def load_index(file: Path) -> Index:
    """Read what `save_index` wrote."""
    return Index.load(file, [name for name in BESIDE if file.with_name(name).exists()])


def write_facts(folder: Path, facts: Facts) -> None:
    """Write dataset.json, which completes a folder."""
    tables = {name: table_hash(folder / name) for name in TABLES if (folder / name).exists()}
    with files.atomic(folder / "dataset.json") as part:
        replace(facts, tables=tables).save(part)


def open_images(folder: Path, facts: Facts, index: Index) -> ImageStore:
    """The images, after checking that their file matches dataset.json."""
    shape, dtype = (facts.images, facts.size, facts.size), np.dtype(f"uint{facts.depth}")
    if facts.linked:
        return LinkedStore(_linked(folder, facts, index), shape, dtype)
    if not facts.images_per_shard:
        warn_of_download(folder, math.prod(shape) * dtype.itemsize)
        return ArrayStore(open_array(local_file(folder, IMAGES_FILE), shape, dtype))
    if [one.images for one in facts.shards] != shard_sizes(facts.images, facts.images_per_shard):
        raise ValueError(
            f"{folder / 'dataset.json'} is damaged: the shards that it lists do not contain {facts.images:,} images. "
            f"Import the dataset again."
        )
    if addresses.is_remote(folder):
        return RemoteStore(lambda number: _remote_shard(folder, facts, number), facts.images_per_shard, shape, dtype)
    names = [shard_name(number) for number in range(len(facts.shards))]
    present = {file.name for file in folder.iterdir()}
    if missing := [name for name in names if name not in present]:
        raise FileNotFoundError(f"{folder / missing[0]} is missing. Import the dataset again.")
    return ShardStore(lambda number: folder / names[number], facts.images_per_shard, shape, dtype)


def _remote_shard(folder: Path, facts: Facts, number: int) -> cache.CachedFile:
    shard, each = facts.shards[number], facts.size**2 * facts.depth // 8
    address, size = addresses.child(folder, shard_name(number)), HEADER + shard.images * each
    return cache.open_copy(address, size=size, sha256=shard.sha256)


def _linked(folder: Path, facts: Facts, index: Index) -> Callable[[int], np.ndarray]:
    """row → its image, read from its file; errors name the row and the file."""
    read = functools.cache(lambda: reader(index, facts))

    def image(row: int) -> np.ndarray:
        try:
            return read()(row)
        except Exception as error:
            raise ValueError(f"Image {row} of {folder}, {index.file(row)}: {error}") from error

    return image


# ---- single images in the format of a folder


def reader(index: Index, facts: Facts) -> Callable[[int], np.ndarray]:
    """row → (S, S) image, from the dataset's files or generator."""
    read = source(index, facts)
    return lambda row: square_image(read(row), facts)


def source(index: Index, facts: Facts) -> Callable[[int], "image_file.GrayImage"]:
    """row → the image as read from its file, at least as large as the folder's images."""
    own = datasets.images(
        facts.dataset,
        index,
        size=facts.size,
        depth=facts.depth,
        window=facts.window,
        linked=facts.linked,
        **facts.options,
    )
    if own is not None:
        return lambda row: _as_image(own(row))
    paths = index.table["path"].array  # a look-up in a table costs as much as reading a small file
    how: Any = {"depth": facts.depth, "min_side": facts.size, "window": facts.window}
    return lambda row: image_file.read_image(index.root / paths[row], **how)


def present(index: Index) -> np.ndarray:
    """The rows whose file exists; all rows if images are not separate files."""
    there = [row for row in range(len(index)) if index.file(row).is_file()]
    return np.array(there or range(len(index)), np.int64)


def square_image(image: image_file.GrayImage, facts: Facts) -> np.ndarray:
    """(S, S): an image in the format of the folder."""
    return image_file.fit(image.pixels, facts.size, facts.fit, of=(image.width, image.height))[0]


def versions() -> dict[str, str]:
    """Versions of the libraries that decode images here."""
    found = {"ribcage": __version__, "opencv": cv2.__version__}
    for name in ("pydicom", "pyjpegls", "pylibjpeg-openjpeg"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def _as_image(pixels: "np.ndarray | image_file.GrayImage") -> "image_file.GrayImage":
    if isinstance(pixels, image_file.GrayImage):
        return pixels
    return image_file.GrayImage(pixels, pixels.shape[1], pixels.shape[0])
