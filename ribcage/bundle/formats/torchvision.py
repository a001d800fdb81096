"""torchvision: state dicts of torchvision models.

    model = torchvision.models.resnet18()
    model.load_state_dict(torch.load("resnet18_xray.pth"), strict=False)    # fc is missing

The input is RGB, or greyscale repeated in three channels, with ImageNet normalisation. The classifier of a supervised
method is written, too.

torchvision's ResNets, ResNeXts, wide ResNets and DenseNets are read, the latter also under their names of 2017
(`norm.1`). The last layer may be missing, or be followed by a sigmoid (`fc.0`, `classifier.0`).
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
    unnested_head,
)
from ribcage.bundle.formats.writing import base
from ribcage.bundle.spec import ModelSpec
from ribcage.methods import Method
from ribcage.methods.supervised import Supervised

SOURCE = "https://github.com/pytorch/vision"
LICENCE = "BSD-3-Clause (code); weights trained on ImageNet"
LAST = 1

IMAGENET_CLASSES = 1000
"""Number of outputs of the weights that torchvision publishes."""
FAMILIES = {"conv1": ("fc", RESNETS), "features.conv0": ("classifier", DENSENETS)}
"""First layer → last layer and architectures."""


def recognises(weights: Mapping[str, Tensor]) -> bool:
    """Whether there are the first layers of a ResNet or DenseNet."""
    return {"conv1.weight", "layer1.0.conv1.weight"} <= set(weights) or "features.norm0.weight" in weights


def published(weights: dict[str, Tensor]) -> Published:
    """The weights under timm's names, which are those of torchvision."""
    stem = "conv1" if "conv1.weight" in weights else "features.conv0"
    last, candidates = FAMILIES[stem]
    state = unnested_head({DOTTED.sub(r"\1\2.", name): value for name, value in weights.items()}, last)
    origin: Any = {} if len(state.get(f"{last}.weight", ())) == IMAGENET_CLASSES else UNKNOWN
    scale: Any = {"mean": MEAN, "std": STD} if Published(state).channels(stem) == 3 else {}
    seen = Evidence("shapes", f"the parameter names of torchvision's {'ResNets' if stem == 'conv1' else 'DenseNets'}")
    return Published(state, **scale, name=architecture(state, candidates), evidence=seen, **origin)


def export(method: Method, model: ModelSpec, target: Path) -> Path:
    """Write the file. If the target is a folder, the file is named resnet18_xray.pth."""
    weights = base.as_torchvision(method.backbone, model)
    if isinstance(method, Supervised) and method.findings:
        fc = base.classifier(model.name)
        weights |= {f"{fc}.{name}": base.copied(value) for name, value in method.head.state_dict().items()}
    return base.write_weights(weights, target, f"{base.plain_name(model.name)}_xray.pth")
