"""object-CXR: boxes, ellipses and polygons become boxes; damaged annotations are refused."""

from pathlib import Path

import pytest
import trees

from ribcage.data import datasets


def test_three_shapes_become_boxes(tmp_path: Path) -> None:
    found = datasets.index("object_cxr", trees.object_cxr(tmp_path / "片 o"))
    boxes = found.boxes[found.boxes["row"] < 5]
    assert boxes[["row", "x", "y", "width", "height"]].to_numpy().tolist() == [
        [1, 1, 2, 10, 20],
        [1, 3, 4, 10, 10],
        [2, 5, 6, 20, 24],
        [4, 0, 0, 9, 9],
    ]
    assert found.table["Foreign_Object"].tolist()[:5] == [0, 1, 1, 0, 1]
    assert found.table["shapes"].tolist()[:3] == ["", "box|ellipse", "polygon"]
    assert (found.table["split"] == "test").sum() == 15


@pytest.mark.parametrize("text", ["3 1 2 3 4", "0 1 2 3", "0 a b c d", "0", "0 nan 1 2 3", "0 1 2 inf 4"])
def test_a_damaged_annotation_is_one_line(tmp_path: Path, text: str) -> None:
    trees.text(tmp_path / "train.csv", "image_name,annotation", f"a.jpg,{text}")
    with pytest.raises(ValueError, match=r"train\.csv, line 2, column 'annotation'") as error:
        datasets.index("object_cxr", tmp_path)
    assert "\n" not in str(error.value)


def test_the_column_of_files_has_two_names(tmp_path: Path) -> None:
    trees.text(tmp_path / "dev.csv", "image_path,annotation", "/data/x/1.jpg,", "/data/x/2.jpg,0 1 2 3 4")
    found = datasets.index("object_cxr", tmp_path)
    assert found.table["path"].tolist() == ["1.jpg", "2.jpg"] and len(found.boxes) == 1
