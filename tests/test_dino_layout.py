"""Checkpoints of DINO, DINOv2 and DINOv3 under the names of their authors, who do not publish a package."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from test_transformers_dino import features, random_timm
from torch import Tensor

from ribcage.bundle import formats
from ribcage.bundle.conversion import converted_model


def as_authors(model: Any, *, chunks: bool = False) -> dict[str, Tensor]:
    """The weights of a timm model under the names of DINOv2; without `pos_embed`, under those of DINOv3."""
    state, third = {name: value.clone() for name, value in model.state_dict().items()}, model.pos_embed is None
    found: dict[str, Tensor] = {"mask_token": torch.zeros(1, model.embed_dim)}
    for name, value in state.items():
        new = name.replace("reg_token", "storage_tokens" if third else "register_tokens")
        new = re.sub(r"\.gamma_(\d)$", r".ls\1.gamma", new)
        new = new.replace("fc1_g", "w1").replace("fc1_x", "w2")
        new = new.replace("fc2", "w3") if "blocks.0.mlp.fc1_g.weight" in state else new
        if name == "pos_embed" and model.no_embed_class:
            value = torch.cat([torch.zeros_like(value[:, :1]), value], 1)
        if name.endswith("attn.q_bias"):
            value = torch.cat([value, torch.zeros_like(value), state[name.replace("q_bias", "v_bias")]])
            new = new.replace("q_bias", "qkv.bias")
        if name.endswith(("attn.v_bias", "attn.k_bias", "rope.periods")):
            continue
        found[re.sub(r"^blocks\.(\d+)", lambda m: f"blocks.{int(m[1]) // 4}.{m[1]}", new) if chunks else new] = value
    return found


@pytest.mark.parametrize(
    ("name", "side", "chunks"),
    [
        ("vit_small_patch14_dinov2", 42, False),
        ("vit_small_patch16_reg4_dinov2", 48, True),  # numbered like CheXFound
        ("vit_small_plus_patch16_dinov3_qkvb", 256, False),
    ],
)
def test_the_teacher_of_a_checkpoint_gives_the_features_of_timm(
    tmp_path: Path, name: str, side: int, chunks: bool
) -> None:
    model = random_timm(name, img_size=side)
    heads = {"dino_head.mlp.0.weight": torch.ones(2, 2), "ibot_head.last_layer.weight": torch.ones(2, 2)}
    teacher = heads | {f"backbone.{one}": value for one, value in as_authors(model, chunks=chunks).items()}
    student = {one: torch.zeros_like(value) for one, value in teacher.items()}
    torch.save({"student": student, "teacher": teacher}, tmp_path / "chk.pth")
    found = formats.published(tmp_path / "chk.pth")
    assert (found.layout, found.name, found.size, found.pool) == ("dino", name, (side, side), "token")
    converted = converted_model(tmp_path / "chk.pth", found)
    reasons = {one.name: one.reason for one in converted.tensors}
    assert all(reasons[one] for one in heads) and not reasons["backbone.blocks.0.0.norm1.weight" if chunks else
                                                              "backbone.blocks.0.norm1.weight"]  # fmt: skip
    images = torch.randn(1, 3, side, side)
    with torch.no_grad():
        assert torch.equal(features(converted, images), model(images))


def test_a_bare_backbone_is_read_and_biases_of_keys_are_refused(tmp_path: Path) -> None:
    weights = as_authors(random_timm("vit_small_patch16_dinov3_qkvb", img_size=32))
    torch.save(weights, tmp_path / "bare.pth")
    assert formats.published(tmp_path / "bare.pth").name == "vit_small_patch16_dinov3_qkvb"
    masked = torch.cat([torch.ones(384), torch.zeros(384), torch.ones(384)])
    torch.save(
        weights
        | {"blocks.3.attn.qkv.bias": weights["blocks.3.attn.qkv.bias"] + 1, "blocks.3.attn.qkv.bias_mask": masked},
        tmp_path / "masked.pth",
    )
    found = formats.published(tmp_path / "masked.pth").state
    expected = weights["blocks.3.attn.qkv.bias"][:384] + 1
    assert torch.equal(found["blocks.3.attn.q_bias"], expected) and "blocks.3.attn.qkv.bias_mask" not in found
    weights["blocks.3.attn.qkv.bias"] += 1
    torch.save(weights, tmp_path / "keys.pth")
    with pytest.raises(ValueError, match=re.escape("blocks.3.attn.qkv.bias")):
        formats.published(tmp_path / "keys.pth")
    weights = {f"block.{name}" if name.startswith("blocks.5") else name: value for name, value in weights.items()}
    torch.save(weights, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"other\.pth"):
        formats.published(tmp_path / "other.pth")
