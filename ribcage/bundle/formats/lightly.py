"""lightly: Lightning checkpoints with the backbone, the heads and their momentum copies.

A file contains {state_dict, …}:
    backbone.0.weight, backbone.4.0.conv1.weight    a ResNet's numbered parts: conv1, bn1, ReLU, pooling, four layers
    backbone.2.0.shortcut.0.weight                  lightly's own ResNets: 3 × 3 stem, neither ReLU nor pooling
    backbone.conv1.weight                           or torchvision's names, as also used by solo-learn and mmselfsup
    projection_head.*, backbone_momentum.*, …       not read

Only the backbone is read. https://github.com/lightly-ai/lightly
"""

import re
from collections.abc import Collection

from torch import Tensor

from ribcage.bundle.formats.reading.published_weights import (
    DENSENETS,
    MEAN,
    RESNETS,
    STD,
    Evidence,
    Published,
    architecture,
)

SOURCE = "https://github.com/lightly-ai/lightly"
LICENCE = "MIT (code); weights as stated by their authors"
BACKBONE = "backbone."
PARTS = ("conv1", "bn1", "layer1", "layer2", "layer3", "layer4")
NUMBERS, WITHOUT_POOLING = ("0", "1", "4", "5", "6", "7"), ("0", "1", "2", "3", "4", "5")
"""Numbers of PARTS in a sequence with ReLU and pooling, and in one without them."""
SMALL = ("resnet18_small", "resnet34_small", "resnet50_small", "resnet101_small")
"""ResNets with a 3 × 3 stem and without initial pooling."""
OWN = re.compile(r"projection_head|prediction_head|projector|momentum|prototypes|^neck\.")
"""Names that, beside a backbone, are typical of self-supervised training."""
LAST_LAYERS = ("fc.", "classifier.")
"""Prefixes of last layers."""
FIRST = ("0.weight", "0.conv0.weight", "conv1.weight", "features.conv0.weight")


def recognises(names: Collection[str]) -> bool:
    """Whether there is a backbone with the first layer of a ResNet or DenseNet."""
    return any(BACKBONE + first in names for first in FIRST)


def published(weights: dict[str, Tensor]) -> Published:
    """The weights of the backbone under timm's names."""
    backbone = {name.removeprefix(BACKBONE): value for name, value in weights.items() if name.startswith(BACKBONE)}
    state = without_head(torchvision_named(backbone))
    last = tuple(BACKBONE + end for end in LAST_LAYERS)
    unused = tuple(name for name in weights if not name.startswith(BACKBONE) or name.startswith(last))
    name = architecture(state, (*SMALL, *RESNETS, *DENSENETS))
    size, stored = sizes(name)
    own = next((one for one in unused if OWN.search(one)), "")
    seen = (
        Evidence("names", f"backbone. and {own}")
        if own
        else Evidence("shapes", "the prefix backbone. and the parameter names of a ResNet")
    )
    return Published(state, MEAN, STD, name=name, unused=unused, size=size, stored=stored, evidence=seen)


def torchvision_named(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights of an nn.Sequential of a network's parts, under torchvision's names."""
    if "0.conv0.weight" in state:
        return {f"features.{name.removeprefix('0.')}": value for name, value in state.items()}
    pooling = any(name.startswith(("6.", "7.")) for name in state)
    parts = dict(zip(NUMBERS if pooling else WITHOUT_POOLING, PARTS, strict=True))
    split = {name: name.partition(".") for name in state}
    full = {name: f"{parts.get(first, first)}.{rest}" for name, (first, _, rest) in split.items()}
    return {full[name].replace(".shortcut.", ".downsample."): value for name, value in state.items()}


def without_head(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights without the last layer, which self-supervised methods do not train."""
    return {name: value for name, value in state.items() if not name.startswith(LAST_LAYERS)}


def sizes(name: str) -> tuple[tuple[int, int], int]:
    """Image size (height, width), and the size of the square before cropping, in pixels."""
    return ((32, 32), 32) if name in SMALL else ((224, 224), 256)
