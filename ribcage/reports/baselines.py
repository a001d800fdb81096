"""Baselines of a classifier that do not use the image: the view alone, shuffled labels, and the prevalence."""

from ribcage.metrics.classification_evaluation import ClassificationEvaluation
from ribcage.metrics.estimates import MetricRow, ScalarEstimate
from ribcage.reports.details import has_mean
from ribcage.reports.html import Table
from ribcage.reports.intervals import axis_ends, interval_drawing
from ribcage.reports.numbers import decimals, finding_name, limits


def baseline_table(result: ClassificationEvaluation) -> Table:
    """AUROC of the model, of the view alone, and the 95 % range of shuffled labels."""
    found, findings = result.baselines, result.findings
    shuffled, ends = found.shuffled, axis_ends([row.metrics["auroc"] for row in findings])
    unknown = MetricRow(finding="", metrics={"auroc": ScalarEstimate()})
    views = found.view or (unknown,) * len(findings)
    columns = zip(findings, views, shuffled.findings, strict=True)
    rows = [
        _auroc_row(
            finding_name(row.finding), row.metrics["auroc"], view.metrics["auroc"], chance.metrics["auroc"], ends
        )
        for row, view, chance in columns
    ]
    area, by_view = result.macro["auroc"], found.view_macro or ScalarEstimate()
    mean = _auroc_row(f"mean of {area.findings}", area, by_view, shuffled.macro, ends)
    head = ["finding", "AUROC", "", "AUROC, view alone", "95 % CI", "", "95 % range, shuffled labels"]
    return Table(head, rows, mean if has_mean(result) else None)


def _auroc_row(
    name: str, own: ScalarEstimate, view: ScalarEstimate, chance: ScalarEstimate, ends: tuple[float, float]
) -> list[object]:
    by_view = [decimals(view.value), limits(view), interval_drawing(view, ends)]
    return [name, decimals(own.value), interval_drawing(own, ends), *by_view, limits(chance)]


def constant_table(result: ClassificationEvaluation) -> Table | None:
    """AP, Brier score and accuracy of the model and of a constant prediction, the prevalence."""
    constant = result.baselines.prevalence
    if constant is None:
        return None
    rows = [
        [
            finding_name(row.finding),
            *(decimals(each) for each in (row.metrics["ap"].value, same.ap)),
            *(decimals(each) for each in (row.metrics["brier"].value, same.brier)),
            *(decimals(each) for each in (row.metrics["accuracy"].value, same.accuracy)),
        ]
        for row, same in zip(result.findings, constant, strict=True)
    ]
    return Table(
        ["finding", *(f"{name}, {kind}" for name in ("AP", "Brier", "accuracy") for kind in ("model", "constant"))],
        rows,
    )
