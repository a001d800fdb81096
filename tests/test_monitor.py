"""A collapse is detected from features, and monitoring does not change the training."""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from refusals import has_facts
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from torch.nn import functional as F  # noqa: N812 – everybody's name for it

from ribcage import cli
from ribcage.data import dataset_folder
from ribcage.data.batch import Batch
from ribcage.data.collection import Datasets
from ribcage.data.loader import Loader
from ribcage.imaging.augment import View, strong_view
from ribcage.methods import Method, Step
from ribcage.methods.supervised import Supervised
from ribcage.models.backbone import Backbone
from ribcage.training import monitor, optim, probe, trainer
from ribcage.training.metrics_log import read_log, validations
from ribcage.training.monitor import Labelled, Monitor, effective_rank, feature_std, warning

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dataset_folder.DatasetFolder:
    folder = tmp_path_factory.mktemp("data") / "phantom"
    assert cli.main(["import", "phantom", "--out", str(folder), "--images", "160", "--size", "32"]) == 0
    return dataset_folder.open(folder)


class Agree(Method):
    """Wants all views to look alike and nothing else: the loss is 0 where all images are one point."""

    def views(self, size: tuple[int, int], augment: str = "radiograph") -> list[View]:
        return [strong_view(size)] * 2

    def forward(self, batch: Batch) -> Step:
        one, other = (F.normalize(self.backbone(view).float(), dim=1) for view in batch.views)
        return Step((one - other).square().sum(1).mean())


def in_training(method: Method, data: dataset_folder.DatasetFolder, epochs: int, lr: float) -> trainer.Trainer:
    loader = Loader([data], method.views((32, 32)), batch=32, drop_last=True, threads=1)
    rates = optim.Rates(lr, epochs * len(loader))
    return trainer.Trainer(
        method, loader, optim.optimizer(method), rates, epochs=epochs, device=CPU, precision="float32"
    )


def watching(method: Method, data: dataset_folder.DatasetFolder, **options: Any) -> Monitor:
    rows = Datasets.of([data]).rows_of("train")
    return Monitor(lambda: method, Datasets.of([data]), rows, size=(32, 32), device=CPU, threads=1, **options)


# ---- the numbers


def test_the_rank_is_the_exponential_of_the_entropy_of_the_singular_values() -> None:
    # rows come in pairs of opposite signs, so that the mean is 0 and the singular values are 2, 1 and 1 times a constant
    half = np.diag([2.0, 1.0, 1.0])
    features = np.concatenate([half, -half]).astype(np.float32) + 5
    assert effective_rank(features) == pytest.approx(np.exp(0.5 * np.log(2) + 2 * 0.25 * np.log(4)), rel=1e-6)


def test_the_rank_counts_directions() -> None:
    random = np.random.default_rng(0)
    line = random.normal(size=(50, 1)) * random.normal(size=(1, 8)) + 3
    assert effective_rank(line.astype(np.float32)) == pytest.approx(1, abs=1e-3)
    assert effective_rank(random.normal(size=(4000, 8))) == pytest.approx(8, abs=0.02)
    assert effective_rank(np.full((50, 8), np.float32(0.1))) == 0
    rounded = np.full((50, 8), 1.0) + random.normal(size=(50, 8)) * 1e-8
    assert effective_rank(rounded) == 0  # what float32 cannot tell apart is no direction


def test_the_spread_is_0_for_one_point_and_1_for_directions_scattered_over_the_sphere() -> None:
    random = np.random.default_rng(0)
    assert feature_std(np.full((50, 8), 0.3)) == pytest.approx(0, abs=1e-12)
    assert feature_std(random.normal(size=(4000, 8))) == pytest.approx(1, abs=0.02)
    assert feature_std(random.normal(size=(4000, 8)) * 100) == pytest.approx(1, abs=0.02)  # direction only
    two = np.array([[3.0, 4.0], [0.0, 2.0]])  # directions (.6, .8) and (0, 1): standard deviations .3 and .1
    assert feature_std(two) == pytest.approx(np.sqrt(2) * 0.2)


def test_a_warning_names_the_number_that_fell_and_the_option() -> None:
    assert warning([]) == warning([{"rank": 3.0, "feature_std": 0.06}]) == ""
    assert "rank 1.9 is below 2" in warning([{"rank": 1.9, "feature_std": 0.5}])
    assert "feature_std 0.01 is below 0.02" in warning([{"rank": 50.0, "feature_std": 0.01}])
    fell = warning(
        [{"rank": 20.0, "feature_std": 0.3}, {"rank": 90.0, "feature_std": 0.8}, {"rank": 4.0, "feature_std": 0.03}]
    )
    assert has_facts(fell, "rank 4", "5 %", "(90)", "feature_std 0.03", "5 %")
    assert "--lr" in fell and "\n" not in fell
    assert warning([{"rank": 1.0, "feature_std": 0.5}, {"rank": 9.0, "feature_std": 0.5}]) == ""  # it has recovered


# ---- a method in training


@pytest.mark.parametrize("model", ["test_resnet", "test_vit"])
def test_random_weights_have_not_collapsed(data: dataset_folder.DatasetFolder, model: str) -> None:
    torch.manual_seed(0)
    watch = watching(Agree(Backbone(model, size=(32, 32))), data)
    found = watch()
    assert set(found) == {"rank", "feature_std"} and found["rank"] > 3 and found["feature_std"] > 0.05
    assert watch.warning() == ""


def test_a_run_that_collapses_is_seen(data: dataset_folder.DatasetFolder) -> None:
    torch.manual_seed(0)
    method = Agree(Backbone("test_vit", size=(32, 32)))
    watch = watching(method, data)
    watch()
    losses = [log.loss for log in in_training(method, data, 4, 1e-2).fit()]
    assert losses[-1] < losses[0] / 20  # the loss is delighted
    watch()
    assert has_facts(watch.warning(), "collapsed", "feature_std")


def test_looking_changes_nothing(data: dataset_folder.DatasetFolder) -> None:
    """Two epochs with monitoring in between give the weights of two epochs without, bit for bit."""
    states = []
    for looks in (False, True):
        torch.manual_seed(0)
        method = Supervised(Backbone("test_resnet", drop_path=0.2), data.index.findings, dropout=0.2, mixup=0.2)
        watch = watching(method, data)
        for _ in in_training(method, data, 2, 1e-3).fit():
            if looks:
                watch()
        states.append(copy.deepcopy(method.state_dict()))
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def test_every_part_keeps_its_mode(data: dataset_folder.DatasetFolder) -> None:
    method = Agree(Backbone("test_resnet")).train()
    method.backbone.model.layer1.eval()
    before = {name: part.training for name, part in method.named_modules()}
    watching(method, data)()
    assert {name: part.training for name, part in method.named_modules()} == before
    assert len(set(before.values())) == 2


def test_the_monitored_images_are_the_same_whatever_the_batch(data: dataset_folder.DatasetFolder) -> None:
    method = Agree(Backbone("test_resnet"))
    first, second = watching(method, data, images=40), watching(method, data, images=40, batch=7)
    assert len(first.rows) == 40 and set(first.rows) <= set(Datasets.of([data]).rows_of("train"))
    assert first() == first() == pytest.approx(second(), rel=1e-4)
    assert np.array_equal(monitor.sample(np.arange(9), 20), np.arange(9))
    with pytest.raises(ValueError, match=r"2 images.*\b1\b"):
        watching(method, data, images=1)


# ---- labelled images


def test_probe_and_neighbours_are_what_others_compute(data: dataset_folder.DatasetFolder) -> None:
    torch.manual_seed(0)
    method = Agree(Backbone("test_resnet"))
    learning, tested = np.arange(0, 100), np.arange(100, 160)
    findings = ("Cardiomegaly", "Effusion", "Atelectasis")
    found = watching(method, data, labelled=Labelled(Datasets.of([data]), learning, tested, findings))()
    one, other = (
        probe.extract(
            method.backbone, probe.plain_loader(Datasets.of([data]), rows, (32, 32), findings, threads=1), CPU
        )
        for rows in (learning, tested)
    )
    mean, std = one.features.mean(0), one.features.std(0)
    probes, votes = [], []
    for place in range(len(findings)):
        known, asked = (~np.isnan(part.labels[:, place]) for part in (one, other))
        labels, truth = one.labels[known, place], other.labels[asked, place]
        x, y = ((part.features - mean) / np.where(std < 1e-12, 1, std) for part in (one, other))
        fit = LogisticRegression(C=1 / (monitor.RIDGE * known.sum()), max_iter=10_000, tol=1e-9)
        probes.append(roc_auc_score(truth, fit.fit(x[known], labels).decision_function(y[asked])))
        cosine = F.normalize(torch.tensor(other.features)) @ F.normalize(torch.tensor(one.features)).T
        scores = []
        for row in cosine.numpy()[asked]:
            near = np.argsort(-row, kind="stable")[: monitor.NEIGHBOURS]
            near = near[known[near]]
            weight = np.exp((row[near].astype(np.float64) - 1) / 0.07)
            yes = (weight * one.labels[near, place]).sum()
            scores.append((yes + 1e-6 * labels.mean()) / (weight.sum() + 1e-6))  # nothing near: as often as overall
        votes.append(roc_auc_score(truth, scores))
    assert found["probe"] == pytest.approx(np.mean(probes), abs=2e-3)
    assert found["knn"] == pytest.approx(np.mean(votes), abs=2e-3)


def test_what_cannot_be_judged_is_left_out(data: dataset_folder.DatasetFolder) -> None:
    rows = np.flatnonzero(data.index.table["Mass"] == 0)
    found = watching(
        Agree(Backbone("test_resnet")), data, labelled=Labelled(Datasets.of([data]), rows, rows, ("Mass",))
    )()
    assert set(found) == {"rank", "feature_std"}


# ---- what was found before


def test_a_resumed_run_remembers(tmp_path: Path) -> None:
    log = tmp_path / "metrics.jsonl"
    assert validations(read_log(log)) == []
    lines: list[dict[str, Any]] = [
        {"step": 1, "loss": 2.0},
        {"step": 1, "validation": {"rank": 40.0, "feature_std": 0.5}},
        {"step": 2, "loss": 1.0},
    ]
    log.write_text("\n".join(map(json.dumps, lines)) + '\n{"step": 2, "valid', encoding="utf-8")
    assert validations(read_log(log)) == [{"rank": 40.0, "feature_std": 0.5}]
    assert has_facts(warning([*validations(read_log(log)), {"rank": 40.0, "feature_std": 0.024}]), "(0.5)")
