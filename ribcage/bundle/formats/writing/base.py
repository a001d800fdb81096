"""What published layouts share: three channels normalised as for ImageNet, torchvision's names, one file.

Ours see x = (g - m) / s of a gray image g, in one channel. Others give it three times, x_c = (g - m_c) / s_c. Weights
v_c for those do, whatever g is, what w did for ours where

    sum_c v_c x_c = w x,  that is  sum_c v_c / s_c = w / s  and  sum_c v_c m_c / s_c = w m / s:

two equations for three numbers. Of all solutions the one nearest to thirds is, with the mean M of the m_c,

    v_c = (s_c / s) (w / 3 + b (m_c - M)),  b = w (m - M) / sum_c (m_c - M)^2.

No constant is left over. So zero padding, which stands for g = m in ours and for g = m_c in others, adds nothing in
both, and outputs agree at the edges, too. Of colours nothing is said; radiographs have none.
"""

import functools
import warnings
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor

from ribcage.bundle.formats.reading.published_weights import MEAN, STD
from ribcage.bundle.spec import ModelSpec
from ribcage.data.findings import CHESTXRAY14
from ribcage.methods import Method
from ribcage.methods.supervised import Supervised
from ribcage.models.backbone import Backbone
from ribcage.runtime import files
from ribcage.runtime.spelling import did_you_mean


def in_colour(weight: Tensor, mean: float, std: float) -> Tensor:
    """(D, 1 or 3, h, w) for gray normalised by `mean` and `std` → (D, 3, h, w) for the same gray as ImageNet has it."""
    m, s = (torch.tensor(values, dtype=torch.float64)[None, :, None, None] for values in (MEAN, STD))
    w = weight.double() if weight.shape[1] == 3 else weight.double().expand(-1, 3, -1, -1) / 3
    away = m - m.mean()
    b = (w * (mean - m)).sum(1, keepdim=True) / away.square().sum()
    return ((w + b * away) * s / std).float()


def rgb_weights(backbone: Backbone, model: ModelSpec) -> dict[str, Tensor]:
    """The weights under timm's names, the first layer for three channels."""
    stem = backbone.model.pretrained_cfg["first_conv"]
    found = {name: taken(value) for name, value in backbone.model.state_dict().items()}
    if not model.rgb_normalisation:
        found[f"{stem}.weight"] = in_colour(found[f"{stem}.weight"], model.mean, model.std)
    elif model.rgb_normalisation != (tuple(MEAN), tuple(STD)):
        raise ValueError(
            f"{model.name} expects three channels normalised otherwise than for ImageNet: convert the file "
            "it came from with --channels 1 first."
        )
    return found


def as_torchvision(backbone: Backbone, model: ModelSpec) -> dict[str, Tensor]:
    """The weights as torchvision's own model of this name has them, without its classifier."""
    found, fc = rgb_weights(backbone, model), classifier(backbone.name) + "."
    wanted = {name: shape for name, shape in torchvision_shapes(backbone.name).items() if not name.startswith(fc)}
    other = [name for name in {**found, **wanted} if getattr(found.get(name), "shape", None) != wanted.get(name)]
    if other:
        raise ValueError(
            f"torchvision's {plain_name(backbone.name)} has a different structure: {len(other)} weights differ "
            f"({other[0]} …)."
        )
    return found


@functools.cache
def torchvision_shapes(name: str) -> dict[str, torch.Size]:
    """Of all weights of torchvision's own model."""
    known = torchvision.models.list_models(module=torchvision.models)
    if plain_name(name) not in known:
        raise ValueError(
            f"torchvision has no {name}.{did_you_mean(plain_name(name), known)} "
            "Its ResNets and DenseNets are supported."
        )
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # about first weights, which are not even made here
        built = torchvision.models.get_model(plain_name(name), weights=None)
    return {key: value.shape for key, value in built.state_dict().items()}


def classifier(name: str) -> str:
    """What torchvision calls the last layer: fc in a resnet, classifier in a densenet."""
    return list(torchvision_shapes(name))[-1].split(".")[0]


def plain_name(name: str) -> str:
    """resnet50.a1_in1k → resnet50"""
    return name.split(".")[0]


def unlike_chexnet(method: Method, model: ModelSpec) -> list[str]:
    """Why a program that asks for each finding of ChestX-ray14 by itself would hear other answers from a model."""
    wrong = []
    if model.pool not in ("", "avg"):
        wrong.append(f"it pools by the mean, not by {model.pool!r}")
    if model.loss == "cross-entropy":
        wrong.append("it asks each finding for itself (sigmoid), this model chooses one (cross-entropy)")
    if not isinstance(method, Supervised) or set(method.findings) != set(CHESTXRAY14):
        wrong.append(f"it answers the {len(CHESTXRAY14)} findings of ChestX-ray14, this model others or none")
    return wrong


def taken(value: Tensor) -> Tensor:
    """A copy in plain order, away from the method."""
    return value.detach().cpu().clone(memory_format=torch.contiguous_format)


def write_weights(content: Any, target: Path, name: str) -> Path:
    """Write the file, whole or not at all; into a folder under the layout's usual name."""
    file = target / name if target.is_dir() else target
    file.parent.mkdir(parents=True, exist_ok=True)
    with files.explained(file.parent, "Free some."), files.atomic(file) as part, files.disk_errors(part):
        torch.save(content, part)
    return file
