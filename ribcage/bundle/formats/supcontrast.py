"""SupContrast checkpoints: {opt, model, optimizer, epoch} of an encoder with a head or a classifier (SupCE).

    encoder.conv1.weight, encoder.layer1.*      on many devices encoder.module.*
    encoder.layer2.0.shortcut.{0,1}.*           what torchvision calls downsample
    head.{0,2}.*, head.* or fc.*                not needed

Its ResNets have a stem of 3 × 3 without pooling, for images of 32 × 32. Files of its programs with torchvision's stem
are read, too. `opt`, an object of Python's, is not written: their programs read `model` alone.
https://github.com/HobbitLong/SupContrast
"""

import re
from collections.abc import Collection
from pathlib import Path

from torch import Tensor

from ribcage.bundle.formats.lightly import SMALL, sizes
from ribcage.bundle.formats.reading.published_weights import MEAN, RESNETS, STD, Evidence, Published, architecture
from ribcage.bundle.formats.writing import base
from ribcage.bundle.spec import ModelSpec
from ribcage.methods import Method
from ribcage.methods.supcon import SupCon

SOURCE = "https://github.com/HobbitLong/SupContrast"
LICENCE = "BSD-2-Clause (code); weights as their authors say"
ENCODER = re.compile(r"encoder\.(module\.)?")
OWN = re.compile(r"\.shortcut\.|^encoder\.module\.|^head\.2\.weight")
"""In names that its program has and an encoder before a layer has not."""
LEFT = re.compile(r"(head|fc)\.")
"""What only the training needs."""


def recognises(names: Collection[str]) -> bool:
    """Whether there is a ResNet as encoder, and a head or a classifier beside it."""
    plain = {ENCODER.sub("", name, count=1) for name in names if ENCODER.match(name)}
    return {"conv1.weight", "layer1.0.conv1.weight"} <= plain and any(LEFT.match(name) for name in names)


def published(weights: dict[str, Tensor]) -> Published:
    """The encoder, under timm's names."""
    kept = {ENCODER.sub("", name, count=1): value for name, value in weights.items() if not LEFT.match(name)}
    state = {name.replace(".shortcut.", ".downsample."): value for name, value in kept.items()}
    name = architecture(state, (*SMALL, *RESNETS))
    size, stored = sizes(name)
    left = tuple(filter(LEFT.match, weights))
    own = next((one for one in weights if OWN.search(one)), "")
    seen = Evidence("names", f"encoder. beside {own}") if own else Evidence("shapes", "an encoder. beside one layer")
    return Published(state, MEAN, STD, name=name, left=left, size=size, stored=stored, evidence=seen)


def export(method: Method, model: ModelSpec, target: Path) -> Path:
    """Write the file, as from many devices, which its programs read on one, too; into a folder as last.pth."""
    if not isinstance(method, SupCon):
        kind = type(method).__name__
        raise ValueError(
            f"The supcontrast layout needs a projection head, which {kind} lacks: use the layout torchvision."
        )
    if base.plain_name(model.name) not in SMALL:
        raise ValueError(
            f"SupContrast's ResNets have a stem of 3 × 3, {model.name} has not: take --model {SMALL[0]}, or the layout "
            "torchvision."
        )
    encoder = {
        f"encoder.module.{name.replace('.downsample.', '.shortcut.')}": value
        for name, value in base.rgb_weights(method.backbone, model).items()
    }
    head = {f"head.{name}": base.taken(value) for name, value in method.head.state_dict().items()}
    content = {"model": encoder | head, "epoch": model.training.epochs}
    return base.write_weights(content, target, "last.pth")
