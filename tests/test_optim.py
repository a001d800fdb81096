"""Learning rates by hand; weight decay and layer decay of every weight."""

import itertools
import math
import re
from typing import Any

import pytest
import timm
import torch

from ribcage.methods.supervised import Supervised
from ribcage.models.backbone import Backbone
from ribcage.training import optim
from ribcage.training.optim import Rates

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


def test_unless_told_otherwise_steps_fall_tenfold_at_60_and_80_percent() -> None:
    rates = Rates(1.0, steps=10, schedule="step")
    assert [rates.at(step) for step in (5, 6, 7, 8)] == pytest.approx([1, 0.1, 0.1, 0.01])


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
    assert set(of_each_weight(method(name, adapt="head"), layer_decay=0.5)) == {"head.weight", "head.bias"}


@pytest.mark.parametrize("name", MODELS)
def test_biases_norms_and_embeddings_of_positions_are_not_decayed(name: str) -> None:
    made = method(name)
    groups = of_each_weight(made, weight_decay=0.3)
    spared = ("pos_embed", "cls_token", "relative_position_bias_table")
    for key, weight in made.named_parameters():
        plain = weight.ndim == 1 or any(word in key for word in spared)
        assert groups[key]["weight_decay"] == (0.0 if plain else 0.3), key
    assert {group["weight_decay"] for group in groups.values()} == {0.0, 0.3}


VIT = {"cls_token": 13, "pos_embed": 13, "patch_embed.proj.weight": 13, "blocks.0.attn.qkv.weight": 12,
       "blocks.6.norm1.bias": 6, "blocks.11.mlp.fc2.weight": 1}  # fmt: skip
EXPONENTS = {
    ("vit_small_patch16_224", "avg"): {**VIT, "fc_norm.weight": 0},
    ("vit_small_patch16_224", "token"): {**VIT, "norm.weight": 0},
    ("deit_tiny_distilled_patch16_224", ""): {**VIT, "dist_token": 13, "norm.bias": 0},
    ("beit_base_patch16_224", "avg"): {"cls_token": 13, "blocks.0.attn.relative_position_bias_table": 12,
                                       "blocks.11.mlp.fc2.weight": 1, "fc_norm.bias": 0},
    ("cait_xxs24_224", ""): {"pos_embed": 25, "blocks.0.attn.qkv.weight": 24, "blocks.23.attn.qkv.weight": 1,
                             "blocks_token_only.1.attn.q.weight": 1, "norm.weight": 0},
    # stages of 2, 2, 6 and 2 blocks; what makes a stage smaller comes first in it
    ("swin_tiny_patch4_window7_224", ""): {"patch_embed.norm.weight": 13, "layers.0.blocks.0.norm1.weight": 12,
                                           "layers.1.downsample.reduction.weight": 10, "layers.2.blocks.5.norm1.bias": 3,
                                           "layers.3.blocks.1.attn.relative_position_bias_table": 1, "norm.weight": 0},
    ("autoformer_v2_tiny", ""): {"patch_embed.proj.weight": 13, "layers.0.blocks.0.norm1.weight": 12,
                                 "layers.3.blocks.1.mlp.fc2.weight": 1, "norm.weight": 0},
    ("convnext_atto", ""): {"stem.0.weight": 13, "stages.0.blocks.0.conv_dw.weight": 12, "stages.1.downsample.1.weight": 10,
                            "stages.3.blocks.1.mlp.fc2.weight": 1, "head.norm.weight": 0},
    # 3, 4, 6 and 3 blocks; nothing behind the last
    ("resnet50", ""): {"conv1.weight": 17, "bn1.bias": 17, "layer1.0.conv1.weight": 16, "layer1.0.downsample.0.weight": 16,
                       "layer4.0.conv1.weight": 3, "layer4.2.bn3.weight": 1},
    ("resnet18_slim", ""): {"conv1.weight": 9, "layer1.0.conv1.weight": 8, "layer4.1.conv2.weight": 1},
    # 6, 12, 24 and 16 layers; a transition is as deep as the layer before it
    ("densenet121", ""): {"features.conv0.weight": 59, "features.norm0.bias": 59,
                          "features.denseblock1.denselayer1.conv1.weight": 58,
                          "features.denseblock1.denselayer6.conv2.weight": 53, "features.transition1.conv.weight": 53,
                          "features.denseblock2.denselayer1.conv1.weight": 52,
                          "features.denseblock4.denselayer16.conv2.weight": 1, "features.norm5.weight": 0},
    # 7, 4 and 4 blocks
    ("visformer_tiny", ""): {"stem.0.weight": 16, "pos_embed1": 16, "patch_embed1.proj.weight": 16,
                             "stage1.0.mlp.conv1.weight": 15, "pos_embed2": 8, "patch_embed2.proj.weight": 8,
                             "stage2.0.mlp.conv1.weight": 8, "stage3.3.mlp.conv3.weight": 1, "norm.weight": 0},
    ("test_efficientnet", ""): {"conv_stem.weight": 6, "blocks.0.0.conv.weight": 5, "blocks.4.0.bn3.bias": 1,
                                "conv_head.weight": 0, "bn2.weight": 0},
    ("eeea_net_c2", ""): {"first_conv.conv.weight": 20, "blocks.0.mobile_inverted_conv.depth_conv.conv.weight": 19,
                          "final_expand_layer.conv.weight": 0, "feature_mix_layer.conv.weight": 0},
}  # fmt: skip
"""By hand: how many factors of the layer decay a weight has. BEiT and MAE: stem 13, block 0 12, block 11 1, last norm 0."""


@pytest.mark.parametrize(("name", "pool"), EXPONENTS)
def test_layers_are_counted_as_beit_and_mae_count_them(name: str, pool: str) -> None:
    with torch.device("meta"):
        model = timm.create_model(name, num_classes=0, **({"global_pool": pool} if pool else {}))
    layers = optim.layers(model)
    head = max(layers.values()) + 1
    assert {key: head - layers.get(key, head) for key in EXPONENTS[name, pool]} == EXPONENTS[name, pool]
    assert set(layers) < {key for key, _ in model.named_parameters()} or name.startswith("resnet")


FAMILIES = (
    "vit_tiny_patch16_224", "deit_tiny_patch16_224", "eva02_tiny_patch14_224", "swinv2_cr_tiny_224", "davit_tiny",
    "hiera_tiny_224", "pvt_v2_b0", "mvitv2_tiny", "tiny_vit_5m_224", "levit_128s", "caformer_s18", "pit_ti_224",
    "convmixer_768_32", "inception_next_atto", "repvit_m1", "resnet18", "resnetv2_18", "res2net50d", "skresnet18",
    "regnetx_002", "densenet121", "dpn68", "dla34", "vgg11", "ghostnet_050", "mobilenetv3_small_050", "mobilevit_s",
    "efficientvit_b0", "hgnet_tiny", "rexnet_100", "eeea_net_c1", "resnet18_small",
)  # fmt: skip
"""A small member of many families of timm, of PiT and MetaFormer, which do not number their layers, and of our own."""


@pytest.mark.parametrize("name", FAMILIES)
def test_layers_of_every_family_are_numbered_in_their_order(name: str) -> None:
    """In each series of weights that differ by the numbers of their blocks only, a later one is no less deep."""
    with torch.device("meta"):
        model = timm.create_model(name, num_classes=0)
    layers, names = optim.layers(model), [key for key, _ in model.named_parameters()]
    last = max(layers.values())
    depths = {key: layers.get(key, last + 1) for key in names}
    assert set(depths.values()) - {last + 1} == set(range(last + 1)) and last > 2 and depths[names[0]] == 0
    series: dict[str, list[tuple[list[int], int]]] = {}
    for key, depth in depths.items():
        numbers = [int(digits) for digits in re.findall(r"\d+", key)]
        series.setdefault(re.sub(r"\d+", "#", key), []).append((numbers, depth))
    assert max(map(len, series.values())) > 2
    for pattern, found in series.items():
        in_order = [depth for _, depth in sorted(found)]
        assert in_order == sorted(in_order), pattern


@pytest.mark.parametrize("pool", ["avg", "token"])
def test_the_last_norm_moves_with_the_head_whatever_the_pooling(pool: str) -> None:
    made = Supervised(Backbone("test_vit", size=(64, 64), pool=pool), ("a", "b"))
    groups = of_each_weight(made, layer_decay=0.5)
    norm = "fc_norm" if pool == "avg" else "norm"
    assert {groups[key]["scale"] for key in groups if norm in key.split(".") or key.startswith("head")} == {1}
    last = len(made.backbone.model.blocks) - 1
    scales = {key: group["scale"] for key, group in groups.items()}
    assert scales[f"backbone.model.blocks.{last}.norm1.weight"] == 0.5
    assert scales["backbone.model.pos_embed"] == 0.5 ** (last + 2)


def test_a_model_that_does_not_number_its_layers_is_refused() -> None:
    with pytest.raises(ValueError, match=r"--layer-decay.*Linear"):
        optim.layers(torch.nn.Linear(1, 1))


def test_a_transformers_blocks_are_a_factor_apart() -> None:
    groups = of_each_weight(method("test_vit"), layer_decay=0.5)
    scales = [groups[f"backbone.model.blocks.{block}.mlp.fc1.weight"]["scale"] for block in range(4)]
    assert [later / earlier for earlier, later in itertools.pairwise(scales)] == [2, 2, 2]
    assert groups["backbone.model.pos_embed"]["scale"] == groups["backbone.model.patch_embed.proj.weight"]["scale"]


def test_without_layer_decay_all_move_alike() -> None:
    assert {group["scale"] for group in of_each_weight(method("test_vit")).values()} == {1.0}


def test_without_layer_decay_a_model_need_not_number_its_layers() -> None:
    made = method("test_vit")
    made.backbone.model = torch.nn.Linear(2, 3)
    assert {group["scale"] for group in optim.optimizer(made).param_groups} == {1.0}


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


def test_an_optimizer_has_the_momenta_it_is_given() -> None:
    made = method("test_vit")
    adamw, sgd, lars = (
        optim.optimizer(made, kind, betas=(0.8, 0.95), momentum=0.7) for kind in ("adamw", "sgd", "lars")
    )
    assert {group["betas"] for group in adamw.param_groups} == {(0.8, 0.95)}
    assert {group["momentum"] for each in (sgd, lars) for group in each.param_groups} == {0.7}


def test_lars_scales_matrices_and_no_vectors_by_their_norm() -> None:
    made = method("test_vit")
    optimizer = optim.optimizer(made, "lars", weight_decay=0.0)
    optim.set_rate(optimizer, 1.0)
    before = {name: weight.detach().clone() for name, weight in made.named_parameters()}
    for weight in made.parameters():
        weight.grad = torch.ones_like(weight)
    optimizer.step()
    moved = {name: (before[name] - weight.detach()).abs().max().item() for name, weight in made.named_parameters()}
    head, bias = before["head.weight"], moved["head.bias"]
    assert bias == pytest.approx(1)  # rate × gradient
    assert moved["head.weight"] == pytest.approx(
        0.001 * head.norm().item() / head.numel() ** 0.5, rel=1e-4
    )  # LARS, eq. 6


# ---- many weights in one kernel


def test_lars_updates_all_weights_together_as_it_does_one_by_one() -> None:
    """timm selects the multi-tensor functions on GPUs; their norms and updates differ by rounding only."""
    found = []
    for foreach in (False, True):
        made = method("test_vit")
        lars = optim.optimizer(made, "lars", weight_decay=1e-4)
        for group in lars.param_groups:
            group["foreach"] = foreach
        for seed in range(3):
            torch.manual_seed(seed)
            for weight in made.parameters():
                weight.grad = torch.randn_like(weight)
            optim.set_rate(lars, 0.3)
            lars.step()
        found.append(dict(made.named_parameters()))
    for name, weight in found[0].items():
        torch.testing.assert_close(found[1][name], weight, rtol=1e-5, atol=1e-6)
