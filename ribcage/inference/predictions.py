"""Predictions: a classifier and rows of dataset folders → logits, and the table of predictions.

The table has one row per image: `set`, `row` (in that dataset), `path`, `patient`, `split`, `view`, `sex`, `age`, and
for every finding three columns: `Mass` is the calibrated probability, `Mass_logit` the log-odds before temperature
scaling, and `Mass_label` the label: 1, 0, or empty if unknown.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

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
from ribcage.methods.supervised import Supervised
from ribcage.metrics import multiclass, sigmoid
from ribcage.runtime import distributed, files, parquet, spreadsheet

if TYPE_CHECKING:
    import pyarrow as pa

ABOUT = ("set", "row", "path", "patient", "split", "view", "sex", "age", "hospital")
TEXTS = ("set", "path", "patient", "split", "view", "sex", "hospital")
LOGIT, LABEL = "_logit", "_label"


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
    method: Supervised,
    data: Datasets,
    rows: np.ndarray,
    *,
    model: ModelSpec,
    device: torch.device | str = "cpu",
    batch: int = 64,
    threads: int | None = None,
    ten_crop: bool = False,
    bf16: bool = False,
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
        raise ValueError("No row was selected: there is no image to predict.")
    mine, exclusive = rows_of_process(rows, batch), model.loss == "cross-entropy"
    seen = augment.ten_crops(model.size) if ten_crop else [augment.plain_view(model.size)]
    parts = [np.empty((0, len(model.findings)), np.float32)]
    if len(mine):
        loader = Loader(
            data, seen, batch=batch, rows=mine, findings=(), shuffle=False, threads=threads,
            channels=model.channels, normalise=(model.mean, model.std), device=device, prefetch=1 if ten_crop else 2,
        )  # fmt: skip
        shown = label if distributed.rank() == 0 else ""
        parts += list(_logits(method, loader, torch.device(device), joint(exclusive), bf16, shown))
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
    method: Supervised, loader: Loader, device: torch.device, joint: Callable[[Tensor], Tensor], bf16: bool, label: str
) -> Iterator[np.ndarray]:
    """(n, F) for each batch."""

    def compute(batch: Batch) -> np.ndarray:
        return joint(_of_views(method, batch, device, bf16)).cpu().numpy()

    with evaluation_mode(method):
        yield from batch_outputs(loader, compute, label)


def _of_views(method: Supervised, batch: Batch, device: torch.device, bf16: bool) -> Tensor:
    """(views, n, F) float32; one view at a time, so that ten views need no more memory than one."""
    with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
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
        kept = table[[column for column in ABOUT if column in table]].reset_index(drop=True)
        parts.append(kept.assign(set=dataset.index.name, row=own))
    joined = pd.concat(parts, ignore_index=True)
    return joined[[column for column in ABOUT if column in joined]]


# ---- the table


def prediction_table(
    about: pd.DataFrame, findings: Sequence[str], probabilities: np.ndarray, log_odds: np.ndarray, labels: np.ndarray
) -> pd.DataFrame:
    """The table of predictions from the metadata of the images and (N, F) arrays."""
    scores = {name: probabilities[:, place] for place, name in enumerate(findings)}
    before = {name + LOGIT: log_odds[:, place].astype(np.float32) for place, name in enumerate(findings)}
    known = {name + LABEL: labels[:, place].astype(np.float32) for place, name in enumerate(findings)}
    return pd.concat([about, pd.DataFrame(scores | before | known, index=about.index)], axis=1)


def save_predictions(table: pd.DataFrame, file: Path) -> None:
    """Write a table atomically: as CSV if the file's suffix is .csv, else as Parquet."""
    with files.explained(file.parent, "Free some."), files.atomic(file) as part:
        if file.suffix == ".csv":
            spreadsheet.write_csv(table, part)
        else:
            table.to_parquet(part, index=False)


def read_predictions(file: Path) -> pd.DataFrame:
    """Read a table of predictions; ValueError says in one line why it cannot be read."""
    import pyarrow as pa

    try:
        rows = pd.read_csv(file, keep_default_na=False, na_values={}) if ".csv" in file.suffixes else None
        table = _texts(parquet.read_parquet(file)) if rows is None else _typed(spreadsheet.unescaped_table(rows))
    except parquet.UnreadableTableError as error:
        raise ValueError(f"{file} cannot be read as a table of predictions ({error}).") from None
    except (ValueError, pa.ArrowException, UnicodeError) as error:
        raise ValueError(f"{file} cannot be read as a table of predictions ({type(error).__name__}).") from None
    missing = [name for name in ("set", "path", "patient") if name not in table]
    if missing or not findings_of_table(table):
        lacks = missing or ["a finding with its _label column"]
        raise ValueError(f"{file} is not a table of predictions: it has no {', no '.join(lacks)}.")
    if not len(table):
        raise ValueError(f"{file} is an empty table of predictions: it has no row.")
    if wrong := _strange(table):
        raise ValueError(
            f"{file} holds {', '.join(wrong)}. Scores must be probabilities from 0 to 1, labels 1, 0 or blank."
        )
    return table


def findings_of_table(table: pd.DataFrame) -> tuple[str, ...]:
    """The findings of a table: columns X that have a column X_label beside them."""
    return tuple(str(name) for name in table if f"{name}{LABEL}" in table)


def _strange(table: pd.DataFrame) -> list[str]:
    """The first invalid cell of each score and label column, as "'text' in Mass, row 3"."""
    found = []
    for name in findings_of_table(table):
        score, label = (pd.to_numeric(table[column], errors="coerce") for column in (name, name + LABEL))
        fits = {name: (score >= 0) & (score <= 1), name + LABEL: label.isin((0, 1)) | table[name + LABEL].isna()}
        for column, each in fits.items():
            place = int(np.argmin(each.to_numpy(bool)))
            if not each.iloc[place]:
                found.append(f"{str(table[column].iloc[place])[:40]!r} in {column}, row {place + 1}")
    return found


def _texts(table: "pa.Table") -> pd.DataFrame:
    """A Parquet table with its text columns as strings, whatever type they were stored in."""
    import pyarrow as pa

    for name in sorted({*TEXTS} & {*table.column_names}):
        column = table[name].cast(pa.string()).fill_null("")
        table = table.set_column(table.column_names.index(name), name, column)
    return parquet.frame(table)


def _typed(rows: pd.DataFrame) -> pd.DataFrame:
    """CSV has no types: convert each column to numbers, with NaN for empty cells, or to text."""
    return pd.DataFrame(
        {str(name): column.astype("str") if name in TEXTS else _numbers(column) for name, column in rows.items()}
    )


def _numbers(column: pd.Series) -> pd.Series:
    """The column as numbers if every cell is a number or empty; else unchanged."""
    found = pd.to_numeric(column, errors="coerce")
    return found if (found.notna() == (column != "")).all() else column
