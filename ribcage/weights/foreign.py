"""Foreign: what a published file of weights turns out to be, in our words."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import timm
import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor

from ribcage.backbone import Weights

MEAN, STD = IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
"""What nearly all published weights expect, of three channels."""
RESNETS: tuple[str, ...] = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "wide_resnet50_2")
RESNETS += ("wide_resnet101_2", "resnext50_32x4d", "resnext101_32x8d", "resnext101_64x4d")
DENSENETS = ("densenet121", "densenet161", "densenet169", "densenet201")
VITS = tuple(f"vit_{size}_patch{patch}_224" for size in ("tiny", "small", "base", "large") for patch in (16, 8, 32))
VITS += ("vit_huge_patch14_224", "vit_medium_patch16_gap_240")


@dataclass(frozen=True)
class Published(Weights):
    """A file of somebody else's."""

    layout: str = ""
    """Whose; "" when its names are nobody's that we know."""
    name: str = ""
    """The architecture, by timm's name; "" when the weights do not tell."""
    findings: tuple[str, ...] = ()
    """What the rows of its last layer answer; () when nobody can say, or it has none."""
    left: tuple[str, ...] = ()
    """Names of the file that a model does not need: decoders, queues, projections."""
    size: tuple[int, int] = (224, 224)
    stored: int = 256
    """Side of the square that a picture was brought to before."""
    fit: Literal["pad", "crop", "squash"] = "crop"
    pool: str = ""
    thresholds: tuple[float, ...] = ()
    """One probability for each finding, if they were published with the weights."""
    source: str = ""
    licence: str = ""
    data: str = ""
    """What it is said to have learnt from."""


def architecture(state: Mapping[str, Tensor], names: Sequence[str]) -> str:
    """The first of these of timm's models whose weights have these names and shapes; "" when none has.

    Last layers, first layers of other channels and positions of other sizes are not compared.
    """
    found = {key: tuple(value.shape) for key, value in state.items() if value.is_floating_point()}
    return next((name for name in names if _fits(found, name)), "")


def _fits(found: dict[str, tuple[int, ...]], name: str) -> bool:
    shapes, ends = _shapes(name)
    return all(
        key in found and (found[key] == shape or (key.startswith(ends) and len(found[key]) == len(shape)))
        for key, shape in shapes.items()
    )


@functools.cache
def _shapes(name: str) -> tuple[dict[str, tuple[int, ...]], tuple[str, ...]]:
    """Shapes of all weights but of the last layer; the beginnings of names whose shapes may be others."""
    with torch.device("meta"):
        model = timm.create_model(name, num_classes=0)
    config: Any = timm.get_pretrained_cfg(name)
    stems = (config.first_conv,) if isinstance(config.first_conv, str) else tuple(config.first_conv)
    shapes = {key: tuple(value.shape) for key, value in model.named_parameters()}
    return shapes, (*stems, "pos_embed")


def under(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights whose names begin so, without that."""
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
