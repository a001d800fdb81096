"""medical_mae: MAE vision transformers fine-tuned on chest radiographs, and U-Nets with a CNN encoder.

    fc_norm.*, head.*           a transformer with outputs for ChestX-ray14's 14 findings or CheXpert's five
    model.encoder.*             a DenseNet or ResNet under torchvision's names
    model.decoder.*, model.segmentation_head.*    the decoder, not read

The input of fine-tuned models is greyscale repeated in three channels, with mean .5056 and standard deviation .252 for
both datasets. Transformers that were only pretrained have the names of MAE and are read as such. Xiao et al. 2023, https://arxiv.org/abs/2210.12843
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
    strip_prefix,
)
from ribcage.data.findings import CHESTXRAY14, CHEXPERT5

SOURCE = "https://github.com/lambert-x/medical_mae"
LICENCE = "Apache-2.0 (code); weights trained on ChestX-ray14, CheXpert and MIMIC-CXR"
LAST = -1
"""This layout is tried before `mae`."""

ENCODER, DECODER = "model.encoder.", ("model.decoder.", "model.segmentation_head.")
NORMALISATION = (0.5056,) * 3, (0.252,) * 3
"""Means and standard deviations of the fine-tuned models."""
UNET = Evidence("shapes", "model.encoder. and model.decoder.")
OUTPUTS = {len(CHESTXRAY14): (CHESTXRAY14, "ChestX-ray14"), len(CHEXPERT5): (CHEXPERT5, "CheXpert")}
"""Number of outputs → findings and dataset."""


def recognises(weights: Mapping[str, Tensor]) -> bool:
    """Whether there is a U-Net, or a fine-tuned transformer with 14 or 5 outputs."""
    unet = any(name.startswith(ENCODER) for name in weights) and any(name.startswith(DECODER) for name in weights)
    return unet or (mae.is_fine_tuned(weights) and len(weights.get("head.weight", ())) in OUTPUTS)


def published(weights: dict[str, Tensor]) -> Published:
    """The weights under timm's names, and what the layout implies about them."""
    if "head.weight" in weights:
        findings, data = OUTPUTS[len(weights["head.weight"])]
        found = replace(
            mae.published(weights), mean=NORMALISATION[0], std=NORMALISATION[1], findings=findings, data=data
        )
        return replace(
            found, findings_inferred=True, evidence=Evidence("shapes", f"fc_norm and {len(findings)} outputs")
        )
    unused = tuple(name for name in weights if name.startswith(DECODER))
    state = strip_prefix(ENCODER, weights)
    unknown = {name: value for name, value in weights.items() if not name.startswith((ENCODER, *DECODER))}
    name = architecture(state, DENSENETS if "features.conv0.weight" in state else RESNETS)
    return Published(state | unknown, MEAN, STD, name=name, unused=unused, data="chest radiographs", evidence=UNET)
