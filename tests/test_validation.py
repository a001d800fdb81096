"""Validation judges by the labels the model learns by, without smoothing, and nothing is chosen by nothing."""

import json
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

import ribcage
from ribcage import cli, store
from ribcage.findings import Policy
from ribcage.validation import known_labels


def imported(folder: Path, rows: pd.DataFrame, name: str = "clinic") -> Path:
    """A dataset folder of noise: rows of patient, split and labels."""
    files = folder / "files"
    files.mkdir(parents=True)
    for row in range(len(rows)):
        pixels = np.random.default_rng(row).integers(0, 256, (32, 32), dtype=np.uint8)
        (files / f"{row:03d}.png").write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
    rows.assign(path=[f"{row:03d}.png" for row in range(len(rows))]).to_csv(files / "labels.csv", index=False)
    words = ["import", "folder", str(files), "--out", str(folder / "set"), "--size", "32", "--name", name]
    assert cli.main(words) == 0
    return folder / "set"


def people(splits: str = "train val test", each: int = 12) -> pd.DataFrame:
    """Mass is 1 or not mentioned; Edema 1, 0 or uncertain; nobody has Hernia."""
    split = np.repeat(splits.split(), each)
    place = np.arange(len(split))
    return pd.DataFrame(
        {
            "patient": [f"p{number}" for number in place],
            "split": split,
            "Mass": np.where(place % 3 == 0, 1, np.nan),
            "Edema": np.array([1, 0, -1, 0])[place % 4],
            "Hernia": 0,
        }
    )


def words(data: Path, out: Path, *more: str) -> list[str]:
    plain = ["finetune", "--data", str(data), "--out", str(out), "--model", "test_resnet", "--size", "32"]
    return [*plain, "--epochs", "1", "--batch", "12", "--threads", "1", "--precision", "float32", *more]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return imported(tmp_path_factory.mktemp("诊所"), people())


@pytest.mark.parametrize(
    ("policy", "mass", "edema"),
    [
        ("ignore", {1: 4}, {1: 3, 0: 6}),
        ("ignore,blank=zeros", {1: 4, 0: 8}, {1: 3, 0: 6}),
        ("ones+lsr,blank=zeros", {1: 4, 0: 8}, {1: 6, 0: 6}),
        ("zeros,Edema=ones+lsr", {1: 4}, {1: 6, 0: 6}),
    ],
)
def test_labels_are_those_of_the_policy_without_smoothing(data: Path, policy: str, mass: dict, edema: dict) -> None:
    opened = store.open(data)
    rows = np.flatnonzero(opened.index.table["split"] == "val")
    labels = known_labels([opened], rows, ("Mass", "Edema"), Policy.parse(policy))
    for column, wanted in zip(labels.T, (mass, edema), strict=True):
        values, counts = np.unique(column[~np.isnan(column)], return_counts=True)
        assert dict(zip(values.tolist(), counts.tolist(), strict=True)) == wanted


def test_what_only_the_policy_makes_judgeable_chooses_and_is_tested_so(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert cli.main(words(data, out, "--policy", "ones+lsr,blank=zeros")) == 0
    assert "only one class of Hernia" in capsys.readouterr().out
    model = json.loads((out / "bundle" / "model.json").read_text(encoding="utf-8"))
    place = model["findings"].index("Mass")
    assert {"auroc_Mass", "auroc_Edema"} <= set(model["metrics"]["validation"])
    assert model["thresholds"]["youden"][place] is not None and model["temperature"][place] != 1
    found = ribcage.evaluate(out, data=[data], resamples=5)
    assert found["policy"] == "ones,blank=zeros" and found["findings"][place]["n"] == 12
    assert any("as in the model's own validation" in note for note in found["notes"])
    other = ribcage.evaluate(out, data=[data], resamples=5, policy="ignore")
    assert other["findings"][place]["auroc"]["value"] is None
    assert any("in the model's own validation they did by 'ones,blank=zeros'" in note for note in other["notes"])


def test_without_a_judgeable_finding_no_training_begins(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(words(data, tmp_path / "run", "--findings", "Hernia", "Mass")) == 2
    said = capsys.readouterr().err
    assert "No finding of Hernia, Mass is both present and absent in split 'val'" in said and said.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_pictures_that_are_learnt_from_choose_nothing(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(words(data, tmp_path / "run", "--val", "train")) == 2
    said = capsys.readouterr().err
    assert "12 pictures are in --train train and in --val train" in said and said.count("\n") == 1
    assert cli.main(["probe", "test_resnet", "--data", str(data), "--size", "32", "--val", "train"]) == 2
    assert "12 pictures are in --train train" in capsys.readouterr().err


def test_patients_in_training_and_validation_are_said_loudly(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = people().assign(patient=[f"p{number % 12}" if number < 20 else f"q{number}" for number in range(36)])
    shared = imported(tmp_path / "shared", rows)
    assert cli.main(words(shared, tmp_path / "run")) == 0
    assert "WARNING: 8 patients are in 'train' and in 'val'" in capsys.readouterr().out
    card = (tmp_path / "run" / "bundle" / "README.md").read_text(encoding="utf-8")
    assert "8 patients" in card
