"""MedMNIST: the ResNet-18 and ResNet-50 of its benchmark, for ChestMNIST's 14 findings or PneumoniaMNIST.

A file contains {net: …}:
    conv1.*, layerN.M.shortcut.{0,1}.*, linear.*    28 px: a 3 × 3 stem without pooling
    conv1.*, layerN.M.downsample.*, fc.*            224 px: torchvision's names, so these need --layout medmnist

The 28 × 28 px images have mean and standard deviation .5; for 224 px, the same images are enlarged. Two outputs are the
classes normal and pneumonia of a softmax, which is the sigmoid of their difference: they become one output. Recognised
by the published names and shapes; the authors do not publish their networks as a package.

Yang et al. 2023, https://doi.org/10.1038/s41597-022-01721-8
"""

from collections.abc import Collection
from typing import Any

from torch import Tensor

from ribcage.bundle.formats.lightly import SMALL
from ribcage.bundle.formats.reading.published_weights import RESNETS, Evidence, Published, architecture
from ribcage.data.findings import CHESTXRAY14

SOURCE = "https://github.com/MedMNIST/experiments"
LICENCE = "Apache-2.0 (code); CC BY 4.0 (images)"

SIDE = 28
"""Side of the images of MedMNIST in pixels."""
MEAN = STD = 0.5


def recognises(names: Collection[str]) -> bool:
    """Whether there is a network for 28 px with its last layer."""
    return {"conv1.weight", "layer2.0.shortcut.0.weight", "linear.weight"} <= set(names)


def recognises_if_named(names: Collection[str]) -> bool:
    """Whether this is a network for 224 px: torchvision's ResNet with a last layer."""
    return {"conv1.weight", "layer1.0.conv1.weight", "fc.weight", "fc.bias"} <= set(names)


def published(weights: dict[str, Tensor]) -> Published:
    """The weights under timm's names, and the findings of 14 or two outputs."""
    small = recognises(weights)
    state = {timm_name(name): value for name, value in weights.items()} if small else dict(weights)
    outputs = len(state.get("fc.bias", ()))
    converted = as_one_output(state, "linear" if small else "fc") if outputs == 2 else {}
    chest: dict[int, Any] = {
        len(CHESTXRAY14): {"findings": CHESTXRAY14, "data": "ChestMNIST"},
        2: {"findings": ("Pneumonia",), "data": "PneumoniaMNIST"},
    }
    side = SIDE if small else 224
    channels = Published(state).channels("conv1")
    return Published(
        state,
        (MEAN,) * channels,
        (STD,) * channels,
        name=architecture(state, SMALL if small else RESNETS),
        evidence=Evidence("shapes", "shortcut. and linear." if small else "torchvision's ResNet"),
        size=(side, side),
        stored=SIDE,
        converted=converted,
        findings_inferred=outputs in chest,
        **chest.get(outputs, {}),
    )


def timm_name(name: str) -> str:
    """layer2.0.shortcut.0.weight → layer2.0.downsample.0.weight"""
    return name.replace(".shortcut.", ".downsample.").replace("linear.", "fc.")


def as_one_output(state: dict[str, Tensor], last: str) -> dict[str, tuple[str, ...]]:
    """Replace the two outputs of a softmax by one with the same probability of the second; its sources."""
    for part in ("weight", "bias"):
        first, second = state[f"fc.{part}"]
        state[f"fc.{part}"] = (second - first)[None]
    return {f"fc.{part}": (f"{last}.{part}",) for part in ("weight", "bias")}
