"""BYOL: checkpoints of three implementations, with the online network, the target network and their heads.

    online_encoder.net.*        byol-pytorch: torchvision's names, same weights as net.*; prefix learner. in Lightning
    online_network.encoder.*    BYOL-PyTorch: a ResNet with numbered parts, in {config, epoch, steps, model, …}
    encoder.*, projetion.*      PyTorch-BYOL: the online network alone (spelled `projetion` there)

The online encoder is read without its untrained fc. Its input is greyscale repeated in three channels, with ImageNet
normalisation. Ribcage writes byol-pytorch's layout, for a network whose last layer is nn.Identity() and
hidden_layer=-1; since version 0.9, use_simplicial_embeddings=False is needed, too. https://arxiv.org/abs/2006.07733
"""

import re
from collections.abc import Collection
from pathlib import Path
from typing import cast

from torch import Tensor

from ribcage.bundle.formats.lightly import LAST_LAYERS, torchvision_named, without_head
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
from ribcage.methods.byol import BYOL
from ribcage.models.backbone import Backbone

SOURCE = "https://github.com/lucidrains/byol-pytorch"
LICENCE = "MIT (code); weights as stated by their authors"
ONLINE = re.compile(r"(learner\.)?online_encoder\.net\.|online_network\.encoder\.|encoder\.(?=\d)")
"""Prefix of the online encoder."""
PROGRAMS = {
    "online_network.": ("https://github.com/yaox12/BYOL-PyTorch", LICENCE),
    "projetion.": ("https://github.com/sthalles/PyTorch-BYOL", "none stated"),
}
"""Prefixes of the other implementations, with source and licence."""
OWN = ("online_", "learner.online_", "projetion.")
"""Prefixes that are used by BYOL implementations only."""
TRAINING_ONLY = re.compile(
    r"(learner\.)?(net|online_encoder\.projector|target_encoder|online_predictor)\.|"
    r"(online_network\.)?(projetion|projection)\.|(target_network|predictor)\."
)
"""Names of weights that are used in training only."""


def recognises(names: Collection[str]) -> bool:
    """Whether there is an online encoder and a projection."""
    return any(ONLINE.match(name) for name in names) and any(TRAINING_ONLY.match(name) for name in names)


def published(weights: dict[str, Tensor]) -> Published:
    """The weights of the online encoder under timm's names."""
    encoder = {ONLINE.sub("", name, count=1): value for name, value in weights.items() if not TRAINING_ONLY.match(name)}
    state = without_head(torchvision_named(encoder))
    unused = tuple(
        name for name in weights if TRAINING_ONLY.match(name) or ONLINE.sub("", name, count=1).startswith(LAST_LAYERS)
    )
    known = (program for start, program in PROGRAMS.items() if any(name.startswith(start) for name in weights))
    source, licence = next(known, (SOURCE, LICENCE))
    name = architecture(state, (*RESNETS, *DENSENETS))
    own = next((one for one in weights if one.startswith(OWN)), "")
    seen = (
        Evidence("names", own) if own else Evidence("shapes", "an encoder with numbered modules, and a projection head")
    )
    return Published(state, MEAN, STD, name=name, unused=unused, source=source, licence=licence, evidence=seen)


def export(method: Method, model: ModelSpec, target: Path) -> Path:
    """Write the file. If the target is a folder, the file is named resnet50_xray.pt."""
    if not isinstance(method, BYOL):
        kind = type(method).__name__
        raise ValueError(
            f"The byol layout needs a predictor and a target network, which {kind} lacks: use the torchvision layout."
        )
    net, target_net = (base.as_torchvision(one, model) for one in (method.backbone, cast(Backbone, method.target[0])))
    parts = {
        "net": net,
        "online_encoder.net": net,
        "online_encoder.projector": method.projector.state_dict(),
        "target_encoder.net": target_net,
        "target_encoder.projector": method.target[1].state_dict(),
        "online_predictor": method.predictor.state_dict(),
    }
    weights = {f"{part}.{name}": base.copied(value) for part, state in parts.items() for name, value in state.items()}
    return base.write_weights(weights, target, f"{base.plain_name(model.name)}_xray.pt")
