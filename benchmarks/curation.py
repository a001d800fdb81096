"""Linear probes that are trained on curated and on random subsets of the same size.

    ribcage import phantom --out phantom --images 4000 --size 64
    ribcage pretrain moco --data phantom --model test_resnet --size 64 --epochs 20 --queue 2048 --out moco
    python benchmarks/curation.py phantom moco --shares 0.05 0.1 0.25 --seeds 10

The model computes the features both for the selection and for the probe. For every seed, `ribcage.data.curation`
selects a subset of the training images, and another subset of the same size is drawn at random. Logistic regression is
fitted on each subset and evaluated on the test split (`ribcage.training.probe`). The intervals are 95 % t intervals of
the mean paired difference over the seeds; they do not include the variation due to the test images."""

import argparse
from pathlib import Path

import numpy as np
import torch

from ribcage.bundle.init import initial_backbone
from ribcage.bundle.io import load_bundle
from ribcage.commands.curate import duplicate_groups
from ribcage.data import curation, dataset_folder
from ribcage.data.collection import Datasets
from ribcage.training import probe
from ribcage.training.probe import FeatureTable

T95 = {5: 2.776, 10: 2.262, 20: 2.093}
"""97.5 % quantiles of the t distribution, by number of seeds."""
BALANCES = (0.0, 0.5, 1.0)


def tables(folder: Path, model: Path) -> tuple[list[FeatureTable], np.ndarray]:
    """Features and labels of the three splits, and which training images are no near-duplicates of earlier ones."""
    opened, spec = dataset_folder.open(folder), load_bundle(model).spec
    data, backbone = Datasets.of([opened]), initial_backbone(spec, str(model), 0.0)
    found = []
    for split in ("train", "val", "test"):
        loader = probe.plain_loader(
            data, data.rows_of(split), spec.size, data.findings, channels=spec.channels,
            normalise=(spec.mean, spec.std),
        )  # fmt: skip
        found.append(probe.extract(backbone, loader, torch.device("cpu"), split))
    return found, curation.representatives(duplicate_groups(opened, found[0].rows))


def auroc(parts: list[FeatureTable], chosen: np.ndarray) -> float:
    """Mean test AUROC of a probe that is fitted on the chosen training images."""
    train, val, test = parts
    scores = probe.regressed(train.take(np.flatnonzero(chosen)), val, test)
    return float(np.nanmean(probe.chosen_auroc(scores, val.labels, test.labels)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("--shares", type=float, nargs="+", default=[0.05, 0.1, 0.25])
    parser.add_argument("--seeds", type=int, choices=sorted(T95), default=10)
    asked = parser.parse_args()
    parts, single = tables(asked.data, asked.model)
    train = parts[0]
    print(f"{len(train.rows):,} training images, {(~single).sum():,} near-duplicates; all: AUROC "
          f"{auroc(parts, np.ones(len(single), bool)):.4f}")  # fmt: skip
    print("| share | images | balance | random | curated | difference (95 % interval) |\n|---|---|---|---|---|---|")
    for share in asked.shares:
        count = round(share * len(train.rows))
        rows = [np.random.default_rng(seed).permutation(len(train.rows))[:count] for seed in range(asked.seeds)]
        random = np.array([auroc(parts, np.isin(np.arange(len(train.rows)), each)) for each in rows])
        number = min(curation.MOST, max(curation.LEAST, count // 10))
        clusters = [curation.cluster(train.features, number, seed) for seed in range(asked.seeds)]
        for balance in BALANCES:
            choices = [curation.selected(each, train.labels, count, candidates=single, balance=balance)
                       for each in clusters]  # fmt: skip
            curated = np.array([auroc(parts, chosen) for chosen in choices])
            gain = curated - random
            mean, half = gain.mean(), T95[asked.seeds] * gain.std(ddof=1) / np.sqrt(len(gain))
            print(f"| {share:g} | {count:,} | {balance:g} | {random.mean():.4f} | {curated.mean():.4f} | "
                  f"{mean:+.4f} ({mean - half:+.4f} to {mean + half:+.4f}) |", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
