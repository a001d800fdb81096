"""The numbers of a detector."""

from dataclasses import dataclass, field

from ribcage.metrics.estimates import MeanEstimate, MetricRow, ScalarEstimate
from ribcage.metrics.evaluation import Evaluation, FindingRow
from ribcage.runtime.typed_json import INLINE, OPTIONAL


@dataclass(frozen=True, kw_only=True)
class SizeBin:
    """Boxes by size, the side of a square of the same area as a share of the image's side, and how many are hit."""

    low: float
    high: float
    boxes: int
    found: int


@dataclass(frozen=True, kw_only=True)
class DetectedFinding(FindingRow):
    """One finding of a detector; `threshold` is that of the score."""

    boxes: int
    """Ground-truth boxes."""
    found: int
    """Detections."""
    sizes: tuple[SizeBin, ...]


@dataclass(frozen=True, kw_only=True)
class ShuffledDetections:
    """Metrics with the detections permuted among the images: median and 95 % range."""

    times: int
    findings: tuple[MetricRow, ...]
    macro: dict[str, ScalarEstimate]


@dataclass(frozen=True, kw_only=True)
class MeanBoxRow(MetricRow):
    """Metrics of one finding with the mean training box in every image."""

    box: tuple[float, ...] | None
    """x0, y0, x1, y1 as shares of the image's side."""


@dataclass(frozen=True, kw_only=True)
class DetectionBaselines:
    """What is reached without the image."""

    fitted_on: str
    shuffled: ShuffledDetections
    mean_box: tuple[MeanBoxRow, ...] | None = field(default=None, metadata=OPTIONAL)
    mean_box_macro: dict[str, MeanEstimate] | None = field(default=None, metadata=OPTIONAL)


@dataclass(frozen=True, kw_only=True)
class BoxGap:
    """The means of a subgroup minus those of all other images."""

    metrics: dict[str, MeanEstimate] = field(default_factory=dict, metadata=INLINE)
    images: int
    """Number of the others."""
    boxes: int
    """Ground-truth boxes in the others."""


@dataclass(frozen=True, kw_only=True)
class BoxSubgroup:
    """Images of one sex, age band, view, hospital or dataset."""

    by: str
    group: str
    images: int
    patients: int
    boxes: int
    macro: dict[str, MeanEstimate]
    gap: BoxGap | None = field(default=None, metadata=OPTIONAL)


@dataclass(frozen=True, kw_only=True)
class DetectionEvaluation(Evaluation):
    """The numbers of a detector."""

    kind: str = "boxes"
    findings: tuple[DetectedFinding, ...]
    baselines: DetectionBaselines
    subgroups: tuple[BoxSubgroup, ...]
