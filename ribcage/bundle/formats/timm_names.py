"""Other files with the weight names of timm: EfficientNet, MobileNet, ConvNeXt, RegNet, Swin, VGG and others.

Common architectures are identified by their weights; name others with --model. Neither the authors nor the
normalisation can be inferred from the weights: timm's default for the architecture is used unless --mean and --std are
given.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ribcage.bundle.formats.reading.published_weights import (
    UNKNOWN,
    Evidence,
    Published,
    architecture,
    twin_architectures,
)

SOURCE = "https://github.com/huggingface/pytorch-image-models"
LICENCE = "Apache-2.0 (code); weights as stated by their authors"
LAST = 2

FAMILIES: dict[str, tuple[str, ...]] = {
    "conv_stem.weight": (
        *(f"efficientnet_b{n}" for n in range(5)),
        *(f"mobilenetv3_{size}" for size in ("small_050", "small_075", "small_100", "large_075", "large_100")),
        *(f"mobilenetv2_{width}" for width in ("050", "100", "140")),
    ),
    "stages.0.blocks.0.conv_dw.weight": tuple(f"convnext_{size}" for size in ("tiny", "small", "base", "large")),
    "layers.0.blocks.0.attn.relative_position_bias_table": (
        *(f"swin_{size}_patch4_window7_224" for size in ("tiny", "small", "base", "large")),
        *(f"autoformer_v2_{size}" for size in ("tiny", "small", "base")),
    ),
    "stem.conv.weight": tuple(f"regnet{kind}_{size}" for kind in "xy" for size in ("004", "008", "016", "032", "080")),
    "stage1.0.mlp.conv1.weight": ("visformer_tiny", "visformer_small"),
    "pre_logits.fc1.weight": tuple(f"vgg{depth}{norm}" for norm in ("", "_bn") for depth in (11, 13, 16, 19)),
    "Mixed_5b.branch1x1.conv.weight": ("inception_v3",),
    "layer1.0.se.fc1.weight": ("seresnet18", "seresnet34", "seresnet50", "seresnet101", "seresnext50_32x4d"),
    "conv1.0.weight": ("resnet18d", "resnet34d", "resnet26d", "resnet50d", "resnet101d"),
    "blocks.0.attn.qkv.weight": ("vit_medium_patch16_gap_240", "vit_base_patch16_siglip_gap_224"),
}
"""A weight name that a family of architectures has in common → the architectures."""


def recognises(weights: Mapping[str, Tensor]) -> bool:
    """Whether the weights fit one of FAMILIES."""
    return bool(fitting_architecture(weights))


def published(weights: dict[str, Tensor]) -> Published:
    """The weights unchanged. If several architectures have exactly these weights, none is chosen."""
    name = fitting_architecture(weights)
    others = twin_architectures(name)
    model: Any = {"candidates": (name, *others)} if others else {"name": name}
    return Published(weights, evidence=Evidence("shapes", f"timm's names of {name}"), **model, **UNKNOWN)


def fitting_architecture(weights: Mapping[str, Tensor]) -> str:
    """The architecture in FAMILIES that the weights fit; "" if there is none."""
    found = (architecture(weights, models) for name, models in FAMILIES.items() if name in weights)
    return next((name for name in found if name), "")
