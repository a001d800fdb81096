"""Curves of a detector, one row of plots for each finding: FROC, precision–recall, sizes, scores."""

from collections.abc import Sequence

import numpy as np
from markupsafe import Markup

from ribcage.evaluation.labelled_detections import LabelledDetections
from ribcage.metrics import froc
from ribcage.metrics.detection import HIT
from ribcage.metrics.detection_evaluation import DetectionEvaluation, SizeBin
from ribcage.metrics.matching import THRESHOLDS, match_boxes
from ribcage.reports import svg
from ribcage.reports.numbers import finding_name
from ribcage.reports.svg import Axes, Dots, Line

RATE_TICKS = tuple((float(np.log2(rate)), text) for rate, text in ((0.125, "1/8"), (0.5, "1/2"), (2, "2"), (8, "8")))
LEGEND = (
    (
        "main",
        "FROC, where a detection is a hit if its centre lies inside a ground-truth box; "
        "precision–recall at IoU .50; sizes of the detected boxes; scores "
        "of the true positives",
    ),
    (
        "other",
        f"FROC, where a detection is a hit if its IoU with a ground-truth box is at least {HIT:g}; "
        "precision–recall at IoU .40; sizes of all ground-truth boxes; scores "
        "of the false positives",
    ),
)


def detection_curve_groups(result: DetectionEvaluation, data: LabelledDetections) -> list[tuple[str, list[Markup]]]:
    """(heading, four plots) of every finding."""
    return [
        (
            finding_name(row.finding),
            [
                froc_plot(data, place),
                box_precision_recall_plot(data, place),
                size_plot(row.sizes),
                box_score_histogram(data, place),
            ],
        )
        for place, row in enumerate(result.findings)
    ]


def froc_plot(data: LabelledDetections, place: int) -> Markup:
    """Sensitivity against false positives per image, on a scale of doublings."""
    boxes, at = data.boxes[place], np.linspace(-3, 3, 121)
    images, lines, dots = int(boxes.known.sum()), [], []
    by_overlap = froc.froc_events(boxes.found, boxes.true, len(data), HIT)
    for events, kind in ((by_overlap, "other"), (data.events[place], "main")):
        false, sensitivity, _ = froc.froc_curve(events, images)
        lines.append(Line(at, sensitivity[np.searchsorted(false, 2**at, side="right") - 1], kind))
        rates = np.array(froc.RATES)
        own = sensitivity[np.searchsorted(false, rates, side="right") - 1]
        dots.append(Dots(np.log2(rates), own, "other" if kind == "other" else ""))
    axes = Axes((-3, 3), (0, 1), "false positives per image", "sensitivity", RATE_TICKS)
    return svg.plot("FROC", [*lines, *dots], axes)


def box_precision_recall_plot(data: LabelledDetections, place: int) -> Markup:
    """Precision against recall at two overlaps."""
    boxes = data.boxes[place]
    matches = match_boxes(boxes.found, boxes.true, len(data))
    lines = []
    for at, kind in ((0, "other"), (THRESHOLDS.index(0.5), "main")):
        right = np.cumsum(matches.right[at])
        precision = right / np.arange(1, len(right) + 1)
        best = np.maximum.accumulate(precision[::-1])[::-1]
        lines.append(Line(right / max(len(boxes.true), 1), best, kind))
    return svg.plot("Precision–recall", lines, Axes(x_label="recall", y_label="precision"))


def size_plot(sizes: Sequence[SizeBin]) -> Markup:
    """Ground-truth boxes by size, and how many of them are detected."""
    edges = np.array([sizes[0].low, *(each.high for each in sizes)])
    top, ticks = svg.nice(max(each.boxes for each in sizes))
    steps = np.repeat(edges, 2)[1:-1]
    parts: list[Line | Dots] = [
        Line(steps, np.repeat(np.array(counts, float), 2), kind)
        for counts, kind in (
            ([each.boxes for each in sizes], "other-area"),
            ([each.found for each in sizes], "main-area"),
        )
    ]
    low, high = float(edges[0]), float(edges[-1])
    marks = [(value, f"{100 * value:.0f} %") for value in (low, (low + high) / 2, high)]
    axes = Axes((low, high), (0, top), "size, fraction of the image side", "boxes", marks, ticks)
    return svg.plot("Sizes", parts, axes)


def box_score_histogram(data: LabelledDetections, place: int) -> Markup:
    """Scores of true positives and of false positives."""
    boxes = data.boxes[place]
    hitting = froc.best_hits(boxes.found, boxes.true, len(data))[1]
    scores = boxes.found.scores
    low, high = (float(scores.min()), float(scores.max())) if len(scores) else (0.0, 1.0)
    edges = np.linspace(low, max(high, low + 1e-6), 31)
    shares = [np.histogram(scores[own], edges)[0] / max(int(own.sum()), 1) for own in (~hitting, hitting)]
    parts: list[Line | Dots] = [
        Line(np.repeat(edges, 2)[1:-1], np.repeat(share, 2), kind)
        for share, kind in zip(shares, ("other-area", "main-area"), strict=True)
    ]
    top = max(float(share.max()) for share in shares) or 1.0
    ticks = [(float(value), f"{value:.2g}") for value in (edges[0], (edges[0] + edges[-1]) / 2, edges[-1])]
    axes = Axes((float(edges[0]), float(edges[-1])), (0, top), "score", "fraction of the class", ticks, ())
    return svg.plot("Scores", parts, axes)
