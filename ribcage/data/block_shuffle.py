"""Block-wise shuffling: an order of the images in which storage is read in blocks of consecutive images.

In every epoch, the blocks are permuted and divided into a fixed number of lanes of equal length. Within a lane, images
are shuffled among some consecutive blocks at a time (a window). Each batch has an equal share of images from every
lane, so processes, which load consecutive shares of a batch, read different blocks. Every image occurs once per epoch.

The order is a function of the options, the seed, the epoch, the batch size and the numbers of the rows. It does not
depend on the number of processes, on where the images are stored, or on the size of the shards.
"""

from dataclasses import dataclass

import numpy as np

from ribcage.data.collection import Datasets
from ribcage.runtime import rng

LANES = 8
"""Number of places of the data from which every batch is taken."""


@dataclass(frozen=True)
class BlockShuffle:
    """Sizes of block-wise shuffling."""

    rows: int = 512
    """Consecutive images of a dataset folder that form a block."""
    window: int = 4
    """Blocks among which images are shuffled, in each lane."""

    @property
    def ahead(self) -> int:
        """Number of images of a process within which two of its lanes begin a new window."""
        return 2 * self.rows * self.window

    @classmethod
    def parse(cls, text: str) -> "BlockShuffle | None":
        """From `rows` (None), `blocks`, `blocks:ROWS` or `blocks:ROWS:WINDOW`."""
        kind, *sizes = text.split(":")
        if text == "rows":
            return None
        if (
            kind != "blocks"
            or len(sizes) > 2
            or not all(size.isascii() and size.isdecimal() and 0 < int(size) < 1 << 31 for size in sizes)
        ):
            raise ValueError(
                f"--shuffle {text!r} must be rows, blocks, blocks:ROWS or blocks:ROWS:WINDOW, such as "
                f"blocks:{cls.rows}:{cls.window}"
            )
        return cls(*map(int, sizes))


@dataclass(frozen=True)
class BlockOrder:
    """Block-wise shuffling of batches of dataset folders."""

    data: Datasets
    shuffle: BlockShuffle
    batch: int

    def ordered(self, seed: int, epoch: int, rows: np.ndarray) -> np.ndarray:
        """(N,) int64: the rows, which may occur several times, in the order of an epoch."""
        rows = np.sort(rows)
        blocks = self.numbers(rows)
        first = np.flatnonzero(np.diff(blocks, prepend=-1))
        count = np.diff(first, append=len(rows))
        chosen = rng.permutation(seed, epoch, len(first), rng.BLOCKS)
        first, count = first[chosen], count[chosen]
        rows = rows[np.repeat(first - (np.cumsum(count) - count), count) + np.arange(len(rows))]
        window = max(1, round(self.shuffle.window * len(rows) / max(len(first), 1)))  # in images
        lanes = lane_sizes(len(rows), self.batch)
        rows = rows[rng.permutation_within(seed, epoch, _windows(lanes, window), rng.WITHIN)]
        return _interleaved(rows, lanes, self.batch)

    def numbers(self, rows: np.ndarray) -> np.ndarray:
        """(N,) int64: the number of each row's block; no block spans two folders."""
        starts, sources = self.data.starts, self.data.source(rows)
        counts = -(-np.diff(starts) // self.shuffle.rows)
        return (np.cumsum(counts) - counts)[sources] + (rows - starts[sources]) // self.shuffle.rows


def lane_sizes(count: int, batch: int) -> np.ndarray:
    """(LANES,) int64: the number of images of each lane in an epoch of `count` images."""
    return count // batch * np.diff(_edges(batch)) + np.diff(_edges(count % batch))


def _edges(images: int) -> np.ndarray:
    """(LANES + 1,) int64: where the shares of the lanes begin in a batch of so many images, and its end."""
    return -(-np.arange(LANES + 1) * images // LANES)


def _windows(lanes: np.ndarray, window: int) -> np.ndarray:
    """The number of images in each window, lane by lane. The first windows have different sizes, so that the lanes
    begin new windows, for which images have to be fetched, at different times."""
    sizes = []
    for lane, count in enumerate(lanes.tolist()):
        starts = np.arange(window * (lane + 1) // LANES, count, window)
        sizes.append(np.diff(starts[starts > 0], prepend=0, append=count))
    return np.concatenate(sizes)


def _interleaved(rows: np.ndarray, lanes: np.ndarray, batch: int) -> np.ndarray:
    """The images of all lanes in the order of the batches."""
    steps, rest = divmod(len(rows), batch)
    order = np.empty_like(rows)
    whole, last = order[: steps * batch].reshape(steps, batch), order[steps * batch :]
    ends = np.cumsum(lanes)
    for lane, (end, count) in enumerate(zip(ends.tolist(), lanes.tolist(), strict=True)):
        own = rows[end - count : end]
        first, after = _edges(batch)[lane : lane + 2].tolist()
        whole[:, first:after] = own[: steps * (after - first)].reshape(steps, after - first)
        start, stop = _edges(rest)[lane : lane + 2].tolist()
        last[start:stop] = own[steps * (after - first) :]
    return order
