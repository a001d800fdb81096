"""MONAI: its DenseNets and ResNets for images, as in models/model.pt of a MONAI bundle.

    features.denseblockN.denselayerM.layers.*, class_layers.out.*    a DenseNet
    conv1.*, layerN.M.*, layerN.0.downsample.0.bias, fc.*            a ResNet

The bias before a norm is subtracted from its running mean. The weights do not show the stride of a ResNet's stem: it is
1 by default in MONAI (monai_resnet18 …), and 2 with conv1_t_stride=2 (resnet18 …); --model decides. Nor do they show
the preprocessing: the assumed one is ScaleIntensity, pixels from 0 to 1, on images resized to 224 × 224. MONAI's
LoadImage swaps rows and columns of PNG and JPEG files: a network trained on such images expects them transposed.

Cardoso et al. 2022, https://arxiv.org/abs/2211.02701
"""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ribcage.bundle.formats.reading.published_weights import DENSENETS, Evidence, Published, architecture
from ribcage.models.architectures.resnet_monai import NAMES as STRIDE_1

SOURCE = "https://github.com/Project-MONAI/MONAI"
LICENCE = "Apache-2.0 (code); weights as stated by their authors"

STRIDE_2 = tuple(name.removeprefix("monai_") for name in STRIDE_1)
"""The same ResNets with the usual stem."""
DENSENET, RESNET = "features.denseblock1.denselayer1.layers.conv1.weight", "layer2.0.downsample.0.bias"
"""Weights that only these networks have."""
BIAS = re.compile(r"(.+\.downsample)\.0\.bias")


def recognises(weights: Mapping[str, Tensor]) -> bool:
    """Whether there are MONAI's dense layers, or a ResNet with biases in its shortcuts."""
    return DENSENET in weights or {RESNET, "conv1.weight", "layer1.0.conv1.weight"} <= set(weights)


def published(weights: dict[str, Tensor]) -> Published:
    """The weights under timm's names; what they were trained on is unknown."""
    dense = DENSENET in weights
    first = "features.conv0" if dense else "conv1"
    if weights[f"{first}.weight"].ndim == 5:
        raise ValueError("the network is for volumes; only networks for images (spatial_dims=2) can be converted")
    state = {timm_name(name): value for name, value in weights.items()}
    converted = without_biases(state)
    name = architecture(state, DENSENETS if dense else STRIDE_2)
    model: Any = {"name": name} if dense or not name else {"candidates": (f"monai_{name}", name)}
    channels = Published(state).channels(first)
    return Published(
        state,
        (0.0,) * channels,
        (1.0,) * channels,
        evidence=Evidence("shapes", "denselayer1.layers." if dense else RESNET),
        stored=224,
        fit="squash",
        converted=converted,
        **model,
    )


def timm_name(name: str) -> str:
    """features.denseblock1.denselayer1.layers.norm1.weight → features.denseblock1.denselayer1.norm1.weight"""
    return re.sub(r"(\.denselayer\d+)\.layers\.", r"\1.", name).replace("class_layers.out.", "classifier.")


def without_biases(state: dict[str, Tensor]) -> dict[str, tuple[str, ...]]:
    """Move the biases of the shortcuts, which timm does not have, into the following norms; the sources of these."""
    converted: dict[str, tuple[str, ...]] = {}
    for name in list(filter(BIAS.fullmatch, state)):
        mean = f"{name.removesuffix('0.bias')}1.running_mean"
        state[mean] = state[mean] - state.pop(name)
        converted[mean] = (mean, name)
    return converted
