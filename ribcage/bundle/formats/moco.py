"""MoCo checkpoints: {epoch, arch, state_dict, optimizer}, both encoders with their heads, and the queue.

    module.encoder_q.*, module.encoder_k.*    torchvision's names; the head is fc (v1) or fc.0 and fc.2 (v2)
    module.queue                              (dim, K), a key in each column
    module.queue_ptr                          (1,), where the next key goes

The encoders see gray three times, normalised as for ImageNet. What Ribcage writes has no state of an optimizer in it: a
file to go on from is `checkpoint.pt`. Of what it reads, the query encoder without its head is the model.

https://github.com/facebookresearch/moco
"""

import re
from collections.abc import Collection
from pathlib import Path

from torch import Tensor, nn

from ribcage.bundle.formats.reading.published_weights import (
    DENSENETS,
    MEAN,
    RESNETS,
    STD,
    Evidence,
    Published,
    architecture,
)
from ribcage.bundle.formats.writing import base
from ribcage.bundle.spec import ModelSpec
from ribcage.methods import Method
from ribcage.methods.moco import MoCo
from ribcage.models.backbone import Backbone

SOURCE = "https://github.com/facebookresearch/moco"
LICENCE = "CC-BY-NC-4.0 until January 2023, MIT since"
QUERY = "encoder_q."
SEEN = Evidence("names", "encoder_q. beside encoder_k.")
LEFT = re.compile(r"encoder_q\.(fc|classifier)\.|encoder_k\.|queue(_ptr)?$")
"""What only the training needs."""


def export(method: Method, model: ModelSpec, target: Path) -> Path:
    """Write the file; into a folder as resnet18_xray.pth.tar."""
    if not isinstance(method, MoCo):
        kind = type(method).__name__
        raise ValueError(
            f"The moco layout needs a key encoder and a queue, which {kind} lacks: use --export-as torchvision."
        )
    key, key_head = method.key
    encoders = {"encoder_q": encoder(method.backbone, method.head, model), "encoder_k": encoder(key, key_head, model)}
    weights = {f"module.{one}.{name}": value for one, state in encoders.items() for name, value in state.items()}
    weights["module.queue"] = base.taken(method.queue.T)
    weights["module.queue_ptr"] = base.taken(method.queue_at.view(1))
    name = base.plain_name(model.name)
    content = {
        "epoch": model.training.epochs,
        "arch": name,
        "state_dict": weights,
        "optimizer": {"state": {}, "param_groups": []},
    }
    return base.write_weights(content, target, f"{name}_xray.pth.tar")


def encoder(backbone: Backbone, head: nn.Sequential, model: ModelSpec) -> dict[str, Tensor]:
    """A backbone with its head in the place of the classifier."""
    fc = base.classifier(model.name)
    layers = head[0] if len(head) == 1 else head
    weights = {f"{fc}.{name}": base.taken(value) for name, value in layers.state_dict().items()}
    return base.as_torchvision(backbone, model) | weights


def recognises(names: Collection[str]) -> bool:
    """Whether there is a query encoder beside a key encoder."""
    return all(any(name.startswith(one) for name in names) for one in (QUERY, "encoder_k."))


def published(weights: dict[str, Tensor]) -> Published:
    """The query encoder, under timm's names."""
    state = {name.removeprefix(QUERY): value for name, value in weights.items() if not LEFT.match(name)}
    left = tuple(filter(LEFT.match, weights))
    return Published(state, MEAN, STD, name=architecture(state, (*RESNETS, *DENSENETS)), left=left, evidence=SEEN)
