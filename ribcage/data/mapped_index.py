"""Mapped index: the tables of a large dataset folder as memory-mapped files, shared by all processes of a machine.

The Parquet files of a folder are compressed: each process that reads them needs seconds for a million images, and has a
copy in memory. Of a large folder, the first process therefore checks the tables and writes their columns,
uncompressed, to the user's cache folder, under the hash of the Parquet file that is in `dataset.json`. All processes
map these files, of which only the parts that are used are read from disk. They are not part of the dataset folder, so a
folder may be read-only, and a file from outside is never mapped without having been checked.
"""

import json
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd
import pyarrow as pa

from ribcage.data.index import Index, IndexMetadata, box_table, strange_columns
from ribcage.data.patient_codes import PatientCodes
from ribcage.data.radiology_reports import RowReports, report_numbers
from ribcage.runtime import cache_folder, files, parquet

LARGE = 500_000
"""A folder with more images is large."""
LARGE_TABLE = 20_000
"""A table of masks, points or reports with more rows is large."""
VERSION = 2
"""Version of the files in the cache."""
PIXELS, TABLE, ROWS, NUMBERS = "pixels.npy", "table.arrow", "rows.arrow", "numbers.npy"
MAX_CELLS = 20_000_000_000
"""Limit on rows × columns of a table, which is read column by column."""
log = logging.getLogger("ribcage")
Mapped = TypeVar("Mapped")


def open_index(file: Path, digest: str, check: Callable[[], None]) -> Index | None:
    """The index in a Parquet file of this hash, without the tables beside it; None if it cannot be cached.

    check: raises if the file does not have this hash; called before the file is read.
    """

    def write(part: Path) -> None:
        check()
        _write_index(file, part)

    return _cached("index", digest, write, _mapped)


def open_pixel_hashes(digest: str, read: Callable[[], np.ndarray]) -> np.ndarray | None:
    """(N,) uint64: the pixel hashes in a table of fingerprints of this hash; None if they cannot be cached.

    read: reads them from the table, after checking its hash.
    """

    def write(part: Path) -> None:
        np.save(part / PIXELS, read())

    return _cached("pixels", digest, write, lambda entry: _array(entry / PIXELS))


def open_annotations(file: Path, digest: str, count: int, read: Callable[[], pd.DataFrame]) -> pd.DataFrame:
    """The table of masks or points of `count` images in a Parquet file of this hash; memory-mapped if it is large.

    read: reads it into memory, after checking its hash.
    """

    def write(part: Path) -> None:
        _write_columns(part / TABLE, read())

    found = None
    if _is_large(file):
        found = _cached(file.stem, f"{digest}-{count}", write, lambda entry: _frame(entry / TABLE))
    return read() if found is None else found


@dataclass(frozen=True)
class MappedReports:
    """The table of reports of a dataset folder."""

    by_row: RowReports
    rows: pa.ChunkedArray
    """For each report, the list of the rows of its images."""

    @classmethod
    def open(cls, file: Path, digest: str, count: int, read: Callable[[], pd.DataFrame]) -> "MappedReports | None":
        """The reports on `count` images in a Parquet file of this hash; None if they are few or cannot be cached.

        read: reads them into memory, after checking the hash.
        """

        def write(part: Path) -> None:
            reports = read()
            _write_columns(part / TABLE, reports.drop(columns="rows"))
            _write_table(part / ROWS, {"rows": pa.array(reports["rows"].map(list), pa.large_list(pa.int64()))})
            np.save(part / NUMBERS, report_numbers(reports, count))

        def mapped(entry: Path) -> MappedReports:
            by_row = RowReports(_frame(entry / TABLE), _array(entry / NUMBERS))
            return cls(by_row, _mapped_table(entry / ROWS)["rows"])

        return _cached(file.stem, f"{digest}-{count}", write, mapped) if _is_large(file) else None

    @property
    def frame(self) -> pd.DataFrame:
        """The table in the form of Index.reports; its texts remain memory-mapped."""
        found = self.by_row.texts.copy(deep=False)
        found.insert(0, "rows", pd.Series([tuple(each) for each in self.rows.to_pylist()], found.index, dtype="object"))
        return found


def _is_large(file: Path) -> bool:
    """Whether a table beside the index has more than LARGE_TABLE rows; False if it cannot be read."""
    try:
        return parquet.own_row_count(file) > LARGE_TABLE
    except (OSError, ValueError):
        return False


def _cached(kind: str, name: str, write: Callable[[Path], None], mapped: Callable[[Path], Mapped]) -> Mapped | None:
    if not re.fullmatch("[0-9a-f]{32}(-[0-9]+)?", name):  # it becomes the name of a folder
        return None
    try:
        return mapped(cache_folder.cache_entry(kind, f"{name}-{VERSION}", write))
    except (OSError, ValueError, TypeError, AttributeError, ArithmeticError, LookupError, pa.ArrowException) as error:
        log.warning(
            "The tables of this large dataset cannot be cached (%s), so each process keeps a copy of them in memory. "
            "Set %s to a folder on a local disk.",
            " ".join(str(error).split())[:300].rstrip("."),
            cache_folder.VARIABLE,
        )
        return None


# ---- writing


def _write_index(file: Path, part: Path) -> None:
    """Write the columns one by one, so that only one of them is in memory, and check them."""
    names: list[str] = []
    for name in parquet.column_names(file):
        column = parquet.read_parquet(file, [name], max_cells=MAX_CELLS)
        about = IndexMetadata.of(column)
        if strange := strange_columns(column):
            raise ValueError(f"{file}: the column {strange[0]!r} has an unexpected type")
        if name == "boxes":
            _write_columns(part / "boxes.arrow", box_table(column[name]))
            continue
        _write_columns(part / f"{len(names)}.arrow", parquet.frame(column), column)
        names.append(name)
    index = Index(**vars(_tables(part, about, len(names))))  # checks it
    codes = index.patient_codes
    for name, values in (("labels", index.label_codes), ("spelt", codes.spelt), ("canonical", codes.canonical)):
        np.save(part / f"{name}.npy", values)
    _write_columns(part / "keys.arrow", codes.keys.to_frame("key"))
    categories = {name: texts.tolist() for name, (_, texts) in index.categories.items()}
    for name, (numbers, _) in index.categories.items():
        np.save(part / f"{name}.npy", numbers)
    facts = {
        **vars(about), "root": str(about.root), "columns": len(names), "repeated": index.has_repeated_paths,
        "categories": categories,
    }  # fmt: skip
    (part / "about.json").write_text(json.dumps(facts), encoding="utf-8")


def _write_columns(file: Path, frame: pd.DataFrame, source: pa.Table | None = None) -> None:
    """Write columns as pandas holds them, each in one piece, so that it can use them without a copy."""
    arrays = {}
    for name in frame:
        series = frame[name]
        if isinstance(series.dtype, pd.StringDtype):
            arrays[name] = pa.array(series).cast(pa.large_string())
        elif isinstance(series.dtype, pd.ArrowDtype):
            arrays[name] = pa.chunked_array(pa.array(series.array))
        elif series.dtype.kind in "iuf":
            arrays[name] = pa.array(series.to_numpy(), from_pandas=False)  # NaN instead of null
        else:
            arrays[name] = (pa.Table.from_pandas(frame[[name]]) if source is None else source)[name].combine_chunks()
    _write_table(file, arrays)


def _write_table(file: Path, arrays: dict[str, pa.Array]) -> None:
    table = pa.table(arrays)
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table.combine_chunks())


# ---- mapping


def _mapped(entry: Path) -> Index:
    """The index of an entry, with what is derived from it."""
    facts = files.read_json(entry / "about.json")
    frame = tuple(facts["box_frame"]) if facts["box_frame"] else None
    about = IndexMetadata(facts["name"], tuple(facts["findings"]), frame, Path(facts["root"]))
    index, keys = _tables(entry, about, facts["columns"]), _frame(entry / "keys.arrow")["key"]
    vars(index).update(
        label_codes=_array(entry / "labels.npy"),
        patient_codes=PatientCodes(_array(entry / "spelt.npy"), _array(entry / "canonical.npy"), keys),
        has_repeated_paths=facts["repeated"],
        categories={
            name: (_array(entry / f"{name}.npy"), np.array(texts, object))
            for name, texts in facts["categories"].items()
        },
    )
    return index


def _tables(entry: Path, about: IndexMetadata, columns: int) -> Index:
    table = pd.concat([_frame(entry / f"{number}.arrow") for number in range(columns)], axis=1)
    return Index.unchecked(about, table, _frame(entry / "boxes.arrow"))


def _frame(file: Path) -> pd.DataFrame:
    """Memory-mapped columns."""
    return parquet.frame(_mapped_table(file))


def _mapped_table(file: Path) -> pa.Table:
    return pa.ipc.open_file(pa.memory_map(str(file))).read_all()


def _array(file: Path) -> np.ndarray:
    """A memory-mapped array."""
    return np.asarray(np.load(file, mmap_mode="r", allow_pickle=False))
