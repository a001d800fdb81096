"""Detection: detections and ground-truth boxes → all numbers of a report.

Detections of every score count; only the precision per image needs a score threshold, chosen on validation images. An
image that is positive for a finding but has no box of it is left out for that finding: its boxes are unknown.
"""

from dataclasses import replace

import numpy as np

from ribcage.evaluation.classification import LEVEL
from ribcage.evaluation.detection_baselines import BASELINE, BoxBaselineData, box_means, detection_baselines
from ribcage.evaluation.labelled_detections import LabelledDetections, boxes_by_image, extents
from ribcage.evaluation.notes import unknown_patients_note
from ribcage.evaluation.subgroups import groupings
from ribcage.metrics import froc
from ribcage.metrics.detection import FindingBoxes, bootstrap_detection
from ribcage.metrics.detection_evaluation import (
    BoxGap,
    BoxSubgroup,
    DetectedFinding,
    DetectionEvaluation,
    SizeBin,
)
from ribcage.metrics.estimates import (
    MeanEstimate,
    mean_estimate,
    scalar_estimate,
)
from ribcage.metrics.evaluation import Protocol
from ribcage.metrics.image_precision import best_score_threshold
from ribcage.metrics.resampling import Resampled, bootstrap_gap
from ribcage.metrics.summaries import UNKNOWN_GROUP

SIZES = 10


def evaluate_detector(
    data: LabelledDetections,
    *,
    protocol: Protocol = "honest",
    fitting: BoxBaselineData | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> DetectionEvaluation:
    """Evaluate the boxes of a detector.

    protocol: "peers" chooses the score thresholds on the test images themselves.
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


def size_bins(data: LabelledDetections, place: int) -> tuple[SizeBin, ...]:
    """Number of boxes per size, and how many are hit by the centre at `RATE` false positives per image. The size is the
    side of a square of the same area, relative to the image's side."""
    boxes = data.boxes[place]
    best, _, _ = froc.best_hits(boxes.found, boxes.true, len(data))
    true = boxes_by_image(boxes.true)
    share = extents(true) / data.sides[true.images]
    bins = int(np.clip(len(true) // 8, 1, SIZES))
    edges = np.linspace(share.min(), max(share.max(), share.min() + 1e-3), bins + 1)
    every, hit = (np.histogram(own, edges)[0].tolist() for own in (share, share[best >= data.shown[place]]))
    return tuple(
        SizeBin(low=low, high=high, boxes=there, found=found)
        for low, high, there, found in zip(edges.tolist(), edges[1:].tolist(), every, hit, strict=False)
    )


def detection_subgroups(data: LabelledDetections, *, resamples: int, seed: int) -> tuple[BoxSubgroup, ...]:
    """Mean metrics over findings for each sex, age band, view, hospital and dataset, where there are several."""
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
                    group=name or UNKNOWN_GROUP,
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
    """The boxes of each finding, restricted to these images."""
    return [FindingBoxes.of(each.found, each.true, len(data), each.known & inside) for each in data.boxes]


def _gap(own: Resampled, others: Resampled) -> MeanEstimate:
    """Mean metric of these images minus that of all others, over the findings that have boxes in both."""
    found = bootstrap_gap(own, others)
    return mean_estimate(found.macro().interval(LEVEL), int((~np.isnan(found.value)).sum()))


def detection_notes(data: LabelledDetections, found: DetectionEvaluation) -> tuple[str, ...]:
    """Notes on what was left out, and on missing intervals and thresholds."""
    texts = []
    if left := [f"{row.finding} ({row.left_out:,})" for row in found.findings if row.left_out]:
        texts.append(
            f"Images that are positive or uncertain for a finding but have no box are excluded: {', '.join(left)}."
        )
    if alone := [row.finding for row in found.findings if row.metrics["map"].low is None]:
        texts.append(
            f"{', '.join(alone)}: all boxes belong to one patient, so neither a variance nor an interval can be "
            "estimated. The interval of the mean assumes the largest possible standard error for such findings."
        )
    texts += unknown_patients_note(int((data.about["patient"] == "").sum()))
    if data.thresholds is None:
        texts.append(
            "The model has no score threshold chosen on a validation split, so per-image precision is not reported."
        )
    return tuple(texts)
