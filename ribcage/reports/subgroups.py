"""Subgroups of the test images – by sex, age, view, dataset: the means of each, and every finding's AUROC."""

from ribcage.metrics.classification_evaluation import ClassificationEvaluation
from ribcage.metrics.definitions import load_metric, metrics_in
from ribcage.metrics.estimates import MeanEstimate
from ribcage.reports.html import Table
from ribcage.reports.intervals import axis_ends, interval_drawing
from ribcage.reports.numbers import decimals, finding_name, limits, signed, signed_limits, with_limits

DIFFERENCE = "difference from all others"


def subgroup_table(result: ClassificationEvaluation) -> Table:
    """Mean AUROC of each subgroup, and its means of other metrics."""
    groups, others = result.subgroups, [name for name in metrics_in("subgroups") if name != "auroc"]
    ends = axis_ends([row.macro["auroc"] for row in groups])
    head = [
        "by",
        "subgroup",
        "images",
        "patients",
        "positives",
        "mean AUROC",
        "95 % CI",
        "",
        "findings",
        f"AUROC {DIFFERENCE}",
    ]
    head += [load_metric(name).label for name in others]
    rows: list[list[object]] = []
    for place, row in enumerate(groups):
        macro, area = row.macro, row.macro["auroc"]
        rows.append(
            [
                row.by if not place or groups[place - 1].by != row.by else "",
                group_name(row.by, row.group),
                row.images,
                row.patients,
                row.positives,
                decimals(area.value),
                limits(area),
                interval_drawing(area, ends),
                area.findings,
                gap_text(row.gap, area.findings),
                *(_mean_rate(macro, name) for name in others),
            ]
        )
    return Table(head, rows)


def auroc_table(result: ClassificationEvaluation) -> Table:
    """AUROC of every finding in every subgroup."""
    groups = result.subgroups
    head = ["finding", *(f"{row.by} {group_name(row.by, row.group)}" for row in groups)]
    return Table(
        head,
        [
            [finding_name(finding.finding), *(decimals(row.findings[place].metrics["auroc"].value) for row in groups)]
            for place, finding in enumerate(result.findings)
        ],
    )


def group_name(by: str, group: str) -> str:
    """The name of a subgroup: F; 40–59 years"""
    return f"{group} years" if by == "age" and group[:1].isdigit() else group


def gap_text(gap: MeanEstimate | None, findings: int) -> str:
    """A difference with its interval, and the number of findings in it where that differs from the subgroup's."""
    if gap is None:
        return "–"
    text = f"{signed(gap.value)} ({signed_limits(gap)})" if gap.low is not None else signed(gap.value)
    return text if gap.findings in (0, findings) else f"{text}, {gap.findings} finding{'s' * (gap.findings != 1)}"


def _mean_rate(macro: dict[str, MeanEstimate], name: str) -> str:
    """A mean, and the number of findings in it where that differs from AUROC's."""
    findings = macro[name].findings
    count = f", {findings} finding{'s' * (findings != 1)}"
    return with_limits(macro[name]) + (count if findings not in (0, macro["auroc"].findings) else "")
