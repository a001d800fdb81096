"""Trackers: each writes a run to a local folder with its real package, and what it wrote is read back."""

import json
import os
import re
import struct
import sys
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import trees

from ribcage import cli
from ribcage.reports import tracked_images
from ribcage.training import trackers
from ribcage.training.metrics_log import TrackedNumbers
from ribcage.training.trackers.base import TrackedImage, TrackedRun
from ribcage.training.trackers.mlflow import MLflow
from ribcage.training.trackers.tensorboard import TensorBoard
from ribcage.training.trackers.wandb import WeightsAndBiases

SHADES = [TrackedImage(np.full((4, 6), shade, np.uint8), f"shade {shade}") for shade in (10, 200)]
VARIABLES = ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "WANDB_MODE", "WANDB_PROJECT")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrackedRun:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    folder = tmp_path / "数据 run"
    folder.mkdir()
    return TrackedRun("0123456789abcdef", "run", folder, {"command": "pretrain", "lr": 0.1, "clip": None})


def line(step: int, **numbers: float) -> TrackedNumbers:
    return TrackedNumbers(step, {name.replace("_", "/", 1): value for name, value in numbers.items()}, 1e9 + step)


def track(kind: Any, run: TrackedRun) -> None:
    """Three steps and a validation, stopped; then resumed from step 2 with another learning rate, to the end."""
    first = kind(run)
    first.log([line(1, train_loss=4.0), line(2, train_loss=2.0), line(2, validation_auroc=float("nan"))])
    first.log([line(3, train_loss=8.0)])
    first.close("stopped")
    second = kind(replace(run, step=2, options={**run.options, "lr": 0.05}))
    second.log([line(3, train_loss=1.0), line(4, train_loss=0.5), line(4, validation_auroc=0.75)])
    second.show("neighbours", SHADES, 4)
    second.close("finished")


def test_tensorboard_has_the_numbers_the_options_and_the_images(run: TrackedRun) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    track(TensorBoard, run)
    found = EventAccumulator(str(run.folder / "tensorboard"), {"images": 0, "tensors": 0, "scalars": 0})
    found.Reload()
    assert [(one.step, one.value, one.wall_time) for one in found.Scalars("train/loss")] == [
        (1, 4.0, 1e9 + 1), (2, 2.0, 1e9 + 2), (3, 1.0, 1e9 + 3), (4, 0.5, 1e9 + 4),
    ]  # fmt: skip
    validations = found.Scalars("validation/auroc")
    assert (
        [one.step for one in validations] == [2, 4] and np.isnan(validations[0].value) and validations[1].value == 0.75
    )
    texts = [one.tensor_proto.string_val[0].decode() for one in found.Tensors("options/text_summary")]
    assert ["| lr | 0.1 |" in texts[0], "| lr | 0.05 |" in texts[1]] == [True, True]
    captions = found.Tensors("neighbours/captions/text_summary")[0].tensor_proto.string_val[0].decode()
    assert all(image.caption in captions for image in SHADES)
    assert found.Tags()["images"] == ["neighbours/00", "neighbours/01"]
    import cv2

    for name, image in zip(found.Tags()["images"], SHADES, strict=True):
        (one,) = found.Images(name)
        decoded = cv2.imdecode(np.frombuffer(one.encoded_image_string, np.uint8), cv2.IMREAD_GRAYSCALE)
        assert one.step == 4 and (decoded == image.pixels).all()


def records(file: Path) -> Iterator[Any]:
    """The records of an offline run of W&B: protobufs in blocks of 32 KiB, as in LevelDB's log, after 7 bytes."""
    from wandb.proto import wandb_internal_pb2

    data, at, parts = file.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if (left := (1 << 15) - at % (1 << 15)) < 7:  # a block ends with zeros
            at += left
            continue
        size, kind = struct.unpack("<HB", data[at + 4 : at + 7])
        parts += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # a whole record, or the last part of one
            record = wandb_internal_pb2.Record()
            record.ParseFromString(parts)
            parts = b""
            yield record


def named(items: Any) -> dict[str, Any]:
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}


@pytest.mark.integration
def test_wandb_has_the_numbers_the_options_and_the_images_and_nothing_of_the_machine(run: TrackedRun) -> None:
    import wandb

    track(WeightsAndBiases, run)
    wandb.teardown()  # as at the end of a process: waits until its own process has written all
    files = sorted(
        (run.folder / "wandb").glob(f"offline-run-*/run-{run.id}.wandb"), key=lambda file: file.stat().st_ctime_ns
    )
    assert len(files) == 2
    rows, rates, exits = dict[int, dict[str, Any]](), list[float](), list[int]()
    for file in files:
        for record in records(file):
            kind = record.WhichOneof("record_type")
            if kind == "history":
                values = named(record.history.item)
                rows[values["_step"]] = rows.get(values["_step"], {}) | values
            if kind == "run":
                assert (record.run.run_id, record.run.display_name, record.run.host) == (run.id, "run", "")
                rates += [value for name, value in named(record.run.config.update).items() if name == "lr"]
            if kind == "exit":
                exits.append(record.exit.exit_code)
    assert {step: row["train/loss"] for step, row in rows.items()} == {1: 4.0, 2: 2.0, 3: 1.0, 4: 0.5}
    assert rows[4]["validation/auroc"] == 0.75 and (rates, exits) == ([0.1, 0.05], [1, 0])
    assert rows[4]["neighbours/captions"] == [image.caption for image in SHADES]
    assert len(list(files[1].parent.glob("files/media/images/*.png"))) == len(SHADES)
    sent = b"".join(file.read_bytes() for file in files)
    for text in (os.uname().nodename + "/", str(run.folder), str(Path.cwd()), sys.executable):
        assert text.encode() not in sent
    assert not list((run.folder / "wandb").rglob("wandb-metadata.json"))


@pytest.mark.integration
def test_mlflow_has_the_numbers_the_options_and_the_images(run: TrackedRun) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow uses parts of SQLAlchemy that will leave
        track(MLflow, run)
        from mlflow import MlflowClient

        client = MlflowClient(tracking_uri=f"sqlite:///{run.folder / 'mlflow.db'}")
        experiment = client.get_experiment_by_name("ribcage")
        assert experiment is not None
        (found,) = client.search_runs([experiment.experiment_id])
        history = client.get_metric_history(found.info.run_id, "train/loss")
        validations = client.get_metric_history(found.info.run_id, "validation/auroc")
    assert (found.info.status, found.info.run_name, found.data.params["lr"]) == ("FINISHED", "run", "0.1")
    assert found.data.tags == {"ribcage.run": run.id, "mlflow.runName": "run", "lr from step 2": "0.05"} | {
        name: value for name, value in found.data.tags.items() if name == "mlflow.loggedImages"
    }
    assert sorted((one.step, one.value) for one in history) == [(1, 4.0), (2, 2.0), (3, 1.0), (3, 8.0), (4, 0.5)]
    assert [one.step for one in validations] == [2, 4] and np.isnan(validations[0].value)
    images = list((run.folder / "mlflow-artifacts").rglob("*.png"))
    assert sorted(re.findall(r"neighbours.\d\d", " ".join(map(str, images)))) == ["neighbours~00", "neighbours~01"]
    captions = next((run.folder / "mlflow-artifacts").rglob("neighbours.txt")).read_text()
    assert all(image.caption in captions for image in SHADES)


def test_the_environment_says_whether_a_tracker_is_local(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    assert TensorBoard.is_local() and MLflow.is_local() and WeightsAndBiases.is_local()
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://example.org")
    assert not MLflow.is_local() and not WeightsAndBiases.is_local()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///runs.db")
    assert MLflow.is_local()


def test_all_files_of_the_folder_are_trackers() -> None:
    assert {"mlflow", "tensorboard", "wandb"} <= set(trackers.tracker_names())
    for name in ("mlflow", "tensorboard", "wandb"):
        assert trackers.load_tracker(name).packages


@pytest.mark.parametrize("command", ["finetune", "localise", "distil", "pretrain"])
def test_a_tracker_that_cannot_be_used_is_refused_before_anything_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    words = [command, *["moco"] * (command == "pretrain"), "--data", "absent", "--out", str(tmp_path / "run")]
    words += ["--model", "test_resnet", *["--teacher", "absent"] * (command == "distil")]
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert cli.main([*words, "--track", "tensorboard", "wandb"]) != 0
    assert "pip install 'ribcage[wandb]'" in capsys.readouterr().err
    assert cli.main([*words, "--track", "tensorbord"]) != 0
    assert "'tensorbord'. Did you mean 'tensorboard'?" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def logged_errors(run: Path) -> tuple[list[np.ndarray], list[str]]:
    """The worst errors in the TensorBoard files of a run: images (H, W, 3), blue first, and their captions."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(run / "tensorboard"), {"images": 0, "tensors": 0})
    found.Reload()
    names = [name for name in found.Tags()["images"] if name.startswith("worst_errors/")]
    data = [np.frombuffer(found.Images(name)[0].encoded_image_string, np.uint8) for name in names]
    (one,) = found.Tensors("worst_errors/captions/text_summary")
    captions = one.tensor_proto.string_val[0].decode().splitlines()
    assert 1 <= len(names) == len(captions) <= 8
    return [cv2.imdecode(each, cv2.IMREAD_COLOR) for each in data], captions


def test_fine_tuning_logs_the_worst_errors_without_patient_data(tmp_path: Path) -> None:
    data, out = str(tmp_path / "data"), str(tmp_path / "run")
    assert cli.main(["import", "phantom", "--out", data, "--images", "120", "--size", "32"]) == 0
    small = ["--model", "test_resnet", "--size", "32", "--epochs", "1", "--batch", "32", "--threads", "1"]
    findings = ["--findings", "Infiltration", "Effusion"]
    assert cli.main(["finetune", "--data", data, "--out", out, *small, *findings, "--track", "tensorboard"]) == 0
    images, captions = logged_errors(tmp_path / "run")
    shown = re.compile(r"\d\. (Infiltration|Effusion): \S* ?\d+ % \(false (negative|positive)\)")
    assert all(shown.fullmatch(caption) for caption in captions), captions
    assert all(image.shape[:2] == (32, 32) for image in images)


@pytest.mark.slow
def test_training_a_detector_logs_the_worst_errors_with_their_boxes(tmp_path: Path) -> None:
    data, out = str(tmp_path / "data"), str(tmp_path / "run")
    assert cli.main(["import", "rsna", str(trees.rsna(tmp_path / "rsna")), "--out", data, "--size", "48"]) == 0
    small = ["--model", "test_resnet", "--size", "64", "--epochs", "1", "--batch", "4", "--threads", "1"]
    small += ["--head-width", "16", "--head-depth", "1"]
    assert cli.main(["localise", "--data", data, "--out", out, *small, "--track", "tensorboard"]) == 0
    images, captions = logged_errors(tmp_path / "run")
    shown = re.compile(r"\d\. Lung Opacity, size \d+ %: .* \(false (negative|positive)\)")
    assert all(shown.fullmatch(caption) for caption in captions), captions
    assert (images[0] == tracked_images.ORANGE[::-1]).all(axis=2).any()
