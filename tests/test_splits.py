"""Patients are assigned to splits by the hash of their name, on every machine and in any order."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ribcage.data import splits
from ribcage.imaging import fingerprint

PATIENTS = pd.Series([f"病人{number // 3}" for number in range(9000)], dtype="str")
WIDE = str.maketrans("0123456789", "０１２３４５６７８９")
PATHS = pd.Series([f"{number}.png" for number in range(9000)], dtype="str")


def test_patients_stay_whole_and_the_shares_come_out() -> None:
    parts = splits.by_patient(PATIENTS, PATHS)
    assert (parts.groupby(PATIENTS).nunique() == 1).all()
    shares = parts.value_counts(normalize=True)
    assert {name: round(shares[name], 1) for name in shares.index} == {"train": 0.7, "test": 0.2, "val": 0.1}


def test_a_patients_part_is_the_same_in_any_company_and_for_ever() -> None:
    parts = splits.by_patient(PATIENTS, PATHS)
    turned = np.random.default_rng(0).permutation(len(PATIENTS))
    again = splits.by_patient(PATIENTS.iloc[turned], PATHS.iloc[turned])
    pd.testing.assert_series_equal(again.sort_index(), parts)
    few = pd.Series(["00000001", "patient00042", "p10000032", "张三"], dtype="str")
    assert splits.by_patient(few, few).tolist() == ["test", "train", "train", "test"]
    assert splits.by_patient(few.where(few == "", ""), few).tolist() == ["val", "val", "test", "train"]


def test_spellings_with_one_fingerprint_are_in_one_part() -> None:
    for number in range(50):
        names = pd.Series([f"{number}", f"{number:05d}", f" {number} ", f"{number:04d}".translate(WIDE)], dtype="str")
        assert len({fingerprint.patient_fingerprint("x", name) for name in names}) == 1
        assert splits.by_patient(names, PATHS[:4]).nunique() == 1


def test_an_incomplete_split_is_completed_and_that_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    blank = pd.Series("", index=PATHS.index, dtype="str")
    assert splits.completed_splits(blank, PATIENTS, PATHS).equals(splits.by_patient(PATIENTS, PATHS))
    assert len(caplog.messages) == 1 and "70/10/20" in caplog.messages[0]
    given = pd.Series(np.where(np.arange(9000) < 6000, "train", "test"), dtype="str")
    assert splits.completed_splits(given, PATIENTS, PATHS).equals(splits.carve(given, PATIENTS, PATHS))
    assert len(caplog.messages[1:]) == 1 and "eight" in caplog.messages[1]
    for whole in (given.replace("test", ""), splits.carve(given, PATIENTS, PATHS)):
        assert splits.completed_splits(whole, PATIENTS, PATHS).equals(whole)
    assert len(caplog.messages) == 2


def test_unknown_patients_are_not_one_patient() -> None:
    unknown = pd.Series("", index=PATHS.index, dtype="str")
    assert set(splits.by_patient(unknown, PATHS)) == {"train", "val", "test"}


def test_an_unknown_patient_is_never_the_patient_called_like_its_file() -> None:
    names = pd.Series([f"{number}" for number in range(200)], dtype="str")
    known, unknown = splits.by_patient(names, names), splits.by_patient(names.where(names == "x", ""), names)
    assert not known.equals(unknown)


def test_carving_takes_whole_patients_from_training_only() -> None:
    given = pd.Series(np.where(np.arange(9000) < 6000, "train", "test"), dtype="str")
    carved = splits.carve(given, PATIENTS, PATHS)
    assert (carved[6000:] == "test").all() and (carved.groupby(PATIENTS).nunique() == 1).all()
    assert 0.10 < (carved[:6000] == "val").mean() < 0.15


def test_choosing_takes_the_first_published_split_and_reports_when_there_is_none(
    caplog: pytest.LogCaptureFixture,
) -> None:
    frame = pd.DataFrame({"patient": PATIENTS, "path": PATHS, "split_b": "train"})
    assert set(splits.choose(frame, "auto", ("a", "b"))) == {"train"} and not caplog.text
    assert set(splits.choose(frame, "patient", ("a", "b"))) == {"train", "val", "test"} and not caplog.text
    splits.choose(frame, "auto", ("a",), {"train": 0.6, "val": 0.2, "test": 0.2})
    assert "60/20/20" in caplog.text
    with pytest.raises(FileNotFoundError, match=r"--split b\b.*patient"):
        splits.choose(frame, "a", ("a", "b"))


def test_lists_make_a_split_and_shared_images_are_refused_or_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    paths = pd.Series([f"images/{number}.png" for number in range(20)], dtype="str")
    patients = pd.Series([str(number // 2) for number in range(20)], dtype="str")
    (tmp_path / "a.txt").write_text("\n".join(f"{number}.png" for number in range(15)))
    (tmp_path / "b.txt").write_text("15.jpg\n16\nnone.png")
    words = [f"train={tmp_path / 'a.txt'}", f"test={tmp_path / 'b.txt'}"]
    patients[14] = "007"  # and image 15 has '7'
    found = splits.from_lists(words, patients, paths)
    assert set(found[:15]) <= {"train", "val"} and found[15:17].tolist() == ["test"] * 2 and set(found[17:]) == {""}
    for fact in ("1 of 3 entries", "1 patient is in several", "3 images are in no list"):
        assert fact in caplog.text
    (tmp_path / "b.txt").write_text("14.png")
    with pytest.raises(ValueError, match=r"\b1 image .*train.*test"):
        splits.from_lists(words, patients, paths)
    for wrong in ("train", "dev=a.txt"):
        with pytest.raises((ValueError, FileNotFoundError)):
            splits.from_lists([wrong], patients, paths)
