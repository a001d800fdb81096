"""Images for trackers: the images of a report page, and the worst errors of a classifier or a detector."""

import base64
from collections.abc import Sequence

import cv2
import numpy as np

from ribcage.bundle.spec import EXCLUSIVE
from ribcage.evaluation.classifier_validation import ClassifierValidation
from ribcage.evaluation.detection_errors import false_positives, missed_boxes
from ribcage.evaluation.detector_validation import DetectorValidation
from ribcage.evaluation.labelled import labelled_predictions
from ribcage.evaluation.labelled_detections import labelled_detections
from ribcage.inference.predictions import Predictions
from ribcage.reports.detection_errors import box_figure, error_text
from ribcage.reports.html import Figure, gray_figure
from ribcage.reports.numbers import finding_name, percent
from ribcage.reports.worst_errors import SIDE, stored_image, worst_predictions
from ribcage.training.trackers.base import TrackedImage

ORANGE, BLUE = (255, 179, 71), (88, 183, 255)
"""Colours of ground-truth boxes and of detections, as on pages."""
ERRORS = 8
"""Maximum number of worst errors that are logged."""


def tracked_images(figures: Sequence[Figure]) -> list[TrackedImage]:
    """The images of figures in gray, without boxes, and their captions."""
    return [TrackedImage(_pixels(figure), figure.caption) for figure in figures]


def tracked_errors(validation: ClassifierValidation, most: int = ERRORS) -> list[TrackedImage]:
    """The worst false negatives and false positives of the last validation, half of `most` each. The captions contain
    nothing about the patients."""
    if not len(validation.logits):
        return []
    spec, datasets = validation.chosen_spec(), validation.data
    predicted = Predictions(spec.findings, np.unique(validation.rows), validation.logits, spec.loss == EXCLUSIVE)
    data = labelled_predictions(predicted, datasets, spec, validation.policy)
    found = []
    for kind, present in (("false negative", True), ("false positive", False)):
        for place, column in worst_predictions(data, present, most // 2):
            pixels = stored_image(datasets, int(predicted.rows[place]), SIDE)
            if pixels is not None:
                probability = percent(data.probabilities[place, column])
                caption = f"{finding_name(data.findings[column])}: {probability} ({kind})"
                found.append(TrackedImage(_pixels(gray_figure(pixels, caption)), caption))
    return found


def tracked_box_errors(validation: DetectorValidation, most: int = ERRORS) -> list[TrackedImage]:
    """The worst false negatives and false positives of the last validation of a detector, half of `most` each, with
    ground-truth boxes in orange and detections in blue. The captions contain nothing about the patients."""
    if validation.detections is None:
        return []
    data = labelled_detections(validation.detections, validation.data, validation.rows, validation.policy)
    found = []
    for kind, errors in (("false negative", missed_boxes), ("false positive", false_positives)):
        for error in errors(data, most // 2):
            figure = box_figure(data, validation.data, error.image, error)
            if figure is not None:
                found.append(TrackedImage(_with_boxes(figure), f"{error_text(data, error)} ({kind})"))
    return found


def _with_boxes(figure: Figure) -> np.ndarray:
    """(H, W, 3) uint8, red first: the image of a figure with its boxes."""
    pixels = cv2.cvtColor(_pixels(figure), cv2.COLOR_GRAY2RGB)
    for boxes, colour in ((figure.boxes, ORANGE), (figure.other_boxes, BLUE)):
        for x, y, width, height in boxes:
            cv2.rectangle(pixels, (round(x), round(y)), (round(x + width), round(y + height)), colour)
    return pixels


def _pixels(figure: Figure) -> np.ndarray:
    """(H, W) uint8 from the data URI of a figure."""
    data = np.frombuffer(base64.b64decode(figure.source.partition(",")[2]), np.uint8)
    pixels = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE)
    assert pixels is not None, "gray_figure wrote it"
    return np.asarray(pixels)
