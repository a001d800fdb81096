"""Images with the boxes of a detector: examples, then the worst false negatives and false positives."""

from dataclasses import dataclass

import numpy as np

from ribcage.data.collection import Datasets
from ribcage.evaluation.detection_errors import Error, false_positives, missed_boxes
from ribcage.evaluation.labelled_detections import RATE, LabelledDetections
from ribcage.metrics.detection import HIT
from ribcage.reports import html
from ribcage.reports.html import Box, Figure
from ribcage.reports.numbers import finding_name, person
from ribcage.reports.worst_errors import stored_image

SIDE = 256  # pixels of an image on the page
MOST_BOXES = 12  # drawn in one image
COLOURS = (
    "Ground-truth boxes are orange; detections above the score threshold for one false positive per image are blue."
)


@dataclass(frozen=True)
class FigureGroup:
    """Images under one heading."""

    name: str
    note: str
    figures: list[Figure]


def detection_figures(data: LabelledDetections, datasets: Datasets, most: int) -> list[FigureGroup]:
    """Examples, false negatives and false positives, half of `most` each."""
    late = (
        f"These ground-truth boxes were missed (no detection has an IoU of {HIT:g} or more with the box), or were "
        f"detected only with a score below the scores of many false positives."
    )
    sure = "These are the highest-scoring detections that match no ground-truth box."
    drawn = np.unique(np.concatenate([boxes.true.images for boxes in data.boxes]))
    some = drawn[np.unique(np.linspace(0, len(drawn) - 1, most // 2).astype(int))].tolist() if most > 1 else []
    groups: list[tuple[str, str, list[tuple[int, Error | None]]]] = [
        (
            "Examples",
            "These images were selected at regular intervals from all images with ground-truth boxes.",
            [(image, None) for image in some],
        ),
        ("False negatives", late, [(error.image, error) for error in missed_boxes(data, most // 2)]),
        ("False positives", sure, [(error.image, error) for error in false_positives(data, most // 2)]),
    ]
    return [
        FigureGroup(name, f"{note} {COLOURS}", [one for pair in pairs if (one := box_figure(data, datasets, *pair))])
        for name, note, pairs in groups
    ]


def box_figure(data: LabelledDetections, datasets: Datasets, image: int, error: Error | None) -> Figure | None:
    """An image with ground-truth boxes and detections; of an error only those of its own finding."""
    pixels = stored_image(datasets, int(data.rows[image]), SIDE)
    if pixels is None:
        return None
    scale = len(pixels) / data.sides[image]
    true, found = [], []
    for place, boxes in enumerate(data.boxes):
        if error is None or error.finding == place:
            true.append(boxes.true.boxes[boxes.true.images == image])
            own = boxes.found.select((boxes.found.images == image) & (boxes.found.scores >= data.shown[place]))
            found.append(own.boxes[np.argsort(-own.scores, kind="stable")][:MOST_BOXES])
    sides = [_with_sides(np.concatenate(each) * scale) for each in (true, found)]
    return html.gray_figure(pixels, box_caption(data, image, error), *sides)


def _with_sides(boxes: np.ndarray) -> list[Box]:
    """Corners → x, y, width, height of each."""
    return [(x0, y0, x1 - x0, y1 - y0) for x0, y0, x1, y1 in boxes.tolist()]


def box_caption(data: LabelledDetections, image: int, error: Error | None) -> str:
    """Lung Opacity, size 21 %: first detected at 3.2 false positives per image · PA F 51"""
    what = _labels(data, image) if error is None else error_text(data, error)
    return " · ".join(part for part in (what, person(data.about.iloc[image])) if part)


def _labels(data: LabelledDetections, image: int) -> str:
    """Lung Opacity × 2"""
    counts = zip(data.findings, ((each.true.images == image).sum() for each in data.boxes), strict=True)
    return ", ".join(f"{finding_name(name)} × {count}" for name, count in counts if count)


def error_text(data: LabelledDetections, error: Error) -> str:
    """Lung Opacity, size 21 %: score 0.83"""
    name = f"{finding_name(data.findings[error.finding])}, size {100 * error.size:.0f} %"
    if not np.isfinite(error.false):
        return f"{name}: not detected"
    if error.score < data.shown[error.finding] and error.false > RATE:
        return f"{name}: first detected at {error.false:.2g} false positives per image"
    return f"{name}: score {error.score:.2g}"
