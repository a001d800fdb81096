"""AutoFormerV2 and Swin: checkpoints whose downsampling layers are at the end of each stage.

A file contains {model} or a plain state dict:
    layers.N.blocks.M.attn.relative_position_bias_table, …_index; layers.N.blocks.M.attn_mask; layers.N.downsample.*

Index and masks are recomputed from the window size and not read. A head followed by a sigmoid is named `head.0`. An
AutoFormerV2 with 14 outputs is taken to be one of DTforCXR8, which determines the findings.

Chen et al. 2021, https://arxiv.org/abs/2111.14725; Liu et al. 2021, https://arxiv.org/abs/2103.14030
"""

import re
from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor

from ribcage.bundle.formats.reading.published_weights import (
    MEAN,
    STD,
    Evidence,
    Published,
    architecture,
    with_dtforcxr8_findings,
)

SOURCE = "https://github.com/microsoft/Cream/tree/main/AutoFormerV2"
LICENCE = "MIT (code); weights trained on ImageNet"

AUTOFORMERS = tuple(f"autoformer_v2_{size}" for size in ("tiny", "small", "base"))
SWINS = tuple(f"swin_{size}_patch4_window7_224" for size in ("tiny", "small", "base", "large"))
SEEN = Evidence("names", "layers.0.downsample.reduction and relative_position_bias_table")
RECOMPUTED = ("relative_position_index", "attn_mask")


def recognises(weights: Mapping[str, Tensor]) -> bool:
    """Whether the attention has a relative position bias and the first stage ends with downsampling."""
    return {"layers.0.downsample.reduction.weight", "layers.0.blocks.0.attn.relative_position_bias_table"} <= set(
        weights
    )


def published(weights: dict[str, Tensor]) -> Published:
    """The weights with the last layer under timm's name; timm itself converts the other names."""
    unused = tuple(name for name in weights if name.endswith(RECOMPUTED))
    state = {re.sub(r"^head\.(0\.)?", "head.fc.", name): value for name, value in weights.items() if name not in unused}
    plain = {re.sub(r"^layers\.(\d+)\.downsample", timm_downsample, name): value for name, value in state.items()}
    found = Published(state, MEAN, STD, name=architecture(plain, AUTOFORMERS + SWINS), unused=unused, evidence=SEEN)
    if found.name.startswith("swin_"):
        return replace(found, source="https://github.com/microsoft/Swin-Transformer")
    return with_dtforcxr8_findings(found, "head.fc")


def timm_downsample(found: re.Match[str]) -> str:
    """timm's name of a downsampling layer: timm has it at the start of the next stage."""
    return f"layers.{int(found[1]) + 1}.downsample"
