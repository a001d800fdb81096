"""CheXpert: uncertain labels, splits, batches, CheXlocalize."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import trees
from refusals import has_facts

from ribcage.data import datasets
from ribcage.data.findings import CHEXPERT14


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "病人 数据 set"


def test_chexpert_keeps_uncertain_and_blank_and_tells_views_apart(folder: Path) -> None:
    found = datasets.index("chexpert", trees.chexpert(folder))
    first, second = found.table.iloc[0], found.table.iloc[1]
    assert found.findings == CHEXPERT14
    labels = [
        first[name] for name in ("Cardiomegaly", "Lung_Opacity", "Edema", "Consolidation", "Effusion", "Pneumonia")
    ]
    np.testing.assert_array_equal(labels, [1, np.nan, -1, 0, 1, np.nan])
    assert first["view"] == "AP" and second["view"] == "LATERAL" and first["sex"] == "F" and first["age"] == 68
    assert first["patient"] == "patient00001" and first["study"] == "patient00001/study1"
    assert (found.labels == -1).sum() == 11 and np.isnan(found.labels).any()
    assert found.table["split"].value_counts().to_dict() == {"train": 16, "val": 6}


def test_a_training_table_alone_gives_one_patient_in_eight_to_validation(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lines = trees.chexpert_lines("train", "CheXpert-v1.0", range(1, 201))
    trees.text(folder / "train.csv", trees.CHEXPERT_HEADER, *lines)
    table = datasets.index("chexpert", folder).table
    assert set(table["split"]) == {"train", "val"} and has_facts(caplog.text, "no test")


def test_valid_may_become_test_and_validation_then_comes_from_training(folder: Path) -> None:
    lines = trees.chexpert_lines("train", "CheXpert-v1.0", range(1, 401))
    trees.text(folder / "train.csv", trees.CHEXPERT_HEADER, *lines)
    trees.text(
        folder / "valid.csv", trees.CHEXPERT_HEADER, *trees.chexpert_lines("valid", "CheXpert-v1.0", range(900, 910))
    )
    counts = datasets.index("chexpert", folder, valid="test").table["split"].value_counts()
    assert counts["test"] == 20 and 60 <= counts["val"] <= 140


def test_chexperts_test_labels_come_per_study_or_per_image(folder: Path) -> None:
    root = trees.chexpert(folder) / "CheXpert-v1.0-small"
    trees.images(root, [f"test/patient64741/study1/{name}.jpg" for name in ("view1_frontal", "view2_lateral")])
    bits = "0,1,1,1,0,0,0,0,0,0,0,0,0,1"
    trees.text(
        root / "groundtruth.csv", "Study," + trees.CHEXPERT_LABELS, f"CheXpert-v1.0/test/patient64741/study1,{bits}"
    )
    by_study = datasets.index("chexpert", root).table
    by_study = by_study[by_study["split"] == "test"]
    assert by_study["path"].str[-17:].tolist() == ["view1_frontal.jpg", "view2_lateral.jpg"]
    assert by_study["view"].tolist() == ["", "LATERAL"] and by_study["Cardiomegaly"].tolist() == [1, 1]
    rows = [f"test/patient64741/study1/view1_frontal.jpg,{bits}"]
    trees.text(root / "test_labels.csv", "Path," + trees.CHEXPERT_LABELS, *rows)
    assert (datasets.index("chexpert", root).table["split"] == "test").sum() == 1


def test_the_radiologists_of_the_test_set_are_kept_apart(folder: Path) -> None:
    root = trees.chexpert_readers(folder)
    found = datasets.index("chexpert", root)
    test = np.flatnonzero(found.table["split"] == "test")
    assert len(test) == 3 and found.table["Cardiomegaly"][test].eq(1).all()
    assert found.readings[["row", "reader"]].to_numpy().tolist() == [
        [row, name] for row in test.tolist() for name in ("bc1", "bc2", "bc4")
    ]
    assert found.readings["Cardiomegaly"].tolist() == [1, 0, 1] * 3
    assert set(datasets.index("chexpert", root, readers="ground-truth").readings["reader"]) == {"bc1", "bc2"}
    assert not len(datasets.index("chexpert", root, readers="none").readings)


def test_chexlocalize_alone_needs_no_training_csv(folder: Path) -> None:
    row = "val/patient64541/study1/view1_frontal.jpg," + ",".join("0" * 14)
    trees.text(folder / "val_labels.csv", "Path," + trees.CHEXPERT_LABELS, row)
    trees.image(folder / "val/patient64541/study1/view1_frontal.jpg")
    found = datasets.index("chexpert", folder)
    assert found.table["split"].tolist() == ["val"] and found.file(0).is_file()


def test_a_batch_that_was_not_downloaded_leaves_its_rows_with_the_tables_path(folder: Path) -> None:
    root = trees.chexpert_batches(folder)
    shutil.rmtree(root / "CheXpert-v1.0 batch 3 (train 2)")
    found = datasets.index("chexpert", root)
    there = [found.file(row).is_file() for row in range(len(found))]
    assert len(found) == 16 and sum(there) == 12


def test_paths_that_no_chexpert_csv_has_are_refused(folder: Path) -> None:
    blank = "," * 14
    trees.text(
        folder / "train.csv",
        trees.CHEXPERT_HEADER,
        f"train/patient1/study1/a.jpg,,,,{blank}",
        f"../../etc/passwd,,,,{blank}",
    )
    trees.text(folder / "valid.csv", trees.CHEXPERT_HEADER, f"valid/patient1/study1/a.jpg,,,,{blank}")
    with pytest.raises(ValueError, match=r"train\.csv.*CheXpert"):
        datasets.index("chexpert", folder)


def test_two_copies_of_chexpert_side_by_side_are_not_guessed_between(folder: Path) -> None:
    trees.chexpert(folder)
    trees.chexpert(folder, "CheXpert-v1.0")
    with pytest.raises(ValueError, match="several copies"):
        datasets.index("chexpert", folder)


def test_an_image_in_two_rows_that_differ_is_refused(folder: Path) -> None:
    lines = [f"train/patient1/study1/a.jpg,,,,,{label}{',' * 13}" for label in ("1.0", "0.0")]
    trees.text(folder / "train.csv", trees.CHEXPERT_HEADER, *lines)
    with pytest.raises(ValueError, match=r"train\.csv.*1 of 1.*'Path'"):
        datasets.index("chexpert", folder)
