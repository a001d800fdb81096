"""Stored teachers: predictions made once for each image, by a model or read from a table."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ribcage.bundle.io import Classifier
from ribcage.data.batch import Batch
from ribcage.data.collection import Datasets
from ribcage.inference import predictions
from ribcage.methods.distil import TeacherOutput
from ribcage.runtime import distributed
from ribcage.runtime.devices import on_device
from ribcage.training.teachers.live import calibrated_logits


class StoredTeacher:
    """Stored logits of images, by their rows."""

    dim = 0

    def __init__(self, logits: np.ndarray, weight: Tensor, device: torch.device | None = None) -> None:
        self.logits, self.weight = logits, weight.to(device)

    def __call__(self, batch: Batch, views: list[Tensor], inside: bool) -> TeacherOutput:
        """The stored logits of the images of a batch."""
        return TeacherOutput(on_device(self.logits[batch.rows.numpy()], batch.labels.device))


def predicted_logits(
    opened: Classifier,
    data: Datasets,
    rows: np.ndarray,
    findings: Sequence[str],
    *,
    exclusive: bool = False,
    device: torch.device | None = None,
    batch: int = 64,
    threads: int | None = None,
    dtype: torch.dtype = torch.float32,
) -> np.ndarray:
    """(all rows, F): calibrated logits of a classifier on images without augmentation; NaN for other rows. All ranks
    must call it."""
    found = predictions.predict(
        opened.method, data, rows, model=opened.spec, label="predict",
        device=device or torch.device("cpu"), batch=batch, threads=threads, dtype=dtype,
    )  # fmt: skip
    model = opened.spec
    own = [place for place, name in enumerate(model.findings) if name in findings]
    if not np.isfinite(found.logits[:, own]).all():
        raise ValueError(
            f"The predictions of {opened.folder} contain NaN or infinity: its weights are damaged, or its training "
            f"diverged."
        )
    logits = np.full((data.total, len(findings)), np.nan, np.float32)
    for place, name in enumerate(model.findings):
        if name in findings and len(found.rows):
            own_logits = calibrated_logits(torch.from_numpy(found.logits), model, exclusive)
            logits[found.rows, list(findings).index(name)] = own_logits[:, place].numpy()
    return np.asarray(distributed.broadcast_from_first(logits))


def count_predicted(logits: np.ndarray, rows: np.ndarray) -> int:
    """How many of these rows have predictions."""
    return int((~np.isnan(logits[rows])).any(axis=1).sum())
