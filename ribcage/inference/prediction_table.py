"""The table of predictions for images of dataset folders, written as Parquet or CSV and read again.

It has one row per image: `set`, `row` (in that dataset), `path`, `patient`, `split`, `view`, `sex`, `age`, and for
every finding three columns: `Mass` is the calibrated probability, `Mass_logit` the log-odds before temperature scaling,
and `Mass_label` the label: 1, 0, or empty if unknown. A table from elsewhere needs no log-odds.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ribcage.data.readers.columns import SPLIT_WORDS
from ribcage.runtime import files, parquet, spreadsheet

if TYPE_CHECKING:
    import pyarrow as pa

IMAGE_COLUMNS = ("set", "row", "path", "patient", "split", "view", "sex", "age", "hospital")
"""Metadata of an image, in the order of the columns."""
REQUIRED = ("set", "path", "patient")
TEXTS = ("set", "path", "patient", "split", "view", "sex", "hospital")
LOGIT, LABEL = "_logit", "_label"
"""Endings of the columns beside the probabilities of a finding."""
PREDICTIONS_FILE = "predictions.parquet"
_WORDS = re.compile(r"[_ -](prob|probability|score|pred|prediction|p)$|^(prob|probability|score|pred|p)[_ -]", re.I)


@dataclass(frozen=True)
class PredictionTable:
    """Predictions for N images and F findings, with labels."""

    images: pd.DataFrame
    """One row per image: `REQUIRED`, other `IMAGE_COLUMNS` and, from a file, any further columns."""
    findings: tuple[str, ...]
    probabilities: np.ndarray
    """(N, F) float64, after temperature scaling."""
    labels: np.ndarray
    """(N, F) float64: 1, 0 and NaN (unknown)."""
    log_odds: np.ndarray | None = None
    """(N, F), before temperature scaling; None where a table does not have them."""

    def __len__(self) -> int:
        return len(self.images)

    def select(self, rows: np.ndarray, findings: Sequence[str]) -> "PredictionTable":
        """These rows and findings, in this order."""
        cells = np.ix_(rows, np.array([self.findings.index(name) for name in findings], np.int64))
        odds = None if self.log_odds is None else self.log_odds[cells]
        return PredictionTable(
            self.images.iloc[rows], tuple(findings), self.probabilities[cells], self.labels[cells], odds
        )

    def frame(self) -> pd.DataFrame:
        """All columns, as they are written."""
        blocks = [("", self.probabilities), (LABEL, self.labels.astype(np.float32))]
        if self.log_odds is not None:
            blocks.insert(1, (LOGIT, self.log_odds.astype(np.float32)))
        columns = {
            name + ending: values[:, place] for ending, values in blocks for place, name in enumerate(self.findings)
        }
        return pd.concat([self.images, pd.DataFrame(columns, index=self.images.index)], axis=1)

    def save(self, file: Path) -> None:
        """Write atomically: as CSV if the file's suffix is .csv, else as Parquet."""
        save_table(self.frame(), file)


def save_table(table: pd.DataFrame, file: Path) -> None:
    """Write a table atomically: as CSV if the file's suffix is .csv, else as Parquet."""
    with files.explained(file.parent, "Free some."), files.atomic(file) as part:
        if file.suffix == ".csv":
            spreadsheet.write_csv(table, part)
        else:
            table.to_parquet(part, index=False)


def read_predictions(file: Path) -> PredictionTable:
    """Read a table of predictions; ValueError says in one line why it cannot be read."""
    import pyarrow as pa

    try:
        rows = pd.read_csv(file, keep_default_na=False, na_values={}) if ".csv" in file.suffixes else None
        table = _texts(parquet.read_parquet(file)) if rows is None else _typed(spreadsheet.unescaped_table(rows))
    except parquet.UnreadableTableError as error:
        raise ValueError(f"{file} cannot be read as a table of predictions ({error}).") from None
    except (ValueError, pa.ArrowException, UnicodeError) as error:
        raise ValueError(f"{file} cannot be read as a table of predictions ({type(error).__name__}).") from None
    missing = [name for name in REQUIRED if name not in table]
    if missing or not predicted_findings(list(table)):
        lacks = missing or ["a finding with its _label column"]
        raise ValueError(f"{file} is not a table of predictions: it lacks {' and '.join(lacks)}.")
    if not len(table):
        raise ValueError(f"{file} is a table of predictions without rows.")
    if wrong := _invalid(table):
        raise ValueError(
            f"{file} contains {', '.join(wrong)}. Scores must be probabilities from 0 to 1, and labels must be 1, 0 "
            "or blank."
        )
    return prediction_table(table)


def prediction_table(table: pd.DataFrame) -> PredictionTable:
    """The columns of a table by their meaning."""
    findings = predicted_findings(list(table))
    scores, labels, odds = ([name + ending for name in findings] for ending in ("", LABEL, LOGIT))
    whole = all(name in table for name in odds)
    others = [name for name in table if name not in {*scores, *labels, *(odds if whole else ())}]
    return PredictionTable(
        table[others],
        findings,
        _values(table, scores),
        _values(table, labels),
        _values(table, odds) if whole else None,
    )


def _values(table: pd.DataFrame, columns: Sequence[str]) -> np.ndarray:
    """(N, F) float64; NaN for empty cells."""
    numbers = [pd.to_numeric(table[name], errors="coerce").to_numpy(np.float64, na_value=np.nan) for name in columns]
    return np.stack(numbers, axis=1)


def predicted_findings(header: Sequence[str]) -> tuple[str, ...]:
    """The findings of a table that Ribcage wrote: columns X that have a column X_label beside them."""
    return tuple(name for name in header if f"{name}{LABEL}" in header and name not in IMAGE_COLUMNS)


def dataset_column(table: pd.DataFrame) -> str:
    """The column with the names of datasets, or ""; a column `set` of words such as train and test holds splits."""
    if "set" not in table:
        return ""
    words = table["set"].astype("str").fillna("").str.lower()
    return "" if words.isin(["", *SPLIT_WORDS]).all() else "set"


def finding_word(column: str) -> str:
    """The name of a column of probabilities without a word such as `prob` or `score`: Mass_prob, p_Mass → Mass."""
    return _WORDS.sub("", column)


def _invalid(table: pd.DataFrame) -> list[str]:
    """The first invalid cell of each score and label column, as "'text' in Mass, row 3"."""
    found = []
    for name in predicted_findings(list(table)):
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
