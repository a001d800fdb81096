"""CheXpert Plus: reports in sections, labels of CheXbert, PNG or DICOM files, and the identifiers of CheXpert."""

from pathlib import Path

import pytest
import trees

from ribcage.data import datasets


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return trees.chexpert_plus(tmp_path / "片 plus")


def test_labels_people_and_files_of_both_formats(root: Path) -> None:
    found = datasets.index("chexpert_plus", root)
    first = found.table.iloc[0]
    assert first[["patient", "study", "view", "sex", "age", "race", "insurance"]].tolist() == [
        "patient00001", "patient00001/study1", "AP", "F", 51, "Asian", "Medicare"
    ]  # fmt: skip
    assert first[["Edema", "Fracture", "Pneumonia"]].tolist() == [1, 0, -1] and found.table["Effusion"].isna().all()
    assert found.table["split"].value_counts().to_dict() == {"train": 16, "val": 4} and found.name == "chexpert"
    assert found.table["path"][2] == "DICOM/train/patient00002/study1/view1_frontal.dcm"
    assert datasets.index("chexpert_plus", root, images="dcm").table["path"][2] == found.table["path"][2]


def test_sections_of_reports_and_reports_without_sections(root: Path) -> None:
    reports = datasets.index("chexpert_plus", root).reports
    assert len(reports) == 10 and reports["rows"].tolist()[:2] == [(0, 1), (2, 3)]
    first = reports.iloc[0]
    assert first[["indication", "comparison", "findings", "impression", "other"]].tolist() == [
        "fever", "none", "clear lungs", "1. ok\nSUMMARY", "NARR"
    ]  # fmt: skip
    whole = reports.iloc[2]
    assert (whole["impression"], whole["other"]) == ("whole", "NARRATIVE: x")


def test_without_the_labels_of_chexbert_all_labels_are_unknown(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    found = datasets.index("chexpert_plus", root, labels="report")
    assert found.table[list(found.findings)].isna().all(axis=None) and "report_fixed.json" in caplog.text


@pytest.mark.parametrize("line", ["", "[]", "{", '{"path_to_image": "a"}', "1", "[" * 9000])
def test_a_damaged_line_of_labels_is_named(root: Path, line: str) -> None:
    trees.text(root / "chexbert_labels" / "impression_fixed.json", line)
    with pytest.raises(ValueError, match=r"impression_fixed\.json, line 1") as error:
        datasets.index("chexpert_plus", root)
    assert "\n" not in str(error.value)
