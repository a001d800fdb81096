"""Report columns of a user's table: recognised by name or by sentences, chosen by an option, and never shown."""

from pathlib import Path

import pytest
import trees

from ribcage.data.index import Index

CLEAR, SICK = "The lungs are clear. No effusion.", "Large left pleural effusion with atelectasis."


def read(folder: Path, header: str, *rows: str, **options: object) -> Index:
    trees.images(folder, [f"{name}.png" for name in "abcd"[: len(rows)]])
    return trees.read_table(
        folder, f"path,{header}", *(f"{'abcd'[n]}.png,{row}" for n, row in enumerate(rows)), **options
    )


@pytest.mark.parametrize(
    ("column", "section"),
    [
        ("impression", "impression"),
        ("Findings", "findings"),
        ("影像所见", "findings"),
        ("Clinical_History", "indication"),
        ("zzz", "other"),
    ],
)
def test_a_column_is_a_report_by_its_name_or_its_sentences(
    tmp_path: Path, column: str, section: str, caplog: pytest.LogCaptureFixture
) -> None:
    found = read(tmp_path, f"{column},Mass", f"{CLEAR},0", f"{SICK},1", ",0")
    assert found.findings == ("Mass",) and column not in found.table
    assert found.reports[section].tolist() == [CLEAR, SICK] and found.reports["rows"].tolist() == [(0,), (1,)]
    assert repr(column) in caplog.text and "--report-columns" in caplog.text and "lungs" not in caplog.text


def test_lists_of_findings_and_short_words_are_no_reports(tmp_path: Path) -> None:
    rows = ("Pleural Effusion|Lung Opacity|Pleural Thickening,Dr. A. B. C. Smith", "Mass,Dr. A. B. C. Smith")
    found = read(tmp_path, "findings,by", *rows)
    assert set(found.findings) == {"Effusion", "Lung_Opacity", "Pleural_Thickening", "Mass"}
    assert not len(found.reports) and found.table["by"][0] == "Dr. A. B. C. Smith"


def test_whole_reports_are_divided_and_columns_are_joined(tmp_path: Path) -> None:
    report = '"FINDINGS: Clear lungs, no mass.\nIMPRESSION: Normal."'
    found = read(tmp_path, "report,conclusion,Mass", f"{report},So.,0", f"{report},,1", language="en")
    first = found.reports.iloc[0]
    assert (first["findings"], first["impression"], first["language"]) == (
        "Clear lungs, no mass.",
        "Normal.\nSo.",
        "en",
    )


def test_images_of_a_study_share_a_report_and_those_of_unknown_patients_do_not(tmp_path: Path) -> None:
    rows = (f"1,7,{CLEAR},0", f"1,7,{CLEAR},0", f"1,8,{CLEAR},0", f"2,9,{CLEAR},0")
    assert read(tmp_path / "a", "patient,study,report,Mass", *rows).reports["rows"].tolist() == [(0, 1), (2,), (3,)]
    assert len(read(tmp_path / "b", "report,Mass", f"{CLEAR},0", f"{CLEAR},1").reports) == 2


def test_columns_are_chosen_by_an_option(tmp_path: Path) -> None:
    rows = (f"{CLEAR},{SICK},0", f"{SICK},,1")
    found = read(tmp_path / "a", "one,two,Mass", *rows, report_columns=("impression=one", "two"))
    assert found.reports["impression"].tolist() == [CLEAR, SICK] and found.reports["other"].tolist() == [SICK, ""]
    none = read(tmp_path / "b", "one,two,Mass", *rows, report_columns=("none",))
    assert not len(none.reports) and none.table["one"].tolist() == [CLEAR, SICK]
    for wrong in ("three", "findings=three", "history=one"):
        with pytest.raises(ValueError, match=f"--report-columns '{wrong}'") as error:
            read(tmp_path / "c", "one,two,Mass", *rows, report_columns=(wrong,))
        assert "effusion" not in str(error.value)


def test_text_in_a_column_of_labels_is_refused_without_the_text(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"one has a text of 33 characters in line 2") as error:
        read(tmp_path, "one,Mass", f"{CLEAR},0", "1,1", label_columns=("one", "Mass"))
    assert "lungs" not in str(error.value)


def test_several_reports_of_an_image_are_a_warning_without_text(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trees.images(tmp_path, ["a.png"])
    found = trees.read_table(tmp_path, "path,report,Mass", f"a.png,{CLEAR},0", f"a.png,{SICK},0")
    assert found.reports["other"].tolist() == [CLEAR] and "1 image has several rows" in caplog.text
    assert "'report'" in caplog.text and "effusion" not in caplog.text.lower()


def test_a_language_that_is_no_code_is_refused_by_the_name_of_its_option(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"--language 'english'"):
        read(tmp_path, "report,Mass", "None.,0", language="english")
