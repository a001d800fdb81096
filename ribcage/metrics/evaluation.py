"""Evaluation: the numbers of a report as dataclasses, with one writer and one reader of metrics.json.

None means undefined. In the file, `metrics` of a row and `context` of an evaluation stand among the other keys of
their object.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ribcage.metrics.intervals import Interval
from ribcage.runtime import files, typed_json
from ribcage.runtime.typed_json import INLINE, OPTIONAL

METRICS_FILE = "metrics.json"
LARGEST_FILE = 1 << 28
"""Bytes of metrics.json."""
Protocol = Literal["honest", "peers"]


@dataclass(frozen=True)
class ScalarEstimate:
    """A number with its interval."""

    value: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class MeanEstimate(ScalarEstimate):
    """A mean over findings with its interval."""

    findings: int = 0
    """Number of findings for which the metric is defined."""


@dataclass(frozen=True)
class SubgroupGap(MeanEstimate):
    """The mean of a subgroup minus that of all other images."""

    images: int = 0
    """Number of the others."""
    positives: int = 0
    """Positive labels of the others."""


@dataclass(frozen=True)
class Top1Accuracy(ScalarEstimate):
    """Share of the images whose most probable finding is the true one."""

    n: int = 0


@dataclass(frozen=True, kw_only=True)
class MetricRow:
    """Metrics of one finding."""

    finding: str
    metrics: dict[str, ScalarEstimate] = field(default_factory=dict, metadata=INLINE)


@dataclass(frozen=True, kw_only=True)
class FindingRow(MetricRow):
    """One finding of any evaluation."""

    n: int
    """Images that count for it."""
    positives: int
    left_out: int
    threshold: float | None


# ---- context


@dataclass(frozen=True, kw_only=True)
class EvaluatedModel:
    """The model, as its spec describes it."""

    name: str = ""
    findings: tuple[str, ...] = ()
    size: tuple[int, int] = (0, 0)
    stored: int = 0
    fit: str = ""
    channels: int = 1
    loss: str = ""
    data: tuple[dict[str, Any], ...] = ()
    temperature: tuple[float, ...] = ()
    leak: str = ""
    """Leakage between its own training and validation data."""
    splits: tuple[str, ...] = ()
    """Its training and validation splits."""


@dataclass(frozen=True, kw_only=True)
class EvaluatedData:
    """One dataset folder."""

    folder: str = ""
    name: str = ""
    source: str = ""
    licence: str = ""
    contents: str = ""
    size: int = 0
    fit: str = ""
    linked: bool = False


@dataclass(frozen=True, kw_only=True)
class LeakageCheck:
    """What of the tested images, and of their patients, the model was trained or validated on."""

    found: bool = False
    text: str = ""
    checked: int = 0
    seen: int = 0
    """Images of its training and validation."""
    tested: int = 0
    patients: int = 0
    """Tested patients that were in training or validation."""
    images: int = 0
    """Tested images of these patients."""
    identical: int = 0
    alike: int = 0
    """Tested images with a near-duplicate in training or validation; identical ones, too."""
    selected_on: int = 0
    """Tested images that were only used for model selection."""
    unseen: int = 0
    """Training images without fingerprints."""
    unknown: tuple[str, ...] = ()
    """Weights and tables it comes from whose training data is unknown."""
    linked: tuple[str, ...] = ()
    """Dataset folders without fingerprints, made for the check."""


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """What was left out of a test (--drop-shared)."""

    images: int = 0
    patients: int = 0
    copies: int = 0


@dataclass(frozen=True, kw_only=True)
class RecordedTest:
    """The test in the history of its model: its number, and earlier tests of the same images."""

    number: int = 0
    use: int = 0
    before: tuple[int, ...] = ()
    key: str = ""
    contents: tuple[str, ...] = ()
    weights: str = ""
    honest: bool = True
    new: str = ""
    text: str = ""


@dataclass(frozen=True, kw_only=True)
class EvaluationContext:
    """What was tested, on what data, with which options."""

    run: str = ""
    model: EvaluatedModel = EvaluatedModel()
    data: tuple[EvaluatedData, ...] = ()
    split: str = ""
    ten_crop: bool = False
    policy: str = ""
    model_policy: str = ""
    """The label policy of the model's validation."""
    not_tested: tuple[str, ...] = ()
    """Findings of the model without labels in the data."""
    others: int = 0
    """Images that are not known to be frontal, where the model was trained on frontal images only."""
    leak: LeakageCheck = LeakageCheck()
    left: LeftOut = LeftOut()
    test: RecordedTest = RecordedTest()
    maps: str | None = field(default=None, metadata=OPTIONAL)
    """How saliency maps are computed."""
    command: str = ""
    versions: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What evaluations of all kinds have in common."""

    warnings: tuple[str, ...] = ()
    """What makes the numbers less than honest, the worst first."""
    notes: tuple[str, ...] = ()
    images: int
    patients: int
    """Known patients."""
    protocol: Protocol
    level: float
    """Of the intervals."""
    resamples: int
    seed: int
    findings: tuple[FindingRow, ...]
    macro: dict[str, MeanEstimate]
    """Means over findings, by metric."""
    context: EvaluationContext = field(default=EvaluationContext(), metadata=INLINE)


# ---- classification


@dataclass(frozen=True, kw_only=True)
class ClassifiedFinding(FindingRow):
    """One finding of a classifier."""

    prevalence: float | None
    uncertain: int
    unknown: int
    temperature: float | None
    brier_before: ScalarEstimate
    """The Brier score before temperature scaling."""
    brier_change: ScalarEstimate
    """The Brier score after it minus that before."""
    ece: float | None
    ece_before: float | None


@dataclass(frozen=True, kw_only=True)
class ThresholdRow(MetricRow):
    """Rates of one finding at the threshold of a rule."""

    threshold: float | None


@dataclass(frozen=True, kw_only=True)
class ConstantRow:
    """Metrics of one finding if every image gets the prevalence."""

    finding: str
    prevalence: float | None
    ap: float | None
    brier: float | None
    accuracy: float | None


@dataclass(frozen=True, kw_only=True)
class ShuffledLabels:
    """AUROC with labels permuted among the images: median and 95 % range."""

    times: int
    findings: tuple[MetricRow, ...]
    macro: ScalarEstimate


@dataclass(frozen=True, kw_only=True)
class ClassificationBaselines:
    """What is reached without the image."""

    fitted_on: str
    """The images that the baselines are fitted to; "" for none."""
    shuffled: ShuffledLabels
    prevalence: tuple[ConstantRow, ...] | None = field(default=None, metadata=OPTIONAL)
    view: tuple[MetricRow, ...] | None = field(default=None, metadata=OPTIONAL)
    """Prediction by the view alone."""
    view_macro: MeanEstimate | None = field(default=None, metadata=OPTIONAL)


@dataclass(frozen=True, kw_only=True)
class SubgroupFinding(MetricRow):
    """One finding in a subgroup."""

    n: int
    positives: int


@dataclass(frozen=True, kw_only=True)
class Subgroup:
    """Images of one sex, age band, view, hospital or dataset."""

    by: str
    group: str
    images: int
    patients: int
    positives: int
    macro: dict[str, MeanEstimate]
    gap: SubgroupGap | None = field(default=None, metadata=OPTIONAL)
    """The difference of the mean AUROC to all other images."""
    findings: tuple[SubgroupFinding, ...]


@dataclass(frozen=True, kw_only=True)
class ClassificationEvaluation(Evaluation):
    """The numbers of a classifier."""

    rule: str
    """The rule of the thresholds."""
    findings: tuple[ClassifiedFinding, ...]
    rules: dict[str, tuple[ThresholdRow, ...]]
    """Rates at the thresholds of every rule."""
    baselines: ClassificationBaselines
    subgroups: tuple[Subgroup, ...]
    top1: Top1Accuracy | None = field(default=None, metadata=OPTIONAL)
    """For mutually exclusive findings."""


# ---- detection


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


# ---- from arrays


def optional_float(value: Any) -> float | None:
    """A float, or None for NaN."""
    return None if value is None or np.isnan(value) else float(value)


def scalar_estimate(interval: Interval, place: int = 0) -> ScalarEstimate:
    """One place of an interval of arrays."""
    return ScalarEstimate(*(optional_float(each[place]) for each in (interval.value, interval.low, interval.high)))


def mean_estimate(interval: Interval, findings: int) -> MeanEstimate:
    """A mean over so many findings."""
    one = scalar_estimate(interval)
    return MeanEstimate(one.value, one.low, one.high, findings)


# ---- the file


def evaluation_json(evaluation: Evaluation) -> dict[str, Any]:
    """The content of metrics.json."""
    found: dict[str, Any] = typed_json.to_json(evaluation)
    return found


def write_evaluation(evaluation: Evaluation, file: Path) -> None:
    """Write metrics.json."""
    numbers = json.dumps(evaluation_json(evaluation), indent=1, ensure_ascii=False, allow_nan=False)
    files.write_text(file, numbers + "\n")


def read_evaluation(file: Path) -> Evaluation:
    """Read metrics.json, or raise one ValueError."""
    try:
        if file.stat().st_size > LARGEST_FILE:
            raise ValueError("it is too large")
        values = files.read_json(file)
        kind = DetectionEvaluation if isinstance(values, dict) and "kind" in values else ClassificationEvaluation
        found: Evaluation = typed_json.from_json(kind, values)
    except (ValueError, KeyError, TypeError):
        raise ValueError(
            f"{file} is damaged, or was written by another version. Run 'ribcage evaluate' again."
        ) from None
    return found
