"""Images of a page as trackers get them."""

import base64
from collections.abc import Sequence

import cv2
import numpy as np

from ribcage.reports.html import Figure
from ribcage.training.trackers.base import TrackedImage


def tracked_images(figures: Sequence[Figure]) -> list[TrackedImage]:
    """The images of figures in gray, without boxes, and their captions."""
    return [TrackedImage(_pixels(figure), figure.caption) for figure in figures]


def _pixels(figure: Figure) -> np.ndarray:
    """(H, W) uint8 from the data URI of a figure."""
    data = np.frombuffer(base64.b64decode(figure.source.partition(",")[2]), np.uint8)
    pixels = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE)
    assert pixels is not None, "gray_figure wrote it"
    return np.asarray(pixels)
