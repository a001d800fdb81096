"""ribcage localise: frozen and trainable backbones, resumed runs, one and two processes; prediction of boxes."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import processes
import pytest
import torch
import trees
from models import trained
from refusals import has_facts
from safetensors.torch import load_file
from trainings import equal, stopped

import ribcage
from ribcage import cli
from ribcage.bundle.init import initial_provenance
from ribcage.bundle.io import find_bundle, load_bundle, load_classifier, load_detector
from ribcage.bundle.spec import DetectorSpec
from ribcage.data import dataset_folder
from ribcage.data.collection import Datasets
from ribcage.evaluation.detector_validation import DetectorValidation
from ribcage.inference import cam_detector, detections, predictions
from ribcage.inference.file_predictions import CONTEXT_COLUMNS
from ribcage.methods.detect import Detect
from ribcage.runtime.files import only_writer
from ribcage.training import checkpoint, feature_cache

FINDING = "Lung_Opacity"
SMALL = [
    "--size",
    "64",
    "--epochs",
    "2",
    "--batch",
    "4",
    "--threads",
    "1",
    "--precision",
    "float32",
    "--augment",
    "plain",
]
HEADS = {"fcos": ["--head-width", "16", "--head-depth", "1"]}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """RSNA's download, of images higher than wide."""
    return trees.rsna(tmp_path_factory.mktemp("下载") / "rsna")


@pytest.fixture(scope="module")
def data(files: Path) -> Path:
    assert cli.main(["import", "rsna", str(files), "--out", str(files.parent / "data"), "--size", "48"]) == 0
    return files.parent / "data"


@pytest.fixture(scope="module")
def classifier(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("classifier"), dataset_folder.open(data), (FINDING,), side=64)


def words(data: Path, out: Path, *more: str) -> list[str]:
    return ["localise", "--data", str(data), "--out", str(out), *SMALL, *HEADS["fcos"], *more]


@pytest.fixture(scope="module")
def run(data: Path, classifier: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A detector on the frozen classifier."""
    out = tmp_path_factory.mktemp("运行 runs") / "frozen"
    assert cli.main(words(data, out, "--init", str(classifier), "--adapt", "head")) == 0
    return out


def log(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def test_a_run_leaves_a_detector_that_opens_and_answers(run: Path, data: Path) -> None:
    one, last = load_detector(run), checkpoint.load_checkpoint(run / "checkpoint.pt")
    assert isinstance(one.method, Detect) and not one.method.training and cam_detector.as_detector(one) is one.method
    assert one.spec.findings == (FINDING,) and one.spec.name == "test_resnet" and one.spec.size == (64, 64)
    assert one.spec.detector and one.spec.detector.head == "fcos" and one.spec.detector.options["width"] == 16
    validated = [line["validation"] for line in log(run) if "validation" in line]
    assert len(validated) == 2 and one.spec.metrics["validation"] in validated
    assert max(each["map"] for each in validated) == one.spec.metrics["validation"]["map"]
    if last["standing"]["best_step"] == last["run"]["step"]:
        assert equal(one.method.state_dict(), last["run"]["method"])
    said = detections.detect(
        cam_detector.as_detector(one), Datasets.of([dataset_folder.open(data)]), np.arange(3), model=one.spec, threads=1
    )
    assert len(said.boxes) and said.boxes["score"].between(0, 1).all()
    with pytest.raises(ValueError, match="detector"):
        load_classifier(run)


def test_the_card_of_a_detector_has_its_boxes_and_commands(run: Path) -> None:
    card = (run / "bundle" / "README.md").read_text(encoding="utf-8")
    for part in (
        "# test_resnet: detector for 1 finding",
        "FCOS",
        "width 16",
        "| mean |",
        "load_detector",
        " boxes; ",
    ):
        assert part in card, part


def test_a_frozen_backbone_is_that_of_the_bundle_to_the_bit(run: Path, classifier: Path) -> None:
    was, now = (load_file(one / "bundle" / "model.safetensors") for one in (classifier, run))
    shared = [name for name in was if name in now]
    assert len(shared) > 20 and all(torch.equal(was[name], now[name]) for name in shared)
    assert set(was) - set(now) == {"fc.weight", "fc.bias"}


def test_it_has_seen_what_its_backbone_has_seen(run: Path, classifier: Path, data: Path) -> None:
    seen, before = initial_provenance(str(run)), initial_provenance(str(classifier))
    assert set(before.pixels) <= set(seen.pixels) and len(seen.pixels)
    opened = dataset_folder.open(data)
    assert not set(seen.pixels) & set(opened.fingerprints.pixels[Datasets.of([opened]).rows_of("test")])


def test_going_on_gives_the_same_bits_as_never_stopping(
    run: Path, data: Path, classifier: Path, tmp_path: Path
) -> None:
    asked = words(data, tmp_path / "run", "--init", str(classifier), "--adapt", "head")
    assert stopped(asked, tmp_path / "run", after=2) == 75
    whole = checkpoint.load_checkpoint(run / "checkpoint.pt")
    assert checkpoint.load_checkpoint(tmp_path / "run" / "checkpoint.pt")["run"]["step"] < whole["run"]["step"]
    assert cli.main([*asked, "--resume"]) == 0
    assert equal(checkpoint.load_checkpoint(tmp_path / "run" / "checkpoint.pt")["run"], whole["run"])
    assert equal(*(load_file(one / "bundle" / "model.safetensors") for one in (tmp_path / "run", run)))


def test_maps_that_are_kept_teach_what_fresh_ones_do_and_are_gone_in_the_end(
    run: Path, data: Path, classifier: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """To the rounding of half precision."""
    frozen = ["--init", str(classifier), "--adapt", "head"]
    assert cli.main(words(data, tmp_path / "fresh", *frozen, "--no-cache")) == 0
    assert "not cached" not in capsys.readouterr().out
    kept, fresh = ([line["loss"] for line in log(one) if "loss" in line] for one in (run, tmp_path / "fresh"))
    assert kept == pytest.approx(fresh, rel=5e-3) and kept != fresh
    one, other = (detections_of(run, data, way) for way in (True, False))
    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)
    assert not (run / "features").exists() and not (tmp_path / "fresh" / "features").exists()
    more = ["--augment", "gentle", "--epochs", "1", "--labels", "0.2"]
    assert cli.main(words(data, tmp_path / "varied", *frozen, *more)) == 0
    assert "not cached" in capsys.readouterr().out


def detections_of(run: Path, data: Path, kept: bool) -> np.ndarray:
    """(K, 5) the ten surest boxes of an image, by maps that were kept, or fresh ones."""
    one, opened = load_detector(run), Datasets.of([dataset_folder.open(data)])
    chooses = DetectorValidation(
        lambda: cam_detector.as_detector(one),
        opened,
        np.arange(5),
        one.spec,
        device=torch.device("cpu"),
        batch=3,
        threads=1,
    )
    if kept:
        assert isinstance(one.method, Detect)
        chooses.cached = feature_cache.cache_features(one.method, chooses.loader(), run / "kept", kind="float32")
    chooses()
    feature_cache.discard(run / "kept")
    assert chooses.detections is not None
    found = chooses.detections.boxes[chooses.detections.boxes["image"] == 4].head(10)
    return np.column_stack([found[["x", "y", "width", "height"]].to_numpy(), found["score"] * 100])


@pytest.mark.slow
def test_two_processes_train_what_one_trains(run: Path, data: Path, classifier: Path, tmp_path: Path) -> None:
    asked = words(data, tmp_path / "two", "--init", str(classifier), "--adapt", "head")
    processes.together(processes.command, asked, said=tmp_path / "said")
    steps = [[line["loss"] for line in log(one) if "loss" in line] for one in (tmp_path / "two", run)]
    assert len(steps[1]) == 6 and steps[0] == pytest.approx(steps[1], rel=2e-3)
    assert steps[0][0] == pytest.approx(steps[1][0], rel=1e-5)
    assert set(initial_provenance(str(tmp_path / "two")).pixels) == set(initial_provenance(str(run)).pixels)


def test_a_backbone_that_learns_moves_and_a_detector_is_a_first_weight_too(
    run: Path, data: Path, classifier: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ["--init", str(run), "--labels", "0.5", "--epochs", "1"]
    assert cli.main(words(data, tmp_path / "run", *more)) == 0
    assert "Training on 6 of 12 images" in capsys.readouterr().out
    was, now = (load_file(one / "bundle" / "model.safetensors") for one in (run, tmp_path / "run"))
    assert was.keys() == now.keys()
    moved = [name for name in was if name.endswith("conv1.weight") and not torch.equal(was[name], now[name])]
    assert len(moved) > 2 and not any(name.startswith("detector.") for name in moved)


# ---- boxes from a classifier's saliency maps


def test_a_classifier_becomes_a_detector_by_its_saliency_maps(
    data: Path, classifier: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["localise", "--data", str(data), "--out", str(tmp_path / "cam"), "--init", str(classifier)]
    (tmp_path / "cam").mkdir()
    with only_writer(tmp_path / "cam"):
        assert cli.main([*given, "--head", "cam", "--cam-threshold", "0.4"]) == 1
    assert has_facts(capsys.readouterr().err, tmp_path / "cam") and not list((tmp_path / "cam").iterdir())
    assert cli.main([*given, "--head", "cam", "--cam-threshold", "0.4"]) == 0
    assert "Validation: mAP" in capsys.readouterr().out
    one = load_detector(tmp_path / "cam")
    assert one.spec.detector == DetectorSpec("cam", {"share": 0.4, "keep": 100})
    assert equal(*(load_file(each / "bundle" / "model.safetensors") for each in (tmp_path / "cam", classifier)))
    found = 0
    for _ in range(2):  # what speaks for a finding by these weights speaks against it by those
        said = detections.detect(
            cam_detector.as_detector(one),
            Datasets.of([dataset_folder.open(data)]),
            np.arange(4),
            model=one.spec,
            threads=1,
        )
        found += len(said.boxes)
        one.method.head.weight.data.neg_()
    assert found
    assert "Grad-CAM" in (tmp_path / "cam" / "bundle" / "README.md").read_text(encoding="utf-8")


# ---- what cannot be


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--adapt", "head", "--patience", "2", "--keep", "last", "--nms-iou", "1.5", "--head-width", "0"],
         ["--adapt head needs --init", "--patience", "--nms-iou 1.5", "--head-width 0"]),
        (["--head", "cam"], ["--init"]),
        (["--findings", "Mass"], ["Mass"]),
        (["--export-as", "torchvision"], ["not of detectors"]),
        (["--train", "nothing"], ["'nothing'"]),
        (["--init", "nowhere"], ["nowhere"]),
        (["--head", "ssd"], ["--head"]),
    ],
)  # fmt: skip
def test_what_cannot_be_is_one_line_and_all_of_it(
    data: Path, tmp_path: Path, more: list[str], says: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(words(data, tmp_path / "run", "--model", "test_resnet", *more)) in (1, 2)
    told = capsys.readouterr().err
    assert all(part in told for part in says), told
    assert told.count("\n") == 1 and "bug in Ribcage" not in told and not (tmp_path / "run").exists()


def test_data_without_boxes_teaches_no_detector(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trees.class_folders(tmp_path / "files")
    assert cli.main(["import", "folder", str(tmp_path / "files"), "--out", str(tmp_path / "data")]) == 0
    assert cli.main(words(tmp_path / "data", tmp_path / "run")) == 2
    assert has_facts(capsys.readouterr().err, "no boxes", "split 'train'")


@pytest.mark.parametrize(
    "detector",
    [
        {"head": "fcos", "width": 10**9},
        {"head": "fcos", "width": [16]},
        {"head": "fcos", "colour": 3},
        {"head": "ssd"},
        {"head": "cam", "share": 7},
        {"width": -1},
        {"head": {"a": 1}},
        [],
    ],
)
def test_a_bundle_that_describes_no_detector_does_not_open(run: Path, detector: Any, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(run / "bundle", tmp_path / "bundle")
    file = tmp_path / "bundle" / "model.json"
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | {"detector": detector}))
    with pytest.raises(ValueError, match=r"damaged|built|fit"):
        load_bundle(tmp_path)


# ---- predict


def asked(model: Path, *paths: Path, **options: Any) -> pd.DataFrame:
    import ribcage

    table: pd.DataFrame = ribcage.predict(model, list(paths), **options)
    return table


def test_boxes_of_files_are_those_of_the_imported_images_in_the_files_pixels(
    run: Path, files: Path, data: Path, tmp_path: Path
) -> None:
    opened, one = dataset_folder.open(data), load_detector(run)
    table = asked(run, files / "stage_2_train_images", min_score=0.0, out=tmp_path / "boxes.csv")
    said = detections.detect(
        cam_detector.as_detector(one), Datasets.of([opened]), np.arange(len(opened)), model=one.spec, threads=1
    )
    marks, about = said.box_table(FINDING), said.images
    for place, path in enumerate(about["path"]):
        size = (int(about["file_width"][place]), int(about["file_height"][place]))
        own = detections.original(marks.boxes[marks.images == place], size, opened.size, opened.facts.fit)
        own = own[(own[:, 2:] > own[:, :2]).all(1)]
        found = table[table["path"] == str(files / path)]
        np.testing.assert_allclose(detections.corners(found), own, atol=1e-3)
        assert len(own) and own.max() <= max(size)
    pd.testing.assert_frame_equal(inference_read(tmp_path / "boxes.csv"), table)


def inference_read(file: Path) -> pd.DataFrame:
    texts = dict.fromkeys((*CONTEXT_COLUMNS, "finding", "error"), "str")
    return pd.read_csv(file, dtype=texts).fillna(dict.fromkeys(texts, ""))


def test_probabilities_of_files_are_those_of_the_imported_images(classifier: Path, files: Path, data: Path) -> None:
    opened, one = dataset_folder.open(data), load_classifier(classifier)
    said = predictions.predict(one.method, Datasets.of([opened]), np.arange(len(opened)), model=one.spec, threads=1)
    table = asked(classifier, files / "stage_2_train_images").set_index("path")
    order = [str(files / path) for path in opened.index.table["path"]]
    np.testing.assert_allclose(table.loc[order, FINDING], said.probabilities(one.spec.temperature)[:, 0], atol=1e-6)


def test_one_bad_file_does_not_stop_the_rest(
    run: Path, files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = sorted((files / "stage_2_train_images").iterdir())[:2]
    (tmp_path / "broken.dcm").write_bytes(good[0].read_bytes()[:300])
    (tmp_path / "empty.png").touch()
    table = asked(run, good[0], tmp_path, good[1], tmp_path / "missing.png", min_score=0.999)
    assert table["path"].tolist() == [str(good[0]), str(tmp_path / "broken.dcm"), str(tmp_path / "empty.png"),
                                      str(good[1]), str(tmp_path / "missing.png")]  # fmt: skip
    assert (table["error"] != "").tolist() == [False, True, True, False, True]
    assert (table["finding"] == "").all() and table["score"].isna().all()
    said = capsys.readouterr().out
    assert said.count("no box") == 2 and said.count("! ") == 3 and "3 of 5 files" in said


def test_nothing_that_can_be_read_is_an_error(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty.png").touch()
    (tmp_path / "leer").mkdir()
    assert cli.main(["predict", str(run), str(tmp_path / "empty.png")]) == 2
    assert cli.main(["predict", str(run), str(tmp_path / "leer")]) == 2
    assert cli.main(["predict", str(run), str(tmp_path), "--min-score", "2", "--out", "x.txt"]) == 2
    told = capsys.readouterr().err
    for part in ("No file could be read", "leer", "--min-score 2", "neither .csv nor .parquet"):
        assert part in told


# ---- what readers found


def test_of_a_classifier_that_nothing_calibrates_boxes_of_any_score_are_shown(
    classifier: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its own thresholds were of probabilities, and published ones have no validation at all."""
    bare = tmp_path / "bare"
    shutil.copytree(find_bundle(classifier), bare)
    facts = json.loads((bare / "model.json").read_text(encoding="utf-8"))
    facts |= {"metrics": {}, "thresholds": {"f1": [0.9]}}
    (bare / "model.json").write_text(json.dumps(facts), encoding="utf-8")
    (bare / "SHA256SUMS").unlink()
    blank = tmp_path / "no boxes"
    trees.class_folders(tmp_path / "files")
    assert cli.main(["import", "folder", str(tmp_path / "files"), "--out", str(blank), "--size", "48"]) == 0
    split = next(name for name in dataset_folder.open(blank).index.table["split"] if name != "test")
    out = tmp_path / "cam"
    assert (
        cli.main(
            ["localise", "--data", str(blank), "--val", split, "--init", str(bare), "--head", "cam", "--out", str(out)]
        )
        == 0
    )
    assert "score threshold" in capsys.readouterr().out
    model = load_detector(out).spec
    assert (model.thresholds, model.metrics) == ({}, {})


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--max-detections", "5000"], "--max-detections 5000 .*4096"),
        (["--head-depth", "0"], "--head-depth 0 .*16"),
        (["--findings", "Nothing"], "'Nothing'"),
        (["--head", "cam", "--init", "imagenet"], "--init"),
        (["--head", "cam", "--epochs", "3"], "--epochs"),
    ],
)
def test_what_a_reader_asked_for_is_one_line(
    more: list[str], says: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["localise", "--data", str(data), "--out", str(tmp_path / "run"), *more]
    assert cli.main(given) == 2
    said = capsys.readouterr().err
    assert re.search(says, said) and said.count("\n") == 1


def test_a_diverged_detector_is_reported(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(words(data, tmp_path / "run", "--lr", "1e6", "--clip", "0")) == 2
    said = capsys.readouterr().err
    assert "diverged" in said or "not finite" in said or "nan" in said


def test_a_finding_without_a_score_threshold_is_not_shown(
    run: Path, files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mute = tmp_path / "mute"
    shutil.copytree(find_bundle(run), mute)
    facts = json.loads((mute / "model.json").read_text(encoding="utf-8"))
    (mute / "model.json").write_text(json.dumps({**facts, "thresholds": {"f1": [None]}}), encoding="utf-8")
    (mute / "SHA256SUMS").unlink()
    image = str(next(files.rglob("*.dcm")))
    table = ribcage.predict(mute, [Path(image)])
    assert (table["finding"] == "").all() and "--min-score" in capsys.readouterr().out
    assert (ribcage.predict(mute, [Path(image)], min_score=0.0)["finding"] != "").any()


def test_the_protocol_of_peers_may_choose_a_threshold_above_all_scores(run: Path, data: Path, tmp_path: Path) -> None:
    """A detector that is never right: JSON knows no infinity."""
    report = ribcage.evaluate(
        run, data=(str(data),), split="all", allow_leak=True, protocol="peers", out=tmp_path / "e", resamples=20
    )
    assert all(row["threshold"] is None or row["threshold"] <= 1 for row in report["findings"])
    assert (tmp_path / "e" / "metrics.json").is_file()
