"""Reports travel with their index, through files, imports and merges; their text is in no message, audit or bundle."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from image_folders import facts, images, imported
from test_parts import in_parts, merged
from test_writer import digest

from ribcage.commands import inspect
from ribcage.data import dataset_folder
from ribcage.data.collection import Datasets
from ribcage.data.dataset_folder import DatasetFolder
from ribcage.data.importer import writer
from ribcage.data.index import Index
from ribcage.data.provenance import Provenance
from ribcage.data.radiology_reports import COLUMNS, REPORTS_FILE, SECTIONS, Report, load_reports, reports_of_images

SECRET = "Mrs. Schmidt-Özdemir 肺"


@pytest.fixture
def index(tmp_path: Path) -> Index:
    """130 images, of which one cannot be read; three in four have a report, which describes the images of a patient."""
    made = images(tmp_path / "in 片", 130)
    made.file(3).write_bytes(b"not an image")
    patients = made.table["patient"]
    keys = patients.where(np.arange(130) % 4 != 3, "none")
    texts = pd.DataFrame({"findings": [f"{SECRET} {name}" for name in patients], "impression": ""}, index=patients)
    return replace(made, reports=reports_of_images(keys, texts, "de"))


@pytest.fixture
def opened(index: Index, tmp_path: Path) -> DatasetFolder:
    return imported(index, tmp_path / "out 目录")


def test_reports_are_joined_by_key_and_ordered_by_their_first_image() -> None:
    texts = pd.DataFrame({"findings": ["a", "", "c", "again"], "impression": ["", None, "d", ""]}, ["x", "y", "z", "x"])
    found = reports_of_images(pd.Series(["z", "y", "x", "", "z", "other"]), texts)
    assert found["rows"].tolist() == [(0, 4), (2,)]
    assert found[["findings", "impression", "other", "language"]].to_numpy().tolist() == [
        ["c", "d", "", ""],
        ["a", "", "", ""],
    ]
    assert tuple(reports_of_images(pd.Series([], dtype="str"), texts)) == COLUMNS


def test_reports_survive_a_file(index: Index, tmp_path: Path) -> None:
    for place in ("one", "two"):
        (tmp_path / place).mkdir()
        dataset_folder.save_index(index, tmp_path / place / "index.parquet")
        index = dataset_folder.load_index(tmp_path / place / "index.parquet")
    assert digest(tmp_path / "one") == digest(tmp_path / "two") and set(digest(tmp_path / "one")) == {
        "index.parquet",
        REPORTS_FILE,
    }
    dataset_folder.save_index(index.take([3]), tmp_path / "one" / "index.parquet")
    assert not (tmp_path / "one" / REPORTS_FILE).exists()


def test_reports_go_with_their_images(index: Index) -> None:
    taken = index.take([8, 0, 3, 9, 2])
    assert taken.reports["rows"].tolist() == [(0, 3), (1,), (4,)]
    assert taken.reports["findings"].tolist() == [f"{SECRET} p4", f"{SECRET} p0", f"{SECRET} p1"]


def test_a_folder_and_several_folders_return_the_report_on_a_row(opened: DatasetFolder) -> None:
    assert opened.facts.tables.keys() == {"index.parquet", REPORTS_FILE, "fingerprints.parquet"}
    data = Datasets.of([opened, opened])
    assert data.report_of(3) == Report(findings=f"{SECRET} p2", language="de")  # row 3 of the source was rejected
    assert data.report_of(len(opened) + 3) == opened.report_of(3) and opened.report_of(6) is None
    assert data.reports["rows"].iloc[-1] == tuple(row + len(opened) for row in opened.reports["rows"].iloc[-1])
    assert opened.report_of(3).text == f"FINDINGS: {SECRET} p2"


def test_a_folder_without_reports_returns_none(tmp_path: Path) -> None:
    plain = imported(images(tmp_path / "in", 2), tmp_path / "out")
    assert not len(plain.reports) and plain.report_of(0) is None and Datasets.of([plain]).report_of(1) is None
    assert REPORTS_FILE not in plain.facts.tables and tuple(Datasets.of([plain]).reports) == COLUMNS


def test_a_linked_folder_has_the_reports_of_all_images(index: Index, tmp_path: Path) -> None:
    writer.link(index, facts(index.root), tmp_path / "linked")
    pd.testing.assert_frame_equal(dataset_folder.open(tmp_path / "linked").reports, index.reports)


def test_parts_give_the_bytes_of_a_single_import(index: Index, opened: DatasetFolder, tmp_path: Path) -> None:
    assert merged(in_parts(index, tmp_path / "out", 2)) == digest(opened.folder)


def test_reports_decide_whether_an_import_is_the_same(index: Index) -> None:
    other = replace(index, reports=index.reports.assign(impression="changed"))
    assert writer.plan(index, facts(index.root)) != writer.plan(other, facts(index.root))


def test_reports_of_another_import_are_refused(opened: DatasetFolder, index: Index) -> None:
    index.take(range(60)).beside[REPORTS_FILE](opened.folder / REPORTS_FILE)
    with pytest.raises(ValueError, match=REPORTS_FILE):
        _ = dataset_folder.open(opened.folder).reports
    (opened.folder / REPORTS_FILE).unlink()
    with pytest.raises(FileNotFoundError, match=REPORTS_FILE):
        _ = dataset_folder.open(opened.folder).reports


def test_opening_a_folder_does_not_read_its_reports(opened: DatasetFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset_folder, "load_reports", lambda *_: pytest.fail("reports were read"))
    again = dataset_folder.open(opened.folder)
    assert len(again) == 129 and not len(again.index.reports)


def test_the_text_of_reports_is_in_no_output_and_in_nothing_that_a_bundle_records(
    opened: DatasetFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    result = inspect.run(inspect.Options((str(opened.folder),), html=tmp_path / "a.html", json=tmp_path / "a.json"))
    assert result["sets"][0]["reports"] == {"reports": 65, "images": 98, "findings": 65}
    rows = np.arange(len(opened))
    Provenance.of(Datasets.of([opened]), rows[:9], rows[9:]).save(tmp_path / "provenance.npz")
    written = [*tmp_path.glob("a.*"), opened.folder / "dataset.json", opened.folder / "index.parquet"]
    texts = [file.read_text(errors="replace") for file in [*written, tmp_path / "provenance.npz"]]
    shown = [*capsys.readouterr(), caplog.text, repr(opened.report_of(3)), repr(opened), repr(opened.index)]
    assert "65 on 98" in shown[0] and not any("Schmidt" in text or "肺" in text for text in [*texts, *shown])


@pytest.mark.parametrize(
    "change",
    [
        lambda rows: rows.assign(rows=[(row[0] + 100, *row[1:]) for row in rows["rows"]]),
        lambda rows: rows.assign(rows=[(-1,) for _ in rows["rows"]]),
        lambda rows: rows.assign(rows=[() for _ in rows["rows"]]),
        lambda rows: rows.assign(rows=[(0,) for _ in rows["rows"]]),
        lambda rows: rows.iloc[::-1].reset_index(drop=True),
        lambda rows: rows.assign(language="German"),
        lambda rows: rows.assign(findings="Schmidt" * 160_000),
        lambda rows: rows.drop(columns="findings"),
        lambda rows: rows.assign(history="Schmidt"),
    ],
)
def test_impossible_reports_are_refused_without_their_text(
    index: Index, change: Callable[[pd.DataFrame], pd.DataFrame]
) -> None:
    with pytest.raises(ValueError, match=r"'made'") as error:
        replace(index, reports=change(index.reports))
    assert "Schmidt" not in str(error.value) and "\n" not in str(error.value)


PLAIN = {"rows": [[0]], **{name: ["Schmidt"] for name in SECTIONS}, "language": ["en"]}


@pytest.mark.parametrize(
    "columns",
    [
        {**PLAIN, "rows": [0]},
        {**PLAIN, "rows": [["0"]]},
        {**PLAIN, "rows": [[None]]},
        {**PLAIN, "rows": [None]},
        {**PLAIN, "rows": [[5]]},
        {**PLAIN, "findings": [1]},
        {**PLAIN, "findings": [None]},
        {**PLAIN, "findings": [b"\xff"]},
        {**PLAIN, "findings": [["Schmidt"]]},
        {**PLAIN, "more": ["Schmidt"]},
        {"rows": [[0]]},
        {},
    ],
)
def test_a_table_of_another_kind_holds_no_reports(tmp_path: Path, columns: dict[str, list]) -> None:
    pq.write_table(pa.table({name: pa.array(each) for name, each in columns.items()}), tmp_path / REPORTS_FILE)
    with pytest.raises(ValueError) as error:
        load_reports(tmp_path / REPORTS_FILE, 2)
    said = str(error.value)
    assert "\n" not in said and str(tmp_path / REPORTS_FILE) in said and "Schmidt" not in said


def test_a_damaged_table_of_reports_is_one_line(tmp_path: Path) -> None:
    (tmp_path / REPORTS_FILE).write_bytes(b"PAR1 no")
    with pytest.raises(ValueError) as error:
        load_reports(tmp_path / REPORTS_FILE, 2)
    assert "\n" not in str(error.value)
