"""Weights of several teachers, by their validation AUROC."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ribcage import metrics
from ribcage.bundle.spec import ModelSpec
from ribcage.data.collection import Datasets
from ribcage.data.label_policy import IGNORE, Policy

Weigh = Literal["mean", "auroc"]


def validation_aurocs(model: ModelSpec, findings: Sequence[str]) -> np.ndarray:
    """(F,) the validation AUROC in the spec of a model; NaN where it has none."""
    scores = model.metrics.get("validation", {})
    return np.array([scores.get(f"auroc_{name}", np.nan) for name in findings], np.float64)


def stored_aurocs(
    logits: np.ndarray, data: Datasets, rows: np.ndarray, findings: Sequence[str], policy: Policy = IGNORE
) -> np.ndarray:
    """(F,) the AUROC of stored logits on these rows."""
    there = rows[~np.isnan(logits[rows]).all(axis=1)]
    if not len(there):
        return np.full(len(findings), np.nan)
    labels = np.where(np.isnan(logits[there]), np.nan, data.known_labels(there, findings, policy))
    return np.asarray(metrics.auroc(np.nan_to_num(logits[there]), labels), np.float64)


def teacher_weights(aurocs: Sequence[np.ndarray], weigh: Weigh) -> list[Tensor]:
    """(F,) for each teacher: 1, or its validation AUROC above 0.5. An unknown AUROC is replaced by the mean of the
    other teachers'; where none is above 0.5, all weights are equal."""
    scores = np.stack(aurocs)  # (K, F)
    known = ~np.isnan(scores)
    above = np.clip(np.nan_to_num(scores, nan=0.5) - 0.5, 0, None)
    above = np.where(known, above, above.sum(axis=0) / known.sum(axis=0).clip(min=1))
    above[:, above.sum(axis=0) == 0] = 1.0
    chosen = above if weigh == "auroc" else np.ones_like(above)
    return [torch.from_numpy(one.astype(np.float32)) for one in chosen]
