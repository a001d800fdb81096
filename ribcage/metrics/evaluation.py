"""What evaluations of all kinds have in common, as dataclasses. None means undefined."""

from dataclasses import dataclass, field
from typing import Literal

from ribcage.metrics.estimates import MeanEstimate, MetricRow
from ribcage.metrics.evaluation_context import EvaluationContext
from ribcage.runtime.typed_json import INLINE

Protocol = Literal["honest", "peers"]


@dataclass(frozen=True, kw_only=True)
class FindingRow(MetricRow):
    """One finding of any evaluation."""

    n: int
    """Images that count for it."""
    positives: int
    left_out: int
    threshold: float | None


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
