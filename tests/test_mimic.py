"""MIMIC-CXR-JPG: labels by study, views, patients, a radiologist's labels of the test split."""

import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import trees

from ribcage.data import datasets


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "病人 数据 set"


def test_labels_of_a_study_go_to_all_its_images_and_a_study_without_has_none(folder: Path) -> None:
    table = datasets.index("mimic", trees.mimic(folder)).table
    assert table.groupby("study")["Edema"].nunique(dropna=False).eq(1).all()
    assert table["Edema"].iloc[:-3].eq(-1).all() and table["Edema"].iloc[-3:].isna().all()
    assert table["view"].iloc[:3].tolist() == ["PA", "LATERAL", ""] and table["view_position"].iloc[1] == "LL"
    assert table["split"].value_counts().to_dict() == {"train": 30, "val": 6, "test": 6}
    assert datasets.index("mimic", folder, labels="negbio").table["Edema"].iloc[0] == 1


def test_mimic_images_may_lie_in_a_resized_folder_and_patients_bring_sex_and_age(folder: Path) -> None:
    root = trees.mimic(folder, under="files_resized_320")
    trees.text(
        folder / "patients.csv",
        "subject_id,gender,anchor_age,anchor_year,dod",
        "10000001,F,52,2178,",
        "10000002,M,20,2180,",
    )
    found = datasets.index("mimic", root, images="files_resized_320", patients="patients.csv")
    assert all(found.file(row).is_file() for row in range(len(found)))
    assert found.table["sex"].iloc[0] == "F" and found.table["age"].iloc[0] == 54
    assert found.table["sex"].iloc[-1] == "" and np.isnan(found.table["age"].iloc[-1])


def test_blank_views_are_filled_by_what_their_code_means_and_ap_axial_is_ap(folder: Path) -> None:
    root = trees.mimic(folder)
    meta = root / "mimic-cxr-2.0.0-metadata.csv.gz"
    said = {0: ("", "postero-anterior"), 1: ("AP AXIAL", ""), 2: ("", "left lateral"), 3: ("LAO", "")}
    rows = [
        f"{pic},{patient},{study},CHEST,{said.get(place, ('', ''))[0]},1,1,21800506,1,,{said.get(place, ('', ''))[1]},"
        for place, (patient, study, pic, _) in enumerate(trees.MIMIC_ROWS)
    ]
    trees.text(meta, trees.MIMIC_METADATA, *rows)
    assert datasets.index("mimic", root).table["view"].tolist()[:5] == ["PA", "AP", "LATERAL", "", ""]


def test_reports_of_studies_from_the_archive_or_beside_the_images(folder: Path) -> None:
    root = trees.mimic(folder)
    found = datasets.index("mimic", root)
    assert found.reports["rows"].tolist()[:2] == [(0, 1, 2), (3, 4, 5)] and len(found.reports) == 13
    first = found.reports.iloc[0]
    assert first["impression"] == "No acute process." and first["indication"].endswith("study 50000010")
    with zipfile.ZipFile(root / "mimic-cxr-reports.zip") as archive:
        archive.extractall(root)
    pd.testing.assert_frame_equal(datasets.index("mimic", root, reports=".").reports, found.reports)
    (root / "mimic-cxr-reports.zip").unlink()
    pd.testing.assert_frame_equal(datasets.index("mimic", root).reports, found.reports)
    assert not len(datasets.index("mimic", root, reports="none").reports)
    with pytest.raises(FileNotFoundError, match=r"--reports: .*nowhere"):
        datasets.index("mimic", root, reports="nowhere")


def test_a_radiologists_labels_of_the_test_set_go_before_the_labellers(folder: Path) -> None:
    root = trees.mimic(folder)
    study = trees.MIMIC_ROWS[0][1]
    trees.text(root / "mimic-cxr-2.1.0-test-set-labeled.csv", "study_id,Airspace Opacity,Edema", f"{study},1.0,0.0")
    table = datasets.index("mimic", root).table
    first, other = table[table["study"] == str(study)], table[table["study"] != str(study)]
    assert first["Edema"].eq(0).all() and first["Lung_Opacity"].eq(1).all() and first["Atelectasis"].isna().all()
    assert set(first["labelled_by"]) == {"radiologist"} and set(other["labelled_by"]) == {"chexpert", ""}
    assert datasets.index("mimic", root, test_labels="labeller").table["Edema"].iloc[0] == -1
