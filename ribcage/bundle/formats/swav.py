"""SwAV checkpoints, bare or {state_dict, …}: a ResNet under the names of torchvision, its head and the prototypes.

    module.conv1.weight, module.layer1.*    the ResNet, without fc
    module.projection_head.{0,1,3}.*        linear, batch norm, linear; not needed
    module.prototypes.weight                one in each row, of length 1; not needed

It sees gray three times, normalised as for ImageNet. https://github.com/facebookresearch/swav
"""

import re
from collections.abc import Collection
from pathlib import Path

from torch import Tensor

from ribcage.bundle.formats.reading.published_weights import MEAN, RESNETS, STD, Evidence, Published, architecture
from ribcage.bundle.formats.writing import base
from ribcage.bundle.spec import ModelSpec
from ribcage.methods import Method
from ribcage.methods.swav import SwAV

SOURCE = "https://github.com/facebookresearch/swav"
LICENCE = "CC-BY-NC-4.0"
LEFT = re.compile(r"(projection_head|prototypes)\.")
"""What only the training needs."""


def recognises(names: Collection[str]) -> bool:
    """Whether a head of this name is beside a ResNet that has none before its own names."""
    return "layer1.0.conv1.weight" in names and any(LEFT.match(name) for name in names)


def published(weights: dict[str, Tensor]) -> Published:
    """The ResNet, under timm's names."""
    state = {name: value for name, value in weights.items() if not LEFT.match(name)}
    left = tuple(filter(LEFT.match, weights))
    return Published(
        state, MEAN, STD, name=architecture(state, RESNETS), left=left, evidence=Evidence("names", left[0])
    )


def export(method: Method, model: ModelSpec, target: Path) -> Path:
    """Write the file; into a folder as resnet50_xray.pth.tar."""
    if not isinstance(method, SwAV):
        kind = type(method).__name__
        raise ValueError(f"The swav layout needs prototypes, which {kind} lacks: use the layout torchvision.")
    weights = base.as_torchvision(method.backbone, model)
    if base.classifier(model.name) != "fc":
        raise ValueError(f"The swav layout is for ResNets, not for {model.name}: use the layout torchvision.")
    weights |= {f"projection_head.{name}": base.taken(value) for name, value in method.head.state_dict().items()}
    weights["prototypes.weight"] = base.taken(method.prototypes.weight)
    content = {
        "epoch": model.training.epochs,
        "state_dict": {f"module.{name}": value for name, value in weights.items()},
    }
    return base.write_weights(content, target, f"{base.plain_name(model.name)}_xray.pth.tar")
