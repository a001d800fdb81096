"""Monitor: what becomes of the features while a method without labels learns, so that a run that collapses is seen.

The loss does not tell: it is smallest where all images look alike. Two numbers of a fixed sample of the images do,

    rank = exp(-sum_i p_i log p_i),  p_i = s_i / sum_j s_j,  s the singular values of the centred features,
    feature_std = sqrt(D) mean_d std_n(x_nd / |x_n|):

how many directions the features use (Roy & Vetterli 2007, "The effective rank"), and how far apart images are, from 0
where all are alike to 1 where they are scattered over the sphere. Both are needed: a cloud that shrinks to a point
keeps its rank, one that becomes a line keeps its spread. Labelled images add two more, the mean AUROC of a linear
probe and of nearest neighbours, each with one setting: they compare moments of one run, not one run with another.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ribcage import metrics
from ribcage.data.collection import Datasets
from ribcage.methods import Method
from ribcage.runtime import distributed, files, rng
from ribcage.training import probe
from ribcage.training.probe import FeatureTable

RIDGE = 0.1
"""Of the linear probe; `probing.STRENGTHS` has those to choose from."""
NEIGHBOURS = 20
MIN_RANK, MIN_FEATURE_STD, MIN_SHARE = 2.0, 0.02, 0.05
"""Below these, or below this share of the highest so far, a run has collapsed. Random weights spread by .06 or more."""


@dataclass(frozen=True)
class Labelled:
    """Labelled images: some to learn from, others to be asked about."""

    data: Datasets
    train: np.ndarray
    """Rows of `data`."""
    test: np.ndarray
    findings: Sequence[str] | None = None
    """None: all that the sets have."""


class Monitor:
    """A method in training, seen from outside: call it for the numbers of this moment.

    Only rank 0 looks; the others answer with nothing, at once. The method is left as it was.

    Args:
        method: gives what learns.
        data, rows: the training images.
        size: (height, width) that the model sees.
        device: where it is.
        labelled: images to try the features on.
        images: how many are looked at, of each kind; always the same ones.
        channels, normalise, batch, threads: as for a Loader.
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
    ) -> None:
        if images < 2:
            raise ValueError(f"A monitor needs 2 images or more, not {images}.")
        self.method, self.data, self.rows = method, data, sample(rows, images)
        self.size, self.device, self.labelled = size, device, labelled
        if labelled is not None:
            self.train, self.test = sample(labelled.train, images), sample(labelled.test, images)
        self.loading = {"channels": channels, "normalise": normalise, "batch": batch, "threads": threads}
        self.found: list[dict[str, float]] = []
        """The numbers of every moment; a resumed run puts those of `before` in front."""

    def __call__(self) -> dict[str, float]:
        """rank, spread and, of labelled images, probe and knn; what is undefined is left out."""
        if distributed.rank() > 0:
            return {}
        method = self.method()
        with left_as_it_was(method):
            features = self._part(method, self.data, self.rows, ()).features
            found = {"rank": effective_rank(features), "feature_std": feature_std(features)} | self._probed(method)
        self.found.append({name: value for name, value in found.items() if value == value})
        return self.found[-1]

    def warning(self) -> str:
        """One line when the last numbers are those of a collapsed run; else nothing."""
        return warning(self.found)

    def _probed(self, method: Method) -> dict[str, float]:
        """The mean AUROC of both readers."""
        if self.labelled is None:
            return {}
        data, findings = self.labelled.data, self.labelled.findings
        train, test = (self._part(method, data, rows, findings) for rows in (self.train, self.test))
        nobody = test.take(np.arange(0))  # nothing is chosen
        predicted = {
            "probe": probe.regressed(train, nobody, test, (RIDGE,))[0][1],
            "knn": probe.neighbours(train, nobody, test)[probe.NEIGHBOURS.index(NEIGHBOURS)][1],
        }
        defined = probe.two_classes(train.labels)
        aurocs = {name: metrics.auroc(each, test.labels) for name, each in predicted.items()}
        return {name: metrics.macro_mean(np.where(defined, each, np.nan)).mean for name, each in aurocs.items()}

    def _part(self, method: Method, data: Datasets, rows: np.ndarray, findings: Sequence[str] | None) -> FeatureTable:
        loader = probe.plain_loader(data, rows, self.size, findings, **self.loading)
        return probe.extract(method.backbone, loader, self.device)


def sample(rows: np.ndarray, count: int) -> np.ndarray:
    """At most so many of the rows, drawn once and for all, in their own order."""
    return rows[np.sort(rng.permutation(0, 0, len(rows))[:count])]


@contextmanager
def left_as_it_was(module: nn.Module) -> Iterator[None]:
    """Afterwards every part is in the mode it was in: a frozen part of a model in training is in evaluation mode."""
    modes = {part: part.training for part in module.modules()}
    try:
        yield
    finally:
        for part, mode in modes.items():
            part.training = mode


# ---- the numbers


def effective_rank(features: np.ndarray) -> float:
    """exp of the entropy of the singular values: D where all directions are used alike, 1 on a line, 0 at a point."""
    x = features.astype(np.float64)
    values = np.linalg.svd(x - x.mean(0), compute_uv=False)
    values = values[values > np.finfo(np.float32).eps * np.linalg.norm(x)]  # the rest is what float32 rounded
    p = values / values.sum()
    return float(np.exp(-(p * np.log(p)).sum())) if len(p) else 0.0


def feature_std(features: np.ndarray) -> float:
    """How far apart images are in direction: 0 all alike, 1 scattered."""
    x = features.astype(np.float64)
    directions = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-300)
    return float(directions.std(0).mean() * np.sqrt(x.shape[1]))


def warning(found: Sequence[dict[str, float]]) -> str:
    """What is to be said of the last of these numbers, if they are those of a collapsed run."""
    wrong = []
    for name, least in (("rank", MIN_RANK), ("feature_std", MIN_FEATURE_STD)):
        values = [one[name] for one in found if name in one] or [np.inf]
        if values[-1] < least:
            wrong.append(f"{name} {values[-1]:.3g} is below {least:g}")
        elif values[-1] < MIN_SHARE * max(values):
            wrong.append(f"{name} {values[-1]:.3g} is below {100 * MIN_SHARE:g} % of what it was ({max(values):.3g})")
    advice = "Try a lower --lr, a larger --batch, or another temperature or momentum."
    return f"The features have collapsed: {' and '.join(wrong)}. {advice}" if wrong else ""


def before(log: Path) -> list[dict[str, float]]:
    """What a monitor found earlier in a run, from its metrics.jsonl."""
    return [line["validation"] for line in logged(log) if "validation" in line]


def logged(log: Path) -> list[dict[str, Any]]:
    """The lines of a metrics.jsonl; one that was cut short is left out."""
    lines = []
    for text in files.regular(log).read_text(encoding="utf-8", errors="replace").splitlines() if log.exists() else ():
        try:
            line = json.loads(text)
        except (ValueError, RecursionError):
            continue
        lines += [line] if isinstance(line, dict) else []
    return lines
