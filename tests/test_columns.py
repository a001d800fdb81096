"""Columns of one's own tables: findings, views and slices are recognised, or named with their number."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import trees

from ribcage.data import findings
from ribcage.data.label_policy import Policy
from ribcage.data.readers import columns
from ribcage.data.readers.table_text import LONGEST_SHOWN


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


@pytest.mark.parametrize(
    "cell",
    [
        "no effusion", "Effusion absent", "possible effusion", "uncertain effusion", "not assessed",
        "Effusion?", "Effusion (-)", "Effusion: 0", "r/o effusion", "r/o effusion/mass", "Mass|no effusion", "-",
        "Mass, without effusion", "rule out effusion", "No_Effusion", "non-effusion", "No Finding?",
        "未见胸腔积液", "无胸腔积液", "疑似肺炎", "胸腔积液待排", "胸腔积液阴性",
    ],
)  # fmt: skip
def test_an_item_that_is_negated_or_uncertain_is_no_finding(folder: Path, cell: str) -> None:
    with pytest.raises(ValueError, match=r"'label'.* line 3") as error:
        trees.read_table(folder, "path;label", "1.png;Effusion", f"2.png;{cell}", "3.png;Mass", "4.png;Normal")
    assert all(fact in str(error.value) for fact in ("1, 0, -1", "--label-columns", "No Finding"))


@pytest.mark.parametrize("cell", ["uncertain", "?", "可疑"])
def test_uncertain_without_a_finding_is_refused_in_a_list(folder: Path, cell: str) -> None:
    with pytest.raises(ValueError, match="--label-columns"):
        trees.read_table(folder, "path;label", "1.png;Effusion", f"2.png;{cell}", "3.png;Mass")


@pytest.mark.parametrize(
    "cell", ["无气肺", "动脉导管未闭", "异物", "No Significant Abnormality", "Nodule or Mass", "COVID-19"]
)
def test_names_with_such_words_are_findings(folder: Path, cell: str) -> None:
    found = trees.read_table(folder, "path;label", "1.png;Effusion", f"2.png;{cell}")
    assert found.labels[1, found.findings.index("Effusion")] == 0


@pytest.mark.parametrize(
    ("present", "absent"),
    [("COVID", "non-COVID"), ("effusion", "no effusion"), ("COVID positive", "COVID negative"), ("气胸", "无气胸")],
)
def test_a_class_and_its_opposite_are_one_finding(folder: Path, present: str, absent: str) -> None:
    found = trees.read_table(folder, "path;label", f"1.png;{present}", f"2.png;{absent}", "3.png;Normal", "4.png;")
    assert len(found.findings) == 1 and found.labels[:3, 0].tolist() == [1, 0, 0] and np.isnan(found.labels[3, 0])


def test_a_sentence_in_a_list_is_refused_and_not_printed(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    text = "Mrs Miller with a large effusion of the left side"
    for said in (
        text,
        "Mrs Miller has effusion.",
        "Mass, Mrs Miller has a large effusion since Monday, she coughs a lot",
    ):
        with pytest.raises(ValueError, match="line 3") as error:
            trees.read_table(folder, "path;findings", "1.png;Mass", f"2.png;{said}", "3.png;Edema")
        if len(said) > LONGEST_SHOWN:
            assert "Miller" not in f"{error.value} {caplog.text}"
        assert "--report-columns findings" in str(error.value)


@pytest.mark.parametrize("name", ["possible_mass", "unlabeled", "uncertain"])
def test_a_class_folder_that_does_not_name_a_present_finding_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=rf"{name}.*--classes no"):
        columns.listed_labels(pd.Series(["Mass", name, "normal"]))


def test_text_in_the_view_column_is_not_printed(caplog: pytest.LogCaptureFixture) -> None:
    assert columns.views(pd.Series(["PA", "Mrs Miller with effusion, known since 2019"])).tolist() == ["PA", ""]
    assert "Miller" not in caplog.text and "characters" in caplog.text


# ---- patients


@pytest.mark.parametrize(
    ("cells", "wanted"),
    [
        (["1", "01", "1.0", "", "2"], ["1", "01", "1", "", "2"]),
        (["1.0", "2.0"], ["1", "2"]),
        (["1.0", "1.1", "1"], ["1.0", "1.1", "1"]),  # text with points, not numbers
        (["1.0", "A1", "1"], ["1.0", "A1", "1"]),
    ],
)
def test_whole_numbers_lose_the_decimal_that_programs_append(folder: Path, cells: list[str], wanted: list[str]) -> None:
    found = trees.read_table(folder, "path,patient,Mass", *(f"{row}.png,{cell},1" for row, cell in enumerate(cells)))
    assert found.table["patient"].tolist() == wanted
    same = found.table["split"][[name.lstrip("0") == "1" for name in wanted]]
    assert same.nunique() == 1
    assert (found.patient_codes.keys != "").sum() == len({name.lstrip("0") for name in wanted} - {""})


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


def test_a_policy_of_a_dataset_without_a_name_is_refused() -> None:
    with pytest.raises(ValueError, match="':ones'"):
        Policy.parse(":ones")
