"""Validation: what chooses the best model while it trains, and fits its temperature and thresholds."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from ribcage import metrics
from ribcage.bundle.spec import EXCLUSIVE, ModelSpec
from ribcage.data.collection import Datasets
from ribcage.data.findings import IGNORE, Policy
from ribcage.evaluation.calibration import class_numbers, fit_on_validation
from ribcage.evaluation.labelled import patient_names
from ribcage.inference import predictions as inference
from ribcage.methods.supervised import Supervised
from ribcage.metrics.reliability import finding_reliability
from ribcage.runtime import distributed

DIVERGED = "The model's answers to the validation images are not finite: it has diverged. Try a lower --lr or --clip 1."


class Validation:
    """A model on the images that choose among models: call it for the numbers of this moment."""

    def __init__(
        self,
        method: Callable[[], Supervised],
        data: Datasets,
        rows: np.ndarray,
        model: ModelSpec,
        *,
        device: torch.device,
        batch: int,
        policy: Policy = IGNORE,
        threads: int | None = None,
    ) -> None:
        self.method, self.data, self.rows, self.model = method, data, rows, model
        self.device, self.batch, self.threads = device, batch, threads
        self.labels = data.known_labels(rows, model.findings, policy)
        self.patients = patient_names(inference.about(data, rows))
        self.found: dict[str, float] = {}
        self.logits = np.empty((0, len(model.findings)), np.float32)

    @property
    def judged(self) -> tuple[str, ...]:
        """The findings that are known to be present somewhere and absent somewhere."""
        both = (self.labels == 1).any(axis=0) & (self.labels == 0).any(axis=0)
        return tuple(name for name, can in zip(self.model.findings, both.tolist(), strict=True) if can)

    def __call__(self) -> dict[str, float]:
        """AUROC of every finding, their mean, and the loss; undefined ones are left out. Every rank must call it."""
        predictions = inference.predict(
            self.method(),
            self.data,
            self.rows,
            model=self.model,
            device=self.device,
            batch=self.batch,
            threads=self.threads,
        )
        if distributed.rank() > 0:
            return {}
        self.logits = predictions.logits
        if not np.isfinite(self.logits).all():
            raise ValueError(DIVERGED)
        scores = metrics.auroc(self.logits, self.labels)
        mean = metrics.macro_mean(scores)
        named = {f"auroc_{name}": float(score) for name, score in zip(self.model.findings, scores, strict=True)}
        defined = {name: score for name, score in named.items() if score == score}
        self.found = {"auroc": float(mean.mean), **defined, "loss": self.loss()}
        return self.found

    def loss(self) -> float:
        """The mean over all known labels of -log p, as the model said it: of two models that rank alike, the one that
        is surer of what is right is better."""
        logits = self.logits.astype(np.float64)
        if self.model.loss == EXCLUSIVE:
            chosen = class_numbers(self.labels)
            rows = np.flatnonzero(~np.isnan(chosen))
            return float((np.logaddexp.reduce(logits, axis=1)[rows] - logits[rows, chosen[rows].astype(int)]).mean())
        return float(np.nanmean(np.logaddexp(0, logits) - self.labels * logits))

    def calibrated(self) -> ModelSpec:
        """The model's facts with temperature and thresholds fitted to the last answers, and what it scored."""
        exclusive = self.model.loss == "cross-entropy"
        temperature, thresholds = fit_on_validation(self.logits, self.labels, exclusive=exclusive)
        said = inference.Predictions(self.model.findings, self.rows, self.logits, exclusive).probabilities(temperature)
        fared = finding_reliability(said, self.labels, self.patients)
        found = {"validation": self.found}
        return replace(self.model, temperature=temperature, thresholds=thresholds, metrics=found, reliability=fared)


def check_exclusive(labels: np.ndarray) -> None:
    """Raise where findings were said to exclude each other and do not; unknown labels (NaN) may be anything."""
    present, known = (labels > 0.5).sum(axis=1), ~np.isnan(labels).any(axis=1)
    several, none = int((present > 1).sum()), int((known & (present == 0)).sum())
    if several or none or not known.any():
        raise ValueError(
            f"--loss cross-entropy needs exactly one finding per image: of {len(labels):,} images "
            f"{several:,} have several, {none:,} none, and {int(known.sum()):,} are known in full. "
            "Take --loss bce, or other --findings."
        )
