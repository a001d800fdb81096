"""Time of intervals clustered by patient, compared with the usual loop over scikit-learn. The data have the size of
ChestX-ray14's official test split: 25,596 images of 2,797 patients, 14 findings, synthetic scores.

    OMP_NUM_THREADS=1 python benchmarks/metrics.py [--full] [--resamples 1000]

The loop is timed on a few resamples between the rounds of Ribcage and scaled to all of them (--full runs all). Both use
the same resamples, and their results are compared. Cite the ratios: absolute times depend on the machine."""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn import metrics as sklearn

from ribcage import metrics
from ribcage.metrics import resampling
from ribcage.metrics.patients import patient_numbers

IMAGES, PATIENTS = 25_596, 2_797
PREVALENCE = (0.128, 0.042, 0.182, 0.239, 0.068, 0.063, 0.022, 0.104, 0.071, 0.036, 0.043, 0.017, 0.045, 0.0034)
"""About that of the official test set."""


def made_up() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores, labels and patients; a patient's images are alike, so that the clusters matter."""
    chance = np.random.default_rng(0)
    patients = np.sort(np.append(np.arange(PATIENTS), chance.integers(0, PATIENTS, IMAGES - PATIENTS)))
    own = chance.normal(size=(PATIENTS, len(PREVALENCE)))[patients]
    drawn = 0.6 * own + 0.8 * chance.normal(size=own.shape)
    labels = (drawn > np.quantile(drawn, 1 - np.array(PREVALENCE), axis=0).diagonal()).astype(float)
    scores = 0.4 * own + chance.normal(size=own.shape) + 1.3 * labels - 2
    return scores.astype(np.float32).astype(float), labels, patients


def aurocs(labels: np.ndarray, scores: np.ndarray) -> list[list[float]]:
    return [[sklearn.roc_auc_score(y, s) for y, s in zip(labels.T, scores.T, strict=True)]]


def all_metrics(labels: np.ndarray, scores: np.ndarray) -> list[list[float]]:
    """In the order of NAMES."""
    rows = []
    for y, s in zip(labels.T, scores.T, strict=True):
        called = s >= 0.5
        tn, fp, fn, tp = sklearn.confusion_matrix(y, called).ravel()
        ranked = [sklearn.roc_auc_score(y, s), sklearn.average_precision_score(y, s)]
        called_right = [sklearn.accuracy_score(y, called), sklearn.f1_score(y, called)]
        rates = [tp / (tp + fn), tn / (tn + fp), tp / (tp + fp), tn / (tn + fn)]
        rows.append([*ranked, *called_right, *rates, sklearn.brier_score_loss(y, s)])
    return np.array(rows).T.tolist()


NAMES = ("auroc", "ap", "accuracy", "f1", "sensitivity", "specificity", "ppv", "npv", "brier")


class Loop:
    """The usual loop: gather the rows of a resample, ask scikit-learn for every finding."""

    def __init__(self, call: Callable[..., Any], scores: np.ndarray, labels: np.ndarray, patients: np.ndarray) -> None:
        codes = patient_numbers(patients, len(scores))
        self.call, self.scores, self.labels, self.people = call, scores, labels, int(codes.max()) + 1
        self.rows = np.split(np.argsort(codes, kind="stable"), np.cumsum(np.bincount(codes))[:-1])
        self.seconds: list[float] = []
        self.found: list[list[list[float]]] = []

    def step(self) -> None:
        start = time.perf_counter()
        drawn = resampling.resample(0, len(self.found), self.people)
        rows = np.concatenate([self.rows[patient] for patient in drawn])
        self.found.append(self.call(self.labels[rows], self.scores[rows]))
        self.seconds.append(time.perf_counter() - start)


def compared(
    name: str, ours: Callable[[int], dict[str, metrics.Resampled]], loop: Loop, resamples: int, steps: int
) -> None:
    """A line per number of threads: each round runs the loop for some resamples, then ours whole, in both ways."""
    ours(1)
    seconds: dict[int, list[float]] = {1: [], 2: []}
    for number in range(steps):
        loop.step()
        if number % max(steps // 5, 1) == 0:
            for threads, times in seconds.items():
                start = time.perf_counter()
                found = ours(threads)
                times.append(time.perf_counter() - start)
    names = NAMES if len(loop.found[0]) > 1 else NAMES[:1]
    mine = np.stack([found[metric].resampled[:steps] for metric in names], axis=1)
    apart = np.abs(mine - np.array(loop.found)).max()
    assert apart < 1e-12, f"{name} differs by {apart}"
    slow = statistics.median(loop.seconds) * resamples
    for threads, times in seconds.items():
        fast = statistics.median(times)
        title = f"{name}, {threads} thread{'s' if threads > 1 else ''}"
        print(f"| {title} | {slow:.1f} | {fast:.3f} | {slow / fast:,.0f}× | {apart:.0e} |", flush=True)


def delong_line(scores: np.ndarray, labels: np.ndarray, patients: np.ndarray, resamples: int) -> None:
    times, found = [], metrics.delong(scores, labels, patients)
    for _ in range(5):
        start = time.perf_counter()
        found = metrics.delong(scores, labels, patients)
        mean = found.macro().error[0]
        times.append(time.perf_counter() - start)
    drawn = metrics.bootstrap(scores, labels, patients, resamples=resamples)["auroc"]
    own, ours = np.sqrt(np.diag(found.covariance)), found.pulls.mean(axis=1)
    ratio = own / np.nanstd(drawn.resampled, axis=0)
    mean = float(np.sqrt(ours @ ours))
    print(f"\nDeLong clustered by patient, with the variance of the mean: {statistics.median(times):.3f} s")
    print(
        f"standard error of the mean AUROC: DeLong {mean:.5f}, bootstrap {np.nanstd(drawn.resampled.mean(axis=1)):.5f}"
    )
    print(f"DeLong / bootstrap per finding: {ratio.min():.3f} to {ratio.max():.3f}")
    naive = metrics.delong(scores, labels)
    print(f"standard error of the mean AUROC if every image counted as a patient: {naive.macro().error[0]:.5f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--resamples", type=int, default=1000)
    parser.add_argument("--full", action="store_true", help="run scikit-learn for all resamples; minutes")
    options = parser.parse_args()
    scores, labels, patients = made_up()
    scores = metrics.sigmoid(scores)
    steps = options.resamples if options.full else min(10, options.resamples)
    print(f"{IMAGES:,} × {len(PREVALENCE)}, {PATIENTS:,} patients, {options.resamples:,} resamples, sorting included")
    print(f"scikit-learn: {steps} resamples" + ("" if options.full else f", scaled to {options.resamples:,}"))
    print(
        "\n| metrics and threads | scikit-learn, s | ribcage, s | ratio | largest difference |\n|---|---|---|---|---|"
    )

    def area(threads: int) -> dict[str, metrics.Resampled]:
        return metrics.bootstrap(scores, labels, patients, resamples=options.resamples, threads=threads)

    def everything(threads: int) -> dict[str, metrics.Resampled]:
        return metrics.bootstrap(
            scores, labels, patients, thresholds=0.5, probabilities=scores, resamples=options.resamples, threads=threads
        )

    compared("AUROC (ribcage: AUROC and AP)", area, Loop(aurocs, scores, labels, patients), options.resamples, steps)
    compared("all nine metrics", everything, Loop(all_metrics, scores, labels, patients), options.resamples, steps)
    delong_line(scores, labels, patients, options.resamples)


if __name__ == "__main__":
    main()
