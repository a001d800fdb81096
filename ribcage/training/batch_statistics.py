"""Batch statistics: the running means and variances of batch norms, recomputed for given weights.

Needed after weights were averaged (Izmailov et al. 2018, https://arxiv.org/abs/1803.05407, section 3.2).
"""

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
    batch: int
    device: torch.device
    threads: int | None = None

    @property
    def drawn(self) -> np.ndarray:
        """The rows that are used: whole batches, or all if they are fewer than a batch."""
        count = min(len(self.rows), MOST)
        count = count - count % self.batch if count > self.batch else count
        return np.sort(np.random.default_rng(0).permutation(self.rows)[:count])


def training_view(spec: ModelSpec) -> augment.View:
    """The augmentation of the training of this model: statistics of images without it differ from those of training."""
    name = spec.training.option("augment")
    preset = augment.PRESETS[name if isinstance(name, str) and name in augment.PRESETS else "gentle"]
    return preset(spec.size)


@torch.no_grad()
def recompute_statistics(method: Supervised, images: StatisticsImages) -> None:
    """Set the statistics of all batch norms to their mean over batches of equal size."""
    norms = batch_norms(method)
    if not norms:
        return
    spec, rows = images.spec, images.drawn
    loader = Loader(
        images.data, [training_view(spec)], batch=min(images.batch, len(rows)), rows=rows, findings=(),
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
