"""Demo report: the steps of the demo on one page, with their duration and results.

Every number on it is read from the files that the commands wrote.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote

import numpy as np
import torch
from markupsafe import Markup

from ribcage.bundle.io import load_classifier
from ribcage.data import dataset_folder
from ribcage.data.audit.audited import Member
from ribcage.data.index import SIDES
from ribcage.evaluation.comparison import ComparisonResult
from ribcage.imaging import image_file
from ribcage.inference import detections, explanation
from ribcage.inference.detections import DETECTIONS_FILE
from ribcage.inference.prediction_table import PREDICTIONS_FILE, read_predictions
from ribcage.metrics.classification_evaluation import ClassificationEvaluation
from ribcage.metrics.evaluation_file import METRICS_FILE, read_evaluation
from ribcage.reports import audit, classification, comparison, html, pretraining, saliency, svg
from ribcage.reports.demo_steps import DemoProgress, clock
from ribcage.reports.html import Bar, Figure, Table
from ribcage.reports.numbers import finding_name, with_limits
from ribcage.runtime import files, typed_json
from ribcage.training.metrics_log import LOG_FILE, read_log

PAGE = "index.html"
EXPORTED = "small-distilled/bundle/model.onnx"
"""Where `ribcage export` writes, and `ribcage serve` looks."""
SERVED = "served.json"
"""The response of the server to one image."""
TEST = Path("evaluation") / "phantom-test"
SAMPLES, SHOWN, TRIED = 12, 6, 5
"""Images of the data, images with saliency maps or boxes, and how many are tried for each."""
SECTIONS = {"inspect": "make", "serve": "export"}
"""Steps that are shown in the section of another one."""
RECONSTRUCTIONS = ("<!-- reconstructions -->", "<!-- /reconstructions -->")
"""Around the reconstructions on the page of a pretraining."""


@dataclass(frozen=True)
class DatasetSummary:
    """How many images of which size are in which splits, and samples."""

    images: int
    size: int
    splits: str
    figures: list[Figure]


@dataclass(frozen=True)
class DetectedBoxes:
    """Images with ground-truth boxes and detections, and the mean AP with its interval."""

    figures: list[Figure]
    precision: str


@dataclass(frozen=True)
class ExportedFile:
    """An exported model."""

    name: str
    megabytes: float


@dataclass(frozen=True)
class ServedImage:
    """The response of the server to one file, with its highest probabilities."""

    file: str
    milliseconds: float
    table: Table


@dataclass(frozen=True)
class ModelComparison:
    """Models beside each other, and each minus the first."""

    models: Table
    differences: list[tuple[str, Table]]
    page: str


def write_demo_page(demo: DemoProgress) -> Path:
    """The page of a demo that is done."""
    folder = demo.folder
    test = read_test(folder / "model")
    page = html.render(
        "demo.html",
        quick=bool(demo.options.get("quick")),
        steps=[
            (SECTIONS.get(step.name, step.name), clock(demo.done[step.name].seconds), step.title) for step in demo.steps
        ],
        duration=clock(sum(one.seconds for one in demo.done.values())),
        data=dataset_summary(folder),
        test_images=classification.test_images(test),
        cards=classification.summary_cards(test),
        curves=learning_curves(folder / "model"),
        reconstructions=reconstructions(folder / "pretrained" / "images.html"),
        pretraining=read_comparison(folder / "pretraining.json"),
        distillation=read_comparison(folder / "distillation.json"),
        maps=saliency_figures(folder),
        grid=map_grid(folder),
        tried=TRIED,
        boxes=detected_boxes(folder),
        exported=exported_file(folder),
        served=served_image(folder),
        links={
            "data": "inspect.html",
            "test": address(Path("model") / TEST / "index.html"),
            "pretrained": "pretrained/images.html",
            "boxes": address(Path("boxes") / TEST / "index.html"),
        },
        commands=[
            (step.title, "\n".join(demo.done[step.name].commands))
            for step in demo.steps
            if demo.done[step.name].commands
        ],
    )
    files.write_text(folder / PAGE, page)
    return folder / PAGE


def address(file: Path) -> str:
    """A file beside the page, as a link."""
    return quote(file.as_posix())


# ---- data and training


def dataset_summary(folder: Path) -> DatasetSummary:
    """The phantoms, with samples and their boxes."""
    own = dataset_folder.open(folder / "phantom")
    counts = own.index.table["split"].value_counts()
    return DatasetSummary(
        images=own.facts.images,
        size=own.facts.size,
        splits=", ".join(f"{name} {count:,}" for name, count in counts.items()),
        figures=audit.sample_figures(Member("phantom", own.index, own), SAMPLES),
    )


def read_test(run: Path) -> ClassificationEvaluation:
    """The evaluation of a classifier."""
    found = read_evaluation(run / TEST / METRICS_FILE)
    assert isinstance(found, ClassificationEvaluation)
    return found


def learning_curves(run: Path) -> list[Markup]:
    """Training loss, and mean AUROC on the validation split."""
    log = read_log(run / LOG_FILE)
    validated = [
        (line.step, line.validation["auroc"]) for line in log if line.validation and "auroc" in line.validation
    ]
    steps = [replace(line, validation=None) for line in log if "loss" in line.numbers]
    drawings = [pretraining.curve_plot("training loss", pretraining.over_steps(steps, "loss"))]
    if len(validated) > 1:
        x, y = np.array(validated, float).T
        drawings.append(pretraining.curve_plot("mean AUROC on the validation split", svg.Line(x, y)))
    return drawings


def reconstructions(file: Path) -> Markup:
    """Those on the page of a pretraining, as they stand there."""
    text = file.read_text(encoding="utf-8")
    start, end = (text.find(mark) for mark in RECONSTRUCTIONS)
    return Markup(text[start:end] if 0 <= start < end else "")


def read_comparison(file: Path) -> ModelComparison:
    """A comparison with its first two means."""
    compared = typed_json.from_json(ComparisonResult, json.loads(file.read_text(encoding="utf-8")))
    named = tuple(replace(one, name=Path(one.name).name) for one in compared.models)
    compared, differences = replace(compared, models=named), []
    for place, pair in enumerate(compared.differences, 1):
        means = comparison.mean_difference_table(compared, place)
        name = f"Difference: {Path(pair.model).name} minus {Path(pair.minus).name}"
        differences.append((name, Table(means.head, means.rows[:2])))
    return ModelComparison(comparison.model_table(compared), differences, address(Path(f"{file.stem}.html")))


# ---- localisation


def saliency_figures(folder: Path) -> list[Figure]:
    """For the findings with the highest AUROC: the positive test image with the highest score, and its saliency map."""
    test, opened, own = (
        read_test(folder / "model"),
        load_classifier(folder / "model"),
        dataset_folder.open(folder / "phantom"),
    )
    table = read_predictions(folder / "model" / TEST / PREDICTIONS_FILE)
    best = sorted(test.findings, key=lambda one: -(one.metrics["auroc"].value or 0))[:SHOWN]
    figures = []
    for name in (one.finding for one in best):
        place = table.findings.index(name)
        present = np.flatnonzero(table.labels[:, place] == 1)
        scores = table.probabilities[present, place]
        for chosen in np.argsort(-scores, kind="stable")[:TRIED]:
            score, row = scores[chosen], table.images["row"].iloc[present[chosen]]
            pixels = np.asarray(own.image(int(row)))
            read = image_file.GrayImage(pixels, pixels.shape[1], pixels.shape[0])
            heat = explanation.file_heatmaps(opened, read, (name,))[0]
            if heat.any():  # else nothing in the image raises the score
                caption = f"{finding_name(name)} {100 * score:.0f} %"
                figures.append(html.colour_figure(saliency.overlay(pixels, heat), caption))
                break
    return figures


def map_grid(folder: Path) -> str:
    """Rows and columns of a saliency map: 2 × 2"""
    opened = load_classifier(folder / "model")
    seen = torch.zeros(1, opened.spec.channels, *opened.spec.size)
    with torch.inference_mode():
        high, wide = opened.network("have Grad-CAM maps").backbone.eval().maps(seen).shape[-2:]
    return f"{high} × {wide}"


def detected_boxes(folder: Path) -> DetectedBoxes:
    """Test images with ground-truth boxes and the detection with the highest score, and the detector's mean AP."""
    test, own = read_evaluation(folder / "boxes" / TEST / METRICS_FILE), dataset_folder.open(folder / "phantom")
    found = detections.read_detections(folder / "boxes" / TEST / DETECTIONS_FILE)
    highest = found.boxes.sort_values("score", ascending=False).drop_duplicates("image")
    figures, drawn = [], own.index.boxes
    for one in highest.head(SHOWN).itertuples(index=False):
        row = int(found.images["row"].iloc[one.image])
        true = drawn[drawn["row"] == row][list(SIDES)].itertuples(index=False, name=None)
        box = (one.x, one.y, one.width, one.height)
        caption = f"{finding_name(one.finding)} {one.score:.2f}"
        figures.append(html.gray_figure(np.asarray(own.image(row)), caption, list(true), [box]))
    return DetectedBoxes(figures, with_limits(test.macro["map"]))


# ---- export and server


def exported_file(folder: Path) -> ExportedFile | None:
    """The exported file and its size; None where it was not written."""
    file = folder / EXPORTED
    return ExportedFile(EXPORTED, file.stat().st_size / 1e6) if file.is_file() else None


def served_image(folder: Path) -> ServedImage | None:
    """The five highest probabilities in the response of the server; None where it was not asked."""
    if not (folder / SERVED).is_file():
        return None
    response = json.loads((folder / SERVED).read_text(encoding="utf-8"))
    one = response["results"][0]
    highest = sorted(one["findings"], key=lambda each: -each["probability"])[:5]
    rows = [
        [finding_name(each["name"]), f"{100 * each['probability']:.1f} %", Bar(each["probability"])] for each in highest
    ]
    return ServedImage(one["file"], response["milliseconds"], Table(["finding", "probability", ""], rows))
