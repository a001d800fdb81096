"""AutoFormerV2 and Swin checkpoints, {model} or bare weights: transformers that halve the maps at the end of a stage.

    layers.N.blocks.M.attn.relative_position_bias_table, …_index; layers.N.blocks.M.attn_mask; layers.N.downsample.*

The index and the masks, which follow from the windows, are left out. A head with a sigmoid behind it is `head.0`; what
14 rows answer is DTforCXR8's, where the windows are AutoFormerV2's.

Chen et al. 2021, https://arxiv.org/abs/2111.14725; Liu et al. 2021, https://arxiv.org/abs/2103.14030
"""

import re
from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor

from ribcage.bundle.formats.reading.published_weights import MEAN, STD, Evidence, Published, architecture, numbered

SOURCE = "https://github.com/microsoft/Cream/tree/main/AutoFormerV2"
LICENCE = "MIT (code); weights trained on ImageNet"

AUTOFORMERS = tuple(f"autoformer_v2_{size}" for size in ("tiny", "small", "base"))
SWINS = tuple(f"swin_{size}_patch4_window7_224" for size in ("tiny", "small", "base", "large"))
SEEN = Evidence("names", "layers.0.downsample.reduction and relative_position_bias_table")
MADE_ANEW = ("relative_position_index", "attn_mask")


def recognises(weights: Mapping[str, Tensor]) -> bool:
    """Whether windows have biases, and the first stage ends with a halving."""
    return {"layers.0.downsample.reduction.weight", "layers.0.blocks.0.attn.relative_position_bias_table"} <= set(
        weights
    )


def published(weights: dict[str, Tensor]) -> Published:
    """With timm's name of the last layer; the others are brought to timm's by timm itself."""
    left = tuple(name for name in weights if name.endswith(MADE_ANEW))
    state = {re.sub(r"^head\.(0\.)?", "head.fc.", name): value for name, value in weights.items() if name not in left}
    plain = {re.sub(r"^layers\.(\d+)\.downsample", timm_downsample, name): value for name, value in state.items()}
    found = Published(state, MEAN, STD, name=architecture(plain, AUTOFORMERS + SWINS), left=left, evidence=SEEN)
    if found.name.startswith("swin_"):
        return replace(found, source="https://github.com/microsoft/Swin-Transformer")
    return numbered(found, "head.fc")


def timm_downsample(found: re.Match[str]) -> str:
    """In timm a map is halved at the start of the next stage."""
    return f"layers.{int(found[1]) + 1}.downsample"
