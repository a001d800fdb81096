"""Readings travel with their index, through files, imports and merges, and impossible ones are refused."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from image_folders import facts, images, imported
from test_parts import in_parts, merged
from test_writer import digest

from ribcage.data import dataset_folder
from ribcage.data.importer import writer
from ribcage.data.index import Index, box_frame, no_boxes
from ribcage.data.readings import READINGS_FILE, load_readings, reading_frame

NAN = np.nan


@pytest.fixture
def index(tmp_path: Path) -> Index:
    """130 images, of which one cannot be read; 40 of them have the readings and boxes of two or three readers."""
    made = images(tmp_path / "in 片", 130)
    made.file(3).write_bytes(b"not an image")
    rows = [(row, name) for row in range(2, 122, 3) for name in ("R1", "医生 2", "R10")[: 2 + row % 2]]
    readings = pd.DataFrame(rows, columns=["row", "reader"]).assign(
        Mass=[(1.0, 0.0, -1.0, NAN)[r % 4] for r, _ in rows]
    )
    boxes = readings.assign(finding="Mass", x=[1.0 + len(name) for _, name in rows], y=2.0, width=9.0, height=8.5)
    unknown = pd.DataFrame(
        {"row": [0], "finding": "Mass", "x": 1.0, "y": 2.0, "width": 9.0, "height": 8.5, "reader": ""}
    )
    boxes = box_frame(pd.concat([boxes, unknown], ignore_index=True))
    return replace(made, boxes=boxes, box_frame=(48, 48), readings=reading_frame(readings, ["Mass"]))


def test_readings_and_the_readers_of_boxes_survive_a_file(index: Index, tmp_path: Path) -> None:
    for place in ("one", "two"):
        (tmp_path / place).mkdir()
        dataset_folder.save_index(index, tmp_path / place / "index.parquet")
        index = dataset_folder.load_index(tmp_path / place / "index.parquet")
    assert digest(tmp_path / "one") == digest(tmp_path / "two") and len(digest(tmp_path / "one")) == 2
    assert len(index.readings) == 100 and set(index.boxes["reader"]) == {"", "R1", "医生 2", "R10"}


def test_an_index_without_readings_leaves_no_file_of_an_earlier_one(index: Index, tmp_path: Path) -> None:
    dataset_folder.save_index(index, tmp_path / "index.parquet")
    plain = index.take([0, 1])
    assert list(plain.readings) == ["row", "reader"] and not len(plain.readings)
    dataset_folder.save_index(plain, tmp_path / "index.parquet")
    assert not (tmp_path / READINGS_FILE).exists()
    assert "reader" not in dataset_folder.load_index(tmp_path / "index.parquet").boxes


def test_readings_go_with_their_images(index: Index) -> None:
    taken = index.take([5, 2])
    assert taken.readings[["row", "reader"]].to_numpy().tolist() == [
        [0, "R1"], [0, "R10"], [0, "医生 2"], [1, "R1"], [1, "医生 2"]
    ]  # fmt: skip
    assert taken.readings["Mass"].tolist() == [*index.readings.query("row == 5")["Mass"].tolist(), -1, -1]
    assert taken.boxes[["row", "reader"]].to_numpy().tolist()[3:] == [[1, "R1"], [1, "医生 2"]]


def test_a_dataset_folder_has_readings_in_a_file_of_their_own(index: Index, tmp_path: Path) -> None:
    opened = imported(index, tmp_path / "out 目录")
    rejected = 3  # the rows after it have moved
    wanted = index.readings[index.readings["row"] > rejected].assign(row=lambda rows: rows["row"] - 1)
    found = opened.index.readings[opened.index.readings["row"] >= rejected].reset_index(drop=True)
    pd.testing.assert_frame_equal(found, wanted.reset_index(drop=True))
    assert opened.facts.tables.keys() == {"index.parquet", READINGS_FILE, "fingerprints.parquet"}
    assert opened.index.boxes["reader"].tolist() == index.boxes["reader"].tolist()
    linked = dataset_folder.open(tmp_path / "out 目录")
    assert len(linked.index.readings) == len(index.readings)


def test_a_linked_folder_has_the_readings_of_all_images(index: Index, tmp_path: Path) -> None:
    writer.link(index, facts(index.root), tmp_path / "linked")
    pd.testing.assert_frame_equal(dataset_folder.open(tmp_path / "linked").index.readings, index.readings)


def test_parts_give_the_bytes_of_a_single_import(index: Index, tmp_path: Path) -> None:
    imported(index, tmp_path / "single")
    assert merged(in_parts(index, tmp_path / "out", 2)) == digest(tmp_path / "single")


def test_readings_decide_whether_an_import_is_the_same(index: Index) -> None:
    other = replace(index, readings=index.readings.assign(Mass=1.0))
    assert writer.plan(index, facts(index.root)) != writer.plan(other, facts(index.root))


def test_removing_shared_images_from_a_split_keeps_their_readings(index: Index, tmp_path: Path) -> None:
    split = index.table.assign(split=["train", "test"] * 25 + ["test"] * 80)
    opened = imported(replace(index, table=split), tmp_path / "out", drop_shared=("train",), dataset="folder")
    assert len(opened.index.readings) == len(index.readings)


def test_readings_of_another_import_are_refused(index: Index, tmp_path: Path) -> None:
    opened = imported(index, tmp_path / "out")
    opened.index.take(range(60)).beside[READINGS_FILE](opened.folder / READINGS_FILE)
    with pytest.raises(ValueError, match=READINGS_FILE):
        dataset_folder.open(opened.folder)
    (opened.folder / READINGS_FILE).unlink()
    with pytest.raises(FileNotFoundError, match=READINGS_FILE):
        dataset_folder.open(opened.folder)


@pytest.mark.parametrize(
    "change",
    [
        lambda rows: rows.assign(row=rows["row"] + 100),
        lambda rows: rows.assign(row=rows["row"] - 100),
        lambda rows: rows.assign(Mass=2.0),
        lambda rows: rows.assign(Mass=np.inf),
        lambda rows: rows.assign(reader="R1"),
        lambda rows: rows.assign(reader=""),
        lambda rows: rows.assign(reader="\x1b[31m"),
        lambda rows: rows.assign(Edema=1.0),
        lambda rows: rows.drop(columns="Mass"),
        lambda rows: rows[rows["reader"] != "R1"].reset_index(drop=True),  # whose boxes are there
    ],
)
def test_impossible_readings_are_refused(index: Index, change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    with pytest.raises(ValueError, match=r"'made'"):
        replace(index, readings=change(index.readings))


@pytest.mark.parametrize(
    "columns",
    [
        {"row": ["1"], "reader": ["a"], "Mass": [1.0]},
        {"row": [1.5], "reader": ["a"], "Mass": [1.0]},
        {"row": [None], "reader": ["a"], "Mass": [1.0]},
        {"row": [1], "reader": [None], "Mass": [1.0]},
        {"row": [1], "reader": [b"a"], "Mass": [1.0]},
        {"row": [1], "reader": ["a"], "Mass": ["1"]},
        {"row": [1], "reader": ["a"], "Mass": [[1.0]]},
        {"row": [2**40], "reader": ["a"], "Mass": [1.0]},
        {"row": [1], "reader": ["a"]},
        {"reader": ["a"], "row": [1], "Mass": [1.0]},
        {"row": [1]},
        {},
    ],
)
def test_a_table_of_another_kind_holds_no_readings(index: Index, tmp_path: Path, columns: dict[str, list]) -> None:
    plain = index.take([0, 1])
    plain.save(tmp_path / "index.parquet")
    types = {"row": pa.int64()} if columns.get("row") == [None] else {}
    pq.write_table(
        pa.table({name: pa.array(each, types.get(name)) for name, each in columns.items()}), tmp_path / READINGS_FILE
    )
    with pytest.raises(ValueError) as error:
        Index.load(tmp_path / "index.parquet", [READINGS_FILE])
    assert "\n" not in str(error.value) and str(tmp_path / READINGS_FILE) in str(error.value)


def test_the_reader_of_a_box_is_text(index: Index, tmp_path: Path) -> None:
    index.save(tmp_path / "index.parquet")
    table = pq.read_table(tmp_path / "index.parquet")
    lists = pa.array([[{**box, "reader": 1} for box in boxes] for boxes in table["boxes"].to_pylist()])
    place = table.column_names.index("boxes")
    pq.write_table(table.set_column(place, "boxes", lists), tmp_path / "index.parquet")
    with pytest.raises(ValueError, match=r"index\.parquet"):
        Index.load(tmp_path / "index.parquet")


def test_a_damaged_table_of_readings_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "r").write_bytes(b"PAR1 no")
    with pytest.raises(ValueError) as error:
        load_readings(tmp_path / "r", no_boxes(), 2, ["Mass"])
    assert "\n" not in str(error.value)
