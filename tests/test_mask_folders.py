"""Image files beside the images are recognised as their masks, by folders and endings; other files stay images."""

import logging
from pathlib import Path

import pytest
import trees

from ribcage.data import datasets
from ribcage.data.masks import MaskFile
from ribcage.data.readers.mask_folders import masks_in_folders, without_masks


@pytest.mark.parametrize(
    ("mask", "image", "structure"),
    [
        ("masks/a.png", "images/a.jpg", "Mask"),
        ("masks/a.png", "a.png", "Mask"),
        ("masks/left lung/a.png", "a.png", "Left_Lung"),
        ("ManualMask/rightMask/a.png", "CXR_png/a.png", "Right_Lung"),
        ("train/masks/a.png", "train/images/a.png", "Mask"),
        ("masks/train/a.png", "train/a.png", "Mask"),
        ("masks/heart/train/a.png", "train/a.png", "Heart"),
        ("a_mask.png", "a.png", "Mask"),
        ("x/a_1-seg.png", "x/a_1.png", "Mask"),
        ("a_left_lung_mask.png", "a.png", "Left_Lung"),
        ("mask/a_mask.png", "a.dcm", "Mask"),
        ("masks/Pneumothorax/a.png", "a.png", "Pneumothorax"),
        ("masks/my thing/a.png", "a.png", "my thing"),
    ],
)
def test_a_mask_is_matched_to_its_image(mask: str, image: str, structure: str) -> None:
    found = masks_in_folders([mask, image, "other.png"], ["other.png", image])
    assert [(one.row, one.structure, one.mask) for one in found] == [(1, structure, MaskFile(mask))]
    assert without_masks([image, mask, "other.png"]) == [image, "other.png"]


def test_names_that_only_look_like_masks_stay_images() -> None:
    images = ["b_mask.png", "c.png", "masked/d.png"]
    assert without_masks(images) == images and not masks_in_folders(images, images)
    both = ["train/a.png", "test/a.png"]
    assert [one.row for one in masks_in_folders(["test/masks/a.png", *both], both)] == [1]
    assert not masks_in_folders(["masks/a.png", *both], both)  # of which image?


def test_a_folder_with_masks_is_imported_with_them(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    trees.images(tmp_path, ["images/a.png", "images/b.png", "images/c.png"])
    for name in ("masks/left lung/a.png", "masks/heart/a.png", "masks/b.png", "masks/zzz.png", "images/c_mask.png"):
        trees.mask(tmp_path / name)
    with caplog.at_level(logging.WARNING):
        found = datasets.index("folder", tmp_path, mask_structure="Lungs")
    assert found.table["path"].tolist() == ["images/a.png", "images/b.png", "images/c.png"]
    assert sorted(zip(found.masks["row"], found.masks["structure"], strict=True)) == [
        (0, "Heart"), (0, "Left_Lung"), (1, "Lungs"), (2, "Lungs")
    ]  # fmt: skip
    assert "Lungs 2" in caplog.text and "ignored" in caplog.text
    assert not len(datasets.index("folder", tmp_path, mask_files="no").masks)
    lines = ("path,Mass", "images/a.png,1", "images/b.png,0")
    assert not len(trees.read_table(tmp_path, *lines).masks)
    table = trees.read_table(tmp_path, *lines, mask_files="yes")
    assert table.masks["structure"].tolist().count("Heart") == 1 and len(table.masks) == 3
