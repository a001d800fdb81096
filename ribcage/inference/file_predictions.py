"""Predictions for image files, and the table of them: one row per file of a classifier, one row per box of a detector.

The columns of a classifier are `path`, the calibrated probability of each finding, `Mass_above_threshold` for each
finding (empty where it has no threshold), those of `FileContext`, `model_warning` and `error`. Those of a detector are
`path`, `finding`, `score`, `x`, `y`, `width` and `height` in pixels of the file, and the same others; a file without
boxes has one row with an empty finding.
"""

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

import pandas as pd

from ribcage.inference.prediction_table import save_table
from ribcage.runtime.remote.addresses import address_text

ABOVE = "_above_threshold"
"""Ending of the column that says whether a finding's threshold is reached."""


@dataclass(frozen=True)
class FileBox:
    """A box in pixels of the file."""

    finding: str
    score: float
    x: float
    y: float
    width: float
    height: float

    @property
    def sides(self) -> tuple[float, float, float, float]:
        """Left and upper edge, width and height."""
        return self.x, self.y, self.width, self.height


@dataclass(frozen=True)
class FileContext:
    """What is known of a file beside its predictions."""

    study: str = ""
    series: str = ""
    view: str = ""
    notes: str = ""
    """How the file was decoded."""
    image_warnings: str = ""
    """How the image differs from the training images."""


@dataclass(frozen=True)
class FilePrediction:
    """The prediction for one file."""

    path: Path
    error: str = ""
    """Why the file could not be read; empty if it could."""
    context: FileContext = field(default_factory=FileContext)
    probabilities: dict[str, float] = field(default_factory=dict)
    """Of a classifier, by finding."""
    above: dict[str, bool | None] = field(default_factory=dict)
    """Whether the threshold of a finding is reached; None where it has none."""
    boxes: tuple[FileBox, ...] = ()
    """Of a detector, by falling score."""

    @property
    def reached(self) -> list[str]:
        """The findings that reach their threshold, as far as that is known."""
        return [name for name, above in self.above.items() if above]


BOX_COLUMNS = tuple(each.name for each in fields(FileBox))
CONTEXT_COLUMNS = (*(each.name for each in fields(FileContext)), "model_warning")


@dataclass(frozen=True)
class FilePredictions:
    """The predictions of a model for several files, in their order."""

    findings: tuple[str, ...]
    """Of the model."""
    detector: bool
    files: tuple[FilePrediction, ...]
    warning: str = ""
    """About the model."""

    @property
    def readable(self) -> list[Path]:
        """The files that could be read."""
        return [one.path for one in self.files if not one.error]

    def frame(self) -> pd.DataFrame:
        """The table, as it is written."""
        rows = [
            {
                "path": path_text(one.path), "error": one.error, **asdict(one.context), "model_warning": self.warning,
                **row,
            }
            for one in self.files for row in self._rows(one)
        ]  # fmt: skip
        if self.detector:
            return _frame(rows, ["path", *BOX_COLUMNS, *CONTEXT_COLUMNS, "error"])
        table = _frame(rows, ["path", *self.findings, *CONTEXT_COLUMNS, "error"])
        first = 1 + len(self.findings)
        for place, name in enumerate(self.findings):
            above = pd.array([one.above.get(name) for one in self.files], dtype="boolean")
            table.insert(first + place, name + ABOVE, above)
        return table

    def _rows(self, one: FilePrediction) -> Sequence[dict[str, object]]:
        if self.detector:
            return [asdict(box) for box in one.boxes] or [{}]
        return [dict(one.probabilities)]

    def save(self, file: Path) -> None:
        """Write atomically: as CSV if the file's suffix is .csv, else as Parquet."""
        save_table(self.frame(), file)


def count_unread(table: pd.DataFrame) -> tuple[int, int]:
    """The number of files in a table that could not be read, and of all files."""
    errors = table.groupby("path", sort=False)["error"].first()
    return int((errors != "").sum()), len(errors)


def path_text(path: Path) -> str:
    """A path or address as printable text; bytes that are not UTF-8 are escaped."""
    return os.fsencode(address_text(path)).decode("utf-8", "backslashreplace")


def _frame(rows: Sequence[dict[str, object]], columns: Sequence[str]) -> pd.DataFrame:
    """A table with text and float64 columns, whatever the first rows contain."""
    table = pd.DataFrame(rows, columns=list(columns))
    texts = ("path", "finding", "error", *CONTEXT_COLUMNS)
    table = table.astype({name: "str" if name in texts else "float64" for name in columns})
    return table.fillna({name: "" for name in texts if name in table})
