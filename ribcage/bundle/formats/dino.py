"""DINO, DINOv2 and DINOv3: the vision transformers of their authors, also as trained on radiographs by CheXFound.

    {teacher: {backbone.*, dino_head.*, ibot_head.*}}    a training checkpoint; the backbone of the teacher is used
    cls_token, pos_embed, register_tokens, blocks.N.*    published backbones of DINOv2; DINOv3: storage_tokens

Blocks may be numbered in chunks (blocks.CHUNK.N). The feature is the class token after the last norm, and ImageNet's
normalisation is assumed. CheXFound is recognised by the published names and shapes only (ViT-L/16 at 512 px).

Oquab et al. 2023, https://arxiv.org/abs/2304.07193; Simeoni et al. 2025, https://arxiv.org/abs/2508.10104
"""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ribcage.bundle.formats.reading.dino import DINOV2, DINOV3, dino_architecture, split_bias, without_class_position
from ribcage.bundle.formats.reading.published_weights import (
    MEAN,
    STD,
    VITS,
    Evidence,
    Published,
    architecture,
    input_size,
)

SOURCE = "https://github.com/facebookresearch/dinov2"
LICENCE = "Apache-2.0 (DINO, DINOv2); DINOv3 License (DINOv3)"

OWN = ("register_tokens", "storage_tokens")
"""Names that only backbones of DINOv2 and DINOv3 have."""
UNUSED = re.compile(r"(dino_|ibot_)?head\.(mlp|last_layer)\b|(dino|ibot|gram)_|mask_token$|rope_embed\.")
"""Weights of heads and losses, and constants."""
NAMES = (
    (r"^blocks\.\d+\.(\d+)\.", r"blocks.\1."),
    (r"^(register|storage)_tokens$", "reg_token"),
    (r"\.mlp\.w12\.", ".mlp.fc1."),
    (r"\.mlp\.w1\.", ".mlp.fc1_g."),
    (r"\.mlp\.w2\.", ".mlp.fc1_x."),
    (r"\.mlp\.w3\.", ".mlp.fc2."),
)
"""Names in the file → timm's names."""


def recognises(weights: Mapping[str, Tensor]) -> bool:
    """Whether there is a backbone with the tokens or the heads of DINO."""
    return {"cls_token", "patch_embed.proj.weight"} <= {name.removeprefix("backbone.") for name in weights} and bool(
        _evidence(weights)
    )


def published(weights: dict[str, Tensor]) -> Published:
    """The weights under timm's names, and what the layout implies about them."""
    state: dict[str, Tensor] = {}
    sources: dict[str, str] = {}
    unused = []
    for name, value in weights.items():
        new = name.removeprefix("backbone.")
        if UNUSED.match(new):
            unused.append(name)
            continue
        for pattern, replacement in NAMES:
            new = re.sub(pattern, replacement, new)
        if new in state:
            raise ValueError(f"{name} and {sources[new]} are the same weight")
        state[new], sources[new] = value, name
    third = "pos_embed" not in state  # DINOv3 has rotary embeddings instead
    converted = _as_dinov3(state, sources) if third else without_class_position(state, sources)
    name = dino_architecture(state, DINOV3 if third else DINOV2) or architecture(state, VITS)
    if not name:
        raise ValueError("no DINO model in timm has weights of these names and shapes")
    place: dict[str, Any] = {"size": (256, 256)} if third else input_size(state, 0 if "reg_token" in state else 1)
    return Published(
        state,
        MEAN,
        STD,
        name=name,
        pool="token",
        antialias="reg_token" in state,
        evidence=Evidence("names", _evidence(weights)),
        unused=tuple(unused),
        converted=converted,
        **place,
    )


def _evidence(weights: Mapping[str, Tensor]) -> str:
    """A name that only DINO's models have; "" if there is none. The mask token of MAE comes without layer scales."""
    names = {name.removeprefix("backbone.") for name in weights}
    scaled = any(name.endswith(".ls1.gamma") for name in names)
    own = (name for name in sorted(names) if name in OWN or name.startswith(("dino_head.", "head.last_layer.")))
    return next(own, "mask_token" if scaled and "mask_token" in names else "")


def _as_dinov3(state: dict[str, Tensor], sources: dict[str, str]) -> dict[str, tuple[str, ...]]:
    """Rename the layer scales and split the biases as timm does; the sources of those that were split."""
    converted: dict[str, tuple[str, ...]] = {}
    for name in list(state):
        if match := re.fullmatch(r"(blocks\.\d+)\.ls(\d)\.gamma", name):
            state[f"{match[1]}.gamma_{match[2]}"] = state.pop(name)
        elif match := re.fullmatch(r"(blocks\.\d+)\.attn\.qkv\.bias", name):
            used = tuple(sources[one] for one in (name, f"{name}_mask") if one in state)
            converted |= dict.fromkeys(split_bias(state, match[1]), used)
    return converted
