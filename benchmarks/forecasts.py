"""Coverage of the forecasts of learning curves (`ribcage.metrics.learning_curve`), by simulation.

    python benchmarks/forecasts.py --simulations 300

Each simulation draws training images (features of two overlapping classes, two images per patient), a test set of
patients, and the AUROCs of ridge regression on nested random subsets of the training patients. The curve is fitted to
all counts up to a quarter of the training images, and the AUROC is forecast for all of them. Two results are counted:
whether the interval contains the AUROC of the model that is then trained on all images, measured on the same test set,
and whether it contains the AUROC of that model for the whole population. There is no forecast without a significant
increase."""

import argparse
from collections.abc import Iterator

import numpy as np

from ribcage import metrics
from ribcage.metrics.learning_curve import CurvePoints, fit_learning_curve, why_no_forecast

POOL, FEATURES, TEST, POPULATION = 1600, 48, 500, 20_000
COUNTS = (25, 50, 100, 200, 400)
REPEATS = 5
STRENGTH = 3.0


def drawn(random: np.random.Generator, count: int, direction: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features (N, D), labels (N, 1) and patients (N,), who have two images each that resemble each other."""
    people = np.arange(count) // 2
    labels = (random.random(people[-1] + 1) < 0.25)[people].astype(float)
    features = random.normal(size=(people[-1] + 1, len(direction)))[people] * 0.7
    features += random.normal(size=(count, len(direction))) * 0.7
    return features + labels[:, None] * direction, labels[:, None], people


def ridge(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(D,) weights of ridge regression of the labels on centred features."""
    centred = x - x.mean(0)
    return np.linalg.solve(centred.T @ centred + STRENGTH * np.eye(x.shape[1]), centred.T @ (y[:, 0] - y.mean()))


def subsets(random: np.random.Generator, people: np.ndarray) -> Iterator[list[np.ndarray]]:
    """For each repeat, nested subsets of the images of randomly ordered patients."""
    for _ in range(REPEATS):
        order = np.argsort(random.permutation(people[-1] + 1)[people], kind="stable")
        yield [order[:count] for count in COUNTS]


def simulate(seed: int) -> tuple[str, float, float, float, float]:
    """Why there is no forecast, or the limits of the interval and the AUROC on the test set and in the population."""
    random = np.random.default_rng(seed)
    direction = random.normal(size=FEATURES) * random.choice([0.15, 0.25, 0.35])
    x, y, people = drawn(random, POOL, direction)
    test, labels, patients = drawn(random, TEST, direction)
    everybody, true, _ = drawn(random, POPULATION, direction)
    values, pulls = np.full((len(COUNTS), REPEATS), np.nan), np.zeros((len(COUNTS), 3 * (patients[-1] + 1)))
    for repeat, several in enumerate(subsets(random, people)):
        for place, rows in enumerate(several):
            found = metrics.delong((test @ ridge(x[rows], y[rows]))[:, None], labels, patients)
            values[place, repeat] = found.value[0]
            pulls[place] += found.pulls[:, 0] / REPEATS
    points = CurvePoints(np.array(COUNTS, float), values, pulls.T, POOL)
    if reason := why_no_forecast(points):
        return reason, np.nan, np.nan, np.nan, np.nan
    (forecast,) = fit_learning_curve(points, (POOL / COUNTS[-1],), seed=seed).forecasts
    w = ridge(x, y)
    same, whole = (float(metrics.auroc((a @ w)[:, None], b)[0]) for a, b in ((test, labels), (everybody, true)))
    return "", forecast.low, forecast.high, same, whole


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulations", type=int, default=300)
    asked = parser.parse_args()
    found = [simulate(seed) for seed in range(asked.simulations)]
    known = np.array([one[1:] for one in found if not one[0]])
    low, high, same, whole = known.T
    print(f"{len(found)} simulations, {len(found) - len(known)} without a forecast")
    for name, value in (("same test set", same), ("population", whole)):
        inside = (low <= value) & (value <= high)
        error = np.sqrt(inside.mean() * (1 - inside.mean()) / len(inside))
        print(f"{name}: {100 * inside.mean():.1f} % in the 95 % interval (standard error {100 * error:.1f})")
    print(f"median width {np.median(high - low):.3f}, mean error {np.mean((low + high) / 2 - whole):+.4f}")


if __name__ == "__main__":
    main()
