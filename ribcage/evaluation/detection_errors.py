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
    """A false positive, or a missed ground-truth box."""

    image: int
    finding: int
    box: np.ndarray
    """(4,)"""
    score: float
    """Score of a false positive; for a missed box, the highest score that hits it, -inf without one."""
    false: float
    """False positives per image at this score threshold; inf for a box that is never hit."""
    size: float
    """Side of a square of the same area, relative to the image's side."""


def missed_boxes(data: LabelledDetections, most: int) -> list[Error]:
    """Ground-truth boxes without a detection of IoU ≥ `HIT` at `RATE` false positives per image, at most one per image.
    Sorted by the false positives per image at which they are found, most first, then by size."""
    every = []
    for place, boxes in enumerate(data.boxes):
        best, hitting, _ = froc.best_hits(boxes.found, boxes.true, len(data), HIT)
        false = boxes.found.scores[~hitting]
        late = best < data.shown[place]
        every += _errors(data, place, boxes_by_image(boxes.true).select(late), best[late], false)
    return _one_each(sorted(every, key=lambda error: (-error.false, -error.size)), most)


def false_positives(data: LabelledDetections, most: int) -> list[Error]:
    """Detections without a ground-truth box of IoU ≥ `HIT` or with their centre inside, at most one per image, by
    falling score: fewest false positives per image at that score first."""
    every = []
    for place, boxes in enumerate(data.boxes):
        hitting, centred = (froc.best_hits(boxes.found, boxes.true, len(data), by)[1] for by in (HIT, None))
        boxes_left = boxes.found.select(~hitting & ~centred)
        boxes_left = boxes_left.select(np.argsort(-boxes_left.scores, kind="stable")[: 100 * most])
        every += _errors(data, place, boxes_left, boxes_left.scores, boxes.found.scores[~hitting])
    return _one_each(sorted(every, key=lambda error: (error.false, -error.size)), most)


def _errors(
    data: LabelledDetections, place: int, wrong: BoxTable, scores: np.ndarray, false: np.ndarray
) -> list[Error]:
    """false: (K,) scores of all false positives."""
    above = len(false) - np.searchsorted(np.sort(false), scores, side="left")
    share = np.where(np.isfinite(scores), above / max(int(data.boxes[place].known.sum()), 1), np.inf)
    size = extents(wrong) / data.sides[wrong.images]
    columns = zip(wrong.images.tolist(), wrong.boxes, scores.tolist(), share.tolist(), size.tolist(), strict=True)
    return [Error(image, place, box, *numbers) for image, box, *numbers in columns]


def _one_each(errors: Sequence[Error], most: int) -> list[Error]:
    """The first error of each image."""
    chosen: dict[int, Error] = {}
    for error in errors:
        if len(chosen) < most:
            chosen.setdefault(error.image, error)
    return list(chosen.values())
