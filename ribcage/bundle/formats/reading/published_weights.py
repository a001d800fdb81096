"""Description of a published file of weights: layout, architecture, preprocessing, findings and their evidence."""

import functools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import timm
import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor

from ribcage.bundle.formats.reading.twins import TWINS
from ribcage.data.findings import CHESTXRAY14
from ribcage.models.pretrained import Weights

MEAN, STD = IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
"""ImageNet normalisation, which nearly all published weights use."""
RESNETS: tuple[str, ...] = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "wide_resnet50_2")
RESNETS += ("wide_resnet101_2", "resnext50_32x4d", "resnext101_32x8d", "resnext101_64x4d")
DENSENETS = ("densenet121", "densenet161", "densenet169", "densenet201")
VITS = tuple(f"vit_{size}_patch16_224" for size in ("tiny", "small", "base", "large"))
VITS += ("vit_huge_patch14_224", "vit_small_patch8_224", "vit_base_patch8_224")
VITS += tuple(f"vit_{size}_patch32_224" for size in ("small", "base", "large"))


@dataclass(frozen=True)
class Evidence:
    """What a file was recognised by."""

    kind: Literal["metadata", "names", "shapes"] = "shapes"
    """metadata: stated in the file or in one beside it. names: weight names that no other program is known to use.
    shapes: names and shapes that many programs share; such assumptions must be confirmed by the user."""
    seen: str = "its names"

    def __str__(self) -> str:
        words = {
            "metadata": "a configuration file next to the weights",
            "names": "weight names that are unique to this layout",
            "shapes": "weight names and shapes that other programs also use",
        }
        return f"{words[self.kind]} ({self.seen})"


@dataclass(frozen=True)
class Published(Weights):
    """A published file of weights."""

    layout: str = ""
    """Name of the layout; "" if no layout recognises the file."""
    evidence: Evidence = Evidence()
    stated: tuple[str, ...] = ()
    """Which of architecture, preprocessing and findings the file states; the others are assumed."""
    name: str = ""
    """timm's name of the architecture; "" if it cannot be inferred from the weights."""
    candidates: tuple[str, ...] = ()
    """Architectures that the weights fit equally well, if there are several."""
    other_layouts: tuple[str, ...] = ()
    """Other layouts that also recognise the file."""
    findings: tuple[str, ...] = ()
    """Findings of the outputs of the last layer; () if they are unknown or there is no last layer."""
    unused: tuple[str, ...] = ()
    """Names of weights in the file that the model does not need: decoders, queues, projections."""
    unused_because: str = "used in training only"
    """Why the model does not need them."""
    converted: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """timm's name → names in the file, for weights that are transposed, joined or otherwise converted in `state`."""
    file_names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """timm's name → names in the file, for all weights in `state`."""
    file_shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Name in the file → shape, for all weights of the model."""
    other_tensors: tuple[str, ...] = ()
    """Names of tensors in the file that do not belong to the model, such as those of an optimizer or an EMA copy."""
    size: tuple[int, int] = (224, 224)
    stored: int = 256
    """Side of the square to which images were resized before cropping, in pixels."""
    fit: Literal["pad", "crop", "squash"] = "crop"
    pool: str = ""
    thresholds: tuple[float | None, ...] = ()
    """Published thresholds, one probability per named finding, or None for a finding without one."""
    temperature: tuple[float, ...] = ()
    """Published temperatures, one per finding, by which the logits are divided."""
    findings_inferred: bool = False
    """Whether the findings are inferred from the number of outputs alone."""
    source: str = ""
    licence: str = ""
    data: str = ""
    """Training data, as stated by its authors."""


def architecture(state: Mapping[str, Tensor], names: Sequence[str]) -> str:
    """The largest of the given timm architectures that the weights fit; "" if there is none.

    Last layers, the number of input channels and the number of position embeddings are not compared.
    """
    found = {key: tuple(value.shape) for key, value in state.items() if value.is_floating_point()}
    trainable = {key for key in found if "running_" not in key}
    best = ""
    for name in names:
        if _fits(found, name) and (not best or len(_shapes(name)[0]) > len(_shapes(best)[0])):
            best = name  # larger ResNets contain all weights of smaller ones
            if all(key.startswith(last_layers_of(name)) for key in trainable - _shapes(name)[0].keys()):
                return best
    return best


def _fits(found: dict[str, tuple[int, ...]], name: str) -> bool:
    shapes, stems = _shapes(name)
    return all(key in found and _same_shape(found[key], shape, key, stems) for key, shape in shapes.items())


def _same_shape(one: tuple[int, ...], other: tuple[int, ...], name: str, stems: tuple[str, ...]) -> bool:
    """Whether shapes agree, except in the number of position embeddings and of input channels of the first layer."""
    if name.startswith("pos_embed"):
        return len(one) == len(other) and one[0] == other[0]
    if name.startswith(stems):
        return one[:1] + one[2:] == other[:1] + other[2:]
    return one == other


@functools.cache
def _shapes(name: str) -> tuple[dict[str, tuple[int, ...]], tuple[str, ...]]:
    """Shapes of all weights except those of the last layer; the names of the first layers."""
    with torch.device("meta"):
        model = timm.create_model(name, num_classes=0)
    config: Any = timm.get_pretrained_cfg(name)
    stems = (config.first_conv,) if isinstance(config.first_conv, str) else tuple(config.first_conv)
    shapes = {key: tuple(value.shape) for key, value in model.named_parameters()}
    return shapes, stems


def last_layers_of(name: str) -> tuple[str, ...]:
    """Prefixes of the last layers of a timm model."""
    config: Any = timm.get_pretrained_cfg(name)
    found = (config.classifier,) if isinstance(config.classifier, str) else tuple(config.classifier or ())
    return tuple(f"{one}." for one in found)


def twin_architectures(name: str) -> tuple[str, ...]:
    """Other timm models whose weights have the same names and shapes, but which compute different features."""
    return TWINS.get(name.split(".")[0], ())


def with_dtforcxr8_findings(found: Published, head: str) -> Published:
    """Add DTforCXR8's findings, source and licence if the last layer has 14 outputs."""
    if len(found.state.get(f"{head}.bias", ())) != len(CHESTXRAY14):
        return found
    source = "https://github.com/ruiqingyan1/DTforCXR8"
    return replace(
        found, findings=CHESTXRAY14, data="ChestX-ray14", source=source, licence="none stated", findings_inferred=True
    )


def input_size(state: Mapping[str, Tensor], prefix: int = 1) -> dict[str, Any]:
    """Image size for which a transformer has position embeddings, and size before cropping, as fields of Published."""
    positions, patch = state["pos_embed"].shape[-2] - prefix, state["patch_embed.proj.weight"].shape[-1]
    side = math.isqrt(positions) * patch
    return {"size": (side, side), "stored": max(side, Published.stored)}


UNKNOWN: Any = {"source": "unknown", "licence": "unknown"}
"""Source and licence of weights with widely used names."""


def unnested_head(state: dict[str, Tensor], last: str) -> dict[str, Tensor]:
    """Rename the only layer in a sequential head: fc.0.weight → fc.weight. Heads with several layers are unchanged."""
    parts = {name.split(".")[1] for name in state if name.startswith(f"{last}.")}
    if len(parts) != 1 or not parts.pop().isdigit():
        return state
    return {re.sub(rf"^{last}\.\d+\.", f"{last}.", name): value for name, value in state.items()}


def strip_prefix(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights whose names start with the prefix, with the prefix removed."""
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
