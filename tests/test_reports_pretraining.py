"""The page of a pretraining: its numbers, reconstructions and nearest neighbours."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F  # noqa: N812 – everybody's name for it

from ribcage import cli
from ribcage.bundle.spec import ModelSpec
from ribcage.bundle.training_record import TrainingRecord
from ribcage.data import dataset_folder
from ribcage.data.collection import Datasets
from ribcage.methods import Method
from ribcage.methods.mae import MAE
from ribcage.methods.mae_unet import MAEUNet
from ribcage.methods.moco import MoCo
from ribcage.models.backbone import Backbone
from ribcage.reports import pretraining
from ribcage.training import probe
from ribcage.training.probe import FeatureTable

SIDE = 32
HEADINGS = ("<h2>Training</h2>", "<h2>Reconstructions</h2>", "<h2>Nearest neighbours</h2>")


@pytest.fixture(scope="module")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> Datasets:
    """Two sets with statistics of their own."""
    folder = tmp_path_factory.mktemp("data")
    for name, more in (("one", ["--seed", "1"]), ("two", ["--seed", "2", "--depth", "16"])):
        words = ["import", "phantom", "--out", str(folder / name), "--images", "40", "--size", str(SIDE)]
        assert cli.main([*words, "--name", name, *more]) == 0
    return Datasets.of([dataset_folder.open(folder / name) for name in ("one", "two")])


def method(name: str) -> Method:
    torch.manual_seed(0)
    if name == "mae":
        return MAE(Backbone("test_vit", size=(SIDE, SIDE), pool="avg"), mask_ratio=0.5, decoder="dec128d2b")
    backbone = Backbone("test_resnet", size=(SIDE, SIDE))
    return MAEUNet(backbone, mask_ratio=0.5, patch=8) if name == "mae_unet" else MoCo(backbone, queue=16, dim=8)


def facts(name: str = "test_resnet") -> ModelSpec:
    training = TrainingRecord(method="moco", images=80, patients=30)
    return ModelSpec(name, (), (SIDE, SIDE), SIDE, "pad", 0.5, 0.25, training=training)


def logged(folder: Path, feature_std: float = 0.4) -> None:
    lines = [{"step": step, "epoch": 1 + step // 10, "loss": 5 / step, "lr": 1, "acc1": step} for step in range(1, 21)]
    found = {"rank": 12.5, "feature_std": feature_std, "probe": 0.71, "knn": 0.69}
    looks = [{"step": step, "epoch": step // 10, "validation": found} for step in (10, 20)]
    (folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, [*lines, *looks])), encoding="utf-8")


def written(folder: Path, datasets: Datasets, name: str = "moco", **options: object) -> str:
    rows = np.arange(sum(map(len, datasets)))
    file = pretraining.write_pretraining_page(
        folder, method(name), datasets, rows, facts(), title=f"{name} <b> 模型", threads=1, **options
    )  # type: ignore[arg-type]
    assert file == folder / "images.html" and [one.name for one in folder.glob("*.part")] == []
    return file.read_text(encoding="utf-8")


# ---- the page


@pytest.mark.parametrize(("name", "figures"), [("moco", 7 * 8), ("mae", 7 * 8 + 3 * 8), ("mae_unet", 7 * 8 + 3 * 8)])
def test_the_page_is_whole_and_needs_no_other_file(tmp_path: Path, datasets: Datasets, name: str, figures: int) -> None:
    logged(tmp_path)
    page = written(tmp_path, datasets, name)
    assert page.count("<figure>") == figures
    assert [heading in page for heading in HEADINGS] == [True, name != "moco", True]
    assert "http" not in page and "<script" not in page and "<b> 模型" not in page and "&lt;b&gt; 模型" in page
    for text in ("20 in 3 epochs", "12.5", "0.71", "acc1", "one, two", "80 from 30 patients"):
        assert text in page
    assert len(re.findall('class="plot"', page)) == 5  # loss, rank, feature_std, acc1, and both readers in one


def test_a_collapse_is_reported_first(tmp_path: Path, datasets: Datasets) -> None:
    logged(tmp_path, feature_std=0.001)
    page = written(tmp_path, datasets)
    assert 0 < page.index("The features have collapsed: feature_std 0.001") < page.index(HEADINGS[0])


def test_a_run_without_a_log_has_its_images(tmp_path: Path, datasets: Datasets) -> None:
    page = written(tmp_path, datasets)
    assert [heading in page for heading in HEADINGS] == [False, False, True]


def test_few_images_are_enough(tmp_path: Path, datasets: Datasets) -> None:
    assert written(tmp_path, datasets, images=3).count("<figure>") == 9  # each beside the two others


def test_looking_leaves_the_method_as_it_was(tmp_path: Path, datasets: Datasets) -> None:
    learner = method("mae_unet").train()
    before = {name: value.clone() for name, value in learner.state_dict().items()}
    pretraining.write_pretraining_page(tmp_path, learner, datasets, np.arange(20), facts(), title="", threads=1)
    assert all(part.training for part in learner.modules())
    assert all(torch.equal(value, before[name]) for name, value in learner.state_dict().items())


# ---- what it shows


def test_images_are_shown_as_they_are_stored(datasets: Datasets) -> None:
    """Each dataset's normalisation is undone, in one channel or three."""
    rows = np.array([70, 3, 3])
    wanted = [datasets[1].image(30) / 65535, datasets[0].image(3) / 255, datasets[0].image(3) / 255]
    for channels in (1, 3):
        shown = pretraining.SampledBatch(
            datasets, rows, facts(), {"channels": channels, "normalise": None, "threads": 1}
        )
        for pixels, stored in zip(shown.pixels(shown.batch.views[0]), wanted, strict=True):
            np.testing.assert_allclose(pixels, 255 * stored, atol=1.01)


def test_neighbours_are_those_of_highest_cosine(tmp_path: Path, datasets: Datasets) -> None:
    page = written(tmp_path, datasets)
    rows = np.arange(80)
    features = probe.extract(
        method("moco").backbone, probe.plain_loader(datasets, rows, (SIDE, SIDE), (), threads=1), torch.device("cpu")
    ).features
    cosine = F.cosine_similarity(torch.tensor(features)[:1], torch.tensor(features)).numpy()[1:]
    said = re.findall(r"<figcaption>([^<]*)</figcaption>", page)
    assert said[0].startswith("query")
    assert [float(text.split(" ")[0]) for text in said[1:7]] == pytest.approx(np.sort(cosine)[::-1][:6], abs=1.5e-3)


def test_what_is_hidden_is_drawn_and_the_error_is_of_that(tmp_path: Path, datasets: Datasets) -> None:
    learner = method("mae_unet").eval()
    rows = np.arange(8)
    figures = pretraining.reconstruction_figures(
        learner, datasets, rows, facts(), {"channels": 1, "normalise": None, "threads": 1}
    )
    shown = pretraining.SampledBatch(datasets, rows, facts(), {"channels": 1, "normalise": None, "threads": 1})
    x = shown.batch.views[0].numpy()
    masked, whole = (values.numpy() for values in learner.reconstructed(shown.batch))  # type: ignore[operator]
    errors = [((whole[n] - x[n])[masked[n] != x[n]] ** 2).mean() for n in range(8)]
    captions = [figure.caption for figure in figures]
    assert [float(text.split()[-1]) for text in captions[2::3]] == pytest.approx(errors, abs=1e-3)
    assert all("50 %" in text for text in captions[1::3]) and len(captions) == 24


def test_the_findings_that_neighbours_share_are_counted_by_hand(datasets: Datasets) -> None:
    """Of four images the last two are of one patient; the nearest of another patient shares a finding for two in three."""
    patients = datasets[0].index.table["patient"]
    twice = patients[patients.duplicated(keep=False) & (patients != "")]
    same = np.flatnonzero(patients == twice.iloc[0])[:2]
    others = [int(np.flatnonzero(patients == name)[0]) for name in patients.unique() if name not in ("", twice.iloc[0])]
    rows = np.array([*others[:2], *same])
    labels = np.array([[1, 0], [1, 1], [0, 1], [np.nan, np.nan]], np.float32)
    cosine = torch.tensor(
        [[-2, 0.9, 0.25, 0.0], [0.9, -2, 0.2, 0.3], [0.25, 0.2, -2, 0.99], [0.0, 0.3, 0.99, -2]], dtype=torch.float32
    )
    agreement = pretraining.label_agreement(datasets, FeatureTable(np.zeros((4, 1), np.float32), labels, rows), cosine)
    # nearest: 0 → 1 shares, 1 → 0 shares, 2 → 0 does not (3 is of the same patient)
    # any: 0: 1 of 3; 1: 2 of 3; 2: 1 of 2
    assert agreement == pytest.approx((2 / 3, 0.5))
    nothing = np.full((4, 2), np.nan, np.float32)
    assert (
        pretraining.label_agreement(datasets, FeatureTable(np.zeros((4, 1), np.float32), nothing, rows), cosine) is None
    )


def test_findings_are_named_where_they_are_known(datasets: Datasets) -> None:
    table = datasets[0].index.table[list(datasets[0].index.findings)]
    rows = np.array(
        [int(np.flatnonzero((table == 1).any(axis=1))[0]), int(np.flatnonzero((table == 0).all(axis=1))[0])]
    )
    shown = pretraining.SampledBatch(datasets, rows, facts(), {"channels": 1, "normalise": None, "threads": 1})
    present = [name.replace("_", " ") for name in table.columns if table.iloc[rows[0]][name] == 1]
    assert shown.findings(0) == ", ".join(present) and shown.findings(1) == "no finding"
