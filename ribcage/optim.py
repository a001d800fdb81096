"""Optimizers, which weights they decay, how fast each layer moves, and the learning rate of every step."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from ribcage.methods import Method

Optimizer = Literal["adamw", "sgd", "lars"]
Schedule = Literal["cosine", "step", "constant"]


@dataclass(frozen=True)
class Rates:
    """The learning rate as a function of the step: a linear rise, then one of three ways down."""

    peak: float
    steps: int
    warmup: int = 0
    schedule: Schedule = "cosine"
    floor: float = 0.0
    """Where the cosine ends."""
    decay_at: tuple[float, ...] = (0.6, 0.8)
    """For 'step': shares of the run after which the rate falls."""
    decay_by: float = 0.1

    def at(self, step: int) -> float:
        """The rate of a step, counted from 0."""
        if step < self.warmup:
            return self.peak * (step + 1) / self.warmup
        progress = (step - self.warmup) / max(1, self.steps - self.warmup)
        if self.schedule == "cosine":
            return self.floor + (self.peak - self.floor) * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
        if self.schedule == "step":
            return self.peak * self.decay_by ** sum(step / self.steps >= share for share in self.decay_at)
        return self.peak


def optimizer(
    method: Method,
    kind: Optimizer = "adamw",
    *,
    weight_decay: float = 0.05,
    layer_decay: float = 1.0,
    momentum: float = 0.9,
    betas: tuple[float, float] = (0.9, 0.999),
) -> torch.optim.Optimizer:
    """An optimizer over what is to be trained; each group carries `scale`, its share of the learning rate."""
    groups = list(_groups(method, weight_decay, layer_decay))
    if kind == "adamw":
        return torch.optim.AdamW(groups, lr=0.0, betas=betas, fused=True)
    if kind == "sgd":
        return torch.optim.SGD(groups, lr=0.0, momentum=momentum)
    from timm.optim import Lars

    return Lars(groups, lr=0.0, momentum=momentum)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give every group its share of the learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["scale"]


def _groups(method: Method, weight_decay: float, layer_decay: float) -> Iterator[dict[str, Any]]:
    """Weights by depth and by whether they are decayed; biases, norms and embeddings of positions are not."""
    depths = _depths(method.backbone.model) if layer_decay < 1 else {}
    deepest = max(depths.values(), default=0) + 1
    spared = {f"backbone.model.{name}" for name in getattr(method.backbone.model, "no_weight_decay", set)()}
    grouped: dict[tuple[int, bool], list[nn.Parameter]] = {}
    for name, weight in method.named_parameters():
        if weight.requires_grad:
            depth = depths.get(name.removeprefix("backbone.model."), deepest)
            grouped.setdefault((depth, weight.ndim > 1 and name not in spared), []).append(weight)
    for (depth, decayed), weights in sorted(grouped.items(), key=lambda item: item[0]):
        yield {
            "params": weights,
            "weight_decay": weight_decay if decayed else 0.0,
            "scale": layer_decay ** (deepest - depth),
        }


def _depths(model: Any) -> dict[str, int]:
    """The layer of every weight, counted from the stem, as timm's own matcher sees it."""
    from timm.models import group_parameters

    layers = group_parameters(model, model.group_matcher(coarse=False), reverse=False)
    return {name: int(depth) for depth, names in layers.items() for name in names}
