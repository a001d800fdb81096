"""Threshold rules on few images: stored predictions of a published DenseNet-121 on ChestX-ray14.

    python benchmarks/thresholds.py --nih DIR [--times 100]

DIR contains the dataset's table and jrzech_densenet121_predictions.csv.gz. Thresholds are chosen on randomly drawn
images and applied to all images of other patients, where sensitivity + specificity - 1 is computed."""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from ribcage import metrics

RULES = ("youden", "midpoint")
IMAGES = (500, 2000)
LEAST = 100
"""Positives that a finding must have; of fewer, most draws hold none."""


def read(folder: Path) -> tuple[list[str], np.ndarray, np.ndarray, np.ndarray]:
    """Findings, probabilities and labels (N, F), patients (N,)."""
    said = pd.read_csv(folder / "jrzech_densenet121_predictions.csv.gz").set_index("Image Index")
    table = pd.read_csv(folder / "Data_Entry_2017_v2020.csv.gz").set_index("Image Index").loc[said.index]
    named = table["Finding Labels"].str.get_dummies("|")
    findings = [name.removeprefix("prob_") for name in said if name.startswith("prob_")]
    findings = [name for name in findings if named[name].sum() >= LEAST]
    probabilities = said[[f"prob_{name}" for name in findings]].to_numpy(float)
    return findings, probabilities, named[findings].to_numpy(float), table["Patient ID"].to_numpy()


def gained(probabilities: np.ndarray, labels: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """(F,) sensitivity + specificity - 1."""
    rates = metrics.rates(metrics.confusion_counts(probabilities, labels, chosen))
    return rates["sensitivity"] + rates["specificity"] - 1


def trial(probabilities: np.ndarray, labels: np.ndarray, patients: np.ndarray, count: int, seed: int) -> np.ndarray:
    """(rules, F) what is gained on other patients; NaN where the draw has one class only."""
    drawn = np.random.default_rng(seed).permutation(len(patients))[:count]
    others = ~np.isin(patients, patients[drawn])
    chosen = [metrics.choose_thresholds(probabilities[drawn], labels[drawn], rule) for rule in RULES]
    return np.stack([gained(probabilities[others], labels[others], each) for each in chosen])


def main() -> None:
    """Print the table: the mean over draws, and their standard deviation."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--nih", type=Path, required=True)
    parser.add_argument("--times", type=int, default=100)
    options = parser.parse_args()
    findings, said, labels, people = read(options.nih)
    columns = [f"{rule}, {count:,} images" for count in IMAGES for rule in RULES]
    print("| finding | " + " | ".join(columns) + " |\n" + "|---" * (len(columns) + 1) + "|")
    trials = [np.stack([trial(said, labels, people, count, seed) for seed in range(options.times)]) for count in IMAGES]
    means = np.concatenate([np.nanmean(each, axis=0) for each in trials])  # (columns, F)
    spreads = np.concatenate([np.nanstd(each, axis=0) for each in trials])
    rows = zip([*findings, "mean"], np.c_[means, means.mean(1)].T, np.c_[spreads, spreads.mean(1)].T, strict=True)
    for name, mean, spread in rows:
        print(f"| {name} | " + " | ".join(f"{m:.3f} ± {s:.3f}" for m, s in zip(mean, spread, strict=True)) + " |")


if __name__ == "__main__":
    main()
