"""Ensemble: several backbones as one, whose features are those of all members side by side.

The mean of linear classifiers is a linear classifier of these features:
  1/K sum_k (W_k f_k + b_k) / t_k  =  [W_1/(K t_1) … W_K/(K t_K)] (f_1 … f_K) + sum_k b_k / (K t_k)
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 – the usual name

from ribcage.models.backbone import Backbone, Hidden


@dataclass(frozen=True)
class EnsembleFeatures:
    """What readers of `Backbone.model` need to know about an ensemble."""

    feature_info: list[dict[str, int]]
    """The reduction of its finest last map."""
    global_pool: str
    """"token" if any member pools by a token."""


class Ensemble(Backbone):
    """Backbones of any architectures that take the same images.

    `hidden` is a tuple with the output of each member. It cannot be trained or be the initial weights of a training.
    """

    def __init__(self, members: Sequence[Backbone]) -> None:
        nn.Module.__init__(self)  # there is no single model of timm's
        self.members = nn.ModuleList(members)
        self.name = ensemble_name([one.name for one in members])
        self.channels, self.size, self.pretrained = members[0].channels, members[0].size, True
        self.scale, self.rgb_normalisation, self.coverage = members[0].scale, (), None
        self.dim, self.pool_name, self.pools_by_query = sum(one.dim for one in members), "", False

    @property
    def backbones(self) -> list[Backbone]:
        """The members."""
        return list(self.members)  # type: ignore[arg-type]  # a ModuleList of Backbones

    @property
    def model(self) -> EnsembleFeatures:
        """A description in place of timm's model."""
        reduction = min(one.model.feature_info[-1]["reduction"] for one in self.backbones)
        by_token = any(getattr(one.model, "global_pool", "") == "token" for one in self.backbones)
        return EnsembleFeatures([{"reduction": reduction}], "token" if by_token else "")

    def hidden(self, images: Tensor) -> Hidden:
        """The output of each member."""
        return tuple(one.hidden(images) for one in self.backbones)

    def forward_features(self, images: Tensor) -> Hidden:
        """The same, without choosing how attention is computed."""
        return tuple(one.forward_features(images) for one in self.backbones)

    def pool(self, hidden: Hidden) -> Tensor:
        """(N, dim)"""
        return torch.cat([one.pool(each) for one, each in zip(self.backbones, hidden, strict=True)], 1)

    def grid(self, hidden: Hidden, size: tuple[int, int]) -> Tensor:
        """(N, channels, h, w): the maps of all members, resized to the finest."""
        maps = [one.grid(each, size) for one, each in zip(self.backbones, hidden, strict=True)]
        return side_by_side(maps)


def side_by_side(maps: Sequence[Tensor]) -> Tensor:
    """(…, C, h, w) maps, resized to the finest and concatenated by channel."""
    size = max((one.shape[-2:] for one in maps), key=lambda shape: shape[0] * shape[1])
    return torch.cat([one if one.shape[-2:] == size else resized(one, size) for one in maps], -3)


def resized(maps: Tensor, size: torch.Size) -> Tensor:
    """(…, h, w) maps of another size."""
    flat = maps.flatten(0, -4) if maps.ndim > 4 else maps
    return F.interpolate(flat, tuple(size), mode="bilinear", align_corners=False).reshape(*maps.shape[:-2], *size)


def ensemble_name(names: Sequence[str]) -> str:
    """ensemble of 2 × resnet18, densenet121"""
    counts = {name: names.count(name) for name in names}
    return "ensemble of " + ", ".join(f"{count} × {name}" if count > 1 else name for name, count in counts.items())
