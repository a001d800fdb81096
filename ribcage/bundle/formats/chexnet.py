"""CheXNet reproduction of 2017: {state_dict, …} of a DenseNet-121 in DataParallel, without batch counts.

    module.densenet121.features.denseblock1.denselayer1.norm.1.weight     torchvision's names of 2017, now norm1
    module.densenet121.classifier.0.weight                                a sigmoid is behind it

https://github.com/arnoweng/CheXNet; also DTforCXR8's model3.pth, without the dots before numbers. Written are today's
names: with those torchvision's own model, and so that program, can be filled again.
"""

import re
from collections.abc import Callable, Collection
from pathlib import Path

from torch import Tensor

from ribcage.bundle.formats.dtforcxr8 import CHEXNET, reordered_head
from ribcage.bundle.formats.reading.published_weights import (
    DENSENETS,
    MEAN,
    STD,
    Evidence,
    Published,
    architecture,
    flat,
)
from ribcage.bundle.formats.writing import base
from ribcage.bundle.spec import ModelSpec
from ribcage.data.findings import CHESTXRAY14
from ribcage.methods import Method

SOURCE = "https://github.com/arnoweng/CheXNet"
LICENCE = "none stated; trained on ChestX-ray14"
BEFORE = re.compile(r"^densenet\d+\.")
SEEN = Evidence("names", "densenet121. before features.")
DOTTED = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12])\.")


def recognises(names: Collection[str]) -> bool:
    """Whether a DenseNet with its name before every weight is in the file."""
    return any(BEFORE.match(name) and ".features." in name for name in names)


def published(weights: dict[str, Tensor]) -> Published:
    """Under timm's names."""
    return densenet_checkpoint(flat(renamed_weights(weights, modern), "classifier"))


def export(method: Method, model: ModelSpec, target: Path) -> Path:
    """Write the file; into a folder as model.pth.tar."""
    found = chexnet_weights(method, model, "chexnet")
    named = {f"module.{CHEXNET}{name.replace('classifier.', 'classifier.0.')}": found[name] for name in found}
    return base.write_weights({"state_dict": named}, target, "model.pth.tar")


def modern(name: str) -> str:
    """densenet121.features.denseblock1.denselayer1.norm.1.weight → features.denseblock1.denselayer1.norm1.weight"""
    return DOTTED.sub(r"\1\2.", BEFORE.sub("", name))


def renamed_weights(weights: dict[str, Tensor], rename: Callable[[str], str]) -> dict[str, Tensor]:
    """The weights under other names, each of which only one may have."""
    found = {rename(name): value for name, value in weights.items()}
    if len(found) < len(weights):
        kept: dict[str, str] = {}
        one, other = next((kept[new], old) for old in weights if kept.setdefault(new := rename(old), old) != old)
        raise ValueError(f"The file contains a weight twice, as {one} and as {other}.")
    return found


def densenet_checkpoint(state: dict[str, Tensor]) -> Published:
    """A DenseNet; with 14 rows in its last layer they are the findings of ChestX-ray14, as CheXNet has them."""
    chest = "classifier.bias" in state and state["classifier.bias"].shape == (len(CHESTXRAY14),)
    findings, data = (CHESTXRAY14, "ChestX-ray14") if chest else ((), "")
    name = architecture(state, DENSENETS)
    return Published(state, MEAN, STD, name=name, findings=findings, data=data, counted=chest, evidence=SEEN)


def chexnet_weights(method: Method, model: ModelSpec, layout: str) -> dict[str, Tensor]:
    """The weights that CheXNet's class holds, under torchvision's names, or why it would not answer the same."""
    name = base.plain_name(model.name)
    wrong = [f"it is of a densenet121, not of a {name}"] if name != "densenet121" else []
    if wrong := wrong + base.unlike_chexnet(method, model):
        raise ValueError(f"The {layout} layout does not fit: {'; '.join(wrong)}.")
    return base.rgb_weights(method.backbone, model) | {
        f"classifier.{part}": value for part, value in reordered_head(method).items()
    }
