"""Dataset folders: opened whole or refused by name; folders of format 1 open."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from image_folders import SIZE, facts, images, imported

from ribcage.data import dataset_folder
from ribcage.data.importer import writer


def test_the_images_open_with_plain_numpy(tmp_path: Path) -> None:
    imported(images(tmp_path / "in", 5), tmp_path / "out")
    assert np.load(tmp_path / "out" / "images.npy").shape == (5, SIZE, SIZE)


def test_an_unfinished_folder_does_not_open(tmp_path: Path) -> None:
    with writer.Writer(images(tmp_path / "in", 10), facts(tmp_path), tmp_path / "out"):
        pass
    with pytest.raises(FileNotFoundError, match=r"unfinished import.*same 'ribcage import' again"):
        dataset_folder.open(tmp_path / "out")


def test_a_file_in_place_of_a_folder_is_called_a_file(tmp_path: Path) -> None:
    (tmp_path / "archive.npz").touch()
    with pytest.raises(FileNotFoundError, match=r"archive\.npz is a file.*'ribcage import'"):
        dataset_folder.open(tmp_path / "archive.npz")


def test_a_linked_folder_reads_the_same_images_without_storing_them(tmp_path: Path) -> None:
    index = images(tmp_path / "in", 40)
    copied = imported(index, tmp_path / "copied")
    writer.link(index, facts(index.root), tmp_path / "linked")
    linked = dataset_folder.open(tmp_path / "linked")
    assert not (tmp_path / "linked" / "images.npy").exists()
    np.testing.assert_array_equal(linked.image(17), copied.image(17))
    assert linked.mean == copied.mean


def test_damaged_folders_are_refused_with_what_to_do(tmp_path: Path) -> None:
    imported(images(tmp_path / "in", 5), tmp_path / "out")
    file = tmp_path / "out" / "images.npy"
    whole = file.read_bytes()
    file.write_bytes(whole[:-100])
    with pytest.raises(ValueError, match="damaged"):
        dataset_folder.open(tmp_path / "out")
    file.write_bytes(whole)
    (tmp_path / "out" / "dataset.json").write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match="not valid JSON"):
        dataset_folder.open(tmp_path / "out")
    (tmp_path / "out" / "dataset.json").write_text(json.dumps({"format": 99}), encoding="utf-8")
    with pytest.raises(ValueError, match="another version"):
        dataset_folder.open(tmp_path / "out")


def test_a_table_from_another_folder_is_refused(tmp_path: Path) -> None:
    """Its labels would stand on other images."""
    one, two = (imported(images(tmp_path / name, 20), tmp_path / f"{name} out") for name in ("a", "b"))
    reversed_index = two.index.take(np.arange(20)[::-1])
    reversed_index.save(two.folder / "index.parquet")
    with pytest.raises(ValueError, match=r"index\.parquet"):
        dataset_folder.open(two.folder)
    shutil.copy(one.folder / "fingerprints.parquet", one.folder / "index.parquet")
    with pytest.raises(ValueError, match=r"index\.parquet"):
        dataset_folder.open(one.folder)


@pytest.mark.parametrize("name", ["index.parquet", "fingerprints.parquet", "images.npy"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    opened = imported(images(tmp_path / "in", 5), tmp_path / "out")
    (tmp_path / "out" / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"{name} is missing"):
        _ = dataset_folder.open(opened.folder).fingerprints


@pytest.mark.parametrize(
    "change",
    [
        *({"size": "x"}, {"findings": None}, {"depth": 12}, {"mean": "x"}, {"size": None}, {"fit": "x"}),
        *({"findings": [1]}, {"notes": {"x": "1"}}, {"tables": {"index.parquet": 1}}),
    ],
)
def test_a_dataset_json_that_somebody_edited_wrongly_is_named(tmp_path: Path, change: dict[str, object]) -> None:
    imported(images(tmp_path / "in", 5), tmp_path / "out")
    file = tmp_path / "out" / "dataset.json"
    file.write_text(json.dumps({**json.loads(file.read_text(encoding="utf-8")), **change}), encoding="utf-8")
    with pytest.raises(ValueError, match=r"dataset\.json is damaged"):
        dataset_folder.open(tmp_path / "out")


def test_a_folder_of_an_older_version_opens(tmp_path: Path) -> None:
    imported(images(tmp_path / "in", 4), tmp_path / "out")
    file = tmp_path / "out" / "dataset.json"
    values = json.loads(file.read_text())
    del values["drop_shared"]
    values["format"] = 1
    file.write_text(json.dumps(values))
    assert dataset_folder.open(tmp_path / "out").facts.drop_shared == ()
