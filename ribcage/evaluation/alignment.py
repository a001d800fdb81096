"""Alignment: several models' predictions on the images and findings that all of them have."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from ribcage.evaluation import own_predictions
from ribcage.evaluation.comparison_entries import ComparisonEntry
from ribcage.evaluation.labelled import patient_names
from ribcage.runtime.spelling import count_phrase


@dataclass(frozen=True)
class Aligned:
    """Scores and labels of the images and findings that all models have in common."""

    findings: tuple[str, ...]
    scores: list[np.ndarray]
    """(N, F) for each model."""
    labels: np.ndarray
    patients: np.ndarray
    """(N,) from the table with the largest number of images whose patient is known, and of these from the one with the
    fewest patients; "" if unknown."""
    otherwise_grouped: tuple[str, ...]
    """Models whose tables group the images by other patients."""
    left_out: dict[str, int]
    """Per model, images that not all models have."""
    findings_left_out: dict[str, tuple[str, ...]]


def align(entries: Sequence[ComparisonEntry]) -> Aligned:
    """Restrict all models to their common images and findings."""
    entries = own_predictions_placed(entries)
    keys = [image_keys(one) for one in entries]
    images = keys[0]
    for own in keys[1:]:
        images = images[images.isin(own)]
    known = [one.table.findings for one in entries]
    findings = tuple(name for name in known[0] if all(name in names for names in known[1:]))
    if not len(images) or not findings:
        lacking = "image" if not len(images) else "finding"
        raise ValueError(f"The models {', '.join(one.name for one in entries)} have no {lacking} in common.")
    common = [one.table.select(own.get_indexer(images), findings) for one, own in zip(entries, keys, strict=True)]
    labels = [table.labels for table in common]
    for one, theirs in zip(entries[1:], labels[1:], strict=True):
        other = int((~((theirs == labels[0]) | (np.isnan(theirs) & np.isnan(labels[0])))).any(axis=1).sum())
        if other:
            raise ValueError(
                f"{count_phrase(other, 'image has', 'images have')} different labels in {one.name} and "
                f"{entries[0].name}: evaluate both on the same data with the same --policy."
            )
    patients = [patient_names(table.images) for table in common]
    most_known = max(patients, key=lambda names: (int((names != "").sum()), -len(set(names))))  # the first of equals
    return Aligned(
        findings,
        [table.probabilities for table in common],
        labels[0],
        most_known,
        tuple(one.name for one, names in zip(entries, patients, strict=True) if not same_groups(names, most_known)),
        {one.name: len(one.table) - len(images) for one in entries},
        {
            one.name: tuple(name for name in names if name not in findings)
            for one, names in zip(entries, known, strict=True)
        },
    )


def same_groups(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two arrays of patients (N,) group the images alike, whatever the names, where both are known."""
    known = (one != "") & (other != "")
    pairs = set(zip(one[known].tolist(), other[known].tolist(), strict=True))
    return len(pairs) == len({own for own, _ in pairs}) == len({own for _, own in pairs})


def own_predictions_placed(entries: Sequence[ComparisonEntry]) -> list[ComparisonEntry]:
    """Complete tables from elsewhere with the datasets, paths and labels of ours."""
    full = [one.table for one in entries if own_predictions.is_whole(one.table)]
    return [replace(one, table=own_predictions.aligned_table(one.table, full, one.name)) for one in entries]


def image_keys(one: ComparisonEntry) -> pd.Index:
    """Dataset and path of each image of a table; ValueError if an image is listed twice."""
    keys = pd.Index(one.table.images["set"] + "\0" + one.table.images["path"])
    twice = int(keys.duplicated().sum())
    if twice:
        raise ValueError(
            f"{one.name} lists {count_phrase(twice, 'image')} twice (same dataset and path). Keep one row per image."
        )
    return keys
