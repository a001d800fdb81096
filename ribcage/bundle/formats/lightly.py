"""lightly checkpoints: {state_dict, …} of Lightning, with the backbone, its heads and their momentum copies.

    backbone.0.weight, backbone.4.0.conv1.weight    a ResNet's parts by number: conv1, bn1, ReLU, pooling, four layers
    backbone.2.0.shortcut.0.weight                  of lightly's own ResNets: 3 × 3 stem, neither ReLU nor pooling
    backbone.conv1.weight                           or torchvision's names, as solo-learn and mmselfsup have them, too
    projection_head.*, backbone_momentum.*, …       not needed

The backbone alone is read. https://github.com/lightly-ai/lightly
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
LICENCE = "MIT (code); weights as their authors say"
BACKBONE = "backbone."
PARTS = ("conv1", "bn1", "layer1", "layer2", "layer3", "layer4")
NUMBERS, WITHOUT_POOLING = ("0", "1", "4", "5", "6", "7"), ("0", "1", "2", "3", "4", "5")
"""Of these parts, when a ReLU and a pooling are counted, and when they are not."""
SMALL = ("resnet18_small", "resnet34_small", "resnet50_small", "resnet101_small")
"""The ResNets with a stem of 3 × 3 and without pooling."""
OWN = re.compile(r"projection_head|prediction_head|projector|momentum|prototypes|^neck\.")
"""In names that only such a training has beside the backbone."""
ENDS = ("fc.", "classifier.")
"""Of last layers."""
FIRST = ("0.weight", "0.conv0.weight", "conv1.weight", "features.conv0.weight")


def recognises(names: Collection[str]) -> bool:
    """Whether there is a backbone that begins as ResNets and DenseNets do."""
    return any(BACKBONE + first in names for first in FIRST)


def published(weights: dict[str, Tensor]) -> Published:
    """The backbone, under timm's names."""
    given = {name.removeprefix(BACKBONE): value for name, value in weights.items() if name.startswith(BACKBONE)}
    state = without_head(torchvision_named(given))
    last = tuple(BACKBONE + end for end in ENDS)
    left = tuple(name for name in weights if not name.startswith(BACKBONE) or name.startswith(last))
    name = architecture(state, (*SMALL, *RESNETS, *DENSENETS))
    size, stored = sizes(name)
    own = next((one for one in left if OWN.search(one)), "")
    seen = Evidence("names", f"backbone. beside {own}") if own else Evidence("shapes", "a backbone. of ResNet's names")
    return Published(state, MEAN, STD, name=name, left=left, size=size, stored=stored, evidence=seen)


def torchvision_named(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A network that was cut into a row of its parts, with torchvision's names for numbers."""
    if "0.conv0.weight" in state:
        return {f"features.{name.removeprefix('0.')}": value for name, value in state.items()}
    pooling = any(name.startswith(("6.", "7.")) for name in state)
    parts = dict(zip(NUMBERS if pooling else WITHOUT_POOLING, PARTS, strict=True))
    split = {name: name.partition(".") for name in state}
    full = {name: f"{parts.get(first, first)}.{rest}" for name, (first, _, rest) in split.items()}
    return {full[name].replace(".shortcut.", ".downsample."): value for name, value in state.items()}


def without_head(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Without the last layer, which such a training leaves as it was."""
    return {name: value for name, value in state.items() if not name.startswith(ENDS)}


def sizes(name: str) -> tuple[tuple[int, int], int]:
    """Of images, and of the squares that they are cut from."""
    return ((32, 32), 32) if name in SMALL else ((224, 224), 256)
