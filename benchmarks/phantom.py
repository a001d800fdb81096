"""Synthetic radiographs: speed, similarity between patients, and the AUROC of linear models and a small network.

python -m benchmarks.phantom                           speed, distances, linear model against a small network
python -m benchmarks.phantom --sheet docs/phantom.png  only the contact sheet
"""

import argparse
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import nn

from ribcage.data import phantom
from ribcage.data.datasets import phantom as dataset
from ribcage.data.index import Index
from ribcage.imaging import duplicates, fingerprint


def rate(size: int, count: int = 200) -> float:
    """Images per second on one core: the median of five rounds of one thread's own time."""
    draw = dataset.images(dataset.index(images=count), size=size)
    draw(0)
    rounds = []
    for _ in range(5):
        start = time.thread_time()
        for row in range(count):
            draw(row)
        rounds.append(count / (time.thread_time() - start))
    return float(np.median(rounds))


def drawn(table: Index, size: int) -> np.ndarray:
    """(N, size, size) uint8."""
    with ThreadPoolExecutor(2) as pool:
        return np.stack(list(pool.map(dataset.images(table, size=size), range(len(table)))))


def likenesses(count: int) -> None:
    """Print how far the images of different patients are apart, and how many pass for copies."""
    table = dataset.index(images=count)
    images, patients = drawn(table, 256), table.table["patient_number"].to_numpy()
    prints = np.stack([fingerprint.fingerprint(image) for image in images])
    bits = np.unpackbits(prints[:, 0].view(np.uint8), axis=1).astype(np.float32)
    apart = bits @ (1 - bits).T
    apart = (apart + apart.T)[np.triu(patients[:, None] != patients[None], 1)]
    apart = np.minimum(apart, fingerprint.BITS - apart)
    print(f"bits between different patients ({count} images): smallest {apart.min():.0f},", end=" ")
    print(f"0.01 % {np.percentile(apart, 0.01):.0f}, 1 % {np.percentile(apart, 1):.0f}, median {np.median(apart):.0f}")
    print(f"near-copies: {len(duplicates.duplicates_within(prints, images=images.__getitem__))}")


def auroc(score: np.ndarray, label: np.ndarray) -> float:
    """How often a positive scores higher than a negative."""
    order = np.unique(score, return_inverse=True)[1]
    counts = np.bincount(order)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[order]
    positive = label == 1
    n, m = int(positive.sum()), int((~positive).sum())
    return float((ranks[positive].sum() - n * (n + 1) / 2) / (n * m)) if n and m else float("nan")


def interval(score: np.ndarray, label: np.ndarray, patients: np.ndarray) -> tuple[float, float]:
    """95 % of 200 bootstrap samples of patients."""
    chance, names = np.random.default_rng(0), np.unique(patients)
    rows = {name: np.flatnonzero(patients == name) for name in names}
    values = []
    for _ in range(200):
        chosen = np.concatenate([rows[name] for name in chance.choice(names, len(names))])
        values.append(auroc(score[chosen], label[chosen]))
    low, high = np.nanpercentile(values, [2.5, 97.5])
    return float(low), float(high)


def linear(side: int) -> nn.Module:
    """Logistic regression on the pixels of a side×side image."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(side), nn.Flatten(), nn.Linear(side * side, len(phantom.FINDINGS)))


def network() -> nn.Module:
    """Six convolutions, then the mean and the strongest answer of all places."""

    def block(a: int, b: int, step: int) -> nn.Module:
        return nn.Sequential(nn.Conv2d(a, b, 3, step, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU())

    widths, steps = (1, 16, 32, 64, 96, 128, 160), (1, 2, 2, 2, 1, 2)
    blocks = [block(a, b, step) for a, b, step in zip(widths[:-1], widths[1:], steps, strict=True)]
    return nn.Sequential(*blocks, _Pools(), nn.Dropout(0.2), nn.Linear(320, 14))


class _Pools(nn.Module):
    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        return torch.cat([maps.mean((2, 3)), maps.amax((2, 3))], 1)


def scores(
    model: nn.Module, images: torch.Tensor, labels: torch.Tensor, train: np.ndarray, *, epochs: int, decay: float
) -> np.ndarray:
    """Train on the rows of `train`, answer for all."""
    torch.manual_seed(0)
    steps = epochs * (len(train) // 64)
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3, weight_decay=decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    chance = np.random.default_rng(0)
    for _ in range(epochs):
        order = chance.permutation(train)
        for k in range(len(train) // 64):
            rows = order[k * 64 : k * 64 + 64]
            moved = torch.roll(images[rows], (int(chance.integers(-4, 5)), int(chance.integers(-4, 5))), (2, 3))
            truth = labels[rows]
            loss = nn.functional.binary_cross_entropy_with_logits(model(moved), truth.clamp(0, 1), reduction="none")
            loss = loss[truth >= 0].mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    model.eval()
    with torch.no_grad():
        return torch.cat([model(part) for part in images.split(256)]).numpy()


def compare(count: int, size: int, epochs: int) -> None:
    """Print AUROC per finding on patients that were not trained on."""
    table = dataset.index(images=count, lateral=0)
    raw = drawn(table, size)
    patients, split = table.table["patient_number"].to_numpy(), table.table["split"].to_numpy()
    images = torch.from_numpy(raw[:, None].astype(np.float32))
    images = (images - images.mean((2, 3), keepdim=True)) / images.std((2, 3), keepdim=True)
    labels = torch.from_numpy(np.nan_to_num(table.labels, nan=-1.0))
    train, test = np.flatnonzero(split != "test"), np.flatnonzero(split == "test")
    severity = table.table[[f"severity_{name}" for name in phantom.FINDINGS]].to_numpy()[test] > 0
    models = {
        "linear 32": (linear(32), 30, 0.3),
        "linear 64": (linear(64), 30, 0.3),
        "network": (network(), epochs, 0.05),
    }
    answers = {
        name: scores(model, images, labels, train, epochs=rounds, decay=decay)[test]
        for name, (model, rounds, decay) in models.items()
    }
    print(f"{'AUROC on ' + str(len(test)) + ' images':24}" + "".join(f"{name:>22}" for name in answers))
    totals: dict[str, list[float]] = {name: [] for name in answers}
    for k, finding in enumerate(phantom.FINDINGS):
        line = f"{finding:19} {int(severity[:, k].sum()):4}"
        for name, answer in answers.items():
            value, (low, high) = (
                auroc(answer[:, k], severity[:, k]),
                interval(answer[:, k], severity[:, k], patients[test]),
            )
            totals[name].append(value)
            line += f"   {value:.3f} ({low:.3f}–{high:.3f})"
        print(line)
    print(f"{'macro':24}" + "".join(f"{np.nanmean(values):>22.3f}" for values in totals.values()))


def sheet(file: Path, side: int = 160, columns: int = 6, rows: int = 4) -> None:
    """Twenty-four images of different patients, mostly frontal."""
    table = dataset.index(images=400, seed=4)
    first = table.table.drop_duplicates("patient")
    lateral = table.table.index[table.table["view"] == "LATERAL"][:3]
    chosen = [*first.index[: columns * rows - 3], *lateral]
    draw = dataset.images(table, size=side)
    tiles = [draw(row) for row in chosen]
    lines = [np.hstack(tiles[k * columns : (k + 1) * columns]) for k in range(rows)]
    _, data = cv2.imencode(".png", np.vstack(lines), [cv2.IMWRITE_PNG_COMPRESSION, 9])
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data.tobytes())
    print(f"{file}: {len(data) / 1000:.0f} kB")


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sheet", type=Path, help="write a contact sheet here and stop")
    parser.add_argument("--images", type=int, default=4000)
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--epochs", type=int, default=16)
    options = parser.parse_args()
    if options.sheet:
        sheet(options.sheet)
        return
    cv2.setNumThreads(1)
    start = time.process_time()
    dataset.index(images=10_000)
    print(f"index of 10,000 images: {time.process_time() - start:.2f} s")
    for size in (64, 128, 256, 512, 1024):
        print(f"{size:5} px: {rate(size, 200 if size < 512 else 30):6.1f} images/s on one core")
    likenesses(2000)
    compare(options.images, options.size, options.epochs)


if __name__ == "__main__":
    main()
