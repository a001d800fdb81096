"""Boxes around a classifier's saliency maps: the options of a detector that learns from no box."""

from dataclasses import dataclass


@dataclass(frozen=True)
class CamBoxes:
    """How boxes are drawn around a saliency map."""

    share: float = 0.5
    """Of the maximum of a map: a box surrounds what is at least so hot."""
    keep: int = 100
    """Boxes of an image at most."""

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ValueError(
                f"The threshold of a box is a fraction of the maximum, above 0 and at most 1, not {self.share}."
            )
        if type(self.keep) is not int or self.keep < 1:
            raise ValueError(f"The number of boxes must be 1 or more, not {self.keep}.")
