"""Metrics: functions of NumPy arrays.

Scores are (N, F), labels are (N, F) with 1, 0 and NaN for unknown, weights (N,), and patients (N,) codes. What a
missing class leaves undefined is NaN, never 0 or 0.5, and a mean over findings comes with the number of findings in it.
`definitions` has a file for each metric of a classifier's report, `resampling` and `placements` the variances behind
the intervals; `summarise` computes all metrics of a report. Boxes are a `BoxTable` and have modules of their own;
`detection` computes all metrics of a detector's report.
"""

from ribcage.metrics.calibration import (
    CalibrationBins,
    Temperatures,
    brier,
    brier_change,
    calibration_bins,
    ece,
    sigmoid,
    temperatures,
)
from ribcage.metrics.curves import Curve, Histogram, histogram, precision_recall, roc
from ribcage.metrics.definitions import rates
from ribcage.metrics.intervals import Gap, Interval, holm
from ribcage.metrics.placements import DeLong, auroc_gap, delong
from ribcage.metrics.ranking import MacroMean, auroc, average_precision, macro_mean
from ribcage.metrics.resampling import Resampled, bootstrap, paired_difference
from ribcage.metrics.summaries import Comparison, Estimate, MetricSummary, compare_scores, summarise, summarise_groups
from ribcage.metrics.thresholds import ConfusionCounts, choose_thresholds, confusion_counts

__all__ = [
    "CalibrationBins", "Comparison", "ConfusionCounts", "Curve", "DeLong", "Estimate", "Gap", "Histogram",
    "Interval", "MacroMean", "MetricSummary", "Resampled", "Temperatures", "auroc", "auroc_gap", "average_precision",
    "bootstrap", "brier", "brier_change", "calibration_bins", "choose_thresholds", "compare_scores",
    "confusion_counts", "delong",
    "ece", "histogram", "holm", "macro_mean", "paired_difference", "precision_recall", "rates",
    "roc", "sigmoid", "summarise", "summarise_groups", "temperatures",
]  # fmt: skip
