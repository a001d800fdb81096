"""Rows of several readers in a user's table: recognised by a column's name, or proposed where images have several rows."""

from pathlib import Path

import numpy as np
import pytest
import trees

from ribcage.data.index import Index

ROWS = (
    "a.png,R1,1,0,P1", "a.png,R2,1,1,P1", "a.png,R3,0,-1,P1",
    "b.png,R2,0,0,P2", "b.png,R1,0,1,P2",
    "c.png,R1,1,,P3",
)  # fmt: skip


def read(folder: Path, header: str, *rows: str, **options: object) -> Index:
    trees.images(folder, ["a.png", "b.png", "c.png"])
    return trees.read_table(folder, header, *rows, **options)


@pytest.mark.parametrize("name", ["reader", "Rad_ID", "阅片医生"])
def test_the_labels_of_each_reader_are_kept_and_the_majority_is_that_of_the_image(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    found = read(tmp_path, f"path,{name},Mass,Edema,patient", *ROWS)
    assert found.table["path"].tolist() == ["a.png", "b.png", "c.png"] and found.findings == ("Edema", "Mass")[::-1]
    np.testing.assert_array_equal(found.labels, [[1, -1], [0, -1], [1, np.nan]])
    assert found.readings[["row", "reader"]].to_numpy().tolist() == [
        [0, "R1"], [0, "R2"], [0, "R3"], [1, "R1"], [1, "R2"], [2, "R1"]
    ]  # fmt: skip
    assert found.readings["Edema"].tolist()[:5] == [0, 1, -1, 1, 0] and name not in found.table
    assert all(word in caplog.text for word in ("6 readings", "3 readers", repr(name), "--reader-column none"))


def test_lists_in_several_rows_of_a_reader_are_joined(tmp_path: Path) -> None:
    rows = ("a.png,R1,Mass", "a.png,R1,Edema", "a.png,R2,No finding", "b.png,R1,Mass", "b.png,R2,Mass")
    found = read(tmp_path, "path,radiologist,class", *rows)
    assert found.readings[["Mass", "Edema"]].to_numpy().tolist() == [[1, 1], [0, 0], [1, 0], [1, 0]]
    assert found.table[["Mass", "Edema"]].to_numpy().tolist() == [[-1, -1], [1, 0]]


def test_one_reader_for_each_image_is_an_ordinary_column(tmp_path: Path) -> None:
    found = read(tmp_path / "a", "path,reader,Mass", "a.png,R1,1", "b.png,R2,0")
    assert not len(found.readings) and found.table["reader"].tolist() == ["R1", "R2"]
    forced = read(tmp_path / "b", "path,reader,Mass", "a.png,R1,1", "b.png,,0", reader_column="reader")
    assert forced.readings["reader"].tolist() == ["R1", "unknown"]


def test_another_name_of_the_column_is_proposed_and_then_taken(tmp_path: Path) -> None:
    rows = ("a.png,x,1", "a.png,y,0", "b.png,x,1", "b.png,y,1", "c.png,x,0", "c.png,y,0")
    with pytest.raises(ValueError, match="--reader-column who"):
        read(tmp_path, "path,who,Mass", *rows)
    found = read(tmp_path, "path,who,Mass", *rows, reader_column="who")
    assert len(found.readings) == 6 and found.labels[:, 0].tolist() == [-1, 1, 0]
    with pytest.raises(ValueError, match=r"--reader-column 'hwo'.*'who'"):
        read(tmp_path, "path,who,Mass", *rows, reader_column="hwo")
    with pytest.raises(ValueError, match="differ"):
        read(tmp_path, "path,reader,Mass", *rows, reader_column="none")


def test_a_reader_who_contradicts_himself_is_an_error_or_merged(tmp_path: Path) -> None:
    rows = ("a.png,R1,1", "a.png,R1,0", "a.png,R2,0")
    with pytest.raises(ValueError, match=r"a\.png \(reader 'R1'\).*--conflicts merge"):
        read(tmp_path, "path,reader,Mass", *rows)
    found = read(tmp_path, "path,reader,Mass", *rows, conflicts="merge")
    assert found.readings["Mass"].tolist() == [1, 0] and found.labels[0, 0] == -1


def test_findings_that_only_occur_in_boxes_go_with_readings(tmp_path: Path) -> None:
    trees.text(tmp_path / "boxes.csv", "path,finding,x,y,width,height", "a.png,Nodule,1,2,3,4", "b.png,,,,,")
    found = read(tmp_path, "path,reader,Mass", "a.png,R1,1", "a.png,R2,1", "b.png,R1,0", csv="a.csv", boxes="boxes.csv")
    assert found.findings == ("Mass", "Nodule") and found.readings["Nodule"].tolist() == [1, 1, 0]
