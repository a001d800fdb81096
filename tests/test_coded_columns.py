"""Codes of views, sexes, ages and splits: what is clear is read, and everything else is reported with its number."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import trees
from refusals import has_facts

from ribcage.data.readers import coded_columns


def text(*cells: str, name: str = "code") -> pd.Series:
    return pd.Series(cells, dtype="str", name=name)


def test_ages_come_in_every_unit(caplog: pytest.LogCaptureFixture) -> None:
    ages = ["045Y", "018M", "45 months", "3 wks", "73 d", "7", "7,5", "45 yrs", "8个月", "45 years old", "岁", "O", ""]
    expected = [45, 1.5, 3.75, 3 / 52.18, 73 / 365.25, 7, 7.5, 45, 8 / 12, 45, np.nan, np.nan, np.nan]
    np.testing.assert_allclose(coded_columns.years(text(*ages)), expected, rtol=1e-5)
    assert has_facts(caplog.text, "1 × '岁'") and "'O'" not in caplog.text


def test_ages_that_are_not_clear_are_blank_and_counted_once(caplog: pytest.LogCaptureFixture) -> None:
    assert coded_columns.years(text("720", "720", "45m", "-3", "90+", "1.234", "old")).isna().all()
    assert len(caplog.records) == 1 and has_facts(caplog.text, "120 years", "2 × '720'")


def test_numbers_are_no_sexes(caplog: pytest.LogCaptureFixture) -> None:
    assert (
        coded_columns.sexes(text("F", " male ", "女", "1", "0", "1", "O", "unknown")).tolist()
        == ["F", "M", "F"] + [""] * 5
    )
    assert len(caplog.records) == 1 and has_facts(caplog.text, "2 × '1'", "1 × '0'")
    caplog.clear()
    coded_columns.sexes(text("F", "", "O"))
    assert not caplog.records


def test_a_cell_with_text_is_not_printed(caplog: pytest.LogCaptureFixture) -> None:
    coded_columns.sexes(text("Mrs Miller came with a cough since Monday"))
    assert "Miller" not in caplog.text and "41 characters" in caplog.text


def test_numbers_that_are_dates_of_birth_are_only_counted(caplog: pytest.LogCaptureFixture) -> None:
    assert coded_columns.numbers(text("1930.0", "1 May 1930", "", name="Birth")).isna().tolist() == [False, True, True]
    assert has_facts(caplog.text, "'Birth'", "1") and "May" not in caplog.text


def test_an_unknown_split_or_finding_is_an_error_with_its_line(tmp_path: Path) -> None:
    file = trees.text(tmp_path / "a.csv", "code,x", '"train",1', "", '"two\nlines",2', "tast,3")
    with pytest.raises(ValueError) as error:
        coded_columns.known_words(text("train", "train", "tast"), {"train": "train", "test": "test"}, file)
    assert has_facts(str(error.value), "a.csv", "line 6", "'code'", "'tast'", "train, test")
    with pytest.raises(ValueError) as error:
        coded_columns.named_findings(text("Mass", "Mass", "Efusion"), "nih", file)
    assert has_facts(str(error.value), "a.csv", "line 6", "'code'", "'Efusion'", "'Effusion'")
