"""Test results of the PneumoniaMNIST recipe over several seeds.

    python benchmarks/pneumoniamnist.py --data data/pneumoniamnist --out runs/pneumoniamnist [--seeds 5] [--collect]

Trains one run per seed (an interrupted one is resumed), tests it once and prints the table. --collect uses existing
runs and trains nothing. --shift prints instead how often the nearest training image has the same label."""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ribcage import cli
from ribcage.data.collection import Datasets

RECIPE = Path(__file__).parents[1] / "recipes" / "pneumoniamnist-resnet18.toml"
RULES = ("youden", "midpoint", "f1", "specificity_95", "half")
"""How a threshold is chosen, by validation alone; half is 0.5."""
RATES = ("accuracy", "sensitivity", "specificity")
RULE = "midpoint"
"""The recipe's."""


@dataclass(frozen=True)
class Result:
    """One run."""

    seed: int
    validation: float
    """AUROC of the epoch that was kept."""
    auroc: float
    rates: dict[str, dict[str, float]]
    """By rule: accuracy, sensitivity, specificity."""


def train(recipe: Path, data: Path, run: Path, seed: int) -> None:
    """By the recipe; a run that is done is left as it is."""
    words = ["finetune", "--recipe", str(recipe), "--data", str(data), "--out", str(run), "--seed", str(seed)]
    succeed([*words, "--resume"] if run.exists() else words)


def tested(run: Path, data: Path, seed: int) -> Result:
    """The test's numbers; the test is made where it was not yet."""
    folder = run / "test"
    if not (folder / "metrics.json").exists():
        succeed(["evaluate", str(run), "--data", str(data), "--split", "test", "--out", str(folder)])
    found = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    model = json.loads((run / "bundle" / "model.json").read_text(encoding="utf-8"))
    rules = {rule: found["rules"][rule][0] for rule in RULES}
    rates = {rule: {name: one[name]["value"] for name in RATES} for rule, one in rules.items()}
    return Result(seed, model["metrics"]["validation"]["auroc"], found["findings"][0]["auroc"]["value"], rates)


def succeed(words: list[str]) -> None:
    """Run a command, or end with its exit code."""
    code = cli.main(words)
    if code:
        raise SystemExit(code)


def table(results: list[Result]) -> str:
    """A row per seed, then mean and standard deviation; accuracies by each rule, both sides at the recipe's."""
    rates = [f"accuracy, {rule}" for rule in RULES]
    names = ["validation AUROC", "test AUROC", *rates, "sensitivity", "specificity"]
    numbers = np.array([row(result) for result in results])
    lines = [["seed", *names], ["---"] * (len(names) + 1)]
    lines += [[str(one.seed), *cells(values)] for one, values in zip(results, numbers, strict=True)]
    lines.append(["mean", *cells(numbers.mean(axis=0))])
    if len(results) > 1:
        lines.append(["sd", *cells(numbers.std(axis=0, ddof=1))])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def row(result: Result) -> list[float]:
    """The numbers of one line."""
    first = result.rates[RULE]
    accuracies = [result.rates[rule]["accuracy"] for rule in RULES]
    return [result.validation, result.auroc, *accuracies, first["sensitivity"], first["specificity"]]


def cells(numbers: np.ndarray) -> list[str]:
    """As text, without the 0 before the point."""
    return [f"{number:.4f}".removeprefix("0") for number in numbers]


def nearest(data: Path) -> str:
    """For each part and label the share of images whose nearest training image, by correlation, has that label."""
    opened = Datasets.open([str(data)])[0]
    images, splits = np.asarray(opened.images, np.float32), opened.index.table["split"].to_numpy(str)
    labels = opened.index.table[opened.index.findings[0]].to_numpy()
    rows = images.reshape(len(images), -1)
    rows = (rows - rows.mean(axis=1, keepdims=True)) / rows.std(axis=1, keepdims=True)
    known, answers = rows[splits == "train"], labels[splits == "train"]
    lines = []
    for split in ("val", "test"):
        for label, name in enumerate(("normal", opened.index.findings[0])):
            asked = rows[(splits == split) & (labels == label)]
            same = answers[(asked @ known.T).argmax(axis=1)] == label
            lines.append(f"{split} {name}: {same.mean():.1%} of {len(asked)}")
    return "\n".join(lines)


def main() -> None:
    """Train, test, print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/pneumoniamnist"))
    parser.add_argument("--recipe", type=Path, default=RECIPE)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--collect", action="store_true")
    parser.add_argument("--shift", action="store_true")
    options = parser.parse_args()
    if options.shift:
        print(nearest(options.data))
        return
    runs = {seed: options.out / f"seed{seed}" for seed in range(options.seeds)}
    if options.collect:
        runs = {seed: run for seed, run in runs.items() if (run / "test" / "metrics.json").exists()}
    if not runs:
        raise SystemExit(f"{options.out} has no run that was tested. Leave out --collect to train.")
    results = []
    for seed, run in runs.items():
        if not options.collect:
            train(options.recipe, options.data, run, seed)
        results.append(tested(run, options.data, seed))
    print(table(results))


if __name__ == "__main__":
    main()
