"""Box check: the boxes of an image against its size, which is known only once its file has been read."""

from dataclasses import dataclass

import numpy as np

from ribcage.data.index import SIDES, Index
from ribcage.data.readers.box_cells import outside
from ribcage.imaging.gray_image import UnreadableError


@dataclass(frozen=True)
class BoxCheck:
    """The boxes of an index."""

    rows: np.ndarray
    sides: np.ndarray
    findings: np.ndarray
    frame: tuple[int, int] | None

    @classmethod
    def of(cls, index: Index) -> "BoxCheck":
        """The boxes of this index."""
        boxes = index.boxes
        findings, sides = boxes["finding"].to_numpy(object), boxes[list(SIDES)].to_numpy(np.float64)
        return cls(boxes["row"].to_numpy(), sides, findings, index.box_frame)

    def check(self, row: int, width: int, height: int) -> None:
        """UnreadableError if a box of an image of this size is outside the image."""
        first, end = (int(np.searchsorted(self.rows, row, side=side)) for side in ("left", "right"))
        frame = self.frame or (width, height)
        wrong = outside(self.sides[first:end], frame)
        if wrong.any():
            at = first + int(wrong.argmax())
            said = ", ".join(f"{name} {value:g}" for name, value in zip(SIDES, self.sides[at], strict=True))
            raise UnreadableError(
                f"its box of {self.findings[at]} ({said}) is outside the image of {frame[0]} x {frame[1]} pixels."
            )
