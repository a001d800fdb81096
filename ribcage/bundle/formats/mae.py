"""MAE: checkpoints of a vision transformer with mask token and decoder.

A file contains {model, epoch}, with the weight names of timm.
Published files also contain `args`, a Python object; it is not written, so that torch.load(weights_only=True) opens the
file. Input and reconstruction are greyscale repeated in three channels, with ImageNet normalisation. An exported model
reconstructs what the original does; with `norm_pix` only approximately, since the published target is normalised over
all channels jointly.

Fine-tuned checkpoints are read, too: they have no decoder, but `head`, and `fc_norm` after averaging all tokens instead
of `norm`. A model without a decoder is written in this form. The checkpoints of medical_mae, trained on CheXpert and
ChestX-ray14, have the same names and do not state their normalisation; ImageNet's is assumed.
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
    input_size,
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
"""Prefixes of the decoder's weights."""


def recognises(weights: Mapping[str, Tensor]) -> bool:
    """Whether there is a transformer with a decoder, or a fine-tuned one."""
    return "decoder_pred.weight" in weights or is_fine_tuned(weights)


def is_fine_tuned(weights: Mapping[str, Tensor]) -> bool:
    """Whether there is a fine-tuned transformer, with `fc_norm` after averaging all tokens."""
    return {"cls_token", "patch_embed.proj.weight", "fc_norm.weight", "blocks.0.attn.qkv.weight"} <= set(weights)


def published(weights: dict[str, Tensor]) -> Published:
    """The weights under timm's names, and what the layout implies about them."""
    unused = tuple(name for name in weights if name.startswith(DECODER))
    state = {name: value for name, value in weights.items() if name not in unused}
    if missing := {"cls_token", "pos_embed", "patch_embed.proj.weight"} - set(state):
        raise ValueError(
            f"the file looks like an MAE checkpoint, but the following weights are missing: "
            f"{', '.join(sorted(missing))}"
        )
    seen = Evidence("shapes", "a transformer with fc_norm")
    if "decoder_pred.weight" in weights:
        seen = Evidence("names", "decoder_pred and a transformer")
    found = Published(state, MEAN, STD, unused=unused, evidence=seen, **input_size(state))
    if not is_fine_tuned(weights):
        return replace(found, name=architecture(state, VITS))
    if "fc_norm.bias" not in weights:
        raise ValueError("the file looks like a fine-tuned MAE checkpoint, but the weight fc_norm.bias is missing")
    plain = {name.replace("fc_norm.", "norm."): value for name, value in state.items()}
    return replace(found, name=architecture(plain, VITS), pool="avg")


def export(method: Method, model: ModelSpec, target: Path) -> Path:
    """Write the file. If the target is a folder, the file is named vit_small_patch16_224_xray.pth."""
    if not isinstance(method, MAE | Supervised):
        raise ValueError(f"The mae layout needs a patch decoder, which {type(method).__name__} lacks.")
    weights = pretraining_weights(method, model) if isinstance(method, MAE) else backbone_and_head(method, model)
    depth = len(getattr(method.backbone.model, "blocks", ()))
    expected = (
        decoder_names(depth, len(method.decoder_blocks)) if isinstance(method, MAE) else encoder_names(depth, weights)
    )
    differing = sorted(set(expected) ^ set(weights))
    if differing:
        raise ValueError(
            f"{model.name} is not a plain vision transformer like those of MAE: {len(differing)} weights differ "
            f"({differing[0]} …)."
        )
    content = {"model": weights, "epoch": model.training.epochs}
    return base.write_weights(content, target, f"{base.plain_name(model.name)}_xray.pth")


def pretraining_weights(method: MAE, model: ModelSpec) -> dict[str, Tensor]:
    """The weights of encoder and decoder."""
    encoder = {
        name.replace("fc_norm.", "norm."): value for name, value in base.rgb_weights(method.backbone, model).items()
    }
    decoder = {name: base.copied(value) for name, value in method.state_dict().items()}
    weights = encoder | {name: value for name, value in decoder.items() if not name.startswith("backbone.")}
    return weights | rgb_prediction_layer(method, model)


def backbone_and_head(method: Supervised, model: ModelSpec) -> dict[str, Tensor]:
    """The weights of the backbone and, if there is one, of its classifier."""
    head = {f"head.{name}": base.copied(value) for name, value in method.head.state_dict().items()}
    return base.rgb_weights(method.backbone, model) | head


def encoder_names(depth: int, weights: Mapping[str, Tensor]) -> list[str]:
    """Names of all weights of a model without a decoder; `fc_norm` and `head` if the model has them."""
    norm = "fc_norm" if "fc_norm.weight" in weights else "norm"
    layers = ["patch_embed.proj", norm, *(["head"] if "head.weight" in weights else [])]
    layers += [f"blocks.{n}.{part}" for n in range(depth) for part in BLOCK]
    return [*TOKENS[:2], *(f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias"))]


def decoder_names(depth: int, decoder_depth: int) -> list[str]:
    """Names of all weights of a model with a decoder."""
    blocks = [f"blocks.{n}.{part}" for n in range(depth) for part in BLOCK]
    blocks += [f"decoder_blocks.{n}.{part}" for n in range(decoder_depth) for part in BLOCK]
    return [*TOKENS, *(f"{layer}.{kind}" for layer in (*ENDS, *blocks) for kind in ("weight", "bias"))]


def rgb_prediction_layer(method: MAE, model: ModelSpec) -> dict[str, Tensor]:
    """The last layer for three channels: it predicts x_c = (s x + m - m_c) / s_c where the original predicts x.

    A pixel's three channels are adjacent.
    """
    m, s = (torch.tensor(values, dtype=torch.float64) for values in (MEAN, STD))
    scale, shift = (torch.ones(3), torch.zeros(3)) if method.norm_pix else (model.std / s, (model.mean - m) / s)
    layer, copies = method.decoder_pred, 3 // method.backbone.channels
    weight, bias = (
        value.detach().cpu().double().repeat_interleave(copies, 0).unflatten(0, (-1, 3))
        for value in (layer.weight, layer.bias)
    )  # (pixels, 3, width) and (pixels, 3)
    weight, bias = weight * scale[:, None], bias * scale + shift
    return {"decoder_pred.weight": weight.flatten(0, 1).float(), "decoder_pred.bias": bias.flatten().float()}
