"""ChestX-Det: boxes from corners, absent findings without a box, and the published split."""

import json
import os
from pathlib import Path

import pytest
import trees

from ribcage.data import datasets
from ribcage.data.datasets import chestxdet

REAL = Path(os.environ.get("RIBCAGE_REAL_DATA", "/none")) / "chestxdet" / "ChestX_Det_test.json"


def test_a_finding_is_present_where_it_has_a_box_and_else_absent(tmp_path: Path) -> None:
    found = datasets.index("chestxdet", trees.chestxdet(tmp_path / "片 子"))
    row = found.table.iloc[1]
    assert row[["Effusion", "Diffuse_Nodule", "Nodule", "Mass"]].tolist() == [1, 1, 0, 0]
    assert not found.labels[0].any()
    drawn = found.boxes[found.boxes["row"] == 1]
    assert drawn[["finding", "x", "y", "width", "height"]].to_numpy().tolist() == [
        ["Effusion", 100, 200, 300, 800],
        ["Diffuse_Nodule", 5, 6, 1017, 894],
    ]
    assert (found.boxes.loc[found.boxes["row"] == 2, "finding"] == "Nodule").sum() == 2


def test_masks_are_drawn_from_polygons_and_empty_where_a_finding_is_absent(tmp_path: Path) -> None:
    found = datasets.index("chestxdet", trees.chestxdet(tmp_path))
    masks = found.masks[found.masks["row"] == 1]
    assert len(masks) == len(found.findings) and (masks["columns"] > 0).sum() == 2
    effusion = masks[masks["structure"] == "Effusion"].iloc[0]
    assert effusion[["left", "top", "columns", "lines"]].tolist() == [100, 200, 300, 799]  # the tip contains no centre
    assert (found.masks["row"] == 2).sum() == len(found.findings) + 1  # two nodules


def test_a_polygon_without_pixels_is_no_empty_mask(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    entry = {"file_name": "1.png", "syms": ["Mass"], "boxes": [[1, 2, 3, 4]], "polygons": [[[1, 2], [3, 2], [2, 2]]]}
    trees.text(tmp_path / "ChestX_Det_test.json", json.dumps([entry]))
    found = datasets.index("chestxdet", tmp_path)
    assert "Mass" not in found.masks["structure"].tolist() and len(found.masks) == len(found.findings) - 1
    assert any(line.endswith(" 1.") for line in caplog.messages)


def test_the_test_list_is_the_test_split_and_validation_is_taken_from_training(tmp_path: Path) -> None:
    table = datasets.index("chestxdet", trees.chestxdet(tmp_path)).table
    test = table["path"].str.startswith("test_data/")
    assert (table.loc[test, "split"] == "test").all() and set(table.loc[~test, "split"]) == {"train", "val"}
    (tmp_path / "ChestX_Det_train.json").unlink()
    assert set(datasets.index("chestxdet", tmp_path).table["split"]) == {"test"}


def test_missing_lists_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"ChestX_Det_train\.json .*ChestX_Det_test\.json"):
        datasets.index("chestxdet", tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[1]",
        '[{"file_name": "1.png"}]',
        '[{"file_name": "1.png", "syms": ["Mass"], "boxes": [], "polygons": [[[1, 2], [3, 4], [1, 4]]]}]',
        '[{"file_name": "1.png", "syms": ["Mass"], "boxes": [[1, 2, 3]], "polygons": [[[1, 2], [3, 4], [1, 4]]]}]',
        '[{"file_name": "1.png", "syms": ["Mass"], "boxes": [["a", 2, 3, 4]], "polygons": [[[1, 2], [3, 4], [1, 4]]]}]',
        '[{"file_name": "1.png", "syms": ["No such thing"], "boxes": [[1, 2, 3, 4]], "polygons": [[[1, 2], [3, 4], [1, 4]]]}]',
        '[{"file_name": "1.png", "syms": ["Mass"], "boxes": [[1, 2, 3, 4]], "polygons": [[[1, 2], [3]]]}]',
        '[{"file_name": "1.png", "syms": ["Mass"], "boxes": [[1, 2, 3, 4]], "polygons": [[1, 2, 3]]}]',
        '[{"file_name": "1.png", "syms": ["Mass"], "boxes": [[1, 2, 3, 4]], "polygons": [[[1, 2], [3, 1e999]]]}]',
        "[" * 5000,
    ],
)
def test_a_damaged_list_is_one_line(tmp_path: Path, content: str) -> None:
    trees.text(tmp_path / "ChestX_Det_test.json", content)
    with pytest.raises(ValueError, match=r"ChestX_Det_test\.json") as error:
        datasets.index("chestxdet", tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.skipif(not REAL.is_file(), reason="RIBCAGE_REAL_DATA has no chestxdet/ChestX_Det_test.json")
def test_the_published_test_list() -> None:
    found = datasets.index("chestxdet", REAL.parent)
    listed = json.loads(REAL.read_text())
    assert len(found) == 553 and len(found.boxes) == 1734 and int((found.labels.sum(axis=1) == 0).sum()) == 64
    assert found.labels.sum() == sum(len(set(entry["syms"])) for entry in listed)
    assert {name for entry in listed for name in entry["syms"]} == set(chestxdet.LABELS)
    assert len(found.masks) == 7751 and (found.masks["columns"] > 0).sum() == 1734
    assert (found.boxes["width"] > 0).all() and (found.boxes["x"] + found.boxes["width"] <= 1024).all()
