"""medical_mae checkpoints: MAE transformers fine-tuned on chest radiographs, and U-Nets on CNNs.

    fc_norm.*, head.*           a transformer that answers the 14 findings of ChestX-ray14, or CheXpert's five
    model.encoder.*             a DenseNet or ResNet under torchvision's names
    model.decoder.*, model.segmentation_head.*    what draws, left out

Its fine-tuned models see gray three times, normalised by .5056 and .252, also those of CheXpert. Its transformers that
only drew have the names of MAE's. Xiao et al. 2023, https://arxiv.org/abs/2210.12843
"""

from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor

from ribcage.bundle.formats import mae
from ribcage.bundle.formats.reading.published_weights import (
    DENSENETS,
    MEAN,
    RESNETS,
    STD,
    Evidence,
    Published,
    architecture,
    under,
)
from ribcage.data.findings import CHESTXRAY14, CHEXPERT5

SOURCE = "https://github.com/lambert-x/medical_mae"
LICENCE = "Apache-2.0 (code); weights trained on ChestX-ray14, CheXpert and MIMIC-CXR"
LAST = -1
"""Asked before MAE's own."""

ENCODER, DRAWS = "model.encoder.", ("model.decoder.", "model.segmentation_head.")
GRAY = (0.5056,) * 3, (0.252,) * 3
"""Means and spreads of its fine-tuned models."""
UNET = Evidence("shapes", "model.encoder. beside model.decoder.")
ANSWERS = {len(CHESTXRAY14): (CHESTXRAY14, "ChestX-ray14"), len(CHEXPERT5): (CHEXPERT5, "CheXpert")}
"""By the rows of the last layer."""


def recognises(weights: Mapping[str, Tensor]) -> bool:
    """Whether a U-Net that draws is in the file, or a fine-tuned transformer with as many answers."""
    net = any(name.startswith(ENCODER) for name in weights) and any(name.startswith(DRAWS) for name in weights)
    return net or (mae.tuned(weights) and len(weights.get("head.weight", ())) in ANSWERS)


def published(weights: dict[str, Tensor]) -> Published:
    """Under timm's names."""
    if "head.weight" in weights:
        findings, data = ANSWERS[len(weights["head.weight"])]
        found = replace(mae.published(weights), mean=GRAY[0], std=GRAY[1], findings=findings, data=data)
        return replace(found, counted=True, evidence=Evidence("shapes", f"fc_norm and {len(findings)} rows"))
    left = tuple(name for name in weights if name.startswith(DRAWS))
    state = under(ENCODER, weights)
    strange = {name: value for name, value in weights.items() if not name.startswith((ENCODER, *DRAWS))}
    name = architecture(state, DENSENETS if "features.conv0.weight" in state else RESNETS)
    return Published(state | strange, MEAN, STD, name=name, left=left, data="chest radiographs", evidence=UNET)
