"""Linear probes: settings from validation, shares by patient, leakage refused."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from refusals import has_facts
from sklearn.linear_model import LogisticRegression

from ribcage import cli
from ribcage.bundle.io import save_bundle
from ribcage.bundle.spec import ModelSpec
from ribcage.bundle.training_record import TrainingRecord
from ribcage.data import dataset_folder
from ribcage.data.collection import Datasets
from ribcage.data.provenance import Provenance
from ribcage.methods.supervised import Supervised
from ribcage.models.backbone import Backbone
from ribcage.training import probe
from ribcage.training.logistic import logistic
from ribcage.training.probe import FeatureTable


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("数据 set") / "phantom"
    assert cli.main(["import", "phantom", "--out", str(folder), "--images", "320", "--size", "32"]) == 0
    return folder


def planted(count: int, seed: int, strength: float = 3.0) -> FeatureTable:
    """Features whose first directions tell two findings; a third finding is noise, a part of all labels unknown."""
    rng = np.random.default_rng(seed)
    labels = (rng.random((count, 3)) < 0.3).astype(np.float32)
    features = rng.normal(size=(count, 16)).astype(np.float32)
    features[:, :2] += strength * labels[:, :2]
    labels[rng.random(labels.shape) < 0.2] = np.nan
    return FeatureTable(features, labels, np.arange(count))


# ---- the readers


@pytest.mark.parametrize("wide", [False, True])
def test_logistic_regression_is_scikit_learns_for_every_strength(wide: bool) -> None:
    """Also where there are more features than images."""
    part = planted(60, 0)
    x = np.random.default_rng(1).normal(size=(60, 90)) if wide else part.features.astype(np.float64)
    x = (x - x.mean(0)) / x.std(0)
    y = part.labels.astype(np.float64)
    fitted = logistic(torch.from_numpy(x), torch.from_numpy(y), (1.0, 0.1, 0.01))
    for strength, (w, b) in zip((1.0, 0.1, 0.01), fitted, strict=True):
        for f in range(3):
            known = ~np.isnan(y[:, f])
            peer = LogisticRegression(C=1 / (strength * known.sum()), tol=1e-10, max_iter=10_000)
            peer.fit(x[known], y[known, f])
            np.testing.assert_allclose(w[:, f].numpy(), peer.coef_[0], atol=2e-5)
            assert float(b[f]) == pytest.approx(peer.intercept_[0], abs=2e-5)


def test_neighbours_vote_with_their_cosine() -> None:
    keys = FeatureTable(
        np.array([[1, 0], [0, 1], [1, 1]], np.float32), np.array([[1.0], [0.0], [np.nan]], np.float32), np.arange(3)
    )
    query = FeatureTable(np.array([[2, 1]], np.float32), np.array([[1.0]], np.float32), np.arange(1))
    found = probe.neighbours(keys, query, query)[0][0]
    near, far = np.exp((2 / 5**0.5 - 1) / 0.07), np.exp((1 / 5**0.5 - 1) / 0.07)
    assert found[0, 0] == pytest.approx((near + 0.5e-6) / (near + far + 1e-6), rel=1e-5)


def test_nobody_known_among_the_neighbours_leaves_the_share_of_all() -> None:
    keys = FeatureTable(np.eye(300, 12, dtype=np.float32) + 1, np.full((300, 1), np.nan, np.float32), np.arange(300))
    keys.labels[290:, 0] = [1, 0] * 5
    keys.features[290:] *= -1
    query = FeatureTable(np.ones((1, 12), np.float32), np.ones((1, 1), np.float32), np.arange(1))
    assert probe.neighbours(keys, query, query)[0][0][0, 0] == pytest.approx(0.5)


@pytest.mark.parametrize("classifier", probe.CLASSIFIERS)
def test_what_is_in_the_features_is_found_and_noise_is_not(classifier: str) -> None:
    train, val, test = planted(600, 0), planted(300, 1), planted(1000, 2)
    found = probe.chosen_auroc(probe.CLASSIFIERS[classifier](train, val, test), val.labels, test.labels)
    assert (found[:2] > (0.95 if classifier == "logistic" else 0.85)).all()
    assert abs(found[2] - 0.5) < 0.08


def test_the_setting_is_chosen_on_validation_not_on_the_tested_images() -> None:
    labels = np.array([[0.0, 0], [0, 0], [1, 0], [1, 1]])
    good, bad = labels.copy(), 1 - labels
    answers = [(bad, good), (good, bad)]  # on test the first would be better
    assert probe.chosen_auroc(answers, labels, labels).tolist() == [0.0, 0.0]


def test_a_finding_that_validation_cannot_judge_takes_the_setting_of_the_others() -> None:
    labels = np.array([[0.0, 0], [0, 0], [1, 0], [1, 1]])
    unjudged = labels.copy()
    unjudged[:, 1] = np.nan
    answers = [(1 - labels, labels), (labels, labels)]
    assert probe.chosen_auroc(answers, unjudged, labels).tolist() == [1.0, 1.0]
    with pytest.raises(ValueError, match="validation"):
        probe.chosen_auroc(answers, np.zeros((4, 2)), labels)


# ---- shares and standard deviations


def test_draws_differ_in_small_shares_and_all_patients_are_drawn_once(data: Path) -> None:
    opened = Datasets.open([data])
    rows = np.flatnonzero(opened[0].index.table["split"] == "train")
    train = replace(planted(len(rows), 0), rows=rows)
    found = list(probe.scores(opened, train, planted(80, 1), planted(90, 2), (0.3, 1.0), 3))
    assert [(score.share, score.seed, score.classifier) for score in found] == [
        *[(0.3, seed, classifier) for seed in range(3) for classifier in probe.CLASSIFIERS],
        *[(1.0, 0, classifier) for classifier in probe.CLASSIFIERS],
    ]
    assert len({score.auroc for score in found if score.classifier == "logistic"}) == 4
    small, *_, whole = probe.summarise_scores(found)
    means = [score.mean.mean for score in found if score.classifier == "logistic" and score.share < 1]
    assert (small.mean, small.minimum, small.maximum) == pytest.approx((np.mean(means), min(means), max(means)))
    assert small.sd == pytest.approx(np.std(means, ddof=1)) and small.draws == 3
    assert whole.draws == 1 and np.isnan(whole.sd) and whole.images == len(rows)


def test_a_finding_without_both_classes_in_the_draw_is_undefined_not_one_half(data: Path) -> None:
    opened = Datasets.open([data])
    train = planted(len(opened[0]), 0)
    train.labels[:, 1] = 0
    found = list(probe.scores(opened, train, planted(80, 1), planted(90, 2), (1.0,), 1))
    assert all(np.isnan(score.auroc[1]) and score.mean.used == 2 for score in found)
    assert probe.summarise_scores(found)[0].findings == 2
    assert probe.probe_scores(found, ("a", "b", "c"))["scores"][0]["auroc"]["b"] is None


# ---- features


def test_features_are_the_backbones_own_whatever_the_batch(data: Path) -> None:
    opened = Datasets.open([data])
    backbone = Backbone("test_resnet")
    rows = np.arange(20)
    parts = [
        probe.extract(backbone, probe.plain_loader(opened, rows, (48, 32), ("Mass",), batch=batch), torch.device("cpu"))
        for batch in (20, 7)
    ]
    assert parts[0].features.shape == (20, backbone.dim) and not backbone.training
    np.testing.assert_allclose(parts[0].features, parts[1].features, atol=1e-5)
    source = opened[0].index.table["Mass"][:20]
    np.testing.assert_array_equal(parts[0].labels[:, 0], source.where(source >= 0))  # uncertain is not known


def test_features_that_are_no_numbers_are_refused(data: Path) -> None:
    backbone = Backbone("test_resnet")
    with torch.no_grad():
        next(backbone.model.parameters()).fill_(float("nan"))
    with pytest.raises(ValueError, match=r"test_resnet .*NaN or infinity"):
        probe.extract(
            backbone,
            probe.plain_loader(Datasets.open([data]), np.arange(4), (32, 32), ()),
            torch.device("cpu"),
        )


# ---- the command


def made(folder: Path, opened: dataset_folder.DatasetFolder, seen: np.ndarray) -> Path:
    """A finished model, without any training."""
    torch.manual_seed(0)
    method = Supervised(Backbone("test_resnet", size=(32, 32)), ("Mass",))
    model = ModelSpec(
        "test_resnet",
        ("Mass",),
        (32, 32),
        32,
        "pad",
        0.5,
        0.25,
        training=TrainingRecord(images=0, patients=0, selection=0),
    )
    save_bundle(folder, method, model, Provenance.of(Datasets.of([opened]), seen, seen[:0]))
    return folder


def split_rows(opened: dataset_folder.DatasetFolder, split: str) -> np.ndarray:
    return np.flatnonzero(opened.index.table["split"] == split)


def test_a_finished_model_is_probed_on_findings_it_never_learnt(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    opened = dataset_folder.open(data)
    model = made(tmp_path / "模型 m", opened, split_rows(opened, "train"))
    words = ["probe", str(model), "--data", str(data), "--labels", "0.5", "1", "--seeds", "2", "--threads", "1"]
    words += ["--findings", "Cardiomegaly", "Effusion", "Atelectasis", "Infiltration", "--out", str(tmp_path / "out")]
    assert cli.main([*words, "--debug"]) == 0
    said = capsys.readouterr().out
    assert "50 %" in said and "100 %" in said and "kNN" in said
    first = json.loads((tmp_path / "out" / "probe.json").read_text(encoding="utf-8"))
    assert [one["draws"] for one in first["summary"]] == [2, 2, 1, 1]
    assert first["findings"] == ["Cardiomegaly", "Effusion", "Atelectasis", "Infiltration"] and first["leaks"] == []
    assert cli.main(words) == 0
    assert json.loads((tmp_path / "out" / "probe.json").read_text(encoding="utf-8")) == first


def test_a_model_that_has_seen_the_tested_images_is_refused(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    opened = dataset_folder.open(data)
    test = split_rows(opened, "test")
    model = made(tmp_path / "m", opened, test)
    words = ["probe", str(model), "--data", str(data), "--labels", "1", "--threads", "1"]
    assert cli.main(words) == 2
    said = capsys.readouterr().err
    assert f"Of {len(test)} test images, {len(test)} " in said and said.count("\n") == 1
    assert cli.main([*words, "--allow-leak"]) == 0
    assert "! LEAK" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--labels", "0", "2"], "--labels 2"),
        (["--seeds", "0"], "--seeds 0"),
        (["--split", "tset"], "Did you mean 'test'?"),
        (["--findings", "Mas"], "Mas;"),
        (["--policy", "ones+lsr"], "ones+lsr"),
    ],
)
def test_wrong_options_are_one_clear_line(
    data: Path, capsys: pytest.CaptureFixture[str], more: list[str], says: str
) -> None:
    assert cli.main(["probe", "test_resnet", "--data", str(data), "--size", "32", *more]) == 2
    said = capsys.readouterr().err
    assert says in said and said.strip().count("\n") == 0


def test_what_is_for_a_name_is_not_passed_over_for_a_folder(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["probe", "runs/x", "--data", str(data), "--channels", "3", "--init", "imagenet"]
    assert cli.main(words) == 2
    said = capsys.readouterr().err
    assert all(has_facts(said, f"--{name}", "name", "folder") for name in ("init", "channels"))


def test_a_model_that_is_nowhere_is_one_clear_line(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["probe", "tst_resnet", "--data", str(data)]) == 2
    assert "Did you mean 'test_resnet" in capsys.readouterr().err
    assert cli.main(["probe", "runs/nowhere", "--data", str(data)]) == 1
    assert "runs/nowhere " in capsys.readouterr().err
