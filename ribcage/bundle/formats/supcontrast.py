"""SupContrast: checkpoints of an encoder with a projection head (SupCon) or a classifier (SupCE).

A file contains {opt, model, optimizer, epoch}:
    encoder.conv1.weight, encoder.layer1.*      encoder.module.* after multi-GPU training
    encoder.layer2.0.shortcut.{0,1}.*           torchvision's downsample
    head.{0,2}.*, head.* or fc.*                not read

Its ResNets have a 3 × 3 stem without pooling, for images of 32 × 32 pixels. Files with torchvision's stem are read,
too. `opt`, a Python object, is not written, since SupContrast's programs read only `model`.
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
LICENCE = "BSD-2-Clause (code); weights as stated by their authors"
ENCODER = re.compile(r"encoder\.(module\.)?")
OWN = re.compile(r"\.shortcut\.|^encoder\.module\.|^head\.2\.weight")
"""Names that are specific to SupContrast, unlike an encoder followed by a linear layer."""
TRAINING_ONLY = re.compile(r"(head|fc)\.")
"""Names of weights that are used in training only."""


def recognises(names: Collection[str]) -> bool:
    """Whether there is a ResNet as encoder, and a head or a classifier."""
    plain = {ENCODER.sub("", name, count=1) for name in names if ENCODER.match(name)}
    return {"conv1.weight", "layer1.0.conv1.weight"} <= plain and any(TRAINING_ONLY.match(name) for name in names)


def published(weights: dict[str, Tensor]) -> Published:
    """The weights of the encoder under timm's names."""
    encoder = {
        ENCODER.sub("", name, count=1): value for name, value in weights.items() if not TRAINING_ONLY.match(name)
    }
    state = {name.replace(".shortcut.", ".downsample."): value for name, value in encoder.items()}
    name = architecture(state, (*SMALL, *RESNETS))
    size, stored = sizes(name)
    unused = tuple(filter(TRAINING_ONLY.match, weights))
    own = next((one for one in weights if OWN.search(one)), "")
    seen = Evidence("names", f"encoder. and {own}") if own else Evidence("shapes", "encoder. and one layer")
    return Published(state, MEAN, STD, name=name, unused=unused, size=size, stored=stored, evidence=seen)


def export(method: Method, model: ModelSpec, target: Path) -> Path:
    """Write the file. If the target is a folder, the file is named last.pth.

    The names are those of multi-GPU training, which SupContrast also reads on one GPU.
    """
    if not isinstance(method, SupCon):
        kind = type(method).__name__
        raise ValueError(
            f"The supcontrast layout needs a projection head, which {kind} lacks: use the torchvision layout."
        )
    if base.plain_name(model.name) not in SMALL:
        raise ValueError(
            f"SupContrast's ResNets have a 3 × 3 stem, unlike {model.name}: use --model {SMALL[0]}, or the torchvision "
            "layout."
        )
    encoder = {
        f"encoder.module.{name.replace('.downsample.', '.shortcut.')}": value
        for name, value in base.rgb_weights(method.backbone, model).items()
    }
    head = {f"head.{name}": base.copied(value) for name, value in method.head.state_dict().items()}
    content = {"model": encoder | head, "epoch": model.training.epochs}
    return base.write_weights(content, target, "last.pth")
