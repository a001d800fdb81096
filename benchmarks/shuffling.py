"""How well `--shuffle blocks` shuffles: labels of successive batches, and images of one patient in a batch.

    python benchmarks/shuffling.py [--images 112120] [--batch 64]

The images are in the order of their patients, who have 3.6 images on average, as in ChestX-ray14. Three labels are
made up: that of a patient (10 % of the patients), that of 16 hospitals whose images follow each other (every second
hospital), and one that only the first tenth of the images has. For each label, the table shows the standard deviation
of the number of positive images in a batch relative to that of random batches, and the correlation of this number
between successive batches. `in use` is the maximum number of images in blocks that have been begun and not finished.
"""

import argparse

import numpy as np

from ribcage.data.block_shuffle import BlockOrder, BlockShuffle
from ribcage.data.collection import Datasets
from ribcage.runtime import rng

SEEDS = 5


class Rows(Datasets):
    """A folder of which only the number of images is known."""

    def __init__(self, count: int) -> None:
        object.__setattr__(self, "folders", (range(count),))


def line(name: str, shuffle: BlockShuffle | None, count: int, batch: int) -> str:
    """One line of the table: means over several seeds."""
    chance = np.random.default_rng(0)
    patients = np.repeat(np.arange(count), chance.geometric(1 / 3.6, count))[:count]
    rows = np.arange(count)
    labels = [chance.random(count)[patients] < 0.1, rows * 16 // count % 2 == 1, rows < count // 10]
    found = []
    for seed in range(SEEDS):
        order = rng.permutation(seed, 0, count)
        if shuffle is not None:
            order = BlockOrder(Rows(count), shuffle, batch).ordered(seed, 0, rows)
        batches = order[: count // batch * batch].reshape(-1, batch)
        numbers = []
        for label in labels:
            shares, mean = label[batches].mean(axis=1), label.mean()
            numbers += [shares.std() / np.sqrt(mean * (1 - mean) / batch), np.corrcoef(shares[:-1], shares[1:])[0, 1]]
        own = np.sort(patients[batches], axis=1)
        pairs = sum(int((own[:, lag:] == own[:, :-lag]).sum()) for lag in range(1, min(batch, 40)))
        found.append([*numbers, pairs / len(batches), in_use(order, shuffle.rows) if shuffle else count])
    mean = np.mean(found, axis=0)
    ratios = "".join(f"{ratio:>9.2f}{correlation:>7.2f}" for ratio, correlation in mean[:6].reshape(3, 2))
    return f"{name:18}{ratios}{mean[6]:>15.2f}{mean[7]:>10,.0f}"


def in_use(order: np.ndarray, size: int) -> int:
    """The maximum number of images in blocks that have been begun and not finished."""
    blocks = order // size
    first, last = (
        np.unique(blocks, return_index=True)[1],
        len(order) - 1 - np.unique(blocks[::-1], return_index=True)[1],
    )
    change = np.bincount(first, minlength=len(order) + 1) - np.bincount(last + 1, minlength=len(order) + 1)
    return int(np.cumsum(change).max()) * size


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--images", type=int, default=112_120)
    parser.add_argument("--batch", type=int, default=64)
    options = parser.parse_args()
    print(f"{'':18}{'patients':>16}{'hospitals':>16}{'first tenth':>16}{'same patient':>15}{'in use':>10}")
    print(line("rows", None, options.images, options.batch))
    for text in ("blocks", "blocks:512:8", "blocks:512:1", "blocks:2048:4"):
        print(line(text, BlockShuffle.parse(text), options.images, options.batch), flush=True)


if __name__ == "__main__":
    main()
