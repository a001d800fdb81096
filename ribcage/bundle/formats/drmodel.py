"""DRModel: bare weights of a ResNet-18 in numbered parts, fine-tuned from MoCo on CheXpert, with five outputs.

    features.{0,1,4,5,6,7}.*    conv1, bn1 and the four layers of torchvision's ResNet
    cls.weight, cls.bias        a sigmoid is behind it

It sees images squashed to 512 × 512, gray three times, normalised as for ImageNet.
https://github.com/searobbersduck/MedCommon_Self_Supervised_Learning
"""

from collections.abc import Collection

from torch import Tensor

from ribcage.bundle.formats.lightly import torchvision_named
from ribcage.bundle.formats.reading.published_weights import (
    MEAN,
    RESNETS,
    STD,
    Evidence,
    Published,
    architecture,
    under,
)
from ribcage.data.findings import CHEXPERT5

SOURCE = "https://github.com/searobbersduck/MedCommon_Self_Supervised_Learning"
LICENCE = "Apache-2.0 (code); trained on CheXpert, whose terms are its own"
TRUNK, HEAD = "features.", "cls."
SIDE = 512


def recognises(names: Collection[str]) -> bool:
    """Whether a numbered ResNet is before a layer of this name."""
    return {"features.0.weight", "features.4.0.conv1.weight", "cls.weight"} <= set(names)


def published(weights: dict[str, Tensor]) -> Published:
    """Under timm's names, the answers in the order of the CheXpert competition."""
    state = torchvision_named(under(TRUNK, weights)) | {
        f"fc.{name}": value for name, value in under(HEAD, weights).items()
    }
    state |= {name: value for name, value in weights.items() if not name.startswith((TRUNK, HEAD))}
    findings = CHEXPERT5 if len(weights["cls.weight"]) == len(CHEXPERT5) else ()
    return Published(
        state,
        MEAN,
        STD,
        name=architecture(state, RESNETS),
        findings=findings,
        size=(SIDE, SIDE),
        stored=SIDE,
        fit="squash",
        data="CheXpert" if findings else "",
        counted=bool(findings),
        evidence=Evidence("shapes", "a numbered ResNet before cls"),
    )
