"""Metrics: arrays in, numbers out.

Everywhere scores are (N, F), labels are (N, F) with 1, 0 and NaN for unknown, weights (N,) and patients (N,) codes.
What a missing class leaves undefined is NaN, never 0 or 0.5, and a mean over findings says how many it used.
`ranking` defines, `resampling` and `placements` give intervals, `summary` is everything a report shows in one call.
Boxes are `Marks` and have modules of their own; `detection` is everything a report shows of them."""

from ribcage.metrics.calibration import Bins, Temperatures, brier, brier_change, ece, reliability, sigmoid, temperatures
from ribcage.metrics.curves import Curve, Histogram, histogram, precision_recall, roc
from ribcage.metrics.intervals import Gap, Interval, holm
from ribcage.metrics.placements import DeLong, delong, gap
from ribcage.metrics.ranking import Mean, auroc, average_precision, macro
from ribcage.metrics.resampling import Resampled, bootstrap, difference
from ribcage.metrics.summaries import Comparison, Estimate, Summary, compare, subgroups, summary
from ribcage.metrics.thresholds import Counts, choose, counts, rates

__all__ = [
    "Bins", "Comparison", "Counts", "Curve", "DeLong", "Estimate", "Gap", "Histogram", "Interval", "Mean",
    "Resampled", "Summary", "Temperatures", "auroc", "average_precision", "bootstrap", "brier",
    "brier_change", "choose",
    "compare", "counts", "delong", "difference", "ece", "gap", "histogram", "holm", "macro", "precision_recall",
    "rates", "reliability", "roc", "sigmoid", "subgroups", "summary", "temperatures",
]  # fmt: skip
