"""Boxes of one finding in many images: detections or ground truth."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class BoxTable:
    """Boxes of one finding in many images. Their order matters only among equal scores."""

    images: np.ndarray
    """(M,) int64: image number, 0 … count - 1."""
    boxes: np.ndarray
    """(M, 4) float64: x0, y0, x1, y1."""
    scores: np.ndarray
    """(M,) float64; 1 for ground truth."""

    def __post_init__(self) -> None:
        number = len(self.images)
        shapes = self.images.shape, self.boxes.shape, self.scores.shape
        if shapes != ((number,), (number, 4), (number,)):
            raise ValueError(
                f"The images, boxes and scores of a BoxTable must have the shapes (M,), (M, 4) and (M,), not {shapes}."
            )
        if not (np.isfinite(self.boxes).all() and np.isfinite(self.scores).all()):
            raise ValueError("The boxes and scores of a BoxTable must be finite.")

    @classmethod
    def none(cls) -> "BoxTable":
        """A table without boxes."""
        return cls(np.empty(0, np.int64), np.empty((0, 4)), np.empty(0))

    @classmethod
    def ground_truth(cls, images: np.ndarray, boxes: np.ndarray) -> "BoxTable":
        """Ground-truth boxes, with a score of 1."""
        boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
        return cls(np.asarray(images, np.int64), boxes, np.ones(len(boxes)))

    def __len__(self) -> int:
        return len(self.images)

    def select(self, kept: np.ndarray) -> "BoxTable":
        """Boxes selected by a mask or by positions (M,)."""
        return BoxTable(self.images[kept], self.boxes[kept], self.scores[kept])

    def at_least(self, score: float) -> "BoxTable":
        """Boxes with at least this score."""
        return self.select(self.scores >= score)

    def on_images(self, images: np.ndarray) -> "BoxTable":
        """Boxes on the images selected by a mask (count,); images keep their numbers."""
        return self.select(images[self.images])
