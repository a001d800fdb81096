"""RSNA: boxes, classes, patients of ChestX-ray14, the LoVT split."""

import json
from pathlib import Path

import pytest
import trees
from refusals import has_facts

from ribcage.data import datasets


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "病人 数据 set"


def test_rsnas_patients_are_images_unless_it_is_joined_to_chestxray14(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = trees.rsna(folder)
    datasets.index("rsna", root)
    assert has_facts(caplog.text, "image", "patient")
    caplog.clear()
    rows = [
        {"subset_img_id": name, "img_id": f"{place // 2:08d}_00{place % 2}.png"}
        for place, name in enumerate(trees.RSNA_IDS)
    ]
    trees.text(root / "pneumonia-challenge-dataset-mappings_2018.json", json.dumps(rows))
    table = datasets.index("rsna", root).table
    assert table["patient"].nunique() == 10 and not caplog.text.count("names an image")
    assert table.groupby("patient")["split"].nunique().eq(1).all()


def test_rsna_has_one_row_per_image_its_boxes_and_three_classes(folder: Path) -> None:
    found = datasets.index("rsna", trees.rsna(folder))
    assert len(found) == 20 and len(found.boxes) == 14 and found.findings == ("Lung_Opacity",)
    assert found.table["Lung_Opacity"].sum() == 7
    assert set(found.table["class"]) == {"Lung Opacity", "Normal", "No Lung Opacity / Not Normal"}
    assert "split_lovt" not in found.table


def test_the_lovt_split_is_taken_where_its_lists_are(folder: Path) -> None:
    found = datasets.index("rsna", trees.lovt(trees.rsna(folder)))
    assert found.table["split"].value_counts().to_dict() == {"train": 12, "val": 4, "test": 4}
    by_patient = datasets.index("rsna", folder, split="patient")
    assert not by_patient.table["split"].equals(found.table["split"])


def test_rsna_images_may_be_converted(folder: Path) -> None:
    root = trees.rsna(folder)
    trees.images(root / "png", [f"{name}.png" for name in trees.RSNA_IDS])
    assert datasets.index("rsna", root).table["path"].str.endswith(".dcm").all()
    assert datasets.index("rsna", root, images="png").table["path"].str.startswith("png/").all()


def test_the_real_tables_of_rsna_and_lovt_give_the_published_counts(real: Path) -> None:
    found = datasets.index("rsna", real / "rsna")
    assert len(found) == 26_684 and len(found.boxes) == 9_555
    assert found.table["split"].value_counts().to_dict() == {"train": 16_010, "val": 5_337, "test": 5_337}
    assert found.table.groupby("split")["Lung_Opacity"].sum().to_dict() == {"train": 3_584, "val": 1_210, "test": 1_218}
    boxes = found.boxes["row"].map(found.table["split"]).value_counts().to_dict()
    assert boxes == {"train": 5_707, "val": 1_901, "test": 1_947}
