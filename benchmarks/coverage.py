"""Coverage of the 95 % intervals of `evaluate` and `compare`, simulated on datasets with known true values.

    OMP_NUM_THREADS=1 python benchmarks/coverage.py [--quick]
        [--parts findings gaps boxes rare equal means pairs scaled] [--designs single clustered fixed] [--processes 2]
        [--positives 15 50] [--times 400] [--seed 0]

In each simulation a test set of patients is drawn at random, so the number of positive images varies about the number
in the column header; a fifth of the images is positive. Designs: `single`, one image per patient; `clustered`, one to
five images per patient with correlated labels (latent correlation .7) and scores (.5); `fixed`, one image per patient
and exactly the given number of positives. Scores of positives and negatives are normal with AUROCs .6, .75, .9, .955
and .99; in a sixth set a tenth of the positives have the scores of negatives (.946). Thresholds have a true sensitivity
or specificity of .5, .8 or .95. The scores of the second model share half of the variance of those of the first; for
three of six findings the models are equally good. Boxes come from three detectors, whose true mAP is the mean over five
datasets of 40,000 patients.

Gaps are differences between a subgroup and all other patients, who are three times as many; the number of positives is
that of the subgroup. Outside the subgroup the scores are equally good for three findings, and those of the second model
for the other three. In the clustered design, half of the patients have images on both sides.

Rare findings have one positive image in a hundred, one image per patient, and 10 to 50 positives. They are accompanied
by the mean AP at a prevalence of one fifth. Means are over six findings.

Equal models, `--parts equal`, have the same AUROC and share half of the variance of their scores; the true difference
is 0. One minus the coverage is how often the paired test with a significance level of 5 % rejects.

Changes of the Brier score, `--parts scaled`, are from the true probabilities to those with half and with twice the log
odds.

Means of rates, `--parts means`, are over fourteen findings with AUROCs from .65 to .97, whose thresholds lie half-way
between the means of negatives and positives, or .3 or .8 standard deviations above. Datasets in which a finding has no
rate are not counted.

Differences of the mean AP, `--parts pairs`, are over fourteen findings, with AUROCs of .8 and .6 or .9 and .6, of
models whose scores share half of the variance.

AUROC of binarised scores: scores are 1 where the highest threshold is reached and 0 elsewhere.

A cell is the mean over the true values, with the minimum in brackets. The last column is the coverage of percentile
intervals from the same resamples. Monte Carlo standard errors are printed below the tables."""

import argparse
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Any

import numpy as np

from ribcage import metrics
from ribcage.metrics import detection, placements
from ribcage.metrics.boxes import BoxTable
from ribcage.metrics.intervals import Interval

if __name__ == "coverage":
    raise ImportError("numba looks for the package of that name, which this is not.")

NORMAL = NormalDist()
POSITIVES = (5, 10, 15, 20, 50, 200)
AREAS = (0.6, 0.75, 0.9, 0.955, 0.99)
MIXED = 0.995
"""AUROC of nine in ten positives of the sixth set; the tenth has .5."""
DETECTORS = ((0.6, 0.12, 0.6), (0.8, 0.08, 0.3), (0.95, 0.04, 0.1))
"""Chance to find a box, spread of its corners, false boxes per image."""
DESIGNS = ("single", "clustered", "fixed")
RATES = (0.5, 0.8, 0.95)
ASKED = 0.2
RARE = 0.01
RARE_POSITIVES = (10, 20, 50, 200)
RESAMPLES = 400
MEANT = 14
"""Findings in the means of `means` and `pairs`."""
ABOVE = (0.0, 0.3, 0.8)
"""How far the thresholds of `means` lie above the middle, in standard deviations."""
UNEQUAL = (0.8, 0.9)
"""AUROCs of the better model of `pairs`; the other has .6."""


@dataclass(frozen=True)
class Cell:
    """One population, sampled again and again."""

    design: str
    positives: int
    area: float
    """AUROC; 0: the mixture."""
    times: int
    seed: int


@dataclass(frozen=True)
class Found:
    """How often a metric's interval held its truth."""

    metric: str
    truth: str
    held: int
    percentile: int
    asked: int
    undefined: int


# ---- findings


def shift(area: float) -> float:
    """How far the positives lie above the negatives, in standard deviations."""
    return float(np.sqrt(2) * NORMAL.inv_cdf(area or MIXED))


def true_area(area: float) -> float:
    return area or 0.9 * MIXED + 0.1 * 0.5


def survival(levels: np.ndarray, area: float, share: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Shares of positives and of negatives above each level."""
    strong, false = ([1 - NORMAL.cdf(level - by) for level in levels] for by in (share * shift(area), 0.0))
    true = np.array(strong) if area else 0.9 * np.array(strong) + 0.1 * np.array(false)
    return true, np.array(false)


def true_precision(area: float, share: float = 1.0, prevalence: float = ASKED) -> float:
    """Average precision of the population; share: how much of the way the positives lie above."""
    true, false = survival(np.linspace(-8, 8, 20_001), area, share)
    middle = [(each[1:] + each[:-1]) / 2 for each in (true, false)]
    hits, alarms = prevalence * middle[0], (1 - prevalence) * middle[1]
    precision = hits / np.maximum(hits + alarms, 1e-300)
    return float(precision @ -np.diff(true))


def levels(area: float) -> np.ndarray:
    """(6,) thresholds: three by sensitivity, three by specificity."""
    grid = np.linspace(-6, 8, 20_001)
    true, false = survival(grid, area)
    sensitive, specific = np.interp(-np.array(RATES), -true, grid), np.interp(RATES, 1 - false, grid)
    return np.concatenate([sensitive, specific])


def draw(random: np.random.Generator, cell: Cell) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Scores of two models (N, 6), labels (N, 6) and patients (N,)."""
    patients, latent, noise = raw(random, cell, 6, 4)
    labels = (latent > NORMAL.inv_cdf(1 - ASKED)).astype(np.float64)
    if cell.design == "fixed":
        ranks = latent.argsort(axis=0).argsort(axis=0)
        labels = (ranks >= len(latent) - cell.positives).astype(np.float64)
    shared, a, b, chance = noise
    apart = np.full(labels.shape, shift(cell.area))
    if not cell.area:
        apart = np.where(chance < NORMAL.inv_cdf(0.1), 0.0, apart)
    other = apart * np.where(np.arange(6) < 3, 1.0, 0.75)
    first, second = (np.sqrt(0.5) * (shared + own) + by * labels for own, by in ((a, apart), (b, other)))
    return first, second, labels, patients


def raw(
    random: np.random.Generator, cell: Cell, findings: int, kinds: int
) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """Patients (N,), standard normal numbers for labels (N, F) and, so many times, for scores."""
    images = round(cell.positives / ASKED)
    if cell.design != "clustered":
        drawn = random.normal(size=(kinds + 1, images, findings))
        return np.arange(images), drawn[0], list(drawn[1:])
    sizes = random.integers(1, 6, max(round(images / 3), 2))
    patients = np.repeat(np.arange(len(sizes)), sizes)
    own = random.normal(size=(kinds + 1, len(sizes), findings))[:, patients]
    each = random.normal(size=own.shape)
    alike = np.array([0.7] + [0.5] * kinds)[:, None, None]
    parts = np.sqrt(alike) * own + np.sqrt(1 - alike) * each
    return patients, parts[0], list(parts[1:])


def classified(cell: Cell) -> list[Found]:
    """All metrics of findings."""
    random, tally = generator(cell), Tally()
    at, area, other = levels(cell.area), true_area(cell.area), weaker(cell.area)
    true, false = survival(at, cell.area)
    every, halves = slice(6), (slice(3), slice(3, 6))
    rates = true_rates(true, false)
    weak = true_rates(*survival(at, cell.area, 0.75))
    brier, called = true_brier(cell.area)
    precision = true_precision(cell.area), true_precision(cell.area, 0.75)
    apart = np.where(np.arange(6) < 3, 0.0, area - other)
    apart_precision = np.where(np.arange(6) < 3, 0.0, precision[0] - precision[1])
    shown = {"sensitivity": halves[0], "specificity": halves[1]}
    for time_ in range(cell.times):
        first, second, labels, patients = draw(random, cell)
        options: dict[str, Any] = {"resamples": RESAMPLES, "seed": time_, "threads": 1}
        a = metrics.bootstrap(first, labels, patients, thresholds=at, probabilities=called(first), **options)
        b = metrics.bootstrap(second, labels, patients, thresholds=at, **options)
        exact = metrics.delong(first, labels, patients)
        tally.add("AUROC", area, a["auroc"].interval(), a["auroc"].resampled)
        tally.add("AUROC, DeLong", area, exact.interval())
        coarse = metrics.delong((first >= at[5]).astype(np.float64), labels, patients)
        tally.add("AUROC of binarised scores, DeLong", float(true[5] + 1 - false[5]) / 2, coarse.interval())
        tally.add("AP", precision[0], a["ap"].interval(), a["ap"].resampled)
        for name, truth in rates.items():
            kept, found = shown.get(name, every), a[name.lower()]
            tally.add(name, truth[kept], part(found.interval(), kept), found.resampled[:, kept])
        tally.add("Brier", brier, a["brier"].interval(), a["brier"].resampled)
        tally.add("macro AUROC", area, a["auroc"].macro().interval(), a["auroc"].macro().resampled)
        tally.add("macro AUROC, DeLong", area, exact.macro().interval())
        for name, truth in (("AUROC", apart), ("AP", apart_precision), *differing(rates, weak)):
            pair = metrics.paired_difference(a[name.lower()], b[name.lower()])
            drawn = a[name.lower()].resampled - b[name.lower()].resampled
            tally.add(f"difference of {name}", truth, pair.interval(), drawn)
            if name == "AUROC":
                mean = pair.macro().interval()
                tally.add("difference of macro AUROC", truth.mean(), mean, drawn.mean(axis=1, keepdims=True))
    return tally.found()


def compared(cell: Cell) -> list[Found]:
    """Gaps in AUROC."""
    random, tally = generator(cell), Tally()
    area, other = true_area(cell.area), weaker(cell.area)
    truth = np.where(np.arange(6) < 3, 0.0, area - other)
    for _ in range(cell.times):
        first, second, labels, patients, inside = draw_sides(random, cell)
        scores = np.where(inside[:, None] | (np.arange(6) < 3), first, second)
        found = metrics.auroc_gap(scores, labels, inside, patients)
        tally.add("gap in AUROC, DeLong", truth, found.interval())
        tally.add("gap in macro AUROC, DeLong", float(truth.mean()), found.macro().interval())
    return tally.found()


def draw_sides(
    random: np.random.Generator, cell: Cell
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """As `draw`, of four times the patients, and which rows (N,) are the subgroup's."""
    whole = replace(cell, positives=4 * cell.positives)
    first, second, labels, patients = draw(random, whole)
    people = int(patients.max()) + 1
    inside = (random.random(people) < 0.25)[patients]
    if cell.design == "clustered":
        inside = np.where((random.random(people) < 0.5)[patients], random.random(len(patients)) < 0.25, inside)
    return first, second, labels, patients, inside


def true_rates(true: np.ndarray, false: np.ndarray) -> dict[str, np.ndarray]:
    """Of the population, where so many positives and negatives lie above the thresholds."""
    hits, alarms = ASKED * true, (1 - ASKED) * false
    called = hits + alarms
    apart = np.sqrt(called * (1 - called) * ASKED * (1 - ASKED))
    return {
        "sensitivity": true,
        "specificity": 1 - false,
        "accuracy": hits + 1 - ASKED - alarms,
        "PPV": hits / (hits + alarms),
        "NPV": (1 - ASKED - alarms) / (1 - hits - alarms),
        "F1": 2 * hits / (hits + alarms + ASKED),
        "MCC": (hits - called * ASKED) / apart,
    }


def differing(strong: dict[str, np.ndarray], weak: dict[str, np.ndarray]) -> Iterator[tuple[str, np.ndarray]]:
    """True differences of rates at the same thresholds."""
    for name in ("accuracy", "F1", "MCC"):
        yield name, np.where(np.arange(6) < 3, 0.0, strong[name] - weak[name])


def true_brier(area: float) -> tuple[float, Callable[[np.ndarray], np.ndarray]]:
    """Brier score of the true probabilities, and these, of scores."""
    middle, positive, negative = masses(area)
    chance = positive / (positive + negative)
    brier = (positive @ (1 - chance) ** 2) + (negative @ chance**2)
    return float(brier), lambda scores: np.interp(scores, middle, chance)


def masses(area: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores, and how much of the population has them and is positive, or negative."""
    grid = np.linspace(-6, 9, 3001)
    true, false = survival(grid, area)
    positive, negative = (weight * -np.diff(each) for weight, each in ((ASKED, true), (1 - ASKED, false)))
    known = positive + negative > 1e-12
    return ((grid[1:] + grid[:-1]) / 2)[known], positive[known], negative[known]


def scaled(cell: Cell) -> list[Found]:
    """Change of the Brier score from the true probabilities to those with half, and with twice, the log odds."""
    random, tally = generator(cell), Tally()
    called, (middle, positive, negative) = true_brier(cell.area)[1], masses(cell.area)
    chance = called(middle)
    for _ in range(cell.times):
        scores, _, labels, patients = draw(random, cell)
        own = called(scores)
        for by in (0.5, 2.0):
            wrong = sharpened(chance, by)
            truth = positive @ ((1 - wrong) ** 2 - (1 - chance) ** 2) + negative @ (wrong**2 - chance**2)
            change = metrics.brier_change(sharpened(own, by), own, labels, patients, fewest=0)
            tally.add("change of Brier", float(truth), change)
    return tally.found()


def sharpened(chance: np.ndarray, by: float) -> np.ndarray:
    """Probabilities with so many times the log odds."""
    chance = np.clip(chance, 1e-12, 1 - 1e-12)
    return metrics.sigmoid(by * (np.log(chance) - np.log1p(-chance)))


def weaker(area: float) -> float:
    """AUROC of the second model where it differs."""
    return NORMAL.cdf(0.75 * shift(area) / np.sqrt(2)) * (1 if area else 0.9) + (0 if area else 0.05)


def equal(cell: Cell) -> list[Found]:
    """Differences in AUROC of two equally good models."""
    random, tally = generator(cell), Tally()
    for _ in range(cell.times):
        patients, latent, (shared, first, second, chance) = raw(random, cell, 6, 4)
        labels = (latent > NORMAL.inv_cdf(1 - ASKED)).astype(np.float64)
        apart = np.full(labels.shape, shift(cell.area))
        if not cell.area:
            apart = np.where(chance < NORMAL.inv_cdf(0.1), 0.0, apart)
        scores = [np.sqrt(0.5) * (shared + own) + apart * labels for own in (first, second)]
        pair = placements.delong_difference(*(metrics.delong(one, labels, patients) for one in scores))
        tally.add("difference of AUROC of equal models, DeLong", 0.0, pair.interval())
        tally.add("difference of macro AUROC of equal models, DeLong", 0.0, pair.macro().interval())
    return tally.found()


def rare(cell: Cell) -> list[Found]:
    """AUROC and average precision of six findings that few images have, and the mean AP where many have them."""
    random, tally = generator(cell), Tally()
    truths = {"AUROC, rare": true_area(cell.area), "AP, rare": true_precision(cell.area, prevalence=RARE)}
    usual = true_precision(cell.area)
    for _ in range(cell.times):
        values = sampled(random, cell, RARE)
        for (title, truth), name in zip(truths.items(), ("auroc", "ap"), strict=True):
            tally.add(title, truth, values[name].interval(), values[name].resampled)
            tally.add(f"macro {title}", truth, values[name].macro().interval(), values[name].macro().resampled)
        mean = sampled(random, cell, ASKED)["ap"].macro()
        tally.add("macro AP, one fifth positive", usual, mean.interval(), mean.resampled)
    return tally.found()


def sampled(random: np.random.Generator, cell: Cell, prevalence: float) -> dict[str, metrics.Resampled]:
    """Metrics of six findings of one set, one image per patient."""
    shape = round(cell.positives / prevalence), 6
    labels = (random.random(shape) < prevalence).astype(np.float64)
    strong = np.full(shape, shift(cell.area)) if cell.area else shift(0) * (random.random(shape) < 0.9)
    scores = random.normal(size=shape) + strong * labels
    seed = int(random.integers(1 << 32))
    return metrics.bootstrap(scores, labels, resamples=RESAMPLES, seed=seed, threads=1)


def means(cell: Cell) -> list[Found]:
    """Means of rates over findings."""
    random, tally = generator(cell), Tally()
    apart = np.array([shift(area) for area in np.linspace(0.65, 0.97, MEANT)])
    at = apart / 2 + cell.area
    true = true_rates(*(np.array([1 - NORMAL.cdf(one) for one in each]) for each in (at - apart, at)))
    for time_ in range(cell.times):
        patients, latent, (noise,) = raw(random, cell, MEANT, 1)
        labels = (latent > NORMAL.inv_cdf(1 - ASKED)).astype(np.float64)
        scores = noise + apart * labels
        options: dict[str, Any] = {"thresholds": at, "resamples": RESAMPLES, "seed": time_, "threads": 1}
        found = metrics.bootstrap(scores, labels, patients, **options)
        for name in ("sensitivity", "specificity", "PPV", "F1", "accuracy"):
            if not np.isnan(found[name.lower()].value).any():
                mean = found[name.lower()].macro()
                tally.add(f"macro {name}", float(true[name].mean()), mean.interval(), mean.resampled)
    return tally.found()


def pairs(cell: Cell) -> list[Found]:
    """Differences of the mean AP of a good and a weak model, and of the mean AUROC."""
    random, tally, areas = generator(cell), Tally(), (cell.area, 0.6)
    truths = {
        "AP": true_precision(areas[0]) - true_precision(areas[1]),
        "AUROC": areas[0] - areas[1],
    }
    for time_ in range(cell.times):
        patients, latent, (shared, *own) = raw(random, cell, MEANT, 3)
        labels = (latent > NORMAL.inv_cdf(1 - ASKED)).astype(np.float64)
        a, b = (
            metrics.bootstrap(
                np.sqrt(0.5) * (shared + one) + shift(area) * labels,
                labels, patients, resamples=RESAMPLES, seed=time_, threads=1,
            )
            for one, area in zip(own, areas, strict=True)
        )  # fmt: skip
        for name, truth in truths.items():
            pair = metrics.paired_difference(a[name.lower()], b[name.lower()])
            drawn = (a[name.lower()].resampled - b[name.lower()].resampled).mean(axis=1, keepdims=True)
            title = f"difference of macro {name} of unequal models"
            tally.add(title, truth, pair.macro().interval(), drawn)
    return tally.found()


# ---- boxes


def boxes(
    random: np.random.Generator, cell: Cell, detector: tuple[float, float, float]
) -> tuple[detection.FindingBoxes, np.ndarray]:
    """What one detector finds, and the patients."""
    chance, spread, false = detector
    patients, latent, (skill, noise) = raw(random, cell, 2, 2)
    there = latent[:, 0] > NORMAL.inv_cdf(1 - ASKED)
    if cell.design == "fixed":
        there = latent[:, 0].argsort().argsort() >= len(latent) - cell.positives
    counts = there * (1 + (latent[:, 1] > 0))  # one or two
    owners = np.repeat(np.arange(len(there)), counts)
    corner = random.uniform(0, 60, (len(owners), 2)) + 100 * (np.arange(len(owners)) % 2)[:, None] * [1, 0]
    true = np.concatenate([corner, corner + random.uniform(25, 40, (len(owners), 2))], axis=1)
    hit = skill[owners, 0] + 0.5 * random.normal(size=len(owners)) < np.sqrt(1.25) * NORMAL.inv_cdf(chance)
    moved = true + 32 * spread * random.normal(size=true.shape)
    wrong = np.repeat(np.arange(len(there)), random.poisson(false, len(there)))
    at = random.uniform(0, 160, (len(wrong), 2))
    stray = np.concatenate([at, at + random.uniform(20, 45, (len(wrong), 2))], axis=1)
    odds = np.concatenate([1.5 + noise[owners, 0], noise[wrong, 1]])
    keep = np.append(hit, np.ones(len(wrong), np.bool_))
    found = BoxTable(np.append(owners, wrong)[keep], np.concatenate([moved, stray])[keep], metrics.sigmoid(odds)[keep])
    return detection.FindingBoxes.of(found, BoxTable.ground_truth(owners, true), len(there)), patients


def detected(cell: Cell) -> list[Found]:
    """mAP and sensitivity at one false positive per image, of one detector."""
    random, tally, detector = generator(cell), Tally(), DETECTORS[int(cell.area)]
    large = [Cell("single", 8000, cell.area, 1, seed) for seed in range(5)]
    whole = [
        detection.bootstrap_detection([boxes(generator(one), one, detector)[0]], resamples=1, threads=1)
        for one in large
    ]
    for time_ in range(cell.times):
        own, patients = boxes(random, cell, detector)
        if len(own.true):
            values = detection.bootstrap_detection([own], patients, resamples=RESAMPLES, seed=time_, threads=1)
            for title, name in (("mAP", "map"), ("FROC sensitivity at 1 false positive per image", "centre_at_1")):
                truth = np.mean([one[name].value for one in whole])
                tally.add(title, float(truth), values[name].interval(), values[name].resampled)
    return tally.found()


# ---- counting


class Tally:
    """Counts what the intervals hold."""

    def __init__(self) -> None:
        self.counts: dict[tuple[str, str], np.ndarray] = {}

    def add(self, metric: str, truth: np.ndarray | float, interval: Interval, drawn: np.ndarray | None = None) -> None:
        """One interval of each finding."""
        truths = np.broadcast_to(truth, interval.value.shape)
        known = ~np.isnan(interval.low)
        held = known & (interval.low <= truths) & (truths <= interval.high)
        drawn = np.full((1, len(truths)), np.nan) if drawn is None else drawn
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # no resample is defined
            low, high = np.nanquantile(drawn, [0.025, 0.975], axis=0)
        percentile = known & (low <= truths) & (truths <= high)
        for place, one in enumerate(truths.tolist()):
            row = self.counts.setdefault((metric, f"{one:.3f}"), np.zeros(4, np.int64))
            row += [held[place], percentile[place], known[place], not known[place]]

    def found(self) -> list[Found]:
        """One for each metric and true value."""
        return [Found(metric, truth, *row.tolist()) for (metric, truth), row in self.counts.items()]


def generator(cell: Cell) -> np.random.Generator:
    """Of this cell alone."""
    return np.random.default_rng([cell.seed, DESIGNS.index(cell.design), cell.positives, int(1000 * cell.area)])


def part(interval: Interval, kept: slice) -> Interval:
    """Some of the findings."""
    return Interval(*(getattr(interval, name)[kept] for name in ("value", "low", "high", "error")))


# ---- the tables


def cells(
    quick: bool, parts: Sequence[str], designs: Sequence[str], seed: int, sizes: Sequence[int], wanted: int
) -> Iterator[tuple[Callable[[Cell], list[Found]], Cell]]:
    """The long ones first."""
    for positives in reversed(sizes or ((5, 10, 50) if quick else POSITIVES)):
        times = wanted or (40 if quick else 400 if positives < 100 else 200)
        for design in designs:
            for part in parts:
                if part == "rare" and (design != "single" or positives not in RARE_POSITIVES):
                    continue
                for value in GRIDS.get(part, (*AREAS, 0.0)):
                    yield PARTS[part], Cell(design, positives, value, times, seed)


PARTS = {
    "boxes": detected, "findings": classified, "gaps": compared, "rare": rare, "equal": equal, "means": means,
    "pairs": pairs, "scaled": scaled,
}  # fmt: skip
GRIDS: dict[str, Sequence[float]] = {"boxes": range(len(DETECTORS)), "means": ABOVE, "pairs": UNEQUAL}
"""The true values of a part where they are not the AUROCs."""


def work(job: tuple[Callable[[Cell], list[Found]], Cell]) -> tuple[Cell, list[Found]]:
    return job[1], job[0](job[1])


def table(found: dict[tuple[str, str, int], list[Found]], design: str) -> None:
    """Mean and least coverage of each metric at each number of positives."""
    sizes = sorted({size for _, own, size in found if own == design})
    heads = [f"{size} positives" for size in sizes]
    heads.append("coverage of percentile bootstrap intervals for the same numbers of positives")
    print(f"\n{design}\n\n| metric | {' | '.join(heads)} |")
    print("|---" * (len(sizes) + 2) + "|")
    for metric in dict.fromkeys(name for name, own, _ in found if own == design):
        texts, usual = [], []
        for size in sizes:
            rows = found.get((metric, design, size), [])
            shares = [row.held / row.asked for row in rows if row.asked >= 20]
            texts.append(f"{np.mean(shares):.3f} ({min(shares):.3f})"[:16].replace("0.", ".") if shares else "–")
            percentile = [row.percentile / row.asked for row in rows if row.asked]
            usual.append(np.mean(percentile) if percentile else np.nan)
        percentiles = (
            ""
            if "DeLong" in metric or metric.startswith("change")
            else " ".join(f"{each:.2f}".replace("0.", ".").replace("nan", "–") for each in usual)
        )
        print(f"| {metric} | {' | '.join(texts)} | {percentiles} |", flush=True)


def undefined(found: dict[tuple[str, str, int], list[Found]], design: str) -> str:
    """How many AUROCs have no interval, as all positives are of one patient, or there is none; they are not counted."""
    sizes = {
        size: rows
        for (metric, own, size), rows in found.items()
        if metric in ("AUROC", "gap in AUROC, DeLong") and own == design
    }
    sums = {size: [sum(getattr(row, name) for row in rows) for name in ("undefined", "asked")]
            for size, rows in sizes.items()}  # fmt: skip
    return ", ".join(f"{none / (none + asked):.3f} at {size}" for size, (none, asked) in sorted(sums.items()) if none)


def pooled(rows: list[Found]) -> Iterator[Found]:
    """Rates of the same true value at different AUROCs as one."""
    if rows[0].metric not in ("sensitivity", "specificity"):
        yield from rows
        return
    for truth in dict.fromkeys(row.truth for row in rows):
        same = [row for row in rows if row.truth == truth]
        sums = {name: sum(getattr(row, name) for row in same) for name in ("held", "percentile", "asked", "undefined")}
        yield Found(same[0].metric, truth, **sums)


def outside(found: dict[tuple[str, str, int], list[Found]]) -> Iterator[str]:
    """What does not lie where it should, from ten positives on."""
    for (metric, design, size), rows in found.items():
        shares = [(row.held / row.asked, row.truth) for row in rows if row.asked >= 20]
        if size >= 10 and shares:
            mean, (least, truth) = np.mean([share for share, _ in shares]), min(shares)
            if not 0.93 <= mean <= 0.97 or least < 0.9:
                yield f"- {metric}, {design}, {size} positives: mean {mean:.3f}, minimum {least:.3f} at {truth}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer samples of fewer sizes: half a minute")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--designs", nargs="+", choices=DESIGNS, default=DESIGNS)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--positives", nargs="+", type=int, choices=POSITIVES, default=(), help="all of them")
    parser.add_argument("--times", type=int, default=0, help="samples of each true value (by default 40, 200 or 400)")
    options = parser.parse_args()
    start = time.perf_counter()
    found: dict[tuple[str, str, int], list[Found]] = {}
    asked_cells = cells(options.quick, options.parts, options.designs, options.seed, options.positives, options.times)
    with ProcessPoolExecutor(options.processes) as pool:
        for cell, results in pool.map(work, asked_cells):
            for one in results:
                found.setdefault((one.metric, cell.design, cell.positives), []).append(one)
    found = {key: list(pooled(rows)) for key, rows in found.items()}
    order = dict.fromkeys(name for name, _, _ in found)
    found = {key: found[key] for key in sorted(found, key=lambda key: (list(order).index(key[0]), key[2]))}
    for design in options.designs:
        table(found, design)
        print(f"Fraction of AUROCs without an interval: {undefined(found, design) or 'none'}.")
    asked = [row.asked for rows in found.values() for row in rows if row.asked]
    worst = [np.sqrt(0.95 * 0.05 / count) for count in (min(asked), max(asked))]
    print(
        f"\nMonte Carlo standard error for one true value: {worst[1]:.4f} to {worst[0]:.4f}. "
        f"{time.perf_counter() - start:.0f} s."
    )
    print("Outside .93 to .97 on average, or below .90 anywhere, from 10 positives on:")
    print("\n".join(outside(found)) or "- nothing")


if __name__ == "__main__":
    main()
