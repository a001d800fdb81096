"""Loader: dataset folders and views become batches, the same ones however they are made.

The order is a function of (seed, epoch), every pixel one of (seed, epoch, row, view). So a run does not depend on the
number of threads or ranks, and to go on where it stopped it needs no more than the epoch and the step.

    data = Datasets.open(folders)
    loader = Loader(data, [gentle_view(224)], batch=64, rows=data.rows_of("train"))
    for batch in loader.epoch(0): ...

Threads, not processes: OpenCV and torch let go of the interpreter while they work, and nothing has to be copied."""

import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol

import cv2
import numpy as np
import torch
from torch import Tensor

from ribcage.data.collection import Datasets
from ribcage.data.dataset_folder import DatasetFolder
from ribcage.data.findings import Policy
from ribcage.imaging import augment
from ribcage.imaging.augment import View
from ribcage.runtime import rng

_ROW_BITS = np.int64(32)
_PIECE = 16  # images that are worth a task of their own


@dataclass(frozen=True)
class Batch:
    """N images, each in one or several views."""

    views: list[Tensor]
    """One (N, C, H, W) float32 per view."""
    labels: Tensor
    """(N, F) float32; NaN where nothing is known."""
    boxes: list[Tensor]
    """One (M, 6) float32 per view: n, finding, x0, y0, x1, y1 in pixels of the view."""
    rows: Tensor
    """(N,) int64, counted through all sets."""
    sources: Tensor
    """(N,) int64: which set."""
    patients: Tensor
    """(N,) int64: equal where the patient is the same; one without a name is equal to nobody."""
    chance: Tensor
    """(N,) int64 below 2⁶³: a number drawn for each image and epoch, the same however many ranks there are."""
    dropped: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))
    """(N,) int64: how many boxes of each image the first view does not show; empty where nobody counted."""
    maps: list[Tensor] = field(default_factory=list)
    """What a frozen backbone made of the first view, where that was kept: its views then have no channels."""

    def __len__(self) -> int:
        return len(self.rows)


class Kept(Protocol):
    """What a frozen backbone makes of images, made before."""

    def take(self, rows: np.ndarray, flipped: np.ndarray) -> list[Tensor]:
        """(N, C, h, w) of each map; `flipped` (N,) bool: those that are left for right."""


class Loader:
    """Batches of some rows of one or several sets.

    Args:
        data: the dataset folders.
        views: what each image is shown as; a batch holds one tensor for each.
        batch: images in a step, over all ranks together.
        rows: those to load, as `data.rows_of` gives them, or one True or False for each; None: all.
        findings: the label columns; None: every finding of every set. A set without one gives NaN.
        policy: what uncertain and blank labels become.
        shuffle: a new order in every epoch; False: the order of `rows`.
        weights: draw with replacement, by one weight per set (its share of a batch) or per row of `rows`.
        together: every view is drawn by the same numbers: one image, at the views' sizes.
        labelled: rows whose labels are known; of all others nothing is (None: all are).
        mates: every view but the first shows an image drawn from all those of the same patient, itself among them.
        drop_last: leave out the last, smaller batch. Ranks may hold unequal parts of that one, even none of it.
        threads: None: one per core, eight at most.
        prefetch: batches made ahead; what is held in memory grows with it, not with the threads.
        channels: 3 repeats the gray one, without a copy.
        normalise: (mean, std) of pixels in 0 … 1; None: each set's own.
        device: on a GPU the stored images are sent there and the views made there.
    """

    def __init__(
        self,
        data: Iterable[DatasetFolder],
        views: Sequence[View],
        *,
        batch: int = 64,
        seed: int = 0,
        rows: np.ndarray | None = None,
        findings: Sequence[str] | None = None,
        policy: Policy | str | None = None,
        shuffle: bool = True,
        weights: Sequence[float] | np.ndarray | None = None,
        together: bool = False,
        labelled: np.ndarray | None = None,
        mates: bool = False,
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
                "A loader takes a list of opened folders and a list of views: [ribcage.open(folder)], [view]."
            )
        self.data, self.views = Datasets.of(data), tuple(views)
        if not all(isinstance(one, DatasetFolder) for one in self.data):
            raise ValueError("A loader takes opened folders: [ribcage.open(folder)].")
        self.batch, self.seed, self.shuffle, self.drop_last = batch, seed, shuffle, drop_last
        self.threads, self.prefetch = min(_cores(), 8) if threads is None else threads, prefetch
        self.rank, self.world, self.channels = rank, world, channels
        self.normalise, self.device = normalise, torch.device(device)
        self.policy = Policy.parse(policy) if isinstance(policy, str) else policy or Policy()
        self.rows = _chosen(rows, self.data.total)
        self.findings = self.data.findings if findings is None else tuple(findings)
        problems = _problems(self)
        if problems:
            raise ValueError("; ".join(problems) + ".")
        self.together = together
        self._labels, self._asked = self.data.source_labels(self.findings), self.data.asked(self.findings)
        self._known = np.isin(np.arange(self.data.total), labelled) if labelled is not None else None
        self._boxes = self.data.boxes(self.findings)
        self.kept: Kept | None = None
        """Where set, no image is loaded: batches have these maps of the first view, and its boxes."""
        self._weights = None if weights is None else self._weight_per_row(np.asarray(weights, np.float64))
        patients = self.data.patient_codes[self.rows]
        self._mates = _Mates.of(self.rows, patients, self.data.source(self.rows)) if mates else None
        self._repeats = weights is not None or len(np.unique(self.rows)) < len(self.rows)

    def __len__(self) -> int:
        """Steps in an epoch."""
        return len(self.rows) // self.batch if self.drop_last else -(-len(self.rows) // self.batch)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of an epoch, from step `start` on."""
        if not 0 <= start <= len(self):
            raise ValueError(f"Step {start} is not in an epoch of {len(self)} steps.")
        cv2.setNumThreads(1)  # for the whole process: the threads are ours, more of them beneath each would only wait
        return self._batches(epoch, start)

    def order(self, epoch: int) -> np.ndarray:
        """(N,) int64: the address of each image of an epoch, its row and, above 32 bits, how often it came before."""
        places = np.arange(len(self.rows))
        if self._weights is not None:
            places = rng.choices(self.seed, epoch, self._weights, len(self.rows))
        elif self.shuffle:
            places = rng.permutation(self.seed, epoch, len(self.rows))
        rows = self.rows[places]
        return rows | _turns(rows) << _ROW_BITS if self._repeats else rows

    def _batches(self, epoch: int, start: int) -> Iterator[Batch]:
        order = self.order(epoch)
        pool = ThreadPoolExecutor(self.threads, thread_name_prefix="ribcage-loader")
        waiting: deque[_Making] = deque()
        try:
            for step in range(start, len(self)):
                waiting.append(_Making(self, pool, epoch, self._mine(order, step)))
                if len(waiting) > self.prefetch:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)

    def _mine(self, order: np.ndarray, step: int) -> np.ndarray:
        """The addresses of this rank's part of a step."""
        whole = order[step * self.batch : (step + 1) * self.batch]
        return whole[len(whole) * self.rank // self.world : len(whole) * (self.rank + 1) // self.world]

    def _weight_per_row(self, weights: np.ndarray) -> np.ndarray:
        if weights.shape == self.rows.shape:
            return weights
        if weights.shape != (len(self.data),):
            raise ValueError(
                f"{weights.size} weights came; expected one per set ({len(self.data)}) or per row ({len(self.rows)})."
            )
        sources = self.data.source(self.rows)
        counts = np.bincount(sources, minlength=len(self.data))
        return (weights / np.maximum(counts, 1))[sources]

    def boxes(self, epoch: int = 0) -> np.ndarray:
        """(M, 6) float32: the boxes of all images of an epoch as the first view shows them, `n` in its order."""
        addresses = self.order(epoch)
        rows, found = addresses & 0xFFFFFFFF, [np.empty((0, 6), np.float32)]
        sources = self.data.source(rows)
        for source in np.unique(sources).tolist():
            places = np.flatnonzero(sources == source)
            side = self.data[source].size
            numbers = augment.draw_numbers(self.views[0], self.seed, epoch, addresses[places], 0, side)
            moved = augment.move_boxes(self._drawn(rows[places]), numbers)
            moved[:, 0] = places[moved[:, 0].astype(np.int64)]
            found.append(moved)
        return np.concatenate(found)

    def _drawn(self, rows: np.ndarray) -> np.ndarray:
        """(M, 6): the boxes of some images in stored pixels; none where no label is known."""
        boxes = self._boxes.of_rows(rows)
        return boxes if self._known is None else boxes[self._known[rows[boxes[:, 0].astype(np.int64)]]]

    def labels(self, epoch: int, addresses: np.ndarray) -> np.ndarray:
        """(N, F) float32: the labels of these images under the policy."""
        rows = addresses & 0xFFFFFFFF
        chance = None
        if self.policy.draws:
            chance = rng.uniform(self.seed, epoch, addresses, rng.LABELS, len(self.findings))
        known = self.policy.apply(self._labels[rows], self.findings, chance)
        known[~self._asked[self.data.source(rows)]] = np.nan  # no policy speaks for a finding nobody looked for
        if self._known is not None:
            known[~self._known[rows]] = np.nan
        return known

    def mates(self, epoch: int, addresses: np.ndarray) -> np.ndarray:
        """(N,) int64: for each image one of the same patient in the same set, drawn among those that are loaded."""
        rows = addresses & 0xFFFFFFFF
        if self._mates is None:
            return rows
        return self._mates.drawn(rows, rng.uniform(self.seed, epoch, addresses, rng.MATES, 1)[:, 0])

    def scale(self, source: int) -> tuple[float, float]:
        """(mean, std) that images of a set are normalised with."""
        mean, std = self.normalise or (self.data[source].mean, self.data[source].std)
        return mean, std or 1.0

    def images(self, source: int, rows: np.ndarray) -> list[np.ndarray]:
        """Stored images of one set, by its own rows."""
        dataset = self.data[source]
        if dataset.images is not None:
            stored = np.asarray(dataset.images)  # a plain array over the same memory: slicing it is ten times cheaper
            return [stored[row] for row in rows.tolist()]
        return [_image(dataset, row) for row in rows.tolist()]


class _Making:
    """A batch while threads work on it."""

    def __init__(self, loader: Loader, pool: ThreadPoolExecutor, epoch: int, addresses: np.ndarray) -> None:
        self.loader, self.epoch, self.addresses = loader, epoch, addresses
        self.rows = addresses & 0xFFFFFFFF
        self.sources, self.mates = loader.data.source(self.rows), loader.mates(epoch, addresses)
        self.on_device = loader.device.type != "cpu" or loader.kept is not None  # no arrays to write to
        shapes = [(len(addresses), 1, *view.shape) for view in loader.views]
        # NumPy asks the system for large pages, torch does not: 15 against 340 microseconds an image
        self.arrays = [] if self.on_device else [np.empty(shape, np.float32) for shape in shapes]
        self.labels = pool.submit(loader.labels, epoch, addresses)
        self.maps = pool.submit(self._maps)
        self.pieces = [pool.submit(self._piece, places) for places in self._split()]

    def result(self) -> Batch:
        """Wait for it."""
        pieces = [piece.result() for piece in self.pieces]
        tensors = [torch.from_numpy(array) for array in self.arrays]
        loader, device, channels = self.loader, self.loader.device, self.loader.channels
        if loader.kept is not None:
            tensors, channels = [torch.empty(len(self.rows), 0, *view.shape) for view in loader.views], 0
        elif self.on_device:
            tensors = self._on_device(pieces)
        return Batch(
            views=[tensor.expand(-1, channels, -1, -1) for tensor in tensors],
            labels=torch.from_numpy(self.labels.result()).to(device),
            boxes=[_joined([piece.boxes[v] for piece in pieces]).to(device) for v in range(len(loader.views))],
            rows=torch.from_numpy(self.rows),
            sources=torch.from_numpy(self.sources),
            patients=torch.from_numpy(loader.data.patient_codes[self.rows]).to(device),
            chance=torch.from_numpy(rng.whole(loader.seed, self.epoch, self.addresses, rng.METHOD)),
            dropped=torch.from_numpy(self._dropped(pieces)),
            maps=self.maps.result(),
        )

    def _maps(self) -> list[Tensor]:
        """Those that were kept."""
        if self.loader.kept is None:
            return []
        sides = self.loader.data.sides(self.rows)
        numbers = augment.draw_numbers(self.loader.views[0], self.loader.seed, self.epoch, self.addresses, 0, sides)
        return self.loader.kept.take(self.rows, numbers.flipped)

    def _dropped(self, pieces: list["_Piece"]) -> np.ndarray:
        """(N,): how many boxes there were less how many the first view shows."""
        counts = np.zeros(len(self.rows), np.int64)
        for piece in pieces:
            np.add.at(counts, piece.drawn, 1)
            np.subtract.at(counts, piece.boxes[0][:, 0].astype(np.int64), 1)
        return counts

    def _split(self) -> list[np.ndarray]:
        """Places in the batch, so many at a time, those of one piece from one set."""
        size = max(_PIECE, -(-len(self.rows) // self.loader.threads))
        if self.on_device and all(dataset.images is not None for dataset in self.loader.data):
            size = max(_PIECE, len(self.rows))  # copying is quick; one launch of the kernels serves all
        by_source = [np.flatnonzero(self.sources == source) for source in np.unique(self.sources)]
        return [places[at : at + size] for places in by_source for at in range(0, len(places), size)]

    def _piece(self, places: np.ndarray) -> "_Piece":
        loader, source = self.loader, int(self.sources[places[0]])
        dataset, first = loader.data[source], int(loader.data.starts[source])
        own, others = self.rows[places] - first, self.mates[places] - first
        images = loader.images(source, own) if loader.kept is None else []
        shown = [images] * len(loader.views)
        if loader._mates is not None and len(loader.views) > 1:
            shown[1:] = [loader.images(source, others)] * (len(loader.views) - 1)
        numbers = [
            augment.draw_numbers(
                view, loader.seed, self.epoch, self.addresses[places], 0 if loader.together else number, dataset.size
            )
            for number, view in enumerate(loader.views)
        ]
        boxes = [loader._drawn(rows[places]) for rows in (self.rows, self.mates)]
        moved = [augment.move_boxes(boxes[number > 0], each) for number, each in enumerate(numbers)]
        for each in moved:  # counted through the batch, not the piece
            each[:, 0] = places[each[:, 0].astype(np.int64)]
        drawn_on = places[boxes[0][:, 0].astype(np.int64)]
        if loader.kept is not None:
            return _Piece(places, source, moved, drawn_on)
        if self.on_device:
            pin = loader.device.type == "cuda"
            stacks = [_stacked(images, pin), *([_stacked(shown[-1], pin)] if shown[-1] is not images else [])]
            return _Piece(places, source, moved, drawn_on, numbers, stacks)
        for array, several, drawn in zip(self.arrays, shown, numbers, strict=True):
            augment.apply_into([array[place, 0] for place in places.tolist()], several, drawn, *loader.scale(source))
        return _Piece(places, source, moved, drawn_on)

    def _on_device(self, pieces: list["_Piece"]) -> list[Tensor]:
        """Send the stored images and make the views there."""
        device = self.loader.device
        shapes = [(len(self.rows), 1, *view.shape) for view in self.loader.views]
        batches = [torch.empty(shape, device=device) for shape in shapes]
        for piece in pieces:
            stacks = [stack.to(device, non_blocking=True) for stack in piece.images]
            places = torch.from_numpy(piece.places).to(device)
            for number, (batch, numbers) in enumerate(zip(batches, piece.numbers, strict=True)):
                shown = stacks[0 if number == 0 else -1]
                batch[places] = augment.apply_torch(shown, numbers, *self.loader.scale(piece.source))
        return batches


@dataclass(frozen=True)
class _Piece:
    """Some images of a batch, all of one set."""

    places: np.ndarray
    source: int
    boxes: list[np.ndarray]
    drawn: np.ndarray
    """(M,): the place in the batch of every box there was."""
    numbers: Sequence[augment.Numbers] = ()
    images: Sequence[Tensor] = ()
    """For a GPU: what the first view shows and, if that is something else, what the others show."""


@dataclass(frozen=True)
class _Mates:
    """Which of the loaded images are of one patient."""

    rows: np.ndarray
    """Those of one patient beside each other."""
    first: np.ndarray
    """Where each patient's begin in `rows`, and the end."""
    ascending: np.ndarray
    """The same rows in their own order."""
    patient: np.ndarray
    """Of each of these: the number of the patient."""

    @classmethod
    def of(cls, rows: np.ndarray, patients: np.ndarray, sources: np.ndarray) -> "_Mates":
        """From the rows that are loaded."""
        order = np.lexsort((rows, patients, sources))
        new = np.diff(patients[order], prepend=patients.min() - 1) != 0
        new |= np.diff(sources[order], prepend=-1) != 0
        place = np.argsort(rows[order], kind="stable")
        return cls(rows[order], np.append(np.flatnonzero(new), len(rows)), np.sort(rows), (np.cumsum(new) - 1)[place])

    def drawn(self, rows: np.ndarray, chance: np.ndarray) -> np.ndarray:
        """One row of the patient of each row; chance in [0, 1)."""
        patient = self.patient[np.searchsorted(self.ascending, rows)]
        first, end = self.first[patient], self.first[patient + 1]
        return self.rows[first + (chance * (end - first)).astype(np.int64)]


def _image(dataset: DatasetFolder, row: int) -> np.ndarray:
    try:
        return dataset.image(row)
    except Exception as error:
        raise ValueError(f"Image {row} of {dataset.folder}, {dataset.index.file(row)}: {error}") from error


def _stacked(images: list[np.ndarray], pin: bool) -> Tensor:
    """(N, S, S) in memory that a GPU may read by itself."""
    kind = getattr(torch, images[0].dtype.name)
    stack = torch.empty((len(images), *images[0].shape), dtype=kind, pin_memory=pin)
    np.stack(images, out=stack.numpy())
    return stack


def _joined(boxes: list[np.ndarray]) -> Tensor:
    """The boxes of all pieces in the order of the batch."""
    every = np.concatenate([np.empty((0, 6), np.float32), *boxes])
    return torch.from_numpy(every[np.argsort(every[:, 0], kind="stable")])


def _turns(rows: np.ndarray) -> np.ndarray:
    """(N,) int64: how often each row stood further in front."""
    order = np.argsort(rows, kind="stable")
    ordered = rows[order]
    places = np.arange(len(rows))
    first = np.maximum.accumulate(np.where(np.diff(ordered, prepend=-1) > 0, places, 0))
    turns = np.empty_like(rows)
    turns[order] = places - first
    return turns


def _chosen(rows: np.ndarray | None, count: int) -> np.ndarray:
    """The rows to load as numbers."""
    if rows is None:
        return np.arange(count)
    chosen = np.asarray(rows)
    if chosen.dtype == bool:
        if len(chosen) != count:
            raise ValueError(f"rows holds {len(chosen):,} truth values for {count:,} images.")
        return np.flatnonzero(chosen)
    if len(chosen) and not np.issubdtype(chosen.dtype, np.integer):
        raise ValueError(f"rows are whole numbers or truth values, not {chosen.dtype}.")
    return chosen.astype(np.int64)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _problems(loader: Loader) -> list[str]:
    """All that is wrong with the options."""
    if not loader.data or not loader.views:
        return ["A loader needs at least one set and one view"]
    problems = []
    unknown = [name for name in loader.findings if name not in loader.data.findings]
    if unknown:
        problems.append(
            f"No set has {', '.join(unknown)}; there are {', '.join(loader.data.findings) or 'no findings'}"
        )
    if not len(loader.rows):
        problems.append("There is no image to load: no row was chosen")
    elif loader.rows.min() < 0 or loader.rows.max() >= loader.data.total:
        problems.append(f"Rows are {loader.rows.min()} … {loader.rows.max()}; there are 0 … {loader.data.total - 1}")
    for name, least in (("batch", 1), ("threads", 1), ("prefetch", 0), ("world", 1)):
        if getattr(loader, name) < least:
            problems.append(f"{name} is {getattr(loader, name)}; at least {least}")
    if not problems and loader.batch % loader.world:
        problems.append(f"A batch of {loader.batch} cannot be shared by {loader.world} ranks; choose a multiple")
    if not 0 <= loader.rank < max(loader.world, 1):
        problems.append(f"rank is {loader.rank}; from 0 to {loader.world - 1}")
    if loader.channels not in (1, 3):
        problems.append(f"channels is {loader.channels}; 1 or 3")
    if not problems and not len(loader):
        problems.append(f"{len(loader.rows)} images do not fill a batch of {loader.batch}, and drop_last is set")
    return problems
