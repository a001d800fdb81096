"""Validation of classifiers: labels by the training policy without smoothing, and no selection without labels."""

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from refusals import has_facts

import ribcage
from ribcage import cli
from ribcage.bundle.spec import ModelSpec
from ribcage.data import dataset_folder
from ribcage.data.collection import Datasets
from ribcage.data.label_policy import Policy
from ribcage.evaluation.classifier_validation import ClassifierValidation


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
    opened = dataset_folder.open(data)
    rows = np.flatnonzero(opened.index.table["split"] == "val")
    labels = Datasets.of([opened]).known_labels(rows, ("Mass", "Edema"), Policy.parse(policy))
    for column, wanted in zip(labels.T, (mass, edema), strict=True):
        values, counts = np.unique(column[~np.isnan(column)], return_counts=True)
        assert dict(zip(values.tolist(), counts.tolist(), strict=True)) == wanted


def test_of_findings_that_the_data_has_not_nothing_is_known(data: Path) -> None:
    opened = dataset_folder.open(data)
    rows = np.flatnonzero(opened.index.table["split"] == "val")
    blank = Policy.parse("ones,blank=zeros")
    labels = Datasets.of([opened]).known_labels(rows, ("Nodule", "Edema", "Fracture", "Mass"), blank)
    assert np.isnan(labels[:, [0, 2]]).all()
    np.testing.assert_array_equal(labels[:, [3, 1]], Datasets.of([opened]).known_labels(rows, ("Mass", "Edema"), blank))
    assert Datasets.of([opened]).known_labels(rows, ("Nodule",)).shape == (12, 1)


def test_what_only_the_policy_makes_judgeable_chooses_and_is_tested_so(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert cli.main(words(data, out, "--policy", "ones+lsr,blank=zeros")) == 0
    assert has_facts(capsys.readouterr().out, "one class", "Hernia")
    model = json.loads((out / "bundle" / "model.json").read_text(encoding="utf-8"))
    place = model["findings"].index("Mass")
    assert {"auroc_Mass", "auroc_Edema"} <= set(model["metrics"]["validation"])
    assert model["thresholds"]["youden"][place] is not None and model["temperature"][place] != 1
    found = ribcage.evaluate(out, data=[data], resamples=5)
    assert found["policy"] == "ones,blank=zeros" and found["findings"][place]["n"] == 12
    assert any("ones,blank=zeros" in note for note in found["notes"])
    other = ribcage.evaluate(out, data=[data], resamples=5, policy="ignore")
    assert other["findings"][place]["auroc"]["value"] is None
    assert any("ignore" in note and "ones,blank=zeros" in note for note in other["notes"])


def test_without_a_judgeable_finding_no_training_begins(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(words(data, tmp_path / "run", "--findings", "Hernia", "Mass")) == 2
    said = capsys.readouterr().err
    assert all(fact in said for fact in ("Hernia, Mass", "'val'", "--val")) and said.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_images_that_are_learnt_from_choose_nothing(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(words(data, tmp_path / "run", "--val", "train")) == 2
    said = capsys.readouterr().err
    assert has_facts(said, "12 images", "--train train", "--val train") and said.count("\n") == 1
    assert cli.main(["probe", "test_resnet", "--data", str(data), "--size", "32", "--val", "train"]) == 2
    assert has_facts(capsys.readouterr().err, "12 images", "--train train")


def test_patients_in_training_and_validation_are_warned_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = people().assign(patient=[f"p{number % 12}" if number < 20 else f"q{number}" for number in range(36)])
    shared = imported(tmp_path / "shared", rows)
    assert cli.main(words(shared, tmp_path / "run")) == 0
    assert has_facts(capsys.readouterr().out, "WARNING: 8 patients", "'train'", "'val'")
    card = (tmp_path / "run" / "bundle" / "README.md").read_text(encoding="utf-8")
    assert has_facts(card, "both", "training", "validation", 8)


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--drop-path", "0.1", "--model", "vgg11"], "vgg11 for 32 × 32 pixels, --drop-path 0.1: "),
        (["--pool", "foo"], "Unknown pool type 'foo'. Types: avg, max"),
        (["--model", "resnet18.nope"], "Unknown model 'resnet18.nope'. Did you mean 'resnet18'?"),
        (["--model", "test_vit", "--size", "30"], "test_vit for 32 × 30 pixels: Input width (30) should"),
        (["--micro-batch", "1"], "--micro-batch 1"),
        (["--batch", "1"], "--batch 1"),
        (
            ["--loss", "cross-entropy", "--policy", "ones,blank=zeros"],
            "2 have several positive findings, 4 have none",
        ),
        (["--data", "{data}", "{data}"], "72 images "),
        (["--lr", "1e18", "--optimizer", "sgd", "--warmup", "0", "--epochs", "3"], "lower --lr"),
    ],
)
def test_what_cannot_be_is_one_line_and_no_fault_of_ribcages(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], says: str
) -> None:
    assert cli.main(words(data, tmp_path / "run", *(word.format(data=data) for word in more))) == 2
    said = capsys.readouterr().err
    lines = [line for line in said.splitlines() if line.startswith("ribcage: ")]
    assert says in said and len(lines) == 1 and "bug in Ribcage" not in said


def test_the_loss_is_that_of_the_known_labels() -> None:
    model = ModelSpec("test_resnet", ("Mass", "Edema"), (32, 32), 32, "pad", 0.5, 0.2)
    validation = ClassifierValidation.__new__(ClassifierValidation)
    validation.model, validation.labels = model, np.array([[1, np.nan], [0, 1]], np.float32)
    validation.logits = np.array([[2, 9], [1, -1]], np.float32)
    p = 1 / (1 + np.exp(-validation.logits.astype(float)))
    assert validation.loss() == pytest.approx(-np.log([p[0, 0], 1 - p[1, 0], p[1, 1]]).mean())
    validation.model = replace(model, loss="cross-entropy")
    validation.labels = np.array([[1, 0], [0, np.nan]], np.float32)
    assert validation.loss() == pytest.approx(-np.log(np.exp(2) / (np.exp(2) + np.exp(9))))


def test_a_head_on_random_features_is_warned_of(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(words(data, tmp_path / "run", "--adapt", "head", "--findings", "Edema")) == 0
    assert "WARNING: --adapt head without --init" in capsys.readouterr().out
