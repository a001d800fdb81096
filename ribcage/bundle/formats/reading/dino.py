"""timm's vision transformers of DINOv2 and DINOv3, for layouts that contain their weights."""

from collections.abc import Mapping

import torch
from torch import Tensor

from ribcage.bundle.formats.reading.published_weights import architecture
from ribcage.models.catalogue import is_known

SIZES = {384: "small", 768: "base", 1024: "large", 1280: "huge", 1536: "giant", 4096: "7b"}
"""Width of the tokens → name of the size."""
DINOV2 = ("vit_{}_patch14_dinov2", "vit_{}_patch14_reg4_dinov2", "vit_{}_patch16_reg4_dinov2")
DINOV3 = tuple(f"vit_{{}}{plus}_patch16_dinov3{bias}" for plus in ("", "_plus") for bias in ("_qkvb", ""))
"""Variants with biases of queries and values come first: they have all weights of those without."""


def dino_architecture(state: Mapping[str, Tensor], names: tuple[str, ...]) -> str:
    """The architecture among `names` that the weights fit; "" if there is none."""
    size = SIZES.get(state["cls_token"].shape[-1], "")
    return architecture(state, [name for one in names if is_known(name := one.format(size))])


def without_class_position(state: dict[str, Tensor], sources: dict[str, str]) -> dict[str, tuple[str, ...]]:
    """Add the position of the class token to the token itself, as timm does for models with registers.

    sources: names of the weights in the file. Returns those of the weights that were changed.
    """
    if "reg_token" not in state or "pos_embed" not in state:
        return {}
    first, positions = state["pos_embed"].split([1, state["pos_embed"].shape[1] - 1], 1)
    state["cls_token"], state["pos_embed"] = state["cls_token"] + first, positions
    return {"cls_token": (sources["cls_token"], sources["pos_embed"]), "pos_embed": (sources["pos_embed"],)}


def split_bias(state: dict[str, Tensor], block: str) -> list[str]:
    """Split the bias of queries, keys and values. timm's DINOv3 has no bias of the keys: it must be zero, or masked by
    `bias_mask`, by which DINOv3 multiplies the bias.

    Returns the new names.
    """
    queries, keys, values = state.pop(f"{block}.attn.qkv.bias").chunk(3)
    mask = state.pop(f"{block}.attn.qkv.bias_mask", None)
    if mask is not None:
        kept, hidden, also = mask.chunk(3)
        if not ((kept == 1).all() and (hidden == 0).all() and (also == 1).all()):
            raise ValueError(f"{block}.attn.qkv.bias_mask masks other biases than those of the keys")
    elif keys.any():
        raise ValueError(f"{block}.attn.qkv.bias has biases of the keys, which DINOv3 does not have")
    state[f"{block}.attn.q_bias"], state[f"{block}.attn.v_bias"] = queries.clone(), values.clone()
    return [f"{block}.attn.q_bias", f"{block}.attn.v_bias"]


def joined(state: dict[str, Tensor], names: list[str]) -> Tensor:
    """Take these weights out of `state` and join them along the first axis."""
    return torch.cat([state.pop(name) for name in names])
