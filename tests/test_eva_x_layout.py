"""EVA-X: names and shapes are those of its program, and the features are computed from them by hand."""

from pathlib import Path
from typing import Any

import pytest
import torch
from test_formats import linear
from timm.models.eva import Eva
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from ribcage.bundle import formats
from ribcage.bundle.conversion import converted_model
from ribcage.bundle.formats import eva_x
from ribcage.data.findings import CHESTXRAY14
from ribcage.models.architectures.eva_x import BASE, OPTIONS
from ribcage.models.pretrained import laid_over

PLAIN = {"name": "eva_x_tiny_patch16", "size": (224, 224), "stored": 256}


def shapes(width: int, depth: int = 12, side: int = 14, rows: int = 0, pretrained: bool = False) -> dict[str, Any]:
    """Names and shapes in a file; a width of 768 has the layers of ViT-B."""
    hidden, found = int(width * 8 / 3), {"cls_token": (1, 1, width), "pos_embed": (1, side**2 + 1, width)}
    found |= linear("patch_embed.proj", width, 3, 16, 16)
    for block in (f"blocks.{number}" for number in range(depth)):
        found |= linear(f"{block}.norm1", width) | linear(f"{block}.norm2", width)
        found |= linear(f"{block}.attn.proj", width, width) | linear(f"{block}.mlp.w3", width, hidden)
        found |= {f"{block}.attn.q_bias": (width,), f"{block}.attn.v_bias": (width,)}
        if width == 768:
            found |= {f"{block}.attn.{one}_proj.weight": (width, width) for one in "qkv"}
            found |= linear(f"{block}.mlp.w1", hidden, width) | linear(f"{block}.mlp.w2", hidden, width)
            found |= linear(f"{block}.mlp.ffn_ln", hidden)
        else:
            found |= {f"{block}.attn.qkv.weight": (3 * width, width)} | linear(f"{block}.mlp.w12", 2 * hidden, width)
    if pretrained:
        return found | linear("norm", width) | linear("lm_head", 512, width) | {"mask_token": (1, 1, width)}
    return found | linear("fc_norm", width) | (linear("head", rows, width) if rows else {})


def drawn(shapes: dict[str, Any], depth: int = 12, steps: int = 14, side: int = 14) -> dict[str, Tensor]:
    """Weights as after some training, and the constants beside them."""
    drawing = torch.Generator().manual_seed(3)
    weights = {name: torch.randn(shape, generator=drawing) * 0.05 for name, shape in shapes.items()}
    weights |= {name: value * 4 + name.endswith("weight") for name, value in weights.items() if value.ndim == 1}
    cos, sin = rotation(side, steps)
    for place in ("rope", *(f"blocks.{number}.attn.rope" for number in range(depth))):
        weights |= {f"{place}.freqs_cos": cos, f"{place}.freqs_sin": sin}
    return weights


def rotation(side: int, steps: int) -> tuple[Tensor, Tensor]:
    """Row y and column x of a patch: pairs of channels are turned by y w_k, and in the second half by x w_k."""
    rows = []
    for y in range(side):
        for x in range(side):
            angles = [place / side * steps / 10_000 ** (k / 16) for place in (y, x) for k in range(16)]
            rows.append([angle for angle in angles for _ in range(2)])
    return torch.tensor(rows).cos(), torch.tensor(rows).sin()


def by_hand(w: dict[str, Tensor], images: Tensor, depth: int) -> Tensor:
    """(N, tokens, width) after the last block."""

    def normed(name: str, x: Tensor) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"], 1e-6)

    def turned(x: Tensor, at: str) -> Tensor:
        patches = x[:, :, 1:]
        half = torch.stack([-patches[..., 1::2], patches[..., ::2]], -1).flatten(-2)
        rotated = patches * w[f"{at}.rope.freqs_cos"] + half * w[f"{at}.rope.freqs_sin"]
        return torch.cat([x[:, :, :1], rotated], 2)

    x = F.conv2d(images, w["patch_embed.proj.weight"], w["patch_embed.proj.bias"], 16).flatten(2).mT
    x = torch.cat([w["cls_token"].expand(len(x), -1, -1), x], 1) + w["pos_embed"]
    for block in (f"blocks.{number}" for number in range(depth)):
        attn, y = f"{block}.attn", normed(f"{block}.norm1", x)
        if f"{attn}.qkv.weight" in w:
            parts = w[f"{attn}.qkv.weight"].chunk(3)
            joined = (w[f"{block}.mlp.w12.{part}"].chunk(2) for part in ("weight", "bias"))
            gates = list(zip(*joined, strict=True))
        else:
            parts = tuple(w[f"{attn}.{one}_proj.weight"] for one in "qkv")
            gates = [(w[f"{block}.mlp.{one}.weight"], w[f"{block}.mlp.{one}.bias"]) for one in ("w1", "w2")]
        biases = (w[f"{attn}.q_bias"], None, w[f"{attn}.v_bias"])
        q, k, v = (
            F.linear(y, part, bias).unflatten(2, (-1, 64)).transpose(1, 2)
            for part, bias in zip(parts, biases, strict=True)
        )
        q, k = turned(q, attn), turned(k, attn)
        y = ((q @ k.mT / 8).softmax(-1) @ v).transpose(1, 2).flatten(2)
        x = x + F.linear(y, w[f"{attn}.proj.weight"], w[f"{attn}.proj.bias"])
        y = normed(f"{block}.norm2", x)
        y = F.silu(F.linear(y, *gates[0])) * F.linear(y, *gates[1])
        if f"{block}.mlp.ffn_ln.weight" in w:
            y = normed(f"{block}.mlp.ffn_ln", y)
        x = x + F.linear(y, w[f"{block}.mlp.w3.weight"], w[f"{block}.mlp.w3.bias"])
    return x


def averaged(w: dict[str, Tensor], tokens: Tensor, norm: str) -> Tensor:
    return F.layer_norm(tokens[:, 1:].mean(1), tokens.shape[-1:], w[f"{norm}.weight"], w[f"{norm}.bias"], 1e-6)


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Tensor]]:
    file, weights = tmp_path_factory.mktemp("权重 eva") / "eva_x.pt", drawn(shapes(192, pretrained=True))
    torch.save({"module": weights}, file)
    return file, weights


@pytest.mark.parametrize("channels", [3, 1])
def test_a_pretrained_model_gives_the_features_of_its_program(
    channels: Any, pretrained: tuple[Path, dict[str, Tensor]]
) -> None:
    file, weights = pretrained
    found = formats.published(file)
    assert {name: getattr(found, name) for name in PLAIN} == PLAIN and found.layout == "eva_x" and not found.findings
    assert set(found.unused) == {"mask_token", *(name for name in weights if "rope" in name or "lm_head" in name)}
    made = converted_model(file, found, channels=channels)
    assert not made.strange and not made.coverage.lost and made.coverage.norm_after_pooling
    gray = torch.rand(2, 1, 224, 224)
    backbone = made.method.backbone
    ours = ((gray - made.model.mean) / made.model.std).expand(-1, channels, -1, -1)
    theirs = ((gray - 0.49185243) / 0.28509309).expand(-1, 3, -1, -1)
    with torch.inference_mode():
        expected = averaged(weights, by_hand(weights, theirs, 12), "norm")
        torch.testing.assert_close(backbone(ours), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("steps", [14, 16])
def test_separate_queries_and_norms_inside_gated_layers(steps: int) -> None:
    """The layers of ViT-B, in a model of two blocks; both kinds of rotary embeddings."""
    weights = drawn(shapes(768, depth=2, side=4), 2, steps, 4)
    options = OPTIONS | BASE | {"depth": 2, "img_size": 64, "num_classes": 0, "ref_feat_shape": (steps, steps)}
    model = Eva(**options).eval()
    state = eva_x.timm_names_of({name: value for name, value in weights.items() if "rope" not in name})
    assert not (coverage := laid_over(model, "eva_x_base_patch16", state, "w")).lost and not coverage.unexpected
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        expected = averaged(weights, by_hand(weights, images, 2), "fc_norm")
        torch.testing.assert_close(model(images), expected, rtol=1e-4, atol=1e-4)


def without_numbers(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value if "rope" in name else value.to("meta") for name, value in weights.items()}


@pytest.mark.parametrize(("width", "size"), [(384, "small"), (768, "base")])
def test_sizes_are_told_apart(width: int, size: str) -> None:
    with torch.device("meta"):
        weights = {name: torch.empty(shape) for name, shape in shapes(width, rows=14).items()}
    cos, sin = rotation(14, 14)
    found = eva_x.published(weights | {"rope.freqs_cos": cos.half(), "rope.freqs_sin": sin})
    assert (found.name, found.findings, found.findings_inferred) == (f"eva_x_{size}_patch16", CHESTXRAY14, True)


def test_rotary_embeddings_decide_between_variants() -> None:
    with torch.device("meta"):
        weights = {name: torch.empty(shape) for name, shape in shapes(768, rows=14).items()}
    cos, sin = rotation(14, 16)
    assert eva_x.published(weights | {"rope.freqs_cos": cos}).name == "eva_x_base_patch16_rope16"
    unknown = eva_x.published(weights)
    assert not unknown.name and unknown.candidates == ("eva_x_base_patch16", "eva_x_base_patch16_rope16")
    for wrong in (cos.mT.reshape(196, 64), cos[:49]):
        with pytest.raises(ValueError, match=r"rotary|freqs_cos"):
            eva_x.published(weights | {"rope.freqs_cos": wrong})
    with torch.device("meta"):
        tiny = {name: torch.empty(shape) for name, shape in shapes(192).items()}
    with pytest.raises(ValueError, match="rotary"):
        eva_x.published(tiny | {"rope.freqs_sin": sin})


def test_outputs_of_chexpert_are_in_the_order_of_its_program(tmp_path: Path) -> None:
    weights = drawn(shapes(192, rows=5))
    torch.save({"model": weights, "epoch": 4}, tmp_path / "w.pth")
    found = formats.published(tmp_path / "w.pth")
    assert found.layout == "eva_x" and found.findings[2:] == ("Consolidation", "Edema", "Effusion")
    assert (found.stored, found.data) == (224, "CheXpert")
    with pytest.raises(ValueError, match="--findings"):
        converted_model(tmp_path / "w.pth", found)
    made = converted_model(tmp_path / "w.pth", found, agreed=True)
    images = torch.randn(1, 3, 224, 224)
    with torch.inference_mode():
        features = averaged(weights, by_hand(weights, made.method.backbone.shown(images), 12), "fc_norm")
        expected = F.linear(features, weights["head.weight"], weights["head.bias"])
        torch.testing.assert_close(made.method.logits(images), expected, rtol=1e-4, atol=1e-4)


def test_unknown_missing_and_doubled_weights_are_refused(pretrained: tuple[Path, dict[str, Tensor]]) -> None:
    file, weights = pretrained[0].with_name("w.pt"), pretrained[1]
    torch.save(weights | {"blocks.3.adapter.weight": torch.zeros(2)}, file)
    with pytest.raises(ValueError, match="adapter"):
        converted_model(file, formats.published(file))
    torch.save({name: value for name, value in weights.items() if name != "blocks.3.mlp.w3.bias"}, file)
    with pytest.raises(ValueError, match="no EVA-X model"):
        formats.published(file)
    torch.save(weights | {"blocks.3.mlp.fc2.bias": torch.zeros(192)}, file)
    with pytest.raises(ValueError, match=r"blocks\.3\.mlp\.fc2\.bias"):
        formats.published(file)
