"""CheXNet reproduction of 2017: a DenseNet-121 saved with DataParallel, without num_batches_tracked.

A file contains {state_dict, …}:
    module.densenet121.features.denseblock1.denselayer1.norm.1.weight     torchvision's names of 2017, now norm1
    module.densenet121.classifier.0.weight                                followed by a sigmoid

https://github.com/arnoweng/CheXNet; also DTforCXR8's model3.pth, which has no dots before numbers. Export writes
torchvision's current names, which that program can load with a current torchvision.
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
    unnested_head,
)
from ribcage.bundle.formats.writing import base
from ribcage.bundle.spec import ModelSpec
from ribcage.data.findings import CHESTXRAY14
from ribcage.methods import Method

SOURCE = "https://github.com/arnoweng/CheXNet"
LICENCE = "none stated; trained on ChestX-ray14"
BEFORE = re.compile(r"^densenet\d+\.")
SEEN = Evidence("names", "prefix densenet121. before features.")
DOTTED = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12])\.")


def recognises(names: Collection[str]) -> bool:
    """Whether there is a DenseNet whose weights have its name as a prefix."""
    return any(BEFORE.match(name) and ".features." in name for name in names)


def published(weights: dict[str, Tensor]) -> Published:
    """The weights under timm's names, and what the layout implies about them."""
    return densenet_checkpoint(unnested_head(renamed_weights(weights, modern), "classifier"))


def export(method: Method, model: ModelSpec, target: Path) -> Path:
    """Write the file. If the target is a folder, the file is named model.pth.tar."""
    found = chexnet_weights(method, model, "chexnet")
    named = {f"module.{CHEXNET}{name.replace('classifier.', 'classifier.0.')}": found[name] for name in found}
    return base.write_weights({"state_dict": named}, target, "model.pth.tar")


def modern(name: str) -> str:
    """densenet121.features.denseblock1.denselayer1.norm.1.weight → features.denseblock1.denselayer1.norm1.weight"""
    return DOTTED.sub(r"\1\2.", BEFORE.sub("", name))


def renamed_weights(weights: dict[str, Tensor], rename: Callable[[str], str]) -> dict[str, Tensor]:
    """The weights under new names; raise if two weights get the same name."""
    found = {rename(name): value for name, value in weights.items()}
    if len(found) < len(weights):
        first: dict[str, str] = {}
        one, other = next((first[new], old) for old in weights if first.setdefault(new := rename(old), old) != old)
        raise ValueError(f"the file contains the same weight under two names, {one} and {other}")
    return found


def densenet_checkpoint(state: dict[str, Tensor]) -> Published:
    """A DenseNet; 14 outputs are taken to be the findings of ChestX-ray14, as in CheXNet."""
    chest = "classifier.bias" in state and state["classifier.bias"].shape == (len(CHESTXRAY14),)
    findings, data = (CHESTXRAY14, "ChestX-ray14") if chest else ((), "")
    name = architecture(state, DENSENETS)
    return Published(state, MEAN, STD, name=name, findings=findings, data=data, findings_inferred=chest, evidence=SEEN)


def chexnet_weights(method: Method, model: ModelSpec, layout: str) -> dict[str, Tensor]:
    """The weights of CheXNet's class under torchvision's names; raise if its predictions would differ."""
    name = base.plain_name(model.name)
    wrong = [f"the layout requires the architecture densenet121, not {name}"] if name != "densenet121" else []
    if wrong := wrong + base.unlike_chexnet(method, model):
        raise ValueError(f"The model cannot be written in the {layout} layout: {'; '.join(wrong)}.")
    return base.rgb_weights(method.backbone, model) | {
        f"classifier.{part}": value for part, value in reordered_head(method).items()
    }
