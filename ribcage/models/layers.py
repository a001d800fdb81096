"""Layers shared by several methods: heads, permutations, momentum encoders, batch norms over groups."""

import copy
import itertools
from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from timm.layers import DropPath
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 – the usual name

from ribcage.runtime import distributed, rng
from ribcage.runtime.devices import on_device


def perceptron(*widths: int, norm: bool = False) -> nn.Sequential:
    """Linear layers of these widths with ReLU between them; norm: a batch norm before each ReLU."""
    layers: list[nn.Module] = [nn.Linear(widths[0], widths[1])]
    for inputs, outputs in itertools.pairwise(widths[1:]):
        layers += [nn.BatchNorm1d(inputs)] if norm else []
        layers += [nn.ReLU(), nn.Linear(inputs, outputs)]
    return nn.Sequential(*layers)


SHORT = 256
"""Largest number of tokens for which unfused attention is faster."""


def choose_attention(module: nn.Module, tokens: int, device: torch.device) -> None:
    """Choose fused attention or not. On CPUs in half precision, the backward pass of torch's fused attention is two to
    nine times as slow. In a compiled step the choice stays as it is: changing modules would split its graph."""
    if torch.compiler.is_compiling():
        return
    from timm.layers import use_fused_attn

    plain = device.type == "cpu" and torch.is_autocast_enabled("cpu") and tokens <= SHORT
    for part in module.modules():
        if hasattr(part, "fused_attn"):
            setattr(part, "fused_attn", bool(use_fused_attn() and not plain))  # noqa: B010 – no module, as mypy infers


# ---- permutations of patches


@torch.library.custom_op("ribcage::permutation_tensor", mutates_args=())
def permutation_tensor(chance: Tensor, count: int, device: torch.device) -> Tensor:
    """(N, count): a permutation of 0 … count-1 for each number in a batch's `chance`. In a compiled step it is one
    operation, as NumPy draws it."""
    return on_device(rng.random_orders(chance.numpy(), count), device)


@permutation_tensor.register_fake
def _permutation_like(chance: Tensor, count: int, device: torch.device) -> Tensor:
    return torch.empty((len(chance), count), dtype=torch.int64, device=device)


# ---- momentum encoders

Network = TypeVar("Network", bound=nn.Module)


def follower(module: Network) -> Network:
    """A copy without gradients, such as a momentum encoder."""
    return copy.deepcopy(module).requires_grad_(False)


def teacher_copy(module: Network) -> Network:
    """A copy without gradients and without stochastic depth."""
    copied = follower(module)
    for part in copied.modules():
        if isinstance(part, DropPath):
            part.drop_prob = 0.0
    return copied


@torch.no_grad()
def follow(copied: nn.Module, module: nn.Module, momentum: float) -> None:
    """w_copy <- m w_copy + (1 - m) w; what a batch norm counts, the copy counts itself."""
    lerp(list(zip(copied.parameters(), module.parameters(), strict=True)), 1 - momentum)


@torch.no_grad()
def lerp(pairs: Sequence[tuple[Tensor, Tensor]], weight: float) -> None:
    """Move the first tensor of each pair towards the second by this share of the way, all in a few kernel launches."""
    if pairs:
        olds, news = ([distributed.own_part(one) for one in side] for side in zip(*pairs, strict=True))
        torch._foreach_lerp_(olds, news, weight)


# ---- batch norms over groups


class GroupStatistics:
    """The statistics of a step that the batch norms of a model have not added to their running statistics yet."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Any, Tensor]] = []

    @torch.no_grad()
    def settle(self) -> None:
        """Update the running statistics by the means over all processes, which one reduction gives for all layers."""
        if not self.waiting:
            return
        norms, own = zip(*self.waiting, strict=True)  # (2, C) each
        means = distributed.total(torch.cat(own, 1)) / distributed.world_size()
        for norm, (mean, variance) in zip(norms, means.split([one.shape[1] for one in own], 1), strict=True):
            norm.num_batches_tracked += 1
            share = norm.momentum if norm.momentum is not None else 1 / float(norm.num_batches_tracked)
            norm.running_mean.lerp_(mean, share)
            norm.running_var.lerp_(variance, share)
        self.waiting.clear()


def group_norms(module: nn.Module, size: int) -> GroupStatistics:
    """Let every batch norm compute its statistics over `size` images at a time, as if each group had its own GPU.

    Running statistics are those of all groups of all processes. Names of weights stay.
    """
    statistics = GroupStatistics()
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d | nn.BatchNorm1d):
            setattr(norm, "forward", _Grouped(norm, size, statistics))  # noqa: B010 – a method of this one object only
    return statistics


class _Grouped:
    """Forward pass of a batch norm over groups."""

    def __init__(self, norm: Any, size: int, statistics: GroupStatistics) -> None:
        self.norm, self.size, self.statistics, self.plain = norm, size, statistics, norm.forward

    def __call__(self, x: Tensor) -> Tensor:
        norm = self.norm
        if not norm.training:
            return self.plain(x)
        parts = x.split(self.size)
        means, variances = norm.running_mean.new_zeros((2, len(parts), x.shape[1]))
        normal = torch.cat(
            [
                F.batch_norm(part, mean, variance, norm.weight, norm.bias, True, 1.0, norm.eps)
                for part, mean, variance in zip(parts, means, variances, strict=True)
            ]
        )
        if not getattr(norm, "recomputed", False):  # counted in the first forward pass
            self.statistics.waiting.append((norm, torch.stack([means.mean(0), variances.mean(0)])))
        for behind in ("drop", "act"):  # timm's batch norms may carry these along
            normal = getattr(norm, behind)(normal) if hasattr(norm, behind) else normal
        return normal
