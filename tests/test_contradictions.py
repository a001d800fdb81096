"""'No Finding' beside a finding, and boxes and masks of absent findings: one rule for all datasets, reported with numbers."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import trees
from refusals import has_facts

from ribcage.data import contradictions, datasets

FINDINGS = ("No_Finding", "Mass", "Support_Devices")


def test_no_finding_is_unknown_beside_a_finding_but_not_beside_a_device(caplog: pytest.LogCaptureFixture) -> None:
    labels = [[1, 1, 0], [1, 0, 1], [0, 1, 1], [1, -1, 0], [1, np.nan, 0]]
    rows = pd.DataFrame(labels, columns=FINDINGS, dtype="float32")
    found = contradictions.without_contradictions(rows, FINDINGS, "image")
    np.testing.assert_equal(found["No_Finding"].to_numpy(), [np.nan, 1, 0, 1, 1])
    assert found[["Mass", "Support_Devices"]].equals(rows[["Mass", "Support_Devices"]])
    assert has_facts(caplog.text, "1 image", "No Finding")


def test_rows_without_contradictions_are_unchanged_and_nothing_is_said(caplog: pytest.LogCaptureFixture) -> None:
    rows = pd.DataFrame([[1, 0, 1], [0, 1, 0]], columns=FINDINGS, dtype="float32")
    assert contradictions.without_contradictions(rows, FINDINGS, "image") is rows and not caplog.text


def changed(file: Path, old: str, new: str) -> None:
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new, 1), encoding="utf-8")


def test_the_rule_holds_in_lists_in_columns_and_for_each_reader(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = trees.nih(tmp_path / "nih")
    changed(root / "Data_Entry_2017_v2020.csv", "No Finding", "No Finding|Mass")
    assert datasets.index("nih", root).table["Mass"].iloc[0] == 1 and "1 image is labelled 'No Finding'" in caplog.text
    caplog.clear()
    root = trees.vinbigdata(tmp_path / "vindr")
    image = trees.VINDR_IDS["train"][0]
    changed(root / "train.csv", f"{image},Cardiomegaly", f"{image},No finding,0,R8,,,,\n{image},Cardiomegaly")
    found = datasets.index("vindr", root)
    row = found.table["patient"].tolist().index(image)
    own = found.readings[found.readings["row"] == row].set_index("reader")
    assert np.isnan(own["No_Finding"]["R8"]) and own["Cardiomegaly"].eq(1).all()
    assert "1 reading is labelled 'No Finding'" in caplog.text
    caplog.clear()
    table = trees.read_table(tmp_path / "own", "path,findings", "1.png,Normal|Mass", "2.png,Mass", "3.png,Normal").table
    assert table["Mass"].tolist() == [1, 1, 0] and "1 row is labelled 'No Finding'" in caplog.text
    caplog.clear()
    table = trees.read_table(tmp_path / "own", "path,Normal,Mass", "1.png,1,1", "2.png,1,0").table
    np.testing.assert_equal(table["No_Finding"].to_numpy(), [np.nan, 1])
    assert "1 image is labelled 'No Finding'" in caplog.text


def test_boxes_of_findings_that_the_reader_calls_absent_are_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = trees.vindr(tmp_path)
    image = trees.VINDR_IDS["train"][0]
    file = root / "annotations/annotations_train.csv"
    changed(file, f"{image},R8,Nodule/Mass,1,2,9.5,8", f"{image},R8,Pneumothorax,1,2,9.5,8")
    found = datasets.index("vindr", root)
    assert has_facts(caplog.text, "boxes", "Pneumothorax 1") and len(found.boxes) == 54
    assert found.table["Pneumothorax"].iloc[0] == 0


def test_a_mask_and_a_row_without_one_leave_the_label_unknown(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = trees.siim(tmp_path)
    file = root / "train-rle.csv"
    image = file.read_text(encoding="utf-8").splitlines()[2].partition(",")[0]
    with file.open("a", encoding="utf-8") as stream:
        stream.write(f"{image},-1\n")
    found = datasets.index("siim", root)
    row = found.table["path"].str.contains(image, regex=False).tolist().index(True)
    assert np.isnan(found.table["Pneumothorax"][row]) and row not in set(found.masks["row"])
    assert has_facts(caplog.text, "1 image", "train-rle.csv")
