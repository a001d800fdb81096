"""Validation: what chooses the best model while it trains, and fits its temperature and thresholds."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch

from ribcage import distributed, evaluation, inference, metrics
from ribcage.bundle import Model
from ribcage.findings import Policy
from ribcage.loader import Loader
from ribcage.methods.supervised import Supervised
from ribcage.store import Store
from ribcage.views import plain

IGNORE = Policy()


class Validation:
    """A model on the pictures that choose among models: call it for the numbers of this moment."""

    def __init__(
        self,
        method: Callable[[], Supervised],
        stores: Sequence[Store],
        rows: np.ndarray,
        model: Model,
        *,
        device: torch.device,
        batch: int,
        policy: Policy = IGNORE,
        threads: int | None = None,
    ) -> None:
        self.method, self.stores, self.rows, self.model = method, tuple(stores), rows, model
        self.device, self.batch, self.threads = device, batch, threads
        self.labels = known_labels(stores, rows, model.findings, policy)
        self.found: dict[str, float] = {}
        self.logits = np.empty((0, len(model.findings)), np.float32)

    @property
    def judged(self) -> tuple[str, ...]:
        """The findings that are known to be present somewhere and absent somewhere."""
        both = (self.labels == 1).any(axis=0) & (self.labels == 0).any(axis=0)
        return tuple(name for name, can in zip(self.model.findings, both.tolist(), strict=True) if can)

    def __call__(self) -> dict[str, float]:
        """AUROC of every finding and their mean; undefined ones are left out. Every rank must call it."""
        predictions = inference.predict(
            self.method(),
            self.stores,
            self.rows,
            model=self.model,
            device=self.device,
            batch=self.batch,
            threads=self.threads,
        )
        if distributed.rank() > 0:
            return {}
        self.logits = predictions.logits
        scores = metrics.auroc(self.logits, self.labels)
        mean = metrics.macro(scores)
        named = {f"auroc_{name}": float(score) for name, score in zip(self.model.findings, scores, strict=True)}
        self.found = {"auroc": float(mean.mean), **{name: score for name, score in named.items() if score == score}}
        return self.found

    def calibrated(self) -> Model:
        """The model's facts with temperature and thresholds fitted to the last answers, and what it scored."""
        exclusive = self.model.loss == "cross-entropy"
        temperature, thresholds = evaluation.fit_on_validation(self.logits, self.labels, exclusive=exclusive)
        return replace(self.model, temperature=temperature, thresholds=thresholds, metrics={"validation": self.found})


def known_labels(
    stores: Sequence[Store], rows: np.ndarray, findings: Sequence[str], policy: Policy = IGNORE
) -> np.ndarray:
    """(N, F) labels 1, 0 and NaN under the policy the model learns by, without its smoothing."""
    shown = Loader(stores, [plain(32)], rows=rows, findings=findings, policy=policy.settled, threads=1)
    return shown.labels(0, rows)
