"""Bundles at remote addresses, on a real S3 server on loopback."""

import json
from pathlib import Path

import pandas as pd
import pytest
from refusals import has_facts
from remote_servers import FaultProxy

from ribcage import cli
from ribcage.bundle.init import initial_bundle
from ribcage.bundle.io import load_bundle
from ribcage.runtime.remote import objects

RUN = "s3://xray/runs/nih"


@pytest.fixture
def run(s3: FaultProxy, nih_run: Path) -> str:
    """The address of the run."""
    names = [file.name for file in (nih_run / "run" / "bundle").iterdir()]
    objects.upload_folder(nih_run / "run" / "bundle", f"{RUN}/bundle", names, "model.json")
    return RUN


def test_predictions_of_a_remote_bundle_are_those_of_the_local_one(run: str, nih_run: Path, tmp_path: Path) -> None:
    image = sorted((nih_run / "download").rglob("*.png"))[0]
    for name, model in (("remote", f"{run}/bundle"), ("local", str(nih_run / "run"))):
        assert cli.main(["predict", model, str(image), "--out", str(tmp_path / f"{name}.csv")]) == 0
    assert (tmp_path / "remote.csv").read_bytes() == (tmp_path / "local.csv").read_bytes()


def test_a_remote_bundle_keeps_the_history_of_its_tests(run: str, nih_run: Path, tmp_path: Path) -> None:
    line = ["evaluate", run, "--data", str(nih_run / "data"), "--resamples", "5", "--out"]
    for number in (1, 2):
        assert cli.main([*line, str(tmp_path / "out")]) == 0
        history = json.loads(objects.read_bytes(f"{RUN}/bundle/tests.json"))
        assert [one["number"] for one in history["tests"]] == list(range(1, number + 1))
    assert "nih" in objects.read_bytes(f"{RUN}/bundle/README.md").decode()
    assert len(pd.read_parquet(tmp_path / "out" / "predictions.parquet"))
    assert not (nih_run / "run" / "bundle" / "tests.json").exists() and not Path("s3:").exists()


def test_an_export_of_a_remote_model_needs_an_output(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["export", run]) == 2
    assert has_facts(capsys.readouterr().err, "--out")


def test_a_remote_bundle_gives_initial_weights(run: str) -> None:
    assert initial_bundle(run) == load_bundle(run).folder


def test_half_a_remote_bundle_is_refused(run: str, nih_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = (nih_run / "run" / "bundle" / "model.safetensors").read_bytes()
    objects.write_bytes(weights[:-1] + bytes([weights[-1] ^ 1]), f"{RUN}/bundle/model.safetensors")
    assert cli.main(["predict", run, "x.png"]) == 2
    assert has_facts(capsys.readouterr().err, "model.safetensors", "damaged")
    objects.remove(f"{RUN}/bundle/model.json")
    assert cli.main(["predict", run, "x.png"]) == 1
    assert has_facts(capsys.readouterr().err, RUN, "model.json")


def test_a_file_that_left_the_remote_bundle_leaves_the_copy(run: str) -> None:
    objects.write_bytes(b"old", f"{RUN}/bundle/ood.npz.old")
    assert (load_bundle(run).folder / "ood.npz.old").exists()
    objects.remove(f"{RUN}/bundle/ood.npz.old")
    assert not (load_bundle(run).folder / "ood.npz.old").exists()
