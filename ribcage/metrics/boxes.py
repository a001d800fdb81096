"""Marks: boxes of one finding in many images – true ones, or found ones."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Marks:
    """Boxes of one finding in many images; in which order does not matter, but among equal scores."""

    images: np.ndarray
    """(M,) int64: which image, 0 … count - 1."""
    boxes: np.ndarray
    """(M, 4) float64: x0, y0, x1, y1."""
    scores: np.ndarray
    """(M,) float64: ones where true."""

    def __post_init__(self) -> None:
        number = len(self.images)
        shapes = self.images.shape, self.boxes.shape, self.scores.shape
        if shapes != ((number,), (number, 4), (number,)):
            raise ValueError(f"Marks need images (M,), boxes (M, 4) and scores (M,), not {shapes}.")
        if not (np.isfinite(self.boxes).all() and np.isfinite(self.scores).all()):
            raise ValueError("Marks need boxes and scores that are finite numbers.")

    @classmethod
    def none(cls) -> "Marks":
        """No boxes."""
        return cls(np.empty(0, np.int64), np.empty((0, 4)), np.empty(0))

    @classmethod
    def true(cls, images: np.ndarray, boxes: np.ndarray) -> "Marks":
        """Boxes that are there: all of score 1."""
        boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
        return cls(np.asarray(images, np.int64), boxes, np.ones(len(boxes)))

    def __len__(self) -> int:
        return len(self.images)

    def only(self, kept: np.ndarray) -> "Marks":
        """Those of a mask or of places (M,)."""
        return Marks(self.images[kept], self.boxes[kept], self.scores[kept])

    def least(self, score: float) -> "Marks":
        """Those of at least this score."""
        return self.only(self.scores >= score)

    def of(self, images: np.ndarray) -> "Marks":
        """Those on the images of a mask (count,); the images keep their numbers."""
        return self.only(images[self.images])
