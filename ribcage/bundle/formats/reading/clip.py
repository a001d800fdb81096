"""timm's vision transformers of CLIP and SigLIP, for layouts that contain these image towers."""

import functools
from collections.abc import Mapping
from typing import Any

import timm
import torch
from torch import Tensor

from ribcage.bundle.formats.reading.published_weights import architecture

TEXT = "text tower or projection"
"""Reason for which weights of a model of images and texts are left out."""
SIZES = {256: "xsmall", 384: "small", 512: "medium", 640: "betwixt", 768: "base", 896: "base", 1024: "large",
         1152: "so400m", 1280: "huge", 1408: "giant", 1536: "giantopt", 1664: "gigantic"}  # fmt: skip
"""Width of the tokens → name of the size."""
ACTIVATIONS = {"gelu": "GELU", "gelu_pytorch_tanh": "GELUTanh", "quick_gelu": "QuickGELU"}
"""Name in config.json → timm's class: GELU, its approximation with tanh, and x sigmoid(1.702 x)."""


def tower_architecture(state: Mapping[str, Tensor], family: str, heads: int, activation: str) -> str:
    """The architecture of a family (clip or siglip) with these weights, number of heads and activation, which do not
    follow from the weights."""
    width, patch = state["patch_embed.proj.weight"].shape[0], state["patch_embed.proj.weight"].shape[-1]
    names = timm.list_models(f"vit_{SIZES.get(width, '')}_patch{patch}_*{family}_*", exclude_filters="*_gap_*")
    wanted = (heads, ACTIVATIONS.get(activation, ""))
    for name in sorted(names, key=lambda name: (_side(name), name)):
        if architecture(state, [name]) and _heads_and_activation(name) == wanted:
            return name
    raise ValueError(
        f"no {family} model in timm has weights of these names and shapes, {heads} heads and activation {activation}"
    )


@functools.cache
def _heads_and_activation(name: str) -> tuple[int, str]:
    with torch.device("meta"):
        model: Any = timm.create_model(name, num_classes=0)
    block = model.blocks[0]
    return int(block.attn.num_heads), type(block.mlp.act).__name__


def _side(name: str) -> int:
    return int(timm.get_pretrained_cfg(name).input_size[1])  # type: ignore[union-attr]
