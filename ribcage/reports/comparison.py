"""Comparison report: several models on the same images, and the difference of each from the first."""

from collections.abc import Mapping

from ribcage.evaluation.comparison import ComparisonResult, Difference, comparison_notes
from ribcage.metrics.definitions import load_metric, metrics_in
from ribcage.metrics.estimates import ScalarEstimate
from ribcage.reports import html
from ribcage.reports.details import has_mean
from ribcage.reports.html import Table
from ribcage.reports.intervals import interval_drawing
from ribcage.reports.numbers import decimals, finding_name, p_value, rule_name, signed, signed_limits, with_limits
from ribcage.runtime.spelling import count_phrase

DIFFERENCE_HEAD = (
    "finding",
    "first",
    "this",
    "difference",
    "95 % CI",
    "p",
    "adj. p",
    "DeLong p",
    "adj. DeLong p",
)
DIFFERENCE_NOTE = (
    "Each row is a paired difference in AUROC. The interval and the p-value account for the correlation between the "
    "models, which is estimated from the same bootstrap resamples of patients; for the DeLong p-value, DeLong's "
    "covariance estimate is used. Adjusted p-values (adj.) account for the number of findings and "
    "models by Holm's method; the mean is tested separately."
)
METRICS = {name: load_metric(name).label for name in metrics_in("comparison")}
COSTS = {"parameters": "parameters", "multiply_adds": "multiply-adds", "thop": "multiply-adds as counted by thop"}
LATENCIES = {"eager": "ms per image", "exported": "ms per image, exported"}
CLOSEST = 0.02  # an axis of differences spans at least this on either side of 0


def comparison_page(result: ComparisonResult) -> str:
    """The whole page."""
    differences = [
        (
            f"{pair.model} minus {pair.minus}",
            drawn_difference_table(result, place),
            mean_difference_table(result, place),
        )
        for place, pair in enumerate(result.differences, 1)
    ]
    return html.render(
        "comparison.html",
        names=[model.name for model in result.models],
        summary=comparison_summary(result),
        notes=comparison_notes(result),
        models=model_table(result),
        models_note=model_note(result),
        aurocs=auroc_by_model(result),
        differences=differences,
        difference_note=DIFFERENCE_NOTE,
        mean_difference_note=mean_difference_note(result),
    )


def comparison_summary(result: ComparisonResult) -> str:
    """How much is compared, and how."""
    return (
        f"{len(result.models)} models are compared on the same {count_phrase(result.images, 'image')} from "
        f"{count_phrase(result.patients, 'patient')}. Intervals are {100 * result.level:g} % "
        "confidence intervals clustered by patient; variances without a closed "
        f"form are estimated from {result.resamples:,} bootstrap resamples of patients."
    )


# ---- the models side by side


def model_table(result: ComparisonResult) -> Table:
    """Metrics and costs of each model; latencies only where they were measured."""
    models = result.models
    rows = [[metric_title(result, name), *(with_limits(model.macro[name]) for model in models)] for name in METRICS]
    costs = [model.costs for model in models]
    rows += [
        [title, *("–" if cost is None else f"{getattr(cost, name):,}" for cost in costs)]
        for name, title in COSTS.items()
    ]
    rows.append(["MB on disk", *("–" if cost is None else f"{cost.bytes / 1e6:.1f}" for cost in costs)])
    times = [None if cost is None else cost.latency for cost in costs]
    rows += [
        [
            title,
            *("–" if number is None else f"{number:.1f}" for number in (getattr(time, kind, None) for time in times)),
        ]
        for kind, title in LATENCIES.items()
        if any(times)
    ]
    return Table(["", *(model.name for model in models)], [list(row) for row in rows])


def model_note(result: ComparisonResult) -> str:
    """Over which findings the means are, and at which thresholds."""
    mean = "Means include the findings for which the metric is defined for all models. " * has_mean(result.models[0])
    rules = [f"{model.name}: {rule_name(model.rule)}" for model in result.models if model.rule]
    thresholds = f" The thresholds were chosen by these rules: {'; '.join(rules)}." if rules else ""
    return f"{mean}Multiply-adds and latencies are per image.{thresholds}"


def metric_title(result: ComparisonResult, name: str) -> str:
    """A metric, and over how many findings its mean is where that is not all of them."""
    count, models = max(model.macro[name].findings for model in result.models), result.models
    if count in (0, len(models[0].findings)):
        return METRICS[name]
    return f"{METRICS[name]}, mean of {count} findings" if count > 1 else f"{METRICS[name]}, 1 finding"


def auroc_by_model(result: ComparisonResult) -> Table:
    """AUROC of every finding and model, and the means."""
    models = result.models
    cells = [[with_limits(row.metrics["auroc"]) for row in model.findings] for model in models]
    rows = [[finding_name(row.finding), *shown] for row, *shown in zip(models[0].findings, *cells, strict=True)]
    means = [model.macro["auroc"] for model in models]
    total: list[object] = [f"mean of {means[0].findings}", *map(with_limits, means)]
    return Table(["finding", *(model.name for model in models)], rows, total if has_mean(models[0]) else None)


# ---- one model minus the first


def difference_table(result: ComparisonResult, place: int) -> Table:
    """AUROC of a model and of the first, their difference and its p-values: every finding, and the mean of several."""
    first, this = (result.models[each] for each in (0, place))
    pair = result.differences[place - 1]
    names = [finding_name(row.finding) for row in pair.findings]
    columns = zip(names, first.findings, this.findings, pair.findings, strict=True)
    rows = [_difference_row(name, one.metrics, other.metrics, own.metrics) for name, one, other, own in columns]
    name = f"mean of {first.macro['auroc'].findings}"
    mean = _difference_row(name, first.macro, this.macro, pair.macro) if has_mean(first) else None
    return Table(DIFFERENCE_HEAD, rows, mean)


def _difference_row(
    name: str,
    first: Mapping[str, ScalarEstimate],
    this: Mapping[str, ScalarEstimate],
    difference: Mapping[str, Difference],
) -> list[object]:
    return [
        name,
        decimals(first["auroc"].value),
        decimals(this["auroc"].value),
        signed(difference["auroc"].value),
        signed_limits(difference["auroc"]),
        *(p_value(p) for test in ("auroc", "auroc_delong") for p in (difference[test].p, difference[test].adjusted)),
    ]


def drawn_difference_table(result: ComparisonResult, place: int) -> Table:
    """The same with the intervals drawn behind their limits."""
    pair, table = result.differences[place - 1], difference_table(result, place)
    values = [*(row.metrics["auroc"] for row in pair.findings), pair.macro["auroc"]]
    limits = (abs(end) for value in values for end in (value.low, value.high) if end is not None)
    widest = max([CLOSEST, *limits])
    rows = [
        [*cells[:5], interval_drawing(value, (-widest, widest), 0.0), *cells[5:]]
        for cells, value in zip(table.all_rows, values, strict=False)
    ]
    head = [*DIFFERENCE_HEAD[:5], "", *DIFFERENCE_HEAD[5:]]
    return Table(head, rows) if table.total is None else Table(head, rows[:-1], rows[-1])


def mean_difference_table(result: ComparisonResult, place: int) -> Table:
    """The means of every metric, of a model and of the first."""
    first, this, pair = result.models[0], result.models[place], result.differences[place - 1]
    title = "mean over findings" if has_mean(first) else "metric"
    rows = [
        [
            metric_title(result, name),
            decimals(first.macro[name].value),
            decimals(this.macro[name].value),
            signed(pair.macro[name].value),
            signed_limits(pair.macro[name]),
            p_value(pair.macro[name].p),
            p_value(pair.macro[name].adjusted),
        ]
        for name in METRICS
    ]
    return Table([title, *DIFFERENCE_HEAD[1:7]], rows)


def mean_difference_note(result: ComparisonResult) -> str:
    """How the differences of means were computed."""
    mean = "Means include the findings for which the metric is defined for all models. " * has_mean(result.models[0])
    paired = (
        "The differences are paired, as in the table above. Adjusted p-values (adj.) account for the "
        "number of models by Holm's method."
    )
    return f"{mean}{paired}{uncertain_mean_note(result)}"


def uncertain_mean_note(result: ComparisonResult) -> str:
    """Which means have no interval because a finding has too few positives."""
    texts = [
        f" The difference in mean {METRICS[name]} has an interval only if every finding has at least "
        f"{load_metric(name).mean_from} positives: with fewer positives, the metric is biased, and the bias depends on "
        "the model."
        for name in METRICS
        if load_metric(name).mean_from and result.models[0].macro[name].findings > 1
    ]
    return "".join(texts)
