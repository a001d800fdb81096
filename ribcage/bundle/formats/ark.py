"""Ark and Ark+: Swin or ConvNeXt backbones trained on several datasets of chest radiographs, one head for each.

A file contains {state_dict, teacher}, of which the teacher is read, or the weights of the teacher:
    layers.N.blocks.M.*, layers.N.downsample.*    a Swin of timm 0.5; its `head` was not trained and is not read
    downsample_layers.N.*, stages.N.M.*           or a ConvNeXt
    projector.*                                   a linear layer before the heads, or two of them (projector.{0,2}.*)
    omni_heads.K.*                                the head of the K-th dataset

All heads become one last layer, in the order of the file; a linear projector is multiplied into it. Ark-6 has 52
outputs: MIMIC-CXR 14, CheXpert 14, ChestX-ray14 14, RSNA 3, VinDr-CXR 6, Shenzhen 1; those of ChestX-ray14 are kept
unless --findings names others. Behind two layers heads are not read. Images are resized to a square, with ImageNet's
normalisation; the size is read from the attention masks. Recognised by the published names and shapes only.

Ma et al. 2023, https://arxiv.org/abs/2310.09507; Ma et al. 2025, https://doi.org/10.1038/s41586-025-09079-8
"""

import math
import re
from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor

from ribcage.bundle.formats.autoformer import RECOMPUTED, timm_downsample
from ribcage.bundle.formats.reading.config_file import image_side
from ribcage.bundle.formats.reading.published_weights import MEAN, STD, Evidence, Published, architecture
from ribcage.data.findings import CHESTXRAY14

SOURCE = "https://github.com/jlianglab/Ark"
LICENCE = "ASU GitHub Project License (non-commercial use)"
LAST = -1
"""This layout is tried before `autoformer`."""

SWINS = tuple(
    f"swin_{size}_patch4_{window}" for size in ("base", "large") for window in ("window7_224", "window12_384")
)
CONVNEXTS = ("convnext_base",)
ARK6 = (14, 14, 14, 3, 6, 1)
"""Number of outputs of each head of Ark-6; the third is that of ChestX-ray14."""
MASK = "layers.0.blocks.1.attn_mask"
HEAD = re.compile(r"omni_heads\.(\d+)\.(weight|bias)")
CONVNEXT_NAMES = (
    (r"^downsample_layers\.0\.", "stem."),
    (r"^stages\.(\d+)\.(\d+)\.", r"stages.\1.blocks.\2."),
    (r"^downsample_layers\.(\d+)\.", r"stages.\1.downsample."),
    (r"\.dwconv\.", ".conv_dw."),
    (r"\.pwconv(\d)\.", r".mlp.fc\1."),
    (r"^norm\.", "head.norm."),
)
"""Names in the file → timm's names."""


def recognises(names: Collection[str]) -> bool:
    """Whether there are the heads of several datasets."""
    return "omni_heads.0.weight" in names


def published(weights: dict[str, Tensor]) -> Published:
    """The weights with all heads as one last layer, and what the layout implies about them."""
    heads, sources = last_layer(weights)
    used = {one for names in sources.values() for one in names}
    extra = {name for name in weights if name.startswith(("omni_heads.", "projector.", "head."))}
    body = {name: value for name, value in weights.items() if name not in extra and not name.endswith(RECOMPUTED)}
    swin = "patch_embed.proj.weight" in weights
    state = body if swin else {convnext_name(name): value for name, value in body.items()}
    plain = {re.sub(r"^layers\.(\d+)\.downsample", timm_downsample, name): value for name, value in body.items()}
    widths = tuple(len(weights[name]) for name in head_names(weights, "weight"))
    chest: Any = {"findings": ark6_findings(), "data": "chest radiographs of six datasets", "findings_inferred": True}
    side = trained_side(weights)
    return Published(
        state | heads,
        MEAN,
        STD,
        name=architecture(plain, SWINS) if swin else architecture(state, CONVNEXTS),
        evidence=Evidence("names", "omni_heads."),
        unused=tuple(name for name in weights if name not in used and (name in extra or name not in body)),
        converted=sources,
        size=(side, side),
        stored=side,
        fit="squash",
        **(chest if heads and widths == ARK6 else {}),
    )


def last_layer(weights: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, tuple[str, ...]]]:
    """Weight and bias of all heads, with the linear projector before them, and their names in the file; none behind a
    projector of two layers."""
    if any(name.startswith("projector.") and name.count(".") > 1 for name in weights):
        return {}, {}
    names = {part: head_names(weights, part) for part in ("weight", "bias")}
    joined = {part: torch.cat([weights[name] for name in names[part]]) for part in names}
    if "projector.weight" in weights:
        matrix, weight, bias = (
            value.double() for value in (joined["weight"], weights["projector.weight"], weights["projector.bias"])
        )
        joined["weight"] = (matrix @ weight).to(joined["weight"])
        joined["bias"] = (matrix @ bias + joined["bias"].double()).to(joined["bias"])
        names = {part: [*found, f"projector.{part}"] for part, found in names.items()}
    sources = {f"head.fc.{part}": tuple(found) for part, found in names.items()}
    return {f"head.fc.{part}": value for part, value in joined.items()}, sources


def head_names(weights: Collection[str], part: str) -> list[str]:
    """The names of the weights or biases of the heads, in the order of their numbers."""
    found = [match for match in map(HEAD.fullmatch, weights) if match and match[2] == part]
    return [match[0] for match in sorted(found, key=lambda match: int(match[1]))]


def ark6_findings() -> tuple[str, ...]:
    """The findings of ChestX-ray14 at their places among the outputs of Ark-6; "" for the other outputs."""
    return ("",) * sum(ARK6[:2]) + CHESTXRAY14 + ("",) * sum(ARK6[3:])


def trained_side(weights: Mapping[str, Tensor]) -> int:
    """Side of the images for which the attention masks of the first stage were made; without masks, 224."""
    if MASK not in weights:
        return 224
    windows, cells = weights[MASK].shape[:2]
    return image_side(math.isqrt(windows) * math.isqrt(cells) * 4)


def convnext_name(name: str) -> str:
    """stages.0.1.dwconv.weight → stages.0.blocks.1.conv_dw.weight"""
    for pattern, replacement in CONVNEXT_NAMES:
        name = re.sub(pattern, replacement, name)
    return name
