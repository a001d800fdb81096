"""Tables of predictions from elsewhere → tables that can be compared with ours, with assumptions where columns are
ambiguous.

Required are a column of image names and, for each finding, a column of probabilities named like a finding of the
vocabulary or of the other tables. Labels are read from a column beside it (`Mass_label`, `Mass_true`, `label_Mass` …)
or taken from the other tables of a comparison, as are dataset and patients. A single column named `probability`,
`score` … belongs to the finding that the file is named after, or to the only finding of the other tables.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from ribcage.data import findings as vocabulary
from ribcage.data.readers import columns, tables
from ribcage.inference.prediction_table import (
    REQUIRED,
    PredictionTable,
    dataset_column,
    finding_word,
    predicted_findings,
    read_predictions,
)
from ribcage.runtime import spreadsheet

EXAMPLE = "path,patient,{0},{0}_label / 0001.png,17,0.83,1 / 0002.png,18,0.07,0"
SCORES = ("probability", "prob", "score", "prediction", "pred", "p", "y_pred", "y_score", "y_prob", "output")
TRUTHS = ("label", "labels", "y_true", "true", "truth", "target", "gt", "y", "ground_truth")
PAIRED = ("{}_label", "{}_true", "{}_gt", "{}_y", "label_{}", "true_{}", "gt_{}", "y_{}")


def read_own_predictions(file: Path, theirs: Sequence[str] = ()) -> tuple[PredictionTable, tuple[str, ...]]:
    """A table of predictions, ours or from elsewhere, and the assumptions made in reading it. theirs: findings of the
    other tables."""
    if file.suffix.lower() == ".parquet":
        return read_predictions(file), ()
    rows = spreadsheet.unescaped_table(tables.sniffed(file))
    ours = {*REQUIRED} <= set(rows) and predicted_findings(list(rows))
    return (read_predictions(file), ()) if ours and ".csv" in file.suffixes else guessed(rows, file, theirs)


def guessed(rows: pd.DataFrame, file: Path, theirs: Sequence[str] = ()) -> tuple[PredictionTable, tuple[str, ...]]:
    """A table of predictions from columns with common names."""
    header = [str(name) for name in rows]
    roles = columns.roles(header, {})
    truths = _truths(header)
    scores = {
        name: finding
        for name in header
        if name not in truths.values() and (finding := _finding(rows, name, header, theirs))
    }
    scores = {name: finding for name, finding in scores.items() if name not in roles.values()}
    bare = next((name for name in header if name.lower() in SCORES), "")
    if not scores and bare:
        label = next((name for name in header if name.lower() in TRUTHS), "")
        scores = {bare: vocabulary.canonical(file.stem) if vocabulary.is_known_finding(file.stem) else ""}
        truths = {bare: label} if label else {}
    if "path" not in roles or not scores:
        lacks = (
            "no column has image names"
            if "path" not in roles
            else _scale(rows, theirs) or "no column has the name of a finding and contains probabilities from 0 to 1"
        )
        raise ValueError(f"{file}: {lacks}. {columns.among(header)} An example of a valid table is: {example(theirs)}")
    dataset = dataset_column(rows)
    images = pd.DataFrame(
        {
            "set": rows[dataset] if dataset else "",
            "path": rows[roles["path"]].str.strip().str.replace("\\", "/"),
            "patient": rows[roles["patient"]].str.strip() if "patient" in roles else "",
        }
    )
    assumed = [
        f"images from column {roles['path']!r}",
        *([] if dataset else ["datasets by image name, from the other tables"]),
    ]
    found, labels = {}, {}
    for name, finding in scores.items():
        found[finding] = pd.to_numeric(rows[name], errors="coerce")
        label = truths.get(name, "")
        known = rows[label].str.strip().str.lower().map(_label) if label else np.nan
        labels[finding] = pd.Series(known, rows.index, dtype="float64")
        assumed.append(
            f"{finding or 'the finding'} from column {name!r}, labels from "
            + (repr(label) if label else "the other tables")
        )
    if wrong := [str(name) for name in scores.values() if not found[name].between(0, 1).all()]:
        raise ValueError(
            f"{file}: every row must have a probability from 0 to 1 in column {' and '.join(wrong)}. An example of a "
            f"valid table is: {example(theirs)}"
        )
    table = PredictionTable(images, tuple(found), _array(found), _array(labels))
    return table, ("assumed: " + "; ".join(assumed),)


def _array(columns: dict[str, pd.Series]) -> np.ndarray:
    """(N, F) float64."""
    return np.stack([each.to_numpy(np.float64) for each in columns.values()], axis=1)


def _label(word: str) -> float:
    """1, 0, or NaN for anything else."""
    try:
        value = float(word)
    except ValueError:
        value = columns.LABEL_WORDS.get(word, np.nan)
    return value if value in (0.0, 1.0) else np.nan


def _truths(header: Sequence[str]) -> dict[str, str]:
    """Column of probabilities → column of its labels, matched by name."""
    lower = {name.lower(): name for name in header}
    found: dict[str, str] = {}
    for name in header:
        for stem in dict.fromkeys((name, finding_word(name))):
            beside = next((lower[one] for each in PAIRED if (one := each.format(stem.lower())) in lower), "")
            if not beside and stem != name:
                beside = lower.get(stem.lower(), "")
            if beside and beside != name:
                found.setdefault(name, beside)
    return found


def _scale(rows: pd.DataFrame, theirs: Sequence[str]) -> str:
    """Why a column named like a finding of the other tables has no probabilities; "" if there is no such column."""
    own = {_plain(finding) for finding in theirs}
    for name in rows:
        values = pd.to_numeric(rows[name], errors="coerce")
        if {_plain(str(name)), _plain(finding_word(str(name)))} & own and values.notna().any():
            return f"column {name} has values from {values.min():g} to {values.max():g}, not probabilities from 0 to 1"
    return ""


def example(theirs: Sequence[str]) -> str:
    """An example of a table that can be read, with a finding of the other tables."""
    return EXAMPLE.format(theirs[0] if theirs else "Mass")


def _finding(rows: pd.DataFrame, name: str, header: Sequence[str], theirs: Sequence[str]) -> str:
    """The finding whose probabilities a column has, or ""."""
    stem = finding_word(name)
    own = {_plain(finding): finding for finding in theirs}
    meant = own.get(_plain(name)) or own.get(_plain(stem)) or ""
    if not (meant or vocabulary.is_known_finding(stem) or name in _truths(header)) or name.lower() in SCORES:
        return ""
    values = pd.to_numeric(rows[name], errors="coerce")
    if not values.between(0, 1).any():
        return ""
    return meant or (vocabulary.canonical(stem) if vocabulary.is_known_finding(stem) else stem)


def _plain(name: str) -> str:
    """The name of a finding without case, spaces and punctuation."""
    return re.sub(r"[\W_]+", "", name).casefold()


def thresholds(words: Sequence[str], findings: Sequence[str]) -> dict[str, float | None]:
    """'0.5', or 'Mass=0.4' for each finding, as finding → threshold."""
    found: dict[str, float | None] = {}
    for word in words:
        name, equals, value = word.rpartition("=")
        try:
            number = float(value)
        except ValueError:
            number = np.nan
        if not 0 <= number <= 1 or (equals and name not in findings):
            raise ValueError(
                f"--thresholds takes a probability from 0 to 1, or FINDING=PROBABILITY, not {word!r}. The findings are "
                f"{', '.join(findings)}."
            )
        found |= {name: number} if equals else dict.fromkeys(findings, number)
    return found


# ---- tables that lack datasets or labels


def is_whole(table: PredictionTable) -> bool:
    """Whether a table has the dataset of every image, and labels."""
    return bool((table.images["set"] != "").all() and not np.isnan(table.labels).all())


def aligned_table(table: PredictionTable, others: Sequence[PredictionTable], name: str) -> PredictionTable:
    """Fill in datasets, paths, patients and labels that a table lacks from the other tables."""
    if is_whole(table) or not others:
        return table
    every = pd.concat([one.images[list(REQUIRED)] for one in others], ignore_index=True)
    labels = pd.concat([pd.DataFrame(one.labels, columns=list(one.findings)) for one in others], ignore_index=True)
    once = ~every.duplicated(["set", "path"])
    every, labels = every[once], labels[once]
    if "" in table.findings:
        if len(labels.columns) != 1:
            raise ValueError(
                f"{name} does not state the finding that its probabilities refer to. Rename the column of "
                f"probabilities to {' or '.join(labels)}."
            )
        table = replace(table, findings=tuple(each or str(labels.columns[0]) for each in table.findings))
    place = _places(table.images["path"], every["path"])
    known = place >= 0
    if not known.any():
        theirs = every["path"].iloc[0]
        raise ValueError(
            f"{name} has no image in common with the other tables: its first image is "
            f"{table.images['path'].iloc[0]!r}, and theirs is {theirs!r}."
        )
    own = every.iloc[place].set_axis(table.images.index)
    images = table.images.assign(**{each: own[each].where(known, table.images[each]) for each in REQUIRED})
    filled = table.labels.copy()
    for column, finding in enumerate(table.findings):
        if finding in labels and np.isnan(filled[:, column]).all():
            filled[known, column] = labels[finding].to_numpy(np.float64)[place[known]]
    return replace(table, images=images, labels=filled)


def _places(paths: pd.Series, theirs: pd.Series) -> np.ndarray:
    """(N,) row of the other tables with the same path or, if unique, the same file name or stem; -1 if none."""
    for shortened in (str, lambda path: PurePosixPath(path).name, lambda path: PurePosixPath(path).stem):
        keys = theirs.map(shortened)
        once = ~keys.duplicated(keep=False)
        rows = pd.Series(np.flatnonzero(once), index=keys[once])
        found = paths.map(shortened).map(rows).fillna(-1).to_numpy(np.int64)
        if (found >= 0).any():
            return found
    return np.full(len(paths), -1, np.int64)
