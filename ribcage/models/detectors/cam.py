"""Options of the CAM baseline: boxes from a classifier's saliency maps, without training on boxes."""

from dataclasses import dataclass


@dataclass(frozen=True)
class CamBoxes:
    """Options for boxes from a saliency map."""

    share: float = 0.5
    """Threshold of boxes, as a share of the map's maximum."""
    keep: int = 100
    """Maximum number of boxes per image."""

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ValueError(f"The threshold for boxes must be above 0 and at most 1, not {self.share}.")
        if type(self.keep) is not int or self.keep < 1:
            raise ValueError(f"The maximum number of boxes must be at least 1, not {self.keep}.")
