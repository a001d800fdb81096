"""Baselines of a classifier: what is reached without the image – by the view alone, by chance, by the prevalence."""

from typing import Any

from ribcage.reports.details import has_mean
from ribcage.reports.html import Table
from ribcage.reports.intervals import axis_ends, interval_drawing
from ribcage.reports.numbers import UNDEFINED, Interval, decimals, finding_name, limits


def baseline_table(result: dict[str, Any]) -> Table:
    """AUROC of the model, of the view alone, and the 95 % range of shuffled labels."""
    found, findings = result["baselines"], result["findings"]
    shuffled, ends = found["shuffled"], axis_ends([row["auroc"] for row in findings])
    views = found.get("view") or [{"auroc": UNDEFINED}] * len(findings)
    columns = zip(findings, views, shuffled["findings"], strict=True)
    rows = [
        _auroc_row(finding_name(row["finding"]), row["auroc"], view["auroc"], chance["auroc"], ends)
        for row, view, chance in columns
    ]
    area, by_view = result["macro"]["auroc"], found.get("view_macro", UNDEFINED)
    mean = _auroc_row(f"mean of {area['findings']}", area, by_view, shuffled["macro"], ends)
    head = ["finding", "AUROC", "", "view alone", "95 %", "", "shuffled labels"]
    return Table(head, rows, mean if has_mean(result) else None)


def _auroc_row(name: str, own: Interval, view: Interval, chance: Interval, ends: tuple[float, float]) -> list[object]:
    by_view = [decimals(view["value"]), limits(view), interval_drawing(view, ends)]
    return [name, decimals(own["value"]), interval_drawing(own, ends), *by_view, limits(chance)]


def constant_table(result: dict[str, Any]) -> Table | None:
    """AP, Brier score and accuracy of the model and of a constant prediction, the prevalence."""
    constant = result["baselines"].get("prevalence")
    if constant is None:
        return None
    metrics = ("ap", "brier", "accuracy")
    rows = [
        [
            finding_name(row["finding"]),
            *(decimals(each) for name in metrics for each in (row[name]["value"], same[name])),
        ]
        for row, same in zip(result["findings"], constant, strict=True)
    ]
    return Table(["finding", "AP", "constant", "Brier", "constant", "accuracy", "constant"], rows)
