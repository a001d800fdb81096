"""Dataset folders and bundles of format 1 open: format_1.zip holds files that Ribcage 0.1.0 wrote."""

import zipfile
from pathlib import Path

import numpy as np
import pytest

from ribcage.bundle import history
from ribcage.bundle.io import load_classifier, load_detector
from ribcage.data import dataset_folder
from ribcage.methods.detect import Detect
from ribcage.runtime import format_1


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset folder, a classifier and a detector of format 1."""
    folder = tmp_path_factory.mktemp("format 1")
    zipfile.ZipFile(Path(__file__).with_name("format_1.zip")).extractall(folder)
    return folder


def test_endless_nesting_is_one_line() -> None:
    nested: list[object] = []
    for _ in range(2000):
        nested = [nested]
    with pytest.raises(ValueError, match="nested"):
        format_1.current({"format": 1, "a": nested}, "model.json", 2)


def test_a_dataset_folder_opens(written: Path) -> None:
    opened = dataset_folder.open(written / "dataset")
    assert len(opened) == opened.facts.images == 40 and len(opened.index.findings) == 14
    assert np.asarray(opened.image(7)).shape == (32, 32)
    assert opened.facts.options == {"images": 40, "seed": 3}


def test_a_classifier_opens_with_all_that_was_known_of_it(written: Path) -> None:
    opened = load_classifier(written / "classifier")
    assert opened.spec.name == "resnet10t" and opened.spec.training.images == 223
    assert [one.images for one in opened.spec.reliability][:3] == [14, 12, 11] and opened.ood is not None
    (test,) = history.load_tests(written / "classifier")
    assert (test.images, test.patients, len(test.contents)) == (62, 30, 1)


def test_a_detector_opens(written: Path) -> None:
    opened = load_detector(written / "detector")
    assert isinstance(opened.method, Detect) and history.load_tests(written / "detector")
