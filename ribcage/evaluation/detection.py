"""Detection: detections beside ground-truth boxes → every number of the report.

All detections count, whatever their score; only `kaggle` needs a score threshold, which validation chose. An image that
is positive for a finding but has no box of it is left out for that finding: its boxes may be anywhere.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd

from ribcage.data.collection import Datasets
from ribcage.data.findings import Policy
from ribcage.evaluation.classification import LEVEL
from ribcage.evaluation.labelled import patient_names
from ribcage.evaluation.notes import unknown_patients_note
from ribcage.evaluation.subgroups import groupings
from ribcage.inference import detections
from ribcage.inference.detections import Detections
from ribcage.metrics import froc
from ribcage.metrics.box_precision import precisions
from ribcage.metrics.boxes import BoxTable
from ribcage.metrics.detection import HIT, FindingBoxes, bootstrap_detection
from ribcage.metrics.evaluation import (
    BoxGap,
    BoxSubgroup,
    DetectedFinding,
    DetectionBaselines,
    DetectionEvaluation,
    MeanBoxRow,
    MeanEstimate,
    MetricRow,
    Protocol,
    ScalarEstimate,
    ShuffledDetections,
    SizeBin,
    mean_estimate,
    optional_float,
    scalar_estimate,
)
from ribcage.metrics.image_precision import best_score_threshold
from ribcage.metrics.matching import match_boxes
from ribcage.metrics.resampling import Resampled, bootstrap_gap
from ribcage.runtime import rng

BASELINE = ("map", "map_positives", "centre_mean")
"""Metrics of baselines and subgroups."""
SHUFFLES = 20
RATE = 1.0
"""False positives per image at which sizes are reported and images are shown."""
SIZES = 10


@dataclass(frozen=True)
class LabelledDetections:
    """Detections in some images, and the ground-truth boxes."""

    findings: tuple[str, ...]
    """Those with at least one ground-truth box."""
    boxes: tuple[FindingBoxes, ...]
    """Of each finding."""
    about: pd.DataFrame
    """(N rows): set, row, path, patient, split, view, sex, age …"""
    rows: np.ndarray
    """(N,) int64, rows of the `Datasets`."""
    sides: np.ndarray
    """(N,) of the stored squares, whose pixels the boxes are in."""
    thresholds: tuple[float | None, ...] | None = None
    """The score threshold of each finding, chosen on validation; None: the model has none."""

    def __len__(self) -> int:
        return len(self.about)

    @cached_property
    def patients(self) -> np.ndarray:
        """(N,) a name per patient, distinct between datasets; "" where unknown."""
        return patient_names(self.about)

    @cached_property
    def events(self) -> tuple[froc.Events, ...]:
        """Of each finding, hit by the centre."""
        return tuple(froc.froc_events(each.found, each.true, len(self)) for each in self.boxes)

    @cached_property
    def shown(self) -> np.ndarray:
        """(F,) the score at which there is one false mark per image."""
        curves = [
            froc.froc_curve(events, int(each.known.sum())) for events, each in zip(self.events, self.boxes, strict=True)
        ]
        return np.array([scores[false <= RATE][-1] for false, _, scores in curves])


@dataclass(frozen=True)
class BoxBaselineData:
    """Ground-truth boxes of other images, which the baseline is fitted to."""

    name: str
    """Of the images."""
    boxes: np.ndarray
    """(F, 4) the mean box of each finding, in shares of the image's side; NaN where none is drawn."""

    @classmethod
    def of(cls, name: str, data: Datasets, rows: np.ndarray, findings: Sequence[str]) -> "BoxBaselineData":
        """Of these rows."""
        scale = data.sides(rows)
        true = [detections.truth(data, rows, finding) for finding in findings]
        shares = [each.boxes / scale[each.images][:, None] for each in true]
        return cls(name, np.array([one.mean(axis=0) if len(one) else np.full(4, np.nan) for one in shares]))


def labelled_detections(
    found: Detections,
    data: Datasets,
    rows: np.ndarray,
    policy: Policy,
    thresholds: Sequence[float | None] | None = None,
) -> LabelledDetections:
    """Detections with the ground-truth boxes of these rows, which ascend; findings without any box are left out.

    thresholds: a score for each of the detector's findings.
    """
    true = {name: detections.truth(data, rows, name) for name in found.findings}
    drawn = [place for place, name in enumerate(found.findings) if len(true[name])]
    if not drawn:
        there = sorted({str(name) for dataset in data for name in dataset.index.boxes["finding"].unique()})
        raise ValueError(
            f"None of these images has a box of {', '.join(found.findings)}, which the detector predicts; the "
            f"datasets have boxes of {', '.join(there) or 'no finding'}."
        )
    known = detections.drawn(data, rows, found.findings, policy)
    names = tuple(found.findings[place] for place in drawn)
    boxes = [
        FindingBoxes.of(found.marks(name), true[name], len(rows), known[:, place])
        for name, place in zip(names, drawn, strict=True)
    ]
    chosen = None if thresholds is None else tuple(thresholds[place] for place in drawn)
    return LabelledDetections(names, tuple(boxes), found.images, rows, data.sides(rows), chosen)


# ---- everything


def evaluate_detector(
    data: LabelledDetections,
    *,
    protocol: Protocol = "honest",
    fitting: BoxBaselineData | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> DetectionEvaluation:
    """All numbers.

    protocol: peers chooses the score threshold on the tested images themselves.
    fitting: images that the baseline is fitted to.
    """
    if protocol == "peers":
        best = [best_score_threshold(each.found, each.true, len(data))[0] for each in data.boxes]
        data = replace(data, thresholds=tuple(score if np.isfinite(score) else None for score in best))
    thresholds = None if data.thresholds is None else [np.inf if one is None else one for one in data.thresholds]
    found = bootstrap_detection(data.boxes, data.patients, cuts=thresholds, resamples=resamples, seed=seed)
    result = DetectionEvaluation(
        images=len(data),
        patients=len(set(data.patients.tolist()) - {""}),
        protocol=protocol,
        level=LEVEL,
        resamples=resamples,
        seed=seed,
        findings=detected_findings(data, found),
        macro=box_means(found),
        baselines=detection_baselines(data, fitting, resamples=resamples, seed=seed),
        subgroups=detection_subgroups(data, resamples=resamples, seed=seed),
    )
    return replace(result, notes=detection_notes(data, result))


def detected_findings(data: LabelledDetections, found: dict[str, Resampled]) -> tuple[DetectedFinding, ...]:
    """One row per finding."""
    limits = {name: values.interval(LEVEL) for name, values in found.items()}
    return tuple(
        DetectedFinding(
            finding=name,
            n=int(boxes.known.sum()),
            positives=len(np.unique(boxes.true.images)),
            boxes=len(boxes.true),
            found=len(boxes.found),
            left_out=int((~boxes.known).sum()),
            threshold=None if data.thresholds is None else data.thresholds[place],
            metrics={key: scalar_estimate(values, place) for key, values in limits.items()},
            sizes=size_bins(data, place),
        )
        for place, (name, boxes) in enumerate(zip(data.findings, data.boxes, strict=True))
    )


def box_means(found: dict[str, Resampled]) -> dict[str, MeanEstimate]:
    """The mean over the findings that are defined, and over how many."""
    return {
        name: mean_estimate(values.macro().interval(LEVEL), int((~np.isnan(values.value)).sum()))
        for name, values in found.items()
    }


def size_bins(data: LabelledDetections, place: int) -> tuple[SizeBin, ...]:
    """How many boxes of each size there are, and how many are hit by the centre at `RATE` false positives per image. A
    size is the side of a square of the same area, as a share of the image's side."""
    boxes = data.boxes[place]
    best, _, _ = froc.best_hits(boxes.found, boxes.true, len(data))
    true = _by_image(boxes.true)
    share = extents(true) / data.sides[true.images]
    bins = int(np.clip(len(true) // 8, 1, SIZES))
    edges = np.linspace(share.min(), max(share.max(), share.min() + 1e-3), bins + 1)
    every, hit = (np.histogram(own, edges)[0].tolist() for own in (share, share[best >= data.shown[place]]))
    return tuple(
        SizeBin(low=low, high=high, boxes=there, found=found)
        for low, high, there, found in zip(edges.tolist(), edges[1:].tolist(), every, hit, strict=False)
    )


def extents(marks: BoxTable) -> np.ndarray:
    """(M,) the side of a square of the same area."""
    return np.sqrt(np.maximum(marks.boxes[:, 2:] - marks.boxes[:, :2], 0).prod(axis=1))


def _by_image(marks: BoxTable) -> BoxTable:
    return marks.select(np.argsort(marks.images, kind="stable"))


# ---- beside it


def detection_baselines(
    data: LabelledDetections, fitting: BoxBaselineData | None, *, resamples: int, seed: int
) -> DetectionBaselines:
    """The mean box in every image, and the detector's boxes in other images."""
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
    """The same box in every image. Its scores are drawn: equal ones would leave the order to that of the images."""
    boxes, images = data.boxes[place], np.arange(len(data))
    if np.isnan(box).any():
        return replace(boxes, found=BoxTable.none())
    scores = rng.uniform(seed, place, images, rng.METHOD, 1)[:, 0]
    return FindingBoxes.of(BoxTable(images, box * data.sides[:, None], scores), boxes.true, len(data), boxes.known)


def shuffled_detections(data: LabelledDetections, seed: int) -> ShuffledDetections:
    """With the detections permuted among the images: median and 95 % range of several permutations."""
    rounds = [_shuffled_metrics(data, seed, time) for time in range(SHUFFLES)]
    findings, means = [], {}
    for key in BASELINE:
        drawn = np.array([each[key] for each in rounds])  # (rounds, F)
        findings.append([_percentiles(column) for column in drawn.T])
        kept = ~np.isnan(drawn).all(axis=0)
        means[key] = _percentiles(drawn[:, kept].mean(axis=1)) if kept.any() else ScalarEstimate()
    rows = [
        MetricRow(finding=name, metrics={key: findings[at][place] for at, key in enumerate(BASELINE)})
        for place, name in enumerate(data.findings)
    ]
    return ShuffledDetections(times=SHUFFLES, findings=tuple(rows), macro=means)


def _shuffled_metrics(data: LabelledDetections, seed: int, time: int) -> dict[str, np.ndarray]:
    """(F,) each metric of one round. Only images that count for a finding take part."""
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
    """What baselines are told by, without resamples."""
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


def detection_subgroups(data: LabelledDetections, *, resamples: int, seed: int) -> tuple[BoxSubgroup, ...]:
    """The means over findings for each sex, age band, view, hospital and dataset that differ among the images."""
    rows = []
    for by, groups in groupings(data.about).items():
        names = sorted(set(groups.tolist()), key=lambda name: (name == "", name))
        for name in names if len(names) > 1 else []:
            inside = groups == name
            own, rest = _within(data, inside), _within(data, ~inside)
            found, others = (
                bootstrap_detection(each, data.patients, resamples=resamples, seed=seed) for each in (own, rest)
            )
            rows.append(
                BoxSubgroup(
                    by=by,
                    group=name or "unknown",
                    images=int(inside.sum()),
                    patients=len(set(data.patients[inside].tolist()) - {""}),
                    boxes=sum(len(each.true) for each in own),
                    macro={key: value for key, value in box_means(found).items() if key in BASELINE},
                    gap=BoxGap(
                        metrics={key: _gap(found[key], others[key]) for key in BASELINE},
                        images=int((~inside).sum()),
                        boxes=sum(len(each.true) for each in rest),
                    ),
                )
            )
    return tuple(rows)


def _within(data: LabelledDetections, inside: np.ndarray) -> list[FindingBoxes]:
    """The same, where other images are left out."""
    return [FindingBoxes.of(each.found, each.true, len(data), each.known & inside) for each in data.boxes]


def _gap(own: Resampled, others: Resampled) -> MeanEstimate:
    """The mean of these images minus that of all others, over the findings that have boxes in both."""
    found = bootstrap_gap(own, others)
    return mean_estimate(found.macro().interval(LEVEL), int((~np.isnan(found.value)).sum()))


def detection_notes(data: LabelledDetections, found: DetectionEvaluation) -> tuple[str, ...]:
    """What was left out, and where an interval or a threshold is missing."""
    texts = []
    if left := [f"{row.finding} {row.left_out:,}" for row in found.findings if row.left_out]:
        texts.append(
            f"Images are left out that are positive or uncertain for a finding without a box: {', '.join(left)}."
        )
    if alone := [row.finding for row in found.findings if row.metrics["map"].low is None]:
        texts.append(
            f"{', '.join(alone)}: all boxes are of one patient, so there is no variance and no interval. The interval "
            "of the mean counts such a finding with the largest possible error."
        )
    texts += unknown_patients_note(int((data.about["patient"] == "").sum()))
    if data.thresholds is None:
        texts.append("The model has no score threshold from validation, so the per-image precision is not given.")
    return tuple(texts)


# ---- the worst of it


@dataclass(frozen=True)
class Error:
    """One box that is wrong, or is missed."""

    image: int
    finding: int
    box: np.ndarray
    """(4,)"""
    score: float
    """Of a false mark; of a missed box that of the best hit, -inf without any."""
    false: float
    """False marks per image at or above this score; inf for a box that is never hit."""
    size: float
    """Side of a square of the same area, as a share of the image's side."""


def missed_boxes(data: LabelledDetections, most: int) -> list[Error]:
    """True boxes that nothing overlaps by `HIT` until there is one false mark per image, one of each image: those
    found after most false marks or never, of these the larger first."""
    every = []
    for place, boxes in enumerate(data.boxes):
        best, hitting, _ = froc.best_hits(boxes.found, boxes.true, len(data), HIT)
        false = boxes.found.scores[~hitting]
        late = best < data.shown[place]
        every += _errors(data, place, _by_image(boxes.true).select(late), best[late], false)
    return _one_each(sorted(every, key=lambda error: (-error.false, -error.size)), most)


def false_marks(data: LabelledDetections, most: int) -> list[Error]:
    """Found boxes that overlap no true one by `HIT` and have no centre in one, one of each image: the surest first,
    by how few others are as sure."""
    every = []
    for place, boxes in enumerate(data.boxes):
        hitting, centred = (froc.best_hits(boxes.found, boxes.true, len(data), by)[1] for by in (HIT, None))
        marks = boxes.found.select(~hitting & ~centred)
        marks = marks.select(np.argsort(-marks.scores, kind="stable")[: 100 * most])
        every += _errors(data, place, marks, marks.scores, boxes.found.scores[~hitting])
    return _one_each(sorted(every, key=lambda error: (error.false, -error.size)), most)


def _errors(
    data: LabelledDetections, place: int, marks: BoxTable, scores: np.ndarray, false: np.ndarray
) -> list[Error]:
    """false: (K,) the scores of all false marks."""
    above = len(false) - np.searchsorted(np.sort(false), scores, side="left")
    share = np.where(np.isfinite(scores), above / max(int(data.boxes[place].known.sum()), 1), np.inf)
    size = extents(marks) / data.sides[marks.images]
    columns = zip(marks.images.tolist(), marks.boxes, scores.tolist(), share.tolist(), size.tolist(), strict=True)
    return [Error(image, place, box, *numbers) for image, box, *numbers in columns]


def _one_each(errors: Sequence[Error], most: int) -> list[Error]:
    """The first of each image."""
    chosen: dict[int, Error] = {}
    for error in errors:
        if len(chosen) < most:
            chosen.setdefault(error.image, error)
    return list(chosen.values())
