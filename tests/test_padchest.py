"""PadChest: labels of reports become findings, and what a report does not say stays unknown."""

import csv
import gzip
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import trees
from refusals import has_facts

from ribcage.data import datasets
from ribcage.data.datasets import padchest


def test_labels_that_a_report_does_not_mention_are_absent_or_unknown(tmp_path: Path) -> None:
    table = datasets.index("padchest", trees.padchest(tmp_path / "片 子")).table
    row = {text: table[table["padchest_labels"] == text].iloc[0] for text in table["padchest_labels"].unique()}
    normal = row["normal"]
    assert normal["No_Finding"] == 1 and not normal[[name for name in padchest.FINDINGS if name != "No_Finding"]].any()
    sick = row["NSG tube|laminar atelectasis|pleural effusion"]
    assert sick[["Atelectasis", "Effusion", "Support_Devices"]].tolist() == [1, 1, 1]
    assert sick[["No_Finding", "Cardiomegaly"]].tolist() == [0, 0]
    compared = row["cardiomegaly|unchanged"]
    assert compared["Cardiomegaly"] == 1 and compared[[*padchest.FINDINGS]].drop("Cardiomegaly").isna().all()
    for nothing in ("unchanged", "exclude|pneumonia", ""):
        assert row[nothing][[*padchest.FINDINGS]].isna().all()


def test_every_row_of_the_table_is_read_with_its_view_sex_and_age(tmp_path: Path) -> None:
    found = datasets.index("padchest", trees.padchest(tmp_path))
    assert len(found) == 28 and found.table["view"].tolist()[:4] == ["PA", "LATERAL", "AP", ""]
    assert set(found.table["sex"]) == {"M", "F", ""} and (found.table["age"] == 84).all()
    assert all(found.file(row).is_file() for row in range(len(found)))


def test_labels_by_physicians_only(tmp_path: Path) -> None:
    table = datasets.index("padchest", trees.padchest(tmp_path), labels="physician").table
    assert table.loc[table["labelled_by"] != "Physician", [*padchest.FINDINGS]].isna().all(axis=None)
    assert (table.loc[table["labelled_by"] == "Physician", "No_Finding"] == 1).any()


def test_spanish_reports_and_the_places_of_labels(tmp_path: Path) -> None:
    found = datasets.index("padchest", trees.padchest(tmp_path))
    assert len(found.reports) == 28 and set(found.reports["language"]) == {"es"}
    assert set(found.reports["findings"]) == {"sin hallazg ."}
    assert found.table["padchest_localizations"][0] == "nodule: loc hilar, loc right"


def changed(folder: Path, change: Callable[[list[list[str]]], list[list[str]]]) -> Path:
    """PadChest, with other lines in its table."""
    root = trees.padchest(folder)
    file = next(root.glob("*.csv.gz"))
    rows = list(csv.reader(io.StringIO(gzip.decompress(file.read_bytes()).decode(), newline="")))
    stream = io.StringIO()
    csv.writer(stream).writerows(change(rows))
    file.write_bytes(gzip.compress(stream.getvalue().encode()))
    return root


def test_labels_that_padchest_does_not_have_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def change(rows: list[list[str]]) -> list[list[str]]:
        labels = rows[0].index("Labels")
        for row, text in zip(
            rows[1:], ("['pleural efusion', 'Pleural  Effusion']", "['scoliosis']", "no list"), strict=False
        ):
            row[labels] = text
        return rows

    table = datasets.index("padchest", changed(tmp_path, change)).table
    assert table["padchest_labels"].tolist()[:3] == ["pleural effusion|pleural efusion", "scoliosis", ""]
    assert table["Effusion"].tolist()[:2] == [1, 0] and np.isnan(table["Effusion"][2])
    assert has_facts(caplog.text, "1 × 'pleural efusion'") and "scoliosis" not in caplog.text
    assert has_facts(caplog.text, "'Labels'", "1.")


def test_normal_beside_any_finding_is_no_normal_image(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def change(rows: list[list[str]]) -> list[list[str]]:
        labels = rows[0].index("Labels")
        for row, other in zip(rows[1:], ("scoliosis", "mass", "NSG tube", "unchanged"), strict=False):
            row[labels] = f"['normal', '{other}']"
        return rows

    table = datasets.index("padchest", changed(tmp_path, change)).table
    np.testing.assert_array_equal(table["No_Finding"][:4], [np.nan, np.nan, 1, 1])
    assert table["Mass"].tolist()[:3] == [0, 1, 0] and "2 images are labelled 'No Finding'" in caplog.text


def test_a_repeated_image_is_counted_or_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = changed(tmp_path / "equal", lambda rows: [*rows, rows[1]])
    assert len(datasets.index("padchest", root)) == 28 and has_facts(caplog.text, padchest.TABLE, "1.")
    root = changed(tmp_path / "unlike", lambda rows: [*rows, [*rows[1][:-2], "['mass']", ""]])
    with pytest.raises(ValueError, match=r"PADCHEST_.*'Labels'.*1 of 28.*'ImageID'"):
        datasets.index("padchest", root)


@pytest.mark.parametrize(
    "cell", ["nan", "['normal'", "__import__('os')", "{'normal'}", "[1, None]", "[" * 5000, "['normal'] + ['mass']"]
)
def test_a_cell_that_is_not_a_list_of_labels_is_unknown(cell: str) -> None:
    assert padchest._words(cell) == []
    assert np.isnan(padchest._values([])).all()


def test_the_labels_of_the_mapping_are_distinct() -> None:
    for labels in padchest.FINDINGS.values():
        assert len(set(labels)) == len(labels)
