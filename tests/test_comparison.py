"""Comparisons of models: accuracy and F1 with paired intervals at thresholds from validation, and the cost of each model."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import pytest
from refusals import has_facts

from ribcage import cli
from ribcage.bundle import cost
from ribcage.bundle.io import save_bundle
from ribcage.bundle.spec import ModelSpec
from ribcage.bundle.training_record import TrainingRecord
from ribcage.data.provenance import Provenance
from ribcage.evaluation import comparison, comparison_entries
from ribcage.evaluation.comparison_entries import ComparisonEntry
from ribcage.inference.prediction_table import PredictionTable, read_predictions, save_table
from ribcage.metrics.classification_evaluation import (
    ClassificationBaselines,
    ClassificationEvaluation,
    ClassifiedFinding,
    ShuffledLabels,
)
from ribcage.metrics.estimates import ScalarEstimate
from ribcage.metrics.evaluation_file import write_evaluation
from ribcage.metrics.resampling import resample
from ribcage.reports import comparison as report
from ribcage.runtime.typed_json import to_json

FINDINGS = ("Mass", "Edema")


def table(seed: int, strength: float) -> PredictionTable:
    """120 images of 60 patients; labels are the same for every seed."""
    rng = np.random.default_rng(0)
    labels = (rng.random((120, 2)) < 0.3).astype(np.float64)
    labels[::17, 0] = np.nan
    odds = np.random.default_rng(seed).normal(size=(120, 2)) + strength * np.nan_to_num(labels)
    about = pd.DataFrame(
        {"set": "made", "path": [f"{n}.png" for n in range(120)], "patient": [f"p{n // 2:02}" for n in range(120)]}
    )
    return PredictionTable(about, FINDINGS, 1 / (1 + np.exp(-odds)), labels, odds)


def entry(name: str, seed: int, strength: float, thresholds: Sequence[float | None] = ()) -> ComparisonEntry:
    chosen = dict(zip(FINDINGS, thresholds, strict=True)) if thresholds else {}
    return ComparisonEntry(name, table(seed, strength), rule="youden" if thresholds else "", thresholds=chosen)


def test_findings_of_few_positive_patients_are_named() -> None:
    """Patients are counted, not images; an image of an unknown patient is one."""
    models = [entry("a", 1, 1.0), entry("b", 2, 2.0)]
    for one in models:
        one.table.labels[:, 0] = np.where(np.arange(120) < 24, 1.0, 0.0)  # of 12 patients
    found = comparison.compare(models, resamples=5)
    assert found.positive_patients["Mass"] == 12 and found.positive_patients["Edema"] >= comparison.FEW_PATIENTS
    (note,) = [text for text in comparison.comparison_notes(found) if "12" in text]
    assert "Mass (12 positive)" in note and "Edema" not in note
    for one in models:
        one.table.labels[:, 0] = np.where(np.arange(120) < 24, 0.0, 1.0)
    (note,) = [text for text in comparison.comparison_notes(comparison.compare(models, resamples=5)) if "12" in text]
    assert "Mass (12 negative)" in note and "Edema" not in note
    for one in models:
        one.table.images["patient"] = ""
    blind = comparison.compare(models, resamples=5)
    assert blind.negative_patients["Mass"] == 24
    assert not [text for text in comparison.comparison_notes(blind) if "Mass" in text]


def test_accuracy_and_f1_are_paired_each_at_the_model_s_own_thresholds() -> None:
    """Against resamples drawn and counted by hand."""
    a, b = entry("a", 1, 1.0, (0.4, 0.7)), entry("b", 2, 2.0, (0.6, 0.5))
    found = to_json(comparison.compare([a, b], resamples=300, seed=5))["differences"][0]
    labels = a.table.labels
    called = [one.table.probabilities >= np.array([one.thresholds[name] for name in FINDINGS]) for one in (a, b)]

    def rates(rows: np.ndarray, said: np.ndarray) -> np.ndarray:
        """(2, F) accuracy and F1."""
        cells = []
        for f in range(2):
            y, yes = labels[rows, f], said[rows, f]
            y, yes = y[~np.isnan(y)], yes[~np.isnan(y)]
            cells.append([np.mean(yes == y), 2 * np.sum(yes & (y == 1)) / (np.sum(yes) + np.sum(y == 1))])
        return np.array(cells).T

    whole = rates(np.arange(120), called[1]) - rates(np.arange(120), called[0])
    drawn = []
    for number in range(300):
        patients = resample(5, number, 60)
        rows = np.stack([2 * patients, 2 * patients + 1], 1).ravel()
        drawn.append(rates(rows, called[1]) - rates(rows, called[0]))
    errors = np.stack(drawn).mean(2).std(0, ddof=1)  # (R, 2, F)
    for place, name in enumerate(("accuracy", "f1")):
        value = found["macro"][name]
        assert value["value"] == pytest.approx(whole[place].mean())
        assert value["low"] + value["high"] == pytest.approx(2 * value["value"])
        assert (value["high"] - value["low"]) / (2 * 1.96) == pytest.approx(errors[place], rel=0.15)
        for f in range(2):
            assert found["findings"][f][name]["value"] == pytest.approx(whole[place, f])


def test_a_model_without_thresholds_has_no_accuracy() -> None:
    result = comparison.compare([entry("a", 1, 1.0, (0.5, 0.5)), entry("b", 2, 2.0)], resamples=300)
    found = to_json(result)
    first, second = found["models"]
    assert first["macro"]["accuracy"]["value"] is not None and first["macro"]["f1"]["low"] is not None
    assert second["macro"]["accuracy"]["value"] is None
    assert found["differences"][0]["macro"]["f1"]["value"] is None
    assert found["differences"][0]["macro"]["auroc"]["value"] is not None
    assert any(has_facts(note, "b", "accuracy", "--thresholds") for note in comparison.comparison_notes(result))
    assert report.model_table(result).rows[2][2] == "–"
    json.dumps(found, allow_nan=False)


def test_means_are_over_the_same_findings_so_that_rows_add_up() -> None:
    """One model has a threshold less, another has none at all: that one is not asked."""
    entries = [entry("a", 1, 1.0, (0.5, 0.5)), entry("b", 2, 2.0, (0.5, None)), entry("c", 3, 1.0)]
    result = comparison.compare(entries, resamples=300)
    found = to_json(result)
    first, second, _ = found["models"]
    apart = found["differences"][0]
    assert found["rated"] == ["Mass"]
    assert first["findings"][1]["f1"]["value"] is not None  # known, but not in the mean
    for name in ("accuracy", "f1"):
        assert first["macro"][name] == first["findings"][0][name] | {"findings": 1}
        assert apart["macro"][name]["value"] == pytest.approx(apart["findings"][0][name]["value"])
    for name in report.METRICS:
        assert second["macro"][name]["value"] - first["macro"][name]["value"] == pytest.approx(
            apart["macro"][name]["value"]
        )
    titles = ["AUROC", "AP", "F1, 1 finding", "accuracy, 1 finding", "MCC, 1 finding"]
    for table in (report.model_table(result), report.mean_difference_table(result, 1)):
        assert [row[0] for row in table.rows if row[0] in titles] == titles  # other metrics may be added
    notes = comparison.comparison_notes(result)
    assert any(has_facts(note, "Edema", "F1", "accuracy", "MCC", "b", "no threshold") for note in notes)


def test_patients_are_those_of_the_table_that_knows_them_whichever_comes_first() -> None:
    own, ours = entry("own", 1, 1.0), entry("ours", 2, 2.0)
    own = replace(own, table=replace(own.table, images=own.table.images.assign(patient="")))
    found = [to_json(comparison.compare(pair, resamples=50)) for pair in ([own, ours], [ours, own])]
    assert [one["patients"] for one in found] == [60, 60]
    widths = [one["differences"][0]["macro"]["auroc"] for one in found]
    assert widths[0]["high"] - widths[0]["low"] == pytest.approx(widths[1]["high"] - widths[1]["low"])
    assert [one["otherwise_grouped"] for one in found] == [[], []]
    blind = comparison.compare([own, replace(own, name="too")], resamples=50)
    assert any(has_facts(note, "patient", "unknown", "120 images") for note in comparison.comparison_notes(blind))


def test_tables_that_group_images_by_other_patients_are_named_in_any_order() -> None:
    """Else one table of patients that are all different would make the intervals too narrow."""
    ours, own = entry("ours", 1, 1.0), entry("own", 2, 2.0)
    renamed = replace(
        own, table=replace(own.table, images=ours.table.images.assign(patient=[f"x{n // 2}" for n in range(120)]))
    )
    apart = replace(
        own, table=replace(own.table, images=ours.table.images.assign(patient=[f"x{n}" for n in range(120)]))
    )
    for pair in ([ours, apart], [apart, ours]):
        found = comparison.compare(pair, resamples=5)
        assert found.patients == 60 and found.otherwise_grouped == ("own",)
        assert [note for note in comparison.comparison_notes(found) if has_facts(note, "own", "60 patients")]
    assert comparison.compare([renamed, ours], resamples=5).otherwise_grouped == ()


def test_a_finding_of_one_class_is_named() -> None:
    entries = [entry("a", 1, 1.0, (0.5, 0.5)), entry("b", 2, 2.0, (0.5, 0.5))]
    for one in entries:
        one.table.labels[:, 0] = 0.0
    found = comparison.compare(entries, resamples=300)
    titles = ["AUROC, 1 finding", "AP, 1 finding", "F1, 1 finding", "accuracy", "MCC, 1 finding"]
    assert [row[0] for row in report.model_table(found).rows if row[0] in titles] == titles
    assert any(text.startswith("Mass: only one class") for text in comparison.comparison_notes(found))


# ---- where thresholds and models come from


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`big` and `small`: bundles with an evaluation each."""
    folder = tmp_path_factory.mktemp("模型 runs")
    facts = TrainingRecord(images=1, patients=1, selection=1)
    for seed, name, architecture in ((1, "big", "test_vit"), (2, "small", "test_resnet")):
        method = cost.built(cost.Subject(architecture, 2, 1, (32, 32)))
        model = ModelSpec(architecture, method.findings, (32, 32), 32, "pad", 0.5, 0.25, training=facts)
        save_bundle(folder / name / "bundle", method, model, Provenance.nothing())
        out = folder / name / "evaluation" / "made-test"
        out.mkdir(parents=True)
        table(seed, 1.0).save(out / "predictions.parquet")
        write(out / "metrics.json")
    return folder


def write(file: Path, protocol: Literal["honest", "peers"] = "honest") -> None:
    number = ScalarEstimate(0.5)
    rows = tuple(
        ClassifiedFinding(
            finding=name, n=9, positives=3, left_out=0, threshold=threshold, prevalence=0.3, uncertain=0, unknown=0,
            temperature=None, brier_before=number, brier_change=number, ece=None, ece_before=None,
        )
        for name, threshold in (("Mass", 0.4), ("Edema", None))
    )  # fmt: skip
    shuffled = ShuffledLabels(times=1, findings=(), macro=number)
    found = ClassificationEvaluation(
        images=9, patients=9, protocol=protocol, level=0.95, resamples=1, seed=0, rule="youden", findings=rows, macro={},
        rules={}, baselines=ClassificationBaselines(fitted_on="", shuffled=shuffled), subgroups=(),
    )  # fmt: skip
    write_evaluation(found, file)


def test_an_evaluation_names_its_thresholds_and_its_model(runs: Path) -> None:
    by_run = comparison_entries.comparison_entry(str(runs / "big"))
    by_evaluation = comparison_entries.comparison_entry(str(runs / "big" / "evaluation" / "made-test"))
    by_table = comparison_entries.comparison_entry(
        str(runs / "big" / "evaluation" / "made-test" / "predictions.parquet")
    )
    for one in (by_run, by_evaluation, by_table):
        assert one.thresholds == {"Mass": 0.4, "Edema": None}
        assert (one.rule, one.bundle) == ("youden", runs / "big" / "bundle")


def test_thresholds_of_the_tested_images_are_called_so(tmp_path: Path) -> None:
    table(1, 1.0).save(tmp_path / "predictions.parquet")
    write(tmp_path / "metrics.json", "peers")
    one = comparison_entries.comparison_entry(str(tmp_path))
    assert has_facts(one.rule, "youden", "tested images") and one.bundle is None


@pytest.mark.parametrize("text", ["{", "[]", '{"warnings": [], "rule": "x", "protocol": "honest", "findings": [{}]}'])
def test_a_damaged_evaluation_is_one_line(tmp_path: Path, text: str) -> None:
    table(1, 1.0).save(tmp_path / "predictions.parquet")
    (tmp_path / "metrics.json").write_text(text)
    with pytest.raises(ValueError, match=r"metrics.json is damaged.*ribcage evaluate"):
        comparison_entries.comparison_entry(str(tmp_path))


@pytest.mark.parametrize("end", ["csv", "parquet"])
def test_what_is_no_score_is_named_with_its_row(tmp_path: Path, end: str) -> None:
    file = tmp_path / f"预测.{end}"
    for column, cell, said in (
        ("Mass", "high" if end == "csv" else 50.0, "'high'" if end == "csv" else "'50.0'"),
        ("Edema", np.nan, "'nan'"),
        ("Mass_label", -1.0, "'-1.0'"),
    ):
        rows = table(1, 1.0).frame().astype({column: object if cell == "high" else np.float64})
        rows.loc[2, column] = cell
        save_table(rows, file)
        with pytest.raises(ValueError) as error:
            read_predictions(file)
        begins = f"{file} contains {said} in {column}, row 3."
        assert str(error.value).startswith(begins)


def test_a_column_of_remarks_is_kept_as_it_is(tmp_path: Path) -> None:
    save_table(table(1, 1.0).frame().assign(remark="seen by two"), tmp_path / "one.csv")
    found = read_predictions(tmp_path / "one.csv")
    assert found.images["remark"][0] == "seen by two"
    assert np.isnan(found.labels[0, 0]) and found.probabilities.dtype == np.float64


def test_what_each_model_costs_stands_beside_it(runs: Path) -> None:
    known, lone = comparison_entries.comparison_entry(str(runs / "big")), entry("lone", 2, 1.0)
    costs = [model.costs for model in comparison.compare([known, lone], resamples=300).models]
    file = runs / "big" / "bundle" / "model.safetensors"
    counted = cost.count_operations(cost.Subject.of(runs / "big"))
    assert costs[0] is not None
    assert (costs[0].parameters, costs[0].multiply_adds) == (counted.parameters, counted.multiply_adds)
    assert (costs[0].bytes, costs[0].latency, costs[1]) == (file.stat().st_size, None, None)


def test_the_command_shows_before_and_after(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[cost.Timing] = []

    def beside(subjects: Sequence[cost.Subject], timing: cost.Timing) -> list[cost.Latency]:
        asked.append(timing)
        return [cost.Latency(1, 40.04 / (place + 1), None, "pip x") for place, _ in enumerate(subjects)]

    monkeypatch.setattr(cost, "measured_by_turns", beside)
    words = ["compare", str(runs / "big"), str(runs / "small"), "--latency", "--threads", "1", "--resamples", "300"]
    page = tmp_path / "page.html"
    assert cli.main([*words, "--html", str(page), "--json", str(tmp_path / "all.json")]) == 0
    assert [(timing.threads, timing.batches[0]) for timing in asked] == [(1, 1)]
    shown = " ".join(capsys.readouterr().out.split())  # lines are folded
    for text in (
        "accuracy",
        "F1",
        "MB on disk",
        "ms per image",
        "40.0",
        "20.0",
        "small in ONNX Runtime",
        "pip x",
    ):
        assert text in shown
        assert text in page.read_text(encoding="utf-8")
    written = json.loads((tmp_path / "all.json").read_text(encoding="utf-8"))
    for model in written["models"]:
        assert f"{model['costs']['multiply_adds']:,}" in shown
    assert {"accuracy", "f1"} < set(written["differences"][0]["macro"])


def test_names_are_shown_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    names = ("a[", "b[", "[bold]")
    for place, name in enumerate(names):
        (tmp_path / name).mkdir()
        table(place, 1.0).save(tmp_path / name / "c].csv")
    assert cli.main(["compare", *(f"{name}/c].csv" for name in names), "--resamples", "50"]) == 0
    shown = capsys.readouterr().out
    assert "b[/c].csv minus a[/c].csv\n" in shown and "[bold]/c].csv minus a[/c].csv\n" in shown
    head = next(line for line in shown.splitlines() if line.strip().startswith("a[/c].csv"))
    assert head.split() == ["a[/c].csv", "b[/c].csv", "[bold]/c].csv"]


def test_what_is_not_there_and_what_goes_with_nothing_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["compare", str(tmp_path / "a"), str(tmp_path / "b")]) == 1
    assert has_facts(capsys.readouterr().err, f"ribcage: {tmp_path / 'a'} ")
    assert cli.main(["compare", str(tmp_path / "a"), str(tmp_path / "b"), "--threads", "1"]) == 2
    assert "--latency" in capsys.readouterr().err


def test_models_are_timed_by_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    shape = (1, 4, 4)

    def way(name: str) -> cost.Ways:
        return cost.Ways(shape, lambda images: said.append(name) or images, None, "")

    found = cost.timed([way("a"), way("b")], 3, 4)
    assert said == ["a", "a", "b", "b"] * 5
    assert [each.batch for each in found] == [3, 3]


def evaluated(run: Path, **keys: str) -> str:
    """A run with evaluations: folder → key of the test."""
    for name, key in keys.items():
        out = run / "evaluation" / name.replace("_", "-")
        out.mkdir(parents=True)
        (out / "predictions.parquet").touch()
        (out / "metrics.json").write_text(json.dumps({"test": {"key": key}} if key else {}))
    return str(run)


def test_of_several_evaluations_the_test_that_all_have_in_common_is_compared(tmp_path: Path) -> None:
    one = evaluated(tmp_path / "one", nih_test="aaaa11", nih_test_bbbb22="bbbb22")
    two = evaluated(tmp_path / "two", nih_test="bbbb22", nih_test_cccc33="cccc33")
    for on in ("", "nih-test*", "bbbb22", "bbbb"):
        names = [file.parent.name for file in comparison_entries.chosen([one, two], on)]
        assert names == ["nih-test-bbbb22", "nih-test"], on
    with pytest.raises(FileNotFoundError, match=r"cccc33.*nih-test, nih-test-bbbb22"):
        comparison_entries.chosen([one, two], "cccc33")
    three = evaluated(tmp_path / "three", nih_test="aaaa11", nih_test_bbbb22="bbbb22")
    assert [file.parent.name for file in comparison_entries.chosen([one, three], "nih-test")] == ["nih-test"] * 2
    with pytest.raises(ValueError, match=r"\b2\b.*nih-test \(aaaa11\).*\b2\b.*--on"):
        comparison_entries.chosen([one, three])
    old = [evaluated(tmp_path / name, nih_test="", nih_val="") for name in ("four", "five")]
    assert [file.parent.name for file in comparison_entries.chosen(old, "nih-test")] == ["nih-test"] * 2
