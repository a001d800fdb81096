"""Masks from CheXmask and COCO find their images in any dataset; a damaged file is one line."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest
import trees

from ribcage.commands import import_
from ribcage.data import datasets
from ribcage.data.index import Index
from ribcage.data.masks import mask_of
from ribcage.data.readers.mask_tables import with_masks

HEADER = "Image Index,Dice RCA (Max),Dice RCA (Mean),Landmarks,Left Lung,Right Lung,Heart,Height,Width"


@pytest.fixture
def index(tmp_path: Path) -> Index:
    return datasets.index("nih", trees.nih(tmp_path / "nih"))


def chexmask(file: Path, *rows: str) -> Path:
    return trees.text(file, HEADER, *rows)


def test_masks_of_chexmask_are_matched_by_name_and_poor_ones_left_out(
    index: Index, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [
        '00000002_000.png,0.9,0.85,"1,2,3,4",1 2 5 2,,8 1,3,4',
        '00000001_001.png,0.9,0.7,"1,2",12 1,1 1,,3,4',
        "00000001_002.png,0.9,0.69,,1 1,1 1,1 1,3,4",
        "00000099_000.png,0.9,0.9,,1 1,1 1,1 1,3,4",
        "00000001_000.png,0.9,0.9,,1 1,1 1,1 1,3,4",
        "00000001_000.png,0.9,0.9,,1 2,1 1,1 1,3,4",
    ]
    with caplog.at_level(logging.WARNING):
        found = with_masks(index, chexmask(tmp_path / "ChestX-Ray8.csv", *rows))
    names = found.table["path"].str.rpartition("/")[2].to_numpy()
    assert {names[row] for row in found.masks["row"]} == {"00000001_001.png", "00000002_000.png"}
    assert found.masks["structure"].tolist() == ["Left_Lung", "Right_Lung", "Left_Lung", "Heart"]
    assert set(found.masks["reader"]) == {"CheXmask"} and "0.7" in caplog.text
    first = int(np.flatnonzero(names[found.masks["row"]] == "00000002_000.png")[0])
    assert mask_of(found.masks, first).full().tolist() == [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0]]
    assert [mask_of(found.masks, first + n).area for n in range(2)] == [4, 1]


def test_paths_of_chexpert_are_matched_by_their_ends(tmp_path: Path) -> None:
    index = datasets.index("chexpert", trees.chexpert(tmp_path / "c"))
    path = "CheXpert-v1.0/train/patient00003/study1/view1_frontal.jpg"
    file = trees.text(tmp_path / "m.csv", HEADER.replace("Image Index", "Path"), f"{path},1,1,,1 1,2 1,3 1,4,4")
    found = with_masks(index, file)
    assert found.table["path"][found.masks["row"][0]].endswith("patient00003/study1/view1_frontal.jpg")


def coco(file: Path, **changes: object) -> Path:
    content = {
        "images": [{"id": 7, "file_name": "00000001_001.png", "width": 5, "height": 3}],
        "categories": [{"id": 1, "name": "left lung"}, {"id": 2, "name": "Device"}],
        "annotations": [
            {"image_id": 7, "category_id": 1, "segmentation": [[1, 1, 4, 1, 4, 3, 1, 3], [0, 0, 1, 0, 1, 1, 0, 1]]},
            {"image_id": 7, "category_id": 2, "segmentation": {"size": [3, 5], "counts": [1, 1, 1, 4, 6, 2]}},
        ],
    }
    return trees.text(file, json.dumps(content | changes))


def test_polygons_and_run_lengths_of_coco(index: Index, tmp_path: Path) -> None:
    found = with_masks(index, coco(tmp_path / "a.json"))
    assert found.masks["structure"].tolist() == ["Left_Lung", "Device"] and found.masks["row"].nunique() == 1
    assert mask_of(found.masks, 0).full().tolist() == [[1, 0, 0, 0, 0], [0, 1, 1, 1, 0], [0, 1, 1, 1, 0]]
    assert mask_of(found.masks, 1).area == 7


def test_annotations_without_an_outline_are_ignored(
    index: Index, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    outlines = [
        [],
        None,
        {},
        [[1, 1, 1, 1, 1, 1]],
        [[9, 1, 20, 1, 20, 3]],
        [[1, 1, 4, 1]],
        {"size": [3, 5], "counts": [15]},
    ]
    listed = [{**ANNOTATION, "segmentation": one} for one in ([[1, 1, 4, 1, 4, 3, 1, 3]], *outlines)]
    with caplog.at_level(logging.WARNING):
        found = with_masks(
            index, coco(tmp_path / "a.json", annotations=[*listed, {**ANNOTATION, "bbox": [0, 0, 2, 2]}])
        )
    assert [mask_of(found.masks, n).area for n in range(len(found.masks))] == [6]
    assert any("a.json" in line and "8" in line.split()[-1] for line in caplog.messages)


@pytest.mark.parametrize(
    ("names", "rows"),
    [
        (["pat1/1.png", "pat2/1.png"], [0]),
        (["pat9/3.png", "pat2/2.png"], [1]),
        (["x/1.png", "y/pat1/1.png", "3.png"], [0, 2]),
        (["C:\\data\\pat1\\1.png"], [0]),
    ],
)
def test_masks_of_images_in_other_folders_are_ignored(tmp_path: Path, names: list[str], rows: list[int]) -> None:
    trees.images(tmp_path / "in", ["pat1/1.png", "pat2/2.png", "pat3/3.png"])
    index = datasets.index("folder", tmp_path / "in", classes="no")
    listed = [{"id": at, "file_name": name, "width": 5, "height": 3} for at, name in enumerate(names)]
    drawn = [{"image_id": at, "category_id": 1, "segmentation": [[1, 1, 4, 1, 4, 3]]} for at in range(len(names))]
    assert with_masks(index, coco(tmp_path / "a.json", images=listed, annotations=drawn)).masks["row"].tolist() == rows


def test_an_image_that_is_listed_without_masks_makes_its_name_doubtful(tmp_path: Path) -> None:
    trees.images(tmp_path / "in", ["1.png", "2.png"])
    index = datasets.index("folder", tmp_path / "in", classes="no")
    names = ("x/1.png", "y/1.png", "2.png")
    listed = [{"id": at, "file_name": name, "width": 5, "height": 3} for at, name in enumerate(names)]
    drawn = [{"image_id": at, "category_id": 1, "segmentation": [[1, 1, 4, 1, 4, 3]]} for at in (0, 2)]
    assert with_masks(index, coco(tmp_path / "a.json", images=listed, annotations=drawn)).masks["row"].tolist() == [1]
    (tmp_path / "b.json").write_text("[1, 2")
    with pytest.raises(ValueError, match=r"b\.json"):
        with_masks(index, tmp_path / "b.json")


ANNOTATION = {"image_id": 7, "category_id": 1}


@pytest.mark.parametrize(
    "changes",
    [
        {"images": 5},
        {"annotations": [{"image_id": 8, "category_id": 1, "segmentation": []}]},
        {"annotations": [{**ANNOTATION, "segmentation": 5}]},
        {"annotations": [{**ANNOTATION, "segmentation": [[1, 2, 3]]}]},
        {"annotations": [{**ANNOTATION, "segmentation": [["a", 2]]}]},
        {"annotations": [{**ANNOTATION, "segmentation": {"size": [5, 3], "counts": [15]}}]},
        {"annotations": [{**ANNOTATION, "segmentation": {"size": [3, 5], "counts": [16]}}]},
        {"annotations": [{**ANNOTATION, "segmentation": {"size": [3, 5], "counts": {}}}]},
        {"images": [{"id": 7, "file_name": "a.png", "width": 1e9, "height": 1e9}]},
        {"images": [{"id": 7, "file_name": "a.png", "width": 2.5, "height": 3}]},
        {"images": [{"id": 7, "file_name": "other.png", "width": 5, "height": 3}]},
        {"categories": [{"id": [1], "name": "a"}]},
    ],
)
def test_a_damaged_coco_file_is_one_line(index: Index, tmp_path: Path, changes: dict) -> None:
    with pytest.raises(ValueError, match=r"a\.json") as error:
        with_masks(index, coco(tmp_path / "a.json", **changes))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "lines",
    [
        ("path,x", "a,1"),
        (HEADER.replace(",Height,Width", ""), "00000001_001.png,1,1,,1 1,1 1,1 1"),
        (HEADER, "00000001_001.png,1,1,,1 1,1 1,1 99,3,4"),
        (HEADER, "00000001_001.png,1,1,,0 1,1 1,1 1,3,4"),
        (HEADER, "00000001_001.png,1,1,,1 1,1 1,1 1,3,100000000"),
        (HEADER, "00000001_001.png,1,1,,1 1,1 1,1 1,x,4"),
        (HEADER, "other.png,1,1,,1 1,1 1,1 1,3,4"),
    ],
)
def test_a_damaged_chexmask_file_is_one_line(index: Index, tmp_path: Path, lines: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match=r"m\.csv") as error:
        with_masks(index, trees.text(tmp_path / "m.csv", *lines))
    assert "\n" not in str(error.value)


def test_the_import_adds_masks_and_says_how_many(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, row = trees.nih(tmp_path / "nih"), "00000001_001.png,1,1,,1 16,40 2,50 1,32,32"
    masks = (chexmask(tmp_path / "m.csv", row),)
    opened = import_.run(import_.Options("nih", root, tmp_path / "out", size=32, masks=masks))
    assert opened is not None and len(opened.masks) == 3
    assert "3 masks on 1 image." in capsys.readouterr().out
    with pytest.raises(FileNotFoundError):
        import_.run(import_.Options("nih", root, tmp_path / "other", masks=(tmp_path / "no.csv",)))
