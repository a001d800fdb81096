"""Baselines of a detector: the mean training box in every image, and its own detections permuted among the images."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ribcage.data.collection import Datasets
from ribcage.data.label_policy import IGNORE, Policy
from ribcage.evaluation.classification import LEVEL
from ribcage.evaluation.labelled_detections import LabelledDetections
from ribcage.inference import detections
from ribcage.metrics import froc
from ribcage.metrics.box_precision import precisions
from ribcage.metrics.boxes import BoxTable
from ribcage.metrics.detection import FindingBoxes, bootstrap_detection
from ribcage.metrics.detection_evaluation import DetectionBaselines, MeanBoxRow, ShuffledDetections
from ribcage.metrics.estimates import (
    MeanEstimate,
    MetricRow,
    ScalarEstimate,
    mean_estimate,
    optional_float,
    scalar_estimate,
)
from ribcage.metrics.matching import match_boxes
from ribcage.metrics.resampling import Resampled
from ribcage.runtime import rng

BASELINE = ("map", "map_positives", "centre_mean")
"""Metrics of the baselines and subgroups."""
SHUFFLES = 20


@dataclass(frozen=True)
class BoxBaselineData:
    """Ground-truth boxes of the images that the baseline is fitted to."""

    name: str
    """Description of the images."""
    boxes: np.ndarray
    """(F, 4) mean box of each finding, relative to the image's side; NaN if the finding has no box."""

    @classmethod
    def of(
        cls, name: str, data: Datasets, rows: np.ndarray, findings: Sequence[str], policy: Policy = IGNORE
    ) -> "BoxBaselineData":
        """From these rows of the datasets."""
        scale = data.sides(rows)
        true = [detections.truth(data, rows, finding, policy) for finding in findings]
        shares = [each.boxes / scale[each.images][:, None] for each in true]
        return cls(name, np.array([one.mean(axis=0) if len(one) else np.full(4, np.nan) for one in shares]))


def box_means(found: dict[str, Resampled]) -> dict[str, MeanEstimate]:
    """Mean over the findings for which each metric is defined, and their number."""
    return {
        name: mean_estimate(values.macro().interval(LEVEL), int((~np.isnan(values.value)).sum()))
        for name, values in found.items()
    }


def detection_baselines(
    data: LabelledDetections, fitting: BoxBaselineData | None, *, resamples: int, seed: int
) -> DetectionBaselines:
    """Baselines of a test: the mean training box in every image, and the detector's boxes in permuted images."""
    shuffled = shuffled_detections(data, seed)
    if fitting is None:
        return DetectionBaselines(fitted_on="", shuffled=shuffled)
    boxes = [mean_box(data, place, box, seed) for place, box in enumerate(fitting.boxes)]
    found = bootstrap_detection(boxes, data.patients, resamples=resamples, seed=seed)
    limits = {name: found[name].interval(LEVEL) for name in BASELINE}
    undefined, means = np.isnan(fitting.boxes).any(axis=1), box_means(found)
    return DetectionBaselines(
        fitted_on=fitting.name,
        shuffled=shuffled,
        mean_box=tuple(
            MeanBoxRow(
                finding=name,
                box=None if undefined[place] else tuple(fitting.boxes[place].tolist()),
                metrics={key: scalar_estimate(values, place) for key, values in limits.items()},
            )
            for place, name in enumerate(data.findings)
        ),
        mean_box_macro={name: means[name] for name in BASELINE},
    )


def mean_box(data: LabelledDetections, place: int, box: np.ndarray, seed: int) -> FindingBoxes:
    """The same box in every image. Scores are random: with equal scores the ranking would be the order of the
    images."""
    boxes, images = data.boxes[place], np.arange(len(data))
    if np.isnan(box).any():
        return replace(boxes, found=BoxTable.none())
    scores = rng.uniform(seed, place, images, rng.METHOD, 1)[:, 0]
    return FindingBoxes.of(BoxTable(images, box * data.sides[:, None], scores), boxes.true, len(data), boxes.known)


def shuffled_detections(data: LabelledDetections, seed: int) -> ShuffledDetections:
    """Metrics with the detections permuted among the images: median and 95 % range over the permutations."""
    rounds = [_shuffled_metrics(data, seed, time) for time in range(SHUFFLES)]
    findings, means = [], {}
    for key in BASELINE:
        drawn = np.array([each[key] for each in rounds])  # (rounds, F)
        findings.append([_percentiles(column) for column in drawn.T])
        defined = ~np.isnan(drawn).all(axis=0)
        means[key] = _percentiles(drawn[:, defined].mean(axis=1)) if defined.any() else ScalarEstimate()
    rows = [
        MetricRow(finding=name, metrics={key: findings[at][place] for at, key in enumerate(BASELINE)})
        for place, name in enumerate(data.findings)
    ]
    return ShuffledDetections(times=SHUFFLES, findings=tuple(rows), macro=means)


def _shuffled_metrics(data: LabelledDetections, seed: int, time: int) -> dict[str, np.ndarray]:
    """(F,) each metric for one permutation of the images that count for the finding."""
    values = []
    for boxes in data.boxes:
        there = np.flatnonzero(boxes.known)
        target = np.arange(len(data))
        target[there] = there[rng.permutation(seed, time, len(there))]
        images = target[boxes.found.images]
        scale = data.sides[images] / data.sides[boxes.found.images]
        moved = BoxTable(images, boxes.found.boxes * scale[:, None], boxes.found.scores)
        values.append(_quick(replace(boxes, found=moved)))
    return {key: np.array([each[key] for each in values]) for key in BASELINE}


def _quick(boxes: FindingBoxes) -> dict[str, float]:
    """The baseline metrics of one finding, without resamples."""
    images, once = np.arange(boxes.count), np.ones((boxes.count, 1), np.int32)
    matches = match_boxes(boxes.found, boxes.true, boxes.count)
    events = froc.froc_events(boxes.found, boxes.true, boxes.count)
    return {
        "map": precisions(matches, images, once).mean(),
        "map_positives": precisions(matches.select(matches.truths > 0), images, once).mean(),
        "centre_mean": froc.sensitivities(events, boxes.known, images, once).mean(),
    }


def _percentiles(values: np.ndarray) -> ScalarEstimate:
    if np.isnan(values).any():
        return ScalarEstimate()
    return ScalarEstimate(*map(optional_float, np.percentile(values, [50, 2.5, 97.5])))
