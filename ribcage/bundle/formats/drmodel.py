"""DRModel: a ResNet-18 with numbered layers and five outputs, fine-tuned from MoCo on CheXpert.

A file contains a plain state dict:
    features.{0,1,4,5,6,7}.*    conv1, bn1 and the four layers of torchvision's ResNet
    cls.weight, cls.bias        followed by a sigmoid

Its input is resized to 512 × 512 without keeping the aspect ratio, greyscale repeated in three channels, with ImageNet
normalisation.
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
    strip_prefix,
)
from ribcage.data.findings import CHEXPERT5

SOURCE = "https://github.com/searobbersduck/MedCommon_Self_Supervised_Learning"
LICENCE = "Apache-2.0 (code); trained on CheXpert, whose own terms apply"
TRUNK, HEAD = "features.", "cls."
SIDE = 512


def recognises(names: Collection[str]) -> bool:
    """Whether there is a ResNet with numbered parts and a last layer named `cls`."""
    return {"features.0.weight", "features.4.0.conv1.weight", "cls.weight"} <= set(names)


def published(weights: dict[str, Tensor]) -> Published:
    """The weights under timm's names; the outputs are the five findings of the CheXpert competition, in its order."""
    state = torchvision_named(strip_prefix(TRUNK, weights)) | {
        f"fc.{name}": value for name, value in strip_prefix(HEAD, weights).items()
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
        findings_inferred=bool(findings),
        evidence=Evidence("shapes", "a ResNet with numbered modules, and cls"),
    )
