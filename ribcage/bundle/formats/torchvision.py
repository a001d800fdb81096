"""torchvision: bare weights under the names of the torchvision models.

    model = torchvision.models.resnet18()
    model.load_state_dict(torch.load("resnet18_xray.pth"), strict=False)    # fc is missing

It sees RGB, or gray three times, normalised as for ImageNet. A supervised method's classifier is in the file, too.

Read are its ResNets, ResNeXts, wide ResNets and DenseNets, the latter also by their names of 2017 (`norm.1`), and as
others fine-tune them: with a sigmoid behind the last layer (`fc.0`, `classifier.0`), or without a last layer.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from ribcage.bundle.formats.chexnet import DOTTED
from ribcage.bundle.formats.reading.published_weights import (
    DENSENETS,
    MEAN,
    RESNETS,
    STD,
    UNKNOWN,
    Evidence,
    Published,
    architecture,
    flat,
)
from ribcage.bundle.formats.writing import base
from ribcage.bundle.spec import ModelSpec
from ribcage.methods import Method
from ribcage.methods.supervised import Supervised

SOURCE = "https://github.com/pytorch/vision"
LICENCE = "BSD-3-Clause (code); weights trained on ImageNet"
LAST = 1

IMAGENET = 1000
"""Rows of the last layer of those that torchvision publishes."""
FAMILIES = {"conv1": ("fc", RESNETS), "features.conv0": ("classifier", DENSENETS)}
"""By the first layer: what the last is called, and whose these are."""


def recognises(weights: Mapping[str, Tensor]) -> bool:
    """Whether the first layers of a ResNet or a DenseNet are there."""
    return {"conv1.weight", "layer1.0.conv1.weight"} <= set(weights) or "features.norm0.weight" in weights


def published(weights: dict[str, Tensor]) -> Published:
    """Under timm's names, which are torchvision's."""
    stem = "conv1" if "conv1.weight" in weights else "features.conv0"
    last, candidates = FAMILIES[stem]
    state = flat({DOTTED.sub(r"\1\2.", name): value for name, value in weights.items()}, last)
    whose: Any = {} if len(state.get(f"{last}.weight", ())) == IMAGENET else UNKNOWN
    scale: Any = {"mean": MEAN, "std": STD} if Published(state).channels(stem) == 3 else {}
    seen = Evidence("shapes", f"the names of torchvision's {'ResNets' if stem == 'conv1' else 'DenseNets'}")
    return Published(state, **scale, name=architecture(state, candidates), evidence=seen, **whose)


def export(method: Method, model: ModelSpec, target: Path) -> Path:
    """Write the file; into a folder as resnet18_xray.pth."""
    weights = base.as_torchvision(method.backbone, model)
    if isinstance(method, Supervised) and method.findings:
        fc = base.classifier(model.name)
        weights |= {f"{fc}.{name}": base.taken(value) for name, value in method.head.state_dict().items()}
    return base.write_weights(weights, target, f"{base.plain_name(model.name)}_xray.pth")
