"""Query pooling: each finding attends to the places of the map by itself, in training, bundles, maps and exports."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from refusals import has_facts
from torch import Tensor, nn

from ribcage import cli
from ribcage.bundle import blend, cost, onnx_export
from ribcage.bundle.init import initial_backbone
from ribcage.bundle.io import Classifier, load_classifier, save_bundle
from ribcage.bundle.onnx_export import Network
from ribcage.bundle.spec import ModelSpec
from ribcage.data.provenance import Provenance
from ribcage.inference import gradcam
from ribcage.methods.supervised import Supervised
from ribcage.models.backbone import Backbone
from ribcage.models.query_head import QueryHead

FINDINGS = ("Mass", "Edema", "Nodule")
GRIDS = {
    "test_resnet": (64, 2), "test_vit": (64, 4), "test_convnext": (64, 2), "swin_tiny_patch4_window7_224": (64, 2),
    "mobilenetv3_small_050": (64, 2), "eeea_net_c1": (64, 2),
}  # fmt: skip
"""Side of the images and of the last map: tokens with a class token, cells with channels first and last, and cells
that are widened after pooling."""
NOBODY = Provenance.nothing()


def classifier(folder: Path, name: str = "test_vit", seed: int = 0, pool: str = "query", **facts: Any) -> Classifier:
    """A bundle whose attention is far from uniform."""
    torch.manual_seed(seed)
    side = GRIDS[name][0]
    method = Supervised(Backbone(name, size=(side, side), pool=pool), FINDINGS).eval()
    for value in method.head.parameters():
        nn.init.normal_(value)
    spec = ModelSpec(name, FINDINGS, (side, side), side, "pad", 0.5, 0.25, pool=pool, **facts)
    save_bundle(folder, method, spec, NOBODY)
    return Classifier(folder, spec, method, NOBODY)


def images(name: str = "test_vit", count: int = 2) -> Tensor:
    return torch.randn(count, 1, GRIDS[name][0], GRIDS[name][0], generator=torch.Generator().manual_seed(7))


def test_the_logit_is_the_evidence_of_all_places_weighted_by_attention() -> None:
    head, x = QueryHead(4, 3), torch.randn(2, 5, 4)
    for value in head.parameters():
        nn.init.normal_(value)
    logits = head(x)
    for n in range(2):
        for f in range(3):
            share = torch.stack([(head.query[f] * x[n, t]).sum() / 2 for t in range(5)]).exp()
            pooled = sum(share[t] / share.sum() * x[n, t] for t in range(5))
            torch.testing.assert_close(logits[n, f], (head.weight[f] * pooled).sum() + head.bias[f])


@pytest.mark.parametrize("name", GRIDS)
def test_an_untrained_head_is_linear_in_the_mean_of_the_map(name: str) -> None:
    side, cells = GRIDS[name]
    method = Supervised(Backbone(name, size=(side, side), pool="query"), FINDINGS).eval()
    with torch.inference_mode():
        hidden = method.backbone.hidden(images(name))
        places = method.backbone.head_input(hidden)
        assert places.shape == (2, cells * cells, method.backbone.dim)
        if method.backbone.model.num_features == method.backbone.dim and name != "test_convnext":  # norm after the map
            maps = method.backbone.grid(hidden, (side, side))
            torch.testing.assert_close(places.transpose(1, 2), maps.flatten(2))
        mean = method.backbone(images(name))
        expected = mean @ method.head.weight.T + method.head.bias
        torch.testing.assert_close(method.logits(images(name)), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_a_bundle_opens_as_it_was_and_has_maps(name: str, tmp_path: Path) -> None:
    made = classifier(tmp_path, name)
    opened = load_classifier(tmp_path)
    with torch.inference_mode():
        logits = made.method.logits(images(name))
        assert opened.spec.pool == "query" and torch.equal(opened.method.logits(images(name)), logits)
        torch.testing.assert_close(Network(opened.method)(images(name)), logits)  # attention in steps
    found = gradcam.saliency_maps(opened.method, images(name))
    assert found.maps.shape[2:] == (GRIDS[name][1],) * 2 and found.maps.amax() == 1
    torch.testing.assert_close(found.logits, logits)
    assert "load_bundle" in (tmp_path / "README.md").read_text(encoding="utf-8")


def test_a_map_shows_the_place_that_the_finding_attends_to() -> None:
    """Two places have the same evidence, but the query selects one of them."""
    method = Supervised(Backbone("test_resnet", pool="query"), ("a",)).eval()
    hidden = torch.zeros(1, method.backbone.dim, 2, 2)
    hidden[0, :2, 0, 1], hidden[0, 0, 1, 0] = 1.0, 1.0
    with torch.no_grad():
        method.head.weight.zero_()[0, 0] = 1.0
        method.head.query[0, 1] = 100.0
    method.backbone.forward_features = lambda _: hidden  # type: ignore[method-assign]
    heat = gradcam.saliency_maps(method, torch.zeros(1, 1, 64, 64), gradcam.MapMethod("layercam", 0)).maps[0, 0]
    assert heat[0, 1] == 1 and heat[1, 0] < 0.1


def test_onnx_runtime_gives_the_same_logits(tmp_path: Path) -> None:
    made = classifier(tmp_path / "b")
    onnx_export.onnx(Network(made.method), (1, *made.spec.size), tmp_path / "a.onnx")
    shown = images(count=3)
    with torch.inference_mode():
        expected = made.method.logits(shown)
    torch.testing.assert_close(onnx_export.onnx_function(tmp_path / "a.onnx", 1)(shown), expected, atol=1e-5, rtol=1e-5)


def test_weights_are_averaged_and_predictions_are_refused(tmp_path: Path) -> None:
    members = [classifier(tmp_path / str(seed), seed=seed) for seed in range(2)]
    soup = blend.mean_weights([one.method for one in members])
    torch.testing.assert_close(soup.head.query, (members[0].method.head.query + members[1].method.head.query) / 2)
    with pytest.raises(ValueError) as refused:
        blend.open_members([one.folder for one in members], "predictions")
    assert has_facts(str(refused.value), tmp_path / "0", "query") and "\n" not in str(refused.value)


def test_the_backbone_of_another_pooling_is_taken_over(tmp_path: Path) -> None:
    """A norm that was applied to the average, as after MAE, is applied to each token."""
    before = classifier(tmp_path, pool="avg")
    spec = replace(before.spec, pool="query")
    taken = initial_backbone(spec, str(tmp_path), 0.0).eval()
    with torch.inference_mode():
        tokens = before.method.backbone.hidden(images())[:, 1:]
        expected = before.method.backbone.model.fc_norm(tokens)
        torch.testing.assert_close(taken.head_input(taken.hidden(images())), expected)


def test_its_parameters_and_products_are_counted(tmp_path: Path) -> None:
    counts = []
    for pool in ("query", "avg"):
        classifier(tmp_path / pool, "test_resnet", pool=pool)
        counts.append(cost.count_operations(cost.Subject.of(tmp_path / pool)))
    query, avg = counts
    dim = Backbone("test_resnet").dim
    assert query.parameters - avg.parameters == 3 * dim
    assert query.multiply_adds - avg.multiply_adds == 2 * 4 * 3 * dim - 3 * dim
    assert query.outside == avg.outside


def test_it_is_fine_tuned_evaluated_and_distilled(tmp_path: Path) -> None:
    data, run, student = str(tmp_path / "data"), tmp_path / "run", tmp_path / "student"
    assert cli.main(["import", "phantom", "--out", data, "--images", "120", "--size", "64"]) == 0
    small = [
        "--data",
        data,
        "--size",
        "64",
        "--epochs",
        "1",
        "--batch",
        "16",
        "--threads",
        "1",
        "--precision",
        "float32",
    ]
    tuned = ["finetune", "--model", "test_resnet", "--pool", "query", "--out", str(run), *small]
    assert cli.main(tuned) == 0
    assert load_classifier(run).method.head.query.abs().max() > 0
    assert cli.main(["evaluate", str(run), "--data", data]) == 0
    taught = ["--teacher", str(run), "--model", "test_resnet", "--pool", "query", "--feature-weight", "0.1"]
    assert cli.main(["distil", *taught, "--teacher-mode", "live", "--out", str(student), *small]) == 0
    assert load_classifier(student).spec.pool == "query"
