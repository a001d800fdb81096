"""BYOL checkpoints: both networks with their heads, under the names of three implementations.

    online_encoder.net.*        byol-pytorch: torchvision's names, the same as net.*; learner. before all in Lightning
    online_network.encoder.*    BYOL-PyTorch: a ResNet's parts by number, in {config, epoch, steps, model, …}
    encoder.*, projetion.*      PyTorch-BYOL: an online network alone; the second name is theirs

The online encoder is the model, its fc left as it was. It sees gray three times, normalised as for ImageNet. Ribcage
writes byol-pytorch's layout, for a network whose last layer is nn.Identity() and hidden_layer=-1; since its version 0.9
also with use_simplicial_embeddings=False. https://arxiv.org/abs/2006.07733
"""

import re
from collections.abc import Collection
from pathlib import Path

from torch import Tensor

from ribcage.bundle.formats.lightly import ENDS, torchvision_named, without_head
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

SOURCE = "https://github.com/lucidrains/byol-pytorch"
LICENCE = "MIT (code); weights as their authors say"
ONLINE = re.compile(r"(learner\.)?online_encoder\.net\.|online_network\.encoder\.|encoder\.(?=\d)")
"""Before the names of the online encoder."""
PROGRAMS = {
    "online_network.": ("https://github.com/yaox12/BYOL-PyTorch", LICENCE),
    "projetion.": ("https://github.com/sthalles/PyTorch-BYOL", "none stated"),
}
"""Whose other names are: their source and licence."""
OWN = ("online_", "learner.online_", "projetion.")
"""How names begin that only BYOL's programs have."""
LEFT = re.compile(
    r"(learner\.)?(net|online_encoder\.projector|target_encoder|online_predictor)\.|"
    r"(online_network\.)?(projetion|projection)\.|(target_network|predictor)\."
)
"""What only the training needs."""


def recognises(names: Collection[str]) -> bool:
    """Whether an online encoder is beside a projection."""
    return any(ONLINE.match(name) for name in names) and any(LEFT.match(name) for name in names)


def published(weights: dict[str, Tensor]) -> Published:
    """The online encoder, under timm's names."""
    kept = {ONLINE.sub("", name, count=1): value for name, value in weights.items() if not LEFT.match(name)}
    state = without_head(torchvision_named(kept))
    left = tuple(name for name in weights if LEFT.match(name) or ONLINE.sub("", name, count=1).startswith(ENDS))
    known = (program for start, program in PROGRAMS.items() if any(name.startswith(start) for name in weights))
    source, licence = next(known, (SOURCE, LICENCE))
    name = architecture(state, (*RESNETS, *DENSENETS))
    own = next((one for one in weights if one.startswith(OWN)), "")
    seen = Evidence("names", own) if own else Evidence("shapes", "a numbered encoder beside a projection")
    return Published(state, MEAN, STD, name=name, left=left, source=source, licence=licence, evidence=seen)


def export(method: Method, model: ModelSpec, target: Path) -> Path:
    """Write the file; into a folder as resnet50_xray.pt."""
    if not isinstance(method, BYOL):
        kind = type(method).__name__
        raise ValueError(
            f"The byol layout needs a predictor and a target network, which {kind} lacks: use the layout torchvision."
        )
    net, target_net = (base.as_torchvision(one, model) for one in (method.backbone, method.target[0]))
    parts = {
        "net": net,
        "online_encoder.net": net,
        "online_encoder.projector": method.projector.state_dict(),
        "target_encoder.net": target_net,
        "target_encoder.projector": method.target[1].state_dict(),
        "online_predictor": method.predictor.state_dict(),
    }
    weights = {f"{part}.{name}": base.taken(value) for part, state in parts.items() for name, value in state.items()}
    return base.write_weights(weights, target, f"{base.plain_name(model.name)}_xray.pt")
