"""Observed: how a model fared on validation, kept with it – AUROC with its interval, and for images that it answered
alike how many of them had the finding.

Images are ordered by their probability and halved from the top: the surest half of what is left is a band of its own
as long as it holds enough images. So the bands are narrow where a finding is likely. Intervals are those of
`metrics.intervals`: several images of one patient tell less than as many of several.
"""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from ribcage.metrics import intervals, placements
from ribcage.metrics.patients import patient_numbers

FEWEST = 30
"""Images of a band, at least."""
BANDS = 10


@dataclass(frozen=True)
class ReliabilityBin:
    """Images whose probabilities lie beside each other."""

    low: float
    """The least probability of the band; the lowest band also has what is below it."""
    images: int
    positives: int
    least: float
    """Limits of the share of positives, 95 %."""
    most: float


def of(probabilities: np.ndarray, labels: np.ndarray, patients: np.ndarray | None = None) -> list[dict[str, Any]]:
    """For each finding, as plain numbers: images and positives that are known, AUROC with limits, and bands.

    probabilities, labels: (N, F); NaN is a label that nobody knows.
    """
    codes = patient_numbers(patients, len(labels))
    found = placements.delong(probabilities, labels, codes).interval()
    return [
        {
            "images": int((~np.isnan(labels[:, f])).sum()),
            "positives": int((labels[:, f] == 1).sum()),
            "auroc": [_number(one[f]) for one in (found.value, found.low, found.high)],
            "bands": [
                list(vars(one).values()) for one in reliability_bins_of(probabilities[:, f], labels[:, f], codes)
            ],
        }
        for f in range(labels.shape[1])
    ]


def reliability_bins_of(probabilities: np.ndarray, labels: np.ndarray, codes: np.ndarray) -> list[ReliabilityBin]:
    """Of one finding (N,), the least likely first; equal probabilities are never parted."""
    rows = np.flatnonzero(~np.isnan(labels))
    rows = rows[np.argsort(probabilities[rows], kind="stable")]
    made, ordered = [], probabilities[rows]
    for start, end in _cuts(ordered):
        here = rows[start:end]
        least, most = positive_share_limits(labels[here], codes[here])
        made.append(ReliabilityBin(float(ordered[start]), len(here), int((labels[here] == 1).sum()), least, most))
    return made


def _cuts(ordered: np.ndarray) -> list[tuple[int, int]]:
    """Where bands of ascending probabilities begin and end."""
    starts = [0] if len(ordered) else []
    while len(starts) < BANDS and starts:
        middle = int(np.searchsorted(ordered, ordered[(starts[-1] + len(ordered)) // 2]))  # the first of its equals
        if middle - starts[-1] < FEWEST or len(ordered) - middle < FEWEST:
            break
        starts.append(middle)
    return list(pairwise([*starts, len(ordered)]))


def positive_share_limits(labels: np.ndarray, codes: np.ndarray) -> tuple[float, float]:
    """Wilson's limits of the share of ones among (n,) labels of these patients; 0 to 1 of one patient."""
    owners = np.unique(codes, return_inverse=True)[1]
    parts, wholes = (np.bincount(owners, each)[:, None] for each in (labels, np.ones(len(labels))))
    found = intervals.wilson(*intervals.ratio(parts, wholes, np.full(1, len(labels))), kind="count")
    return (0.0, 1.0) if np.isnan(found.low[0]) else (float(found.low[0]), float(found.high[0]))


def bin_of(finding: dict[str, Any], probability: float) -> ReliabilityBin | None:
    """The band that a probability lies in; None where there are none."""
    made = [ReliabilityBin(*band) for band in finding["bands"]]
    return next((band for band in reversed(made) if band.low <= probability), made[0]) if made else None


def is_reliability(value: Any) -> bool:
    """Whether a value of JSON is what `of` makes."""
    return isinstance(value, list) and all(map(_fits_one, value))


def _fits_one(value: Any) -> bool:
    if not isinstance(value, dict) or set(value) != {"images", "positives", "auroc", "bands"}:
        return False
    auroc, made = value["auroc"], value["bands"]
    if not (isinstance(auroc, list) and len(auroc) == 3 and all(one is None or _plain(one) for one in auroc)):
        return False
    if not (isinstance(made, list) and len(made) <= BANDS):
        return False
    return all(map(_plain, (value["images"], value["positives"]))) and all(
        isinstance(band, list) and len(band) == 5 and all(map(_plain, band)) for band in made
    )


def _plain(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value >= 0


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
