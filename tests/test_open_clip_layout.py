"""Folders of OpenCLIP: the image tower alone is read. Parity with the library: benchmarks/foundation_parity.py."""

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from test_formats import linear
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from ribcage.bundle import formats
from ribcage.bundle.conversion import Converted, converted_model
from ribcage.bundle.formats import open_clip
from ribcage.bundle.formats.reading.account import account_summary

OWN: dict[str, Any] = {"embed_dim": 32, "vision_cfg": {"image_size": 64, "layers": 10, "width": 256, "patch_size": 16}}
TIMM: dict[str, Any] = {
    "embed_dim": 32,
    "vision_cfg": {"timm_model_name": "test_vit", "timm_pool": "", "timm_proj": "linear", "image_size": 160},
}
SCALE = {"mean": [0.48, 0.46, 0.41], "std": [0.27, 0.26, 0.28]}
TEXT = {"text.transformer.embeddings.word_embeddings.weight": (9, 4), "text.proj.0.weight": (4, 4), "logit_scale": ()}
OLD_TEXT = {"token_embedding.weight": (9, 4), "positional_embedding": (7, 4), "text_projection": (4, 32)}
OLD_TEXT |= {"transformer.resblocks.0.ln_1.weight": (4,), "ln_final.bias": (4,), "logit_scale": ()}


def tower(width: int, depth: int, side: int, patch: int = 16) -> dict[str, tuple[int, ...]]:
    """Names and shapes of CLIP's own transformer."""
    shapes = {"conv1.weight": (width, 3, patch, patch), "class_embedding": (width,), "proj": (width, 32)}
    shapes |= {"positional_embedding": ((side // patch) ** 2 + 1, width)}
    shapes |= linear("ln_pre", width) | linear("ln_post", width)
    for block in (f"transformer.resblocks.{number}" for number in range(depth)):
        shapes |= linear(f"{block}.ln_1", width) | linear(f"{block}.ln_2", width)
        shapes |= {f"{block}.attn.in_proj_weight": (3 * width, width), f"{block}.attn.in_proj_bias": (3 * width,)}
        shapes |= linear(f"{block}.attn.out_proj", width, width)
        shapes |= linear(f"{block}.mlp.c_fc", 4 * width, width) | linear(f"{block}.mlp.c_proj", width, 4 * width)
    return {f"visual.{name}": shape for name, shape in shapes.items()}


def drawn(shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    drawing = torch.Generator().manual_seed(3)
    weights = {name: torch.randn(shape, generator=drawing) * 0.05 for name, shape in shapes.items()}
    return weights | {name: 4 * value + 1.0 * ("weight" in name) for name, value in weights.items() if value.ndim == 1}


def by_hand(w: dict[str, Tensor], images: Tensor) -> Tensor:
    """(N, width): the class token after the last norm."""

    def normed(name: str, x: Tensor) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], w[f"visual.{name}.weight"], w[f"visual.{name}.bias"])

    x = F.conv2d(images, w["visual.conv1.weight"], stride=16).flatten(2).mT
    x = torch.cat([w["visual.class_embedding"].expand(len(x), 1, -1), x], 1) + w["visual.positional_embedding"]
    x = normed("ln_pre", x)
    for block in (f"transformer.resblocks.{number}" for number in range(10)):
        y = normed(f"{block}.ln_1", x)
        attention = nn.MultiheadAttention(256, 4, batch_first=True)
        start = f"visual.{block}.attn."
        attention.load_state_dict({name.removeprefix(start): w[name] for name in w if name.startswith(start)})
        x = x + attention(y, y, y)[0]
        y = normed(f"{block}.ln_2", x)
        y = F.linear(y, w[f"visual.{block}.mlp.c_fc.weight"], w[f"visual.{block}.mlp.c_fc.bias"])
        x = x + F.linear(F.gelu(y), w[f"visual.{block}.mlp.c_proj.weight"], w[f"visual.{block}.mlp.c_proj.bias"])
    return normed("ln_post", x[:, 0])


def folder(path: Path, weights: dict[str, Tensor], model: Any, images: Any = SCALE) -> Path:
    path.mkdir(exist_ok=True)
    save_file(weights, path / "open_clip_model.safetensors")
    content = json.dumps({"model_cfg": model, "preprocess_cfg": images})
    (path / open_clip.BESIDE).write_text(content, encoding="utf-8")
    return path / "open_clip_model.safetensors"


def features(made: Converted, images: Tensor) -> Tensor:
    backbone = made.method.backbone
    with torch.inference_mode():
        return backbone.pool(backbone.model.forward_features(images))


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    return drawn(tower(256, 10, 64) | OLD_TEXT)


def test_the_image_tower_of_clip_gives_the_features_of_its_program(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    file = folder(tmp_path / "胸片 clip", weights, OWN)
    found = formats.published(file)
    assert (found.layout, found.name, found.size) == ("open_clip", "vit_xsmall_patch16_clip_224", (64, 64))
    assert (found.stored, found.fit, found.mean, found.stated[1]) == (64, "crop", (0.48, 0.46, 0.41), "preprocessing")
    assert set(found.unused) == {*OLD_TEXT, "visual.proj"}
    made, images = converted_model(file, found), torch.randn(2, 3, 64, 64)
    assert not made.strange and "left out: text tower or projection" in account_summary(made.tensors, made.coverage)
    with torch.inference_mode():
        torch.testing.assert_close(features(made, images), by_hand(weights, images), rtol=1e-4, atol=1e-4)


def test_an_image_tower_of_timm_gives_its_features(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = timm.create_model("test_vit", num_classes=0).eval()
    trunk = {f"visual.trunk.{name}": value for name, value in model.state_dict().items()}
    weights = trunk | drawn(TEXT | {"visual.head.proj.weight": (32, 64)})
    found = formats.published(file := folder(tmp_path / "m", weights, TIMM, SCALE | {"resize_mode": "squash"}))
    assert (found.name, found.size, found.fit, found.pool) == ("test_vit", (160, 160), "squash", "")
    assert set(found.unused) == {*TEXT, "visual.head.proj.weight"}
    images = torch.randn(2, 3, 160, 160)
    with torch.inference_mode():
        assert torch.equal(features(converted_model(file, found), images), model(images))


@pytest.mark.parametrize("quick", [False, True])
def test_the_activation_decides_between_models_with_the_same_weights(tmp_path: Path, quick: bool) -> None:
    config = folder(tmp_path, {"a": torch.zeros(1)}, OWN | {"quick_gelu": quick}).with_name(open_clip.BESIDE)
    with torch.device("meta"):
        weights = {name: torch.empty(shape) for name, shape in tower(768, 12, 224).items()}
        found = open_clip.published(weights, config)
        activation = timm.create_model(found.name).blocks[0].mlp.act  # type: ignore[index, union-attr]
    assert found.name == f"vit_base_patch16_clip_{'quickgelu_' * quick}224"
    assert (type(activation).__name__ == "QuickGELU") == quick


@pytest.mark.parametrize("patch", [16, 32])
def test_the_small_transformers_of_openclip_are_known(tmp_path: Path, patch: int) -> None:
    """Heads of 64 channels, and the norms of OpenCLIP."""
    config = folder(tmp_path, {"a": torch.zeros(1)}, OWN).with_name(open_clip.BESIDE)
    with torch.device("meta"):
        weights = {name: torch.empty(shape) for name, shape in tower(384, 12, 224, patch).items()}
        found = open_clip.published(weights, config)
        model: Any = timm.create_model(found.name)
    assert found.name == f"vit_small_patch{patch}_clip_224"
    assert (model.blocks[0].attn.num_heads, model.norm_pre.eps, model.norm.eps) == (6, 1e-5, 1e-5)


def test_a_weight_that_is_left_over_or_missing_is_refused(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    for strange in ("visual.transformer.resblocks.3.adapter.weight", "audio.conv.weight"):
        file = folder(tmp_path / "m", weights | {strange: torch.zeros(3)}, OWN)
        with pytest.raises(ValueError, match=strange.split(".")[-2]):
            converted_model(file, formats.published(file))
    less = {name: value for name, value in weights.items() if name != "visual.transformer.resblocks.3.ln_2.bias"}
    with pytest.raises(ValueError, match="no clip model"):
        formats.published(folder(tmp_path / "m", less, OWN))
    twice = weights | {"visual.norm.bias": torch.zeros(256)}
    with pytest.raises(ValueError, match=r"norm\.bias"):
        formats.published(folder(tmp_path / "m", twice, OWN))


@pytest.mark.parametrize(
    ("vision", "images", "fact"),
    [
        (None, SCALE, open_clip.BESIDE),
        ({"timm_model_name": "hf-hub:someone/model"}, SCALE, "hf-hub"),
        ({"timm_model_name": ["test_vit"]}, SCALE, "timm has no model"),
        ({"timm_model_name": "test_vit", "timm_pool": "rot_attn"}, SCALE, "rot_attn"),
        ({"timm_model_name": "test_vit", "timm_pool": "avg"}, SCALE, "fc_norm"),  # OpenCLIP averages after the norm
        ({"pool_type": "avg"}, SCALE, "pool_type"),
        ({"norm_kwargs": {"eps": 1e-6}}, SCALE, "norm_kwargs"),
        ({"head_width": 32}, SCALE, "8 heads"),
        ({"head_width": "x"}, SCALE, "head_width"),
        ({"image_size": 10**9}, SCALE, "image size"),
        ({"image_size": [64, 32]}, SCALE, "64 × 32"),
        ({}, SCALE | {"resize_mode": "stretch"}, "stretch"),
        ({}, SCALE | {"std": [0, 1, 1]}, "standard deviation"),
        ({}, {"mean": [[1], 2, 3]}, "mean"),
        ({}, SCALE | {"resize_mode": "longest", "fill_color": 255}, "fill_color"),
        ({}, [SCALE], open_clip.BESIDE),
    ],
)
def test_an_unknown_or_damaged_description_is_refused(
    tmp_path: Path, weights: dict[str, Tensor], vision: Any, images: Any, fact: str
) -> None:
    described = OWN["vision_cfg"] | vision if isinstance(vision, dict) else vision
    with torch.device("meta"):
        given = timm.create_model("test_vit", num_classes=0).state_dict()
    if isinstance(vision, dict) and "timm_model_name" in vision:
        weights = {f"visual.trunk.{name}": torch.zeros(value.shape) for name, value in given.items()}
    file = folder(tmp_path, {"a": torch.zeros(1)}, OWN | {"vision_cfg": described}, images)
    with pytest.raises(ValueError, match=fact):
        open_clip.published(weights, file.with_name(open_clip.BESIDE))


def test_a_file_of_another_name_is_not_described_by_the_folder(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    file = folder(tmp_path, weights, OWN)
    assert not formats.published(file.rename(tmp_path / "model.safetensors")).layout
