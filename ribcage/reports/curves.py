"""Curves of a classifier, one row of plots for each finding: ROC, precision–recall, reliability, scores."""

import numpy as np
from markupsafe import Markup

from ribcage import metrics
from ribcage.evaluation.classification import BINS
from ribcage.evaluation.labelled import LabelledPredictions
from ribcage.metrics import CalibrationBins, Curve, Histogram
from ribcage.metrics.classification_evaluation import ClassificationEvaluation, ClassifiedFinding
from ribcage.reports import svg
from ribcage.reports.numbers import finding_name, with_limits
from ribcage.reports.svg import Axes, Dots, Line

PROBABILITY_TICKS = (1e-5, 1e-4, 1e-3, 0.01, 0.1, 0.5, 0.9, 0.99, 0.999)


def curve_groups(result: ClassificationEvaluation, data: LabelledPredictions) -> list[tuple[str, list[Markup]]]:
    """(heading, four plots) of every finding that has both classes."""
    thresholds = data.threshold(result.rule)
    rates = metrics.rates(metrics.confusion_counts(data.probabilities, data.labels, thresholds))
    groups = []
    for place, row in enumerate(result.findings):
        if row.metrics["auroc"].value is not None:
            point = {name: float(value[place]) for name, value in rates.items()}
            heading = f"{finding_name(row.finding)} – AUROC {with_limits(row.metrics['auroc'])}"
            groups.append((heading, finding_plots(row, data, place, point, thresholds[place])))
    return groups


def finding_plots(
    row: ClassifiedFinding, data: LabelledPredictions, place: int, point: dict[str, float], threshold: float
) -> list[Markup]:
    """ROC, precision–recall, reliability, scores; fewer images make fewer bins."""
    scores, before, labels = (values[:, [place]] for values in (data.probabilities, data.uncalibrated, data.labels))
    fewest = min(row.positives, row.n - row.positives)
    bins, bars = int(np.clip(fewest // 5, 4, BINS)), int(np.clip(2 * fewest**0.5, 8, 36))
    return [
        roc_plot(metrics.roc(scores, labels)[0], point),
        precision_recall_plot(metrics.precision_recall(scores, labels)[0], point, row.prevalence or 0.0),
        reliability_plot(*(metrics.calibration_bins(shares, labels, bins=bins)[0] for shares in (before, scores))),
        score_histogram(metrics.histogram(log_odds(scores), labels, bins=bars)[0], float(threshold)),
    ]


def roc_plot(curve: Curve, point: dict[str, float]) -> Markup:
    """Sensitivity against false positive rate."""
    ends = np.array([0.0, 1.0])
    mark = Dots(np.array([1 - point["specificity"]]), np.array([point["sensitivity"]]), "mark")
    axes = Axes(x_label="false positive rate", y_label="sensitivity")
    return svg.plot("ROC", [Line(ends, ends, "faint"), Line(curve.x, curve.y), mark], axes)


def precision_recall_plot(curve: Curve, point: dict[str, float], prevalence: float) -> Markup:
    """Precision against recall; the dashed line is the prevalence."""
    mark = Dots(np.array([point["sensitivity"]]), np.array([point["ppv"]]), "mark")
    chance = Line(np.array([0.0, 1.0]), np.array([prevalence, prevalence]), "faint")
    axes = Axes(x_label="recall", y_label="precision")
    return svg.plot("Precision–recall", [chance, Line(curve.x, curve.y), mark], axes)


def reliability_plot(before: CalibrationBins, after: CalibrationBins) -> Markup:
    """Observed frequency against predicted probability."""
    largest = max(float(values.max()) for bins in (before, after) for values in (bins.probability, bins.positive))
    end, ticks = svg.nice(min(largest, 1.0))
    axes = Axes((0, end), (0, end), "predicted probability", "observed frequency", ticks, ticks)
    diagonal = np.array([0.0, end])
    parts: list[Line | Dots] = [Line(diagonal, diagonal, "faint")]
    for bins, kind, dots in ((before, "other", "other"), (after, "main", "")):
        order = np.argsort(bins.probability)
        x, y = bins.probability[order], bins.positive[order]
        parts += [Line(x, y, kind), Dots(x, y, dots)]
    return svg.plot("Reliability", parts, axes)


def score_histogram(histogram: Histogram, threshold: float) -> Markup:
    """Predicted probabilities of both classes, on the scale of log-odds."""
    edges = histogram.edges
    shares = [side / max(side.sum(), 1) for side in (histogram.negative, histogram.positive)]
    top = max(float(share.max()) for share in shares) or 1.0
    steps = np.repeat(edges, 2)[1:-1]
    lines: list[Line | Dots] = [
        Line(steps, np.repeat(share, 2), kind) for share, kind in zip(shares, ("other-area", "main-area"), strict=True)
    ]
    if np.isfinite(threshold):
        at = float(log_odds(np.array(threshold)))
        lines.append(Line(np.array([at, at]), np.array([0.0, top]), "faint"))
    ends = (float(edges[0]), float(edges[-1]) if edges[-1] > edges[0] else float(edges[0]) + 1)
    axes = Axes(ends, (0, top), "predicted probability", "fraction of the class", probability_ticks(ends), ())
    return svg.plot("Scores", lines, axes)


def probability_ticks(ends: tuple[float, float]) -> list[tuple[float, str]]:
    """Round probabilities at their log-odds, not too close to each other."""
    chosen: list[tuple[float, str]] = []
    for share in PROBABILITY_TICKS:
        at = float(log_odds(np.array(share)))
        if ends[0] <= at <= ends[1] and (not chosen or at - chosen[-1][0] > (ends[1] - ends[0]) / 5.2):
            chosen.append((at, f"{100 * share:g} %"))
    if len(chosen) < 2:  # a narrow range: its ends
        return [(at, f"{100 / (1 + np.exp(-at)):.3g} %") for at in ends]
    return chosen


def log_odds(probability: np.ndarray) -> np.ndarray:
    """log(p / (1 - p)), clipped to what a plot can show."""
    clipped = np.clip(probability, 1e-6, 1 - 1e-6)
    return np.log(clipped / (1 - clipped))
