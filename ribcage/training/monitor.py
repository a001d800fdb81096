"""Monitor of a pretraining: properties of the features that reveal a collapse.

The loss does not reveal it: it is lowest if all images have the same features. Two numbers, computed on a fixed sample
of images, do:

    rank = exp(-sum_i p_i log p_i),  p_i = s_i / sum_j s_j,  s the singular values of the centred features,
    feature_std = sqrt(D) mean_d std_n(x_nd / |x_n|):

the effective number of dimensions (Roy & Vetterli 2007, "The effective rank"), and the dispersion of the feature
directions, 0 if all are equal and 1 if they are uniform on the sphere. Both are needed: a cloud that shrinks to a point
keeps its rank, and one that collapses to a line keeps its dispersion. With labelled images there are two more, the mean
AUROC of a linear probe and of nearest neighbours, each with one fixed setting: they are comparable within a run, not
between runs.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from ribcage import metrics
from ribcage.data.collection import Datasets
from ribcage.methods import Method
from ribcage.runtime import distributed, rng
from ribcage.training import probe
from ribcage.training.probe import FeatureTable, LoaderOptions

RIDGE = 0.1
"""Regularisation of the linear probe, one of `probe.STRENGTHS`."""
NEIGHBOURS = 20
MIN_RANK, MIN_FEATURE_STD, MIN_SHARE = 2.0, 0.02, 0.05
"""A run has collapsed below these values, or below this share of the highest value so far. The feature_std of random
weights is 0.06 or more."""


@dataclass(frozen=True)
class Labelled:
    """Labelled images that the linear probe and the nearest neighbours are fitted to and tested on."""

    data: Datasets
    train: np.ndarray
    """Rows of `data`."""
    test: np.ndarray
    findings: Sequence[str] | None = None
    """None: all findings of the datasets."""


def labelled_images(folders: Sequence[str]) -> Labelled:
    """The training and validation splits of dataset folders."""
    opened = Datasets.open(folders)
    return Labelled(opened, opened.rows_of("train"), opened.rows_of("val"))


class Monitor:
    """Computes the properties of a method's features during training; call it for the current values.

    Only rank 0 computes them; the others return {} at once. The method is left unchanged.

    Args:
        method: returns the method in training.
        data, rows: the training images.
        size: (height, width) of the model's input.
        device: where the method is.
        labelled: images for the linear probe and the nearest neighbours.
        images: sample size, of training and of labelled images; the sample is fixed.
        channels, normalise, batch, threads: as for a Loader.
        dtype: in which the backbone computes.
    """

    def __init__(
        self,
        method: Callable[[], Method],
        data: Datasets,
        rows: np.ndarray,
        *,
        size: tuple[int, int],
        device: torch.device,
        labelled: Labelled | None = None,
        images: int = 2000,
        channels: int = 1,
        normalise: tuple[float, float] | None = None,
        batch: int = 64,
        threads: int | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        if images < 2:
            raise ValueError(f"Monitoring the features needs at least 2 images, not {images}.")
        self.method, self.data, self.rows = method, data, sample(rows, images)
        self.size, self.device, self.labelled, self.dtype = size, device, labelled, dtype
        if labelled is not None:
            self.train, self.test = sample(labelled.train, images), sample(labelled.test, images)
        self.loading: LoaderOptions = {"channels": channels, "normalise": normalise, "batch": batch, "threads": threads}
        self.found: list[dict[str, float]] = []
        """All values so far; a resumed run prepends those of its log."""

    def __call__(self) -> dict[str, float]:
        """rank, feature_std and, with labelled images, probe and knn; undefined values are left out."""
        if distributed.rank() > 0:
            return {}
        method = self.method()
        with unchanged_modes(method):
            features = self._part(method, self.data, self.rows, ()).features
            found = {"rank": effective_rank(features), "feature_std": feature_std(features)} | self._probed(method)
        self.found.append({name: value for name, value in found.items() if value == value})
        return self.found[-1]

    def warning(self) -> str:
        """One line if the last values indicate a collapse; else ""."""
        return warning(self.found)

    def warned(self, warn: Callable[[str], None]) -> Callable[[], dict[str, float]]:
        """This monitor, which also warns of a collapse."""

        def values() -> dict[str, float]:
            found = self()
            if text := self.warning():
                warn(text)
            return found

        return values

    def _probed(self, method: Method) -> dict[str, float]:
        """The mean AUROC of the linear probe and of nearest neighbours."""
        if self.labelled is None:
            return {}
        data, findings = self.labelled.data, self.labelled.findings
        train, test = (self._part(method, data, rows, findings) for rows in (self.train, self.test))
        none = test.take(np.arange(0))  # no setting is selected
        predicted = {
            "probe": probe.regressed(train, none, test, (RIDGE,))[0][1],
            "knn": probe.neighbours(train, none, test)[probe.NEIGHBOURS.index(NEIGHBOURS)][1],
        }
        defined = probe.two_classes(train.labels)
        aurocs = {name: metrics.auroc(each, test.labels) for name, each in predicted.items()}
        return {name: metrics.macro_mean(np.where(defined, each, np.nan)).mean for name, each in aurocs.items()}

    def _part(self, method: Method, data: Datasets, rows: np.ndarray, findings: Sequence[str] | None) -> FeatureTable:
        loader = probe.plain_loader(data, rows, self.size, findings, **self.loading)
        return probe.extract(method.backbone, loader, self.device, dtype=self.dtype)


def sample(rows: np.ndarray, count: int) -> np.ndarray:
    """A fixed random sample of at most `count` rows, in their order."""
    return rows[np.sort(rng.permutation(0, 0, len(rows))[:count])]


@contextmanager
def unchanged_modes(module: nn.Module) -> Iterator[None]:
    """Context manager: restore the training or evaluation mode of every submodule afterwards."""
    modes = {part: part.training for part in module.modules()}
    try:
        yield
    finally:
        for part, mode in modes.items():
            part.training = mode


# ---- properties of features


def effective_rank(features: np.ndarray) -> float:
    """exp of the entropy of the normalised singular values: D for an isotropic cloud, 1 on a line, 0 at a point."""
    x = features.astype(np.float64)
    values = np.linalg.svd(x - x.mean(0), compute_uv=False)
    values = values[values > np.finfo(np.float32).eps * np.linalg.norm(x)]  # the rest is float32 rounding error
    p = values / values.sum()
    return float(np.exp(-(p * np.log(p)).sum())) if len(p) else 0.0


def feature_std(features: np.ndarray) -> float:
    """Dispersion of the feature directions: 0 if all are equal, 1 if uniform on the sphere."""
    x = features.astype(np.float64)
    directions = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-300)
    return float(directions.std(0).mean() * np.sqrt(x.shape[1]))


def warning(found: Sequence[dict[str, float]]) -> str:
    """One line if the last of these values indicate a collapse; else ""."""
    wrong = []
    for name, least in (("rank", MIN_RANK), ("feature_std", MIN_FEATURE_STD)):
        values = [one[name] for one in found if name in one] or [np.inf]
        if values[-1] < least:
            wrong.append(f"{name} {values[-1]:.3g} is below {least:g}")
        elif values[-1] < MIN_SHARE * max(values):
            wrong.append(
                f"{name} {values[-1]:.3g} is below {100 * MIN_SHARE:g} % of its maximum in this run ({max(values):.3g})"
            )
    advice = "Try a lower --lr, a larger --batch, or another temperature or momentum."
    return f"The features have collapsed: {' and '.join(wrong)}. {advice}" if wrong else ""
