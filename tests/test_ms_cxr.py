"""MS-CXR: boxes with phrases on images of MIMIC-CXR; findings without a box are unknown."""

from pathlib import Path

import numpy as np
import pytest
import trees
from image_folders import imported

from ribcage.data import datasets
from ribcage.data.collection import Datasets


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return trees.ms_cxr(tmp_path / "片 ms")


def test_boxes_have_phrases_and_only_their_findings_are_known(root: Path) -> None:
    found = datasets.index("ms_cxr", root)
    assert len(found) == 14 and found.name == "mimic" and len(found.boxes) == 21
    assert set(zip(found.boxes["finding"], found.boxes["phrase"], strict=True)) >= {
        ("Effusion", "small, left pleural effusion")
    }
    labels = found.labels
    assert set(np.unique(labels[~np.isnan(labels)])) == {1} and (labels == 1).sum() == 21
    assert found.table[["patient", "study"]].iloc[0].tolist() == ["10000001", "50000010"]
    assert set(found.table["split"]) == {"train", "val", "test"}


def test_the_phrases_survive_an_import(root: Path, tmp_path: Path) -> None:
    found = datasets.index("ms_cxr", root)
    opened = imported(found, tmp_path / "out", dataset="ms_cxr")
    assert opened.index.boxes["phrase"].tolist() == found.boxes["phrase"].tolist()
    assert len(Datasets.of([opened]).boxes(found.findings).rows) == 21


def test_the_first_version_has_no_split(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = root / "ms-cxr" / "MS_CXR_Local_Alignment_v1.1.0.csv"
    lines = [line.rpartition(",")[0] for line in file.read_text().splitlines()]
    file.unlink()
    trees.text(file.with_name("MS_CXR_Local_Alignment_v1.0.0.csv"), *lines)
    assert set(datasets.index("ms_cxr", root).table["split"]) == {"test"} and "v1.0.0" in caplog.text


def test_paths_of_another_form_are_refused(root: Path) -> None:
    file = root / "ms-cxr" / "MS_CXR_Local_Alignment_v1.1.0.csv"
    file.write_text(file.read_text().replace("files/p10/", "files/q10/", 1))
    with pytest.raises(ValueError, match=r"MS_CXR.*p10"):
        datasets.index("ms_cxr", root)
