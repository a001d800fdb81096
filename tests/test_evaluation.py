"""An evaluation is honest: nothing the model has seen, nothing undefined made up, every number with its interval."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import models
import numpy as np
import pandas as pd
import pytest
import trees

from ribcage import cli, metrics
from ribcage.bundle.io import load_classifier
from ribcage.bundle.spec import ModelSpec
from ribcage.data import dataset_folder
from ribcage.data.collection import Datasets
from ribcage.data.findings import Policy
from ribcage.evaluation import comparison, leakage
from ribcage.evaluation.baselines import BaselineData, constant_row, shuffled_aurocs
from ribcage.evaluation.calibration import RULES, fit_on_validation
from ribcage.evaluation.classification import evaluate_classifier
from ribcage.evaluation.labelled import LabelledPredictions, known_patients, labelled_predictions
from ribcage.evaluation.notes import classification_warnings
from ribcage.evaluation.planned_test import PlannedTest, Rules
from ribcage.evaluation.subgroups import classification_subgroups
from ribcage.inference import predictions
from ribcage.inference.predictions import Predictions
from ribcage.metrics.evaluation import (
    EvaluatedData,
    EvaluatedModel,
    EvaluationContext,
    LeakageCheck,
    evaluation_json,
    read_evaluation,
    write_evaluation,
)
from ribcage.runtime.typed_json import to_json

FINDINGS = ("Mass", "Edema", "Hernia")


def made(count: int = 400, seed: int = 0) -> LabelledPredictions:
    """Predictions that know something of Mass and Edema; nobody has Hernia."""
    random = np.random.default_rng(seed)
    labels = np.stack([random.random(count) < 0.3, random.random(count) < 0.1, np.zeros(count)], 1).astype(float)
    labels[:7, 0] = np.nan
    source = labels.copy()
    source[:4, 0] = -1
    logits = (3 * np.nan_to_num(labels) - 2 + random.normal(0, 2, labels.shape)).astype(np.float32)
    about = pd.DataFrame(
        {
            "set": "made",
            "row": np.arange(count),
            "path": [f"图 {n}.png" for n in range(count)],
            "patient": [f"P{n // 2}" if n % 10 else "" for n in range(count)],
            "split": "test",
            "view": random.choice(["PA", "AP"], count),
            "sex": random.choice(["F", "M", ""], count),
            "age": random.choice([5.0, 30.0, 70.0, np.nan], count),
        }
    )
    said = Predictions(FINDINGS, np.arange(count), logits)
    temperature, thresholds = fit_on_validation(logits, labels)
    return LabelledPredictions(said, labels, source, about, temperature, thresholds)


@pytest.fixture(scope="module")
def data() -> LabelledPredictions:
    return made()


def evaluated(data: LabelledPredictions, **options: Any) -> dict[str, Any]:
    return evaluation_json(evaluate_classifier(data, **options))


@pytest.fixture(scope="module")
def result(data: LabelledPredictions) -> dict:
    fitting = BaselineData("400 train images", made(seed=1).labels, made(seed=1).about["view"].to_numpy(str))
    return evaluation_json(evaluate_classifier(data, resamples=100, fitting=fitting))


# ---- the numbers


def test_numbers_are_those_of_the_metrics(data: LabelledPredictions, result: dict) -> None:
    scores = metrics.auroc(data.probabilities, data.labels)
    assert result["findings"][0]["auroc"]["value"] == pytest.approx(scores[0], abs=1e-12)
    assert result["macro"]["auroc"]["value"] == pytest.approx(scores[:2].mean(), abs=1e-12)
    row = result["findings"][1]
    assert row["auroc"]["low"] < row["auroc"]["value"] < row["auroc"]["high"]
    assert row["brier"]["value"] == pytest.approx(metrics.brier(data.probabilities, data.labels)[1], abs=1e-12)
    before = row["brier_before"]
    assert before["value"] == pytest.approx(metrics.brier(data.uncalibrated, data.labels)[1], abs=1e-12)
    assert before["low"] < before["value"] < before["high"]
    assert row["ece"] != row["ece_before"]
    assert (result["findings"][0]["n"], result["findings"][0]["uncertain"], result["findings"][0]["unknown"]) == (
        393,
        4,
        3,
    )


def test_what_is_undefined_is_none_and_left_out_of_the_mean(result: dict) -> None:
    hernia = result["findings"][2]
    assert hernia["auroc"] == {"value": None, "low": None, "high": None}
    assert hernia["positives"] == 0 and hernia["f1"]["value"] is None
    assert result["macro"]["auroc"]["findings"] == 2
    assert any("Hernia" in text and "other 2" in text for text in result["notes"])
    json.dumps(result, allow_nan=False)


def test_rates_belong_to_the_stored_thresholds(data: LabelledPredictions, result: dict) -> None:
    threshold = result["findings"][0]["threshold"]
    assert data.thresholds is not None and threshold == data.thresholds["youden"][0]
    known = ~np.isnan(data.labels[:, 0])
    called = data.probabilities[known, 0] >= threshold
    assert result["findings"][0]["sensitivity"]["value"] == pytest.approx(called[data.labels[known, 0] == 1].mean())
    assert set(result["rules"]) == {*RULES, "half"}
    sensitive = result["rules"]["sensitivity_95"][0]
    assert sensitive["sensitivity"]["value"] >= 0.95


def test_rates_at_other_thresholds_have_the_same_intervals(result: dict) -> None:
    same = result["rules"][result["rule"]]
    for row, own in zip(result["findings"], same, strict=True):
        assert all(own[rate] == row[rate] for rate in ("accuracy", "f1", "sensitivity", "specificity", "ppv", "npv"))


def test_without_thresholds_rates_are_at_one_half_and_that_is_said(data: LabelledPredictions) -> None:
    found = evaluated(replace(data, thresholds={}, temperature=()), resamples=20)
    assert found["rule"] == "half" and found["findings"][0]["threshold"] == 0.5
    assert any("no thresholds" in text for text in found["notes"])


def test_peers_choose_thresholds_on_the_tested_images(data: LabelledPredictions) -> None:
    other = replace(data, thresholds={"youden": (0.999,) * 3})
    assert evaluate_classifier(other, resamples=20).findings[0].threshold == 0.999
    found = evaluated(other, resamples=20, protocol="peers")
    own = metrics.choose_thresholds(data.probabilities, data.labels, "youden")
    assert found["findings"][0]["threshold"] == own[0]


def test_labels_that_the_policy_settles_are_not_said_to_be_left_out(data: LabelledPredictions) -> None:
    source = data.source.copy()
    source[:5, 0], source[5:9, 0] = -1, np.nan
    settled, known = data.labels.copy(), int(np.isnan(data.labels[9:]).sum() + np.isnan(data.labels[:9, 1:]).sum())
    settled[:5, 0], settled[5:9, 0] = 1, np.nan
    notes = evaluate_classifier(replace(data, source=source, labels=settled), resamples=5).notes
    uncertain = int((np.isnan(settled) & (source == -1)).sum())
    said = f"{known + 4:,} labels are left out: {uncertain:,} are uncertain, {known + 4 - uncertain:,}"
    assert any(note.startswith(said) for note in notes)


def test_baselines_do_not_look_at_the_model(result: dict) -> None:
    found = result["baselines"]
    assert found["fitted_on"] == "400 train images"
    assert found["view"][0]["auroc"]["value"] == pytest.approx(0.5, abs=0.1)
    chance = found["shuffled"]["findings"][0]["auroc"]
    assert chance["low"] < 0.5 < chance["high"] < result["findings"][0]["auroc"]["value"]
    prevalence = result["findings"][0]["prevalence"]
    assert found["prevalence"][0]["ap"] == pytest.approx(prevalence)
    assert found["prevalence"][0]["accuracy"] == pytest.approx(1 - prevalence)
    assert found["shuffled"]["findings"][2]["auroc"]["value"] is None
    assert found["prevalence"][2]["ap"] is None and found["prevalence"][2]["brier"] is not None  # nobody has Hernia


@pytest.mark.parametrize(("share", "accuracy"), [(0.6, 0.75), (0.5, 0.75), (0.4, 0.25)])
def test_who_does_not_look_calls_everybody_by_what_is_likelier(share: float, accuracy: float) -> None:
    labels = np.array([[1.0], [1.0], [1.0], [0.0], [np.nan]])
    found = constant_row("Mass", share, labels[:, 0])
    assert (found.ap, found.accuracy) == (0.75, accuracy)
    assert found.brier == pytest.approx(0.75 * (1 - share) ** 2 + 0.25 * share**2)


def test_a_finding_that_follows_the_view_is_told_by_the_view_alone(data: LabelledPredictions) -> None:
    lying = (data.about["view"] == "AP").to_numpy(float)
    labels = np.stack([lying, lying, lying], axis=1)
    fitting = BaselineData("others", labels, data.about["view"].to_numpy(str))
    found = evaluated(replace(data, labels=labels), resamples=20, fitting=fitting)["baselines"]
    assert found["view"][0]["auroc"]["value"] == 1.0


def test_shuffling_keeps_ties_and_unknown_labels_right(data: LabelledPredictions) -> None:
    tied = replace(data, predictions=replace(data.predictions, logits=np.round(data.predictions.logits)))
    order = np.arange(len(data))
    again = shuffled_aurocs(tied, order)
    np.testing.assert_allclose(again, metrics.auroc(tied.probabilities, tied.labels), atol=1e-12)


def test_subgroups_have_their_own_numbers(data: LabelledPredictions, result: dict) -> None:
    groups = {(row["by"], row["group"]): row for row in result["subgroups"]}
    assert {"F", "M", "unknown"} <= {group for by, group in groups if by == "sex"}
    assert {group for by, group in groups if by == "age"} == {"0–17", "18–39", "60–79", "unknown"}
    women = (data.about["sex"] == "F").to_numpy()
    own = metrics.auroc(data.probabilities[women], data.labels[women])
    assert groups["sex", "F"]["findings"][0]["auroc"]["value"] == pytest.approx(own[0])
    assert groups["sex", "F"]["images"] == women.sum()
    assert ("set", "made") not in groups  # one set is no subgroup


def test_a_subgroup_is_compared_with_all_others(data: LabelledPredictions, result: dict) -> None:
    gaps = {(row["by"], row["group"]): row["gap"] for row in result["subgroups"]}
    women, young = ((data.about[name] == value).to_numpy() for name, value in (("sex", "F"), ("age", 5.0)))
    own, others = (metrics.auroc(data.probabilities[rows], data.labels[rows]) for rows in (women, ~women))
    found = gaps["sex", "F"]
    assert found["value"] == pytest.approx(np.nanmean(own) - np.nanmean(others)) and found["findings"] == 2
    assert found["low"] < found["value"] < found["high"]
    assert (found["images"], found["positives"]) == ((~women).sum(), (data.labels[~women] == 1).sum())
    young_alone = classification_subgroups(
        replace(data, labels=np.where(young[:, None], 0, data.labels)), np.full(3, 0.5), resamples=2, seed=0, level=0.95
    )
    gap = next(row.gap for row in young_alone if row.group == "0–17")
    assert gap is not None and gap.findings == 0 and gap.value is gap.low is None


def test_the_same_patient_number_in_two_sets_is_two_patients(data: LabelledPredictions) -> None:
    half = np.arange(len(data)) < 200
    about = data.about.assign(patient="7", set=np.where(half, "a", "b"))
    assert known_patients(replace(data, about=about)) == 2


def test_findings_that_exclude_each_other_get_the_accuracy_of_the_first_choice() -> None:
    random = np.random.default_rng(0)
    truth = random.integers(0, 3, 300)
    labels = (truth[:, None] == np.arange(3)).astype(float)
    logits = (2 * labels + random.normal(0, 1, labels.shape)).astype(np.float32)
    temperature, thresholds = fit_on_validation(logits, labels, exclusive=True)
    assert len(set(temperature)) == 1
    said = Predictions(FINDINGS, np.arange(300), logits, exclusive=True)
    found = evaluated(LabelledPredictions(said, labels, labels, made(300).about, temperature, thresholds), resamples=50)
    assert found["top1"]["value"] == pytest.approx((logits.argmax(1) == truth).mean())
    assert found["top1"]["low"] < found["top1"]["value"] < found["top1"]["high"]


def test_a_temperature_mends_logits_that_are_too_sure() -> None:
    random = np.random.default_rng(0)
    logits = random.normal(0, 1, (4000, 1))
    labels = (random.random((4000, 1)) < 1 / (1 + np.exp(-logits))).astype(float)
    temperature, thresholds = fit_on_validation(5 * logits, labels)
    assert temperature[0] == pytest.approx(5, rel=0.1)
    assert set(thresholds) == set(RULES)


def test_one_class_on_validation_leaves_thresholds_open() -> None:
    temperature, thresholds = fit_on_validation(np.zeros((5, 1)), np.zeros((5, 1)))
    assert temperature == (1.0,) and all(chosen == (None,) for chosen in thresholds.values())


# ---- the command, on a small tree with both families of lists


@pytest.fixture(scope="module")
def nih(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Dataset folders of the same images under both splits, and a model trained on the arnoweng one."""
    folder = tmp_path_factory.mktemp("评估 evaluation")
    root = trees.nih(folder / "download")
    for family in ("arnoweng", "official"):
        words = ["import", "nih", str(root), "--out", str(folder / family), "--split", family, "--size", "32"]
        assert cli.main(words) == 0
    models.trained(folder / "run", dataset_folder.open(folder / "arnoweng"))
    return folder


def evaluate(nih: Path, *words: str, on: str = "arnoweng") -> int:
    return cli.main(["evaluate", str(nih / "run"), "--data", str(nih / on), "--resamples", "20", *words])


def test_a_model_of_one_split_family_is_not_tested_on_the_other(nih: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate(nih, on="official") == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert "9 test images" in said and "3 patients" in said and "9 are copies" in said and "--allow-leak" in said
    assert not (nih / "run" / "evaluation" / "nih-test" / "metrics.json").exists()


HONEST = EvaluationContext(
    split="test",
    model=EvaluatedModel(fit="pad", stored=64, splits=("train", "val")),
    data=(EvaluatedData(folder="d", fit="pad", size=64),),
)
WARNED: dict[str, tuple[dict[str, Any], str]] = {
    "unseen": ({"leak": LeakageCheck(unseen=7)}, "7 training images"),
    "unknown": ({"leak": LeakageCheck(unknown=("x.pt",))}, "x.pt"),
    "choice": ({"model": replace(HONEST.model, leak="it saw them")}, "it saw them"),
    "split": ({"split": "val"}, "val images, not test images"),
    "others": ({"others": 1200}, "1,200 of these are not known to be frontal"),
    "shape": ({"data": (EvaluatedData(folder="d", fit="crop", size=64),)}, "'crop'"),
    "size": ({"data": (EvaluatedData(folder="d", fit="pad", size=32),)}, "32 px"),
    "labels": ({"not_tested": ("Mass", "Edema")}, "Mass, Edema."),
}


@pytest.mark.parametrize("name", WARNED)
def test_each_thing_that_is_not_honest_has_its_own_warning(name: str, data: LabelledPredictions) -> None:
    plain = replace(evaluate_classifier(data, resamples=2), context=HONEST)
    assert classification_warnings(plain) == ()
    more, says = WARNED[name]
    (warning,) = classification_warnings(replace(plain, context=replace(HONEST, **more)))
    assert says in warning


def test_a_leak_and_the_protocol_of_peers_are_the_first_warnings(data: LabelledPredictions) -> None:
    leak = LeakageCheck(found=True, text="9 were seen", unseen=3)
    found = replace(evaluate_classifier(data, resamples=2, protocol="peers"), context=replace(HONEST, leak=leak))
    first, second, third = classification_warnings(found)
    assert "9 were seen" in first and "peers" in second and "3 training images" in third


def test_numbers_come_back_from_their_file(data: LabelledPredictions, tmp_path: Path) -> None:
    fitting = BaselineData("others", data.labels, data.about["view"].to_numpy(str))
    found = replace(evaluate_classifier(data, resamples=2, fitting=fitting), context=HONEST, warnings=("no",))
    write_evaluation(found, tmp_path / "metrics.json")
    assert read_evaluation(tmp_path / "metrics.json") == found


def test_an_allowed_leak_stamps_report_and_numbers(nih: Path, tmp_path: Path) -> None:
    assert evaluate(nih, "--allow-leak", "--out", str(tmp_path / "结果"), on="official") == 0
    found = json.loads((tmp_path / "结果" / "metrics.json").read_text(encoding="utf-8"))
    assert found["leak"]["found"] and found["leak"]["identical"] == 9
    assert found["warnings"][0].startswith("Not an honest test")
    assert "Not an honest test" in (tmp_path / "结果" / "index.html").read_text(encoding="utf-8")


def test_an_evaluation_leaves_a_table_numbers_and_a_page(nih: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate(nih) == 0
    out = nih / "run" / "evaluation" / "nih-test"
    table = pd.read_parquet(out / "predictions.parquet")
    opened = dataset_folder.open(nih / "arnoweng")
    assert len(table) == 6 and set(table["split"]) == {"test"}
    assert table["Effusion_label"].tolist() == opened.index.table["Effusion"][table["row"]].tolist()
    assert ((table["Effusion"] > 0) & (table["Effusion"] < 1)).all()
    found = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    assert not found["leak"]["found"] and found["warnings"] == []
    assert found["command"].startswith("ribcage evaluate") and "--resamples 20" in found["command"]
    assert "Effusion" in capsys.readouterr().out


def test_tests_by_other_rules_do_not_overwrite_each_other(nih: Path, tmp_path: Path) -> None:
    shutil.copytree(nih / "run" / "bundle", tmp_path / "bundle")
    words = ["evaluate", str(tmp_path), "--data", str(nih / "arnoweng"), "--resamples", "5", "--table", "chexnet"]
    assert cli.main([*words, "--protocol", "peers", "--rule", "f1", "--policy", "ones,blank=zeros"]) == 0
    assert [file.name for file in (tmp_path / "evaluation").iterdir()] == ["nih-test-peers-f1-ones-blank-zeros"]


def test_wrong_numbers_and_images_given_twice_are_refused(nih: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate(nih, "--batch", "0", "--worst", "-1") == 2
    assert "--batch 0 is not at least 1; --worst -1 is not 0 or more" in capsys.readouterr().err
    assert cli.main(["evaluate", str(nih / "run"), "--data", *[str(nih / "arnoweng")] * 2]) == 2
    assert "images stand in more than one of" in capsys.readouterr().err


def test_who_learnt_from_frontal_images_is_not_tested_on_others_in_silence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = ["--images", "300", "--size", "32", "--lateral", "0.5"]
    assert cli.main(["import", "phantom", "--out", str(tmp_path / "data"), *made]) == 0
    small = ["--model", "test_resnet", "--size", "32", "--epochs", "1", "--batch", "16", "--frontal"]
    assert cli.main(["finetune", "--data", str(tmp_path / "data"), "--out", str(tmp_path / "run"), *small]) == 0
    words = ["evaluate", str(tmp_path / "run"), "--data", str(tmp_path / "data"), "--resamples", "5"]
    assert cli.main(words) == 0 and cli.main([*words, "--frontal"]) == 0
    opened = dataset_folder.open(tmp_path / "data").index.table
    lateral = int(((opened["split"] == "test") & ~opened["view"].isin(["PA", "AP"])).sum())
    tests = tmp_path / "run" / "evaluation"
    every, frontal = (
        json.loads((tests / name / "metrics.json").read_text(encoding="utf-8"))
        for name in ("phantom-test", "phantom-test-frontal")
    )
    assert lateral > 3 and any(f"{lateral} of these are not known to be frontal" in text for text in every["warnings"])
    assert every["images"] - frontal["images"] == lateral and not any("frontal" in text for text in frontal["warnings"])


def test_a_finding_of_one_patient_has_no_interval_and_the_mean_has(data: LabelledPredictions) -> None:
    labels = data.labels.copy()
    labels[np.flatnonzero(labels[:, 1] == 1)[1:], 1] = 0  # one positive
    found = evaluated(replace(data, labels=labels), resamples=60)
    finding, macro = found["findings"][1], found["macro"]["auroc"]
    assert finding["auroc"]["value"] is not None and finding["auroc"]["low"] is None
    assert macro["findings"] == 2 and macro["low"] < macro["value"] < macro["high"]
    assert any(note.startswith(f"{finding['finding']}:") and "of one patient" in note for note in found["notes"])


def test_the_table_of_chexnet_is_printed_in_its_form(nih: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate(nih, "--table", "chexnet") == 0
    lines = capsys.readouterr().out.splitlines()
    start = lines.index("The final AUROCs: ")
    assert lines[start + 1].startswith("The average AUROC is ")
    assert lines[start + 2] == "The AUROC of Atelectasis is –"  # nobody in this tree has it
    assert any(line.startswith("The AUROC of Effusion is 0.") or line.endswith(" 1.0") for line in lines)


def test_validation_images_are_a_leak_unless_peers_are_followed(nih: Path, tmp_path: Path) -> None:
    assert evaluate(nih, "--split", "val") == 2
    assert evaluate(nih, "--split", "val", "--protocol", "peers", "--out", str(tmp_path)) == 0
    found = json.loads((tmp_path / "metrics.json").read_text(encoding="utf-8"))
    assert found["leak"]["selected_on"] == 3
    assert any("chosen on the tested images" in text for text in found["warnings"])
    assert evaluate(nih, "--split", "train", "--protocol", "peers") == 2


def test_a_linked_folder_is_fingerprinted_for_the_guard(
    nih: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["import", "nih", str(nih / "download"), "--out", str(tmp_path / "linked"), "--split", "official"]
    assert cli.main([*words, "--size", "32", "--link", "--name", "renamed"]) == 0  # other patients by name
    assert cli.main(["evaluate", str(nih / "run"), "--data", str(tmp_path / "linked")]) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert "0 show 0 patients" in said and "9 are copies" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--split", "tset"), "tset"),
        (("--policy", "ones+lsr"), "smooths labels"),
        (("--rule", "best"), "'best'"),
    ],
)
def test_what_cannot_be_tested_is_one_clear_line(
    nih: Path, words: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(nih, *words) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and said in lines[0]


def test_a_run_without_a_bundle_is_one_clear_line(nih: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["evaluate", str(nih), "--data", str(nih / "arnoweng")]) == 1
    assert "holds no model" in capsys.readouterr().err


def test_findings_the_data_lacks_are_left_out_and_named(nih: Path) -> None:
    opened, model = dataset_folder.open(nih / "arnoweng"), load_classifier(nih / "run").spec
    some = replace(opened, index=replace(opened.index, findings=("Effusion", "Mass")))
    said = Predictions(model.findings, np.arange(6), np.zeros((6, 14), np.float32))
    found = labelled_predictions(said, Datasets.of([some]), model)
    assert found.findings == ("Effusion", "Mass") and found.predictions.logits.shape == (6, 2)
    none = replace(opened, index=replace(opened.index, findings=()))
    with pytest.raises(ValueError, match="no finding in common"):
        labelled_predictions(said, Datasets.of([none]), model)


# ---- comparison


def entry(data: LabelledPredictions, name: str) -> comparison.ComparisonEntry:
    return comparison.ComparisonEntry(name, data.table())


def better(data: LabelledPredictions) -> LabelledPredictions:
    logits = data.predictions.logits + 2 * np.nan_to_num(data.labels).astype(np.float32)
    return replace(data, predictions=replace(data.predictions, logits=logits))


def test_a_better_model_differs_and_the_same_one_does_not(data: LabelledPredictions) -> None:
    entries = [entry(data, "a"), entry(better(data), "b"), entry(data, "c")]
    found = to_json(comparison.compare(entries, resamples=200))
    b, c = found["differences"]
    apart = metrics.auroc(better(data).probabilities, data.labels) - metrics.auroc(data.probabilities, data.labels)
    assert b["findings"][0]["auroc"]["value"] == pytest.approx(apart[0])
    assert b["findings"][0]["auroc"]["low"] > 0 and b["findings"][0]["auroc_delong"]["p"] < 0.001
    assert b["findings"][0]["auroc_delong"]["adjusted"] >= b["findings"][0]["auroc_delong"]["p"]
    assert c["macro"]["auroc"]["value"] == 0 and c["macro"]["auroc"]["p"] == 1
    assert b["findings"][2]["auroc"]["p"] is None
    json.dumps(found, allow_nan=False)


def beyond_rates(result: comparison.ComparisonResult) -> list[str]:
    """The notes; not that bare tables have no thresholds, nor which findings are in no mean."""
    return [
        text for text in comparison.comparison_notes(result) if "accuracy and F1" not in text and "means" not in text
    ]


def test_p_is_below_five_percent_where_the_interval_leaves_out_zero(data: LabelledPredictions) -> None:
    found = to_json(comparison.compare([entry(data, "a"), entry(better(data), "b"), entry(data, "c")], resamples=100))
    for pair in found["differences"]:
        for row in (*pair["findings"], pair["macro"]):
            for name in ("auroc", "ap", "auroc_delong"):
                if row[name]["p"] is not None:
                    assert (row[name]["p"] < 0.05) == (row[name]["low"] > 0 or row[name]["high"] < 0)


def test_images_and_findings_that_not_all_have_are_counted(data: LabelledPredictions) -> None:
    table = data.table()
    fewer = table.iloc[::-1].iloc[:300].drop(columns=["Edema", "Edema_logit", "Edema_label"])
    found = comparison.compare([entry(data, "a"), comparison.ComparisonEntry("b", fewer)], resamples=400)
    assert found.images == 300 and found.left_out == {"a": 100, "b": 0}
    assert found.findings_left_out["a"] == ("Edema",)
    assert found.differences[0].macro["auroc"].value == 0  # the order of rows does not matter
    assert len(beyond_rates(found)) == 3 and found.without_patient == 30


def test_other_labels_are_not_compared(data: LabelledPredictions) -> None:
    other = data.table().assign(Mass_label=0.0)
    with pytest.raises(ValueError, match="109 images"):
        comparison.compare([entry(data, "a"), comparison.ComparisonEntry("b", other)])


def test_compare_reads_runs_and_writes_a_page(nih: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate(nih) == 0
    second = tmp_path / "第二 run" / "evaluation" / "nih-test"
    second.mkdir(parents=True)
    table = pd.read_parquet(nih / "run" / "evaluation" / "nih-test" / "predictions.parquet")
    predictions.save_predictions(table, second / "predictions.parquet")
    page = tmp_path / "compare.html"
    words = ["compare", str(nih / "run"), str(tmp_path / "第二 run"), "--html", str(page), "--resamples", "20"]
    assert cli.main(words) == 0
    assert "第二 run" in page.read_text(encoding="utf-8") and "<script" not in page.read_text(encoding="utf-8")
    assert cli.main(["compare", str(nih / "run"), str(tmp_path)]) == 1
    assert "holds no predictions" in capsys.readouterr().err


def test_an_honest_test_stands_on_the_card_and_a_leak_does_not(
    nih: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(nih / "run" / "bundle", tmp_path / "模型")
    file = tmp_path / "模型" / "README.md"
    noted = file.read_text(encoding="utf-8")  # other tests may have tested this very model
    plain = re.sub(r"<!-- (tests|tested:.*?) -->.*?<!-- /\1 -->\n\n", "", noted, flags=re.DOTALL)
    file.write_text(plain, encoding="utf-8")
    (tmp_path / "模型" / "tests.json").unlink(missing_ok=True)
    words = ["evaluate", str(tmp_path / "模型"), "--data", str(nih / "arnoweng"), "--resamples", "20"]
    assert cli.main([*words, "--split", "train", "--allow-leak"]) == 0
    said = capsys.readouterr().out
    assert "\nTest 1 of this model" in said and "\n! Not an honest test" in said  # a first test is no warning
    leaky = file.read_text(encoding="utf-8")
    assert "## Test:" not in leaky and "| 1 | nih, train (leak) |" in leaky and "**not an honest test**" in leaky
    assert (
        cli.main([*words, "--out", str(tmp_path / "one")]) == 0
        and cli.main([*words, "--out", str(tmp_path / "two")]) == 0
    )
    text, result = (
        file.read_text(encoding="utf-8"),
        json.loads((tmp_path / "two" / "metrics.json").read_text(encoding="utf-8")),
    )
    assert text.count("## Test: nih, split test") == 1 and text.count("## Limitations") == 1
    assert str(tmp_path) not in text  # cards are shared
    mean = result["macro"]["auroc"]
    assert (
        f"mean AUROC {mean['value']:.3f} ({mean['low']:.3f}–{mean['high']:.3f}) of {mean['findings']} findings" in text
    )
    assert text.replace(text[text.index("<!-- tests") : text.index("## Limitations")], "") == plain
    assert "3 tests; the most used test data were used 2 times" in text and "2nd use of this data, as test 2" in text
    assert result["test"]["number"] == 3 and result["test"]["before"] == [2]
    assert "\n! Test 3 of this model" in capsys.readouterr().out
    page = (tmp_path / "two" / "index.html").read_text(encoding="utf-8")
    assert "Test 3 of this model, the 2nd on this data (before: test 2)" in page


def test_a_tested_split_gives_way_to_what_the_model_has_seen(nih: Path, tmp_path: Path) -> None:
    opened = load_classifier(nih / "run")
    datasets = Datasets.of([dataset_folder.open(nih / "official")])
    rows = np.arange(len(datasets[0]))
    kept, left = leakage.unseen(opened.provenance, datasets, rows)
    assert 0 < len(kept) == len(rows) - left.images and left.patients and left.copies
    assert not leakage.check_leakage(opened.provenance, datasets, kept).found
    with pytest.raises(ValueError, match="leaves nothing to test"):
        leakage.unseen(opened.provenance, datasets, np.setdiff1d(rows, kept))
    assert evaluate(nih, "--split", "all", "--drop-shared", "all", "--out", str(tmp_path), on="official") == 0
    found = json.loads((tmp_path / "metrics.json").read_text(encoding="utf-8"))
    assert found["images"] == len(kept) and not found["leak"]["found"]
    assert any(f"{left.images:,} images are left out" in note for note in found["notes"])
    assert evaluate(nih, "--drop-shared", "train") == 2


def test_a_test_of_other_data_of_the_same_name_goes_elsewhere_and_out_is_not_overwritten(
    nih: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(nih / "run" / "bundle", tmp_path / "bundle")
    words = ["evaluate", str(tmp_path), "--resamples", "5", "--table", "chexnet", "--data"]
    assert cli.main([*words, str(nih / "arnoweng")]) == 0
    kept = (tmp_path / "evaluation" / "nih-test" / "metrics.json").read_text(encoding="utf-8")
    assert cli.main([*words, str(nih / "official"), "--allow-leak", "--out", str(tmp_path / "mine")]) == 0
    assert cli.main([*words, str(nih / "arnoweng"), "--out", str(tmp_path / "mine")]) == 2
    assert str(tmp_path / "mine") in capsys.readouterr().err
    other = dataset_folder.open(nih / "official")
    spec = ModelSpec.load(tmp_path / "bundle" / "model.json")
    policy = Policy.parse("ignore", ["Mass"])
    planned = PlannedTest(Rules(tmp_path), spec, Datasets.of([other]), np.arange(4), policy)
    assert planned.folder().name == f"nih-test-{planned.key[:6]}"
    assert cli.main([*words, str(nih / "arnoweng")]) == 0
    again = json.loads((tmp_path / "evaluation" / "nih-test" / "metrics.json").read_text(encoding="utf-8"))
    first = json.loads(kept)
    assert again["test"]["key"] == first["test"]["key"] and again["test"]["number"] == first["test"]["number"] + 2
    assert again["findings"] == first["findings"]
