"""Batch statistics: the running means and variances of batch norms, recomputed for given weights.

Needed after weights were averaged (Izmailov et al. 2018, https://arxiv.org/abs/1803.05407, section 3.2).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ribcage.bundle.blend import batch_norms
from ribcage.bundle.spec import ModelSpec
from ribcage.data.collection import Datasets
from ribcage.data.loader import Loader
from ribcage.imaging import augment
from ribcage.methods.supervised import Supervised

MOST = 4096
"""Maximum number of images, which are drawn at random; each gives statistics at all positions of a map."""


@dataclass(frozen=True)
class StatisticsImages:
    """The training images on which statistics are computed."""

    data: Datasets
    rows: np.ndarray
    spec: ModelSpec
    view: augment.View
    batch: int
    device: torch.device
    threads: int | None = None

    @property
    def drawn(self) -> np.ndarray:
        """The rows that are used: whole batches, or all if they are fewer than a batch."""
        count = min(len(self.rows), MOST)
        count = count - count % self.batch if count > self.batch else count
        return np.sort(np.random.default_rng(0).permutation(self.rows)[:count])


@dataclass(frozen=True)
class Augmentation:
    """An augmentation as the options of a training give it."""

    preset: str
    changes: tuple[str, ...] = ()

    def view(self, size: tuple[int, int]) -> augment.View:
        """The settings for images of this size; ValueError if a change is invalid."""
        (found,) = augment.preset_views(self.preset, self.changes)(size)
        return found

    def __str__(self) -> str:
        return self.preset + f" ({' '.join(self.changes)})" * bool(self.changes)


UNKNOWN = Augmentation("plain")
"""For models whose augmentation is not recorded: the images as they are at inference."""


def training_augmentation(spec: ModelSpec) -> Augmentation | None:
    """The augmentation of the training of a model, or of the statistics of a blend; None if it is not recorded, as for
    converted models."""
    name, changes = spec.training.option("augment"), spec.training.option("augment_options", [])
    if blended := spec.training.blend:
        name, changes = blended.augment, blended.augment_options
    if not (isinstance(name, str) and name in augment.PRESETS and isinstance(changes, list | tuple)):
        return None
    found = Augmentation(name, tuple(map(str, changes)))
    try:
        found.view(spec.size)
    except ValueError:  # a file from outside
        return None
    return found


def common_augmentation(specs: Sequence[ModelSpec]) -> tuple[Augmentation, str]:
    """The augmentation of the training of these models, and a sentence on the choice unless it is the same for all."""
    every = [training_augmentation(one) for one in specs]
    known = [one for one in every if one]
    if not known:
        return UNKNOWN, "The augmentation that the models were trained with is not recorded."
    if all(one == known[0] for one in every):
        return known[0], ""
    return known[0], "The models were not all trained with the same augmentation, or it is not recorded for all."


@torch.no_grad()
def recompute_statistics(method: Supervised, images: StatisticsImages) -> None:
    """Set the statistics of all batch norms to their mean over batches of equal size."""
    norms = batch_norms(method)
    if not norms:
        return
    spec, rows = images.spec, images.drawn
    loader = Loader(
        images.data, [images.view], batch=min(images.batch, len(rows)), rows=rows, findings=(),
        channels=spec.channels, normalise=(spec.mean, spec.std), threads=images.threads, device=images.device,
    )  # fmt: skip
    momenta = [one.momentum for one in norms]
    method.eval().to(images.device)
    for one in norms:
        one.reset_running_stats()
        one.momentum = None  # the mean over all batches
        one.train()
    for batch in loader.epoch(0):
        method.backbone(batch.views[0].to(images.device))
    for one, momentum in zip(norms, momenta, strict=True):
        one.momentum = momentum
        one.eval()
