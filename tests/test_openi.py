"""Open-i: labels from MeSH terms, views from either table, and reports as hostile XML."""

from pathlib import Path

import numpy as np
import pytest
import trees

from ribcage.data import datasets
from ribcage.data.datasets import openi


def test_labels_of_terms_that_are_listed_missing_or_not_coded(tmp_path: Path) -> None:
    table = datasets.index("openi", trees.openi(tmp_path / "片 子")).table
    first = {terms: rows.iloc[0] for terms, rows in table.groupby("mesh_terms")}
    normal = first["normal"]
    assert normal["No_Finding"] == 1 and normal[[*openi.FINDINGS]].sum() == 1
    sick = first["Pleural Effusion/left/small|Opacity/lung/base/left|Cicatrix/lung/base"]
    assert sick[[*openi.FINDINGS]].to_dict() == {
        name: float(name in ("Effusion", "Lung_Opacity")) for name in openi.FINDINGS
    }
    poor = first["Cardiomegaly|Technical Quality of Image Unsatisfactory"]
    assert poor["Cardiomegaly"] == 1 and poor[[*openi.FINDINGS]].drop("Cardiomegaly").isna().all()
    assert first["No Indexing"][[*openi.FINDINGS]].isna().all()
    other = first["Opacity/ribs|Thickening/pleura|Subcutaneous Emphysema"]
    assert other[["Lung_Opacity", "Pleural_Thickening", "Emphysema"]].tolist() == [0, 1, 0]


def test_images_are_in_the_order_of_the_reports_and_have_views(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    table = datasets.index("openi", trees.openi(tmp_path)).table
    assert table["study"].tolist() == [str(1 + place // 2) for place in range(30)]
    assert table["view"].tolist() == ["PA", "LATERAL"] * 15
    assert "1 of 16 reports" in caplog.text


def test_the_copy_on_kaggle_has_the_same_labels(tmp_path: Path) -> None:
    one = datasets.index("openi", trees.openi(tmp_path / "nlm"))
    other = datasets.index("openi", trees.openi_kaggle(tmp_path / "kaggle"))
    np.testing.assert_array_equal(one.labels, other.labels)
    assert other.table["view"].tolist() == ["", "LATERAL"] * 15


def test_reports_are_read_in_sections_from_either_copy(tmp_path: Path) -> None:
    one = datasets.index("openi", trees.openi(tmp_path / "nlm")).reports
    other = datasets.index("openi", trees.openi_kaggle(tmp_path / "kaggle")).reports
    assert one.equals(other) and one["rows"].tolist()[:3] == [(0, 1), (4, 5), (6, 7)] and len(one) == 10
    assert one[["indication", "findings", "impression", "language"]].to_numpy().tolist()[:2] == [
        ["Chest pain", "", "a, b", "en"],
        ["", "Heart < normal. XXXX", "", "en"],
    ]


@pytest.mark.parametrize(
    "content",
    [
        b'<!DOCTYPE a [<!ENTITY b "c"><!ENTITY d "&b;&b;&b;">]><a><major>&d;</major></a>',
        '<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>'.encode("utf-16"),
        b'<!DOCTYPE a SYSTEM "file:///etc/passwd"><a/>',
        b'<?xml version="1.0" encoding="utf-7"?><a>&b;</a>',
        b"<a>" + b" " * openi.LARGEST_REPORT + b"</a>",
        b"<a><b></a>",
        b"\x00",
        b"",
    ],
)
def test_a_hostile_or_damaged_report_is_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "1.xml").write_bytes(content)
    with pytest.raises(ValueError, match=r"1\.xml") as error:
        datasets.index("openi", tmp_path)
    assert "\n" not in str(error.value)


def test_a_report_cannot_name_a_file_outside_the_folder(tmp_path: Path) -> None:
    trees.text(tmp_path / "1.xml", '<a><MeSH><major>Mass/lung</major></MeSH><parentImage id="../../1_IM-2-3"/></a>')
    assert datasets.index("openi", tmp_path).table["path"].tolist() == ["1_IM-2-3.png"]


def test_an_image_of_two_reports_is_refused(tmp_path: Path) -> None:
    trees.openi(tmp_path / "nlm")
    file = tmp_path / "nlm/ecgen-radiology/16.xml"
    file.write_text(file.read_text(encoding="utf-8").replace("</eC", '<parentImage id="CXR2_2_IM-0003-3001"/></eC'))
    with pytest.raises(ValueError, match=r"2_IM-0003-3001.* 2, 16"):
        datasets.index("openi", tmp_path / "nlm")
    projections = trees.openi_kaggle(tmp_path / "kaggle") / "indiana_projections.csv"
    with projections.open("a", encoding="utf-8") as stream:
        stream.write("5,CXR2_2_IM-0003-3001.png,Frontal\n")
    with pytest.raises(ValueError, match=r"indiana_projections\.csv.*2_IM-0003-3001"):
        datasets.index("openi", tmp_path / "kaggle")


def test_missing_reports_are_named(tmp_path: Path) -> None:
    trees.text(tmp_path / "indiana_reports.csv", "uid,MeSH", "1,normal")
    with pytest.raises(FileNotFoundError, match=r"1\.xml.*indiana_projections\.csv"):
        datasets.index("openi", tmp_path)
