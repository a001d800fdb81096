"""MAE's checkpoint: {model, epoch}, a transformer under timm's names with mask token and decoder beside it.

The published files also hold `args`, an object of Python's that only unsafe loading can read; it is left out, so that
torch.load(weights_only=True) opens the file. It sees gray three times, normalised as for ImageNet, and draws that:
exactly what ours draws, but nearly with `norm_pix`, where the published target is normalised over all channels at once.
"""

from pathlib import Path

import torch
from torch import Tensor

from ribcage.bundle import Model
from ribcage.methods import Method
from ribcage.methods.mae import MAE
from ribcage.weights import base
from ribcage.weights.foreign import MEAN, STD

SOURCE = "https://github.com/facebookresearch/mae"
LICENCE = "CC-BY-NC-4.0"

BLOCK = ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
ENDS = ("patch_embed.proj", "norm", "decoder_embed", "decoder_norm", "decoder_pred")
TOKENS = ("cls_token", "pos_embed", "mask_token", "decoder_pos_embed")


def export(method: Method, model: Model, target: Path) -> Path:
    """Write the file; into a folder as vit_small_patch16_224_xray.pth."""
    if not isinstance(method, MAE):
        raise ValueError(f"The mae layout has a decoder of patches, {type(method).__name__} has none.")
    encoder = {name.replace("fc_norm.", "norm."): value for name, value in base.state(method.backbone, model).items()}
    decoder = {name: base.taken(value) for name, value in method.state_dict().items()}
    weights = encoder | {name: value for name, value in decoder.items() if not name.startswith("backbone.")}
    weights |= drawn_in_colour(method, model)
    wanted = names(len(method.backbone.model.blocks), len(method.decoder_blocks))
    other = sorted(set(wanted) ^ set(weights))
    if other:
        raise ValueError(f"{model.name} is no plain vision transformer as MAE's: {len(other)} differ ({other[0]} …).")
    content = {"model": weights, "epoch": model.training.get("options", {}).get("epochs", 0)}
    return base.write(content, target, f"{base.plain(model.name)}_xray.pth")


def names(depth: int, decoder_depth: int) -> list[str]:
    """All of the published ones."""
    blocks = [f"blocks.{n}.{part}" for n in range(depth) for part in BLOCK]
    blocks += [f"decoder_blocks.{n}.{part}" for n in range(decoder_depth) for part in BLOCK]
    return [*TOKENS, *(f"{layer}.{kind}" for layer in (*ENDS, *blocks) for kind in ("weight", "bias"))]


def drawn_in_colour(method: MAE, model: Model) -> dict[str, Tensor]:
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
