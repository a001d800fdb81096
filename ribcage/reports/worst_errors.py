"""Worst errors of a classifier: false negatives and false positives, as images with captions."""

from typing import Literal

import cv2
import numpy as np

from ribcage.bundle.spec import DEFAULT_RULE
from ribcage.data.collection import Datasets
from ribcage.evaluation.labelled import LabelledPredictions
from ribcage.reports import html
from ribcage.reports.html import Figure
from ribcage.reports.numbers import finding_name, percent, person

SIDE = 200  # pixels of an image on the page
TIES: tuple[Literal["left", "right"], ...] = ("left", "right")


def worst_errors(
    data: LabelledPredictions, datasets: Datasets, most: int, rule: str = DEFAULT_RULE
) -> list[tuple[str, list[Figure]]]:
    """(heading, figures) of false negatives and of false positives, half of `most` each."""
    return [
        (
            name,
            [
                figure
                for place, column in worst_predictions(data, present, most // 2, rule)
                if (figure := error_figure(data, datasets, place, column))
            ],
        )
        for name, present in (("False negatives", True), ("False positives", False))
    ]


def worst_predictions(
    data: LabelledPredictions, present: bool, most: int, rule: str = DEFAULT_RULE
) -> list[tuple[int, int]]:
    """(image, finding) of the worst errors among images with (`present`) or without a finding.

    An error is worse the more images of the other class have a score on its wrong side; where there is a threshold,
    only predictions on its wrong side count. Each image occurs once, no finding takes more than its share.
    """
    places, columns, wrong = [], [], []
    thresholds = data.threshold(rule)
    for column, (scores, labels) in enumerate(zip(data.probabilities.T, data.labels.T, strict=True)):
        own, other = (np.flatnonzero(labels == float(each)) for each in (present, not present))
        if len(own) and len(other):
            ranked = np.sort(scores[other])
            below, level = (np.searchsorted(ranked, scores[own], side=side) for side in TIES)
            share = 1 - level / len(other) if present else below / len(other)  # 0: ranked rightly, so no error
            threshold = thresholds[column]
            kept = (share > 0) & (np.isnan(threshold) | ((scores[own] < threshold) == present))
            places.append(own[kept])
            columns.append(np.full(len(places[-1]), column))
            wrong.append(share[kept])
    if not places:
        return []
    order = np.argsort(-np.concatenate(wrong), kind="stable")
    pairs = zip(np.concatenate(places)[order].tolist(), np.concatenate(columns)[order].tolist(), strict=True)
    chosen: dict[int, int] = {}
    for place, column in pairs:
        if len(chosen) == most:
            break
        if place not in chosen and list(chosen.values()).count(column) < -(-most // len(places)):
            chosen[place] = column
    return list(chosen.items())


def error_figure(data: LabelledPredictions, datasets: Datasets, place: int, column: int) -> Figure | None:
    """The image with its labels and predictions; None where its file has gone."""
    pixels = stored_image(datasets, int(data.predictions.rows[place]), SIDE)
    return None if pixels is None else html.gray_figure(pixels, error_caption(data, place, column))


def error_caption(data: LabelledPredictions, place: int, column: int) -> str:
    """Effusion: 2 % · ground truth: Effusion, Mass · highest other: Nodule 40 % · PA F 51"""
    shares, labels = data.probabilities[place], data.labels[place]
    present = [finding_name(name) for name, label in zip(data.findings, labels, strict=True) if label == 1]
    highest = [at for at in np.argsort(-shares).tolist() if at != column][:2]
    others = ", ".join(f"{finding_name(data.findings[at])} {percent(shares[at])}" for at in highest)
    parts = [
        f"{finding_name(data.findings[column])}: {percent(shares[column])}",
        f"ground truth: {', '.join(present) or 'no finding'}",
        f"highest other: {others}" * bool(others),
        person(data.about.iloc[place]),
    ]
    return " · ".join(part for part in parts if part)


def stored_image(datasets: Datasets, row: int, side: int) -> np.ndarray | None:
    """An image by its row through all folders, its side at most so long; None where its file has gone."""
    for dataset in datasets:
        if row < len(dataset):
            break
        row -= len(dataset)
    try:
        pixels = np.asarray(dataset.image(row))
    except (ValueError, OSError):  # a linked file that has gone
        return None
    side = min(side, pixels.shape[0])
    return cv2.resize(pixels, (side, side), interpolation=cv2.INTER_AREA)
