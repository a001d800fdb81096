"""Tables of predictions as teachers: the columns of each finding, and warnings about their content."""

import gzip
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ribcage.data import findings as vocabulary
from ribcage.data.collection import Datasets
from ribcage.data.dataset_folder import DatasetFolder
from ribcage.data.readers import columns, tables
from ribcage.inference.prediction_table import LABEL, LOGIT, dataset_column, finding_word, predicted_findings
from ribcage.runtime import parquet, spreadsheet
from ribcage.training.teachers.linkage import matched_rows

EPSILON = 1e-6
"""Probabilities are clipped to this distance from 0 and 1."""


def is_table(name: str) -> bool:
    """Whether a teacher is a table of predictions, by its name, and not a folder."""
    return Path(name).suffix.lower() in (".csv", ".parquet", ".gz", ".tsv", ".txt") and not Path(name).is_dir()


def require_file(file: Path) -> Path:
    """The file, if it exists."""
    if not file.is_file():
        raise FileNotFoundError(f"{file} does not exist.")
    return file


@dataclass(frozen=True)
class TeacherTable:
    """Predictions in a file, written by Ribcage or by another program."""

    file: Path
    images: pd.DataFrame
    """The dataset ("" where not given) and the path of the image of each line."""
    odds: pd.DataFrame
    """Log-odds of the findings; NaN where there is no prediction."""
    notes: tuple[str, ...]
    """Warnings about lines and columns that are not used, or may be something else."""

    @property
    def findings(self) -> tuple[str, ...]:
        """Findings with predictions."""
        return tuple(self.odds.columns)


def read_teacher_table(file: Path) -> TeacherTable:
    """Read a table of predictions; ValueError if it is not one."""
    rows = _opened(file)
    header = list(rows)
    roles, chosen = columns.roles(header, {}), _prediction_columns(header)
    if "path" not in roles or not chosen:
        lacks = "a column of image names" if "path" not in roles else "a column named after a finding"
        raise ValueError(f"{file} is not a table of predictions: it lacks {lacks}. {columns.among(header)}")
    for finding in dict.fromkeys(chosen.values()):
        if len(both := [name for name in chosen if chosen[name] == finding]) > 1:
            raise ValueError(
                f"{file}: the columns {' and '.join(both)} refer to the same finding, {finding}. Keep one of them."
            )
    probabilities = pd.DataFrame(
        {name: pd.to_numeric(rows[name], errors="coerce") for name in chosen}, dtype=np.float64
    )
    lowest, highest = probabilities.min().min(), probabilities.max().max()
    if not (lowest >= 0 and highest <= 1):
        holds = f"values from {lowest:g} to {highest:g}" if lowest == lowest else "no numbers"
        raise ValueError(f"{file} must contain probabilities from 0 to 1, but has {holds} in {', '.join(chosen)}.")
    p = probabilities.clip(EPSILON, 1 - EPSILON).to_numpy()
    odds = pd.DataFrame(np.log(p) - np.log1p(-p), columns=list(chosen.values()))
    sets = rows["set"].astype("str").fillna("") if dataset_column(rows) else pd.Series("", rows.index)
    images = pd.DataFrame({"set": sets, "path": rows[roles["path"]].astype("str").fillna("")})
    others = [name for name in header if name not in (*roles.values(), *chosen) and not name.endswith((LOGIT, LABEL))]
    return TeacherTable(
        file, images, odds, (*_unread(rows, probabilities), *_labels(probabilities), *_twice(images), *_near(others))
    )


def _unread(rows: pd.DataFrame, values: pd.DataFrame) -> list[str]:
    """Warnings about cells that are neither numbers nor blank."""
    blank = [word for word, value in columns.LABEL_WORDS.items() if value != value]
    notes = []
    for name in values:
        cells = rows[name].astype("str").fillna("")
        strange = cells[values[name].isna() & ~cells.str.strip().str.lower().isin(blank)]
        if len(strange):
            notes.append(f"{len(strange):,} cells of {name} are not numbers and count as blank ({strange.iloc[0]!r} …)")
    return notes


def _labels(values: pd.DataFrame) -> list[str]:
    """Warning if the columns seem to be labels."""
    sure = values.isin([0.0, 1.0]) | values.isna()
    return ["all numbers are 0 or 1: these may be labels, not predictions"] * bool(sure.all(axis=None))


def _twice(images: pd.DataFrame) -> list[str]:
    """Warning about images with several lines."""
    count = int(images.duplicated(keep=False).sum())
    return [f"{count:,} rows are not used, because several rows name the same image"] * bool(count)


def _near(names: Sequence[str]) -> list[str]:
    """Warnings about columns whose names resemble findings."""
    meant = {name: finding for name in names for word in _words(name) if (finding := vocabulary.closest_finding(word))}
    return [f"the column {name} is not used; did you mean {finding}?" for name, finding in meant.items()]


def _opened(file: Path) -> pd.DataFrame:
    """All columns of a table; ValueError where the file cannot be read."""
    if require_file(file).suffix.lower() == ".parquet":
        try:
            rows = parquet.frame(parquet.read_parquet(file))
        except parquet.UnreadableTableError as error:
            raise ValueError(f"{file} cannot be read as a table of predictions ({error}).") from None
    else:
        try:
            rows = spreadsheet.unescaped_table(tables.sniffed(file))
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise ValueError(f"{file} is damaged: {error}.") from None
    texts = [name for name, kind in rows.dtypes.items() if not pd.api.types.is_numeric_dtype(kind)]
    return rows.reset_index(drop=True).astype(dict.fromkeys(texts, "str")).rename(columns=str)


def _prediction_columns(header: Sequence[str]) -> dict[str, str]:
    """Column → finding: columns of Ribcage have a label column beside them; of others those named as probabilities, if
    there are such."""
    if ours := predicted_findings(header):
        return {name: name for name in ours}
    named = {name: finding for name in header if (finding := finding_of_column(name))}
    return {name: finding for name, finding in named.items() if not vocabulary.is_known_finding(name)} or named


def finding_of_column(name: str) -> str:
    """The finding a column of predictions is about, or ""."""
    return next((vocabulary.canonical(word) for word in _words(name) if vocabulary.is_known_finding(word)), "")


def _words(name: str) -> list[str]:
    """The name of a column, with and without a word such as `prob`."""
    return list(dict.fromkeys([name, finding_word(name)]))


def table_logits(
    table: TeacherTable, data: Datasets, findings: Sequence[str], *, exclusive: bool = False
) -> np.ndarray:
    """(all rows, F): the logits in a table, as those of `calibrated_logits`; NaN for images without a prediction.

    Lines are matched to images by `matched_rows`; a line without a certain match is not used."""
    own = pd.concat([_images(dataset) for dataset in data], ignore_index=True)
    place = matched_rows(table.images, own)
    hit = place >= 0
    if not hit.any():
        theirs, ours = table.images.iloc[0], own.iloc[0]
        raise ValueError(
            f"{table.file} has no predictions for these images: it contains {_shown(theirs)} …, but the data contain "
            f"{_shown(ours)} …"
        )
    logits = np.full((len(own), len(findings)), np.nan, np.float32)
    for column, name in enumerate(findings):
        if name in table.odds:
            odds = table.odds[name].to_numpy()[hit]
            logits[place[hit], column] = -np.logaddexp(0, -odds) if exclusive else odds
    return logits


def _shown(image: pd.Series) -> str:
    """A path, with its dataset where one is given."""
    return f"{image['path']!r}" + (f" of the dataset {image['set']!r}" if image["set"] else "")


def _images(dataset: DatasetFolder) -> pd.DataFrame:
    """Dataset and path of its images."""
    return pd.DataFrame({"set": dataset.index.name, "path": dataset.index.table["path"].astype("str")})
