"""Predictions: a classifier and rows of dataset folders → logits, and the metadata of these images."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 – the usual name

from ribcage.bundle.spec import ModelSpec
from ribcage.data.batch import Batch
from ribcage.data.collection import Datasets
from ribcage.data.loader import Loader
from ribcage.imaging import augment
from ribcage.inference.forward_pass import batch_outputs, evaluation_mode, rows_of_process
from ribcage.inference.prediction_table import IMAGE_COLUMNS
from ribcage.metrics import multiclass, sigmoid
from ribcage.models.logit_model import LogitModel
from ribcage.runtime import distributed
from ribcage.runtime.devices import autocast


@dataclass(frozen=True)
class Predictions:
    """Logits of a classifier for some images."""

    findings: tuple[str, ...]
    rows: np.ndarray
    """(N,) int64, ascending rows of the `Datasets`."""
    logits: np.ndarray
    """(N, F) float32, before temperature scaling."""
    exclusive: bool = False
    """Whether the findings are mutually exclusive: softmax over all of them instead of one sigmoid per finding."""

    def probabilities(self, temperature: Sequence[float] = ()) -> np.ndarray:
        """(N, F) float64: probabilities of the logits divided by each finding's temperature."""
        logits = self.logits.astype(np.float64) / (np.array(temperature) if len(temperature) else 1.0)
        return multiclass.softmax(logits) if self.exclusive else sigmoid(logits)

    def log_odds(self) -> np.ndarray:
        """(N, F) float64: log(p / (1 - p)), before temperature scaling."""
        if not self.exclusive:
            return self.logits.astype(np.float64)
        wide = torch.from_numpy(self.logits).double()
        others = torch.stack(
            [wide[:, [k for k in range(wide.shape[1]) if k != f]].logsumexp(1) for f in range(wide.shape[1])], 1
        )
        return (wide - others).numpy()


def predict(
    method: LogitModel,
    data: Datasets,
    rows: np.ndarray,
    *,
    model: ModelSpec,
    device: torch.device | str = "cpu",
    batch: int = 64,
    threads: int | None = None,
    ten_crop: bool = False,
    dtype: torch.dtype = torch.float32,
    label: str = "",
) -> Predictions:
    """Predict these rows. With several processes, rank 0 returns all predictions and the others return none.

    batch: batch size per process. The rows are split into batches before the batches are split among processes, so
    results are identical to the last bit for any number of processes.
    ten_crop: mean probability over ten views of each image.
    label: of the progress line; "" shows none.
    """
    rows = np.unique(np.asarray(rows, np.int64))
    if not len(rows):
        raise ValueError("No images are selected, so there is nothing to predict.")
    mine, exclusive = rows_of_process(rows, batch), model.loss == "cross-entropy"
    seen = augment.ten_crops(model.size) if ten_crop else [augment.plain_view(model.size)]
    parts = [np.empty((0, len(model.findings)), np.float32)]
    if len(mine):
        loader = Loader(
            data, seen, batch=batch, rows=mine, findings=(), shuffle=False, threads=threads,
            channels=model.channels, normalise=(model.mean, model.std), device=device, prefetch=1 if ten_crop else 2,
        )  # fmt: skip
        shown = label if distributed.rank() == 0 else ""
        parts += list(_logits(method, loader, torch.device(device), joint(exclusive), dtype, shown))
    gathered = distributed.gathered((mine, np.concatenate(parts)))
    if not gathered:
        return Predictions(model.findings, np.empty(0, np.int64), parts[0], exclusive)
    return Predictions(
        model.findings,
        np.concatenate([theirs for theirs, _ in gathered]),
        np.concatenate([logits for _, logits in gathered]),
        exclusive,
    )


def _logits(
    method: LogitModel,
    loader: Loader,
    device: torch.device,
    joint: Callable[[Tensor], Tensor],
    dtype: torch.dtype,
    label: str,
) -> Iterator[np.ndarray]:
    """(n, F) for each batch."""

    def compute(batch: Batch) -> np.ndarray:
        return joint(_of_views(method, batch, device, dtype)).cpu().numpy()

    with evaluation_mode(method):
        yield from batch_outputs(loader, compute, label)


def _of_views(method: LogitModel, batch: Batch, device: torch.device, dtype: torch.dtype) -> Tensor:
    """(views, n, F) float32; one view at a time, so that ten views need no more memory than one."""
    with autocast(device, dtype):
        shown = (view.to(device, memory_format=torch.channels_last) for view in batch.views)
        return torch.stack([method.logits(view).float() for view in shown])


def joint(exclusive: bool) -> Callable[[Tensor], Tensor]:
    """A function: (views, n, F) logits → (n, F) logits of the mean probability."""

    def of_softmax(logits: Tensor) -> Tensor:
        return logits[0] if len(logits) == 1 else logits.double().log_softmax(2).logsumexp(0).float()

    def of_sigmoids(logits: Tensor) -> Tensor:
        if len(logits) == 1:
            return logits[0]
        wide = logits.double()  # log(mean p) - log(mean(1 - p)); the number of views cancels
        return (F.logsigmoid(wide).logsumexp(0) - F.logsigmoid(-wide).logsumexp(0)).float()

    return of_softmax if exclusive else of_sigmoids


# ---- metadata of the images


def row_context(data: Datasets, rows: np.ndarray) -> pd.DataFrame:
    """Dataset, row, path, patient, split, view, sex, age and, where a dataset has it, hospital of these rows."""
    parts = []
    for dataset, own in zip(data, data.own_rows(rows), strict=True):
        table = dataset.index.table.iloc[own]
        kept = table[[column for column in IMAGE_COLUMNS if column in table]].reset_index(drop=True)
        parts.append(kept.assign(set=dataset.index.name, row=own))
    joined = pd.concat(parts, ignore_index=True)
    return joined[[column for column in IMAGE_COLUMNS if column in joined]]
