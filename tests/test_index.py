"""An Index keeps the labels of its source, and refuses impossible tables."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ribcage.data import fingerprint_table
from ribcage.data import index as indexes
from ribcage.data.index import Index


def small() -> Index:
    rows = pd.DataFrame(
        {
            "path": ["a/1.png", "病人/2 b.png", "3.png"],
            "patient": ["p1", "p1", "p2"],
            "split": ["train", "train", "test"],
            "Mass": [1, -1, np.nan],
            "Nodule": [0, 0, 1],
            "hospital": ["A", "B", "A"],
        }
    )
    boxes = pd.DataFrame(
        {"row": [2, 0], "finding": ["Nodule", "Mass"], "x": [1, 2], "y": [3, 4], "width": [5, 6], "height": [7, 8]}
    )
    return Index(
        "small",
        indexes.index_table(rows, ["Mass", "Nodule"]),
        ("Mass", "Nodule"),
        indexes.box_frame(boxes),
        (1024, 1024),
        Path("/data"),
    )


def same(one: Index, other: Index) -> None:
    pd.testing.assert_frame_equal(one.table, other.table)
    pd.testing.assert_frame_equal(one.boxes, other.boxes)
    assert (one.name, one.findings, one.box_frame, one.root) == (
        other.name,
        other.findings,
        other.box_frame,
        other.root,
    )


def test_saving_and_loading_keeps_everything(tmp_path: Path) -> None:
    file = tmp_path / "目录 x.parquet"
    small().save(file)
    same(Index.load(file), small())


def test_an_index_without_boxes_and_findings_survives_saving(tmp_path: Path) -> None:
    plain = Index("plain", indexes.index_table(pd.DataFrame({"path": ["1.png", "2.png"]})))
    plain.save(tmp_path / "i.parquet")
    same(Index.load(tmp_path / "i.parquet"), plain)


def test_the_same_index_gives_the_same_bytes(tmp_path: Path) -> None:
    small().save(tmp_path / "one")
    Index.load(tmp_path / "one").save(tmp_path / "two")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_labels_keep_uncertain_and_unknown() -> None:
    np.testing.assert_array_equal(small().labels, [[1, 0], [-1, 0], [np.nan, 1]])


def test_boxes_go_with_their_rows() -> None:
    taken = small().take([2, 1])
    assert taken.boxes[["row", "finding"]].to_numpy().tolist() == [[0, "Nodule"]]
    assert small().take(np.array([True, False, False])).boxes["finding"].tolist() == ["Mass"]


@pytest.mark.parametrize(
    ("column", "value", "says"), [("Mass", 2.0, "Mass contains 2"), ("split", "a/b", "'a/b'"), ("view", "pa", "'pa'")]
)
def test_impossible_values_are_refused_by_name(column: str, value: object, says: str) -> None:
    rows = small().table.copy()
    rows[column] = rows[column].astype(object)
    rows.loc[0, column] = value
    with pytest.raises(ValueError, match=says):
        Index("bad", rows, ("Mass", "Nodule"))


def test_a_box_of_no_image_is_refused() -> None:
    boxes = small().boxes.assign(row=[0, 3])
    with pytest.raises(ValueError, match=r"\brow\b"):
        Index("bad", small().table, small().findings, boxes)


def test_a_foreign_parquet_file_is_refused(tmp_path: Path) -> None:
    pd.DataFrame({"a": [1]}).to_parquet(tmp_path / "x.parquet")
    with pytest.raises(ValueError, match=r"x\.parquet"):
        Index.load(tmp_path / "x.parquet")


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("view", [1.0]), ("split", pa.array([None], pa.string())), ("patient", [["a", "b"]]), ("mine", [{"a": 1}]), ("boxes", ["none"]), ("age", ["60"]),
        ("ribcage.box_frame", b"9"), ("ribcage.name", b"\xff"),
    ],
)  # fmt: skip
def test_a_table_of_another_kind_is_no_index(tmp_path: Path, name: str, values: Any) -> None:
    """Whoever changes a table can change its digest, too: what opens it takes nothing on trust."""
    file = tmp_path / "index.parquet"
    Index("x", indexes.index_table(pd.DataFrame({"path": ["a.png"], "Mass": [1.0]}), ("Mass",)), ("Mass",)).save(file)
    columns = pq.read_table(file)
    if name.startswith("ribcage."):
        columns = columns.replace_schema_metadata({**columns.schema.metadata, name.encode(): values})
    elif name in columns.column_names:
        columns = columns.set_column(columns.column_names.index(name), name, pa.array(values))
    else:
        columns = columns.append_column(name, pa.array(values))
    pq.write_table(columns, file)
    with pytest.raises(ValueError, match=r"index\.parquet"):
        Index.load(file)


def test_a_table_of_another_kind_holds_no_fingerprints(tmp_path: Path) -> None:
    file = tmp_path / "fingerprints.parquet"
    pq.write_table(pa.table({"print": [0.5], "pixels": pa.array([1], pa.uint64())}), file)
    with pytest.raises(ValueError, match="fingerprints"):
        fingerprint_table.Fingerprints.load(file)


def test_what_only_somebody_who_means_harm_writes_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "index.parquet"
    small().save(file)
    whole = pq.read_table(file)
    meta = whole.schema.metadata or {}

    def other(name: str, cells: pa.Array) -> pa.Table:
        return whole.append_column(name, cells)

    strange = {
        "name": whole.replace_schema_metadata(meta | {b"ribcage.name": b"\x1b[31mx\n"}),
        "twice": whole.replace_schema_metadata(meta | {b"ribcage.findings": b"Mass\nMass"}),
        "width": other("width", pa.array(["x"] * len(whole))),
        "split_x": other("split_x", pa.array([b"\xff"] * len(whole))),
        "age": whole.set_column(6, "age", pa.array([np.inf] * len(whole), pa.float32())),
    }
    for said, table in strange.items():
        pq.write_table(table, file)
        with pytest.raises(ValueError, match=said):
            Index.load(file)
    pq.write_table(whole.replace_schema_metadata(meta | {b"pandas": b"[" * 100_000}), file)
    assert same(Index.load(file), small()) is None  # what it tells pandas is not heard
