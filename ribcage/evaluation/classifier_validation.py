"""Validation of a classifier during training: its scores, and its temperatures and thresholds."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from ribcage import metrics
from ribcage.bundle.spec import EXCLUSIVE, ModelSpec
from ribcage.data.collection import Datasets
from ribcage.data.label_policy import IGNORE, Policy
from ribcage.evaluation.calibration import class_numbers, fit_on_validation
from ribcage.evaluation.labelled import patient_names
from ribcage.evaluation.validation import DIVERGED
from ribcage.inference import predictions as inference
from ribcage.metrics.reliability import finding_reliability
from ribcage.models.logit_model import LogitModel
from ribcage.runtime import distributed


class ClassifierValidation:
    """`Validation` of a classifier."""

    def __init__(
        self,
        method: Callable[[], LogitModel],
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
        self.policy = policy
        self.labels = data.known_labels(rows, model.findings, policy)
        self.patients = patient_names(inference.row_context(data, rows))
        self.scores: dict[str, float] = {}
        self.logits = np.empty((0, len(model.findings)), np.float32)

    @property
    def judged(self) -> tuple[str, ...]:
        """The findings with positive and negative validation images."""
        both = (self.labels == 1).any(axis=0) & (self.labels == 0).any(axis=0)
        return tuple(name for name, can in zip(self.model.findings, both.tolist(), strict=True) if can)

    def __call__(self) -> dict[str, float]:
        """AUROC of every finding, their mean, and the loss; undefined values are left out. All ranks must call it."""
        predictions = inference.predict(
            self.method(),
            self.data,
            self.rows,
            model=self.model,
            device=self.device,
            batch=self.batch,
            threads=self.threads,
        )  # in float32, like the predictions to which the thresholds will be applied
        if distributed.rank() > 0:
            return {}
        self.logits = predictions.logits
        if not np.isfinite(self.logits).all():
            raise ValueError(DIVERGED)
        scores = metrics.auroc(self.logits, self.labels)
        mean = metrics.macro_mean(scores)
        named = {f"auroc_{name}": float(score) for name, score in zip(self.model.findings, scores, strict=True)}
        defined = {name: score for name, score in named.items() if score == score}
        self.scores = {"auroc": float(mean.mean), **defined, "loss": self.loss()}
        return self.scores

    def loss(self) -> float:
        """Mean negative log-likelihood of the known labels, before temperature scaling. It breaks ties between epochs
        with the same AUROC."""
        logits = self.logits.astype(np.float64)
        if self.model.loss == EXCLUSIVE:
            chosen = class_numbers(self.labels)
            rows = np.flatnonzero(~np.isnan(chosen))
            return float((np.logaddexp.reduce(logits, axis=1)[rows] - logits[rows, chosen[rows].astype(int)]).mean())
        return float(np.nanmean(np.logaddexp(0, logits) - self.labels * logits))

    def chosen_spec(self) -> ModelSpec:
        """The spec with the temperatures, thresholds, scores and reliability of the last predictions."""
        exclusive = self.model.loss == EXCLUSIVE
        temperature, thresholds = fit_on_validation(self.logits, self.labels, exclusive=exclusive)
        probabilities = inference.Predictions(self.model.findings, self.rows, self.logits, exclusive).probabilities(
            temperature
        )
        reliability = finding_reliability(probabilities, self.labels, self.patients)
        return replace(
            self.model,
            temperature=temperature,
            thresholds=thresholds,
            metrics={"validation": self.scores},
            reliability=reliability,
        )


def check_exclusive(labels: np.ndarray) -> None:
    """Raise ValueError unless each image with known labels has exactly one positive finding."""
    present, known = (labels > 0.5).sum(axis=1), ~np.isnan(labels).any(axis=1)
    several, none = int((present > 1).sum()), int((known & (present == 0)).sum())
    if several or none or not known.any():
        raise ValueError(
            f"--loss cross-entropy needs exactly one positive finding per image, but of {len(labels):,} images, "
            f"{several:,} have several positive findings, {none:,} have none, and {int(known.sum()):,} have known "
            "labels for all findings. Use --loss bce or other --findings."
        )
