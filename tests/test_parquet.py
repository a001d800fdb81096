"""Tables in Parquet files: what is written is read, whatever its columns are called; columns of one name are refused."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ribcage.runtime import parquet


@pytest.mark.parametrize(
    "table",
    [
        pa.table({"a": ["x", "y"], "a.b": [1, 2], "": ["", "胸"], "boxes": [["q"], []]}),
        pa.table({"a": pa.array([], pa.string())}),
        pa.table({}),
    ],
    ids=["dots", "no rows", "no columns"],
)
def test_tables_come_back_equal(table: pa.Table, tmp_path: Path) -> None:
    table = table.replace_schema_metadata({"ribcage.name": "own"})
    pq.write_table(table, tmp_path / "own.parquet")
    again = parquet.read_parquet(tmp_path / "own.parquet")
    assert again.equals(table) and (again.schema.metadata or {}).get(b"ribcage.name") == b"own"


def test_only_the_columns_asked_for_are_read(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [1], "b": [2], "c": [3]}), tmp_path / "own.parquet")
    assert parquet.read_parquet(tmp_path / "own.parquet", ["c", "a", "d"]).column_names == ["a", "c"]


def test_a_column_that_occurs_twice_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"]), tmp_path / "own.parquet")
    with pytest.raises(parquet.UnreadableTableError):
        parquet.read_parquet(tmp_path / "own.parquet")
