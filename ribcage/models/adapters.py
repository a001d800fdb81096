"""Adaptation of a pretrained backbone: which of its weights are trained, and the low-rank adapters of LoRA.

full: all weights; head: none; bitfit: the biases (Ben Zaken et al. 2022, https://arxiv.org/abs/2106.10199); lora:
low-rank updates of the weights of some layers (Hu et al. 2022, https://arxiv.org/abs/2106.09685, eq. 3):

h = W x + (alpha / r) B A x,   A (r, inputs) random, B (outputs, r) zero at first

The queries, keys and values of a fused projection have adapters of their own. The update of a k × k convolution is a
k × k convolution with r outputs, followed by a 1 × 1 convolution. Merged into W, an adapter leaves a plain layer.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 – the usual name

from ribcage.models.backbone import Backbone
from ribcage.models.linear import linear
from ribcage.runtime.distributed import is_divided

Adaptation = Literal["full", "head", "bitfit", "lora"]
AdaptedLayers = Literal["attention", "mlp", "all"]
FUSED = {"qkv": 3, "kv": 2}
"""Projections that are fused into one layer of this name → their number."""
QUERIES = ("qkv", "q", "q_proj", "query")
"""A module with a layer of one of these names is an attention module."""


@dataclass(frozen=True)
class LowRank:
    """Options of LoRA."""

    rank: int = 8
    alpha: float = 16.0
    layers: AdaptedLayers = "attention"


class Adapter(nn.Module):
    """What a layer with an adapter has besides its own weights, whose names stay."""

    lora_a: nn.Parameter
    """(parts r, inputs), or (parts r, inputs, k, k)"""
    lora_b: nn.Parameter
    """(outputs, r)"""
    parts: int
    scaling: float

    @property
    def weight(self) -> Tensor:  # some models (BEiT, EVA) use the weight and do not call the layer
        """The merged weight, W + (alpha / r) B A; W while it is divided among processes, where FSDP asks for it."""
        if is_divided(self.own_weight):
            return self.own_weight
        update = self.up @ self.lora_a.flatten(1)
        return self.own_weight + self.scaling * update.view_as(self.own_weight)

    @property
    def own_weight(self) -> Tensor:
        """W"""
        weight = self._parameters["weight"]
        assert weight is not None
        return weight

    @property
    def up(self) -> Tensor:
        """(outputs, parts r): B, each part in its own columns."""
        return torch.block_diag(*self.lora_b.chunk(self.parts))


class AdaptedLinear(Adapter, nn.Linear):  # type: ignore[override]  # `weight` is a property
    """A linear layer with an adapter."""

    def forward(self, values: Tensor) -> Tensor:
        """(…, inputs) → (…, outputs)"""
        down = F.linear(values, self.lora_a) * self.scaling  # (…, parts r)
        return linear(values, self.own_weight, self.bias) + F.linear(down, self.up)


class AdaptedConv2d(Adapter, nn.Conv2d):  # type: ignore[override]
    """A convolution with an adapter."""

    def forward(self, maps: Tensor) -> Tensor:
        """(N, inputs, H, W) → (N, outputs, h, w)"""
        down = self._conv_forward(maps, self.lora_a, None) * self.scaling  # (N, parts r, h, w)
        return self._conv_forward(maps, self.own_weight, self.bias) + F.conv2d(down, self.up[:, :, None, None])


KINDS: dict[type[nn.Module], type[Adapter]] = {nn.Linear: AdaptedLinear, nn.Conv2d: AdaptedConv2d}


def adapt_backbone(backbone: Backbone, how: Adaptation, low_rank: LowRank) -> None:
    """Let only the weights of this adaptation be trained; with LoRA, add the adapters."""
    if how == "full":
        return
    model, name = backbone.requires_grad_(False).model, backbone.name
    if how == "bitfit":
        biases = [weight for key, weight in model.named_parameters() if key.endswith("bias") and weight.ndim == 1]
        if not biases:
            raise ValueError(f"--adapt bitfit trains biases, but {name} has none. Use another --adapt.")
        for bias in biases:
            bias.requires_grad_(True)
    if how == "lora":
        layers = dict(adaptable_layers(model, low_rank))
        if not layers:
            raise ValueError(_no_layers(model, name, low_rank))
        for key, layer in layers.items():
            add_adapter(layer, low_rank, parts=FUSED.get(key.rpartition(".")[2], 1))


def add_adapter(layer: nn.Module, low_rank: LowRank, *, parts: int = 1) -> None:
    """Turn a plain layer into one with an adapter, which changes nothing until it is trained."""
    adapted: Any = layer
    weight: Tensor = adapted.weight
    parts = parts if weight.shape[0] % parts == 0 else 1
    down = weight.new_empty(parts * low_rank.rank, *weight.shape[1:])
    nn.init.kaiming_uniform_(down, a=math.sqrt(5))
    adapted.lora_a = nn.Parameter(down)
    adapted.lora_b = nn.Parameter(weight.new_zeros(weight.shape[0], low_rank.rank))
    adapted.parts, adapted.scaling = parts, low_rank.alpha / low_rank.rank
    adapted.__class__ = KINDS[type(layer)]


def adaptable_layers(model: nn.Module, low_rank: LowRank) -> Iterator[tuple[str, nn.Module]]:
    """The linear layers and convolutions that get an adapter; those that are smaller than their adapter get none."""
    attention = {name for name, part in model.named_modules() if any(hasattr(part, query) for query in QUERIES)}
    for name, layer in model.named_modules():
        if type(layer) not in KINDS or getattr(layer, "groups", 1) > 1:
            continue
        parent = name.rpartition(".")[0]
        chosen = {
            "attention": parent in attention,
            "mlp": any(word.startswith("mlp") for word in parent.split(".")),
            "all": True,
        }
        weight: Any = layer.weight
        if chosen[low_rank.layers] and low_rank.rank * (weight[0].numel() + len(weight)) < weight.numel():
            yield name, layer


def merged_state(model: nn.Module) -> dict[str, Tensor]:
    """The weights of a model with its adapters merged, as the model without adapters names them."""
    state: dict[str, Tensor] = dict(model.state_dict())
    for name, layer in model.named_modules():
        if isinstance(layer, Adapter):
            prefix = f"{name}." if name else ""
            state[f"{prefix}weight"] = layer.weight.detach()
            del state[f"{prefix}lora_a"], state[f"{prefix}lora_b"]
    return state


def trained_summary(module: nn.Module) -> str:
    """A sentence about the share of the weights that are trained."""
    counts = [(weight.numel(), weight.requires_grad) for weight in module.parameters()]
    trained, every = sum(count for count, is_trained in counts if is_trained), sum(count for count, _ in counts)
    return f"{trained:,} of {every:,} weights are trained ({trained / every:.2%})."


def _no_layers(model: nn.Module, name: str, low_rank: LowRank) -> str:
    """Why no layer gets an adapter, and what to do."""
    others = ("all", "mlp", "attention")
    possible = [one for one in others if any(adaptable_layers(model, LowRank(low_rank.rank, layers=one)))]  # type: ignore[arg-type]
    advice = f"Use --lora-layers {possible[0]}." if possible else "Use a lower --lora-rank or another --adapt."
    return f"{name} has no {low_rank.layers} layers for --adapt lora with --lora-rank {low_rank.rank}. {advice}"
