"""Detection report: an evaluation of boxes as one page, and its table for the terminal."""

from collections.abc import Mapping, Sequence

from ribcage.evaluation.detection_baselines import BASELINE
from ribcage.evaluation.labelled_detections import LabelledDetections
from ribcage.metrics import froc
from ribcage.metrics.detection import HIT
from ribcage.metrics.detection_evaluation import DetectedFinding, DetectionEvaluation, MeanBoxRow
from ribcage.metrics.estimates import ScalarEstimate
from ribcage.metrics.matching import THRESHOLDS
from ribcage.reports import detection_curves, html
from ribcage.reports.details import evaluation_details, evaluation_title, intervals_sentence, leakage_card
from ribcage.reports.detection_errors import FigureGroup
from ribcage.reports.html import Table
from ribcage.reports.numbers import decimals, finding_name, limits, titled, with_limits
from ribcage.reports.subgroups import DIFFERENCE, gap_text, group_name
from ribcage.runtime.spelling import count_phrase

RATES = dict(zip(froc.RATES, ("1/8", "1/4", "1/2", "1", "2", "4", "8"), strict=True))
IMAGE_SETS = {"all images": "", "positive images only": "_positives", "as in published tables": "_skipping"}
SHORT_METRICS = ("map", "ap50", "ap75", "map_positives", "centre_mean")
BOX_METRIC_HEAD = ("finding", "n", "pos.", "boxes", "mAP", "95 % CI", "AP50", "AP75", "mAP pos.", "FROC")
BASELINE_HEAD = ("mAP", "mAP, positive images only", "FROC (centre hit)")
PROTOCOLS = {
    "honest": "honest (held-out test): the epoch and the score threshold were chosen on the validation split; nothing "
    "was tuned on the test images",
    "peers": "peers (the protocol of some published work): the score threshold was chosen on the test images, and the "
    "model may have been selected on them",
}


def detection_page(result: DetectionEvaluation, data: LabelledDetections, groups: Sequence[FigureGroup] = ()) -> str:
    """The whole page; groups of images as `detection_figures` gives them."""
    findings = ", ".join(finding_name(name) for name in result.context.model.findings)
    return html.render(
        "detection.html",
        title=evaluation_title(result),
        result=result,
        test_images=boxed_test_images(result),
        cards=detection_cards(result),
        metrics=box_metric_table(result) if len(result.findings) > 1 else None,
        metrics_note=box_metrics_note(result),
        findings=[
            (finding_name(row.finding), row, precision_table(row), sensitivity_table(row)) for row in result.findings
        ],
        thresholds=[f"{row.threshold:.3g}" for row in result.findings if row.threshold is not None],
        curves=detection_curves.detection_curve_groups(result, data),
        legend=detection_curves.LEGEND,
        baselines=box_baseline_table(result),
        subgroups=box_subgroup_table(result) if result.subgroups else None,
        groups=[group for group in groups if group.figures],
        details=evaluation_details(
            result, f"boxes of {findings}", boxed_test_images(result), PROTOCOLS[result.protocol]
        ),
    )


def boxed_test_images(result: DetectionEvaluation) -> str:
    """300 images from 120 patients"""
    return f"{count_phrase(result.images, 'image')} from {count_phrase(result.patients, 'patient')}"


def detection_cards(result: DetectionEvaluation) -> list[tuple[str, str]]:
    """(number, what it is), for the top of the page."""
    macro, findings = result.macro, result.findings
    boxes = sum(row.boxes for row in findings)
    at_one = macro["centre_at_1"]
    return [
        (decimals(macro["map"].value), titled("mAP", macro["map"])),
        (decimals(macro["map_positives"].value), titled("mAP, positive images only", macro["map_positives"])),
        (decimals(at_one.value), titled("sensitivity at 1 false positive per image", at_one)),
        (f"{boxes:,}", f"ground-truth boxes for {len(findings)} finding{'s' * (len(findings) > 1)}"),
        (f"{result.images:,}", "images"),
        (f"{result.patients:,}", "patients"),
        leakage_card(result),
    ]


# ---- metrics


def box_metric_table(result: DetectionEvaluation) -> Table:
    """The main metrics of each finding, and their mean where there are several."""
    rows = [
        [finding_name(row.finding), row.n, row.positives, row.boxes, *_metrics(row.metrics)] for row in result.findings
    ]
    mean = [f"mean of {result.macro['map'].findings}", "", "", "", *_metrics(result.macro)]
    return Table(BOX_METRIC_HEAD, rows, mean if len(rows) > 1 else None)


def _metrics(values: Mapping[str, ScalarEstimate]) -> list[object]:
    others = (decimals(values[name].value) for name in SHORT_METRICS[1:])
    return [decimals(values["map"].value), limits(values["map"]), *others]


def box_metrics_note(result: DetectionEvaluation) -> str:
    """How the metrics were computed."""
    return (
        f"mAP is the mean AP over IoU thresholds from {THRESHOLDS[0]:.2f} to {THRESHOLDS[-1]:.2f}, without a score "
        "threshold. The FROC score is the mean sensitivity at 1/8, 1/4, 1/2, 1, 2, 4 and 8 false positives per image; "
        f"a ground-truth box counts as detected if the centre of a detection lies inside it. "
        f"{intervals_sentence(result)}"
    )


def precision_table(row: DetectedFinding) -> Table:
    """AP on all images and on subsets."""
    rows: list[list[object]] = [
        [
            name,
            *(
                with_limits(row.metrics[f"{key}{which}"]) if f"{key}{which}" in row.metrics else ""
                for key in ("map", "ap50", "ap75")
            ),
        ]
        for name, which in IMAGE_SETS.items()
    ]
    if "kaggle" in row.metrics:
        rows.append(["per-image precision", with_limits(row.metrics["kaggle"]), "", ""])
    return Table(["images", "mAP", "AP50", "AP75"], rows)


def sensitivity_table(row: DetectedFinding) -> Table:
    """Sensitivity at every rate of false positives."""
    rows: list[list[object]] = []
    for kind, title in (("centre", "sensitivity (centre in box)"), ("overlap", f"sensitivity (IoU ≥ {HIT:g})")):
        values = [row.metrics[f"{kind}_at_{rate:g}"] for rate in RATES] + [row.metrics[f"{kind}_mean"]]
        rows += [[title, *(decimals(value.value) for value in values)], ["95 % CI", *map(limits, values)]]
    return Table(["false positives per image", *RATES.values(), "mean"], rows)


# ---- baselines and subgroups


def box_baseline_table(result: DetectionEvaluation) -> Table:
    """The detector and the baselines that do not use the image."""
    found = result.baselines
    unknown = MeanBoxRow(finding="", box=None, metrics=dict.fromkeys(BASELINE, ScalarEstimate()))
    boxes = found.mean_box or (unknown,) * len(result.findings)
    rows: list[list[object]] = []
    for row, box, shuffled in zip(result.findings, boxes, found.shuffled.findings, strict=True):
        rows.append(
            [finding_name(row.finding), "this detector", *(with_limits(row.metrics[name]) for name in BASELINE)]
        )
        rows.append(["", "mean box", *(with_limits(box.metrics[name]) for name in BASELINE)])
        rows.append(["", "shuffled detections", *(with_limits(shuffled.metrics[name]) for name in BASELINE)])
    return Table(["finding", "method", *BASELINE_HEAD], rows)


def box_subgroup_table(result: DetectionEvaluation) -> Table:
    """The same metrics in each subgroup."""
    groups, rows, several = result.subgroups, [], len(result.findings) > 1
    for place, row in enumerate(groups):
        by = row.by if not place or groups[place - 1].by != row.by else ""
        counts = [row.images, row.patients, row.boxes]
        averaged = [row.macro["map"].findings] if several else []
        gap = gap_text(row.gap.metrics["map"] if row.gap else None, row.macro["map"].findings)
        values = (with_limits(row.macro[name]) for name in BASELINE)
        rows.append([by, group_name(row.by, row.group), *counts, *averaged, *values, gap])
    head = [
        "by",
        "subgroup",
        "images",
        "patients",
        "boxes",
        *["findings"] * several,
        *BASELINE_HEAD,
        f"mAP, {DIFFERENCE}",
    ]
    return Table(head, rows)
