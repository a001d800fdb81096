"""Gain from pretraining: linear probe and fine-tuning with few labels, compared with random weights.

    python -m benchmarks.pretraining --work DIR [--jobs 2] [--seeds 3] [--images 5000] [--methods moco mae …]
    python -m benchmarks.pretraining --work DIR --data FOLDER --folds 5 [--times 4]

Every method is trained by `ribcage pretrain METHOD --recipe small-METHOD` on the train split of synthetic
radiographs (or of FOLDER). Then logistic regression on its frozen features is trained on all training patients,
with the regularisation chosen on validation; and `ribcage finetune` trains the whole network with the labels of a few
patients. Both are tested on the test split. With --folds, the patients of validation and test are assigned to folds
instead, and the probe is tested on each fold in turn: for data whose training labels differ from the others. 32 × 32
gray pixels serve as baseline features. Intervals are of the mean over seeds, by a bootstrap over patients and seeds;
differences are paired. Results of the same command and recipe that are already in DIR are reused.
"""

import argparse
import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import trials
from ribcage import metrics
from ribcage.bundle.io import load_bundle
from ribcage.bundle.spec import ModelSpec
from ribcage.data.collection import Datasets
from ribcage.data.loader import Loader
from ribcage.models.backbone import Backbone
from ribcage.runtime import recipe
from ribcage.training import probe as probing

METHODS = ("supervised", "supcon", "moco", "byol", "swav", "mae_unet", "mocov3", "mae")
VARIANTS = {"mae --decode-ratio 0.25": ("mae", ["--decode-ratio", "0.25"])}
"""Which method with which options: probed, not fine-tuned. Named by --methods only."""
LAYER_DECAY = 0.75
"""Of fine-tuned transformers, random and pretrained ones: better for both in the development run."""
RANDOM = {"random CNN": "supervised", "random ViT": "mae"}
"""Networks that learnt nothing, and the recipe whose architecture they have."""
PIXELS, SIDE = "pixels", 32
"""No network at all, and the side of the images it is asked about."""


@dataclass(frozen=True)
class Subject:
    """A pretraining with a seed, or none."""

    name: str
    seed: int
    work: Path

    @property
    def recipe(self) -> dict[str, Any]:
        """The small recipe of the method."""
        return tomllib.loads(self.file.read_text(encoding="utf-8"))

    @property
    def method(self) -> str:
        return VARIANTS.get(self.name, (RANDOM.get(self.name, self.name), []))[0]

    @property
    def file(self) -> Path:
        return recipe.recipe_file(f"small-{self.method}")

    @property
    def random(self) -> bool:
        return self.name in RANDOM

    @property
    def pretrained(self) -> Path:
        return self.work / f"{self.name} {self.seed}" / "pretrained"

    def tuned(self, labels: float) -> Path:
        return self.work / f"{self.name} {self.seed}" / f"tuned {labels:g}"


# ---- learning


def commands(subject: Subject, options: argparse.Namespace) -> list[list[str]]:
    """What has to be run for a subject."""
    data, size = str(options.data), [str(side) for side in subject.recipe["size"]]
    once = ["--data", data, "--threads", "1", "--seed", str(subject.seed)]
    asked = []
    if not subject.random:
        recipe = ["--recipe", str(subject.file), "--out", str(subject.pretrained)]
        recipe += ["--epochs", str(subject.recipe["epochs"] * options.times)] if options.times > 1 else []
        asked.append(["pretrain", subject.method, *recipe, *VARIANTS.get(subject.name, ("", []))[1], *once])
    how = ["--size", *size, "--epochs", str(options.tune_epochs), "--batch", "32", "--lr", "1e-3"]
    how += ["--validate-every", "3", "--pool", pool(subject)]
    how += ["--layer-decay", str(LAYER_DECAY)] if "vit" in subject.recipe["model"] else []
    init = [] if subject.random else ["--init", str(subject.pretrained)]
    for share in options.labels if options.folds == 0 and subject.name not in VARIANTS else ():
        out = ["--out", str(subject.tuned(share)), "--labels", str(share)]
        asked.append(["finetune", "--model", subject.recipe["model"], *init, *how, *out, *once])
    return [flattened(words) for words in asked]


def pool(subject: Subject) -> str:
    """As the pretrained ones pool."""
    return "avg" if "vit" in subject.recipe["model"] else ""


def learn(subject: Subject, options: argparse.Namespace) -> None:
    """Run the commands one after the other."""
    for words in commands(subject, options):
        trials.trained(words)


def flattened(words: list[str]) -> list[str]:
    """An option with an empty value as one word."""
    kept = list(words)
    while "" in kept:
        at = kept.index("")
        kept[at - 1 : at + 1] = [f"{kept[at - 1]}="]
    return kept


# ---- testing


def backbone(subject: Subject, data: Datasets) -> tuple[Backbone, ModelSpec]:
    """The network to ask, and how its images are prepared."""
    if not subject.random:
        opened = load_bundle(subject.pretrained)
        return opened.network("be probed").backbone, opened.spec
    torch.manual_seed(subject.seed)
    side = subject.recipe["size"][0]
    built = Backbone(subject.recipe["model"], size=(side, side), pool=pool(subject))
    first = data[0]
    facts = ModelSpec(
        subject.recipe["model"], (), (side, side), first.size, first.facts.fit, first.mean, first.std,
        pool=pool(subject),
    )  # fmt: skip
    return built, facts


def features(
    subject: Subject, data: Datasets, names: Sequence[str], *parts: Sequence[str]
) -> list[probing.FeatureTable]:
    """Of the images of some splits."""
    several = [data.rows_of(*splits) for splits in parts]
    if subject.name == PIXELS:
        return [pixels(probing.plain_loader(data, rows, (SIDE, SIDE), names, batch=64, threads=1)) for rows in several]
    built, facts = backbone(subject, data)
    show = partial(probing.plain_loader, data, size=facts.size, findings=names, batch=64, threads=1)
    scale = (facts.mean, facts.std)
    learnt = data.rows_of("train")
    settled(built, show(rows=learnt[:: max(1, len(learnt) // 1024)], normalise=scale))
    return [probing.extract(built, show(rows=rows, normalise=scale), torch.device("cpu")) for rows in several]


def pixels(loader: Loader) -> probing.FeatureTable:
    """No features, but the images themselves."""
    seen = np.concatenate([batch.views[0].flatten(1).numpy() for batch in loader.epoch(0)])
    return probing.FeatureTable(seen, loader.labels(0, loader.rows), loader.rows)


@torch.no_grad()
def settled(network: Backbone, loader: Loader) -> None:
    """Let batch norms take their statistics from training images as they are shown to the probe.

    Those of random weights have none yet, those of mae_unet are of blackened images, those of contrastive methods of
    augmented ones: with them a probe would read the norms rather than the weights.
    """
    for norm in network.modules():
        if isinstance(norm, torch.nn.modules.batchnorm._BatchNorm):
            norm.reset_running_stats()
            norm.momentum = None  # the mean over all batches
    network.train()
    for batch in loader.epoch(0):
        network(batch.views[0])
    network.eval()


Split = tuple[probing.FeatureTable, probing.FeatureTable, probing.FeatureTable]
"""Images to learn from, to choose by and to test on."""


def probed(splits: Sequence[Split]) -> list[np.ndarray]:
    """Logits (N, F) of the tested images of each split, with the strength best on average for those that choose."""
    answers = [probing.regressed(*split) for split in splits]
    chosen = [
        [metrics.macro_mean(metrics.auroc(scores, split[1].labels)).mean for scores, _ in several]
        for several, split in zip(answers, splits, strict=True)
    ]
    best = int(np.nanargmax(np.nanmean(chosen, axis=0)))
    return [several[best][1] for several in answers]


def probe(subject: Subject, data: Datasets, names: Sequence[str], folds: int) -> trials.Tested:
    """The linear probe on the test part, or on every fold of validation and test part."""
    people = data.table["patient"].to_numpy()
    if not folds:
        learning, choosing, tested = features(subject, data, names, ["train"], ["val"], ["test"])
        return probed([(learning, choosing, tested)])[0], tested.labels, people[tested.rows]
    (part,) = features(subject, data, names, ["val", "test"])
    fold = np.unique(people[part.rows], return_inverse=True)[1] % folds
    splits = []
    for number in range(folds):
        chooses, tests = fold == (number + 1) % folds, fold == number
        kept = [part.take(np.flatnonzero(which)) for which in (~chooses & ~tests, chooses, tests)]
        splits.append((kept[0], kept[1], kept[2]))
    scores = np.empty(part.labels.shape)
    for number, logits in enumerate(probed(splits)):  # ranks within a fold: its own probe has a scale of its own
        scores[fold == number] = (logits.argsort(0).argsort(0) + 0.5) / len(logits)
    return scores, part.labels, people[part.rows]


def tested_with(share: float, subject: Subject, data: Datasets, names: Sequence[str]) -> trials.Tested:
    """What a subject came to with so many labels."""
    return trials.tested(subject.tuned(share), data, names)


# ---- the table


def table(subjects: dict[str, list[Subject]], test: Callable[[Subject], trials.Tested], title: str) -> None:
    """One line per method, beside the random network of its kind."""
    tests = {name: [test(subject) for subject in several] for name, several in subjects.items()}
    found = {name: trials.over_seeds(each) for name, each in tests.items()}
    print(f"\n{title}\n")
    print("| pretraining | backbone | macro AUROC (95 %) | SD over seeds | gain over random weights (95 %) |")
    print("|---|---|---|---|---|")
    for name, several in subjects.items():
        if name == PIXELS:
            print(f"| {SIDE} × {SIDE} pixels | – | {trials.shown(found[name])} | – | – |")
            continue
        model = several[0].recipe["model"]
        base = next(each for each, recipe in RANDOM.items() if model == Subject(each, 0, Path()).recipe["model"])
        gain = "–" if name == base else trials.shown(found[name].minus(found[base]), "+")
        print(
            f"| {name} | {model} | {trials.shown(found[name])} | {trials.spread(tests[name]):.3f} | {gain} |",
            flush=True,
        )


def main() -> None:
    """Learn, test, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--methods", nargs="*", default=METHODS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--labels", type=float, nargs="*", default=[0.1])
    parser.add_argument("--tune-epochs", type=int, default=30)
    parser.add_argument("--folds", type=int, default=0)
    parser.add_argument("--times", type=int, default=1, help="as many epochs as the recipes have")
    parser.add_argument("--least", type=int, default=20, help="of positives, for a finding to be asked for")
    options = parser.parse_args()
    if 0 < options.folds < 3:
        parser.error("--folds takes 3 or more: one is tested, one chooses, the rest is learnt from")
    if options.data is None:
        options.data = options.work / "phantom"
        made = ["--out", str(options.data), "--images", str(options.images), "--size", "128"]
        subprocess.run([sys.executable, "-m", "ribcage", "import", "phantom", *made], check=True)
    data = Datasets.open([options.data])
    names = [*RANDOM, *options.methods]
    subjects = {name: [Subject(name, seed, options.work) for seed in range(options.seeds)] for name in names}
    turns = [subjects[name][seed] for seed in range(options.seeds) for name in names]
    with ThreadPoolExecutor(options.jobs) as workers:
        list(workers.map(lambda one: learn(one, options), turns))
    torch.set_num_threads(options.jobs)
    parts = ("val", "test") if options.folds else ("test",)
    asked = trials.common(data, data.rows_of(*parts), options.least)
    learnt = len(data.rows_of("train"))
    print(f"{learnt:,} images to pretrain on, {options.seeds} seeds, findings: {', '.join(asked)}")
    probed_too = {PIXELS: [Subject(PIXELS, 0, options.work)], **subjects}
    table(probed_too, lambda one: probe(one, data, asked, options.folds), "Linear probe")
    tuned_too = {name: several for name, several in subjects.items() if name not in VARIANTS}
    for share in options.labels if not options.folds else ():
        title = f"Fine-tuned with the labels of {share:.0%} of the training patients"
        table(tuned_too, partial(tested_with, share, data=data, names=asked), title)
    minutes = {
        name: np.mean([trials.minutes(one.pretrained) for one in several])
        for name, several in subjects.items()
        if not several[0].random
    }
    print(
        "\nMinutes of pretraining on one core: " + ", ".join(f"{name} {value:.1f}" for name, value in minutes.items())
    )
    print(json.dumps({"torch": torch.__version__, "jobs": options.jobs}))


if __name__ == "__main__":
    main()
