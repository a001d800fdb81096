"""Box report: a detector's evaluation as one page a person can read, and as lines for the terminal."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ribcage.data.dataset_folder import Store
from ribcage.evaluation.detection import BASELINE, RATE, Answers, Error, false_marks, missed
from ribcage.metrics import froc
from ribcage.metrics.detection import HIT
from ribcage.metrics.matching import THRESHOLDS, match
from ribcage.reports import classification, html, svg
from ribcage.reports.classification import UNDEFINED, both, limits, named, three, title
from ribcage.reports.svg import Axes, Dots, Line

RATES = dict(zip(froc.RATES, ("1/8", "1/4", "1/2", "1", "2", "4", "8"), strict=True))
PRECISIONS = {"all images": "", "positives only": "_positives", "as published tables skip": "_skipping"}
SHOWN = ("map", "ap50", "ap75", "map_positives", "centre_mean")
SHOWN_SIDE = 256  # pixels of an image on the page
MOST_DRAWN = 12  # found boxes in one image


def page(result: dict[str, Any], data: Answers, images: Sequence[tuple[str, str, Sequence[str]]] = ()) -> str:
    """The whole page; images as `worst_images` gives them."""
    parts = [html.paragraph(f"{result['run']}, {images_text(result)}", soft=True)]
    parts += [html.problems(result["stamps"])] if result["stamps"] else []
    parts += [html.cards(cards(result)), *map(html.paragraph, result["notes"])]
    parts += [*metric_parts(result), *curve_parts(result, data), *baseline_parts(result), *subgroup_parts(result)]
    for name, said, figures in images:
        parts += [html.heading(name), html.paragraph(said, soft=True), html.sheet(figures)] if figures else []
    parts += done_parts(result)
    return html.page(title(result), parts, style=svg.STYLE + STYLE)


STYLE = ".sheet { grid-template-columns: repeat(auto-fill, minmax(200px, 1fr)) }"


def images_text(result: dict[str, Any]) -> str:
    """How much was tested, in words."""
    return f"{result['images']:,} images of {result['patients']:,} known patients"


def cards(result: dict[str, Any]) -> list[tuple[str, str]]:
    """The numbers on top."""
    macro, findings = result["macro"], result["findings"]
    drawn = sum(row["boxes"] for row in findings)
    return [
        (three(macro["map"]["value"]), f"mAP ({limits(macro['map'])})"),
        (three(macro["map_positives"]["value"]), f"mAP on positives only ({limits(macro['map_positives'])})"),
        (three(macro["centre_at_1"]["value"]), f"found at 1 false mark per image ({limits(macro['centre_at_1'])})"),
        (f"{drawn:,}", f"true boxes of {len(findings)} finding{'s' * (len(findings) > 1)}"),
        (f"{result['images']:,}", "images"),
        (f"{result['patients']:,}", "patients"),
        ("yes" if result["leak"]["found"] else "no", "has the model seen any of them?"),
    ]


# ---- the numbers


FINDING_HEAD = ("finding", "n", "pos.", "boxes", "mAP", "95 %", "AP50", "AP75", "mAP pos.", "FROC")


def finding_table(result: dict[str, Any]) -> tuple[list[str], list[list[object]]]:
    """Head and rows for the terminal."""
    rows = [[named(row["finding"]), row["n"], row["positives"], row["boxes"], *_row(row)] for row in result["findings"]]
    several = [f"mean of {result['macro']['map']['findings']}", "", "", "", *_row(result["macro"])]
    return list(FINDING_HEAD), [*rows, *([several] if len(rows) > 1 else [])]


def _row(values: dict[str, Any]) -> list[object]:
    return [three(values["map"]["value"]), limits(values["map"]), *(three(values[name]["value"]) for name in SHOWN[1:])]


def macro_text(result: dict[str, Any]) -> str:
    """How the numbers were made, in a sentence or two."""
    return (
        f"mAP: mean over IoU {THRESHOLDS[0]:.2f} to {THRESHOLDS[-1]:.2f}, all boxes whatever their score. FROC: mean "
        "share found by the centre at 1/8 to 8 false marks per image. "
        f"Intervals: {100 * result['level']:g} %, Wilson's over patients ({result['resamples']:,} resamples)."
    )


METRICS_TEXT = (
    "Positives only: images with at least one true box, which forgives every false alarm in the others. As published "
    "tables skip: also without images in which nothing scores 0.5, so that an image missed altogether costs "
    "nothing, and with boxes one pixel larger; for comparison only. Precision image by image: of the RSNA "
    "challenge, TP / (TP + FP + FN) over the same overlaps, of the boxes above a cut{cut}. False marks are per "
    "image."
)


def metric_parts(result: dict[str, Any]) -> list[str]:
    """Every metric of every finding with its interval."""
    parts = [html.heading("Boxes")]
    if len(result["findings"]) > 1:
        head, rows = finding_table(result)
        parts += [html.table(head, rows[:-1], rows[-1]), html.paragraph(macro_text(result), soft=True)]
    for row in result["findings"]:
        said = f"{row['boxes']:,} boxes in {row['positives']:,} of {row['n']:,} images, {row['found']:,} found"
        parts += [html.heading(f"{named(row['finding'])} – {said}", 3), precision_table(row), sensitivity_table(row)]
    cuts = ", ".join(f"{row['cut']:.3g}" for row in result["findings"] if row["cut"] is not None)
    source = "that the tested images chose" if result["protocol"] == "peers" else "that validation chose"
    text = METRICS_TEXT.format(cut=f" {source} ({cuts})" if cuts else "")
    return [*parts, html.paragraph(f"{macro_text(result)} {text}", soft=True)]


def precision_table(row: dict[str, Any]) -> str:
    """AP on all images and on fewer."""
    rows: list[list[object]] = [
        [name, *(both(row[f"{key}{which}"]) if f"{key}{which}" in row else "" for key in ("map", "ap50", "ap75"))]
        for name, which in PRECISIONS.items()
    ]
    if "kaggle" in row:
        rows.append(["precision image by image", both(row["kaggle"]), "", ""])
    return html.table(["", "mAP", "AP50", "AP75"], rows)


def sensitivity_table(row: dict[str, Any]) -> str:
    """What is found at every rate of false marks."""
    rows: list[list[object]] = []
    for kind, said in (("centre", "found, by the centre"), ("overlap", f"found, by an IoU of {HIT:g}")):
        values = [row[f"{kind}_at_{rate:g}"] for rate in RATES] + [row[f"{kind}_mean"]]
        rows += [[said, *(three(value["value"]) for value in values)], ["", *map(limits, values)]]
    return html.table(["at false marks per image", *RATES.values(), "mean"], rows)


# ---- curves


RATE_TICKS = tuple((float(np.log2(rate)), text) for rate, text in ((0.125, "1/8"), (0.5, "1/2"), (2, "2"), (8, "8")))
KEY = (
    ("main", "by the centre · at IoU .50 · true boxes found · hits"),
    ("other", f"by an IoU of {HIT:g} · at IoU .40 · all true boxes · false marks"),
)
CURVES_TEXT = (
    "FROC: how many true boxes are found for how many false marks per image. Precision and recall of boxes at an IoU "
    "of .50 and of .40. Sizes: the side of a square of the same area as the true box, as a share of the image's; how "
    "many of each size there are, and are found by the centre at one false mark per image. Scores of boxes with the "
    "centre in a true one and of those that hit nothing, each as a share of its own group."
)


def curve_parts(result: dict[str, Any], data: Answers) -> list[str]:
    """Four plots for every finding."""
    parts = [html.heading("Curves"), html.paragraph(CURVES_TEXT, soft=True), svg.key(KEY)]
    for place, row in enumerate(result["findings"]):
        drawings = [froc_plot(data, place), recall_plot(data, place), size_plot(row["sizes"]), score_plot(data, place)]
        parts += [html.heading(named(row["finding"]), 3), svg.plots(drawings, four=True)]
    return parts


def froc_plot(data: Answers, place: int) -> str:
    """Sensitivity against false marks per image, on a scale of doublings."""
    boxes, at = data.boxes[place], np.linspace(-3, 3, 121)
    images, lines, dots = int(boxes.known.sum()), [], []
    by_overlap = froc.events(boxes.found, boxes.true, len(data), HIT)
    for events, kind in ((by_overlap, "other"), (data.events[place], "main")):
        false, sensitivity, _ = froc.curve(events, images)
        lines.append(Line(at, sensitivity[np.searchsorted(false, 2**at, side="right") - 1], kind))
        rates = np.array(froc.RATES)
        own = sensitivity[np.searchsorted(false, rates, side="right") - 1]
        dots.append(Dots(np.log2(rates), own, "other" if kind == "other" else ""))
    axes = Axes((-3, 3), (0, 1), "false marks per image", "share found", RATE_TICKS)
    return svg.plot("FROC", [*lines, *dots], axes)


def recall_plot(data: Answers, place: int) -> str:
    """Precision against recall at two overlaps."""
    boxes = data.boxes[place]
    matches = match(boxes.found, boxes.true, len(data))
    lines = []
    for at, kind in ((0, "other"), (THRESHOLDS.index(0.5), "main")):
        right = np.cumsum(matches.right[at])
        precision = right / np.arange(1, len(right) + 1)
        best = np.maximum.accumulate(precision[::-1])[::-1]
        lines.append(Line(right / max(len(boxes.true), 1), best, kind))
    return svg.plot("Precision and recall", lines, Axes(x_label="recall", y_label="precision"))


def size_plot(sizes: Sequence[dict[str, Any]]) -> str:
    """How many true boxes of each size there are and are found."""
    edges = np.array([sizes[0]["from"], *(each["to"] for each in sizes)])
    top, ticks = svg.nice(max(each["boxes"] for each in sizes))
    steps = np.repeat(edges, 2)[1:-1]
    parts: list[Line | Dots] = [
        Line(steps, np.repeat(np.array([float(each[name]) for each in sizes]), 2), kind)
        for name, kind in (("boxes", "other-area"), ("found", "main-area"))
    ]
    low, high = float(edges[0]), float(edges[-1])
    marks = [(value, f"{100 * value:.0f} %") for value in (low, (low + high) / 2, high)]
    return svg.plot(
        "Sizes", parts, Axes((low, high), (0, top), "size, share of the image's side", "boxes", marks, ticks)
    )


def score_plot(data: Answers, place: int) -> str:
    """How the scores of hits and of false marks lie."""
    boxes = data.boxes[place]
    hitting = froc.best_hits(boxes.found, boxes.true, len(data))[1]
    scores = boxes.found.scores
    low, high = (float(scores.min()), float(scores.max())) if len(scores) else (0.0, 1.0)
    edges = np.linspace(low, max(high, low + 1e-6), 31)
    shares = [np.histogram(scores[own], edges)[0] / max(int(own.sum()), 1) for own in (~hitting, hitting)]
    parts: list[Line | Dots] = [
        Line(np.repeat(edges, 2)[1:-1], np.repeat(share, 2), kind)
        for share, kind in zip(shares, ("other-area", "main-area"), strict=True)
    ]
    top = max(float(share.max()) for share in shares) or 1.0
    ticks = [(float(value), f"{value:.2g}") for value in (edges[0], (edges[0] + edges[-1]) / 2, edges[-1])]
    axes = Axes((float(edges[0]), float(edges[-1])), (0, top), "score", "share of its group", ticks, ())
    return svg.plot("Scores", parts, axes)


# ---- beside it


BASELINE_HEAD = ("mAP", "mAP, positives only", "FROC by centre")


def baseline_parts(result: dict[str, Any]) -> list[str]:
    """What is reached without looking at an image."""
    found = result["baselines"]
    boxes = found.get("mean_box") or [dict.fromkeys(BASELINE, UNDEFINED)] * len(result["findings"])
    rows: list[list[object]] = []
    for row, box, dealt in zip(result["findings"], boxes, found["shuffled"]["findings"], strict=True):
        rows.append([named(row["finding"]), "this detector", *(both(row[name]) for name in BASELINE)])
        rows.append(["", "the mean box everywhere", *(both(box[name]) for name in BASELINE)])
        rows.append(["", "boxes of other images", *(both(dealt[name]) for name in BASELINE)])
    where = f"learnt from {found['fitted_on']}" if found["fitted_on"] else "not told: no training images are here"
    said = (
        f"The mean box everywhere, with scores by chance: {where}. Boxes of other images: what was found is dealt "
        f"out anew among the images; the middle and the 95 % range of {found['shuffled']['times']} rounds."
    )
    return [
        html.heading("Without looking"),
        html.table(["", "", *BASELINE_HEAD], rows),
        html.paragraph(said, soft=True),
    ]


def subgroup_parts(result: dict[str, Any]) -> list[str]:
    """The same three numbers in each subgroup."""
    groups, rows = result["subgroups"], []
    for place, row in enumerate(groups):
        by = row["by"] if not place or groups[place - 1]["by"] != row["by"] else ""
        values = [both(row["macro"][name]) for name in BASELINE]
        of = [row["macro"]["map"]["findings"]] if len(result["findings"]) > 1 else []
        apart = classification.gap_text(row["gap"]["map"], row["macro"]["map"]["findings"])
        rows.append([by, row["group"], row["images"], row["patients"], row["boxes"], *of, *values, apart])
    of_findings = ["of findings"] if len(result["findings"]) > 1 else []
    head = ["", "", "images", "patients", "boxes", *of_findings, *BASELINE_HEAD, f"mAP, {classification.DIFFERENCE}"]
    said = (
        classification.ALL_OTHERS
        + "AP depends on how many boxes there are to find, so subgroups with fewer of them score lower. "
    )
    said += "A mean is over the findings drawn in the subgroup. " * bool(of_findings) + classification.MANY
    return [html.heading("Subgroups"), html.table(head, rows), html.paragraph(said, soft=True)] if groups else []


def done_parts(result: dict[str, Any]) -> list[str]:
    """Model, data, protocol, leak check, and the command to repeat it."""
    protocol = {
        "honest": "honest: validation chose the epoch and the cut, the tested images chose nothing",
        "peers": "peers: the tested images chose the cut, and the model may have been selected on them",
    }
    described = f"finds {', '.join(named(name) for name in result['model']['findings'])}"
    return classification.done(result, described, images_text(result), protocol[result["protocol"]])


# ---- images


def worst_images(data: Answers, stores: Sequence[Store], most: int) -> list[tuple[str, str, list[str]]]:
    """Heading, what is to be seen, figures: some images as they come, and those on which the detector errs most."""
    key = "Orange: true boxes. Blue: found ones that score above the cut of one false mark per image."
    late = f"Found by an overlap of {HIT:g} only after most false marks, or never. {key}"
    sure = f"The surest boxes that hit nothing. {key}"
    drawn = np.unique(np.concatenate([boxes.true.images for boxes in data.boxes]))
    some = drawn[np.unique(np.linspace(0, len(drawn) - 1, most // 2).astype(int))].tolist() if most > 1 else []
    return [
        ("Images", f"Some of those with true boxes, as they come. {key}", _figures(data, stores, some)),
        ("Missed", late, _figures(data, stores, missed(data, most // 2))),
        ("False marks", sure, _figures(data, stores, false_marks(data, most // 2))),
    ]


def _figures(data: Answers, stores: Sequence[Store], chosen: Sequence[Error] | Sequence[int]) -> list[str]:
    return [figure(data, stores, *((one, None) if isinstance(one, int) else (one.image, one))) for one in chosen]


def figure(data: Answers, stores: Sequence[Store], image: int, error: Error | None) -> str:
    """An image with what is there and what was found."""
    shown = classification.image(stores, int(data.rows[image]), SHOWN_SIDE)
    if shown is None:
        return ""
    scale = len(shown) / data.sides[image]
    true, found = [], []
    for place, boxes in enumerate(data.boxes):
        if error is None or error.finding == place:  # of an error only its own finding
            true.append(boxes.true.boxes[boxes.true.images == image])
            own = boxes.found.only((boxes.found.images == image) & (boxes.found.scores >= data.shown[place]))
            found.append(own.boxes[np.argsort(-own.scores, kind="stable")][:MOST_DRAWN])
    sides = [_sides(np.concatenate(each) * scale) for each in (true, found)]
    return html.figure(shown, caption(data, image, error), *sides)


def _sides(boxes: np.ndarray) -> list[html.Box]:
    """x, y, width, height of each."""
    return [(x0, y0, x1 - x0, y1 - y0) for x0, y0, x1, y1 in boxes.tolist()]


def caption(data: Answers, image: int, error: Error | None) -> str:
    """Lung Opacity, size 21 %: found after 3.2 false marks per image · PA F 51"""
    about = data.about.iloc[image]
    age = "" if np.isnan(about["age"]) else f"{about['age']:.0f}"
    person = " ".join(text for text in (about["view"], about["sex"], age) if text)
    return " · ".join(part for part in (_said(data, image, error), person) if part)


def _said(data: Answers, image: int, error: Error | None) -> str:
    if error is None:
        there = {
            named(name): (each.true.images == image).sum() for name, each in zip(data.findings, data.boxes, strict=True)
        }
        return ", ".join(f"{name} × {count}" for name, count in there.items() if count)
    name = f"{named(data.findings[error.finding])}, size {100 * error.size:.0f} %"
    if not np.isfinite(error.false):
        return f"{name}: never found"
    if error.score < data.shown[error.finding] and error.false > RATE:
        return f"{name}: found after {error.false:.2g} false marks per image"
    return f"{name}: score {error.score:.2g}"
