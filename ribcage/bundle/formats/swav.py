"""SwAV: checkpoints of a ResNet with projection head and prototypes.

A file contains a plain state dict or {state_dict, …}, with the weight names of torchvision:
    module.conv1.weight, module.layer1.*    the ResNet, without fc
    module.projection_head.{0,1,3}.*        linear, batch norm, linear; not read
    module.prototypes.weight                one per row, of unit length; not read

The input is greyscale repeated in three channels, with ImageNet normalisation. https://github.com/facebookresearch/swav
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
TRAINING_ONLY = re.compile(r"(projection_head|prototypes)\.")
"""Names of weights that are used in training only."""


def recognises(names: Collection[str]) -> bool:
    """Whether there is a ResNet without a prefix, and a projection head or prototypes."""
    return "layer1.0.conv1.weight" in names and any(TRAINING_ONLY.match(name) for name in names)


def published(weights: dict[str, Tensor]) -> Published:
    """The weights of the ResNet under timm's names."""
    state = {name: value for name, value in weights.items() if not TRAINING_ONLY.match(name)}
    unused = tuple(filter(TRAINING_ONLY.match, weights))
    return Published(
        state, MEAN, STD, name=architecture(state, RESNETS), unused=unused, evidence=Evidence("names", unused[0])
    )


def export(method: Method, model: ModelSpec, target: Path) -> Path:
    """Write the file. If the target is a folder, the file is named resnet50_xray.pth.tar."""
    if not isinstance(method, SwAV):
        kind = type(method).__name__
        raise ValueError(f"The swav layout needs prototypes, which {kind} lacks: use the torchvision layout.")
    weights = base.as_torchvision(method.backbone, model)
    if base.classifier(model.name) != "fc":
        raise ValueError(f"The swav layout supports only ResNets, not {model.name}; use the torchvision layout.")
    weights |= {f"projection_head.{name}": base.copied(value) for name, value in method.head.state_dict().items()}
    weights["prototypes.weight"] = base.copied(method.prototypes.weight)
    content = {
        "epoch": model.training.epochs,
        "state_dict": {f"module.{name}": value for name, value in weights.items()},
    }
    return base.write_weights(content, target, f"{base.plain_name(model.name)}_xray.pth.tar")
