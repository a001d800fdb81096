"""Folders of transformers' DINOv2 and DINOv3. Parity with the library: benchmarks/foundation_parity.py."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ribcage.bundle import formats
from ribcage.bundle.conversion import Converted, converted_model
from ribcage.bundle.formats.reading import preprocessor_config

RAD_DINO = {
    "crop_size": {"height": 518, "width": 518},
    "do_center_crop": True,
    "do_normalize": True,
    "do_rescale": True,
    "image_mean": [0.5307, 0.5307, 0.5307],
    "image_std": [0.2583, 0.2583, 0.2583],
    "rescale_factor": 0.00392156862745098,
    "size": {"shortest_edge": 518},
}
SCALE = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.2, 0.2, 0.2]}
OLD = {"q_proj": "attention.query", "k_proj": "attention.key", "v_proj": "attention.value", "o_proj": "output.dense"}


def random_timm(name: str, **options: Any) -> Any:
    """A model of timm in which every weight matters."""
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=0, global_pool="token", **options).eval()
    for value in model.parameters():
        nn.init.normal_(value, 0.3 if value.ndim < 2 else 0.0, 0.1 if value.ndim < 2 else 0.02)
    return model


def as_transformers(model: Any, *, old: bool = False) -> dict[str, Tensor]:
    """The weights of a timm model under the names of transformers 5; old: of transformers 4."""
    found: dict[str, Tensor] = {"embeddings.mask_token": torch.zeros(1, model.embed_dim)}
    three = not hasattr(model, "pos_embed") or model.pos_embed is None  # DINOv3
    names = {"cls_token": "cls_token", "reg_token": "register_tokens", "pos_embed": "position_embeddings"}
    for name, value in model.state_dict().items():
        value = value.detach().clone()
        if name in names:
            if name == "pos_embed" and model.no_embed_class:
                value = torch.cat([torch.zeros_like(value[:, :1]), value], 1)
            found[f"embeddings.{names[name]}"] = value
            continue
        if name.startswith(("patch_embed", "norm.")):
            patches = "embeddings.patch_embeddings." + "projection." * (not three)
            found[name.replace("patch_embed.proj.", patches).replace("norm.", "norm." if three else "layernorm.")] = (
                value
            )
            continue
        if not (match := re.fullmatch(r"blocks\.(\d+)\.(.+)", name)):
            continue
        block, part = ("layer." if three else "encoder.layer.") + f"{match[1]}.", match[2]
        if part.startswith("attn.qkv"):
            for one, each in zip("qkv", value.chunk(3), strict=True):
                found[f"{block}attention.{one}_proj.{part.split('.')[-1]}"] = each.contiguous()
        elif part in ("attn.q_bias", "attn.v_bias"):
            found[f"{block}attention.{part[5]}_proj.bias"] = value
        else:
            part = re.sub(r"^attn\.proj", "attention.o_proj", part)
            part = re.sub(r"^(ls|gamma_)(\d)(\.gamma)?$", r"layer_scale\2.lambda1", part)
            if three:
                part = part.replace("fc1_g", "gate_proj").replace("fc1_x", "up_proj")
                part = part.replace("fc1", "up_proj").replace("fc2", "down_proj")
            found[block + part] = value
    if old:
        swap = r"attention\.(q_proj|k_proj|v_proj|o_proj)\."
        found = {re.sub(swap, lambda m: f"attention.{OLD[m[1]]}.", name): value for name, value in found.items()}
    return found


@pytest.fixture(scope="module")
def model() -> Any:
    return random_timm("vit_small_patch14_dinov2", img_size=70)


def folder(
    path: Path, weights: dict[str, Tensor], config: dict[str, Any], preprocessing: dict[str, Any] | None = None
) -> Path:
    path.mkdir(exist_ok=True)
    save_file(weights, path / "model.safetensors")
    (path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    if preprocessing is not None:
        (path / preprocessor_config.PREPROCESSING).write_text(json.dumps(preprocessing), encoding="utf-8")
    return path / "model.safetensors"


def features(found: Converted, images: Tensor) -> Tensor:
    backbone = found.method.backbone
    return backbone.pool(backbone.model.forward_features(images))


@pytest.mark.parametrize("old", [False, True])
def test_rad_dino_is_read_with_its_preprocessing(tmp_path: Path, old: bool, model: Any) -> None:
    config = {"model_type": "dinov2", "image_size": 70}
    file = folder(tmp_path / "胸片 rad", as_transformers(model, old=old), config, RAD_DINO)
    found = formats.published(file)
    assert (found.layout, found.name) == ("transformers_dino", "vit_small_patch14_dinov2")
    assert (found.size, found.stored, found.fit, found.mean[0], found.std[0]) == (
        (518, 518),
        518,
        "crop",
        0.5307,
        0.2583,
    )
    assert found.stated == ("architecture", "preprocessing") and found.unused == ("embeddings.mask_token",)
    converted = converted_model(file, found, size=(70, 70))
    assert not converted.strange and all(not one.reason or one.name in found.unused for one in converted.tensors)
    images = torch.randn(2, 3, 70, 70)
    with torch.no_grad():
        assert torch.equal(features(converted, images), model(images))


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("vit_small_patch14_reg4_dinov2", "dinov2_with_registers"),
        ("vit_small_patch16_dinov3_qkvb", "dinov3_vit"),
        ("vit_small_plus_patch16_dinov3_qkvb", "dinov3_vit"),
    ],
)
def test_registers_and_dinov3_give_the_features_of_timm(tmp_path: Path, name: str, kind: str) -> None:
    side = 70 if "14" in name else 64
    model = random_timm(name, img_size=side)
    file = folder(tmp_path / "m", as_transformers(model), {"model_type": kind, "image_size": side})
    found = formats.published(file)
    assert (found.name, found.size, found.pool) == (name, (side, side), "token")
    images = torch.randn(2, 3, side, side)
    with torch.no_grad():
        assert torch.equal(features(converted_model(file, found), images), model(images))


def test_positions_of_dinov2_are_interpolated_without_antialiasing(tmp_path: Path, model: Any) -> None:
    file = folder(tmp_path / "m", as_transformers(model), {"model_type": "dinov2", "image_size": 70})
    converted = converted_model(file, formats.published(file), size=(42, 28))
    patches = model.pos_embed[:, 1:].unflatten(1, (5, 5)).permute(0, 3, 1, 2)
    expected = nn.functional.interpolate(patches, (3, 2), mode="bicubic", align_corners=False)
    found = converted.method.backbone.model.pos_embed
    assert torch.equal(found[:, 1:], expected.permute(0, 2, 3, 1).flatten(1, 2)) and found.shape[1] == 7
    assert torch.equal(found[:, 0], model.pos_embed[:, 0])


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (SCALE, {"size": (64, 64), "stored": 64}),
        (SCALE | {"size": 96}, {"size": (96, 96), "stored": 96}),
        (
            SCALE | {"size": {"shortest_edge": 256}, "crop_size": 224, "do_center_crop": True},
            {"size": (224, 224), "stored": 256},
        ),
        (SCALE | {"size": {"height": 784, "width": 644}}, {"size": (784, 644), "stored": 784, "fit": "squash"}),
        ({"do_normalize": False}, {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}),
    ],
)
def test_the_preprocessing_is_read(content: dict[str, Any], expected: dict[str, Any]) -> None:
    found = preprocessor_config.preprocessing(content, 64)
    assert {name: found[name] for name in expected} == expected


@pytest.mark.parametrize(
    "wrong",
    [
        SCALE | {"rescale_factor": 1.0},
        SCALE | {"do_resize": False},
        {"size": 96},  # without mean and standard deviation
        SCALE | {"image_std": [0, 1, 1]},
        SCALE | {"size": {"height": -1, "width": 3}},
        SCALE | {"size": {"longest_edge": 5}},
        SCALE | {"size": {"height": 9, "width": 9}, "crop_size": 8, "do_center_crop": True},
        SCALE | {"size": [3]},
        SCALE | {"crop_size": {"height": 10**9, "width": 1}, "do_center_crop": True, "size": 5},
    ],
)
def test_unsupported_preprocessing_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises((KeyError, TypeError, ValueError)):
        preprocessor_config.preprocessing(wrong, 64)


def test_stretching_images_to_another_shape_than_a_square_is_refused(tmp_path: Path, model: Any) -> None:
    steps = SCALE | {"size": {"height": 84, "width": 70}}
    file = folder(tmp_path / "m", as_transformers(model), {"model_type": "dinov2", "image_size": 70}, steps)
    with pytest.raises(ValueError, match="84 × 70") as error:
        converted_model(file, found := formats.published(file))
    assert "--size" in str(error.value)
    assert converted_model(file, found, size=(70, 70)).model.fit == "squash"


def test_a_weight_that_is_left_over_or_missing_is_refused(tmp_path: Path, model: Any) -> None:
    weights = as_transformers(model)
    more = weights | {"encoder.layer.0.adapter.weight": torch.zeros(3, 3)}
    file = folder(tmp_path / "m", more, {"model_type": "dinov2", "image_size": 70})
    with pytest.raises(ValueError, match="adapter"):
        converted_model(file, formats.published(file))
    less = {name: value for name, value in weights.items() if "layer.3.attention.k" not in name}
    file = folder(tmp_path / "n", less, {"model_type": "dinov2", "image_size": 70})
    with pytest.raises(ValueError, match=re.escape("blocks.3.attn.k")):
        formats.published(file)
    file = folder(tmp_path / "n", weights, {"model_type": "dinov2", "image_size": 70}, {"size": [3]})
    with pytest.raises(ValueError, match=preprocessor_config.PREPROCESSING):
        formats.published(file)
    (file.parent / preprocessor_config.PREPROCESSING).write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match=preprocessor_config.PREPROCESSING):
        formats.published(file)


def test_other_kinds_of_models_are_left_to_other_layouts(tmp_path: Path) -> None:
    file = folder(tmp_path / "m", {"a.weight": torch.zeros(2, 2)}, {"model_type": ["dinov2"]})
    assert not formats.published(file).layout
