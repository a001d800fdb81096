"""Provenance: images and patients of training and selection, saved and read back."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from ribcage.commands import import_
from ribcage.data import dataset_folder
from ribcage.data.collection import Datasets
from ribcage.data.dataset_folder import DatasetFolder
from ribcage.data.provenance import Provenance
from ribcage.evaluation import leakage
from ribcage.imaging import fingerprint


def radiograph(seed: int, side: int = 96) -> np.ndarray:
    """Something large-scaled and different for every seed."""
    coarse = np.random.default_rng(seed).random((9, 9)).astype(np.float32)
    return (255 * cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC).clip(0, 1)).astype(np.uint8)


# ---- of dataset folders


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[DatasetFolder, DatasetFolder]:
    """The same phantoms imported and linked."""
    root = tmp_path_factory.mktemp("集 one")
    files = root / "files"
    files.mkdir()
    rows = []
    for number in range(12):
        cv2.imwrite(str(files / f"{number}.png"), radiograph(number))
        patient = "" if number == 11 else f"p{number // 2}"
        rows.append(
            {"path": f"{number}.png", "patient": patient, "split": "test" if number < 4 else "train", "Mass": 1}
        )
    pd.DataFrame(rows).to_csv(files / "labels.csv", index=False)
    for name, link in (("copied", False), ("linked", True)):
        import_.run(import_.Options("folder", files, out=root / name, size=64, link=link))
    return dataset_folder.open(root / "copied"), dataset_folder.open(root / "linked")


def test_a_model_knows_the_roles_of_what_it_has_seen(folders: tuple[DatasetFolder, DatasetFolder]) -> None:
    found = Provenance.of(Datasets.of([folders[0]]), np.arange(4, 10), np.arange(10, 12))
    assert found.role.tolist() == [0] * 6 + [1] * 2
    assert len(found.patients) == 4 and len(found.pixels) == 8 and found.prints.shape == (8, fingerprint.VARIANTS, 4)
    assert np.array_equal(found.pixels, folders[0].fingerprints.pixels[4:])


def test_rows_are_counted_through_all_sets(folders: tuple[DatasetFolder, DatasetFolder]) -> None:
    copied = folders[0]
    found = Provenance.of(Datasets.of([copied, copied]), np.array([0, 12 + 5]), np.array([], np.int64))
    assert np.array_equal(found.pixels, copied.fingerprints.pixels[[0, 5]])


def test_a_linked_folder_leaks_by_its_patients_alone(folders: tuple[DatasetFolder, DatasetFolder]) -> None:
    copied, linked = folders
    assert linked.facts.linked
    found = Provenance.of(Datasets.of([linked]), np.arange(12), np.array([], np.int64))
    assert (found.pixels == 0).all() and len(found.patients) == 6
    leak = leakage.find_leak(found, copied.fingerprints)
    assert (leak.patients, leak.images, leak.identical, leak.alike) == (6, 11, 0, 0)


def test_images_without_fingerprints_are_not_alike(folders: tuple[DatasetFolder, DatasetFolder]) -> None:
    linked = folders[1]
    nobody = replace(linked.fingerprints, patients=np.zeros(12, np.uint64))
    assert not leakage.find_leak(Provenance.of(Datasets.of([linked]), np.arange(12), np.array([], np.int64)), nobody)


def test_what_is_saved_is_what_is_read(folders: tuple[DatasetFolder, DatasetFolder], tmp_path: Path) -> None:
    found = Provenance.of(Datasets.of([folders[0]]), np.arange(6), np.arange(6, 12))
    found.save(tmp_path / "p.npz")
    read = Provenance.load(tmp_path / "p.npz")
    assert all(np.array_equal(value, getattr(read, name)) for name, value in vars(found).items())
