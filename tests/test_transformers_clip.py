"""Folders of transformers' CLIP and SigLIP. Parity with the library: benchmarks/foundation_parity.py."""

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from test_formats import linear
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from ribcage.bundle import formats
from ribcage.bundle.conversion import converted_model
from ribcage.bundle.formats import transformers_clip, transformers_siglip
from ribcage.bundle.formats.reading.preprocessor_config import PREPROCESSING
from ribcage.bundle.formats.reading.transformers_vision import tower_weights
from ribcage.models.pretrained import laid_over

CLIP = {
    "model_type": "clip",
    "vision_config": {"num_attention_heads": 4, "hidden_act": "gelu", "image_size": 64, "patch_size": 16},
}
TEXT = {"text_model.embeddings.token_embedding.weight": (9, 4), "logit_scale": ()}
CLIP_TEXT = TEXT | {"visual_projection.weight": (8, 256), "text_projection.weight": (8, 4)}
STEPS = {
    "size": {"shortest_edge": 72},
    "crop_size": 64,
    "do_center_crop": True,
    "image_mean": [0.4, 0.4, 0.4],
    "image_std": [0.2, 0.2, 0.3],
}


def tower(width: int, depth: int, side: int, patch: int = 16, hidden: int = 0, pooled: bool = False) -> dict[str, Any]:
    """Names and shapes of an image tower: of CLIP or, with attention pooling, of SigLIP."""
    hidden, at = hidden or 4 * width, "embeddings"
    tokens = (side // patch) ** 2 + (not pooled)
    shapes: dict[str, Any] = {f"{at}.position_embedding.weight": (tokens, width)}
    shapes |= {f"{at}.patch_embedding.weight": (width, 3, patch, patch)} | linear("post_layernorm", width)
    if pooled:
        shapes |= {f"{at}.patch_embedding.bias": (width,), "head.probe": (1, 1, width)} | linear(
            "head.layernorm", width
        )
        shapes |= {"head.attention.in_proj_weight": (3 * width, width), "head.attention.in_proj_bias": (3 * width,)}
        shapes |= linear("head.attention.out_proj", width, width)
        shapes |= linear("head.mlp.fc1", hidden, width) | linear("head.mlp.fc2", width, hidden)
    else:
        shapes |= {f"{at}.class_embedding": (width,)} | linear("pre_layrnorm", width)
    for block in (f"encoder.layers.{number}" for number in range(depth)):
        shapes |= linear(f"{block}.layer_norm1", width) | linear(f"{block}.layer_norm2", width)
        for one in ("q", "k", "v", "out"):
            shapes |= linear(f"{block}.self_attn.{one}_proj", width, width)
        shapes |= linear(f"{block}.mlp.fc1", hidden, width) | linear(f"{block}.mlp.fc2", width, hidden)
    return {f"vision_model.{name}": shape for name, shape in shapes.items()}


def drawn(shapes: dict[str, Any]) -> dict[str, Tensor]:
    drawing = torch.Generator().manual_seed(3)
    weights = {name: torch.randn(shape, generator=drawing) * 0.05 for name, shape in shapes.items()}
    return weights | {name: 4 * value + 1.0 * ("weight" in name) for name, value in weights.items() if value.ndim == 1}


def by_hand(weights: dict[str, Tensor], images: Tensor, depth: int, activation: Any, eps: float) -> Tensor:
    """(N, width): the class token after the last norm or, if there is a head, what its probe attends to."""
    w = {name.removeprefix("vision_model."): value for name, value in weights.items()}

    def layer(name: str, x: Tensor) -> Tensor:
        return F.linear(x, w[f"{name}.weight"], w[f"{name}.bias"])

    def normed(name: str, x: Tensor) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"], eps)

    bias = w.get("embeddings.patch_embedding.bias")
    x = F.conv2d(images, w["embeddings.patch_embedding.weight"], bias, 16).flatten(2).mT
    if "embeddings.class_embedding" in w:
        x = torch.cat([w["embeddings.class_embedding"].expand(len(x), 1, -1), x], 1)
    x = x + w["embeddings.position_embedding.weight"]
    x = normed("pre_layrnorm", x) if "pre_layrnorm.weight" in w else x
    for block in (f"encoder.layers.{number}" for number in range(depth)):
        y = normed(f"{block}.layer_norm1", x)
        q, k, v = (
            layer(f"{block}.self_attn.{one}_proj", y).unflatten(2, (4, -1)).transpose(1, 2) for one in ("q", "k", "v")
        )
        y = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1) @ v
        x = x + layer(f"{block}.self_attn.out_proj", y.transpose(1, 2).flatten(2))
        y = activation(layer(f"{block}.mlp.fc1", normed(f"{block}.layer_norm2", x)))
        x = x + layer(f"{block}.mlp.fc2", y)
    x = normed("post_layernorm", x)
    if "head.probe" not in w:
        return x[:, 0]
    start, attention = "head.attention.", nn.MultiheadAttention(x.shape[2], 4, batch_first=True)
    attention.load_state_dict({name.removeprefix(start): w[name] for name in w if name.startswith(start)})
    x = attention(w["head.probe"].expand(len(x), -1, -1), x, x)[0]
    x = x + layer("head.mlp.fc2", activation(layer("head.mlp.fc1", normed("head.layernorm", x))))
    return x[:, 0]


def folder(path: Path, weights: dict[str, Tensor], config: Any, steps: Any = None) -> Path:
    path.mkdir(exist_ok=True)
    save_file(weights, path / "model.safetensors")
    (path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    if steps is not None:
        (path / PREPROCESSING).write_text(json.dumps(steps), encoding="utf-8")
    return path / "model.safetensors"


def without_numbers(shapes: dict[str, Any]) -> dict[str, Tensor]:
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


@pytest.fixture(scope="module")
def clip() -> dict[str, Tensor]:
    return drawn(tower(256, 10, 64) | CLIP_TEXT)


@pytest.mark.parametrize("alone", [False, True])
def test_a_clip_model_gives_the_features_of_its_library(tmp_path: Path, clip: dict[str, Tensor], alone: bool) -> None:
    """Also in a folder of the image tower alone, whose settings are not nested and whose names have no prefix."""
    weights, config = clip, CLIP
    if alone:
        weights = {name[13:]: value for name, value in clip.items() if name.startswith("vision_model.")}
        config = {"model_type": "clip_vision_model", **CLIP["vision_config"]}  # type: ignore[dict-item]
    file = folder(tmp_path / "胸片 clip", weights, config, STEPS)
    found = formats.published(file)
    assert (found.layout, found.name) == ("transformers_clip", "vit_xsmall_patch16_clip_224")
    assert (found.size, found.stored, found.fit, found.std) == ((64, 64), 72, "crop", (0.2, 0.2, 0.3))
    assert set(found.unused) == (set() if alone else set(CLIP_TEXT))
    made, images = converted_model(file, found), torch.randn(2, 3, 64, 64)
    backbone = made.method.backbone
    with torch.inference_mode():
        expected = by_hand(clip, images, 10, F.gelu, 1e-5)
        torch.testing.assert_close(
            backbone.pool(backbone.model.forward_features(images)), expected, rtol=1e-4, atol=1e-4
        )


def test_the_attention_pooling_of_siglip_is_read() -> None:
    weights = drawn(tower(64, 2, 64, hidden=256, pooled=True) | TEXT)
    state, converted, unused = tower_weights(weights | {"vision_model.embeddings.position_ids": torch.arange(16)})
    assert set(unused) == {*TEXT, "vision_model.embeddings.position_ids"}
    assert converted["attn_pool.kv.bias"] == ("vision_model.head.attention.in_proj_bias",)
    options: dict[str, Any] = {"class_token": False, "global_pool": "map", "act_layer": "gelu_tanh", "num_classes": 0}
    model = VisionTransformer(img_size=64, embed_dim=64, depth=2, num_heads=4, **options).eval()
    coverage = laid_over(model, "vit_base_patch16_siglip_tanh_224", state, "w")
    assert not coverage.lost and not coverage.unexpected
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        expected = by_hand(weights, images, 2, lambda x: F.gelu(x, approximate="tanh"), 1e-6)
        torch.testing.assert_close(model(images), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("vision", "shape", "name"),
    [
        ({}, (768, 12, 224), "vit_base_patch16_siglip_tanh_224"),
        ({"hidden_act": "gelu", "image_size": 256}, (768, 12, 256), "vit_base_patch16_siglip_224"),
        (
            {"num_attention_heads": 16, "image_size": 448, "patch_size": 14},
            (1152, 27, 448, 14, 4304),
            "vit_so400m_patch14_siglip_tanh_224",
        ),
    ],
)
def test_the_size_and_activation_of_siglip_are_read(tmp_path: Path, vision: Any, shape: Any, name: str) -> None:
    """The settings that transformers omits are its defaults. The activation of the architecture is that of the file."""
    file = folder(tmp_path, {"a": torch.zeros(1)}, {"model_type": "siglip", "vision_config": vision})
    shapes = tower(*shape[:3], *shape[3:], pooled=True)
    found = transformers_siglip.published(without_numbers(shapes), file.with_name("config.json"))
    side = vision.get("image_size", 224)
    assert found is not None and (found.name, found.size, found.mean) == (name, (side, side), (0.5, 0.5, 0.5))
    with torch.device("meta"):
        model: Any = timm.create_model(name)
    wanted = "GELU" if vision.get("hidden_act") == "gelu" else "GELUTanh"
    assert {type(part.mlp.act).__name__ for part in (*model.blocks, model.attn_pool)} == {wanted}


def test_a_weight_that_is_left_over_or_missing_is_refused(tmp_path: Path, clip: dict[str, Tensor]) -> None:
    for strange in ("vision_model.encoder.layers.3.adapter.weight", "classifier.weight"):
        file = folder(tmp_path, clip | {strange: torch.zeros(3)}, CLIP)
        with pytest.raises(ValueError, match=strange.split(".")[-2]):
            converted_model(file, formats.published(file))
    for missing, fact in (("self_attn.k_proj.bias", r"attn\.k\.bias"), ("mlp.fc2.bias", "no clip model")):
        less = {name: value for name, value in clip.items() if name != f"vision_model.encoder.layers.3.{missing}"}
        with pytest.raises(ValueError, match=fact):
            formats.published(folder(tmp_path, less, CLIP))
    twice = clip | {"post_layernorm.bias": torch.zeros(256)}
    with pytest.raises(ValueError, match=r"post_layernorm\.bias"):
        formats.published(folder(tmp_path, twice, CLIP))


@pytest.mark.parametrize(
    ("config", "fact"),
    [
        ({"model_type": "clip", "vision_config": [1]}, "vision_config"),
        ({"model_type": "clip", "vision_config": {"hidden_act": ["gelu"]}}, "hidden_act"),
        ({"model_type": "clip", "vision_config": {"hidden_act": "relu"}}, "relu"),
        ({"model_type": "clip", "vision_config": {"layer_norm_eps": 1e-6}}, "layer_norm_eps"),
        ({"model_type": "clip", "vision_config": {"num_attention_heads": "4"}}, "heads"),
        ({"model_type": "clip", "vision_config": CLIP["vision_config"] | {"image_size": -1}}, "image size"),  # type: ignore[operator]
        ({"model_type": "siglip2"}, "NaFlex"),
        ({"model_type": "siglip", "vision_config": {"vision_use_head": False}}, "vision_use_head"),
    ],
)
def test_an_unknown_or_damaged_description_is_refused(
    tmp_path: Path, clip: dict[str, Tensor], config: Any, fact: str
) -> None:
    file = folder(tmp_path, {"a": torch.zeros(1)}, config).with_name("config.json")
    layout = transformers_siglip if "siglip" in config["model_type"] else transformers_clip
    with pytest.raises(ValueError, match=fact):
        layout.published(dict(clip), file)


def test_other_kinds_of_models_are_left_to_other_layouts(tmp_path: Path) -> None:
    for kind in (["clip"], "clipseg", None):
        file = folder(tmp_path, {"a.weight": torch.zeros(2, 2)}, {"model_type": kind})
        assert not formats.published(file).layout
