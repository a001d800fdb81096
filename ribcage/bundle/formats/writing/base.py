"""Shared code of exports: three input channels with ImageNet normalisation, torchvision's names, writing of the file.

Our models take one channel x = (g - m) / s of a greyscale image g. Other programs repeat it in three channels,
x_c = (g - m_c) / s_c. Their weights v_c are equivalent to our w for every g if

    sum_c v_c x_c = w x,  that is  sum_c v_c / s_c = w / s  and  sum_c v_c m_c / s_c = w m / s:

two equations for three unknowns. The solution that is closest to equal thirds is, with the mean M of the m_c,

    v_c = (s_c / s) (w / 3 + b (m_c - M)),  b = w (m - M) / sum_c (m_c - M)^2.

No constant term remains. Zero padding, which means g = m in our models and g = m_c in the others, therefore contributes
nothing in either, and outputs agree at the image border, too. The equivalence holds for greyscale images only.
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


def rgb_stem(weight: Tensor, mean: float, std: float) -> Tensor:
    """(D, 1 or 3, h, w), for greyscale with this mean and std → (D, 3, h, w), for ImageNet normalisation."""
    m, s = (torch.tensor(values, dtype=torch.float64)[None, :, None, None] for values in (MEAN, STD))
    w = weight.double() if weight.shape[1] == 3 else weight.double().expand(-1, 3, -1, -1) / 3
    deviation = m - m.mean()
    b = (w * (mean - m)).sum(1, keepdim=True) / deviation.square().sum()
    return ((w + b * deviation) * s / std).float()


def rgb_weights(backbone: Backbone, model: ModelSpec) -> dict[str, Tensor]:
    """The weights under timm's names, with a first layer for three channels."""
    stem = backbone.model.pretrained_cfg["first_conv"]
    found = {name: copied(value) for name, value in backbone.model.state_dict().items()}
    if not model.rgb_normalisation:
        found[f"{stem}.weight"] = rgb_stem(found[f"{stem}.weight"], model.mean, model.std)
    elif model.rgb_normalisation != (tuple(MEAN), tuple(STD)):
        raise ValueError(
            f"{model.name} has three input channels but does not use ImageNet normalisation, which this layout "
            f"requires: convert the original file with --channels 1 first."
        )
    return found


def as_torchvision(backbone: Backbone, model: ModelSpec) -> dict[str, Tensor]:
    """The weights of torchvision's model of this name, without its classifier."""
    found, fc = rgb_weights(backbone, model), classifier(backbone.name) + "."
    expected = {name: shape for name, shape in torchvision_shapes(backbone.name).items() if not name.startswith(fc)}
    differing = [
        name for name in {**found, **expected} if getattr(found.get(name), "shape", None) != expected.get(name)
    ]
    if differing:
        raise ValueError(
            f"torchvision's {plain_name(backbone.name)} has a different structure: {len(differing)} weights differ "
            f"({differing[0]} …)."
        )
    return found


@functools.cache
def torchvision_shapes(name: str) -> dict[str, torch.Size]:
    """Shapes of all weights of torchvision's model."""
    known = torchvision.models.list_models(module=torchvision.models)
    if plain_name(name) not in known:
        raise ValueError(
            f"torchvision has no model named {name}.{did_you_mean(plain_name(name), known)} "
            "Only the ResNets and DenseNets of torchvision are supported."
        )
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # about initial weights, which are not created here
        built = torchvision.models.get_model(plain_name(name), weights=None)
    return {key: value.shape for key, value in built.state_dict().items()}


def classifier(name: str) -> str:
    """torchvision's name of the last layer: fc in ResNets, classifier in DenseNets."""
    return list(torchvision_shapes(name))[-1].split(".")[0]


def plain_name(name: str) -> str:
    """resnet50.a1_in1k → resnet50"""
    return name.split(".")[0]


def unlike_chexnet(method: Method, model: ModelSpec) -> list[str]:
    """Reasons why a program that applies a sigmoid to ChestX-ray14's 14 findings would compute other predictions."""
    wrong = []
    if model.pool not in ("", "avg"):
        wrong.append(f"the layout requires average pooling, not {model.pool!r}")
    if model.loss == "cross-entropy":
        wrong.append("the layout applies a sigmoid to each finding, but this model was trained with cross-entropy")
    if not isinstance(method, Supervised) or set(method.findings) != set(CHESTXRAY14):
        wrong.append(
            f"the layout requires the {len(CHESTXRAY14)} findings of ChestX-ray14, which are not those of this model"
        )
    return wrong


def copied(value: Tensor) -> Tensor:
    """A contiguous copy on the CPU, without gradient."""
    return value.detach().cpu().clone(memory_format=torch.contiguous_format)


def write_weights(content: Any, target: Path, name: str) -> Path:
    """Write the file atomically; in a folder it gets the layout's usual name."""
    file = target / name if target.is_dir() else target
    file.parent.mkdir(parents=True, exist_ok=True)
    with files.explained(file.parent, "Free some."), files.atomic(file) as part, files.disk_errors(part):
        torch.save(content, part)
    return file
