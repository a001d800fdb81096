"""Parquet: tables that may come from anybody → Arrow's, read without what they tell pandas to do.

Few bytes of such a file can stand for very many: what it would take unpacked is counted before it is unpacked.
"""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ribcage.runtime import files

MOST_CELLS = 200_000_000
"""Rows times columns of a table; the largest public dataset has 20 million."""
MOST_TEXT = 1 << 31
"""Bytes that the texts of a column take."""


class NoTableError(ValueError):
    """A file is no Parquet file, or none that can be read here."""


def read_parquet(file: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """The table in a file, or NoTableError with what is wrong with it."""
    try:
        with files.regular(file).open("rb") as stream:
            meta = pq.read_metadata(stream)
            texts = [one.name for one in meta.schema.to_arrow_schema() if _is_text(one.type)]
        if meta.num_rows * meta.num_columns > MOST_CELLS:
            raise NoTableError(f"{meta.num_rows:,} rows of {meta.num_columns:,} columns exceed the limits")
        chosen = None if columns is None else list(columns)
        with pq.ParquetFile(file, read_dictionary=texts) as content:
            packed = content.read(chosen)
        if len(set(packed.column_names)) < packed.num_columns:
            raise NoTableError("a column occurs twice")
        kinds = [_unpacked(packed, place) for place in range(packed.num_columns)]
        return packed.cast(pa.schema(kinds, packed.schema.metadata))
    except (pa.ArrowException, RecursionError, UnicodeError, TypeError, AttributeError, LookupError) as error:
        raise NoTableError(" ".join(str(error).split())[:200].rstrip(".") or type(error).__name__) from None


def frame(table: pa.Table) -> pd.DataFrame:
    """The table as pandas has it; an index or kinds that the file wishes for are not heard."""
    return table.replace_schema_metadata().to_pandas(split_blocks=True)


def _is_text(kind: pa.DataType) -> bool:
    return any(test(kind) for test in (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary))


def _unpacked(table: pa.Table, place: int) -> pa.Field:
    """A column's kind when each cell stands for itself, unless that would take too much memory."""
    own = table.schema.field(place)
    if not pa.types.is_dictionary(own.type):
        return own
    total = 0
    for part in table.column(place).chunks:
        if _is_text(part.dictionary.type):
            total += pc.sum(pc.binary_length(part.dictionary).take(part.indices)).as_py() or 0
    if total > MOST_TEXT:
        raise NoTableError(f"the texts of {own.name[:40]!r} take {total:,} bytes")
    return own.with_type(own.type.value_type)
