"""The stem of a pretrained model for gray images: three channels folded into one.

One channel is normal. ImageNet weights were made for three: their stem is folded into one, so that a gray image gives
what it gave as RGB. With w the stem's weights and m_c, s_c the means and standard deviations those weights expect,

    sum_c w_c (x - m_c) / s_c  =  (sum_c w_c s / s_c) (x - m) / s  +  sum_c w_c (m - m_c) / s_c,

the first factor is the new weight for images normalised by m and s, and the last term is a constant for each output:
it goes into the convolution's bias, the batch norm behind it or the position embeddings that are added to its output
(CLIP's transformers). This is exact wherever the stem sees no zero padding.
A stem with none of them (ResNets with group norms) loses that term, which GRAY keeps small: there it is not exact.
"""

import copy
from typing import Any

import torch
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import nn

GRAY = (0.449, 0.226)
"""Mean and standard deviation of ImageNet in gray; with these, zero padding of a folded stem keeps its meaning."""
STEMS = ("Conv2d", "Conv2dSame")  # weight-standardised convolutions cannot be folded


def fold_stem(model: nn.Module, config: Any, mean: float, std: float) -> None:
    """Replace the stem, made for images normalised as in `config`, by the equivalent gray one for images normalised by
    `mean` and `std`."""
    for stem in [config.first_conv] if isinstance(config.first_conv, str) else config.first_conv:
        _fold(model, stem, config, mean, std)


def _fold(model: nn.Module, stem: str, config: Any, mean: float, std: float) -> None:
    """Fold one of the convolutions that receive the image."""
    rgb: Any = model.get_submodule(stem)
    if type(rgb).__name__ not in STEMS or rgb.in_channels != len(config.mean):
        raise ValueError(
            f"{type(model).__name__} has no convolution with three input channels at {stem}: use --channels 3."
        )
    gray = copy.copy(rgb)  # keeps its padding
    gray.in_channels, gray._parameters = 1, dict(rgb._parameters)
    m, s = (torch.tensor(values, dtype=torch.float64)[None, :, None, None] for values in (config.mean, config.std))
    weight, norm = rgb.weight.detach().double(), _norm_behind(model, stem)
    constant = (weight * ((mean - m) / s)).sum((1, 2, 3)).float()  # (outputs,)
    gray.weight = nn.Parameter((weight * (std / s)).sum(1, keepdim=True).float())
    if rgb.bias is not None:
        gray.bias = nn.Parameter(rgb.bias.detach() + constant)
    elif norm is not None and norm.running_mean is not None:
        norm.running_mean -= constant
    elif isinstance(model, VisionTransformer | Eva) and model.pos_embed is not None:
        prefix = 0 if model.no_embed_class else model.num_prefix_tokens
        model.pos_embed.data[:, prefix:] += constant
    parent, _, name = stem.rpartition(".")
    setattr(model.get_submodule(parent), name, gray)


def _norm_behind(model: nn.Module, stem: str) -> nn.BatchNorm2d | None:
    """The batch norm after the stem's convolution: the next module of that kind, if it follows closely."""
    modules = list(model.named_modules())
    place = [name for name, _ in modules].index(stem)
    behind = [module for _, module in modules[place + 1 : place + 4]]
    return next((module for module in behind if isinstance(module, nn.BatchNorm2d)), None)
