"""Detections in images whose ground-truth boxes are known.

An image that is positive for a finding but has no box of it is left out for that finding: its boxes may be anywhere.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from ribcage.data.collection import Datasets
from ribcage.data.label_policy import Policy
from ribcage.evaluation.labelled import patient_names
from ribcage.inference import detections
from ribcage.inference.detections import Detections
from ribcage.metrics import froc
from ribcage.metrics.boxes import BoxTable
from ribcage.metrics.detection import FindingBoxes

RATE = 1.0
"""False positives per image at which recall by box size and missed boxes are reported."""


@dataclass(frozen=True)
class LabelledDetections:
    """Detections in some images with the ground-truth boxes."""

    findings: tuple[str, ...]
    """Findings with at least one ground-truth box."""
    boxes: tuple[FindingBoxes, ...]
    """Per finding."""
    about: pd.DataFrame
    """(N rows): set, row, path, patient, split, view, sex, age …"""
    rows: np.ndarray
    """(N,) int64, rows of the `Datasets`."""
    sides: np.ndarray
    """(N,) side of the stored images, in whose pixels the boxes are."""
    thresholds: tuple[float | None, ...] | None = None
    """The score threshold of each finding, chosen on validation images; None if the model has none."""

    def __len__(self) -> int:
        return len(self.about)

    @cached_property
    def patients(self) -> np.ndarray:
        """(N,) a name per patient, distinct between datasets; "" where unknown."""
        return patient_names(self.about)

    @cached_property
    def events(self) -> tuple[froc.Events, ...]:
        """FROC events per finding; a hit contains the centre of the box."""
        return tuple(froc.froc_events(each.found, each.true, len(self)) for each in self.boxes)

    @cached_property
    def shown(self) -> np.ndarray:
        """(F,) the score threshold with `RATE` false positives per image."""
        curves = [
            froc.froc_curve(events, int(each.known.sum())) for events, each in zip(self.events, self.boxes, strict=True)
        ]
        return np.array([scores[false <= RATE][-1] for false, _, scores in curves])


def labelled_detections(
    found: Detections,
    data: Datasets,
    rows: np.ndarray,
    policy: Policy,
    thresholds: Sequence[float | None] | None = None,
) -> LabelledDetections:
    """Detections with the ground-truth boxes of these rows (ascending); findings without any box are left out.

    thresholds: a score for each finding of the detector.
    """
    true = {name: detections.truth(data, rows, name, policy) for name in found.findings}
    drawn = [place for place, name in enumerate(found.findings) if len(true[name])]
    if not drawn:
        there = sorted({str(name) for dataset in data for name in dataset.index.boxes["finding"].unique()})
        raise ValueError(
            f"None of these images has a box for {', '.join(found.findings)}, the findings of the detector. "
            + (f"The datasets have boxes for {', '.join(there)}." if there else "The datasets have no boxes.")
        )
    known = detections.drawn(data, rows, found.findings, policy)
    names = tuple(found.findings[place] for place in drawn)
    boxes = [
        FindingBoxes.of(found.box_table(name), true[name], len(rows), known[:, place])
        for name, place in zip(names, drawn, strict=True)
    ]
    chosen = None if thresholds is None else tuple(thresholds[place] for place in drawn)
    return LabelledDetections(names, tuple(boxes), found.images, rows, data.sides(rows), chosen)


def extents(boxes: BoxTable) -> np.ndarray:
    """(M,) side of a square of the same area."""
    return np.sqrt(np.maximum(boxes.boxes[:, 2:] - boxes.boxes[:, :2], 0).prod(axis=1))


def boxes_by_image(boxes: BoxTable) -> BoxTable:
    """The same boxes, ordered by image."""
    return boxes.select(np.argsort(boxes.images, kind="stable"))
