"""Sanity check of saliency maps: do they depend on the weights of the model?

Adebayo et al. 2018, https://arxiv.org/abs/1810.03292: the maps of the trained model are compared with those of the same
network with random weights, first in the last layer only, then in all layers. A map that does not change reflects the
image (its edges and bright regions), not the model.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ribcage.bundle.io import Classifier, build_backbone
from ribcage.bundle.spec import ModelSpec
from ribcage.inference import explanation, gradcam
from ribcage.inference.gradcam import MapMethod
from ribcage.methods.supervised import Supervised
from ribcage.models.backbone import Backbone

ALIKE = 0.8
"""Maps with at least this rank correlation are reported as independent of the model's weights."""


@dataclass(frozen=True)
class Likeness:
    """Similarity of the maps of a trained model to those of the same network with random weights: per finding the mean
    rank correlation over the cells of a map, 1 for the same order; NaN if no map of the finding has a positive
    value."""

    findings: tuple[str, ...]
    head: np.ndarray
    """(F,) with a random last layer."""
    network: np.ndarray
    """(F,) with random weights in all layers."""
    images: int
    draws: int
    grid: tuple[int, int] = (0, 0)
    """Cells of a map: (rows, columns)."""

    @property
    def known(self) -> bool:
        """Whether any map has a positive value to compare."""
        return not np.isnan(self.head).all()

    def independent_of_weights(self, most: float = ALIKE) -> tuple[str, ...]:
        """The findings whose maps keep at least this similarity with random weights."""
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
    """Compare the maps of these stored images with those of networks with random weights."""
    method, model = opened.network("be compared with a network of random weights (--check-maps)"), opened.spec
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
    """The same architecture with the initial weights of a training from scratch."""
    return build_backbone(model)


def _maps(method: Supervised, images: Tensor, map_method: MapMethod | None = None) -> np.ndarray:
    """(N, F, h, w), computed four images at a time."""
    return np.concatenate(
        [gradcam.saliency_maps(method, part, map_method).maps.cpu().numpy() for part in images.split(4)]
    )


def rank_correlation(own: np.ndarray, other: np.ndarray) -> np.ndarray:
    """(N, F) Spearman correlation over the cells of (N, F, h, w) maps. NaN where the first map is zero everywhere; 0
    where only the second is."""
    first, second = (maps.reshape(-1, maps.shape[2] * maps.shape[3]) for maps in (own, other))
    ranks = [pd.DataFrame(one.T).rank().to_numpy().T for one in (first, second)]
    centred = [one - one.mean(1, keepdims=True) for one in ranks]
    norm = [np.sqrt((one**2).sum(1)) for one in centred]
    product = norm[0] * norm[1]
    found = np.divide((centred[0] * centred[1]).sum(1), product, out=np.zeros(len(first)), where=product > 0)
    return np.where(norm[0] > 0, found, np.nan).reshape(own.shape[:2])


def _mean(several: Sequence[np.ndarray]) -> np.ndarray:
    """(F,) mean over draws and images, ignoring NaN."""
    every = np.concatenate(several)
    known = ~np.isnan(every)
    count = known.sum(0)
    return np.divide(np.where(known, every, 0).sum(0), count, out=np.full(every.shape[1], np.nan), where=count > 0)
