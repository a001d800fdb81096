"""The worst errors of a detector: false positives with the highest scores, and ground-truth boxes that are missed."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ribcage.evaluation.labelled_detections import LabelledDetections, boxes_by_image, extents
from ribcage.metrics import froc
from ribcage.metrics.boxes import BoxTable
from ribcage.metrics.detection import HIT


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
        every += _errors(data, place, boxes_by_image(boxes.true).select(late), best[late], false)
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
