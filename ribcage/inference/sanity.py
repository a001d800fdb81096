"""Likeness: whether maps of where a model looks depend on what it has learnt.

Adebayo et al. 2018, https://arxiv.org/abs/1810.03292: the maps of the model are compared with those of the same network
when its last layer, then all of its layers, have random weights. A map that stays as it was shows the image – its
edges, its bright parts – and not the model.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ribcage.bundle.io import Classifier
from ribcage.bundle.spec import ModelSpec
from ribcage.inference import explanation, gradcam
from ribcage.inference.gradcam import MapMethod
from ribcage.methods.supervised import Supervised
from ribcage.models.backbone import Backbone

ALIKE = 0.8
"""From here on maps are said to be of the image and not of the model."""


@dataclass(frozen=True)
class Likeness:
    """How alike the maps of a model and of the same network with random weights are: for each finding the mean rank
    correlation over the cells of a map, 1 for the same order. NaN of a finding for which no map has any heat."""

    findings: tuple[str, ...]
    head: np.ndarray
    """(F,) when only the last layer is random."""
    network: np.ndarray
    """(F,) when all are."""
    images: int
    draws: int
    grid: tuple[int, int] = (0, 0)
    """Cells of a map, down and across."""

    @property
    def known(self) -> bool:
        """Whether any map has heat to compare."""
        return not np.isnan(self.head).all()

    def stubborn(self, most: float = ALIKE) -> tuple[str, ...]:
        """The findings whose maps stay at least so alike, whatever the weights."""
        alike = np.fmax(self.head, self.network) >= most
        return tuple(name for name, is_so in zip(self.findings, alike, strict=True) if is_so)


def map_likeness(
    opened: Classifier,
    squares: Sequence[np.ndarray],
    *,
    draws: int = 5,
    seed: int = 0,
    map_method: MapMethod | None = None,
) -> Likeness:
    """Compare the maps of these stored images with those of networks whose weights are drawn at random."""
    method, model = opened.method, opened.spec
    images = torch.cat([explanation.view_tensor(square, model) for square in squares])
    trained, heads, networks = _maps(method, images, map_method), [], []
    with torch.random.fork_rng(devices=()):
        for draw in range(draws):
            torch.manual_seed(seed + draw)
            head = Supervised(method.backbone, model.findings, loss=model.loss)  # type: ignore[arg-type]
            network = Supervised(untrained(model), model.findings, loss=model.loss)  # type: ignore[arg-type]
            heads.append(rank_correlation(trained, _maps(head, images, map_method)))
            networks.append(rank_correlation(trained, _maps(network, images, map_method)))
    return Likeness(
        model.findings, _mean(heads), _mean(networks), len(images), draws, (trained.shape[2], trained.shape[3])
    )


def untrained(model: ModelSpec) -> Backbone:
    """The same network, with the weights that a training would begin with."""
    return Backbone(
        model.name, channels=model.channels, size=model.size, pool=model.pool, mean=model.mean, std=model.std,
        rgb_normalisation=model.rgb_normalisation,
    )  # fmt: skip


def _maps(method: Supervised, images: Tensor, map_method: MapMethod | None = None) -> np.ndarray:
    """(N, F, h, w), a few images at a time."""
    return np.concatenate(
        [gradcam.saliency_maps(method, part, map_method).maps.cpu().numpy() for part in images.split(4)]
    )


def rank_correlation(own: np.ndarray, other: np.ndarray) -> np.ndarray:
    """(N, F) Spearman's, over the cells of (N, F, h, w) maps. NaN where the first has no heat; 0 where only the other
    has none, since then nothing of the map is left."""
    first, second = (maps.reshape(-1, maps.shape[2] * maps.shape[3]) for maps in (own, other))
    ranks = [pd.DataFrame(one.T).rank().to_numpy().T for one in (first, second)]
    centred = [one - one.mean(1, keepdims=True) for one in ranks]
    spread = [np.sqrt((one**2).sum(1)) for one in centred]
    product = spread[0] * spread[1]
    found = np.divide((centred[0] * centred[1]).sum(1), product, out=np.zeros(len(first)), where=product > 0)
    return np.where(spread[0] > 0, found, np.nan).reshape(own.shape[:2])


def _mean(several: Sequence[np.ndarray]) -> np.ndarray:
    """(F,) over draws and images, of those that there are."""
    every = np.concatenate(several)
    known = ~np.isnan(every)
    count = known.sum(0)
    return np.divide(np.where(known, every, 0).sum(0), count, out=np.full(every.shape[1], np.nan), where=count > 0)
