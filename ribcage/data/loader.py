"""Loader: makes batches from dataset folders and views.

The order is a function of (seed, epoch), each pixel one of (seed, epoch, row, view). So a run does not depend on the
number of threads or ranks, and resumes from just the epoch and step.

  data = Datasets.open(folders)
  loader = Loader(data, [gentle_view(224)], batch=64, rows=data.rows_of("train"))
  for batch in loader.epoch(0): ...
"""

import copy
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import cv2
import numpy as np
import torch

from ribcage.data import sampling
from ribcage.data.batch import Batch, BatchInProgress, BatchMaker
from ribcage.data.block_shuffle import BlockOrder, BlockShuffle
from ribcage.data.collection import Datasets
from ribcage.data.dataset_folder import DatasetFolder
from ribcage.data.label_policy import Policy
from ribcage.data.sampling import SamePatient, Sampler
from ribcage.imaging import augment
from ribcage.imaging.augment import View
from ribcage.runtime.array_pool import ArrayPool
from ribcage.runtime.devices import SideStream
from ribcage.runtime.threads import available_cores

_BLOCK = 1 << 16
"""Rows whose labels are in memory at a time."""


class Loader(BatchMaker):
    """Batches of some rows of one or several dataset folders.

    Args:
        data: the dataset folders.
        views: the augmentations of each image; a batch holds one tensor for each.
        earlier: (end, views) of first stages of training: before epoch `end`, images have these views instead.
        batch: images per step, over all ranks together.
        rows: the rows to load, as numbers or as one truth value per row; None: all.
        findings: the label columns; None: every finding of every dataset. A dataset without a finding gives NaN.
        policy: what uncertain and blank labels and those of several readers become.
        shuffle: a new order in every epoch, of single rows or, with a BlockShuffle, of blocks; False: the order of
            `rows`.
        weights: draw with replacement, by one weight per dataset (its share of a batch) or per row of `rows`.
        together: all views of an image share their random numbers: one image at the sizes of the views.
        labelled: rows whose labels are shown; those of all others are NaN (None: all are shown).
        structures: structures and findings whose masks and points a batch has.
        same_patient: every view but the first shows an image drawn from those of the same patient, itself included.
        drop_last: leave out the last, smaller batch. Ranks may hold unequal shares of that one, even none of it.
        threads: None: one per core, at most eight.
        prefetch: batches made ahead; memory grows with it, not with the threads.
        channels: 3 repeats the gray channel, without a copy.
        normalise: (mean, standard deviation) of pixels in 0 … 1; None: each dataset's own.
        device: on a GPU the stored images are copied there and the views made there.
    """

    def __init__(
        self,
        data: Iterable[DatasetFolder],
        views: Sequence[View],
        *,
        earlier: Sequence[tuple[int, Sequence[View]]] = (),
        batch: int = 64,
        seed: int = 0,
        rows: np.ndarray | None = None,
        findings: Sequence[str] | None = None,
        policy: Policy | str | None = None,
        shuffle: bool | BlockShuffle = True,
        weights: Sequence[float] | np.ndarray | None = None,
        together: bool = False,
        labelled: np.ndarray | None = None,
        structures: Sequence[str] = (),
        same_patient: bool = False,
        drop_last: bool = False,
        threads: int | None = None,
        prefetch: int = 2,
        rank: int = 0,
        world: int = 1,
        channels: int = 1,
        normalise: tuple[float, float] | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        if isinstance(data, DatasetFolder | str) or isinstance(views, View):
            raise ValueError(
                "A Loader takes a list of opened dataset folders and a list of views, such as [ribcage.open(folder)] "
                "and [view]."
            )
        self.data, self.views = Datasets.of(data), tuple(views)
        self.earlier = tuple((end, tuple(shown)) for end, shown in earlier)
        if not all(isinstance(one, DatasetFolder) for one in self.data):
            raise ValueError("A Loader takes a list of opened dataset folders, such as [ribcage.open(folder)].")
        self.batch, self.drop_last, self.prefetch, self.rank, self.world = batch, drop_last, prefetch, rank, world
        self.threads, self.channels = min(available_cores(), 8) if threads is None else threads, channels
        self.rows = sampling.selected_rows(rows, self.data.total)
        self.findings = self.data.findings if findings is None else tuple(findings)
        if problems := _problems(self):
            raise ValueError("; ".join(problems) + ".")
        super().__init__(
            self.data, self.views, seed=seed, findings=self.findings,
            policy=Policy.parse(policy) if isinstance(policy, str) else policy or Policy(),
            together=together, labelled=labelled, structures=structures, threads=self.threads, channels=channels,
            same_patient=SamePatient.of(self.data, self.rows) if same_patient else None,
            normalise=normalise, device=torch.device(device),
        )  # fmt: skip
        drawn = None
        if weights is not None:
            drawn = sampling.weight_per_row(self.data, self.rows, np.asarray(weights, np.float64))
        blocks = BlockOrder(self.data, shuffle, batch) if isinstance(shuffle, BlockShuffle) else None
        self.sampler = Sampler(self.rows, seed, bool(shuffle), drawn, blocks)

    def __len__(self) -> int:
        """Steps in an epoch."""
        return len(self.rows) // self.batch if self.drop_last else -(-len(self.rows) // self.batch)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of an epoch, from step `start` on."""
        if not 0 <= start <= len(self):
            raise ValueError(
                f"The first step must be between 0 and {len(self)}, the number of steps per epoch, not {start}."
            )
        cv2.setNumThreads(1)  # for the whole process: our threads fill the cores
        return self.at(epoch)._batches(epoch, start)

    def at(self, epoch: int) -> "Loader":
        """The loader with the views of an epoch."""
        shown = next((views for end, views in self.earlier if epoch < end), self.views)
        if shown is self.views:
            return self
        found = copy.copy(self)
        found.views, found.earlier = shown, ()
        return found

    def order(self, epoch: int) -> np.ndarray:
        """(N,) int64: the address of each image of an epoch (see `sampling`)."""
        return self.sampler.order(epoch)

    def label_blocks(self, rows: np.ndarray) -> Iterator[np.ndarray]:
        """(n, F) float32: the labels of these rows, of some at a time; all together may not fit into memory."""
        for start in range(0, len(rows), _BLOCK):
            yield self.labels(0, rows[start : start + _BLOCK])

    def boxes(self, epoch: int = 0) -> np.ndarray:
        """(M, 6) float32: the boxes of all images of an epoch in their first view, `n` in the order of the epoch."""
        addresses = self.order(epoch)
        rows, found = sampling.rows_of_addresses(addresses), [np.empty((0, 6), np.float32)]
        sources = self.data.source(rows)
        for source in np.unique(sources).tolist():
            places = np.flatnonzero(sources == source)
            side = self.data[source].size
            numbers = augment.draw_numbers(self.views[0], self.seed, epoch, addresses[places], 0, side)
            moved = augment.move_boxes(self.boxes_of(rows[places], epoch, addresses[places]), numbers)
            moved[:, 0] = places[moved[:, 0].astype(np.int64)]
            found.append(moved)
        return np.concatenate(found)

    def _batches(self, epoch: int, start: int) -> Iterator[Batch]:
        order = self.order(epoch)
        pool = ThreadPoolExecutor(self.threads, thread_name_prefix="ribcage-loader")
        waiting: deque[BatchInProgress] = deque()
        memory = ArrayPool(self.prefetch + 2)
        side = SideStream(self.device) if self.device.type == "cuda" else None
        remote = [place for place, one in enumerate(self.data) if one.images.is_remote and self.cached is None]
        try:
            for step in range(start, len(self)):
                if remote:
                    self._prefetch(remote, order, step)
                waiting.append(BatchInProgress(self, pool, memory, epoch, self._mine(order, step)))
                if len(waiting) > self.prefetch:
                    yield _finished(waiting.popleft(), side)
            while waiting:
                yield _finished(waiting.popleft(), side)
        finally:
            pool.shutdown(cancel_futures=True)
            memory.close()
            for place in remote:
                self.data[place].images.prefetch(np.empty(0, np.int64))

    def _prefetch(self, remote: Sequence[int], order: np.ndarray, step: int) -> None:
        """Announce the next rows of this rank to the folders at remote addresses."""
        end = step * self.batch + self.sampler.ahead * self.world
        rows = sampling.rows_of_addresses(order[step * self.batch : min(end, len(self) * self.batch)])
        share = np.arange(len(rows)) % self.batch * self.world // self.batch  # the rank of each row
        own = self.data.own_rows(rows[share == self.rank])
        for place in remote:
            self.data[place].images.prefetch(own[place])

    def _mine(self, order: np.ndarray, step: int) -> np.ndarray:
        """The addresses of this rank's share of a step."""
        whole = order[step * self.batch : (step + 1) * self.batch]
        return whole[len(whole) * self.rank // self.world : len(whole) * (self.rank + 1) // self.world]


def _finished(making: BatchInProgress, side: SideStream | None) -> Batch:
    """The batch, when its threads are done; on a GPU it is copied and augmented beside the step before it."""
    if side is None:
        return making.result()
    batch, wait = side.run(making.result, Batch.on_gpu)
    return replace(batch, wait=wait)


def _problems(loader: Loader) -> list[str]:
    """All that is wrong with the options."""
    if not loader.data or not loader.views:
        return ["A loader needs at least one dataset and one view"]
    problems = []
    unknown = [name for name in loader.findings if name not in loader.data.findings]
    if unknown:
        problems.append(
            f"No dataset has the findings {', '.join(unknown)}; available are: "
            f"{', '.join(loader.data.findings) or 'none'}"
        )
    if not len(loader.rows):
        problems.append("No row is selected, so there are no images to load")
    elif loader.rows.min() < 0 or loader.rows.max() >= loader.data.total:
        problems.append(
            f"rows must be within 0 … {loader.data.total - 1}, not {loader.rows.min()} … {loader.rows.max()}"
        )
    for name, least in (("batch", 1), ("threads", 1), ("prefetch", 0), ("world", 1)):
        if getattr(loader, name) < least:
            problems.append(f"{name} must be at least {least}, not {getattr(loader, name)}")
    if not problems and loader.batch % loader.world:
        problems.append(f"batch must be a multiple of the number of processes ({loader.world}), not {loader.batch}")
    if not 0 <= loader.rank < max(loader.world, 1):
        problems.append(f"rank must be from 0 to {loader.world - 1}, not {loader.rank}")
    if loader.channels not in (1, 3):
        problems.append(f"channels must be 1 or 3, not {loader.channels}")
    if not problems and not len(loader):
        problems.append(f"{len(loader.rows)} images do not fill a batch of {loader.batch}, and drop_last is set")
    return problems
