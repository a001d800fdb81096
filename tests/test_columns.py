"""Columns of one's own tables: findings, views and slices are recognised, or named with their number."""

from pathlib import Path

import numpy as np
import pytest
import trees

from ribcage.data import findings
from ribcage.data.readers import columns


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "own"
    made.mkdir()
    return made


# ---- findings


@pytest.mark.parametrize(
    ("cell", "wanted"),
    [
        ("COVID-19, ARDS", {"COVID_19", "ARDS"}),
        ("Pneumonia/Viral/COVID-19", {"Pneumonia", "Viral", "COVID_19"}),
        ("Silicosis, stage 1", {"Silicosis_stage_1"}),
        ("Own, Other", {"Own", "Other"}),  # both stand alone below
    ],
)
def test_a_comma_parts_findings_where_one_of_them_is_known(
    folder: Path, cell: str, wanted: set[str], caplog: pytest.LogCaptureFixture
) -> None:
    found = trees.read_table(folder, "path;label", f"1.png;{cell}", "2.png;Mass", "3.png;Own", "4.png;Other")
    assert {name for name in found.findings if found.table[name].iloc[0] == 1} == wanted
    assert cell in caplog.text, "what a comma was taken for is said"


def test_words_of_a_view_are_no_findings(folder: Path) -> None:
    found = trees.read_table(
        folder, "path,label", "1.png,Normal; AP", "2.png,Mass|PA|L", "3.png,AP Supine", "4.png,Lateral meniscus"
    )
    assert found.findings == ("Mass", "L", "Lateral_meniscus")  # a letter may be anything
    assert np.isnan(found.labels).all(axis=1).tolist() == [False, False, True, False]
    assert found.labels[:2].tolist() == [[0, 0, 0], [1, 1, 0]]


@pytest.mark.parametrize("name", ["1_abnormal", "abnormal", "E_Coli", "TC", "Infection", "Pneumonitis"])
def test_nothing_far_is_proposed(name: str) -> None:
    assert findings.closest_finding(name) == ""


@pytest.mark.parametrize(
    ("name", "finding"), [("Efusion", "Effusion"), ("Pnuemonia", "Pneumonia"), ("Plueral Effusion", "Effusion")]
)
def test_typing_errors_are_seen_through(name: str, finding: str) -> None:
    assert findings.closest_finding(name) == finding


# ---- views


@pytest.mark.parametrize(
    ("cell", "view"),
    [
        ("AP Supine", "AP"), ("portable", "AP"), ("PA erect", "PA"), ("postero-anterior", "PA"), ("L", "LATERAL"),
        ("XTABLE LATERAL", "LATERAL"), ("left lateral decubitus", ""), ("Axial", ""), ("CT Coronal", ""), ("", ""),
        ("AP AXIAL", "AP"), ("仰卧位", "AP"), ("oblique", ""),
    ],
)  # fmt: skip
def test_views_in_more_than_a_word(cell: str, view: str) -> None:
    import pandas as pd

    assert columns.views(pd.Series([cell], dtype="str")).tolist() == [view]


def test_unknown_views_are_reported_with_their_count(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    trees.read_table(folder, "path,view,Mass", "1.png,PA,1", "2.png,sideways,1", "3.png,sideways,0")
    assert "2 × 'sideways'" in caplog.text


@pytest.mark.parametrize("header", ["view", "modality", "kind"])
def test_slices_of_ct_are_left_out_and_counted(folder: Path, header: str, caplog: pytest.LogCaptureFixture) -> None:
    lines = (f"path,{header},Mass", "1.png,X-ray,1", "2.png,CT Axial,1")
    assert trees.read_table(folder, *lines).table["path"].tolist() == ["1.png"]
    assert "1 CT or MR slice " in caplog.text and "--slices keep" in caplog.text
    assert len(trees.read_table(folder, *lines, slices="keep")) == 2
