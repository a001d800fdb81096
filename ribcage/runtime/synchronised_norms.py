"""Batch norm over the global batch: the statistics of all processes' images."""

from typing import Any

import torch
from torch import Tensor, nn

from ribcage.runtime.distributed import _Sum, active, total


def synchronise_norms(module: nn.Module, device: torch.device) -> nn.Module:
    """Let batch norms take their statistics over all processes, so that several train as one would. Names of weights
    stay."""
    if not active() or any(isinstance(part, nn.SyncBatchNorm) for part in module.modules()):
        return module
    if device.type == "cuda":
        from timm.layers import convert_sync_batchnorm

        return convert_sync_batchnorm(module)
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d | nn.BatchNorm1d) and "forward" not in vars(norm):
            setattr(norm, "forward", _Synchronised(norm))  # noqa: B010 – a method of this one object only
    return module


def has_batch_norms(module: nn.Module) -> bool:
    """Whether a network has batch norms."""
    return any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in module.modules())


class _Synchronised:
    """Forward pass of a synchronised batch norm on CPUs, for which torch has none."""

    def __init__(self, norm: Any) -> None:
        self.norm, self.plain = norm, norm.forward

    def __call__(self, x: Tensor) -> Tensor:
        norm = self.norm
        if not norm.training:
            return self.plain(x)
        axes = [axis for axis in range(x.ndim) if axis != 1]
        shape = [1, -1] + [1] * (x.ndim - 2)
        wide = x.float()
        count = total(torch.tensor(float(x.numel() // x.shape[1])))
        mean = _Sum.apply(wide.sum(axes)) / count
        variance = _Sum.apply((wide - mean.view(shape)).square().sum(axes)) / count
        with torch.no_grad():
            norm.num_batches_tracked += 1
            share = norm.momentum if norm.momentum is not None else 1 / float(norm.num_batches_tracked)
            norm.running_mean.lerp_(mean.detach(), share)
            norm.running_var.lerp_(variance.detach() * count / (count - 1).clamp(min=1), share)
        normal = (wide - mean.view(shape)) * torch.rsqrt(variance + norm.eps).view(shape)
        if norm.affine:
            normal = normal * norm.weight.view(shape) + norm.bias.view(shape)
        normal = normal.to(x.dtype)
        for behind in ("drop", "act"):  # timm's batch norms may include these
            normal = getattr(norm, behind)(normal) if hasattr(norm, behind) else normal
        return normal
