"""COVIDx: lists of two or three classes; what a class does not say stays unknown."""

from pathlib import Path

import numpy as np
import pytest
import trees

from ribcage.data import datasets

NAN = np.nan


def test_negative_images_are_neither_normal_nor_without_pneumonia(tmp_path: Path) -> None:
    found = datasets.index("covidx", trees.covidx(tmp_path / "片 covidx"))
    assert found.findings == ("COVID_19", "Pneumonia", "No_Finding")
    np.testing.assert_array_equal(found.labels[:2], [[1, NAN, 0], [0, NAN, NAN]])
    assert found.table["split"].value_counts().to_dict() == {"train": 8, "val": 8, "test": 8}
    assert found.table["patient"].tolist()[:2] == ["cohen-COVID 0", "bimcv-1"]


def test_lists_of_three_classes(tmp_path: Path) -> None:
    trees.text(tmp_path / "train_COVIDx9A.txt", "3 a.png pneumonia cohen", "4 b.png normal rsna", "5 c.png COVID-19")
    found = datasets.index("covidx", tmp_path)
    np.testing.assert_array_equal(found.labels, [[0, 1, 0], [0, 0, 1], [1, NAN, 0]])


def test_a_missing_image_is_not_the_one_with_its_name_in_another_split(tmp_path: Path) -> None:
    trees.text(tmp_path / "train.txt", "1 a.png positive x", "2 b.png positive x", "3 c.png negative x")
    trees.text(tmp_path / "test.txt", "4 a.png negative x", "5 b.png negative x")
    for name in ("test/a.png", "train/b.png", "test/b.png", "test/c.png"):
        trees.text(tmp_path / name)
    table = datasets.index("covidx", tmp_path).table
    assert table["path"].tolist() == ["train/a.png", "train/b.png", "test/c.png", "test/a.png", "test/b.png"]
    assert table["patient"].tolist() == ["x-1", "x-2", "x-3", "x-4", "x-5"]


@pytest.mark.parametrize("line", ["1 a.png", "1 a.png perhaps x", "a.png positive", "1 a positive x"])
def test_a_line_that_is_not_understood_is_named(tmp_path: Path, line: str) -> None:
    trees.text(tmp_path / "train.txt", "1 a.png positive x", line)
    with pytest.raises(ValueError, match=r"train\.txt, line 2"):
        datasets.index("covidx", tmp_path)


def test_two_lists_of_one_split_are_not_guessed_between(tmp_path: Path) -> None:
    for name in ("train_COVIDx9A.txt", "train_COVIDx9B.txt"):
        trees.text(tmp_path / name, "1 a.png positive x")
    with pytest.raises(ValueError, match=r"train_COVIDx9A\.txt, train_COVIDx9B\.txt"):
        datasets.index("covidx", tmp_path)
