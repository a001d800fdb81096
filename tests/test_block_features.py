"""Features of the last blocks, and the attention probe on the features of each place."""

from pathlib import Path

import numpy as np
import pytest
import torch
from refusals import has_facts, line

from ribcage import cli, metrics
from ribcage.bundle.weights import load_backbone
from ribcage.models.backbone import Backbone
from ribcage.models.block_features import block_features, refuse_blocks
from ribcage.training import probe
from ribcage.training.attention_probe import attended
from ribcage.training.probe import FeatureTable

IMAGES = torch.randn(2, 1, 64, 64, generator=torch.Generator().manual_seed(3))


def built(name: str, pool: str) -> Backbone:
    torch.manual_seed(0)
    return Backbone(name, size=(64, 64), pool=pool).eval()


@pytest.mark.parametrize("pool", ["token", "avg", "query"])
@torch.inference_mode()
def test_blocks_of_a_transformer_are_those_of_dinov2s_evaluation(pool: str) -> None:
    backbone = built("test_vit", pool)
    model = backbone.model
    found = block_features(backbone, IMAGES, 3)
    norm = model.fc_norm if pool == "avg" else model.norm
    x, outputs = model._pos_embed(model.patch_embed(IMAGES)), []
    for block in model.blocks:
        x = block(x)
        outputs.append(norm(x))
    if pool == "token":
        expected = torch.cat([one[:, 0] for one in outputs[-3:]], 1)
    else:
        expected = torch.cat([one[:, 1:] for one in outputs[-3:]], 2)
        expected = expected if pool == "query" else expected.mean(1)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


@torch.inference_mode()
def test_stages_of_a_cnn_are_averaged_to_the_last_grid() -> None:
    backbone = built("test_resnet", "query")
    maps = backbone.model.forward_intermediates(IMAGES, indices=2, intermediates_only=True)
    found = block_features(backbone, IMAGES, 2)
    assert found.shape == (2, 4, maps[0].shape[1] + maps[1].shape[1])
    corner = maps[0][:, :, :2, :2].mean((2, 3))
    torch.testing.assert_close(found[:, 0, : maps[0].shape[1]], corner)
    torch.testing.assert_close(found[:, :, maps[0].shape[1] :], maps[1].flatten(2).transpose(1, 2))
    mean = block_features(built("test_resnet", "avg"), IMAGES, 2)
    torch.testing.assert_close(mean, found.mean(1), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("name", "pool", "blocks", "facts"), [
    ("test_resnet", "", 9, ("--layers 9", "test_resnet", 5)),
    ("test_resnet", "max", 2, ("--layers 2", "max")),
    ("xcit_nano_12_p16_224", "token", 2, ("--layers 2", "avg", "xcit_nano_12_p16_224")),
])  # fmt: skip
def test_blocks_that_a_model_does_not_have_are_refused(name: str, pool: str, blocks: int, facts: tuple[str]) -> None:
    with pytest.raises(ValueError) as refused, torch.device("meta"):
        refuse_blocks(Backbone(name, pool=pool), blocks)
    assert has_facts(str(refused.value), *facts)


@pytest.mark.parametrize(("before", "after"), [("avg", "token"), ("token", "avg"), ("avg", "query")])
def test_the_last_norm_is_kept_when_the_pooling_changes(before: str, after: str) -> None:
    trained, other = built("test_vit", before), Backbone("test_vit", size=(64, 64), pool=after)
    norms = [
        one.model.fc_norm if pool == "avg" else one.model.norm for one, pool in ((trained, before), (other, after))
    ]
    torch.nn.init.normal_(norms[0].weight)
    load_backbone(other, trained, "there")
    assert torch.equal(norms[1].weight, norms[0].weight)


def scattered(count: int, seed: int) -> FeatureTable:
    """A finding in one of many cells, which the average hides in the noise of the others."""
    rng = np.random.default_rng(seed)
    labels = (rng.random((count, 2)) < 0.4).astype(np.float32)
    cells = rng.normal(size=(count, 16, 6)).astype(np.float32)
    cells[np.arange(count), rng.integers(0, 16, count), 0] += 5 * labels[:, 0]
    labels[rng.random(labels.shape) < 0.1] = np.nan
    return FeatureTable(cells.mean(1), labels, np.arange(count), cells.astype(np.float16))


def test_attention_finds_what_the_average_hides() -> None:
    train, val, test = (scattered(300, seed) for seed in range(3))
    found = {
        name: probe.chosen_auroc(read(train, val, test), val.labels, test.labels)
        for name, read in probe.classifiers(train).items()
    }
    assert found["attention"][0] > found["logistic"][0] + 0.08 and found["attention"][0] > 0.95
    assert abs(found["attention"][1] - 0.5) < 0.12


def test_attention_with_a_strong_regularisation_is_the_regression_of_the_average() -> None:
    train, test = scattered(200, 0), scattered(200, 1)
    assert train.cells is not None and test.cells is not None
    ((scores,),) = attended(train.cells, train.labels, (test.cells,), (30.0,))
    ((linear, _),) = probe.regressed(train, test, test, (1.0,))
    found = metrics.auroc(scores, test.labels), metrics.auroc(linear, test.labels)
    np.testing.assert_allclose(*found, atol=0.05)


def test_a_probe_with_attention_and_several_blocks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = str(tmp_path / "data")
    assert cli.main(["import", "phantom", "--out", data, "--images", "600", "--size", "64"]) == 0
    words = [
        "probe",
        "test_vit",
        "--data",
        data,
        "--size",
        "64",
        "--labels",
        "1",
        "--findings",
        "Effusion",
        "--threads",
        "1",
    ]
    capsys.readouterr()
    assert cli.main([*words, "--pool", "query", "--layers", "2"]) == 0
    assert has_facts(capsys.readouterr().out, "attention")
    assert has_facts(line([*words, "--layers", "7"], capsys), "--layers 7", "test_vit", 6)
