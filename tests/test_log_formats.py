"""Log lines in the form that Paddle-CheXNet prints."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ribcage import cli, metrics
from ribcage.data import dataset_folder
from ribcage.data.label_policy import Policy
from ribcage.data.loader import Loader
from ribcage.imaging import augment
from ribcage.methods.supervised import Supervised
from ribcage.models.backbone import Backbone
from ribcage.training import optim, trainer
from ribcage.training.log_formats import PaddleLines

# A line of the original, shortened: "step  10/614 - loss: 0.1650 - AUROC_Atelectasis: 0.5343 - … - AUROC_avg: 0.5401 - 3s/step"
NUMBER = r"(?:\d\.\d{4}|nan)"
FORM = rf"step +(\d+)/(\d+) - loss: (\d+\.\d{{4}})((?: - AUROC_\w+: {NUMBER})+) - (\d+m?s)/step"
ORIGINAL = "step  10/614 - loss: 0.1650 - AUROC_Atelectasis: 0.5343 - AUROC_Pleural_Thickening: 0.5663 - AUROC_avg: 0.5401 - 3s/step"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("数据 set") / "phantom"
    assert cli.main(["import", "phantom", "--out", str(folder), "--images", "96", "--size", "32"]) == 0
    return folder


def made(data: Path, batch: int = 4, epochs: int = 1, policy: str = "ignore", **options: Any) -> trainer.Trainer:
    torch.manual_seed(0)
    opened = dataset_folder.open(data)
    method = Supervised(Backbone("test_resnet"), opened.index.findings)
    loader = Loader([opened], [augment.plain_view(32)], batch=batch, threads=1, policy=Policy.parse(policy))
    rates = optim.Rates(1e-3, epochs * len(loader))
    device = torch.device("cpu")
    return trainer.Trainer(method, loader, optim.optimizer(method), rates, epochs=epochs, device=device, **options)


def printed(run: trainer.Trainer, capsys: pytest.CaptureFixture[str]) -> list[str]:
    lines = PaddleLines(run)
    for log in run.fit():
        lines.show(log)
    return capsys.readouterr().out.splitlines()


def test_the_form_is_that_of_the_original() -> None:
    assert re.fullmatch(FORM, ORIGINAL)


def test_a_line_every_ten_steps_and_at_the_end_of_an_epoch(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = made(data, epochs=2)
    said = printed(run, capsys)
    assert [line for line in said if line.startswith("Epoch")] == ["Epoch 1/2", "Epoch 2/2"]
    steps = [re.fullmatch(FORM, line) for line in said if not line.startswith("Epoch")]
    assert [(int(step[1]), int(step[2])) for step in steps if step] == [(10, 24), (20, 24), (24, 24)] * 2
    assert steps[0] is not None
    names = re.findall(r"AUROC_(\w+):", steps[0][4])
    assert names == [*run.loader.findings, "avg"] and all(" " not in name for name in names)


def test_numbers_are_of_the_epochs_images_so_far(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, lines = made(data), None
    lines, logits, labels = PaddleLines(run), [], []
    for log in run.fit():
        said, known = run.method.outputs[-1]  # type: ignore[union-attr, index]
        logits.append(said)
        labels.append(known)
        lines.show(log)
        if log.step == 20:
            break
    last = capsys.readouterr().out.splitlines()[-1]
    expected = metrics.auroc(np.concatenate(logits), np.concatenate(labels))
    assert f"AUROC_avg: {np.nanmean(expected):.4f}" in last
    assert f"AUROC_{run.loader.findings[0]}: {expected[0]:.4f}" in last


def test_a_batch_computed_in_parts_counts_whole(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = made(data, batch=48, accumulate=3)
    lines = PaddleLines(run)
    for log in run.fit():
        lines.show(log)
    assert sum(len(labels) for _, labels in lines.outputs) == 96


def test_smoothed_labels_do_not_count(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = printed(made(data, batch=48, policy="ones+lsr"), capsys)
    assert re.fullmatch(FORM, said[-1])
