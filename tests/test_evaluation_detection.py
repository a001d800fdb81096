"""Evaluation of detectors: every number with its interval, baselines beside it, and a page with the worst errors."""

import json
import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trees
from dataset_folders import make_store
from models import trained
from refusals import has_facts
from test_reports_classification import CONTEXT

from ribcage import cli
from ribcage.data import dataset_folder
from ribcage.data.collection import Datasets
from ribcage.data.dataset_folder import DatasetFolder
from ribcage.data.label_policy import Policy
from ribcage.evaluation import detection_baselines, detection_errors
from ribcage.evaluation.detection import detection_subgroups, evaluate_detector
from ribcage.evaluation.detection_baselines import BoxBaselineData
from ribcage.evaluation.labelled_detections import LabelledDetections, labelled_detections
from ribcage.evaluation.notes import detection_warnings
from ribcage.inference import detections
from ribcage.inference.detections import Detections
from ribcage.metrics.box_precision import box_average_precision
from ribcage.metrics.detection_evaluation import DetectionEvaluation
from ribcage.metrics.evaluation_file import evaluation_json, read_evaluation, write_evaluation
from ribcage.metrics.image_precision import best_score_threshold
from ribcage.reports.detection import box_subgroup_table, detection_page
from ribcage.reports.detection_errors import detection_figures

IGNORE = Policy()
COUNT = 300


@pytest.fixture(scope="module")
def data_set(tmp_path_factory: pytest.TempPathFactory) -> DatasetFolder:
    """300 images of 48 px; every third has a Mass at 10, 8 of 20 × 16."""
    return make_store(tmp_path_factory.mktemp("boxes"), COUNT)


def detector(data_set: DatasetFolder) -> Detections:
    """Finds two boxes of three, most of them early, and marks what is not there."""
    chance = np.random.default_rng(0)
    rows = np.arange(COUNT)
    true = detections.truth(Datasets.of([data_set]), rows, "Mass")
    seen = chance.random(len(true)) < 0.7
    right = true.boxes[seen] + chance.normal(0, 1.5, (seen.sum(), 4))
    false = chance.integers(0, 25, (600, 4)) + np.array([0, 0, 12, 12])
    false[:, 2:] = np.maximum(false[:, 2:], false[:, :2] + 4)
    scores = np.concatenate([chance.beta(5, 3, len(right)), chance.beta(2, 6, len(false))])
    images = np.concatenate([true.images[seen], chance.integers(0, COUNT, len(false))])
    found = np.column_stack([images, np.zeros(len(images)), scores, np.concatenate([right, false])])
    return detections.detections_from(
        ("Mass", "Edema"), detections.detection_context(Datasets.of([data_set]), rows), found
    )


@pytest.fixture(scope="module")
def data(data_set: DatasetFolder) -> LabelledDetections:
    return labelled_detections(detector(data_set), Datasets.of([data_set]), np.arange(COUNT), IGNORE, [0.4, None])


@pytest.fixture(scope="module")
def evaluation(data: LabelledDetections, data_set: DatasetFolder) -> DetectionEvaluation:
    fitting = BoxBaselineData.of("150 train images", Datasets.of([data_set]), np.arange(0, COUNT, 2), data.findings)
    found = evaluate_detector(data, fitting=fitting, resamples=60)
    found = replace(found, context=replace(CONTEXT, not_tested=("Edema",)))
    return replace(found, warnings=detection_warnings(found))


@pytest.fixture(scope="module")
def result(evaluation: DetectionEvaluation) -> dict[str, Any]:
    return evaluation_json(evaluation)


@pytest.fixture(scope="module")
def text(evaluation: DetectionEvaluation, data: LabelledDetections, data_set: DatasetFolder) -> str:
    return detection_page(evaluation, data, detection_figures(data, [data_set], 8))


# ---- the numbers


def test_what_nobody_drew_is_left_out(
    data: LabelledDetections, data_set: DatasetFolder, result: dict[str, Any]
) -> None:
    labels, drawn = data_set.index.table["Mass"].to_numpy(), np.arange(COUNT) % 3 == 0
    known = drawn | (labels == 0)
    assert data.findings == ("Mass",) and np.array_equal(data.boxes[0].known, known)
    row = result["findings"][0]
    assert (row["n"], row["positives"], row["boxes"], row["left_out"]) == (known.sum(), 100, 100, (~known).sum())
    assert row["left_out"] > 50 and f"Mass ({row['left_out']})" in " ".join(result["notes"])


def test_numbers_are_those_of_the_metrics(data: LabelledDetections, result: dict[str, Any]) -> None:
    boxes, row = data.boxes[0], result["findings"][0]
    values = box_average_precision(boxes.found, boxes.true, COUNT)
    assert row["map"]["value"] == pytest.approx(values.mean(), abs=1e-12)
    assert row["ap50"]["value"] == pytest.approx(values[2], abs=1e-12)
    assert result["macro"]["map"]["value"] == row["map"]["value"] and result["macro"]["map"]["findings"] == 1
    for name in ("map", "map_positives", "centre_at_1", "overlap_mean", "kaggle"):
        assert row[name]["low"] < row[name]["value"] < row[name]["high"], name
    json.dumps(result, allow_nan=False)


def test_numbers_come_back_from_their_file(evaluation: DetectionEvaluation, tmp_path: Path) -> None:
    write_evaluation(evaluation, tmp_path / "metrics.json")
    assert read_evaluation(tmp_path / "metrics.json") == evaluation


def test_a_detector_beats_the_baseline(result: dict[str, Any]) -> None:
    beside, row = result["baselines"], result["findings"][0]
    assert beside["mean_box"][0]["box"] == pytest.approx([10 / 48, 8 / 48, 30 / 48, 24 / 48])
    for name in detection_baselines.BASELINE:
        assert row[name]["value"] > beside["shuffled"]["findings"][0][name]["high"], name
    #  here every true box is the same: the mean box finds all of them, but knows no image from another
    assert beside["mean_box"][0]["map_positives"]["value"] == pytest.approx(1)
    share = 100 / row["n"]
    assert share * 0.8 < beside["mean_box"][0]["map"]["value"] < share * 1.6


def test_a_subgroup_is_compared_with_all_others(data: LabelledDetections, evaluation: DetectionEvaluation) -> None:
    half = replace(data, about=data.about.assign(sex=np.where(np.arange(COUNT) % 2, "F", "M")))
    women, men = detection_subgroups(half, resamples=60, seed=0)[:2]
    assert women.gap is not None and men.gap is not None
    for name in detection_baselines.BASELINE:
        one, other = women.gap.metrics[name], men.gap.metrics[name]
        assert one.value == pytest.approx((women.macro[name].value or 0) - (men.macro[name].value or 0))
        assert (one.low, one.high) == pytest.approx((-(other.high or 0), -(other.low or 0)))
        assert one.low < one.value < one.high and one.findings == 1  # type: ignore[operator]
    assert women.gap.boxes == men.boxes and women.gap.images == men.images
    shown = str(box_subgroup_table(replace(evaluation, subgroups=(women, men))).rows[0][-1])
    assert f"{women.gap.metrics['map'].high:+.3f}".replace("-", "−") in shown


def test_a_missing_source_of_the_baseline_is_noted(data: LabelledDetections) -> None:
    alone = replace(evaluate_detector(data, resamples=2), context=CONTEXT)
    assert alone.baselines.mean_box is None
    shown = detection_page(alone, data)
    mean_box = next(row for row in re.findall(r"<tr>(.*?)</tr>", shown) if "mean box" in row)
    assert re.findall(r"<td[^>]*>([^<]*)</td>", mean_box)[2:] == ["–"] * 3


def test_sizes_count_every_box_once(data: LabelledDetections, result: dict[str, Any]) -> None:
    sizes = result["findings"][0]["sizes"]
    assert sum(each["boxes"] for each in sizes) == 100
    found = sum(each["found"] for each in sizes)
    assert found == pytest.approx(100 * result["findings"][0]["centre_at_1"]["value"])
    assert sizes[0]["low"] <= np.sqrt(20 * 16) / 48 <= sizes[-1]["high"]


def test_without_a_score_threshold_no_number_needs_one(data: LabelledDetections) -> None:
    found = evaluate_detector(replace(data, thresholds=None), resamples=2)
    assert "kaggle" not in found.macro and "score threshold" in " ".join(found.notes)


def test_peers_choose_their_score_threshold_on_the_tested_images(
    data: LabelledDetections, result: dict[str, Any]
) -> None:
    found = evaluate_detector(data, protocol="peers", resamples=2)
    boxes = data.boxes[0]
    cut = best_score_threshold(boxes.found, boxes.true, COUNT)[0]
    assert found.findings[0].threshold == cut != 0.4
    assert found.findings[0].metrics["kaggle"].value > result["findings"][0]["kaggle"]["value"]  # type: ignore[operator]
    assert "peers" in detection_warnings(found)[0]


def test_data_without_boxes_of_what_is_found_is_refused(data_set: DatasetFolder) -> None:
    found = replace(detector(data_set), findings=("Edema",))
    with pytest.raises(ValueError, match=r"Edema.*Mass"):
        labelled_detections(found, Datasets.of([data_set]), np.arange(COUNT), IGNORE)


# ---- errors


def test_the_worst_misses_are_never_found_or_after_most_false_positives(data: LabelledDetections) -> None:
    errors, boxes = detection_errors.missed_boxes(data, 60), data.boxes[0]
    assert len(errors) > 20 and len({error.image for error in errors}) == len(errors)
    late = [error.false for error in errors]
    assert late == sorted(late, reverse=True) and late[0] == np.inf and min(late) > 0.3
    for error in errors:
        own = boxes.found.scores[boxes.found.images == error.image]
        assert error.score == -np.inf or error.score in own
        assert error.score < data.shown[0]


def test_the_worst_false_positives_have_the_highest_scores(data: LabelledDetections) -> None:
    errors, boxes = detection_errors.false_positives(data, 5), data.boxes[0]
    assert [error.score for error in errors] == sorted((error.score for error in errors), reverse=True)
    positive = set(boxes.true.images.tolist())
    healthy = ~np.isin(boxes.found.images, list(positive))
    assert errors[0].score >= boxes.found.scores[healthy].max()
    for error in errors:
        x, y = (error.box[:2] + error.box[2:]) / 2
        assert error.image not in positive or not (10 <= x <= 30 and 8 <= y <= 24)


def test_a_perfect_detector_has_no_errors(data: LabelledDetections) -> None:
    true = data.boxes[0].true
    perfect = replace(data, boxes=(replace(data.boxes[0], found=true),))
    assert detection_errors.missed_boxes(perfect, 5) == [] and detection_errors.false_positives(perfect, 5) == []
    assert evaluate_detector(perfect, resamples=2).macro["map"].value == pytest.approx(1)


# ---- the page


def test_the_page_needs_nothing_from_outside_and_shows_what_was_measured(text: str, result: dict[str, Any]) -> None:
    assert "<script" not in text
    assert set(re.findall(r"""(?:src|href)=["']?(.{5})""", text)) == {"data:"}
    row = result["findings"][0]
    for name in ("map", "map_skipping", "ap75_positives", "kaggle"):
        assert f"{row[name]['value']:.3f} ({row[name]['low']:.3f}–{row[name]['high']:.3f})" in text
    for name in ("centre_at_0.125", "overlap_at_8", "centre_mean"):
        assert (
            f"<td>{row[name]['value']:.3f}</td>" in text and f"{row[name]['low']:.3f}–{row[name]['high']:.3f}" in text
        )
    assert "&lt;nih&gt;" in text and "Edema" in text


def test_the_page_shows_true_and_found_boxes(text: str) -> None:
    assert text.count("<figure>") > 8
    figures = [ET.fromstring(svg) for svg in re.findall(r"<svg viewBox=.*?</svg>", text)]
    true = [group for svg in figures for group in svg if group.get("stroke") == "#ffb347"]
    other = [group for svg in figures for group in svg if group.get("stroke") != "#ffb347"]
    assert len(true) >= 8 and other
    sides = [
        tuple(float(rect.get(name, "")) for name in ("x", "y", "width", "height")) for group in true for rect in group
    ]
    assert set(sides) == {(10.0, 8.0, 20.0, 16.0)}
    assert ": score 0." in text


def test_plots_are_drawings(text: str) -> None:
    drawn = [ET.fromstring(svg) for svg in re.findall(r'<svg class="plot".*?</svg>', text)]
    assert [svg.get("aria-label") for svg in drawn] == ["FROC", "Precision–recall", "Sizes", "Scores"]
    assert all(len(svg.findall("path")) > 4 for svg in drawn)
    assert "nan" not in text.lower().replace("nantes", "")


# ---- the command


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """RSNA's images, and a detector that has learnt little."""
    root = tmp_path_factory.mktemp("运行 runs")
    files = trees.rsna(root / "rsna")
    assert cli.main(["import", "rsna", str(files), "--out", str(root / "data"), "--size", "48"]) == 0
    words = [
        "--size",
        "64",
        "--epochs",
        "1",
        "--batch",
        "4",
        "--threads",
        "1",
        "--precision",
        "float32",
        "--augment",
        "plain",
        "--head-width",
        "16",
        "--head-depth",
        "1",
    ]
    words += [
        "--init",
        str(trained(root / "first", dataset_folder.open(root / "data"), side=64)),
        "--out",
        str(root / "run"),
    ]
    assert cli.main(["localise", "--data", str(root / "data"), *words]) == 0
    return root


def asked(folder: Path, split: str, *words: str) -> int:
    return cli.main(
        ["evaluate", str(folder / "run"), "--data", str(folder / "data"), "--split", split, "--resamples", "20", *words]
    )


def test_the_command_tests_a_detector(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert asked(folder, "test", "--out", str(tmp_path)) == 0, capsys.readouterr().err
    assert "mAP" in capsys.readouterr().out
    result = json.loads((tmp_path / "metrics.json").read_text(encoding="utf-8"))
    found = detections.read_detections(tmp_path / "detections.parquet")
    opened = dataset_folder.open(folder / "data")
    rows = Datasets.of([opened]).rows_of("test")
    assert result["kind"] == "boxes" and result["images"] == len(found.images) == len(rows)
    assert result["findings"][0]["boxes"] == len(detections.truth(Datasets.of([opened]), rows, "Lung_Opacity")) > 0
    assert result["findings"][0]["found"] == len(found.boxes) > 0
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert has_facts(page, "train images", "same folders") and "boxes of Lung Opacity" in page


def test_a_detector_is_not_tested_on_what_it_learnt_from(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert asked(folder, "train", "--out", str(tmp_path)) == 2
    assert "--allow-leak" in capsys.readouterr().err and not list(tmp_path.iterdir())
    assert asked(folder, "train", "--allow-leak", "--out", str(tmp_path)) == 0
    assert "leakage" in (tmp_path / "index.html").read_text(encoding="utf-8")


def test_options_that_do_not_fit_a_detector_are_named_at_once(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert asked(folder, "test", "--ten-crop", "--rule", "f1", "--table", "chexnet") == 2
    said = capsys.readouterr().err
    assert "--ten-crop" in said and "--rule f1" in said and "--table chexnet" in said
