"""MoCo: checkpoints with the query encoder, the momentum encoder, their heads and the queue.

A file contains {epoch, arch, state_dict, optimizer}:
    module.encoder_q.*, module.encoder_k.*    torchvision's names; the head is fc (v1) or fc.0 and fc.2 (v2)
    module.queue                              (dim, K), one key per column
    module.queue_ptr                          (1,), index of the next key

The encoders' input is greyscale repeated in three channels, with ImageNet normalisation. Exported files contain no
optimizer state; to resume a run, use its `checkpoint.pt`. Of a file that is read, the query encoder without its head is
used.

https://github.com/facebookresearch/moco
"""

import re
from collections.abc import Collection
from pathlib import Path
from typing import cast

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
SEEN = Evidence("names", "encoder_q. and encoder_k.")
TRAINING_ONLY = re.compile(r"encoder_q\.(fc|classifier)\.|encoder_k\.|queue(_ptr)?$")
"""Names of weights that are used in training only."""


def export(method: Method, model: ModelSpec, target: Path) -> Path:
    """Write the file. If the target is a folder, the file is named resnet18_xray.pth.tar."""
    if not isinstance(method, MoCo):
        kind = type(method).__name__
        raise ValueError(
            f"The moco layout needs a key encoder and a queue, which {kind} lacks: use the torchvision layout."
        )
    key, key_head = cast(tuple[Backbone, nn.Sequential], tuple(method.key))  # as MoCo puts them together
    encoders = {"encoder_q": encoder(method.backbone, method.head, model), "encoder_k": encoder(key, key_head, model)}
    weights = {f"module.{one}.{name}": value for one, state in encoders.items() for name, value in state.items()}
    weights["module.queue"] = base.copied(method.queue.T)
    weights["module.queue_ptr"] = base.copied(method.queue_at.view(1))
    name = base.plain_name(model.name)
    content = {
        "epoch": model.training.epochs,
        "arch": name,
        "state_dict": weights,
        "optimizer": {"state": {}, "param_groups": []},
    }
    return base.write_weights(content, target, f"{name}_xray.pth.tar")


def encoder(backbone: Backbone, head: nn.Sequential, model: ModelSpec) -> dict[str, Tensor]:
    """The weights of a backbone, with the projection head in place of the classifier."""
    fc = base.classifier(model.name)
    layers = head[0] if len(head) == 1 else head
    weights = {f"{fc}.{name}": base.copied(value) for name, value in layers.state_dict().items()}
    return base.as_torchvision(backbone, model) | weights


def recognises(names: Collection[str]) -> bool:
    """Whether there are a query encoder and a key encoder."""
    return all(any(name.startswith(one) for name in names) for one in (QUERY, "encoder_k."))


def published(weights: dict[str, Tensor]) -> Published:
    """The weights of the query encoder under timm's names."""
    state = {name.removeprefix(QUERY): value for name, value in weights.items() if not TRAINING_ONLY.match(name)}
    unused = tuple(filter(TRAINING_ONLY.match, weights))
    return Published(state, MEAN, STD, name=architecture(state, (*RESNETS, *DENSENETS)), unused=unused, evidence=SEEN)
