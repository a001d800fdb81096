"""Pointing game: do Grad-CAM maps of a classifier agree with the boxes of radiologists?

    python -m benchmarks.pointing --work DIR [--data FOLDER | --nih FOLDER] [--model regnetx_002] [--size 160] …

Trains a classifier by `ribcage finetune` on the train split of a dataset folder (by default of synthetic radiographs)
and tests it on the test images with a box of the finding. --nih takes a folder with images_256, manifest.csv and
boxes.csv of ChestX-ray14: patients with a box are the test split, one in six of the others is used for validation, and
the rest for training.

Baselines: the same network with random weights, a random point, the centre of the image, and the mean box of all other
patients. Intervals are clustered by patient. Results of the same commands that are already in DIR are reused.
"""

import argparse
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from benchmarks import trials
from ribcage.bundle.io import load_classifier
from ribcage.data import dataset_folder
from ribcage.data.collection import Datasets
from ribcage.data.findings import canonical
from ribcage.data.index import box_frame as box_table
from ribcage.inference import cam_detector, detections, map_points
from ribcage.methods.supervised import Supervised
from ribcage.metrics import pointing
from ribcage.metrics.boxes import BoxTable
from ribcage.metrics.resampling import Resampled
from ribcage.models.backbone import Backbone
from ribcage.models.detectors.cam import CamBoxes

FRAME = 1024
"""Side of the images on which the boxes of ChestX-ray14 were drawn."""
VALIDATES = 6
"""One patient of so many."""


@dataclass(frozen=True)
class Tested:
    """The images that are looked at, and what was drawn on them."""

    data: Datasets
    rows: np.ndarray
    patients: np.ndarray
    findings: tuple[str, ...]
    true: dict[str, BoxTable]
    """Of each finding; images by their place in `rows`."""

    @property
    def side(self) -> int:
        return self.data[0].size


# ---- images


def of_nih(folder: Path, work: Path) -> dataset_folder.DatasetFolder:
    """The images as a dataset folder, and their boxes, which were drawn on larger ones."""
    drawn = pd.read_csv(folder / "boxes.csv")
    rows = pd.read_csv(folder / "manifest.csv")
    people = rows["patient_id"]
    others = people.drop_duplicates().sample(frac=1, random_state=0).to_numpy()
    validates = np.isin(people, others[::VALIDATES])
    tests = np.isin(people, people[rows["image"].isin(drawn["Image Index"])])
    rows["split"] = np.where(tests, "test", np.where(validates, "val", "train"))
    rows["image"] = [str((folder / "images_256" / name).resolve().with_suffix(".jpg")) for name in rows["image"]]
    names = list(rows.columns[rows.columns.get_loc("Atelectasis") : rows.columns.get_loc("Hernia") + 1])
    table, out = work / "nih.csv", work / "nih"
    table.parent.mkdir(parents=True, exist_ok=True)
    rows[["image", "split", "age", "sex", "view", "patient_id", *names]].to_csv(table, index=False)
    given = ["--path-column", "image", "--patient-column", "patient_id", "--split-column", "split", "--allow-outside"]
    imported(["folder", str(table), *given, "--label-columns", *names, "--out", str(out), "--size", "256"])
    opened = dataset_folder.open(out)
    place = {Path(path).stem: row for row, path in enumerate(opened.index.table["path"])}
    found = pd.DataFrame({"row": drawn["Image Index"].map(lambda name: place.get(Path(name).stem))})
    found["finding"] = drawn["Finding Label"].map(lambda name: canonical(name, "nih"))
    found[["x", "y", "width", "height"]] = drawn[["x", "y", "w", "h"]] * (opened.size / FRAME)
    return replace(opened, index=replace(opened.index, boxes=box_table(found.dropna(subset="row"))))


def imported(words: list[str]) -> None:
    """Run the import, unless it has been."""
    if not (Path(words[words.index("--out") + 1]) / "dataset.json").exists():
        subprocess.run([sys.executable, "-m", "ribcage", "import", *words], check=True, stdout=sys.stderr)


def tested(opened: dataset_folder.DatasetFolder, findings: tuple[str, ...], least: int) -> Tested:
    """The test images with a box, and the findings that the classifier knows and that were drawn often enough."""
    data = Datasets.of([opened])
    rows = data.rows_of("test")
    rows = rows[np.isin(rows, opened.index.boxes["row"])]
    true = {name: detections.truth(data, rows, name) for name in findings}
    known = tuple(name for name in findings if len(np.unique(true[name].images)) >= least)
    people = opened.index.table["patient"].to_numpy()[rows]
    return Tested(data, rows, people, known, {name: true[name] for name in known})


# ---- the game


def game(points: np.ndarray, data: Tested) -> Resampled:
    """Of (N, F, 2) points, F as in `data`: the share of hits of each finding."""
    tolerance = pointing.TOLERANCE * data.side
    hits = [pointing.point_hits(points[:, f], data.true[name], tolerance) for f, name in enumerate(data.findings)]
    return shared(np.stack(hits, axis=1), data)


def shared(parts: np.ndarray, data: Tested) -> Resampled:
    """The mean of (N, F) parts over the images that count."""
    return pointing.bootstrap_shares(parts, np.ones(parts.shape), data.patients)


def without_looking(data: Tested) -> dict[str, Resampled]:
    """What is hit by chance, by habit, and by experience."""
    count, side = len(data.rows), data.side
    chance = [pointing.chance_of_hit(data.true[name], count, side, pointing.TOLERANCE * side) for name in data.findings]
    centre = np.full((count, len(data.findings), 2), side / 2)
    usual = [pointing.box_centres(one) for one in means(data)]
    return {
        "anywhere": shared(np.stack(chance, axis=1), data),
        "centre": game(centre, data),
        "mean box of others": game(np.stack(usual, axis=1), data),
    }


def means(data: Tested) -> list[np.ndarray]:
    """(N, 4) of each finding: the mean box of other patients."""
    return [pointing.mean_boxes(data.true[name], data.patients, len(data.rows)) for name in data.findings]


def found_at(found: dict[str, BoxTable], data: Tested, overlap: float) -> Resampled:
    """The share of the true boxes of each finding that a found one overlaps by so much."""
    parts, of = np.zeros((2, len(data.rows), len(data.findings)))
    for f, name in enumerate(data.findings):
        true = data.true[name]
        best = pointing.best_overlaps(found[name], true, len(data.rows))
        np.add.at(parts[:, f], true.images, best >= overlap)
        np.add.at(of[:, f], true.images, 1)
    return pointing.bootstrap_shares(parts, of, data.patients)


def usual_boxes(data: Tested) -> dict[str, BoxTable]:
    """The mean box of other patients, in every image where there are others."""
    found = {}
    for name, boxes in zip(data.findings, means(data), strict=True):
        there = np.flatnonzero(~np.isnan(boxes).any(axis=1))
        found[name] = BoxTable(there, boxes[there], np.ones(len(there)))
    return found


# ---- tables


def show_game(columns: dict[str, Resampled], data: Tested) -> None:
    """A line for each finding, a column for each way to point."""
    print(f"\n| | images | {' | '.join(columns)} |\n|---|---{'|---' * len(columns)}|")
    for f, name in enumerate(data.findings):
        values = [shown(one, f) for one in columns.values()]
        print(f"| {name} | {len(np.unique(data.true[name].images))} | {' | '.join(values)} |")
    every = [f"**{shown(one.macro(), 0)}**" for one in columns.values()]
    print(f"| **mean** | | {' | '.join(every)} |")


def show_overlaps(columns: dict[str, dict[str, BoxTable]], data: Tested) -> None:
    """A line for each overlap, means over findings."""
    print(f"\n| IoU | {' | '.join(columns)} |\n|---{'|---' * len(columns)}|")
    for overlap in pointing.OVERLAPS:
        values = [shown(found_at(one, data, overlap).macro(), 0) for one in columns.values()]
        print(f"| {overlap} | {' | '.join(values)} |")
    each = [sum(len(marks) for marks in one.values()) / len(data.rows) / len(data.findings) for one in columns.values()]
    print(f"| boxes per finding and image | {' | '.join(f'{one:.1f}' for one in each)} |")


def shown(found: Resampled, place: int) -> str:
    """A share with its interval."""
    interval = found.interval()
    value, low, high = (float(each[place]) for each in (interval.value, interval.low, interval.high))
    return "–" if np.isnan(value) else f"{value:.3f} ({low:.3f}–{high:.3f})"


def main() -> None:
    """Learn, look, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--nih", type=Path)
    parser.add_argument("--images", type=int, default=4000, help="synthetic ones, where no data are named")
    parser.add_argument("--model", default="regnetx_002")
    parser.add_argument("--init", default="", help="weights to begin with")
    parser.add_argument("--size", type=int, default=160)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--share", type=float, default=0.5, help="of the maximum, from which on a place is in a box")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--least", type=int, default=5, help="images with a box, for a finding to be asked for")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.nih:
        opened = of_nih(options.nih, options.work)
    else:
        folder = options.data or options.work / "phantom"
        if options.data is None:
            imported(["phantom", "--out", str(folder), "--images", str(options.images), "--size", "256"])
        opened = dataset_folder.open(folder)
    how = ["--size", str(options.size), "--epochs", str(options.epochs), "--batch", "32", "--lr", "1e-3"]
    how += ["--threads", "1", "--seed", str(options.seed), *(["--init", options.init] if options.init else [])]
    out = options.work / f"{options.model} {options.seed}"
    trials.trained(["finetune", "--model", options.model, "--data", str(opened.folder), "--out", str(out), *how])
    trained = load_classifier(out)
    data = tested(opened, trained.spec.findings, options.least)
    places = [trained.spec.findings.index(name) for name in data.findings]
    torch.manual_seed(options.seed)
    blank = Supervised(Backbone(options.model, size=trained.spec.size), trained.spec.findings)
    looked = {
        name: map_points.points(method, data.data, data.rows, model=trained.spec, batch=32, threads=1)[:, places]
        for name, method in (("Grad-CAM", trained.network("have Grad-CAM maps")), ("random weights", blank))
    }
    validation = trained.spec.metrics["validation"]["auroc"]
    learnt = len(data.data.rows_of("train"))
    print(f"\n{options.model} at {options.size} px, {learnt:,} training images, validation AUROC {validation:.3f}.")
    print(f"{len(data.rows):,} test images of {len(np.unique(data.patients)):,} patients with boxes.")
    show_game({name: game(points, data) for name, points in looked.items()} | without_looking(data), data)
    finder = cam_detector.CamDetector(
        trained.network("be used as a detector"), temperature=trained.spec.temperature, boxes=CamBoxes(options.share)
    )
    seen = detections.detect(finder, data.data, data.rows, model=trained.spec, batch=32, threads=1)
    every = {name: seen.box_table(name) for name in data.findings}
    surest = {name: pointing.highest_scoring(marks) for name, marks in every.items()}
    show_overlaps({"any box": every, "hottest box": surest, "mean box of others": usual_boxes(data)}, data)


if __name__ == "__main__":
    main()
