"""MedMNIST: sizes and flavours, damaged files, and no Python objects."""

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import trees

from ribcage.data import datasets


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "病人 数据 set"


def test_medmnist_has_no_patients_and_one_size(folder: Path) -> None:
    found = datasets.index("medmnist", trees.medmnist(folder) / "pneumoniamnist.npz")
    assert (found.table["patient"] == "").all() and set(found.table["width"]) == {28}
    read = datasets.images("medmnist", found, size=28, depth=8)
    with np.load(folder / "pneumoniamnist.npz") as file:
        np.testing.assert_array_equal(read(8), file["val_images"][1])
        np.testing.assert_array_equal(read(13), file["test_images"][3])
        np.testing.assert_array_equal(found.labels[7:10], file["val_labels"])


class Harmful:
    def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
        return (exec, ("raise SystemExit('code ran')",))


def test_an_npz_with_python_objects_is_refused_and_never_unpickled(folder: Path) -> None:
    folder.mkdir()
    evil = np.array([Harmful()], dtype=object)
    with pytest.raises(SystemExit):
        pickle.loads(pickle.dumps(evil))
    np.savez(folder / "pneumoniamnist.npz", train_images=evil, train_labels=evil)
    with pytest.raises(ValueError, match="Python objects") as error:
        datasets.index("medmnist", folder)
    assert "\n" not in str(error.value)


def test_another_medmnist_set_a_broken_file_and_wrong_labels_are_one_line_each(folder: Path) -> None:
    root = trees.medmnist(folder, "breastmnist.npz")
    with pytest.raises(ValueError, match="neither pneumoniamnist"):
        datasets.index("medmnist", root / "breastmnist.npz")
    assert len(datasets.index("medmnist", root / "breastmnist.npz", flavour="pneumonia")) == 14
    with pytest.raises(ValueError, match=r"breastmnist\.npz.*\(7, 14\)"):
        datasets.index("medmnist", root / "breastmnist.npz", flavour="chest")
    whole = (root / "breastmnist.npz").read_bytes()
    (root / "chestmnist.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"chestmnist.npz cannot be read"):
        datasets.index("medmnist", root / "chestmnist.npz")


def test_the_real_pneumoniamnist_gives_its_counts(real: Path) -> None:
    found = datasets.index("medmnist", real / "pneumoniamnist.npz")
    assert found.table["split"].value_counts().to_dict() == {"train": 4_708, "val": 524, "test": 624}
    assert datasets.images("medmnist", found)(0).shape == (28, 28)
