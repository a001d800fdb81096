"""BRAX: labels as published, views and ages in their groups, studies by patient and accession number."""

from pathlib import Path

import numpy as np
import pytest
import trees

from ribcage.data import datasets


def test_labels_views_sex_and_age(tmp_path: Path) -> None:
    table = datasets.index("brax", trees.brax(tmp_path / "胸 片")).table
    assert table["view"].tolist()[:6] == ["PA", "LATERAL", "AP", "", "", "LATERAL"]
    assert table["view_position"].iloc[3] == "AP LLD"
    assert table["sex"].tolist()[::4] == ["M", "F", "", "M", "F", ""]
    np.testing.assert_array_equal(table["age"][::4], [45, 85, np.nan] * 2)
    labels = table[["No_Finding", "Lung_Opacity", "Edema", "Effusion", "Fracture"]].iloc[0]
    np.testing.assert_array_equal(labels.to_numpy(np.float64), [0, 0, -1, 1, np.nan])


def test_a_repeated_accession_number_is_another_study_of_another_patient(tmp_path: Path) -> None:
    table = datasets.index("brax", trees.brax(tmp_path)).table
    assert table["study"].nunique() == 12 and table["patient"].nunique() == 6


def test_a_missing_png_is_replaced_by_its_dicom_and_else_keeps_its_path(tmp_path: Path) -> None:
    root = trees.brax(tmp_path)
    first, second = datasets.index("brax", root).table["path"][:2]
    (root / first).unlink()
    (root / second).unlink()
    there = "Anonymized_DICOMs/" + first.removeprefix("images/").replace(".png", ".dcm")
    trees.image(root / there)
    assert datasets.index("brax", root).table["path"].tolist()[:2] == [there, second]


def test_missing_columns_and_tables_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"master_spreadsheet_update\.csv"):
        datasets.index("brax", tmp_path)
    trees.text(tmp_path / "master_spreadsheet_update.csv", "PngPath,PatientID", "a.png,1")
    with pytest.raises(ValueError, match=r"AccessionNumber.*No Finding"):
        datasets.index("brax", tmp_path)
