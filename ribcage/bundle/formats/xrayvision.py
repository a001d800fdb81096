"""TorchXRayVision: a DenseNet-121 or ResNet-50 with one input channel and 18 outputs, and its autoencoder.

A file contains a plain state dict:
    features.*, classifier.*    a DenseNet under torchvision's names
    conv1.*, layerN.*, fc.*     a ResNet under torchvision's names, also with the prefix `model.`
    op_threshs                  (18,), one probability per output; NaN if it was not trained
    uplayerN.*, uplayer_top.*, conv1_1.*    the decoder of the autoencoder, not read; its encoder has a ResNet's names

The input is 2048 x - 1024 with x in 0 … 1, that is (x - .5) / s with s = .5 / 1024. Images are cropped to a square and
resized to 224 pixels, for the ResNet to 512. Models trained on one dataset have untrained outputs: in the file of a
DenseNet these have no threshold. Older files are pickled models instead of weights: load them with torchxrayvision and
save their state_dict().

Cohen et al. 2022, https://arxiv.org/abs/2111.00595
"""

import math
from collections.abc import Mapping

from torch import Tensor

from ribcage.bundle.formats.reading.published_weights import DENSENETS, RESNETS, Evidence, Published, architecture

SOURCE = "https://github.com/mlmed/torchxrayvision"
LICENCE = "Apache-2.0 (code); weights trained on public datasets of radiographs"

MEAN, STD = 0.5, 0.5 / 1024
OUTPUTS = (
    "Atelectasis",
    "Consolidation",
    "Infiltration",
    "Pneumothorax",
    "Edema",
    "Emphysema",
    "Fibrosis",
    "Effusion",
    "Pneumonia",
    "Pleural_Thickening",
    "Cardiomegaly",
    "Nodule",
    "Mass",
    "Hernia",
    "Lung_Lesion",
    "Fracture",
    "Lung_Opacity",
    "Enlarged_Cardiomediastinum",
)
THRESHOLDS = "op_threshs"
ENCODER = "xrv_resnet101_encoder"
DECODER = ("uplayer", "conv1_1.")
"""Prefixes of the weights of the autoencoder's decoder."""


def recognises(weights: Mapping[str, Tensor]) -> bool:
    """Whether there are thresholds, or one input channel and 18 outputs, or the autoencoder."""
    if is_autoencoder(weights):
        return True
    state = resnet_weights(weights)
    stem, head = ("conv1", "fc") if "conv1.weight" in state else ("features.conv0", "classifier")
    known = f"{stem}.weight" in state and len(state.get(f"{head}.bias", ())) == len(OUTPUTS)
    return known and (THRESHOLDS in weights or Published(dict(state)).channels(stem) == 1)


def published(weights: dict[str, Tensor]) -> Published:
    """The weights under timm's names, and what the layout implies about them."""
    if is_autoencoder(weights):
        return autoencoder(weights)
    state = resnet_weights(weights)
    dense = "conv1.weight" not in state
    stem, candidates, side = ("features.conv0", DENSENETS, 224) if dense else ("conv1", RESNETS, 512)
    values = weights[THRESHOLDS].tolist() if THRESHOLDS in weights else ()
    thresholds = tuple(None if math.isnan(value) else value for value in values)
    trained = [not dense or not thresholds or value is not None for value in thresholds or OUTPUTS]
    findings = tuple(name if used else "" for name, used in zip(OUTPUTS, trained, strict=True))
    channels = Published(state).channels(stem)
    return Published(
        state,
        (MEAN,) * channels,
        (STD,) * channels,
        name=architecture(state, candidates),
        findings=findings,
        evidence=Evidence("names", THRESHOLDS)
        if THRESHOLDS in weights
        else Evidence("shapes", "18 outputs and one channel"),
        unused=(THRESHOLDS,) if THRESHOLDS in weights else (),
        size=(side, side),
        stored=side,
        thresholds=tuple(value for value, name in zip(thresholds, findings, strict=False) if name),
    )


def resnet_weights(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights without thresholds and without the prefix of a ResNet."""
    return {name.removeprefix("model."): value for name, value in weights.items() if name != THRESHOLDS}


def is_autoencoder(weights: Mapping[str, Tensor]) -> bool:
    """Whether there are a ResNet and the decoder of the autoencoder."""
    return {"conv1.weight", "layer4.0.conv2.weight", "uplayer_top.conv1.weight", "conv1_1.weight"} <= set(weights)


def autoencoder(weights: Mapping[str, Tensor]) -> Published:
    """The encoder as a backbone; its features are averaged over the positions."""
    state = {name: value for name, value in weights.items() if not name.startswith(DECODER)}
    return Published(
        state,
        (MEAN,),
        (STD,),
        name=architecture(state, (ENCODER,)),
        evidence=Evidence("names", "uplayer_top. and conv1_1."),
        unused=tuple(name for name in weights if name.startswith(DECODER)),
        stored=224,
    )
