"""A published network that is only a file, on real radiographs: reproduced, calibrated, audited, explained, distilled.

    OMP_NUM_THREADS=1 python -m benchmarks.foreign_network --work DIR --data REAL [--parts auroc,calibration,…]

REAL/foreign holds a MobileNetV3-Small for ChestX-ray14 as an int8 ONNX file, REAL/nih 1,299 images of ChestX-ray14 with
labels and boxes. `ribcage convert` makes the file into an opaque model; all predictions are those of that model. The
415 test images are those of the test split of arnoweng. On which images the network was trained is not known.

Calibration is fitted on the 884 other images, whose label mix differs, or on the test images of other patients (five
folds). In distillation, the student EEEA-Net-C2 is trained on the 799 training images with labels alone, or with labels
and the predictions of the network; the last epoch is tested. Intervals are 95 %, over patients, and over seeds where
there are several. Runs that are already in DIR are reused.
"""

import argparse
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.linear_model import LogisticRegression

from benchmarks import pointing as game
from benchmarks import trials
from ribcage import metrics
from ribcage.bundle.io import load_classifier
from ribcage.data.collection import Datasets
from ribcage.evaluation import subgroups
from ribcage.inference import map_points, predictions
from ribcage.metrics import sigmoid
from ribcage.metrics.calibration import temperatures
from ribcage.metrics.patients import patient_numbers

FILE = "nih_mobilenetv3_small_int8.onnx"
OUTPUTS = (
    "-", "Infiltration", "Atelectasis", "Effusion", "Nodule", "Pneumothorax", "Mass", "Consolidation",
    "Pleural_Thickening", "Cardiomegaly", "Emphysema", "Fibrosis", "Edema", "Pneumonia", "Hernia",
)  # fmt: skip
FOLDS, FEWEST, RESAMPLES = 5, 5, 300
STUDENT = "eeea_net_c2"


@dataclass(frozen=True)
class Scores:
    """The network's logits for some images, and what is known about these."""

    logits: np.ndarray
    labels: np.ndarray
    patients: np.ndarray
    about: pd.DataFrame
    findings: tuple[str, ...]


# ---- images and model


def dataset(nih: Path, work: Path, side: int) -> Path:
    """The images as a dataset folder, in the splits of arnoweng."""
    out, table = work / f"nih {side}", work / "nih.csv"
    if (out / "dataset.json").exists():
        return out
    rows = pd.read_csv(nih / "manifest.csv")
    names = list(rows.columns[rows.columns.get_loc("Atelectasis") : rows.columns.get_loc("Hernia") + 1])
    rows["image"] = [str((nih / "images_256" / name).resolve().with_suffix(".jpg")) for name in rows["image"]]
    rows = rows.rename(columns={"arnoweng_split": "split"})
    rows[["image", "split", "age", "sex", "view", "patient_id", *names]].to_csv(table, index=False)
    given = ["--path-column", "image", "--patient-column", "patient_id", "--split-column", "split", "--allow-outside"]
    game.imported(["folder", str(table), *given, "--label-columns", *names, "--out", str(out), "--size", str(side)])
    return out


def opaque(file: Path, work: Path) -> Path:
    """The file as a bundle."""
    out = work / "network"
    if not (out / "model.json").exists():
        words = ["convert", str(file), "--findings", *OUTPUTS, "--mean", "0.485", "--std", "0.229", "--out", str(out)]
        subprocess.run([sys.executable, "-m", "ribcage", *words], check=True, stdout=sys.stderr)
    return out


def scores(model: Path, data: Datasets, rows: np.ndarray) -> Scores:
    """The network on these rows."""
    opened = load_classifier(model)
    found = predictions.predict(opened.method, data, rows, model=opened.spec, threads=1)
    about, names = predictions.row_context(data, found.rows), opened.spec.findings
    patients = data.table["patient"].to_numpy()[found.rows]
    return Scores(found.logits, data.known_labels(found.rows, names), patients, about, names)


# ---- ranking


def auroc_table(test: Scores) -> None:
    """AUROC of each finding."""
    found = metrics.bootstrap(test.logits, test.labels, test.patients)["auroc"]
    every, macro = found.interval(0.95), found.macro().interval(0.95)
    print("| finding | positive images | AUROC (95 %) |\n|---|---|---|")
    for place, name in enumerate(test.findings):
        positive = int((test.labels[:, place] == 1).sum())
        print(f"| {name} | {positive} | {limits(every.value[place], every.low[place], every.high[place])} |")
    value, low, high = (float(np.ravel(one)[0]) for one in (macro.value, macro.low, macro.high))
    print(f"| **mean** | | **{limits(value, low, high)}** |")


def limits(value: float, low: float, high: float, sign: str = "") -> str:
    """0.744 (0.710–0.775)"""
    between = " to " if sign else "–"
    return f"{value:{sign}.3f} ({low:{sign}.3f}{between}{high:{sign}.3f})"


# ---- calibration


def calibrated(test: Scores, others: Scores) -> dict[str, np.ndarray]:
    """Ways to make probabilities of the logits → (N, F) probabilities of the test images."""
    other = "the 884 other images"
    scale = temperatures(others.logits, others.labels).value
    fold = patient_numbers(test.patients, len(test.labels)) % FOLDS
    crossed = np.empty(test.logits.shape)
    for number in range(FOLDS):
        inside = fold == number
        crossed[inside] = platt(test.logits[~inside], test.labels[~inside], test.logits[inside])
    prevalence = np.empty(test.logits.shape)
    for number in range(FOLDS):
        prevalence[fold == number] = (test.labels[fold != number] == 1).mean(0)
    return {
        "sigmoid of the logits": sigmoid(test.logits.astype(np.float64)),
        f"temperature, fitted on {other}": sigmoid(test.logits / scale),
        f"Platt scaling, fitted on {other}": platt(others.logits, others.labels, test.logits),
        "Platt scaling, fitted on the test images of other patients": crossed,
        "prevalence among the test images of other patients (no network)": prevalence,
    }


def platt(logits: np.ndarray, labels: np.ndarray, of: np.ndarray) -> np.ndarray:
    """Probabilities sigmoid(a z + b) with the most likely a and b; the prevalence where there are too few positives."""
    found = np.empty(of.shape)
    for place, (own, known) in enumerate(zip(logits.T, labels.T, strict=True)):
        if (known == 1).sum() < FEWEST:
            found[:, place] = (known == 1).mean()
            continue
        fitted = LogisticRegression(C=1e6).fit(own[:, None], known)
        found[:, place] = fitted.predict_proba(of[:, place][:, None])[:, 1]
    return found


def calibration_table(test: Scores, others: Scores) -> None:
    """Mean ECE and Brier score over the findings of each way."""
    print("| probabilities | ECE | Brier score (95 %) |\n|---|---|---|")
    for name, found in calibrated(test, others).items():
        brier = over_patients(partial(mean_brier, found, test.labels), test.patients)
        print(f"| {name} | {metrics.ece(found, test.labels).mean():.3f} | {limits(*brier)} |")


def mean_brier(probabilities: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> float:
    """The mean Brier score over the findings."""
    return float(metrics.brier(probabilities, labels, weights).mean())


def over_patients(measure: Callable[[np.ndarray], float], patients: np.ndarray) -> tuple[float, float, float]:
    """A measure with percentile limits from resamples of the patients; `measure` takes weights of the images."""
    codes, draw = patient_numbers(patients, len(patients)), np.random.default_rng(0)
    people, resampled = int(codes.max()) + 1, []
    for _ in range(RESAMPLES):
        times = np.bincount(draw.integers(people, size=people), minlength=people)
        resampled.append(measure(times[codes].astype(np.float64)))
    low, high = np.percentile(resampled, [2.5, 97.5])
    return float(measure(np.ones(len(codes)))), float(low), float(high)


# ---- subgroups


def audit_table(test: Scores) -> None:
    """Difference in mean AUROC between the images of a subgroup and all others."""
    about = subgroups.groupings(test.about)
    old = test.about["age"].to_numpy(np.float64) >= 60
    groups = {"female": about["sex"] == "F", "60 years or older": old, "AP view": about["view"] == "AP"}
    print("| subgroup | images | others | difference in mean AUROC (95 %) | findings |\n|---|---|---|---|---|")
    for name, inside in groups.items():
        found = metrics.auroc_gap(test.logits, test.labels, inside, test.patients)
        one = found.macro().interval(0.95)
        value, low, high = (float(np.ravel(each)[0]) for each in (one.value, one.low, one.high))
        counted = int((~np.isnan(found.value)).sum())
        shown = limits(value, low, high, "+")
        print(f"| {name} | {int(inside.sum())} | {int((~inside).sum())} | {shown} | {counted} |")


# ---- maps


def pointing_table(model: Path, nih: Path, work: Path) -> None:
    """The pointing game of occlusion maps, on all images with a Pneumonia box."""
    opened, network = game.of_nih(nih, work / "boxes"), load_classifier(model)
    data = game.tested(opened, network.spec.findings, FEWEST)
    places = [network.spec.findings.index(name) for name in data.findings]
    found = map_points.points(network.method, data.data, data.rows, model=network.spec, batch=8, threads=1)
    game.show_game({"occlusion": game.game(found[:, places], data)} | game.without_looking(data), data)


# ---- distillation


def distilled(model: Path, data: Path, options: argparse.Namespace) -> None:
    """Students with the network as teacher, and on labels alone."""
    how = ["--model", STUDENT, "--data", str(data), "--size", str(options.size), "--epochs", str(options.epochs)]
    how += ["--batch", "64", "--lr", str(options.lr), "--keep", "last", "--threads", "1", "--augment", "gentle"]
    taught = ["--teacher", str(model), "--teacher-mode", "stored", "--label-weight", str(options.label_weight)]
    ways: dict[str, tuple[str, Sequence[str]]] = {
        "labels alone": ("finetune", ()),
        "labels and the network": ("distil", taught),
    }
    images = Datasets.open([str(data)])
    tests: dict[str, list[trials.Tested]] = {name: [] for name in ways}
    for seed in range(options.first, options.first + options.seeds):
        for name, (command, more) in ways.items():
            out = options.work / f"{command} {seed}"
            trials.trained([command, *how, *more, "--seed", str(seed), "--out", str(out)])
            tests[name].append(trials.tested(out, images, images.findings))
    found = {name: trials.over_seeds(own) for name, own in tests.items()}
    print("| training of EEEA-Net-C2 | mean test AUROC (95 %) | gain (95 %) |\n|---|---|---|")
    for name, one in found.items():
        gain = "–" if name == "labels alone" else trials.shown(one.minus(found["labels alone"]), "+")
        print(f"| {name} | {trials.shown(one)} | {gain} |")


PARTS = ("auroc", "calibration", "audit", "maps", "distillation")


def main() -> None:
    """Print a table for each part."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True, help="folder with foreign/ and nih/")
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--side", type=int, default=224, help="of the stored images, resized with eight bits")
    parser.add_argument("--size", type=int, default=64, help="of the student's images")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--label-weight", type=float, default=0.3)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first", type=int, default=0, help="first seed; 100 for development")
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.work.mkdir(parents=True, exist_ok=True)
    folder = dataset(options.data / "nih", options.work, options.side)
    model = opaque(options.data / "foreign" / FILE, options.work)
    data, parts = Datasets.open([str(folder)]), options.parts.split(",")
    if {"auroc", "calibration", "audit"} & set(parts):
        test = scores(model, data, data.rows_of("test"))
        print(f"{len(test.labels):,} test images of {len(np.unique(test.patients)):,} patients\n")
        if "auroc" in parts:
            auroc_table(test)
        if "calibration" in parts:
            rest = np.sort(np.concatenate([data.rows_of(one) for one in ("train", "val")]))
            print()
            calibration_table(test, scores(model, data, rest))
        if "audit" in parts:
            print()
            audit_table(test)
    if "maps" in parts:
        pointing_table(model, options.data / "nih", options.work)
    if "distillation" in parts:
        print()
        distilled(model, folder, options)


if __name__ == "__main__":
    main()
