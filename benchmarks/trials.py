"""Trials: models trained by Ribcage commands, reused if present; tested with intervals over patients and seeds.

    python -m benchmarks.trials     # the gains in docs/benchmarks.md with corrected intervals

The intervals in those tables were computed with a variance between three seeds that is too small by a third, and with a
normal quantile. This command computes the intervals anew from the gains, their intervals and the SDs over seeds in the
tables, which are rounded to three decimals."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import NormalDist

import numpy as np
from scipy.stats import t

from ribcage import metrics
from ribcage.bundle.io import load_classifier
from ribcage.data.collection import Datasets
from ribcage.inference import predictions
from ribcage.metrics.resampling import Resampled

Tested = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Scores and labels (N, F) and patients (N,) of the tested images."""


def trained(words: Sequence[str]) -> Path:
    """The run folder after `ribcage WORDS`; what is there, from the same words, is kept, what was begun goes on."""
    out, asked = Path(words[words.index("--out") + 1]), "\n".join([*words, recipe(words)])
    note = out / "words.txt"
    if (out / "seconds").exists() and note.read_text(encoding="utf-8") == asked:
        return out
    resume = ["--resume"] if (out / "options.json").exists() else []
    began = time.perf_counter()
    command = [sys.executable, "-m", "ribcage", *words, *resume]
    result = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    if result.returncode:
        raise SystemExit(f"ribcage {' '.join(words)}\n{result.stderr}")
    note.write_text(asked, encoding="utf-8")
    (out / "seconds").write_text(str(time.perf_counter() - began))
    print(f"{out.parent.name}/{out.name}: {words[0]}, {time.perf_counter() - began:.0f} s", flush=True)
    return out


def recipe(words: Sequence[str]) -> str:
    """What stands in the recipe that a command names."""
    return Path(words[words.index("--recipe") + 1]).read_text(encoding="utf-8") if "--recipe" in words else ""


def minutes(out: Path) -> float:
    """How long it was trained."""
    return float((out / "seconds").read_text()) / 60


def tested(folder: Path, data: Datasets, names: Sequence[str], rows: np.ndarray | None = None) -> Tested:
    """A model on the test part, or on these rows."""
    opened, rows = load_classifier(folder), data.rows_of("test") if rows is None else rows
    said = predictions.predict(opened.method, data, rows, model=opened.spec, batch=64, threads=1)
    order = np.argsort(said.rows)
    labels = data.known_labels(said.rows[order], names)
    places = [opened.spec.findings.index(name) for name in names]
    return said.logits[order][:, places], labels, data.table["patient"].to_numpy()[said.rows[order]]


@dataclass(frozen=True)
class OverSeeds:
    """A mean over seeds, or the difference of two. Its variance is that over patients plus, for each mean over several
    seeds, the unbiased variance between seeds divided by their number. Seeds of different models are independent."""

    value: float
    patients: np.ndarray
    """(R,) the mean over seeds in each resample of the patients."""
    seeds: tuple[tuple[float, int], ...] = ()
    """Variance due to the seeds and its degrees of freedom, of each mean over several seeds."""
    resampled: np.ndarray = field(default_factory=lambda: np.empty(0))
    """(R,) the same with the seeds resampled, too; scaled to the variance that stands above."""

    def minus(self, other: "OverSeeds") -> "OverSeeds":
        """The difference on the same resamples of the patients."""
        apart = self.patients - other.patients
        return OverSeeds(self.value - other.value, apart, (*self.seeds, *other.seeds))

    def limits(self) -> tuple[float, float]:
        """95 % limits, from t with the degrees of freedom of Satterthwaite 1946, https://doi.org/10.2307/3002019."""
        return limits(self.value, float(np.nanvar(self.patients, ddof=1)), self.seeds)


def limits(value: float, patients: float, seeds: Sequence[tuple[float, int]]) -> tuple[float, float]:
    """95 % limits of a value with this variance over patients, and these variances due to seeds with their degrees of
    freedom."""
    total = patients + sum(part for part, _ in seeds)
    uncertain = sum(part**2 / degrees for part, degrees in seeds)
    quantile = t.ppf(0.975, total**2 / uncertain) if uncertain else NormalDist().inv_cdf(0.975)
    return value - quantile * np.sqrt(total), value + quantile * np.sqrt(total)


def over_seeds(tests: Sequence[Tested]) -> OverSeeds:
    """The mean AUROC over findings, averaged over seeds."""
    return joined([metrics.bootstrap(*each)["auroc"].macro() for each in tests])


def joined(found: Sequence[Resampled]) -> OverSeeds:
    """The mean over seeds of one number."""
    values = np.array([one.value for one in found]).ravel()
    every = np.stack([one.resampled.ravel() for one in found])  # (seeds, R)
    count, mean = len(values), every.mean(axis=0)
    if count == 1:
        return OverSeeds(float(values[0]), mean, (), mean)
    drawn = np.random.default_rng(0).integers(0, count, every.shape)
    other = np.take_along_axis(every, drawn, axis=0).mean(axis=0)
    resampled = mean + np.sqrt(count / (count - 1)) * (other - mean)
    return OverSeeds(float(values.mean()), mean, ((float(values.var(ddof=1)) / count, count - 1),), resampled)


def shown(found: OverSeeds, sign: str = "") -> str:
    """A number with its interval."""
    return "{0:{3}.3f} ({1:{3}.3f} to {2:{3}.3f})".format(found.value, *found.limits(), sign)


# ---- intervals of the published tables, corrected

SEEDS = 3


@dataclass(frozen=True)
class Published:
    """A line of a table in docs/benchmarks.md: a gain with its percentile interval, and the SDs over seeds."""

    table: int
    """Number of the table in the page."""
    head: str
    """Its first two column headers."""
    line: str
    gain: tuple[float, float, float]
    """Value and limits, from resamples of patients and of three seeds, whose variance is 2/3 of the unbiased one."""
    spreads: tuple[float, float]
    """Standard deviations over seeds of the model and of the one it is compared with."""

    def corrected(self) -> tuple[float, float]:
        """Limits with the unbiased variance between seeds; what remains of the published variance is the patients'."""
        value, low, high = self.gain
        seeds = [(spread**2 / SEEDS, SEEDS - 1) for spread in self.spreads]
        resampled = sum(part for part, _ in seeds) * (SEEDS - 1) / SEEDS
        patients = ((high - low) / 2 / NormalDist().inv_cdf(0.975)) ** 2 - resampled
        return limits(value, max(patients, 0.0), seeds)


def published(text: str) -> Iterator[Published]:
    """The gains of all tables with an SD over seeds. Each is compared with the last line above it without a gain that
    has the same labels or backbone; models of one seed are left out."""
    base: dict[str, float] = {}
    column, alike, table, head = -1, -1, 0, ""
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if "SD over seeds" in cells:
            column, base, head = cells.index("SD over seeds"), {}, " | ".join(cells[:2])
            table += 1
            alike = cells.index("backbone") if cells[0] == "pretraining" else 0
        elif not line.startswith("|"):
            column = -1
        elif column >= 0 and re.fullmatch(r"[\d.]+", cells[column]):
            numbers = [float(one) for one in re.findall(r"[-+][\d.]+", cells[column + 1])]
            if not numbers:
                base[cells[alike]] = float(cells[column])
            else:
                spreads = float(cells[column]), base[cells[alike]]
                yield Published(table, head, " | ".join(cells[:2]), (numbers[0], numbers[1], numbers[2]), spreads)


def spread(tests: Sequence[Tested]) -> float:
    """Standard deviation over seeds."""
    means = [metrics.macro_mean(metrics.auroc(scores, labels)).mean for scores, labels, _ in tests]
    return float(np.std(means, ddof=1)) if len(means) > 1 else float("nan")


def common(data: Datasets, rows: np.ndarray, least: int) -> tuple[str, ...]:
    """Findings that enough of the images show and do not show."""
    names = tuple(dict.fromkeys(name for one in data for name in one.index.findings))
    labels = data.known_labels(rows, names)
    enough = np.minimum((labels == 1).sum(0), (labels == 0).sum(0)) >= least
    return tuple(name for name, keep in zip(names, enough, strict=True) if keep)


def corrected_rows(text: str) -> list[str]:
    """A row for each gain, with its percentile interval and its corrected interval; a header where a table begins."""
    rows, table = [], 0
    for one in published(text):
        if one.table != table:
            table = one.table
            rows.append(f"\n| {one.head} | gain (percentile interval) | corrected interval |\n|---|---|---|---|")
        (value, low, high), (lower, upper) = one.gain, one.corrected()
        rows.append(f"| {one.line} | {value:+.3f} ({low:+.3f} to {high:+.3f}) | {lower:+.3f} to {upper:+.3f} |")
    return rows


def main() -> None:
    """Print each published gain with its corrected interval."""
    text = (Path(__file__).parents[1] / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    print("\n".join(corrected_rows(text)))


if __name__ == "__main__":
    main()
