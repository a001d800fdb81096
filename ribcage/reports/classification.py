"""Report: an evaluation as one page a person can read, and as lines for the terminal."""

from collections.abc import Sequence
from typing import Any, Literal

import cv2
import numpy as np

from ribcage import metrics
from ribcage.bundle.bundle import HALF, RULE
from ribcage.data.dataset_folder import Store
from ribcage.evaluation import comparison
from ribcage.evaluation.classification import BINS, Answers
from ribcage.metrics import Bins, Curve, Histogram
from ribcage.reports import html, svg
from ribcage.reports.svg import Axes, Dots, Line

RULES = {
    "youden": "sensitivity + specificity highest",
    "midpoint": "between the mean log odds of both sides",
    "f1": "F1 highest",
    "sensitivity_95": "sensitivity at least 95 %",
    "specificity_95": "specificity at least 95 %",
    HALF: "probability 50 %",
}
TICKS = (1e-5, 1e-4, 1e-3, 0.01, 0.1, 0.5, 0.9, 0.99, 0.999)
SHOWN_SIDE = 200  # pixels of an image on the page
SIDES: tuple[Literal["left", "right"], ...] = ("left", "right")


def page(result: dict[str, Any], data: Answers, images: Sequence[tuple[str, Sequence[str]]] = ()) -> str:
    """The whole page; images as `worst_images` gives them."""
    parts = [html.paragraph(f"{result['run']}, {images_text(result)}", soft=True)]
    parts += [html.problems(result["stamps"])] if result["stamps"] else []
    parts += [html.cards(cards(result)), *map(html.paragraph, result["notes"])]
    parts += [*findings_parts(result), *curve_parts(result, data), *calibration_parts(result), *rule_parts(result)]
    parts += [*baseline_parts(result), *subgroup_parts(result)]
    for name, figures in images:
        parts += [html.heading(name), html.sheet(figures)] if figures else []
    parts += done_parts(result)
    return html.page(title(result), parts, style=svg.STYLE)


def title(result: dict[str, Any]) -> str:
    """densenet121 on nih, test"""
    sets = " and ".join(dict.fromkeys(one["name"] for one in result["data"]))
    return f"{result['model']['name']} on {sets}, {result['split']}"


def images_text(result: dict[str, Any]) -> str:
    """How much was tested, in words."""
    way = "ten crops each" if result["ten_crop"] else "one view each"
    return f"{result['images']:,} images of {result['patients']:,} known patients, {way}"


def cards(result: dict[str, Any]) -> list[tuple[str, str]]:
    """The numbers on top."""
    area, precision = result["macro"]["auroc"], result["macro"]["ap"]
    mean = "mean " * several(result)
    shown = [
        (three(area["value"]), f"{mean}AUROC ({limits(area)})"),
        (three(precision["value"]), f"{mean}average precision ({limits(precision)})"),
        (f"{area['findings']} of {len(result['findings'])}", "findings that can be judged"),
        (f"{result['images']:,}", "images"),
        (f"{result['patients']:,}", "patients"),
        ("yes" if result["leak"]["found"] else "no", "has the model seen any of them?"),
    ]
    if "top1" in result:
        shown.insert(1, (three(result["top1"]["value"]), f"accuracy of the first choice ({limits(result['top1'])})"))
    return shown


# ---- the findings


FINDING_HEAD = ("finding", "n", "pos.", "AUROC", "95 %", "AP", "sens.", "spec.", "F1", "acc.", "Brier")
MEANT = ("ap", "sensitivity", "specificity", "f1", "accuracy", "brier")
"""What the columns behind the interval are."""

LESS = ("AP", "F1", "Brier")
"""What a narrow terminal leaves out."""


def several(result: dict[str, Any]) -> bool:
    """Whether there is a mean: of one finding it would say the same again."""
    return len(result["findings"]) > 1 and result["macro"]["auroc"]["findings"] != 1


def finding_table(result: dict[str, Any]) -> tuple[list[str], list[list[object]]]:
    """Head and rows for the terminal."""
    rows = [finding_row(row) for row in result["findings"]]
    return list(FINDING_HEAD), [*rows, *([total_row(result)] if several(result) else [])]


def finding_row(row: dict[str, Any]) -> list[object]:
    """One finding."""
    rates = [three(row[name]["value"]) for name in MEANT]
    return [
        named(row["finding"]),
        row["n"],
        row["positives"],
        three(row["auroc"]["value"]),
        limits(row["auroc"]),
        *rates,
    ]


def total_row(result: dict[str, Any]) -> list[object]:
    """The mean over findings."""
    macro = result["macro"]
    rates = [three(macro[name]["value"]) for name in MEANT]
    name = f"mean of {macro['auroc']['findings']}"
    return [name, "", "", three(macro["auroc"]["value"]), limits(macro["auroc"]), *rates]


RATES = ("accuracy", "sensitivity", "specificity")


def macro_text(result: dict[str, Any]) -> str:
    """How the numbers were made, in a sentence or two."""
    text = (
        f"Intervals: {100 * result['level']:g} %, Wilson's over patients ({result['resamples']:,} resamples). "
        f"Rates at the thresholds '{rule_name(result['rule'])}'{threshold_origin(result)}."
    )
    text += other_means(result) if several(result) else ""
    if len(result["findings"]) == 1:
        rates = ", ".join(f"{name} {both(result['findings'][0][name])}" for name in RATES)
        text = f"{rates[:1].upper()}{rates[1:]}. {text}"
    top = result.get("top1")
    return text + (f" Accuracy of the first choice {three(top['value'])} ({limits(top)})." if top else "")


def other_means(result: dict[str, Any]) -> str:
    """Which means of the table are of other findings than that of AUROC."""
    macro, names = result["macro"], dict(zip(FINDING_HEAD[5:], MEANT, strict=True))
    told = [f"{title} {macro[name]['findings']}" for title, name in names.items()
            if macro[name]["findings"] != macro["auroc"]["findings"]]  # fmt: skip
    return f" Means are of the findings for which a number is defined: {', '.join(told)}." if told else ""


def threshold_origin(result: dict[str, Any]) -> str:
    """Where the thresholds come from."""
    if result["rule"] == HALF:
        return ""
    return " chosen on the tested images" if result["protocol"] == "peers" else " chosen on validation"


def findings_parts(result: dict[str, Any]) -> list[str]:
    """The main table."""
    ends = span_ends([row["auroc"] for row in result["findings"]])
    head = [*FINDING_HEAD[:5], "", *FINDING_HEAD[5:]]
    rows = [drawn(finding_row(row), row["auroc"], ends) for row in result["findings"]]
    total = drawn(total_row(result), result["macro"]["auroc"], ends) if several(result) else None
    said = "The fine line in the drawing is chance, an AUROC of 0.5."
    return [
        html.heading("Findings"),
        html.table(head, rows, total),
        html.paragraph(f"{macro_text(result)} {said}", soft=True),
    ]


def drawn(cells: list[object], value: dict[str, Any], ends: tuple[float, float]) -> list[object]:
    """The cells with the interval drawn behind its text."""
    return [*cells[:5], span(value, ends), *cells[5:]]


def span(value: dict[str, Any], ends: tuple[float, float], chance: float = 0.5) -> html.Drawing:
    """An interval as a drawing, with a line at what chance gives."""
    numbers = [np.nan if value[name] is None else float(value[name]) for name in ("value", "low", "high")]
    return html.Drawing(svg.span(numbers[0], numbers[1], numbers[2], ends, mark=chance))


def span_ends(values: Sequence[dict[str, Any]]) -> tuple[float, float]:
    """What the drawn intervals run from and to."""
    lows = [value["low"] if value["low"] is not None else value["value"] for value in values]
    known = [low for low in lows if low is not None]
    return min([0.45, *(np.floor(20 * low) / 20 for low in known)]), 1.0


# ---- curves


def curve_parts(result: dict[str, Any], data: Answers) -> list[str]:
    """Four plots for every finding that has both classes."""
    chosen = data.threshold(result["rule"])
    rates = metrics.rates(metrics.counts(data.probabilities, data.labels, chosen))
    parts = [html.heading("Curves"), html.paragraph(CURVES_TEXT, soft=True), svg.key(KEY)]
    for place, row in enumerate(result["findings"]):
        if row["auroc"]["value"] is None:
            continue
        said = f"{named(row['finding'])} – AUROC {three(row['auroc']['value'])} ({limits(row['auroc'])})"
        point = {name: float(value[place]) for name, value in rates.items()}
        parts += [html.heading(said, 3), svg.plots(finding_plots(row, data, place, point, chosen[place]), four=True)]
    return parts


def finding_plots(
    row: dict[str, Any], data: Answers, place: int, point: dict[str, float], threshold: float
) -> list[str]:
    """ROC, precision and recall, reliability, scores; fewer images make fewer bins."""
    scores, before, labels = (values[:, [place]] for values in (data.probabilities, data.uncalibrated, data.labels))
    fewest = min(row["positives"], row["n"] - row["positives"])
    bins, bars = int(np.clip(fewest // 5, 4, BINS)), int(np.clip(2 * fewest**0.5, 8, 36))
    return [
        roc_plot(metrics.roc(scores, labels)[0], point),
        recall_plot(metrics.precision_recall(scores, labels)[0], point, row["prevalence"]),
        reliability_plot(*(metrics.reliability(shares, labels, bins=bins)[0] for shares in (before, scores))),
        histogram_plot(metrics.histogram(log_odds(scores), labels, bins=bars)[0], float(threshold)),
    ]


CURVES_TEXT = (
    "The ring is the threshold that the rates in the table belong to. Reliability compares what was said with what was "
    f"there, in up to {BINS} bins of equally many images. The last drawing shows the scores of images with the "
    "finding and of those without, each as a share of its own group."
)
KEY = (("main", "with the finding · after temperature"), ("other", "without the finding · before temperature"))


def roc_plot(curve: Curve, point: dict[str, float]) -> str:
    """Sensitivity against false positive rate."""
    ends = np.array([0.0, 1.0])
    mark = Dots(np.array([1 - point["specificity"]]), np.array([point["sensitivity"]]), "mark")
    axes = Axes(x_label="false positive rate", y_label="sensitivity")
    return svg.plot("ROC", [Line(ends, ends, "faint"), Line(curve.x, curve.y), mark], axes)


def recall_plot(curve: Curve, point: dict[str, float], prevalence: float) -> str:
    """Precision against recall; the dashed line is the prevalence."""
    mark = Dots(np.array([point["sensitivity"]]), np.array([point["ppv"]]), "mark")
    chance = Line(np.array([0.0, 1.0]), np.array([prevalence, prevalence]), "faint")
    axes = Axes(x_label="recall", y_label="precision")
    return svg.plot("Precision and recall", [chance, Line(curve.x, curve.y), mark], axes)


def reliability_plot(before: Bins, after: Bins) -> str:
    """What was there against what was said."""
    largest = max(float(values.max()) for bins in (before, after) for values in (bins.probability, bins.positive))
    end, ticks = svg.nice(min(largest, 1.0))
    axes = Axes((0, end), (0, end), "probability said", "share with the finding", ticks, ticks)
    diagonal = np.array([0.0, end])
    parts: list[Line | Dots] = [Line(diagonal, diagonal, "faint")]
    for bins, kind, dots in ((before, "other", "other"), (after, "main", "")):
        order = np.argsort(bins.probability)
        x, y = bins.probability[order], bins.positive[order]
        parts += [Line(x, y, kind), Dots(x, y, dots)]
    return svg.plot("Reliability", parts, axes)


def histogram_plot(histogram: Histogram, threshold: float) -> str:
    """How scores lie, on the scale of log-odds."""
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
    axes = Axes(ends, (0, top), "probability said", "share of its group", probability_ticks(ends), ())
    return svg.plot("Scores", lines, axes)


def probability_ticks(ends: tuple[float, float]) -> list[tuple[float, str]]:
    """Round probabilities at their log-odds, not too close to each other."""
    chosen: list[tuple[float, str]] = []
    for share in TICKS:
        at = float(log_odds(np.array(share)))
        if ends[0] <= at <= ends[1] and (not chosen or at - chosen[-1][0] > (ends[1] - ends[0]) / 5.2):
            chosen.append((at, f"{100 * share:g} %"))
    return chosen


def log_odds(shares: np.ndarray) -> np.ndarray:
    """log(p / (1 - p)), held to where images can be told apart by eye."""
    held = np.clip(shares, 1e-6, 1 - 1e-6)
    return np.log(held / (1 - held))


# ---- calibration, thresholds, baselines, subgroups


def calibration_parts(result: dict[str, Any]) -> list[str]:
    """Brier and ECE before and after temperature."""
    head = ["finding", "temperature", "Brier before", "after", "ECE before", "after"]
    rows = [
        [
            named(row["finding"]),
            "–" if row["temperature"] is None else f"{row['temperature']:.2f}",
            both(row["brier_before"]),
            both(row["brier"]),
            three(row["ece_before"]),
            three(row["ece"]),
        ]
        for row in result["findings"]
    ]
    said = (
        f"ECE over {BINS} bins of equally many images, without an interval. The temperature was fitted on validation."
    )
    return [html.heading("Calibration"), html.table(head, rows), html.paragraph(said, soft=True)]


def rule_parts(result: dict[str, Any]) -> list[str]:
    """The rates at every stored threshold."""
    parts = [html.heading("Other thresholds")]
    names = ("sensitivity", "specificity", "ppv", "npv", "f1", "accuracy")
    head = ["", "threshold", "sensitivity", "specificity", "PPV", "NPV", "F1", "accuracy"]
    for rule, rows in result["rules"].items():
        if rule != result["rule"]:
            cells = [
                [named(row["finding"]), three(row["threshold"]), *(both(row[name]) for name in names)] for row in rows
            ]
            inner = html.table(head, cells)
            parts.append(f"<details><summary>{html.escape(rule_name(rule))}</summary>{inner}</details>")
    return parts


def baseline_parts(result: dict[str, Any]) -> list[str]:
    """What is reached without looking at an image."""
    found, findings = result["baselines"], result["findings"]
    shuffled, ends = found["shuffled"], span_ends([row["auroc"] for row in findings])
    views = found.get("view") or [{"auroc": UNDEFINED}] * len(findings)
    columns = zip(findings, views, shuffled["findings"], strict=True)
    rows = [
        auroc_row(named(row["finding"]), row["auroc"], view["auroc"], chance["auroc"], ends)
        for row, view, chance in columns
    ]
    area, by_view = result["macro"]["auroc"], found.get("view_macro", UNDEFINED)
    mean = auroc_row(f"mean of {area['findings']}", area, by_view, shuffled["macro"], ends)
    total = mean if several(result) else None
    where = f"Shares were taken from {found['fitted_on']}." if found["fitted_on"] else NOTHING_TO_FIT
    said = (
        "View alone: everybody gets the share of positives among images of the same view. Shuffled: what 95 % of "
        f"{shuffled['times']} rounds reached in which labels were dealt out anew. {where}"
    )
    head = ["finding", "AUROC", "", "view alone", "95 %", "", "shuffled"]
    return [
        html.heading("Without looking"),
        html.table(head, rows, total),
        html.paragraph(said, soft=True),
        *constant_parts(findings, found.get("prevalence")),
    ]


UNDEFINED = {"value": None, "low": None, "high": None}


def auroc_row(
    name: str, own: dict[str, Any], view: dict[str, Any], chance: dict[str, Any], ends: tuple[float, float]
) -> list[object]:
    """The model's AUROC, that of the view alone, and what chance reaches."""
    seen = [three(view["value"]), limits(view), span(view, ends)]
    return [name, three(own["value"]), span(own, ends), *seen, limits(chance)]


def constant_parts(findings: Sequence[dict[str, Any]], always: Sequence[dict[str, Any]] | None) -> list[str]:
    """AP, Brier and accuracy of somebody who always says the prevalence."""
    if always is None:
        return []
    names = ("ap", "brier", "accuracy")
    rows = [
        [named(row["finding"]), *(three(each) for name in names for each in (row[name]["value"], same[name]))]
        for row, same in zip(findings, always, strict=True)
    ]
    said = "Always the same: everybody gets the share of positives among all."
    head = ["finding", *(text for name in ("AP", "Brier", "accuracy") for text in (name, "always the same"))]
    return [html.table(head, rows), html.paragraph(said, soft=True)]


NOTHING_TO_FIT = "The folders hold no training or validation images to take the shares from, so none are shown."


MANY = "Intervals are not corrected for the number of subgroups: of many, some differ by chance alone."
DIFFERENCE = "difference to all others"
ALL_OTHERS = "The difference is to all other images of the test, over the findings that are defined in both. "


def gap_text(gap: dict[str, Any], findings: int) -> str:
    """A difference with its interval, and over how many findings where that is another number than the subgroup's."""
    text = f"{signed(gap['value'])} ({signed_limits(gap)})" if gap["low"] is not None else signed(gap["value"])
    return text if gap["findings"] in (0, findings) else f"{text} of {gap['findings']}"


def subgroup_parts(result: dict[str, Any]) -> list[str]:
    """Mean AUROC, sensitivity and specificity of each subgroup; findings one by one below."""
    groups = result["subgroups"]
    if not groups:
        return []
    ends = span_ends([row["macro"]["auroc"] for row in groups])
    head = ["", "", "images", "patients", "positives", "mean AUROC", "95 %", "", "of findings", DIFFERENCE]
    head += ["sensitivity", "specificity"]
    rows: list[list[object]] = []
    for row in groups:
        macro = row["macro"]
        rows.append(
            [
                row["by"] if not rows or row["by"] not in [shown[0] for shown in rows] else "",
                row["group"],
                row["images"],
                row["patients"],
                row["positives"],
                three(macro["auroc"]["value"]),
                limits(macro["auroc"]),
                span(macro["auroc"], ends),
                macro["auroc"]["findings"],
                gap_text(row["gap"], macro["auroc"]["findings"]),
                *(_of_findings(macro, name) for name in ("sensitivity", "specificity")),
            ]
        )
    inner = html.table(
        ["finding", *(f"{row['by']} {row['group']}" for row in groups)],
        [
            [named(finding["finding"]), *(three(row["findings"][place]["auroc"]["value"]) for row in groups)]
            for place, finding in enumerate(result["findings"])
        ],
    )
    said = (
        "The mean is over the findings that have both classes in the subgroup; where their number differs, so does "
        "what is averaged. Thresholds are those of the whole. " + ALL_OTHERS + MANY
    )
    return [
        html.heading("Subgroups"),
        html.table(head, rows),
        html.paragraph(said, soft=True),
        f"<details><summary>AUROC of every finding in every subgroup</summary>{inner}</details>",
    ]


def _of_findings(macro: dict[str, Any], name: str) -> str:
    """A mean, and over how many findings where that is another number than AUROC's."""
    own = macro[name]["findings"]
    return both(macro[name]) + (f" of {own}" if own not in (0, macro["auroc"]["findings"]) else "")


# ---- images


def worst_images(data: Answers, stores: Sequence[Store], most: int, rule: str = RULE) -> list[tuple[str, list[str]]]:
    """The images on which the model errs most: missed findings and false alarms, as figures."""
    return [
        (name, [figure(data, stores, place, column) for place, column in worst(data, present, most // 2, rule)])
        for name, present in (("Missed", True), ("False alarms", False))
    ]


def worst(data: Answers, present: bool, most: int, rule: str = RULE) -> list[tuple[int, int]]:
    """(image, finding): those that most of the other class outscores, of those on the wrong side of the threshold
    where there is one; each image once, no finding too often."""
    places, columns, wrong = [], [], []
    cuts = data.threshold(rule)
    for column, (scores, labels) in enumerate(zip(data.probabilities.T, data.labels.T, strict=True)):
        own, other = (np.flatnonzero(labels == float(each)) for each in (present, not present))
        if len(own) and len(other):
            ranked = np.sort(scores[other])
            below, level = (np.searchsorted(ranked, scores[own], side=side) for side in SIDES)
            share = 1 - level / len(other) if present else below / len(other)  # 0: nobody outscores it, so no error
            kept = (share > 0) & (np.isnan(cuts[column]) | ((scores[own] < cuts[column]) == present))
            places.append(own[kept])
            columns.append(np.full(len(places[-1]), column))
            wrong.append(share[kept])
    if not places:
        return []
    order = np.argsort(-np.concatenate(wrong), kind="stable")
    pairs = zip(np.concatenate(places)[order].tolist(), np.concatenate(columns)[order].tolist(), strict=True)
    chosen: dict[int, int] = {}
    for place, column in pairs:
        if len(chosen) == most:
            break
        if place not in chosen and list(chosen.values()).count(column) < -(-most // len(places)):
            chosen[place] = column
    return list(chosen.items())


def figure(data: Answers, stores: Sequence[Store], place: int, column: int) -> str:
    """An image with what is there and what was said."""
    shown = image(stores, int(data.predictions.rows[place]), SHOWN_SIDE)
    return "" if shown is None else html.figure(shown, caption(data, place, column))


def image(stores: Sequence[Store], row: int, side: int) -> np.ndarray | None:
    """One of a row counted through all sets, at most so large; None where its file has gone."""
    for store in stores:
        if row < len(store):
            break
        row -= len(store)
    try:
        pixels = np.asarray(store.image(row))
    except (ValueError, OSError):  # a linked file that has gone
        return None
    side = min(side, pixels.shape[0])
    return cv2.resize(pixels, (side, side), interpolation=cv2.INTER_AREA)


def caption(data: Answers, place: int, column: int) -> str:
    """Effusion 2 % · there: Effusion, Mass · said: Nodule 40 % · PA F 51"""
    shares, labels, about = data.probabilities[place], data.labels[place], data.about.iloc[place]
    there = [named(name) for name, label in zip(data.findings, labels, strict=True) if label == 1]
    highest = [at for at in np.argsort(-shares).tolist() if at != column][:2]
    said = [f"{named(data.findings[at])} {percent(shares[at])}" for at in highest]
    age = "" if np.isnan(about["age"]) else f"{about['age']:.0f}"
    person = " ".join(text for text in (about["view"], about["sex"], age) if text)
    first = f"{named(data.findings[column])}: {percent(shares[column])}"
    parts = [first, f"there: {', '.join(there) or 'none of them'}", f"said: {', '.join(said)}" * bool(said), person]
    return " · ".join(part for part in parts if part)


# ---- what was done


def done_parts(result: dict[str, Any]) -> list[str]:
    """Model, data, protocol, leak check, and the command to repeat it."""
    model = result["model"]
    protocol = {
        "honest": "honest: validation chose the thresholds and the temperature, the tested images chose nothing",
        "peers": "peers: the tested images chose the thresholds, and the model may have been selected on them",
    }
    described = f"{len(model['findings'])} findings, {model['loss']}"
    return done(result, described, images_text(result), protocol[result["protocol"]])


def done(result: dict[str, Any], described: str, images: str, protocol: str) -> list[str]:
    """The same for any kind of model."""
    model, leak = result["model"], result["leak"]
    (height, width), level = model["size"], 100 * result["level"]
    trained = "; ".join(f"{one.get('name', '')} ({one.get('licence', '')})" for one in model["data"]) or "not said"
    tested = [f"{one['name']} from {one['folder']} ({one['source']}; {one['licence']})" for one in result["data"]]
    linked = f" Images of {', '.join(leak['linked'])} were fingerprinted for this." if leak["linked"] else ""
    rows = [
        ("model", f"{model['name']}, {height} × {width} px, {described}"),
        ("trained on", trained),
        ("tested on", "; ".join(tested)),
        ("split", f"{result['split']}: {images}"),
        ("protocol", protocol),
        ("uncertain and blank labels", f"policy '{result['policy']}'"),
        *([("test", f"{result['test']['text']} Key: {result['test']['key']}.")] if "test" in result else []),
        *([("heat-maps", result["maps"])] if "maps" in result else []),
        ("seen before?", f"{leak['text'][:1].upper()}{leak['text'][1:]}.{linked}"),
        ("intervals", f"{level:g} %, Wilson's over patients; {result['resamples']:,} resamples, seed {result['seed']}"),
        ("programs", ", ".join(f"{name} {version}" for name, version in result["versions"].items())),
    ]  # fmt: skip
    return [html.heading("What was done"), html.facts(rows), html.preformatted(result["command"])]


# ---- several models


COMPARED_HEAD = ("finding", "first", "this", "apart", "95 %", "p", "Holm", "DeLong", "Holm")
RATED = {"auroc": "AUROC", "ap": "AP", "accuracy": "accuracy", "f1": "F1"}
MEANS_HEAD = ("first", "this", "apart", "95 %", "p", "Holm")
MEANS_TEXT = "Means over the findings that all models are defined for, paired as above. Holm: adjusted over the models."
COMPARED_TEXT = (
    "AUROC. Interval and p: paired, by how both models vary together in the same resamples of patients; then p by "
    "DeLong's covariance. Holm: p adjusted for asking about so many findings and models at once; the mean is a "
    "question of its own."
)


def comparison_page(result: dict[str, Any]) -> str:
    """Models beside each other, then each minus the first."""
    notes = comparison.notes(result)
    names = [model["name"] for model in result["models"]]
    parts = [html.paragraph(compared_text(result), soft=True), html.problems(notes) if notes else ""]
    parts += [html.heading("Beside each other"), html.table(beside_head(result), beside_rows(result))]
    parts += [html.paragraph(beside_text(result), soft=True)]
    parts += [html.heading("AUROC"), html.table(*models_table(result))]
    for place, pair in enumerate(result["differences"], 1):
        values = [row["auroc"] for row in (*pair["findings"], pair["macro"])]
        widest = max(
            [0.02, *(abs(value[end]) for value in values for end in ("low", "high") if value[end] is not None)]
        )
        rows = [
            [*cells[:5], span(value, (-widest, widest), 0.0), *cells[5:]]
            for cells, value in zip(compared_rows(result, place), values, strict=False)
        ]
        head = [*COMPARED_HEAD[:5], "", *COMPARED_HEAD[5:]]
        parts += [html.heading(f"{pair['model']} minus {pair['minus']}"), _with_mean(result, head, rows)]
        parts.append(html.paragraph(COMPARED_TEXT, soft=True))
        parts += [html.table(means_head(result), means_rows(result, place))]
        parts.append(html.paragraph(means_text(result), soft=True))
    return html.page("Comparison: " + ", ".join(names), parts, style=svg.STYLE)


def _with_mean(result: dict[str, Any], head: list[str], rows: list[list[object]]) -> str:
    """A table whose last row is the mean, if there is one."""
    return html.table(head, rows[:-1], rows[-1]) if several(result["models"][0]) else html.table(head, rows)


def compared_text(result: dict[str, Any]) -> str:
    """How much is compared."""
    return (
        f"{len(result['models'])} models on the same {result['images']:,} images of {result['patients']:,} known "
        f"patients; {100 * result['level']:g} % intervals, {result['resamples']:,} resamples of patients."
    )


def beside_head(result: dict[str, Any]) -> list[str]:
    """The models."""
    return ["", *(model["name"] for model in result["models"])]


def beside_rows(result: dict[str, Any]) -> list[list[object]]:
    """How good each model is and what it costs; times only where they were measured."""
    models = result["models"]
    rows = [[mean_title(result, name), *(both(model["macro"][name]) for model in models)] for name in RATED]
    costs = [model["costs"] for model in models]
    rows += [
        [title, *("–" if cost is None else f"{cost[name]:,}" for cost in costs)]
        for name, title in (
            ("parameters", "parameters"),
            ("multiply_adds", "multiply-adds"),
            ("thop", "as thop counts"),
        )
    ]
    rows.append(["MB on disk", *("–" if cost is None else f"{cost['bytes'] / 1e6:.1f}" for cost in costs)])
    times = [None if cost is None else cost["latency"] for cost in costs]
    rows += [
        [title, *("–" if time is None or time[kind] is None else f"{time[kind]:.1f}" for time in times)]
        for kind, title in (("eager", "ms an image"), ("exported", "ms exported"))
        if any(times)
    ]
    return [list(row) for row in rows]


def beside_text(result: dict[str, Any]) -> str:
    """What the thresholds are that accuracy and F1 belong to."""
    said = [f"{model['name']}: {rule_name(model['rule'])}" for model in result["models"] if model["rule"]]
    rules = f" Thresholds – {'; '.join(said)}." if said else ""
    means = "Means over the findings that all models are defined for, and what"
    what = means if several(result["models"][0]) else "How good each model is, and what it"
    return f"{what} {'each costs' if what == means else 'costs'} for one image.{rules}"


def mean_title(result: dict[str, Any], name: str) -> str:
    """A metric, and of how many findings its mean is where that is not of all."""
    count, models = max(model["macro"][name]["findings"] for model in result["models"]), result["models"]
    if count in (0, len(models[0]["findings"])):
        return RATED[name]
    return f"{RATED[name]}, mean of {count}" if count > 1 else f"{RATED[name]}, of 1 finding"


def means_head(result: dict[str, Any]) -> list[str]:
    """Of the table of every metric."""
    return ["mean of findings" if several(result["models"][0]) else "metric", *MEANS_HEAD]


def means_text(result: dict[str, Any]) -> str:
    """What that table is."""
    return MEANS_TEXT if several(result["models"][0]) else "Paired as above. Holm: adjusted over the models."


def means_rows(result: dict[str, Any], place: int) -> list[list[object]]:
    """One model minus the first: the means of every metric."""
    first, this, pair = result["models"][0], result["models"][place], result["differences"][place - 1]
    return [
        [
            mean_title(result, name),
            three(first["macro"][name]["value"]),
            three(this["macro"][name]["value"]),
            signed(pair["macro"][name]["value"]),
            signed_limits(pair["macro"][name]),
            *(p_value(pair["macro"][name][key]) for key in ("p", "adjusted")),
        ]
        for name in RATED
    ]


def models_table(result: dict[str, Any]) -> tuple[list[str], list[list[object]], list[object] | None]:
    """AUROC of every model: head, findings, mean."""
    models = result["models"]
    cells = [[both(row["auroc"]) for row in model["findings"]] for model in models]
    rows = [[named(row["finding"]), *shown] for row, *shown in zip(models[0]["findings"], *cells, strict=True)]
    means = [model["macro"]["auroc"] for model in models]
    total: list[object] = [f"mean of {means[0]['findings']}", *map(both, means)]
    last = total if several(models[0]) else None
    return ["finding", *(model["name"] for model in models)], [list(row) for row in rows], last


def compared_rows(result: dict[str, Any], place: int) -> list[list[object]]:
    """One model minus the first: every finding, and last the mean of several."""
    first, this = (result["models"][each] for each in (0, place))
    pair = result["differences"][place - 1]
    columns = zip(
        [*(named(row["finding"]) for row in pair["findings"]), f"mean of {first['macro']['auroc']['findings']}"],
        [*first["findings"], first["macro"]],
        [*this["findings"], this["macro"]],
        [*pair["findings"], pair["macro"]],
        strict=True,
    )
    rows: list[list[object]] = [
        [
            name,
            three(one["auroc"]["value"]),
            three(other["auroc"]["value"]),
            signed(apart["auroc"]["value"]),
            signed_limits(apart["auroc"]),
            *(p_value(apart[test][key]) for test in ("auroc", "auroc_delong") for key in ("p", "adjusted")),
        ]
        for name, one, other, apart in columns
    ]
    return rows if several(first) else rows[:-1]


def signed(value: float | None) -> str:
    """+0.012"""
    return "–" if value is None else f"{value:+.3f}".replace("-", "−")


def signed_limits(value: dict[str, Any]) -> str:
    """−0.003…+0.020"""
    return "–" if value["low"] is None else f"{signed(value['low'])}…{signed(value['high'])}"


def p_value(value: float | None) -> str:
    """Three decimals, or < 0.001."""
    return "–" if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"


# ---- words and numbers


def chexnet(result: dict[str, Any]) -> str:
    """The lines that CheXNet's reproductions print."""
    mean = result["macro"]["auroc"]["value"]
    lines = ["The final AUROCs: ", f"The average AUROC is {'–' if mean is None else f'{mean:.3f}'}"]
    for row in result["findings"]:
        value = row["auroc"]["value"]
        lines.append(f"The AUROC of {row['finding']} is {'–' if value is None else value}")
    return "\n".join(lines)


def named(finding: str) -> str:
    """A finding as one reads it."""
    return finding.replace("_", " ")


def rule_name(rule: str) -> str:
    """How a threshold is chosen, in words."""
    return RULES.get(rule, rule)


def three(value: float | None) -> str:
    """Three decimals; '–' for what is not defined."""
    return "–" if value is None else f"{value:.3f}"


def limits(value: dict[str, Any]) -> str:
    """0.812–0.834"""
    if value["low"] is None or value["high"] is None:
        return "–"
    return f"{value['low']:.3f}–{value['high']:.3f}"


def both(value: dict[str, Any]) -> str:
    """0.823 (0.812–0.834)"""
    return three(value["value"]) + (f" ({limits(value)})" if value["low"] is not None else "")


def percent(share: float) -> str:
    """Two digits that matter."""
    return f"{100 * share:.0f} %" if share >= 0.1 else f"{100 * share:.2g} %"
