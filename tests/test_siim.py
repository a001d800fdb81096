"""SIIM-ACR: one label for each image from one or several rows of masks."""

from pathlib import Path

import numpy as np
import pytest
import trees

from ribcage.data import datasets
from ribcage.data.masks import mask_of


def test_an_image_with_any_mask_has_pneumothorax(tmp_path: Path) -> None:
    found = datasets.index("siim", trees.siim(tmp_path / "气 胸"))
    assert len(found) == 20 and found.labels[:, 0].tolist() == [0, 1, 0, 1] * 5
    assert all(found.file(row).is_file() for row in range(20))
    assert (found.table["patient"] == "").all() and (found.table["split"] == "").all()


def test_each_row_is_a_mask_and_minus_one_an_empty_one(tmp_path: Path) -> None:
    found = datasets.index("siim", trees.siim(tmp_path))
    counts = found.masks.groupby("row").size()
    assert counts[:4].tolist() == [1, 1, 1, 2] and set(found.masks["structure"]) == {"Pneumothorax"}
    areas = [mask_of(found.masks, place).area for place in range(5)]
    assert areas == [0, 10, 0, 5, 5] and set(found.masks["source_width"]) == {1024}


def test_a_mask_that_leaves_the_image_names_image_and_file(tmp_path: Path) -> None:
    trees.text(tmp_path / "stage_2_train.csv", "ImageId,EncodedPixels", "a,-1", "b,5 1048576")
    with pytest.raises(ValueError, match=r"stage_2_train\.csv .* b") as error:
        datasets.index("siim", tmp_path)
    assert "\n" not in str(error.value)


def test_the_table_of_the_second_stage_comes_first_and_blank_cells_are_unknown(tmp_path: Path) -> None:
    trees.siim(tmp_path)
    trees.text(tmp_path / "stage_2_train.csv", "ImageId,EncodedPixels", "a,-1", "b,", "c,5 6", "c,9 2")
    table = datasets.index("siim", tmp_path).table
    assert table["path"].tolist() == ["a.dcm", "b.dcm", "c.dcm"]
    np.testing.assert_array_equal(table["Pneumothorax"], [0, np.nan, 1])


def test_a_table_without_its_columns_names_them(tmp_path: Path) -> None:
    trees.text(tmp_path / "stage_2_train.csv", "ID,Label", "ID_1_any,0")
    with pytest.raises(ValueError, match=r"ImageId.*EncodedPixels"):
        datasets.index("siim", tmp_path)
    (tmp_path / "stage_2_train.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"stage_2_train\.csv.*train-rle\.csv"):
        datasets.index("siim", tmp_path)
