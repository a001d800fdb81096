"""Classification report: the evaluation of a classifier as a page, and its table for the terminal."""

from collections.abc import Mapping, Sequence

from ribcage.bundle.spec import HALF
from ribcage.evaluation.classification import BINS
from ribcage.evaluation.labelled import LabelledPredictions
from ribcage.metrics.classification_evaluation import ClassificationEvaluation, ClassifiedFinding
from ribcage.metrics.definitions import load_metric, metrics_in, metrics_of
from ribcage.metrics.estimates import ScalarEstimate
from ribcage.reports import baselines, curves, html, subgroups
from ribcage.reports.details import (
    evaluation_details,
    evaluation_title,
    has_mean,
    intervals_sentence,
    leakage_card,
)
from ribcage.reports.html import Figure, Table
from ribcage.reports.intervals import axis_ends, interval_drawing
from ribcage.reports.numbers import decimals, finding_name, limits, rule_name, titled, with_limits
from ribcage.runtime.spelling import count_phrase

METRICS_WITHOUT_LIMITS = tuple(name for name in metrics_in("findings") if name != "auroc")
"""The metrics behind the interval."""
AT_THRESHOLD = next(place for place, name in enumerate(METRICS_WITHOUT_LIMITS) if name in metrics_of("threshold"))
"""How many of them stand before the column of the thresholds."""
THRESHOLD = "threshold"
_TITLES = tuple(load_metric(name).title for name in METRICS_WITHOUT_LIMITS)
METRIC_HEAD = (
    *("finding", "n", "pos.", "AUROC", "95 % CI"),
    *(*_TITLES[:AT_THRESHOLD], THRESHOLD, *_TITLES[AT_THRESHOLD:]),
)
WIDE_ONLY = (THRESHOLD, *(load_metric(name).title for name in METRICS_WITHOUT_LIMITS if load_metric(name).wide))
"""Columns that a narrow terminal leaves out."""
PROTOCOLS = {
    "honest": "honest (held-out test): thresholds and temperature were chosen on the validation split; nothing was "
    "tuned on the test images",
    "peers": "peers (the protocol of some published work): thresholds were chosen on the test images, and the model "
    "may have been selected on them",
}


def classification_page(
    result: ClassificationEvaluation, data: LabelledPredictions, errors: Sequence[tuple[str, Sequence[Figure]]] = ()
) -> str:
    """The whole page; `errors` as `worst_errors` gives them."""
    table = metric_table(result)
    ends = axis_ends([row.metrics["auroc"] for row in result.findings])
    shown = [*(row.metrics["auroc"] for row in result.findings), result.macro["auroc"]]
    drawn = [
        [*row[:5], interval_drawing(value, ends), *row[5:]] for row, value in zip(table.all_rows, shown, strict=False)
    ]
    head = [*table.head[:5], "", *table.head[5:]]
    return html.render(
        "classification.html",
        title=evaluation_title(result),
        result=result,
        test_images=test_images(result),
        cards=summary_cards(result),
        findings=Table(head, drawn[:-1], drawn[-1]) if has_mean(result) else Table(head, drawn),
        findings_note=metrics_note(result),
        curves=curves.curve_groups(result, data),
        bins=BINS,
        calibration=calibration_table(result),
        thresholds=threshold_tables(result),
        baselines=baselines.baseline_table(result),
        constant=baselines.constant_table(result),
        subgroups=subgroups.subgroup_table(result) if result.subgroups else None,
        subgroup_aurocs=subgroups.auroc_table(result),
        errors=[(name, figures) for name, figures in errors if figures],
        details=evaluation_details(
            result,
            f"{len(result.context.model.findings)} findings, {result.context.model.loss}",
            test_images(result),
            PROTOCOLS[result.protocol],
        ),
    )


def test_images(result: ClassificationEvaluation) -> str:
    """1,000 images from 600 patients"""
    crops = ", ten crops per image" * result.context.ten_crop
    return f"{count_phrase(result.images, 'image')} from {count_phrase(result.patients, 'patient')}{crops}"


def summary_cards(result: ClassificationEvaluation) -> list[tuple[str, str]]:
    """(number, what it is), for the top of the page."""
    area, precision = result.macro["auroc"], result.macro["ap"]
    mean = "mean " * has_mean(result)
    cards = [
        (decimals(area.value), titled(f"{mean}AUROC", area)),
        (decimals(precision.value), titled(f"{mean}average precision", precision)),
        (f"{area.findings} of {len(result.findings)}", "findings with both classes"),
        (f"{result.images:,}", "images"),
        (f"{result.patients:,}", "patients"),
        leakage_card(result),
    ]
    if result.top1:
        cards.insert(1, (decimals(result.top1.value), titled("top-1 accuracy", result.top1)))
    return cards


# ---- metrics by finding


def metric_table(result: ClassificationEvaluation) -> Table:
    """Metrics of each finding, and their mean where there are several."""
    thresholds = result.rules[result.rule]
    rows = [metric_row(row, at.threshold) for row, at in zip(result.findings, thresholds, strict=True)]
    return Table(METRIC_HEAD, rows, mean_row(result) if has_mean(result) else None)


def metric_row(row: ClassifiedFinding, threshold: float | None) -> list[object]:
    """One finding."""
    counts = [finding_name(row.finding), row.n, row.positives]
    return [*counts, *_metrics(row.metrics, decimals(threshold))]


def mean_row(result: ClassificationEvaluation) -> list[object]:
    """The mean over findings."""
    return [f"mean of {result.macro['auroc'].findings}", "", "", *_metrics(result.macro, "")]


def _metrics(values: Mapping[str, ScalarEstimate], threshold: str) -> list[str]:
    """AUROC with its interval, and the other metrics around the threshold."""
    auroc = values["auroc"]
    others = [decimals(values[name].value) for name in METRICS_WITHOUT_LIMITS]
    return [decimals(auroc.value), limits(auroc), *others[:AT_THRESHOLD], threshold, *others[AT_THRESHOLD:]]


def metrics_note(result: ClassificationEvaluation) -> str:
    """How the metrics were computed."""
    sentences = [
        intervals_sentence(result),
        f"{_thresholds(result)}: {rule_name(result.rule)}{threshold_origin(result)}.",
    ]
    if has_mean(result) and (others := other_means(result)):
        auroc = count_phrase(result.macro["auroc"].findings, "finding")
        sentences.append(
            f"The mean AUROC is over {auroc}. The following means are over other numbers of findings: {others}."
        )
    if len(result.findings) == 1:
        values = [(load_metric(name), result.findings[0].metrics[name]) for name in metrics_of("threshold")]
        rates = ", ".join(f"{one.label} {with_limits(value)}" for one, value in values if not one.wide)
        sentences.insert(0, f"{rates[:1].upper()}{rates[1:]}.")
    if top := result.top1:
        sentences.append(f"Top-1 accuracy is {with_limits(top)}.")
    return " ".join(sentences)


def _thresholds(result: ClassificationEvaluation) -> str:
    """Threshold 0.413; of several findings the table has them"""
    rows = result.rules[result.rule]
    return f"Threshold {decimals(rows[0].threshold)}" if len(rows) == 1 else "Thresholds"


def other_means(result: ClassificationEvaluation) -> str:
    """The metrics whose mean includes another number of findings than that of AUROC: Brier (3)"""
    macro, names = result.macro, dict(zip(_TITLES, METRICS_WITHOUT_LIMITS, strict=True))
    counts = {title: macro[name].findings for title, name in names.items()}
    return ", ".join(f"{title} ({count})" for title, count in counts.items() if count != macro["auroc"].findings)


def threshold_origin(result: ClassificationEvaluation) -> str:
    """On which images the thresholds were chosen."""
    if result.rule == HALF:
        return ""
    return ", chosen on the test images" if result.protocol == "peers" else ", chosen on the validation split"


# ---- calibration and thresholds


def calibration_table(result: ClassificationEvaluation) -> Table:
    """Brier score and ECE before and after temperature scaling."""
    head = ["finding", "temperature", "Brier before scaling", "Brier after", "ECE before scaling", "ECE after"]
    return Table(head, [_calibration_row(row) for row in result.findings])


def _calibration_row(row: ClassifiedFinding) -> list[object]:
    return [
        finding_name(row.finding),
        "–" if row.temperature is None else f"{row.temperature:.3g}",
        with_limits(row.brier_before),
        with_limits(row.metrics["brier"]),
        decimals(row.ece_before),
        decimals(row.ece),
    ]


def threshold_tables(result: ClassificationEvaluation) -> list[tuple[str, Table]]:
    """(rule, table) of the metrics at the thresholds of every rule but the chosen one."""
    names = metrics_of("threshold")
    head = ["finding", "threshold", *(load_metric(name).label for name in names)]
    tables = []
    for rule, rows in result.rules.items():
        if rule != result.rule:
            cells = [
                [
                    finding_name(row.finding),
                    decimals(row.threshold),
                    *(with_limits(row.metrics[name]) for name in names),
                ]
                for row in rows
            ]
            tables.append((rule_name(rule), Table(head, cells)))
    return tables


def chexnet_lines(result: ClassificationEvaluation) -> str:
    """The lines that reproductions of CheXNet print."""
    mean = result.macro["auroc"].value
    lines = ["The final AUROCs: ", f"The average AUROC is {'–' if mean is None else f'{mean:.3f}'}"]
    for row in result.findings:
        value = row.metrics["auroc"].value
        lines.append(f"The AUROC of {row.finding} is {'–' if value is None else value}")
    return "\n".join(lines)
