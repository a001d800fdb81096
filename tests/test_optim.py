"""Learning rates by hand, and which weights are decayed, how fast each layer moves, and that none is forgotten."""

import itertools
import math
from typing import Any

import pytest
import torch

from ribcage import optim
from ribcage.backbone import Backbone
from ribcage.methods.supervised import Supervised
from ribcage.optim import Rates

# ---- rates


def test_the_rate_rises_in_a_straight_line_and_falls_as_a_cosine() -> None:
    rates = Rates(0.8, steps=12, warmup=4, floor=0.1)
    assert [rates.at(step) for step in range(5)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 0.8])
    assert rates.at(8) == pytest.approx(0.1 + 0.7 / 2)
    assert rates.at(6) == pytest.approx(0.1 + 0.7 * (1 + math.cos(math.pi / 4)) / 2)
    assert rates.at(12) == rates.at(50) == pytest.approx(0.1)


def test_steps_fall_at_shares_of_the_whole_run() -> None:
    rates = Rates(1.0, steps=10, schedule="step", decay_at=(0.5, 0.8), decay_by=0.1)
    assert [rates.at(step) for step in (0, 4, 5, 7, 8, 9)] == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])


def test_a_constant_rate_stays_after_its_rise() -> None:
    rates = Rates(0.5, steps=10, warmup=2, schedule="constant")
    assert [rates.at(step) for step in (0, 1, 2, 9)] == [0.25, 0.5, 0.5, 0.5]


@pytest.mark.parametrize("schedule", ["cosine", "step", "constant"])
def test_a_rise_longer_than_the_run_is_no_error(schedule: Any) -> None:
    assert all(Rates(1.0, steps=3, warmup=5, schedule=schedule).at(step) <= 1 for step in range(6))


# ---- groups


def method(name: str, **options: Any) -> Supervised:
    torch.manual_seed(0)
    return Supervised(Backbone(name, size=(64, 64)), ("a", "b"), **options)


def of_each_weight(made: Supervised, **options: Any) -> dict[str, dict[str, Any]]:
    """Name → the group a weight is in; an error when it is in two."""
    names = {id(weight): name for name, weight in made.named_parameters()}
    found: dict[str, dict[str, Any]] = {}
    for group in optim.optimizer(made, **options).param_groups:
        for weight in group["params"]:
            assert names[id(weight)] not in found
            found[names[id(weight)]] = group
    return found


MODELS = ("test_resnet", "test_vit", "test_efficientnet", "swin_tiny_patch4_window7_224", "resnet18_small")


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("layer_decay", [1.0, 0.5])
def test_every_weight_is_in_one_group(name: str, layer_decay: float) -> None:
    made = method(name)
    assert set(of_each_weight(made, layer_decay=layer_decay)) == {key for key, _ in made.named_parameters()}


@pytest.mark.parametrize("name", MODELS)
def test_a_frozen_backbone_is_in_no_group(name: str) -> None:
    assert set(of_each_weight(method(name, freeze=True), layer_decay=0.5)) == {"head.weight", "head.bias"}


@pytest.mark.parametrize("name", MODELS)
def test_biases_norms_and_embeddings_of_positions_are_not_decayed(name: str) -> None:
    made = method(name)
    groups = of_each_weight(made, weight_decay=0.3)
    spared = ("pos_embed", "cls_token", "relative_position_bias_table")
    for key, weight in made.named_parameters():
        plain = weight.ndim == 1 or any(word in key for word in spared)
        assert groups[key]["weight_decay"] == (0.0 if plain else 0.3), key
    assert {group["weight_decay"] for group in groups.values()} == {0.0, 0.3}


@pytest.mark.parametrize(
    ("name", "order"),
    [
        ("test_resnet", ["conv1.0.weight", "layer1.0.conv1.weight", "layer3.0.conv1.weight", "layer4.0.conv1.weight"]),
        ("test_vit", ["patch_embed.proj.weight", "blocks.0.attn.qkv.weight", "blocks.3.attn.qkv.weight"]),
        ("test_efficientnet", ["conv_stem.weight", "blocks.1.0.conv_exp.weight", "conv_head.weight"]),
    ],
)
def test_layers_move_slower_towards_the_input(name: str, order: list[str]) -> None:
    groups = of_each_weight(method(name), layer_decay=0.5)
    scales = [groups[f"backbone.model.{key}"]["scale"] for key in order]
    assert scales == sorted(scales) and len(set(scales)) == len(scales)
    assert scales[0] == min(group["scale"] for group in groups.values())
    assert groups["head.weight"]["scale"] == groups["head.bias"]["scale"] == 1
    assert max(group["scale"] for key, group in groups.items() if not key.startswith("head")) == 0.5


def test_a_transformers_blocks_are_a_factor_apart() -> None:
    groups = of_each_weight(method("test_vit"), layer_decay=0.5)
    scales = [groups[f"backbone.model.blocks.{block}.mlp.fc1.weight"]["scale"] for block in range(4)]
    assert [later / earlier for earlier, later in itertools.pairwise(scales)] == [2, 2, 2]
    assert groups["backbone.model.pos_embed"]["scale"] == groups["backbone.model.patch_embed.proj.weight"]["scale"]


def test_without_layer_decay_all_move_alike() -> None:
    assert {group["scale"] for group in of_each_weight(method("test_vit")).values()} == {1.0}


# ---- steps


@pytest.mark.parametrize("kind", ["adamw", "sgd", "lars"])
def test_every_optimizer_moves_all_weights_at_its_rate(kind: Any) -> None:
    made = method("test_vit")
    optimizer = optim.optimizer(made, kind, layer_decay=0.5)
    before = {key: weight.clone() for key, weight in made.named_parameters()}
    made.logits(torch.randn(4, 1, 64, 64)).square().mean().backward()
    optimizer.step()
    assert all(torch.equal(weight, before[key]) for key, weight in made.named_parameters()), "no rate yet"
    optim.set_rate(optimizer, 0.01)
    assert {group["lr"] / group["scale"] for group in optimizer.param_groups} == {0.01}
    optimizer.step()
    moved = {key for key, weight in made.named_parameters() if not torch.equal(weight, before[key])}
    still = {key for key, weight in made.named_parameters() if weight.grad is None or not weight.grad.any()}
    assert moved | still == set(before) and len(moved) > len(before) / 2
    assert all(weight.isfinite().all() for weight in made.parameters())


def test_adamw_decays_what_it_should() -> None:
    made = method("test_vit")
    optimizer = optim.optimizer(made, weight_decay=0.5)
    optim.set_rate(optimizer, 0.1)
    before = made.head.weight.detach().clone()
    for weight in made.parameters():
        weight.grad = torch.zeros_like(weight)
    optimizer.step()
    torch.testing.assert_close(made.head.weight.detach(), before * (1 - 0.1 * 0.5))
