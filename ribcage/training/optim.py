"""Optimizers, their parameter groups, and the learning rate of every step."""

import math
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from ribcage.methods import Method
from ribcage.models.hyperparameters import Optimizer
from ribcage.models.recomputation import blocks

Schedule = Literal["cosine", "step", "constant"]


@dataclass(frozen=True)
class Rates:
    """Learning rate as a function of the step: linear warm-up, then a schedule."""

    peak: float
    steps: int
    warmup: int = 0
    schedule: Schedule = "cosine"
    floor: float = 0.0
    """Final value of the cosine."""
    decay_at: tuple[float, ...] = (0.6, 0.8)
    """For 'step': fractions of the run after which the rate is multiplied by `decay_by`."""
    decay_by: float = 0.1

    def at(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
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
    betas: tuple[float, ...] = (0.9, 0.999),
) -> torch.optim.Optimizer:
    """An optimizer over the trained weights. Each parameter group has `scale`, its factor of the learning rate."""
    groups = list(_groups(method, weight_decay, layer_decay))
    if kind == "adamw":
        return torch.optim.AdamW(groups, lr=0.0, betas=(betas[0], betas[1]), fused=True)
    if kind == "sgd":
        on_gpu = any(weight.is_cuda for group in groups for weight in group["params"])
        return torch.optim.SGD(groups, lr=0.0, momentum=momentum, fused=on_gpu or None)
    from timm.optim import Lars

    return Lars(groups, lr=0.0, momentum=momentum)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of every group to `rate` times its scale."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["scale"]


def set_weight_decay(optimizer: torch.optim.Optimizer, value: float) -> None:
    """Set the weight decay of every group that has one."""
    for group in optimizer.param_groups:
        if group["always_adapt"]:
            group["weight_decay"] = value


def layers(model: Any) -> dict[str, int]:
    """The layer of each weight of a backbone, counted from the stem (0); weights after the last block are left out.

    As in BEiT (Bao et al. 2021, https://arxiv.org/abs/2106.08254) and in MAE's code (util/lr_decay.py), everything
    before the first block is one layer, each block is one, and the last norm (`norm` or `fc_norm`, depending on the
    pooling) belongs to the head. Blocks are numbered as in timm or, if timm does not number them (MetaFormer, PiT), in
    their order. Weights without a number, such as transitions between blocks, belong to the layer before them.
    """
    if hasattr(model, "group_matcher"):
        place = _places(model.group_matcher())
        places = {name: place(name) for name, _ in model.named_parameters()}
    else:
        places = _block_places(model)
    if not any(places.values()):
        raise ValueError(
            f"--layer-decay must be 1, because {type(model).__name__} does not define the depth of its layers."
        )
    order = {known: depth for depth, known in enumerate(sorted({known for known in places.values() if known}))}
    found: dict[str, int] = {}
    before = 0
    for name, known in places.items():
        found[name] = before = order[known] if known else before
    last = max((number for number, known in enumerate(places.values()) if known), default=-1)
    return {name: found[name] for name in list(places)[: last + 1]}


def _places(matcher: Any) -> Callable[[str], tuple[float, ...]]:
    """A function: name of a weight → sort key of its layer from timm's group matcher; () if it belongs to the layer
    before."""

    def by_rules(name: str) -> tuple[float, ...]:
        for part, rules in enumerate(matcher.values()):
            for rule, suffix in [(rules, None)] if isinstance(rules, str) else rules or ():
                if match := re.match(rule, name):
                    own = [group for group in match.groups() if group is not None]
                    return () if suffix == _AS_BEFORE else tuple(map(float, (part, *own, *(suffix or ()))))
        return ()

    def by_function(name: str) -> tuple[float, ...]:
        number = matcher(name)
        known = tuple(number) if isinstance(number, Iterable) else (number,)
        return () if known[-1] in (math.inf, *_AS_BEFORE) or name.startswith("norm.") else known

    return by_function if callable(matcher) else by_rules


def _block_places(model: nn.Module) -> dict[str, tuple[float, ...]]:
    """Weight → the number of its block, counted from 1, or 0 before the first block; () between and after blocks."""
    inside = {id(weight): number for number, block in enumerate(blocks(model), 1) for weight in block.parameters()}
    places, before = dict[str, tuple[float, ...]](), bool(inside)
    for name, weight in model.named_parameters():
        before = before and id(weight) not in inside
        places[name] = (inside[id(weight)],) if id(weight) in inside else (0,) * before
    return places


_AS_BEFORE = (99999,)
"""timm's marker for "belongs to the layer before"."""


def _groups(method: Method, weight_decay: float, layer_decay: float) -> Iterator[dict[str, Any]]:
    """Parameter groups by depth and weight decay; biases, norms and position embeddings have no decay."""
    depths = layers(method.backbone.model) if layer_decay < 1 else {}
    head = max(depths.values(), default=0) + 1
    without_decay = {f"backbone.model.{name}" for name in getattr(method.backbone.model, "no_weight_decay", set)()}
    grouped: dict[tuple[int, bool], list[nn.Parameter]] = {}
    for name, weight in method.named_parameters():
        if weight.requires_grad:
            depth = depths.get(name.removeprefix("backbone.model."), head)
            grouped.setdefault((depth, weight.ndim > 1 and name not in without_decay), []).append(weight)
    for (depth, decayed), weights in sorted(grouped.items(), key=lambda item: item[0]):
        yield {
            "params": weights,
            "weight_decay": weight_decay if decayed else 0.0,
            "always_adapt": decayed,  # LARS: scale matrices by their norm with --weight-decay 0, too
            "scale": layer_decay ** (head - depth),
        }
