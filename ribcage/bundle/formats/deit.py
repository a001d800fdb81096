"""DeiT and other plain vision transformers with the weight names of timm and a class token.

    {model: cls_token, dist_token, pos_embed, patch_embed.proj.*, blocks.N.*, norm.*, head.*, head_dist.*}

Distilled models have `dist_token` and `head_dist`; DeiT III has `gamma_1` and `gamma_2` in each block. ImageNet
normalisation is assumed. Some of timm's own transformers use mean and standard deviation .5 instead, which the weight
names do not reveal: with config.json beside the weights such files are read as `huggingface`; otherwise pass
--mean .5 .5 .5 --std .5 .5 .5.

Touvron et al. 2021, https://arxiv.org/abs/2012.12877
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ribcage.bundle.formats.reading.published_weights import (
    MEAN,
    STD,
    UNKNOWN,
    VITS,
    Evidence,
    Published,
    architecture,
    input_size,
)

SOURCE = "https://github.com/facebookresearch/deit"
LICENCE = "Apache-2.0 (code); weights trained on ImageNet"
LAST = 1

PLAIN = {"cls_token", "pos_embed", "patch_embed.proj.weight", "blocks.0.attn.qkv.weight", "norm.weight"}
DEITS = tuple(f"deit_{size}_patch16_224" for size in ("tiny", "small", "base"))
DISTILLED = tuple(f"deit_{size}_distilled_patch16_224" for size in ("tiny", "small", "base"))
THIRD = tuple(f"deit3_{size}_224" for size in ("small_patch16", "medium_patch16", "base_patch16", "large_patch16"))
IMAGENET_CLASSES = (1000, 21_841, 21_843)
"""Numbers of outputs of models that were trained on ImageNet."""


def recognises(weights: Mapping[str, Tensor]) -> bool:
    """Whether there are all parts of a plain vision transformer."""
    return set(weights) >= PLAIN


def published(weights: dict[str, Tensor]) -> Published:
    """The weights under timm's names, and what the layout implies about them."""
    state = {
        name.replace(".gamma_1", ".ls1.gamma").replace(".gamma_2", ".ls2.gamma"): weights[name] for name in weights
    }
    third, distilled = "blocks.0.ls1.gamma" in state, "dist_token" in state
    candidates = THIRD if third else DISTILLED if distilled else DEITS + VITS
    origin: Any = {} if len(state.get("head.weight", ())) in IMAGENET_CLASSES else UNKNOWN
    place = input_size(state, 0 if third else 2 if distilled else 1)
    own = next((one for one in ("blocks.0.gamma_1", "dist_token") if one in weights), "")
    seen = (
        Evidence("names", own) if own else Evidence("shapes", "the parameter names of timm's plain vision transformers")
    )
    return Published(state, MEAN, STD, name=architecture(state, candidates), evidence=seen, **place, **origin)
