"""ribcage labels: subsets of whole patients, curves, forecasts, and what is written."""

import json
from pathlib import Path

import numpy as np
import pytest
from refusals import has_facts, line

from ribcage import cli, metrics
from ribcage.data.collection import Datasets
from ribcage.reports import label_efficiency as report
from ribcage.training import label_efficiency, probe
from ribcage.training.label_efficiency import SubsetScores, label_curves, subset, subset_scores
from ribcage.training.probe import FeatureTable


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("数据 set") / "phantom"
    assert cli.main(["import", "phantom", "--out", str(folder), "--images", "400", "--size", "32"]) == 0
    return folder


def parts(data: Datasets, strength: float = 0.5) -> list[FeatureTable]:
    """Features of all splits in which a finding is spread over many directions; a third finding is always absent."""
    found = []
    for seed, split in enumerate(("train", "val", "test")):
        random, rows = np.random.default_rng(seed), data.rows_of(split)
        labels = (random.random((len(rows), 3)) < 0.4).astype(np.float32)
        labels[:, 2] = 0
        features = random.normal(size=(len(rows), 12)).astype(np.float32)
        features[:, :6] += strength * labels[:, :1]
        features[:, 6:] += strength * labels[:, 1:2]
        found.append(FeatureTable(features, labels, rows))
    return found


def test_subsets_are_nested_and_of_whole_patients(data: Path) -> None:
    opened = Datasets.open([data])
    rows, codes = opened.rows_of("train"), opened.patient_codes
    for seed in range(2):
        several = [set(subset(opened, rows, amount, seed).tolist()) for amount in (30.0, 90.0, 200.0)]
        assert several[0] < several[1] < several[2]
        for count, own in zip((30, 90, 200), several, strict=True):
            assert count <= len(own) < count + 12
            assert own == set(rows[np.isin(codes[rows], codes[sorted(own)])].tolist())
    assert subset(opened, rows, 30, 0).tolist() != subset(opened, rows, 30, 1).tolist()
    assert len(subset(opened, rows, len(rows), 3)) == len(rows)
    with pytest.raises(ValueError, match=str(len(rows))):
        subset(opened, rows, len(rows) + 1, 0)


def test_a_curve_has_the_aurocs_of_the_probes(data: Path) -> None:
    opened = Datasets.open([data])
    several = parts(opened)
    found = list(subset_scores(opened, several, (60, 1.0), 2))
    chosen = subset(opened, several[0].rows, 60, 1)
    part = several[0].take(np.isin(several[0].rows, chosen))
    expected = probe.chosen_auroc(probe.regressed(part, *several[1:]), several[1].labels, several[2].labels)
    np.testing.assert_allclose(found[0].aurocs[1], expected)
    curves = label_curves(found, ("a", "b", "c"), len(several[0].rows), len(several[2].rows), (2.0,))
    assert curves.averaged == ("a", "b") and curves.macro.counts[0].subsets == 2
    assert curves.macro.counts[0].auroc.value == pytest.approx(found[0].aurocs[:, :2].mean())
    assert curves.macro.counts[1].sd is None and curves.findings[2].counts == ()
    alone = metrics.delong(probe.chosen_scores(probe.regressed(*several), several[1].labels), several[2].labels,
                           opened.patient_codes[several[2].rows])  # fmt: skip
    last = curves.findings[0].counts[1].auroc
    assert last.low is not None and last.high is not None
    assert last.high - last.low > 3.9 * np.sqrt(alone.covariance[0, 0])


def test_a_curve_that_rises_is_forecast_and_one_that_does_not_is_not() -> None:
    random, found = np.random.default_rng(0), []
    for count in (30, 60, 120, 240):
        aurocs = np.array([0.9 - 1.5 * count**-0.5, 0.5, np.nan]) + 0.1 / np.sqrt(count) * random.normal(size=(4, 3))
        found.append(SubsetScores(np.full(4, count), np.full((4, 3), count / 5), aurocs, np.full((60, 3), 0.001)))
    rises, noise, absent = label_curves(found, ("a", "b", "c"), 400, 100, (2.0, 5.0)).findings
    assert not rises.reason and [one.images / rises.counts[-1].images for one in rises.forecasts] == [2, 5]
    assert rises.counts[-1].auroc.value < rises.forecasts[0].value < rises.forecasts[1].value
    a, b, c = rises.parameters
    assert rises.forecasts[0].value == pytest.approx(a - b * rises.forecasts[0].images ** -c)
    assert noise.reason and not noise.forecasts and absent.reason
    assert "2 × as many: +0." in report.gain_phrase(rises) and report.gain_phrase(noise) == noise.reason
    assert 'class="area"' in report.curve_plot(rises) and 'class="area"' not in report.curve_plot(noise)


def test_default_counts_are_halves() -> None:
    assert label_efficiency.default_counts(1000) == (62, 125, 250, 500, 1.0)
    assert len(label_efficiency.default_counts(10**6)) == label_efficiency.STEPS
    assert label_efficiency.default_counts(60) == (1.0,)


def test_the_command_writes_a_table_and_a_page(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["labels", "test_resnet", "--data", str(data), "--size", "32", "--findings", "Effusion", "--threads", "1"]
    out = tmp_path / "结果"
    capsys.readouterr()
    assert cli.main([*words, "--counts", "100", "200", "--labels", "1", "--seeds", "2", "--out", str(out)]) == 0
    assert has_facts(capsys.readouterr().out, "at least 4", 3)
    found = json.loads((out / "labels.json").read_text(encoding="utf-8"))
    assert [one["subsets"] for one in found["macro"]["counts"]] == [2, 2, 1] and "--counts 100 200" in found["command"]
    page = (out / "labels.html").read_text(encoding="utf-8")
    assert "Effusion" in page and found["macro"]["reason"] in page
    said = line([*words, "--counts", "1", "--forecast", "1", "20"], capsys)
    assert has_facts(said, "--counts 1", "--forecast 1", "--forecast 20", 10)
