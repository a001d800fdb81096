"""Gain of a detector on a frozen backbone from each pretraining method: mAP with few and with all boxes.

    python -m benchmarks.localisation --work DIR [--jobs 2] [--seeds 3] [--images 5000] [--labels 0.01 0.1 1]

Backbones are trained by `ribcage pretrain METHOD --recipe small-METHOD` on synthetic radiographs, as in
`python -m benchmarks.pretraining`, whose DIR can be used here, too. For `random`, only the batch-norm statistics are
estimated on the images; `other task` is trained on the labels of four findings without boxes. Then
`ribcage localise --adapt head` trains an FCOS head with the boxes of a share of the patients. Every detector is
trained on the same number of images, and its last epoch is tested once on the test split. Intervals are of the mean
over seeds, by a bootstrap over patients and seeds; differences are paired. A box plot shows the same results. Results
of the same command that are already in DIR are reused.
"""

import argparse
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks import boxplot, trials
from ribcage.bundle.io import load_detector
from ribcage.data.collection import Datasets
from ribcage.data.label_policy import IGNORE
from ribcage.evaluation import labelled_detections
from ribcage.inference import cam_detector, detections
from ribcage.metrics import detection
from ribcage.metrics.resampling import Resampled

DRAWN = ("Cardiomegaly", "Effusion", "Infiltration", "Pneumonia", "Pneumothorax")
"""What is looked for: findings whose boxes are wide enough for images this small."""
UNDRAWN = ("Edema", "Emphysema", "Fibrosis", "Pleural_Thickening")
BACKBONES = {
    "random": ("supervised", ["--lr", "0", "--min-lr", "0", "--epochs", "1"]),
    "other task": ("supervised", ["--findings", *UNDRAWN]),
    "supervised": ("supervised", []),
    "supcon": ("supcon", []),
    "moco": ("moco", []),
    "mae_unet": ("mae_unet", []),
}
"""How each is pretrained."""
MEASURES = {"map": "all images", "map_positives": "positive images only"}


@dataclass(frozen=True)
class Trial:
    """A backbone, the share of boxes that is known, a seed."""

    backbone: str
    labels: float
    seed: int


def pretrained(name: str, seed: int, options: argparse.Namespace) -> list[str]:
    """The command that makes a backbone."""
    method, more = BACKBONES[name]
    out = options.work / f"{name} {seed}" / "pretrained"
    recipe = ["--recipe", f"small-{method}", "--out", str(out)]
    return ["pretrain", method, *recipe, *more, "--data", str(options.data), "--threads", "1", "--seed", str(seed)]


def localised(one: Trial, images: int, options: argparse.Namespace) -> list[str]:
    """The command that trains a detector on it."""
    epochs = str(max(1, round(options.shown / (images * one.labels))))
    folder = options.work / f"{one.backbone} {one.seed}"
    return [
        "localise", "--data", str(options.data), "--init", str(folder / "pretrained"), "--adapt", "head",
        "--out", str(folder / f"boxes {one.labels:g}"), "--labels", str(one.labels), "--findings", *DRAWN,
        "--augment", "plain", "--size", str(options.size), "--head-width", "64", "--head-depth", "2", "--batch", "32",
        "--lr", "2e-3", "--keep", "last", "--epochs", epochs, "--validate-every", epochs, "--threads", "1",
        "--seed", str(one.seed),
    ]  # fmt: skip


def tested(folder: Path, data: Datasets) -> dict[str, Resampled]:
    """A detector on the test part: mean over findings of each measure."""
    opened, rows = load_detector(folder), data.rows_of("test")
    found = detections.detect(cam_detector.as_detector(opened), data, rows, model=opened.spec, batch=64, threads=1)
    labelled = labelled_detections.labelled_detections(found, data, rows, IGNORE)
    every = detection.bootstrap_detection(labelled.boxes, labelled.patients, resamples=500)
    return {name: every[name].macro() for name in MEASURES}


def table(trials_of: dict[tuple[str, float], list[dict[str, Resampled]]]) -> None:
    """One line per backbone and share, beside the random one."""
    print(
        "\n| patients with boxes | backbone | " + " | ".join(f"mAP, {words} (95 %)" for words in MEASURES.values()),
        end="",
    )
    print(" | SD over seeds | gain over random, all images (95 %) |\n|---|---|---|---|---|---|")
    for (name, labels), tests in trials_of.items():
        found = {measure: trials.joined([one[measure] for one in tests]) for measure in MEASURES}
        random = trials.joined([one["map"] for one in trials_of["random", labels]])
        gain = "–" if name == "random" else trials.shown(found["map"].minus(random), "+")
        spread = float(np.std([one["map"].value for one in tests], ddof=1)) if len(tests) > 1 else float("nan")
        shown = " | ".join(trials.shown(each) for each in found.values())
        print(f"| {labels:.0%} | {name} | {shown} | {spread:.3f} | {gain} |", flush=True)


def draw(trials_of: dict[tuple[str, float], list[dict[str, Resampled]]], file: Path) -> None:
    """A box for each backbone and share: of what the bootstrap drew; a point for each of its seeds."""
    panels: dict[str, dict[str, boxplot.Group]] = {}
    for (name, labels), tests in trials_of.items():
        every = trials.joined([one["map"] for one in tests]).resampled
        points = [float(np.ravel(one["map"].value)[0]) for one in tests]
        panels.setdefault(f"boxes of {labels:.0%} of the patients", {})[name] = boxplot.Group(every, points)
    boxplot.draw(panels, "mAP, IoU .40:.05:.75", file)
    print(f"\nWrote {file}")


def main() -> None:
    """Pretrain, localise, test, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--shown", type=int, default=6000, help="images that each detector learns from")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--labels", type=float, nargs="*", default=[0.01, 0.1, 1.0])
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--plot", type=Path, help="where to draw (default: DIR/localisation.svg)")
    options = parser.parse_args()
    options.data = options.work / "phantom"
    made = ["--out", str(options.data), "--images", str(options.images), "--size", "128"]
    subprocess.run([sys.executable, "-m", "ribcage", "import", "phantom", *made], check=True)
    data = Datasets.open([options.data])
    learnt = len(data.rows_of("train"))
    every = [
        Trial(name, labels, seed)
        for seed in range(options.seeds) for name in BACKBONES for labels in options.labels
    ]  # fmt: skip
    with ThreadPoolExecutor(options.jobs) as workers:
        seeds = [(name, seed) for seed in range(options.seeds) for name in BACKBONES]
        list(workers.map(lambda each: trials.trained(pretrained(each[0], each[1], options)), seeds))
        folders = workers.map(lambda one: trials.trained(localised(one, learnt, options)), every)
        made_by = dict(zip(every, folders, strict=True))
    torch.set_num_threads(options.jobs)
    results = {one: tested(folder, data) for one, folder in made_by.items()}
    shown = {
        (name, labels): [results[one] for one in every if (one.backbone, one.labels) == (name, labels)]
        for labels in options.labels for name in BACKBONES
    }  # fmt: skip
    print(f"{learnt:,} training images, {options.seeds} seeds, findings: {', '.join(DRAWN)}")
    table(shown)
    draw(shown, options.plot or options.work / "localisation.svg")
    spent = np.mean([trials.minutes(folder) for folder in made_by.values()])
    print(
        json.dumps({"torch": torch.__version__, "jobs": options.jobs, "minutes per detector": round(float(spent), 1)})
    )


if __name__ == "__main__":
    main()
