"""The numbers of a classifier."""

from dataclasses import dataclass, field

from ribcage.metrics.estimates import MeanEstimate, MetricRow, ScalarEstimate, SubgroupGap
from ribcage.metrics.evaluation import Evaluation, FindingRow
from ribcage.runtime.typed_json import OPTIONAL


@dataclass(frozen=True)
class Top1Accuracy(ScalarEstimate):
    """Share of the images whose most probable finding is the true one."""

    n: int = 0


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
