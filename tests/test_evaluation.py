"""Evaluation of classifiers: no leakage, undefined numbers stay undefined, every number has an interval."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from refusals import has_facts

from ribcage import metrics
from ribcage.evaluation.baselines import BaselineData, constant_row, shuffled_aurocs
from ribcage.evaluation.calibration import RULES, fit_on_validation
from ribcage.evaluation.classification import evaluate_classifier
from ribcage.evaluation.labelled import LabelledPredictions, known_patients
from ribcage.evaluation.notes import classification_warnings
from ribcage.evaluation.subgroups import classification_subgroups
from ribcage.inference.predictions import Predictions
from ribcage.metrics import evaluation_file
from ribcage.metrics.evaluation_context import EvaluatedData, EvaluatedModel, EvaluationContext, LeakageCheck
from ribcage.metrics.evaluation_file import evaluation_json, read_evaluation, write_evaluation
from ribcage.runtime import typed_json

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


def test_probabilities_that_are_rounded_to_one_are_noted_where_they_change_the_auroc() -> None:
    data = made()
    logits = data.predictions.logits + np.array([60, 0, 0], np.float32)  # sigmoids of more than 37 are 1
    notes = evaluated(replace(data, predictions=replace(data.predictions, logits=logits), temperature=()))["notes"]
    (note,) = [note for note in notes if "logits" in note]
    exact = metrics.auroc(data.predictions.logits, data.labels)[0]
    assert has_facts(note, "400", "Mass", "0.500", f"{exact:.3f}") and "Edema" not in note
    assert not [note for note in evaluated(data)["notes"] if "logits" in note]


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


def test_without_thresholds_rates_are_at_one_half_and_noted(data: LabelledPredictions) -> None:
    found = evaluated(replace(data, thresholds={}, temperature=()), resamples=20)
    assert found["rule"] == "half" and found["findings"][0]["threshold"] == 0.5
    assert any("no thresholds" in text for text in found["notes"])


def test_peers_choose_thresholds_on_the_tested_images(data: LabelledPredictions) -> None:
    other = replace(data, thresholds={"youden": (0.999,) * 3})
    assert evaluate_classifier(other, resamples=20).findings[0].threshold == 0.999
    found = evaluated(other, resamples=20, protocol="peers")
    own = metrics.choose_thresholds(data.probabilities, data.labels, "youden")
    assert found["findings"][0]["threshold"] == own[0]


def test_labels_that_the_policy_settles_are_not_counted_as_left_out(data: LabelledPredictions) -> None:
    source = data.source.copy()
    source[:5, 0], source[5:9, 0] = -1, np.nan
    settled, known = data.labels.copy(), int(np.isnan(data.labels[9:]).sum() + np.isnan(data.labels[:9, 1:]).sum())
    settled[:5, 0], settled[5:9, 0] = 1, np.nan
    notes = evaluate_classifier(replace(data, source=source, labels=settled), resamples=5).notes
    uncertain = int((np.isnan(settled) & (source == -1)).sum())
    counts = (f"{known + 4:,} labels", f"{uncertain:,} are uncertain", f"{known + 4 - uncertain:,} are missing")
    assert any(all(count in note for count in counts) for note in notes)


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
def test_the_constant_baseline_predicts_the_likelier_class(share: float, accuracy: float) -> None:
    labels = np.array([[1.0], [1.0], [1.0], [0.0], [np.nan]])
    found = constant_row("Mass", share, labels[:, 0])
    assert (found.ap, found.accuracy) == (0.75, accuracy)
    assert found.brier == pytest.approx(0.75 * (1 - share) ** 2 + 0.25 * share**2)


def test_a_finding_that_follows_the_view_is_predicted_by_the_view_alone(data: LabelledPredictions) -> None:
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


def test_a_hospital_called_unknown_is_an_unknown_one(data: LabelledPredictions) -> None:
    """It was a subgroup of its own without images, or took the place of the images without a hospital."""
    places = np.array(["A", "unknown", ""])[np.arange(len(data)) % 3]
    known = classification_subgroups(
        replace(data, about=data.about.assign(hospital=places)), np.full(3, 0.5), resamples=2, seed=0, level=0.95
    )
    found = {row.group: row for row in known if row.by == "hospital"}
    assert {name: row.images for name, row in found.items()} == {
        "A": (places == "A").sum(),
        "unknown": (places != "A").sum(),
    }
    assert found["A"].gap is not None and found["A"].gap.images == found["unknown"].images


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


def test_a_temperature_corrects_overconfident_logits() -> None:
    random = np.random.default_rng(0)
    logits = random.normal(0, 1, (4000, 1))
    labels = (random.random((4000, 1)) < 1 / (1 + np.exp(-logits))).astype(float)
    temperature, thresholds = fit_on_validation(5 * logits, labels)
    assert temperature[0] == pytest.approx(5, rel=0.1)
    assert set(thresholds) == set(RULES)


def test_thresholds_are_reached_by_the_scores_they_were_chosen_from() -> None:
    random = np.random.default_rng(0)
    labels = (random.random((200, 1)) < 0.3).astype(float)
    logits = random.normal(0, 1, labels.shape) + labels  # float64
    (temperature,), thresholds = fit_on_validation(logits, labels)
    scores, positive = metrics.sigmoid(logits / temperature), labels == 1
    for rule in set(RULES) - {"midpoint"}:
        assert thresholds[rule][0] in scores, rule
    assert (scores[positive] >= thresholds["sensitivity_95"]).mean() >= 0.95


def test_one_class_on_validation_leaves_thresholds_open() -> None:
    temperature, thresholds = fit_on_validation(np.zeros((5, 1)), np.zeros((5, 1)))
    assert temperature == (1.0,) and all(chosen == (None,) for chosen in thresholds.values())


HONEST = EvaluationContext(
    split="test",
    model=EvaluatedModel(fit="pad", stored=64, splits=("train", "val")),
    data=(EvaluatedData(folder="d", fit="pad", size=64),),
)
WARNED: dict[str, tuple[dict[str, Any], str]] = {
    "unseen": ({"leak": LeakageCheck(unseen=7)}, "7 training images"),
    "unknown": ({"leak": LeakageCheck(unknown=("x.pt",))}, "x.pt"),
    "choice": ({"model": replace(HONEST.model, leak="it saw them")}, "it saw them"),
    "split": ({"split": "val"}, "split 'val'"),
    "others": ({"others": 1200}, "1,200 of"),
    "shape": ({"data": (EvaluatedData(folder="d", fit="crop", size=64),)}, "cropped"),
    "size": ({"data": (EvaluatedData(folder="d", fit="pad", size=32),)}, "32 px"),
    "labels": ({"not_tested": ("Mass", "Edema")}, "Mass, Edema"),
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


def test_a_file_as_large_as_is_allowed_is_read(result: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "metrics.json"
    file.write_text(json.dumps(result), encoding="utf-8")
    monkeypatch.setattr(evaluation_file, "LARGEST_FILE", file.stat().st_size)
    assert read_evaluation(file).findings
    monkeypatch.setattr(evaluation_file, "LARGEST_FILE", file.stat().st_size - 1)
    with pytest.raises(ValueError, match="damaged"):
        read_evaluation(file)


def test_a_context_that_says_nothing_counts_nothing() -> None:
    """A file of an older version, without these keys, must not report a leak or images that were left out."""
    read = typed_json.from_json(EvaluationContext, {"leak": {}, "left": {}, "data": [{}], "model": {}, "test": {}})
    assert not any(vars(read.leak).values()) and not any(vars(read.left).values())
    assert not any(vars(read.data[0]).values()) and read.others == 0 and not read.ten_crop
    assert {name: value for name, value in vars(read.model).items() if value} == {"size": (0, 0), "channels": 1}
    assert {name: value for name, value in vars(read.test).items() if value} == {"honest": True}


def test_a_finding_of_one_patient_has_no_interval_and_the_mean_has(data: LabelledPredictions) -> None:
    labels = data.labels.copy()
    labels[np.flatnonzero(labels[:, 1] == 1)[1:], 1] = 0  # one positive
    found = evaluated(replace(data, labels=labels), resamples=60)
    finding, macro = found["findings"][1], found["macro"]["auroc"]
    assert finding["auroc"]["value"] is not None and finding["auroc"]["low"] is None
    assert macro["findings"] == 2 and macro["low"] < macro["value"] < macro["high"]
    assert any(has_facts(note, finding["finding"], "one patient") for note in found["notes"])
