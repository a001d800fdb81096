"""Image files beside the images are recognised as their masks, by folders and endings; other files stay images."""

import logging
from pathlib import Path

import pytest
import trees

from ribcage.data import datasets
from ribcage.data.masks import MaskFile
from ribcage.data.readers.mask_folders import likely_mask_files, masks_in_folders, without_masks


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
        ("masks/a.png", "x/a.png", "Mask"),
    ],
)
def test_a_mask_is_matched_to_its_image(mask: str, image: str, structure: str) -> None:
    found = masks_in_folders([mask, image, "other.png"], ["other.png", image])
    assert [(one.row, one.structure, one.mask) for one in found] == [(1, structure, MaskFile(mask))]
    assert without_masks([image, mask, "other.png"]) == [image, "other.png"]


@pytest.mark.parametrize(
    ("files", "images"),
    [
        (["a_2_mask.png", "a_10_mask.png", "a_b_mask.png", "a_normal_mask.png"], ["a.png", "a_1.png"]),
        (["masks/pat2/1.png", "masks/pat9/3.png"], ["pat1/1.png", "pat2/2.png", "pat3/3.png"]),
        (["masks/pat2/1.png"], ["1.png"]),
        (["masks/x/1.png", "masks/1.png"], ["x/y/1.png"]),
        (["masks/my thing/a.png"], ["a.png"]),
        (["masks/heart/a_left_lung_mask.png", "leftMask/heart/a.png"], ["x/a.png"]),
        (["a_left_lung_mask.png"], ["a.png", "a_left.png"]),
        (["masks/a.png"], ["train/a.png", "test/a.png"]),
    ],
)
def test_a_mask_that_may_be_of_another_image_or_structure_is_ignored(files: list[str], images: list[str]) -> None:
    assert not masks_in_folders([*files, *images], images)
    assert without_masks([*images, *files]) == images and likely_mask_files([*files, *images], images) == files


def test_the_mask_of_an_absent_image_leaves_the_others_in_place() -> None:
    images = ["pat1/1.png", "pat2/2.png"]
    found = masks_in_folders(["masks/pat1/1.png", "masks/pat2/1.png"], images)
    assert [(one.row, one.mask) for one in found] == [(0, MaskFile("masks/pat1/1.png"))]


def test_a_structure_outside_the_vocabulary_can_be_given() -> None:
    for path in ("masks/my thing/a.png", "a_my-thing_mask.png"):
        assert [one.structure for one in masks_in_folders([path], ["a.png"], "my thing")] == ["my thing"]


def test_names_that_only_look_like_masks_stay_images() -> None:
    images = ["b_mask.png", "masked/d_mask.png"]
    assert without_masks(images) == images and not masks_in_folders(images, images)
    assert without_masks(["masked/d.png", "unmask.png"]) == ["masked/d.png", "unmask.png"]
    both = ["train/a.png", "test/a.png"]
    assert [one.row for one in masks_in_folders(["test/masks/a.png", *both], both)] == [1]


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
