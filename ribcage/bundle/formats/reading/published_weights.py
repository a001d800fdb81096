"""Foreign: what a published file of weights turns out to be, in our words."""

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
"""What nearly all published weights expect, of three channels."""
RESNETS: tuple[str, ...] = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "wide_resnet50_2")
RESNETS += ("wide_resnet101_2", "resnext50_32x4d", "resnext101_32x8d", "resnext101_64x4d")
DENSENETS = ("densenet121", "densenet161", "densenet169", "densenet201")
VITS = tuple(f"vit_{size}_patch16_224" for size in ("tiny", "small", "base", "large"))
VITS += ("vit_huge_patch14_224", "vit_small_patch8_224", "vit_base_patch8_224")
VITS += tuple(f"vit_{size}_patch32_224" for size in ("small", "base", "large"))


@dataclass(frozen=True)
class Evidence:
    """By what a file was recognised."""

    kind: Literal["metadata", "names", "shapes"] = "shapes"
    """metadata: the file or one beside it says so; names: no other program is known to use them; shapes: many programs
    share its names and shapes. What rests on the last alone is asked about."""
    seen: str = "its names"

    def __str__(self) -> str:
        words = {
            "metadata": "what is written beside the weights",
            "names": "names that only this layout has",
            "shapes": "names and shapes that other programs share",
        }
        return f"{words[self.kind]} ({self.seen})"


@dataclass(frozen=True)
class Published(Weights):
    """A file of somebody else's."""

    layout: str = ""
    """Whose; "" when its names are nobody's that we know."""
    evidence: Evidence = Evidence()
    read: tuple[str, ...] = ()
    """What of architecture, preprocessing and findings the file itself says; the rest is assumed."""
    name: str = ""
    """The architecture, by timm's name; "" when the weights do not tell."""
    could: tuple[str, ...] = ()
    """Architectures that the weights fit alike, where that is more than one."""
    others: tuple[str, ...] = ()
    """Layouts that recognise the same file."""
    findings: tuple[str, ...] = ()
    """What the rows of its last layer answer; () when nobody can say, or it has none."""
    left: tuple[str, ...] = ()
    """Names of the file that a model does not need: decoders, queues, projections."""
    rebuilt: Mapping[str, str] = field(default_factory=dict)
    """Of weights that are in `state` in another form, turned round or of another kind: timm's name → the file's."""
    original: Mapping[str, str] = field(default_factory=dict)
    """timm's name → the file's, of all weights in `state`."""
    file_shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """All of the model's weights in the file, under its own names."""
    beside: tuple[str, ...] = ()
    """Names of the file's tensors that are not the model's: of an optimizer, of a second copy."""
    size: tuple[int, int] = (224, 224)
    stored: int = 256
    """Side of the square that an image was brought to before."""
    fit: Literal["pad", "crop", "squash"] = "crop"
    pool: str = ""
    thresholds: tuple[float | None, ...] = ()
    """One probability for each finding that is named, if they were published with the weights; None where none was."""
    temperature: tuple[float, ...] = ()
    """What logits are divided by, one for each finding, if it was published with the weights."""
    counted: bool = False
    """Whether the findings follow from nothing but the number of outputs."""
    source: str = ""
    licence: str = ""
    data: str = ""
    """Training data, as stated by its authors."""


def architecture(state: Mapping[str, Tensor], names: Sequence[str]) -> str:
    """Which of these of timm's models has weights of these names and shapes, of several the largest; "" when none has.

    Last layers, first layers of other channels and positions of other sizes are not compared.
    """
    found = {key: tuple(value.shape) for key, value in state.items() if value.is_floating_point()}
    learnt = {key for key in found if "running_" not in key}
    best = ""
    for name in names:
        if _fits(found, name) and (not best or len(_shapes(name)[0]) > len(_shapes(best)[0])):
            best = name  # the small ResNets are part of the large ones
            if all(key.startswith(ends_of(name)) for key in learnt - _shapes(name)[0].keys()):
                return best
    return best


def _fits(found: dict[str, tuple[int, ...]], name: str) -> bool:
    shapes, stems = _shapes(name)
    return all(key in found and _alike(found[key], shape, key, stems) for key, shape in shapes.items())


def _alike(one: tuple[int, ...], other: tuple[int, ...], name: str, stems: tuple[str, ...]) -> bool:
    """Whether shapes agree; those of positions need not, those of a first layer but for its channels."""
    if name.startswith("pos_embed"):
        return len(one) == len(other) and one[0] == other[0]
    if name.startswith(stems):
        return one[:1] + one[2:] == other[:1] + other[2:]
    return one == other


@functools.cache
def _shapes(name: str) -> tuple[dict[str, tuple[int, ...]], tuple[str, ...]]:
    """Shapes of all weights but of the last layer; the names of layers that see the image."""
    with torch.device("meta"):
        model = timm.create_model(name, num_classes=0)
    config: Any = timm.get_pretrained_cfg(name)
    stems = (config.first_conv,) if isinstance(config.first_conv, str) else tuple(config.first_conv)
    shapes = {key: tuple(value.shape) for key, value in model.named_parameters()}
    return shapes, stems


def ends_of(name: str) -> tuple[str, ...]:
    """What timm calls the last layers of a model."""
    config: Any = timm.get_pretrained_cfg(name)
    found = (config.classifier,) if isinstance(config.classifier, str) else tuple(config.classifier or ())
    return tuple(f"{one}." for one in found)


def twin_architectures(name: str) -> tuple[str, ...]:
    """timm's other models with weights of the same names and shapes, which give other features."""
    return TWINS.get(name.split(".")[0], ())


def numbered(found: Published, head: str) -> Published:
    """With what DTforCXR8's five models answer, where the last layer has as many rows as they."""
    if len(found.state.get(f"{head}.bias", ())) != len(CHESTXRAY14):
        return found
    source = "https://github.com/ruiqingyan1/DTforCXR8"
    return replace(found, findings=CHESTXRAY14, data="ChestX-ray14", source=source, licence="none stated", counted=True)


def in_patches(state: Mapping[str, Tensor], prefix: int = 1) -> dict[str, Any]:
    """The size of the images for which a transformer has positions, and that of the square before."""
    places, patch = state["pos_embed"].shape[-2] - prefix, state["patch_embed.proj.weight"].shape[-1]
    side = math.isqrt(places) * patch
    return {"size": (side, side), "stored": max(side, Published.stored)}


UNKNOWN: Any = {"source": "unknown", "licence": "unknown"}
"""Of weights whose names are those of a program that everybody uses."""


def flat(state: dict[str, Tensor], last: str) -> dict[str, Tensor]:
    """A last layer in a sequence by itself, or behind what has no weights, is that layer; a deeper one is not."""
    parts = {name.split(".")[1] for name in state if name.startswith(f"{last}.")}
    if len(parts) != 1 or not parts.pop().isdigit():
        return state
    return {re.sub(rf"^{last}\.\d+\.", f"{last}.", name): value for name, value in state.items()}


def under(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights whose names begin so, without that."""
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
