"""Contradictions: labels, boxes and masks of one image that cannot all be right, with one rule for all datasets.

- If 'No Finding' is present beside another finding, the other finding is kept and 'No Finding' becomes unknown. Support
  devices are no contradiction, as in CheXpert.
- If a box or a mask shows a finding that is labelled absent, all of them are kept.

Both are reported with their numbers.
"""

import logging
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from ribcage.data.index import Index
from ribcage.data.readings import numbers_of_readings
from ribcage.runtime.spelling import count_phrase

NO_FINDING = "No_Finding"
COMPATIBLE = (NO_FINDING, "Support_Devices")
"""Findings that may be present beside 'No Finding'."""

log = logging.getLogger("ribcage")


def checked_index(index: Index) -> Index:
    """The index without contradictions between findings; those between labels, boxes and masks are only reported."""
    table = without_contradictions(index.table, index.findings, "image")
    readings = without_contradictions(index.readings, index.findings, "reading")
    if table is not index.table or readings is not index.readings:
        index = replace(index, table=table, readings=readings)
    report_absent(index.boxes["finding"], _labels_of_boxes(index), "boxes")
    drawn = index.masks[(index.masks["columns"] > 0).to_numpy()]
    report_absent(drawn["structure"], _labels_of_images(index, drawn["row"], drawn["structure"]), "masks")
    return index


def without_contradictions(rows: pd.DataFrame, findings: Sequence[str], what: str) -> pd.DataFrame:
    """Rows with a column for each finding, in which 'No Finding' is unknown beside another finding that is present."""
    others = [name for name in findings if name not in COMPATIBLE and name in rows]
    if NO_FINDING not in rows or NO_FINDING not in findings or not others:
        return rows
    wrong = (rows[NO_FINDING] == 1).to_numpy(copy=True)
    wrong[wrong] = (rows.loc[wrong, others] == 1).any(axis=1)
    report_no_finding(int(wrong.sum()), what)
    return rows.assign(**{NO_FINDING: rows[NO_FINDING].mask(wrong)}) if wrong.any() else rows


def report_no_finding(count: int, what: str) -> None:
    """Warn of rows with 'No Finding' and a finding, if there are any."""
    if count:
        log.warning(
            "%s labelled 'No Finding' beside a finding; the finding is kept, and 'No Finding' is unknown.",
            count_phrase(count, f"{what} is", f"{what}s are"),
        )


def report_absent(findings: pd.Series, labels: np.ndarray, what: str) -> None:
    """Warn of drawings whose finding has the label 0."""
    counts = findings[labels == 0].value_counts()
    if len(counts):
        said = ", ".join(f"{name} {count:,}" for name, count in counts.items())
        log.warning("Some %s show findings that are labelled absent: %s. The labels are unchanged.", what, said)


def _labels_of_boxes(index: Index) -> np.ndarray:
    """(M,) the label of each box's finding, of its reader or else of its image; NaN if it is unknown."""
    labels = _labels_of_images(index, index.boxes["row"], index.boxes["finding"])
    reading = numbers_of_readings(index.readings, index.boxes)
    own = reading >= 0
    if own.any():
        place = pd.Index(index.findings).get_indexer(index.boxes["finding"])
        values = index.readings[list(index.findings)].to_numpy(np.float32)
        labels[own] = np.where(place[own] >= 0, values[reading[own], place[own]], np.nan)
    return labels


def _labels_of_images(index: Index, rows: pd.Series, findings: pd.Series) -> np.ndarray:
    """(M,) the label of a finding in the image of each row; NaN if it is unknown or not a finding of the dataset."""
    found = np.full(len(rows), np.nan, np.float32)
    for name in set(findings.unique()) & set(index.findings):
        of_name = (findings == name).to_numpy()
        found[of_name] = index.table[name].to_numpy(np.float32)[rows[of_name].to_numpy()]
    return found
