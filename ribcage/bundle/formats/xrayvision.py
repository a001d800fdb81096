"""TorchXRayVision: bare weights of its one-channel DenseNet-121 or ResNet-50, with 18 outputs.

    features.*, classifier.*    a DenseNet under torchvision's names
    conv1.*, layerN.*, fc.*     a ResNet under torchvision's names, or the same behind `model.`
    op_threshs                  (18,), one probability for each; nan where it was not trained

Images go in as 2048 x - 1024, with x in 0 … 1: that is (x - .5) / s with s = .5 / 1024. They are cut to a square and
brought to 224 pixels, for the ResNet to 512. A model of one dataset leaves rows untrained: in a DenseNet's file those
have no threshold. Its old files are whole models, not weights: open them with torchxrayvision, save the state_dict().

Cohen et al. 2022, https://arxiv.org/abs/2111.00595
"""

import math
from collections.abc import Mapping

from torch import Tensor

from ribcage.bundle.formats.reading.published_weights import DENSENETS, RESNETS, Evidence, Published, architecture

SOURCE = "https://github.com/mlmed/torchxrayvision"
LICENCE = "Apache-2.0 (code); weights trained on public datasets of radiographs"

MEAN, STD = 0.5, 0.5 / 1024
ROWS = (
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
CUTS = "op_threshs"


def recognises(weights: Mapping[str, Tensor]) -> bool:
    """Whether there are its thresholds, or 18 answers to an image of one channel."""
    state = resnet_weights(weights)
    stem, head = ("conv1", "fc") if "conv1.weight" in state else ("features.conv0", "classifier")
    known = f"{stem}.weight" in state and len(state.get(f"{head}.bias", ())) == len(ROWS)
    return known and (CUTS in weights or Published(dict(state)).channels(stem) == 1)


def published(weights: dict[str, Tensor]) -> Published:
    """Under timm's names."""
    state = resnet_weights(weights)
    net = "conv1.weight" not in state
    stem, candidates, side = ("features.conv0", DENSENETS, 224) if net else ("conv1", RESNETS, 512)
    cuts = tuple(None if math.isnan(cut) else cut for cut in weights[CUTS].tolist()) if CUTS in weights else ()
    trained = [not net or not cuts or cut is not None for cut in cuts or ROWS]
    findings = tuple(name if was else "" for name, was in zip(ROWS, trained, strict=True))
    channels = Published(state).channels(stem)
    return Published(
        state,
        (MEAN,) * channels,
        (STD,) * channels,
        name=architecture(state, candidates),
        findings=findings,
        evidence=Evidence("names", CUTS) if CUTS in weights else Evidence("shapes", "18 rows and one channel"),
        left=(CUTS,) if CUTS in weights else (),
        size=(side, side),
        stored=side,
        thresholds=tuple(cut for cut, name in zip(cuts, findings, strict=False) if name),
    )


def resnet_weights(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Without thresholds and what stands before the names of a ResNet."""
    return {name.removeprefix("model."): value for name, value in weights.items() if name != CUTS}
