"""Parquet: reads tables from outside as Arrow tables, ignoring their pandas metadata.

A small file can expand to a very large table: its size in memory is computed before it is decompressed.
"""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ribcage.runtime import files

MAX_CELLS = 200_000_000
"""Limit on rows × columns of a table; the largest public dataset has 20 million."""
MAX_TEXT_BYTES = 1 << 31
"""Limit on the bytes of a text column."""
TEXTS = (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary)


ARROW_TYPES = {pa.large_binary(): pd.ArrowDtype(pa.large_binary())}
"""Types of which pandas makes Python objects otherwise."""


class UnreadableTableError(ValueError):
    """A file is not a Parquet file that can be read."""


def column_names(file: Path) -> list[str]:
    """The names of the columns in a file; UnreadableTableError says what is wrong with it."""
    with _explained(), files.regular(file).open("rb") as stream:
        return [str(name) for name in pq.read_schema(stream).names]


def read_parquet(
    file: Path, columns: Sequence[str] | None = None, max_bytes: int = MAX_TEXT_BYTES, max_cells: int = MAX_CELLS
) -> pa.Table:
    """The table in a file; UnreadableTableError says what is wrong with it.

    max_bytes: limit on the bytes of a text or binary column; max_cells: limit on rows × columns.
    """
    with _explained():
        with files.regular(file).open("rb") as stream:
            meta = pq.read_metadata(stream)
            texts = [one.name for one in meta.schema.to_arrow_schema() if _is_text(one.type)]
        if meta.num_rows * meta.num_columns > max_cells:
            raise UnreadableTableError(
                f"the table has {meta.num_rows:,} rows and {meta.num_columns:,} columns, which exceeds the size limit"
            )
        with pq.ParquetFile(file, read_dictionary=texts, pre_buffer=False) as content:
            names = content.schema_arrow.names
            if len(set(names)) < len(names):
                raise UnreadableTableError("two columns have the same name")
            chosen = [name for name in names if columns is None or name in columns]
            # one column and one thread at a time: the least memory beside the table itself
            parts = [_decoded(content.read([name], use_threads=False).select([name]), max_bytes) for name in chosen]
            schema = pa.schema([part.schema.field(0) for part in parts], content.schema_arrow.metadata)
            return pa.Table.from_arrays([part.column(0) for part in parts], schema=schema)


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    """Turn the errors of pyarrow into an UnreadableTableError."""
    try:
        yield
    except (pa.ArrowException, RecursionError, UnicodeError, TypeError, AttributeError, LookupError) as error:
        raise UnreadableTableError(" ".join(str(error).split())[:200].rstrip(".") or type(error).__name__) from None


def read_own_table(file: Path, max_bytes: int = MAX_TEXT_BYTES, max_cells: int = MAX_CELLS) -> pa.Table:
    """The table in a file that Ribcage wrote; the ValueError if it cannot be read is a sentence that names the file."""
    with _named(file):
        return read_parquet(file, max_bytes=max_bytes, max_cells=max_cells)


def own_row_count(file: Path) -> int:
    """The number of rows in a file that Ribcage wrote, without reading its columns; errors as in `read_own_table`."""
    with _named(file), _explained(), files.regular(file).open("rb") as stream:
        return int(pq.read_metadata(stream).num_rows)


@contextlib.contextmanager
def _named(file: Path) -> Iterator[None]:
    """Turn an UnreadableTableError into a sentence that names the file."""
    try:
        yield
    except UnreadableTableError as error:
        raise ValueError(f"{file} is damaged or is not a Parquet file ({error}).") from None


def frame(table: pa.Table) -> pd.DataFrame:
    """The table as a pandas DataFrame; an index or dtypes requested by the file are ignored. Large binary columns
    remain in the memory of Arrow."""
    return table.replace_schema_metadata().to_pandas(split_blocks=True, types_mapper=ARROW_TYPES.get)


def _is_text(kind: pa.DataType) -> bool:
    return any(test(kind) for test in TEXTS)


def _decoded(table: pa.Table, max_bytes: int) -> pa.Table:
    """A table of one column without a dictionary; raises if decoding takes too much memory."""
    own = table.schema.field(0)
    if not pa.types.is_dictionary(own.type):
        return table
    total = 0
    for part in table.column(0).chunks:
        if _is_text(part.dictionary.type):
            total += pc.sum(pc.binary_length(part.dictionary).take(part.indices)).as_py() or 0
    if total > max_bytes:
        raise UnreadableTableError(
            f"the strings in column {own.name[:40]!r} take {total:,} bytes, which exceeds the limit"
        )
    return table.cast(pa.schema([own.with_type(own.type.value_type)]))
