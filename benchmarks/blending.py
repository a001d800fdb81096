"""Soups and ensembles against their best member, on synthetic radiographs; prints a table of test AUROCs.

    OMP_NUM_THREADS=1 python -m benchmarks.blending --work DIR [--seeds 4] [--first 0] [--images 1500] [--tests 1500]

For each seed, one model is trained from random weights on a first dataset. From its weights, three models are
fine-tuned on a second dataset, with different seeds, learning rates and augmentations. `ribcage blend` combines them;
the best member is the one with the highest AUROC on the validation split, which also selects the members of the greedy
soup. As a control, the weights of models of the first dataset, which have different initial weights, are averaged as
well: those of each seed with those of the next two. All models are tested on a third dataset with other patients.

The confidence intervals are those of the mean over seeds, from a bootstrap over patients and seeds; gains over the best
member are paired within each seed. The runs of a seed that are already in DIR are reused.

Development runs with --first 100 used larger models. The published settings, with a smaller model, were chosen to
reduce the running time and were never run on a development seed. The number of seeds was reduced from six to four for
the same reason, after validation results had been seen, but before any test result was computed."""

import argparse
import contextlib
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import ribcage
from benchmarks import trials
from ribcage import metrics
from ribcage.bundle.spec import ModelSpec
from ribcage.data.collection import Datasets

MEMBERS: tuple[dict[str, Any], ...] = (
    {"lr": 1e-3, "augment": "gentle"},
    {"lr": 5e-4, "augment": "gentle"},
    {"lr": 1e-3, "augment": "strong"},
)
"""Options of the fine-tuned models."""
BLENDS: dict[str, dict[str, Any]] = {
    "soup": {"mean": "weights"},
    "greedy soup": {"mean": "weights", "greedy": True},
    "ensemble": {"mean": "predictions"},
}
BEST, MEAN = "best member", "mean of the members"


@dataclass(frozen=True)
class Macro:
    """The mean AUROC over findings of one model on the test images."""

    value: float
    resampled: np.ndarray
    """(R,) on resamples of the patients, which are the same for all models."""


class Bench:
    """The datasets and the models of a run."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.work = options, options.work / f"{options.images} {options.first}"
        counts = {"first": options.images, "second": options.images, "third": options.tests}
        for place, (name, images) in enumerate(counts.items()):
            if not (self.work / name / "dataset.json").exists():
                seed = options.first + 1000 * place
                ribcage.import_("phantom", out=self.work / name, size=options.size, images=images, seed=seed)
        self.data = Datasets.open([self.work / "third"])
        self.rows = np.arange(self.data.total)
        self.findings = trials.common(self.data, self.rows, options.least)
        self.known: dict[Path, Macro] = {}

    def trained(self, name: str, data: str, **more: Any) -> Path:
        """The run folder of a model."""
        out = self.work / name
        asked = {
            "size": self.options.size,
            "batch": 32,
            "threads": 1,
            "resume": "auto",
            "augment_options": "crop=0.85,1.0",
            **more,
        }
        run = ribcage.finetune(
            data=self.work / data, out=out, model=self.options.model, findings=self.findings, **asked
        )
        assert isinstance(run, Path)
        return run

    def start(self, seed: int) -> Path:
        """A model trained from random weights on the first dataset."""
        return self.trained(f"start {seed}", "first", seed=seed, lr=1e-3, epochs=self.options.start_epochs)

    def member(self, seed: int, number: int) -> Path:
        """A model fine-tuned on the second dataset."""
        init, own = self.start(seed), MEMBERS[number]
        more = {"init": init, "seed": 10 * seed + number, "epochs": self.options.epochs, **own}
        return self.trained(f"member {seed} {number}", "second", **more)

    def blended(self, kind: str, name: str, members: list[Path], data: str) -> Path:
        """The bundle of a blend."""
        out = self.work / f"{name} {kind}"
        if not (out / "model.json").exists():
            ribcage.blend(members, out=out, data=self.work / data, threads=1, **BLENDS[kind])
        return out

    def tested(self, folder: Path) -> Macro:
        """A model on the third dataset."""
        if folder not in self.known:
            scores, labels, patients = trials.tested(folder, self.data, self.findings, self.rows)
            found = metrics.bootstrap(scores, labels, patients)["auroc"].macro()
            self.known[folder] = Macro(float(found.value.ravel()[0]), found.resampled.ravel())
        return self.known[folder]

    def group(self, name: str, members: list[Path], data: str, kinds: Iterable[str] = BLENDS) -> dict[str, Macro]:
        """The members, their best and their blends of these kinds."""
        every = [self.tested(one) for one in members]
        found = {
            MEAN: Macro(
                float(np.mean([one.value for one in every])), np.mean([one.resampled for one in every], axis=0)
            ),
            BEST: every[int(np.argmax([validation(one) for one in members]))],
        }
        return found | {kind: self.tested(self.blended(kind, name, members, data)) for kind in kinds}


def validation(run: Path) -> float:
    """Mean AUROC on the validation split."""
    return float(ModelSpec.load(run / "bundle" / "model.json").metrics["validation"]["auroc"])


def table(groups: list[dict[str, Macro]]) -> None:
    """A row per kind, with its gain over the best member."""
    print("| | macro AUROC (95 %) | SD over seeds | gain over the best member (95 %) | seeds with a gain |")
    print("|---|---|---|---|---|")
    for kind in groups[0]:
        values = [group[kind] for group in groups]
        spread = float(np.std([one.value for one in values], ddof=1)) if len(values) > 1 else float("nan")
        gains = [
            Macro(one.value - group[BEST].value, one.resampled - group[BEST].resampled)
            for one, group in zip(values, groups, strict=True)
        ]
        better = f"{sum(gain.value > 0 for gain in gains)} of {len(gains)}"
        last = ["–", "–"] if kind == BEST else [trials.shown(over_seeds(gains), "+"), better]
        print("| " + " | ".join([kind, trials.shown(over_seeds(values)), f"{spread:.4f}", *last]) + " |")


def over_seeds(values: list[Macro]) -> trials.OverSeeds:
    """The mean over seeds; its variance is that over patients and that between seeds."""
    each, patients = np.array([one.value for one in values]), np.mean([one.resampled for one in values], axis=0)
    seeds = ((float(each.var(ddof=1)) / len(each), len(each) - 1),) if len(each) > 1 else ()
    return trials.OverSeeds(float(each.mean()), patients, seeds)


def main() -> None:
    """Train, blend, test and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--first", type=int, default=0, help="first seed, of the models and of the first dataset")
    parser.add_argument("--images", type=int, default=1500, help="of the first and of the second dataset")
    parser.add_argument("--tests", type=int, default=1500, help="images of the third dataset")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--model", default="resnet10t")
    parser.add_argument("--start-epochs", type=int, default=4)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--least", type=int, default=40, help="least number of positives of a finding")
    options = parser.parse_args()
    torch.set_num_threads(1)
    seeds, began = range(options.first, options.first + options.seeds), time.process_time()
    with contextlib.redirect_stdout(sys.stderr):
        bench = Bench(options)
        tuned = [
            bench.group(f"tuned {seed}", [bench.member(seed, number) for number in range(len(MEMBERS))], "second")
            for seed in seeds
        ]
        starts = {seed: bench.start(seed) for seed in seeds}
        trios = [[seeds[(place + step) % len(seeds)] for step in range(3)] for place in range(len(seeds))]
        apart = [
            bench.group(f"apart {trio}", [starts[seed] for seed in trio], "first", ["soup"])
            for trio in trios
            if len(set(trio)) == len(trio)
        ]
    print(f"{len(bench.rows):,} test images, {len(seeds)} seeds, findings: {', '.join(bench.findings)}")
    print(f"CPU time: {(time.process_time() - began) / 60:.1f} minutes\n\nThe same initial weights:\n")
    table(tuned)
    if apart:
        print("\nDifferent initial weights:\n")
        table(apart)


if __name__ == "__main__":
    main()
