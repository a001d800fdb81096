"""Parameters and multiply-adds of a model, exact and as counted by thop."""

from dataclasses import dataclass
from typing import Any

import torch
from timm.layers.adaptive_avgmax_pool import FastAdaptiveAvgPool
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.pooling import _AdaptiveAvgPoolNd, _AvgPoolNd
from torch.utils.flop_counter import FlopCounterMode

from ribcage.bundle.cost.subject import Subject, shapes
from ribcage.models.query_head import QueryHead

BY_FUNCTION = ("DenseNet", "MobileNet")
"""Architectures that pool by a layer in timm, but by a function, which thop does not count, in the published code."""


@dataclass(frozen=True)
class Counts:
    """Parameters and operations of a model for one image."""

    parameters: int
    thop: int
    multiply_adds: int
    outside: int
    """Multiply-adds outside convolutions and linear layers: the matrix products of attention."""


@torch.no_grad()
def count_operations(one: Subject) -> Counts:
    """Count the parameters and multiply-adds of a model."""
    network = shapes(one)
    layers, thop = 0, 0
    apart = set(_pool(network.backbone.model).modules())

    def add(layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        nonlocal layers, thop
        if inputs and isinstance(output, Tensor) and layer not in apart:
            layers += products(layer, inputs[0], output)
            thop += by_thop(layer, inputs[0], output)

    hooks = [layer.register_forward_hook(add) for layer in network.modules()]
    with FlopCounterMode(display=False) as flops:
        network(torch.zeros(1, one.channels, *one.size, device=next(network.parameters()).device))
    for hook in hooks:
        hook.remove()
    multiply_adds = flops.get_total_flops() // 2
    return Counts(sum(value.numel() for value in network.parameters()), thop, multiply_adds, multiply_adds - layers)


def _pool(model: nn.Module) -> nn.Module:
    """The pooling layer that thop would not count in the published code; nn.Identity for most architectures."""
    unseen = type(model).__name__ in BY_FUNCTION
    return getattr(model, "global_pool", nn.Identity()) if unseen else nn.Identity()


def products(layer: nn.Module, x: Tensor, y: Tensor) -> int:
    """Multiply-adds of a convolution, a linear layer or a head with query pooling."""
    match layer:
        case _ConvNd():
            return y.numel() * x.shape[1] // layer.groups * layer.weight[0, 0].numel()
        case nn.Linear():
            return y.numel() * layer.in_features
        case QueryHead():
            return 2 * x.shape[1] * layer.query.numel()
    return 0


def by_thop(layer: nn.Module, x: Tensor, y: Tensor) -> int:
    """What thop counts for a layer."""
    match layer:
        case _NormBase() | nn.LayerNorm():
            return x.numel() * (4 if layer.weight is not None else 2)
        case _AvgPoolNd():
            return y.numel()
        case _AdaptiveAvgPoolNd() | FastAdaptiveAvgPool():
            return x.numel() + y.numel()
        case nn.Softmax(dim=int(dim)):
            return 3 * x.numel() - x.numel() // x.shape[dim]
    return products(layer, x, y)
