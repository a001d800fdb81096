"""Own predictions: anybody's table of predictions → one that can be compared with ours, as far as it can be guessed.

Needed are a column with the images and one with probabilities for each finding, called like a finding of the
vocabulary or of the other tables. Its labels stand in a column beside
it (`Mass_label`, `Mass_true`, `label_Mass` …) or come from the other tables of a comparison; so do the dataset and
the patients. One column called `probability`, `score` … is of the finding that the file is called after, or of the only
one that the others know.
"""

import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from ribcage.data import findings as vocabulary
from ribcage.data.readers import columns, tables
from ribcage.inference import predictions
from ribcage.inference.predictions import LABEL
from ribcage.runtime import spreadsheet

EXAMPLE = "path,patient,{0},{0}_label / 0001.png,17,0.83,1 / 0002.png,18,0.07,0"
SCORES = ("probability", "prob", "score", "prediction", "pred", "p", "y_pred", "y_score", "y_prob", "output")
TRUTHS = ("label", "labels", "y_true", "true", "truth", "target", "gt", "y", "ground_truth")
PAIRED = ("{}_label", "{}_true", "{}_gt", "{}_y", "label_{}", "true_{}", "gt_{}", "y_{}")
TAILS = re.compile(r"[_ -](prob|probability|score|pred|prediction|p)$|^(prob|probability|score|pred|p)[_ -]", re.I)


def read_own_predictions(file: Path, theirs: Sequence[str] = ()) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """A table of predictions of ours or of anybody's, and what was guessed of it; `theirs` are findings of others."""
    if file.suffix.lower() == ".parquet":
        return predictions.read_predictions(file), ()
    rows = spreadsheet.unescaped_table(tables.sniffed(file))
    ours = {"set", "path", "patient"} <= set(rows) and predictions.findings_of_table(rows)
    return (predictions.read_predictions(file), ()) if ours and ".csv" in file.suffixes else guessed(rows, file, theirs)


def guessed(rows: pd.DataFrame, file: Path, theirs: Sequence[str] = ()) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """A table of ours, from columns that go by usual names."""
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
            "no column names the images"
            if "path" not in roles
            else _scale(rows, theirs) or "no column called like a finding holds probabilities from 0 to 1"
        )
        raise ValueError(f"{file}: {lacks}. {columns.among(header)} Expected, for example: {example(theirs)}")
    told = "set" if "set" in header and not rows["set"].str.lower().isin(["", *columns.SPLIT_WORDS]).all() else ""
    found = pd.DataFrame(
        {
            "set": rows[told] if told else "",
            "path": rows[roles["path"]].str.strip().str.replace("\\", "/"),
            "patient": rows[roles["patient"]].str.strip() if "patient" in roles else "",
        }
    )
    remarks = [
        f"images by its column {roles['path']!r}",
        *([] if told else ["datasets as in the others, by the names of images"]),
    ]
    for name, finding in scores.items():
        found[finding] = pd.to_numeric(rows[name], errors="coerce")
        label = truths.get(name, "")
        known = rows[label].str.strip().str.lower().map(_label) if label else np.nan
        found[f"{finding}{LABEL}"] = pd.Series(known, found.index, dtype="float64")
        remarks.append(
            f"{finding or 'the finding'} by {name!r}, labels " + (f"by {label!r}" if label else "of the others")
        )
    if wrong := [str(name) for name in scores.values() if not found[name].between(0, 1).all()]:
        raise ValueError(
            f"{file}: {', '.join(wrong)} must hold probabilities from 0 to 1 in every row. For example: "
            f"{example(theirs)}"
        )
    return found, ("guessed: " + "; ".join(remarks),)


def _label(word: str) -> float:
    """1, 0, or NaN for what is neither."""
    try:
        value = float(word)
    except ValueError:
        value = columns.LABEL_WORDS.get(word, np.nan)
    return value if value in (0.0, 1.0) else np.nan


def _truths(header: Sequence[str]) -> dict[str, str]:
    """Column of probabilities → that of its labels, by their names."""
    lower = {name.lower(): name for name in header}
    found: dict[str, str] = {}
    for name in header:
        for stem in dict.fromkeys((name, TAILS.sub("", name))):
            beside = next((lower[one] for each in PAIRED if (one := each.format(stem.lower())) in lower), "")
            if not beside and stem != name:
                beside = lower.get(stem.lower(), "")
            if beside and beside != name:
                found.setdefault(name, beside)
    return found


def _scale(rows: pd.DataFrame, theirs: Sequence[str]) -> str:
    """What is wrong with the numbers of a column called like a finding of the others; "" if none is."""
    own = {_plain(finding) for finding in theirs}
    for name in rows:
        values = pd.to_numeric(rows[name], errors="coerce")
        if {_plain(str(name)), _plain(TAILS.sub("", str(name)))} & own and values.notna().any():
            return f"{name} holds {values.min():g} to {values.max():g}, not probabilities from 0 to 1"
    return ""


def example(theirs: Sequence[str]) -> str:
    """Three lines of a table that can be read, of a finding of the others."""
    return EXAMPLE.format(theirs[0] if theirs else "Mass")


def _finding(rows: pd.DataFrame, name: str, header: Sequence[str], theirs: Sequence[str]) -> str:
    """The finding whose probabilities a column holds, or ""."""
    stem = TAILS.sub("", name)
    own = {_plain(finding): finding for finding in theirs}
    meant = own.get(_plain(name)) or own.get(_plain(stem)) or ""
    if not (meant or vocabulary.is_known_finding(stem) or name in _truths(header)) or name.lower() in SCORES:
        return ""
    values = pd.to_numeric(rows[name], errors="coerce")
    if not values.between(0, 1).any():
        return ""
    return meant or (vocabulary.canonical(stem) if vocabulary.is_known_finding(stem) else stem)


def _plain(name: str) -> str:
    """A finding's name without what people write in different ways."""
    return re.sub(r"[\W_]+", "", name).casefold()


def thresholds(words: Sequence[str], findings: Sequence[str]) -> dict[str, float | None]:
    """'0.5', or 'Mass=0.4' for each finding, as numbers."""
    found: dict[str, float | None] = {}
    for word in words:
        name, equals, value = word.rpartition("=")
        try:
            number = float(value)
        except ValueError:
            number = np.nan
        if not 0 <= number <= 1 or (equals and name not in findings):
            raise ValueError(
                f"--thresholds takes a probability from 0 to 1, or FINDING=PROBABILITY of {', '.join(findings)}, "
                f"not {word!r}."
            )
        found |= {name: number} if equals else dict.fromkeys(findings, number)
    return found


# ---- beside others


def is_whole(table: pd.DataFrame) -> bool:
    """Whether a table says of which datasets its images are, and something of their labels."""
    labels = [name for name in table if str(name).endswith(LABEL)]
    return bool((table["set"] != "").all() and len(labels) and table[labels].notna().any(axis=None))


def aligned_table(table: pd.DataFrame, others: Sequence[pd.DataFrame], name: str) -> pd.DataFrame:
    """A table with the sets, paths, patients and labels of the others where it does not say them."""
    if is_whole(table) or not others:
        return table
    every = pd.concat(others, ignore_index=True).drop_duplicates(["set", "path"])
    kept = table.copy()
    if "" in predictions.findings_of_table(kept):
        alone = list(predictions.findings_of_table(every))
        if len(alone) != 1:
            raise ValueError(
                f"{name} does not name the finding of its probabilities: name the column {' or '.join(alone)}."
            )
        kept = kept.rename(columns={"": alone[0], LABEL: f"{alone[0]}{LABEL}"})
    place = _places(kept["path"], every["path"])
    known = place >= 0
    if not known.any():
        theirs = every["path"].iloc[0]
        raise ValueError(
            f"{name} has no image in common with the others: its first is {kept['path'].iloc[0]!r}, theirs {theirs!r}."
        )
    own = every.iloc[place].set_axis(kept.index)
    for column in ("set", "path", "patient"):
        kept[column] = own[column].where(known, kept[column])
    for finding in predictions.findings_of_table(kept):
        if f"{finding}{LABEL}" in own and kept[f"{finding}{LABEL}"].isna().all():
            kept[f"{finding}{LABEL}"] = own[f"{finding}{LABEL}"].where(known)
    return kept


def _places(paths: pd.Series, theirs: pd.Series) -> np.ndarray:
    """(N,) the row of the others with this path or, where only one is called so, with this name; -1 for none."""
    for shortened in (str, lambda path: PurePosixPath(path).name, lambda path: PurePosixPath(path).stem):
        keys = theirs.map(shortened)
        once = ~keys.duplicated(keep=False)
        rows = pd.Series(np.flatnonzero(once), index=keys[once])
        found = paths.map(shortened).map(rows).fillna(-1).to_numpy(np.int64)
        if (found >= 0).any():
            return found
    return np.full(len(paths), -1, np.int64)
