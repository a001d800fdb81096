"""Adaptation of a backbone: which weights move, adapters that merge into plain weights, resumed and parallel runs."""

import shutil
from pathlib import Path
from typing import Any

import processes
import pytest
import torch
from refusals import has_facts
from safetensors.torch import load_file
from timm.models.beit import Beit
from torch import nn
from trainings import equal, stopped, words

from ribcage import cli
from ribcage.bundle.io import load_classifier
from ribcage.bundle.weights import load_plain_state, plain_state
from ribcage.methods.supervised import Supervised
from ribcage.models.adapters import Adapter, LowRank, adapt_backbone, merged_state
from ribcage.models.backbone import Backbone
from ribcage.training import checkpoint, optim

LORA = ["--model", "test_vit", "--adapt", "lora", "--lora-rank", "4"]


def made(name: str = "test_vit", **options: Any) -> Supervised:
    torch.manual_seed(0)
    return Supervised(Backbone(name, size=(32, 32)), ("a", "b"), **options)


def trained(method: nn.Module) -> dict[str, nn.Parameter]:
    return {name: weight for name, weight in method.named_parameters() if weight.requires_grad}


def as_if_trained(model: nn.Module) -> None:
    """Every adapter changes its layer."""
    for part in model.modules():
        if isinstance(part, Adapter):
            nn.init.normal_(part.lora_b, std=0.1)


class Small(Backbone):
    """A backbone around a model that timm has no name for."""

    def __init__(self, model: nn.Module) -> None:
        nn.Module.__init__(self)
        self.model, self.name = model, type(model).__name__


# ---- which weights are trained


def test_lora_trains_less_than_two_percent_of_a_vit_b() -> None:
    """Rank 8: 8 (768 + 768) for each of queries, keys, values and the output projection, in 12 blocks."""
    with torch.device("meta"):
        method = Supervised(
            Backbone("vit_base_patch16_224"), [f"finding {number}" for number in range(14)], adapt="lora"
        )
    counts = {name: weight.numel() for name, weight in trained(method).items()}
    head = counts.pop("head.weight") + counts.pop("head.bias")
    assert sum(counts.values()) == 12 * 4 * 8 * (768 + 768) == 589_824
    assert (sum(counts.values()) + head) / sum(weight.numel() for weight in method.parameters()) < 0.02


@pytest.mark.parametrize(
    ("layers", "ends"),
    [("attention", {"qkv", "proj"}), ("mlp", {"fc1", "fc2"}), ("all", {"qkv", "proj", "fc1", "fc2", "patch"})],
)
def test_the_layers_asked_for_have_adapters(layers: Any, ends: set[str]) -> None:
    names = {name.removeprefix("backbone.model.").replace("patch_embed.proj", "patch") for name in trained(made(adapt="lora", lora_layers=layers))}  # fmt: skip
    adapters = {name.rpartition(".") for name in names if not name.startswith("head")}
    assert {kind for *_, kind in adapters} == {"lora_a", "lora_b"}
    assert {layer.rpartition(".")[2] for layer, *_ in adapters} == ends


def test_bitfit_trains_the_biases_and_the_head() -> None:
    every = {name for name, _ in made().named_parameters()}
    assert trained(made(adapt="bitfit")).keys() == {name for name in every if name.endswith(".bias")} | {"head.weight"}


@pytest.mark.parametrize(
    ("more", "facts"),
    [
        (["--model", "test_resnet", "--adapt", "lora"], ("test_resnet", "attention", "--lora-layers all")),
        (["--model", "test_vit", "--adapt", "lora", "--lora-rank", "64"], ("--lora-rank 64", "lower")),
        (["--lora-rank", "4", "--lora-layers", "all"], ("--lora-rank and --lora-layers", "--adapt lora")),
        (["--adapt", "lora", "--lora-alpha", "0", "--lora-rank", "0"], ("--lora-rank 0", "--lora-alpha 0")),
        (["--adapt", "head", "--layer-decay", "0.5"], ("--layer-decay", "--adapt head")),
    ],
)
def test_what_has_no_effect_or_cannot_be_is_refused(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], facts: tuple[str, ...]
) -> None:
    assert cli.main(words(data, tmp_path / "run", *more)) == 2
    said = capsys.readouterr().err
    assert has_facts(said, *facts) and said.count("\n") == 1


# ---- a new adapter changes nothing, and a trained one is merged


MODELS: dict[str, tuple[str, Any, int]] = {
    "ViT": ("test_vit", "all", 32),
    "CNN": ("test_resnet", "all", 32),
    "attention by convolutions": ("visformer_tiny", "attention", 64),
}


@pytest.mark.parametrize("kind", MODELS)
def test_merged_weights_give_the_features_of_the_adapters(kind: str) -> None:
    name, layers, side = MODELS[kind]
    torch.manual_seed(0)
    backbone, plain = (Backbone(name, size=(side, side)).double().eval() for _ in range(2))
    images = torch.randn(3, 1, side, side, dtype=torch.float64)
    with torch.no_grad():
        before = backbone(images)
        adapt_backbone(backbone, "lora", LowRank(4, layers=layers))
        assert torch.equal(backbone(images), before)
        as_if_trained(backbone)
        after = backbone(images)
        plain.model.load_state_dict(merged_state(backbone.model))
        assert (after - before).abs().max() > 0.01
        torch.testing.assert_close(plain(images), after, rtol=1e-9, atol=1e-9)


def test_merged_in_single_precision_a_transformer_differs_by_rounding_only() -> None:
    method, plain = made(adapt="lora").eval(), made().eval()
    as_if_trained(method)
    nn.init.normal_(method.head.weight)
    load_plain_state(plain, plain_state(method), "here")
    images = torch.randn(4, 1, 32, 32)
    with torch.no_grad():
        found, expected = plain.logits(images), method.logits(images)
    assert (found - expected).abs().max() < 1e-6 * expected.abs().max()


def test_a_model_that_does_not_call_its_layers_is_adapted_too() -> None:
    """BEiT multiplies by the weight of its fused projection."""
    torch.manual_seed(0)
    model = Beit(img_size=32, patch_size=8, in_chans=1, num_classes=0, embed_dim=32, depth=2, num_heads=2).eval()
    plain = Beit(img_size=32, patch_size=8, in_chans=1, num_classes=0, embed_dim=32, depth=2, num_heads=2).eval()
    adapt_backbone(Small(model), "lora", LowRank(2))
    as_if_trained(model)
    images = torch.randn(2, 1, 32, 32)
    found = model(images)
    found.square().sum().backward()
    assert all(weight.grad is not None and weight.grad.any() for weight in trained(model).values())
    plain.load_state_dict(merged_state(model))
    torch.testing.assert_close(plain(images), found.detach(), rtol=1e-5, atol=1e-6)


def test_queries_keys_and_values_have_updates_of_the_rank_each() -> None:
    method = made(adapt="lora", lora_rank=3, lora_alpha=6)
    layer = method.backbone.model.blocks[0].attn.qkv
    as_if_trained(layer)
    update = (layer.weight - dict(layer.named_parameters())["weight"]).detach().double()
    assert [int(torch.linalg.matrix_rank(part, rtol=1e-4)) for part in update.chunk(3)] == [3, 3, 3]
    assert int(torch.linalg.matrix_rank(update, rtol=1e-4)) == 9
    by_hand = torch.cat([2 * b @ a for a, b in zip(layer.lora_a.chunk(3), layer.lora_b.chunk(3), strict=True)])
    torch.testing.assert_close(update.float(), by_hand.detach(), rtol=1e-4, atol=1e-6)


def test_an_adapter_moves_at_the_rate_of_its_layer() -> None:
    method = made(adapt="lora")
    optimizer = optim.optimizer(method, layer_decay=0.5)
    scales = {id(weight): group["scale"] for group in optimizer.param_groups for weight in group["params"]}
    assert scales.keys() == {id(weight) for weight in trained(method).values()}
    own = {name: scales[id(weight)] for name, weight in trained(method).items()}
    blocks = [
        own[f"backbone.model.blocks.{block}.attn.qkv.lora_b"] for block in range(len(method.backbone.model.blocks))
    ]
    assert blocks == [0.5 ** (len(blocks) - block) for block in range(len(blocks))] and own["head.weight"] == 1


def test_adapters_are_compiled_without_a_break() -> None:
    method = made(adapt="lora", lora_layers="all").eval()
    as_if_trained(method)
    images = torch.randn(2, 1, 32, 32)
    model: Any = method.backbone.model
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(images), model(images))


# ---- runs


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "phantom"
    assert cli.main(["import", "phantom", "--out", str(folder), "--images", "120", "--size", "32"]) == 0
    return folder


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of about 20 steps with adapters, without interruption."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    assert cli.main(words(data, out, *LORA, "--epochs", "4", "--lr", "0.01")) == 0
    return out


def weights(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "bundle" / "model.safetensors")


def test_a_stopped_run_with_adapters_ends_the_same(data: Path, whole: Path, tmp_path: Path) -> None:
    asked = words(data, tmp_path / "run", *LORA, "--epochs", "4", "--lr", "0.01")
    assert stopped(asked, tmp_path / "run", 7) == 75
    assert cli.main([*asked, "--resume"]) == 0
    assert equal(weights(tmp_path / "run"), weights(whole))


def test_checkpoints_hold_what_is_trained_and_need_the_same_initial_weights(
    data: Path, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    init, out = tmp_path / "init", tmp_path / "run"
    shutil.copytree(whole, init)
    more = [*LORA, "--init", str(init), "--epochs", "4", "--ema", "0.9"]
    asked = words(data, out, *more)
    assert stopped(asked, out, 3) == 75
    saved = checkpoint.load_checkpoint(out / "checkpoint.pt")["run"]
    kinds = {name.rpartition(".")[2] if "lora" in name else name for name in saved["method"]}
    assert kinds == {"lora_a", "lora_b", "head.weight", "head.bias", "present", "absent"}
    assert saved["average"] is not None and saved["average"].keys() == saved["method"].keys()
    assert cli.main(words(data, tmp_path / "other", "--model", "test_vit", "--epochs", "1")) == 0
    shutil.rmtree(init / "bundle")
    shutil.copytree(tmp_path / "other" / "bundle", init / "bundle")
    capsys.readouterr()
    assert cli.main([*asked, "--resume"]) == 2
    assert has_facts(capsys.readouterr().err, "checkpoint.pt", "--init")
    shutil.rmtree(init)
    shutil.copytree(whole, init)
    assert cli.main([*asked, "--resume"]) == 0
    assert cli.main(words(data, tmp_path / "straight", *more)) == 0
    assert equal(weights(out), weights(tmp_path / "straight"))


def test_the_bundle_is_plain_and_only_adapted_layers_have_changed(data: Path, whole: Path, tmp_path: Path) -> None:
    opened = load_classifier(whole)
    assert not any(isinstance(part, Adapter) for part in opened.method.modules())
    assert cli.main(words(data, tmp_path / "still", *LORA, "--epochs", "1", "--lr", "0")) == 0
    before, after = weights(tmp_path / "still"), weights(whole)
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    assert before.keys() == after.keys()
    assert changed == {
        name for name in after if name.startswith("head.") or name.endswith(("qkv.weight", "attn.proj.weight"))
    }


def test_two_processes_train_the_adapters_that_one_trains(data: Path, tmp_path: Path) -> None:
    asked = [*LORA, "--micro-batch", "4", "--ema", "0.9", "--epochs", "1"]
    assert cli.main(words(data, tmp_path / "one", *asked)) == 0
    said = processes.together(processes.command, words(data, tmp_path / "two", *asked), said=tmp_path / "said")
    assert has_facts(said[0], "weights are trained")
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    assert one.keys() == two.keys()
    for name, value in one.items():
        torch.testing.assert_close(
            two[name], value, rtol=2e-3, atol=2e-4, msg=lambda text, name=name: f"{name}: {text}"
        )
