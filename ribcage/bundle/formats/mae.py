"""MAE checkpoints: {model, epoch}, a transformer under the names of timm with mask token and decoder.

The published files also hold `args`, an object of Python's that only unsafe loading can read; it is left out, so that
torch.load(weights_only=True) opens the file. It sees gray three times, normalised as for ImageNet, and draws that:
exactly what ours draws, but nearly with `norm_pix`, where the published target is normalised over all channels at once.

Read are also the fine-tuned ones: no decoder, `fc_norm` behind the mean of all tokens in the place of `norm`, `head`.
Written so is a model that does not draw. The checkpoints of medical_mae, trained on CheXpert and ChestX-ray14, have
the names of these, and nothing in them tells by what its images were normalised: as for ImageNet is nearest.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from ribcage.bundle.formats.reading.published_weights import (
    MEAN,
    STD,
    VITS,
    Evidence,
    Published,
    architecture,
    in_patches,
)
from ribcage.bundle.formats.writing import base
from ribcage.bundle.spec import ModelSpec
from ribcage.methods import Method
from ribcage.methods.mae import MAE
from ribcage.methods.supervised import Supervised

SOURCE = "https://github.com/facebookresearch/mae"
LICENCE = "CC-BY-NC-4.0"

BLOCK = ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
ENDS = ("patch_embed.proj", "norm", "decoder_embed", "decoder_norm", "decoder_pred")
TOKENS = ("cls_token", "pos_embed", "mask_token", "decoder_pos_embed")


DECODER = ("mask_token", "decoder_")
"""How the names of what draws begin."""


def recognises(weights: Mapping[str, Tensor]) -> bool:
    """Whether a transformer with a decoder is in the file, or one with its norm behind the mean of the tokens."""
    return "decoder_pred.weight" in weights or tuned(weights)


def tuned(weights: Mapping[str, Tensor]) -> bool:
    """Whether it was fine-tuned, with the mean of all tokens."""
    return {"cls_token", "patch_embed.proj.weight", "fc_norm.weight", "blocks.0.attn.qkv.weight"} <= set(weights)


def published(weights: dict[str, Tensor]) -> Published:
    """Under timm's names."""
    left = tuple(name for name in weights if name.startswith(DECODER))
    state = {name: value for name, value in weights.items() if name not in left}
    if missing := {"cls_token", "pos_embed", "patch_embed.proj.weight"} - set(state):
        raise ValueError(
            f"The weights are those of an MAE but for {', '.join(sorted(missing))}: the file is incomplete."
        )
    seen = Evidence("shapes", "a transformer with fc_norm")
    if "decoder_pred.weight" in weights:
        seen = Evidence("names", "decoder_pred beside a transformer")
    found = Published(state, MEAN, STD, left=left, evidence=seen, **in_patches(state))
    if not tuned(weights):
        return replace(found, name=architecture(state, VITS))
    if "fc_norm.bias" not in weights:
        raise ValueError("The weights are those of a fine-tuned MAE but for fc_norm.bias: the file is incomplete.")
    plain = {name.replace("fc_norm.", "norm."): value for name, value in state.items()}
    return replace(found, name=architecture(plain, VITS), pool="avg")


def export(method: Method, model: ModelSpec, target: Path) -> Path:
    """Write the file; into a folder as vit_small_patch16_224_xray.pth."""
    if not isinstance(method, MAE | Supervised):
        raise ValueError(f"The mae layout needs a patch decoder, which {type(method).__name__} lacks.")
    weights = drawing(method, model) if isinstance(method, MAE) else backbone_and_head(method, model)
    depth = len(getattr(method.backbone.model, "blocks", ()))
    wanted = (
        decoder_names(depth, len(method.decoder_blocks)) if isinstance(method, MAE) else plain_names(depth, weights)
    )
    other = sorted(set(wanted) ^ set(weights))
    if other:
        raise ValueError(
            f"{model.name} is not a plain vision transformer like MAE's: {len(other)} differ ({other[0]} …)."
        )
    content = {"model": weights, "epoch": model.training.epochs}
    return base.write_weights(content, target, f"{base.plain_name(model.name)}_xray.pth")


def drawing(method: MAE, model: ModelSpec) -> dict[str, Tensor]:
    """The weights of what draws."""
    encoder = {
        name.replace("fc_norm.", "norm."): value for name, value in base.rgb_weights(method.backbone, model).items()
    }
    decoder = {name: base.taken(value) for name, value in method.state_dict().items()}
    weights = encoder | {name: value for name, value in decoder.items() if not name.startswith("backbone.")}
    return weights | drawn_in_colour(method, model)


def backbone_and_head(method: Supervised, model: ModelSpec) -> dict[str, Tensor]:
    """The weights of a backbone and, where it answers something, its last layer."""
    head = {f"head.{name}": base.taken(value) for name, value in method.head.state_dict().items()}
    return base.rgb_weights(method.backbone, model) | head


def plain_names(depth: int, weights: Mapping[str, Tensor]) -> list[str]:
    """All of those without a decoder; `fc_norm` and `head` where they are."""
    norm = "fc_norm" if "fc_norm.weight" in weights else "norm"
    layers = ["patch_embed.proj", norm, *(["head"] if "head.weight" in weights else [])]
    layers += [f"blocks.{n}.{part}" for n in range(depth) for part in BLOCK]
    return [*TOKENS[:2], *(f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias"))]


def decoder_names(depth: int, decoder_depth: int) -> list[str]:
    """All of the published ones that draw."""
    blocks = [f"blocks.{n}.{part}" for n in range(depth) for part in BLOCK]
    blocks += [f"decoder_blocks.{n}.{part}" for n in range(decoder_depth) for part in BLOCK]
    return [*TOKENS, *(f"{layer}.{kind}" for layer in (*ENDS, *blocks) for kind in ("weight", "bias"))]


def drawn_in_colour(method: MAE, model: ModelSpec) -> dict[str, Tensor]:
    """The last layer, a pixel's three channels side by side: x_c = (s x + m - m_c) / s_c, with ours as x."""
    m, s = (torch.tensor(values, dtype=torch.float64) for values in (MEAN, STD))
    times, plus = (torch.ones(3), torch.zeros(3)) if method.norm_pix else (model.std / s, (model.mean - m) / s)
    layer, copies = method.decoder_pred, 3 // method.backbone.channels
    weight, bias = (
        value.detach().cpu().double().repeat_interleave(copies, 0).unflatten(0, (-1, 3))
        for value in (layer.weight, layer.bias)
    )  # (pixels, 3, width) and (pixels, 3)
    weight, bias = weight * times[:, None], bias * times + plus
    return {"decoder_pred.weight": weight.flatten(0, 1).float(), "decoder_pred.bias": bias.flatten().float()}
