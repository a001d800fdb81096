"""Predict findings in image files: PNG, JPEG, TIFF, BMP or DICOM.

A classifier predicts a calibrated probability for every finding and marks those at or above their threshold; a detector
predicts boxes, in pixels of the file. A warning is printed for images unlike the training images. Files that cannot be
read are listed and skipped.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ribcage.runtime.engines import EngineName
from ribcage.runtime.remote.addresses import address_text
from ribcage.runtime.remote.places import Place

if TYPE_CHECKING:
    import pandas as pd

    from ribcage.bundle.io import Classifier, Detector
    from ribcage.bundle.spec import ModelSpec
    from ribcage.inference.file_predictions import FilePredictions
    from ribcage.inference.gradcam import MapMethod
    from ribcage.reports.prediction_lines import PredictionLines

POSITIONAL = ("model", "paths")
PLACES = {
    "model": Place.MODEL,
    "paths": Place.IMAGES,
    "out": Place.FILE_OUT,
    "maps": Place.FOLDER_OUT,
    "sheet": Place.OUT,
}
EXAMPLES = (
    "predict runs/chexnet /data/new --out predictions.csv",
    "predict runs/chexnet scan.dcm --maps maps",
    "predict runs/chexnet /data/new --out predictions.csv --engine ray",
)
GROUPS = {
    "rule": "Prediction",
    "min_score": "Prediction",
    "ten_crop": "Prediction",
    "window": "Prediction",
    "batch": "Run",
}


@dataclass(frozen=True)
class Options:
    """The model, the files, and what is written."""

    model: Path
    """Run folder or bundle."""
    paths: tuple[Path, ...]
    """Image files, folders, or patterns such as 'inbox/**/*.dcm'."""
    out: Path | None = None
    """File for the table of predictions (.csv or .parquet)."""
    rule: str = ""
    """Threshold rule: youden, midpoint, f1, sensitivity_95, specificity_95, or half (0.5); classifiers only (default:
    youden, if the model has thresholds)."""
    ten_crop: bool = False
    """Average the probabilities of ten crops of each image; classifiers only."""
    maps: Path | None = None
    """Folder for saliency maps, or for images with the boxes of a detector, at the resolution of the image file."""
    map_findings: tuple[str, ...] = ()
    """Findings for which maps are computed (default: those at or above their threshold, else the most probable one)."""
    map_method: Literal["auto", "gradcam", "layercam", "occlusion"] = "auto"
    """Saliency method: auto (gradcam, or occlusion for an opaque network); layercam suits earlier layers; occlusion
    covers one square at a time and is slow."""
    map_layer: int = 0
    """Layer at which the maps are computed: 0 for the last layer, 1 for the last layer at the next higher resolution,
    and so on."""
    sheet: Path | None = None
    """Figure with the maps for all findings: an .svg file for one image, or a folder for several images."""
    check_maps: bool = False
    """Sanity check: compare the maps with those of the same network with random weights; maps that remain similar do
    not depend on what was learned (Adebayo et al. 2018)."""
    notes: bool = False
    """Print how each file was decoded."""
    min_score: float | None = None
    """Score threshold for boxes, from 0 to 1; detectors only (default: the validation threshold of each finding)."""
    window: str = ""
    """DICOM window: the name of a window in the file, such as LUNG, or CENTRE,WIDTH (default: the window of the
    file; see docs/datasets.md)."""
    allow_unread: str = "0"
    """Maximum number of unreadable files: a number, a percentage such as 5%, or all. If more files are unreadable, the
    exit code is 3."""
    batch: int = 16
    """Batch size: images per forward pass."""
    engine: EngineName = "local"
    """Where predictions are computed: local (in this process) or ray (on all machines of a Ray cluster)."""


def run(options: Options) -> "pd.DataFrame":
    """Check, predict, write, print, map; return the table of predictions."""
    from ribcage.bundle import ood
    from ribcage.bundle.io import find_bundle, load_classifier, load_detector
    from ribcage.bundle.spec import ModelSpec
    from ribcage.inference import blocks, image_files, input_files
    from ribcage.reports.map_files import MapFiles
    from ribcage.reports.prediction_lines import PredictionLines, skipped_line
    from ribcage.runtime import engines, limits

    engine = engines.engine(options.engine)
    model = ModelSpec.load(find_bundle(options.model) / "model.json")
    files = input_files.input_files(options.paths, [place for place in (options.maps, options.sheet) if place])
    limits.check_options(options, [*wrong(options, len(files.images)), *unsuitable(options, model)])
    if files.others:
        print(skipped_line(files))
    opened = load_detector(options.model) if model.detector else load_classifier(options.model)
    mapped = options.maps or options.sheet or options.check_maps
    decoded = image_files.DecodedImages(options.window)
    compute = image_files.predictor(
        opened, rule=options.rule, min_score=options.min_score, ten_crop=options.ten_crop, batch=options.batch,
        window=options.window,
    )  # fmt: skip
    if options.engine == "local":
        label = "predict" if len(files.images) > options.batch else ""
        found = compute(files.images, label=label, decoded=decoded if mapped else None)
    else:
        found = blocks.predicted_files(engine, compute, files.images, batch=options.batch)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        found.save(options.out)
        print(f"Wrote {address_text(options.out)}.")
    out = address_text(options.out) if options.out else ""
    show(options, found, PredictionLines(model, options.rule, options.notes, out), ood.weakness(opened.ood))
    maps = MapFiles(
        opened, decoded, map_method(options, opened), options.maps, options.sheet, options.map_findings, options.rule
    )
    if options.maps or options.sheet:
        maps.write(found)
    if options.check_maps:
        maps.check(found.readable)
    return found.frame()


def exit_code(options: Options, table: "pd.DataFrame") -> int:
    """3 where more files could not be read than --allow-unread accepts."""
    from ribcage.inference.file_predictions import count_unread

    return 3 if too_many_unread(options, *count_unread(table)) else 0


def too_many_unread(options: Options, unread: int, files: int) -> bool:
    """Whether more files could not be read than --allow-unread accepts."""
    from ribcage.runtime import limits

    return unread > limits.allowed_failures(options.allow_unread, files)


def wrong(options: Options, files: int) -> list[str]:
    """What is wrong with the options, whatever the model."""
    from ribcage.imaging.dicom import value_of_interest
    from ribcage.runtime import limits

    found = limits.failures_errors("--allow-unread", options.allow_unread)
    try:
        value_of_interest.parse_window(options.window)
    except ValueError as error:
        found.append(str(error).rstrip("."))
    if options.min_score is not None and not 0 <= options.min_score <= 1:
        found.append(f"--min-score {options.min_score:g} must be from 0 to 1")
    if options.out and options.out.suffix not in (".csv", ".parquet"):
        found.append(f"--out {options.out} ends in neither .csv nor .parquet")
    if options.map_findings and not options.maps:
        found.append("--map-findings needs --maps")
    if options.map_layer < 0:
        found.append(f"--map-layer {options.map_layer} must be 0 or more")
    if options.map_layer and options.map_method == "occlusion":
        found.append("--map-layer does not apply to --map-method occlusion, only to gradcam and layercam")
    if options.sheet and options.sheet.suffix.lower() == ".svg" and files > 1:
        found.append(f"--sheet {options.sheet} is one file for {files:,} images: pass a folder")
    if options.sheet and options.sheet.suffix.lower() in (".png", ".jpg", ".jpeg", ".pdf", ".html"):
        found.append(f"--sheet {options.sheet} is neither a folder nor a file that ends in .svg")
    return found


def unsuitable(options: Options, model: "ModelSpec") -> list[str]:
    """Which options do not apply to this model."""
    from ribcage.bundle.spec import HALF
    from ribcage.runtime import spelling

    found = [
        f"--map-findings {name}: the model has no such finding.{spelling.did_you_mean(name, model.findings)}".rstrip(
            "."
        )
        for name in options.map_findings
        if name not in model.findings
    ]
    if model.detector:
        of_classifiers = {
            "--rule": options.rule, "--ten-crop": options.ten_crop, "--sheet": options.sheet,
            "--check-maps": options.check_maps, "--map-layer": options.map_layer,
            "--map-method": options.map_method != "auto",
        }  # fmt: skip
        given = ", ".join(name for name, value in of_classifiers.items() if value)
        return found + ([f"{given} applies to classifiers only, but {options.model} is a detector"] if given else [])
    if model.opaque:
        of_networks = {
            "--check-maps": options.check_maps, "--map-layer": options.map_layer,
            f"--map-method {options.map_method}": options.map_method not in ("auto", "occlusion"),
        }  # fmt: skip
        given = ", ".join(name for name, value in of_networks.items() if value)
        found += [f"{given} needs the layers of a network, but {options.model} is opaque"] if given else []
    if options.min_score is not None:
        found.append(f"--min-score applies to detectors only, but {options.model} is a classifier")
    rules = (*model.thresholds, HALF)
    if options.rule and options.rule not in rules:
        found.append(f"--rule {options.rule} is not available; the rules of this model are {', '.join(rules)}")
    return found


def show(options: Options, found: "FilePredictions", text: "PredictionLines", weakness: str) -> None:
    """Print the predictions of every file, a legend, counts and warnings."""
    from ribcage.reports.prediction_lines import counts_line
    from ribcage.runtime.messages import Message

    for line in text.of_files(found):
        print(line)
    if not found.readable:
        raise ValueError("No file could be read.")
    for line in (*text.legend(), counts_line(found)):
        print(line)
    if too_many_unread(options, len(found.files) - len(found.readable), len(found.files)):
        print("The exit code is 3; to accept unreadable files, pass --allow-unread with a number, a percentage or all.")
    if weakness:
        print(weakness)
    if text.model.warning:
        print(Message(text.model.warning, warning=True))


def map_method(options: Options, opened: "Classifier | Detector") -> "MapMethod":
    """How the maps are made."""
    from ribcage.bundle.io import Classifier
    from ribcage.inference import gradcam

    asked = gradcam.MapMethod(options.map_method, options.map_layer)
    return gradcam.chosen_method(opened.method, asked) if isinstance(opened, Classifier) else asked
