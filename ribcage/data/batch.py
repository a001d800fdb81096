"""Batch: rows of dataset folders as labels, boxes, masks, points and augmented views.

Every pixel is a function of (seed, epoch, row, view): a batch does not depend on the number of threads. Threads are
used instead of processes: OpenCV and torch release the interpreter lock while they work, and nothing has to be copied.
"""

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from ribcage.data import sampling
from ribcage.data.collection import Datasets, LabelTable
from ribcage.data.label_policy import Policy
from ribcage.data.pixel_check import PixelCheck
from ribcage.data.row_masks import NOT_ANNOTATED, is_known
from ribcage.data.sampling import SamePatient
from ribcage.imaging import augment
from ribcage.imaging.augment import View
from ribcage.runtime import rng
from ribcage.runtime.array_pool import ArrayPool
from ribcage.runtime.devices import GpuWait, on_device
from ribcage.runtime.spelling import did_you_mean

_PIECE = 16  # minimum number of images per task of a thread


@dataclass(frozen=True)
class Batch:
    """N images, each in one or several views."""

    views: list[Tensor]
    """One (N, C, H, W) float32 per view."""
    labels: Tensor
    """(N, F) float32; NaN = unknown."""
    boxes: list[Tensor]
    """One (M, 6) float32 per view: n, finding, x0, y0, x1, y1 in pixels of the view. n is -1 for a box of another
    part of the batch."""
    rows: Tensor
    """(N,) int64, rows of the `Datasets`."""
    sources: Tensor
    """(N,) int64: number of the dataset."""
    patients: Tensor
    """(N,) int64: equal for images of one patient; each unknown patient has a separate number."""
    chance: Tensor
    """(N,) int64 below 2⁶³: a random number for each image and epoch that does not depend on the number of ranks."""
    dropped: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))
    """(N,) int64: number of boxes of each image outside the first view; empty if not counted."""
    maps: list[Tensor] = field(default_factory=list)
    """Cached feature maps of a frozen backbone for the first view; the views then have no channels."""
    targets: Tensor | None = None
    """(N, F): targets of images that were mixed with each other before the batch was divided into micro-batches."""
    masks: list[Tensor] = field(default_factory=list)
    """One (N, K, H, W) uint8 per view, of the K structures of the loader: 1 in the structure, 0 elsewhere, and
    NOT_ANNOTATED (255) in all pixels if the image was not annotated for it; empty if no structures were requested."""
    points: list[Tensor] = field(default_factory=list)
    """One (M, 5) float32 per view: n, structure, number, x, y in pixels of the view; empty as `masks`. n is -1 for a
    point of another part of the batch."""
    wait: GpuWait | None = None
    """On a GPU: how long it had to wait for this batch."""

    def on_gpu(self) -> list[Tensor]:
        """The tensors that a step on a GPU uses."""
        return [*self.views, self.labels, *self.boxes, self.patients, *self.maps, *self.masks, *self.points]

    def __len__(self) -> int:
        return len(self.rows)


class CachedMaps(Protocol):
    """Precomputed feature maps of a frozen backbone."""

    def take(self, rows: np.ndarray, flipped: np.ndarray) -> list[Tensor]:
        """(N, C, h, w) for each map; `flipped` (N,) bool selects those of mirrored images."""


class BatchMaker:
    """Makes batches of given rows; see `Loader` for the arguments."""

    def __init__(
        self,
        data: Datasets,
        views: Sequence[View],
        *,
        seed: int,
        findings: Sequence[str],
        policy: Policy,
        together: bool,
        labelled: np.ndarray | None,
        structures: Sequence[str],
        same_patient: SamePatient | None,
        threads: int,
        channels: int,
        normalise: tuple[float, float] | None,
        device: torch.device,
    ) -> None:
        self.data, self.views, self.seed, self.policy = data, tuple(views), seed, policy
        self.findings, self.together, self.same_patient = tuple(findings), together, same_patient
        self.threads, self.channels, self.normalise, self.device = threads, channels, normalise, device
        self.cached: CachedMaps | None = None
        """If set, no image is loaded: batches have these feature maps of the first view, and its boxes."""
        self.check: PixelCheck | None = None
        """If set, it checks the images when they are first read."""
        self._labels = LabelTable.of(data, self.findings, policy.settled.readers)
        self._boxes = data.boxes(self.findings, policy.readers)
        self._readings = data.readings(self.findings) if policy.readers == "each" else None
        self._known = np.isin(np.arange(data.total), labelled) if labelled is not None else None
        self.request_structures(structures)

    def request_structures(self, structures: Sequence[str]) -> None:
        """Include the masks and points of these structures and findings in the batches; ValueError if there are none of
        one of them."""
        self.structures = tuple(structures)
        known = self.data.structures if structures else ()
        if unknown := [name for name in self.structures if not is_known(name, known)]:
            raise ValueError(
                f"No image has masks or points of {', '.join(unknown)}.{did_you_mean(unknown[0], known)} "
                f"Masks or points are available for: {', '.join(known) or 'nothing'}."
            )
        self._masks = self.data.masks(self.structures, self.policy.readers) if structures else None
        self._points = self.data.points(self.structures) if structures else None

    def labels(self, epoch: int, addresses: np.ndarray) -> np.ndarray:
        """(N, F) float32: labels of these images under the policy."""
        rows = sampling.rows_of_addresses(addresses)
        chance = None
        if self.policy.draws:
            chance = rng.uniform(self.seed, epoch, addresses, rng.LABELS, len(self.findings))
        source, drawn = self._labels.labels(rows), self._drawn(rows, epoch, addresses)
        if self._readings is not None and drawn is not None:
            source[drawn >= 0] = self._readings.labels[drawn[drawn >= 0]]
        known = self.data.targets(rows, source, self.findings, self.policy, chance)
        if self._known is not None:
            known[~self._known[rows]] = np.nan
        return known

    def same_patient_rows(self, epoch: int, addresses: np.ndarray) -> np.ndarray:
        """(N,) int64: for each image the row that its other views show; its own unless `same_patient` is set."""
        rows = sampling.rows_of_addresses(addresses)
        if self.same_patient is None:
            return rows
        return self.same_patient.draw(rows, rng.uniform(self.seed, epoch, addresses, rng.SAME_PATIENT, 1)[:, 0])

    def _drawn(self, rows: np.ndarray, epoch: int, addresses: np.ndarray) -> np.ndarray | None:
        """(N,) int64: with readers=each, the number of the reading of each row in this epoch, -1 if it has none."""
        if self._readings is None:
            return None
        return self._readings.drawn(rows, rng.uniform(self.seed, epoch, addresses, rng.READER, 1)[:, 0])

    def boxes_of(self, rows: np.ndarray, epoch: int, addresses: np.ndarray) -> np.ndarray:
        """(M, 6) ground-truth boxes of these rows in stored pixels, one row per address; none where labels are
        hidden."""
        boxes = self._boxes.of_rows(rows, self._drawn(rows, epoch, addresses))
        return boxes if self._known is None else boxes[self._known[rows[boxes[:, 0].astype(np.int64)]]]

    def masks_of(self, rows: np.ndarray, numbers: augment.Numbers, epoch: int, addresses: np.ndarray) -> np.ndarray:
        """(N, K, H, W) uint8 masks of these rows in a view; not annotated where labels are hidden."""
        assert self._masks is not None
        views = self._masks.views(rows, numbers, rng.uniform(self.seed, epoch, addresses, rng.READER, 1)[:, 0])
        if self._known is not None:
            views[~self._known[rows]] = NOT_ANNOTATED
        return views

    def points_of(self, rows: np.ndarray, numbers: augment.Numbers) -> np.ndarray:
        """(M, 5) points of these rows in a view; none where labels are hidden."""
        if self._points is None:
            return np.empty((0, 5), np.float32)
        points = self._points.views(rows, numbers)
        return points if self._known is None else points[self._known[rows[points[:, 0].astype(np.int64)]]]

    def scale(self, source: int) -> tuple[float, float]:
        """(mean, std) by which images of a dataset are normalised."""
        mean, std = self.normalise or (self.data[source].mean, self.data[source].std)
        return mean, std or 1.0

    def images(self, source: int, rows: np.ndarray) -> list[np.ndarray]:
        """Stored images of a dataset, by its own rows."""
        images = self.data[source].images.read(rows.tolist())
        if self.check is not None:
            self.check(source, rows, images)
        return images


class BatchInProgress:
    """A batch in progress in threads."""

    def __init__(
        self, maker: BatchMaker, pool: ThreadPoolExecutor, memory: ArrayPool, epoch: int, addresses: np.ndarray
    ) -> None:
        self.maker, self.epoch, self.addresses = maker, epoch, addresses
        self.rows = sampling.rows_of_addresses(addresses)
        self.sources, self.others = maker.data.source(self.rows), maker.same_patient_rows(epoch, addresses)
        self.on_device = maker.device.type != "cpu" or maker.cached is not None  # no arrays to write to
        self.memory, self.lock = memory, threading.Lock()
        self.arrays: list[np.ndarray] | None = None
        structures = len(maker.structures)
        self.masks = [
            np.empty((len(addresses), structures, *view.shape), np.uint8) for view in maker.views * bool(structures)
        ]
        by_source = [np.flatnonzero(self.sources == source) for source in np.unique(self.sources)]
        self.stored = [self._stored(places) for places in by_source] if self.on_device and maker.cached is None else []
        self.labels = pool.submit(maker.labels, epoch, addresses)
        self.maps = pool.submit(self._maps, maker.cached) if maker.cached is not None else None
        size = max(_PIECE, -(-len(self.rows) // maker.threads))
        self.pieces = [
            pool.submit(self._piece, number, places[at : at + size], at)
            for number, places in enumerate(by_source)
            for at in range(0, len(places), size)
        ]

    def views(self) -> list[np.ndarray]:
        """One (N, 1, H, W) array per view to write to. They are made when the first thread asks for them: batches that
        no thread has begun yet then need no memory."""
        with self.lock:
            if self.arrays is None:
                shapes = [] if self.on_device else [(len(self.rows), 1, *view.shape) for view in self.maker.views]
                self.arrays = [self.memory.empty(shape) for shape in shapes]
            return self.arrays

    def result(self) -> Batch:
        """Wait for the threads."""
        pieces = [piece.result() for piece in self.pieces]
        tensors = [torch.from_numpy(array) for array in self.views()]
        maker, device, channels = self.maker, self.maker.device, self.maker.channels
        if maker.cached is not None:
            tensors, channels = [torch.empty(len(self.rows), 0, *view.shape) for view in maker.views], 0
        elif self.on_device:
            tensors = self._on_device(pieces)
        return Batch(
            views=[tensor.expand(-1, channels, -1, -1) for tensor in tensors],
            labels=on_device(self.labels.result(), device),
            boxes=[on_device(_joined([piece.boxes[v] for piece in pieces]), device) for v in range(len(maker.views))],
            rows=torch.from_numpy(self.rows),
            sources=torch.from_numpy(self.sources),
            patients=on_device(maker.data.patient_codes_of(self.rows), device),
            chance=torch.from_numpy(rng.whole(maker.seed, self.epoch, self.addresses, rng.METHOD)),
            dropped=torch.from_numpy(self._dropped(pieces)),
            maps=self.maps.result() if self.maps is not None else [],
            masks=[on_device(masks, device) for masks in self.masks],
            points=[on_device(_joined([p.points[v] for p in pieces], 5), device) for v in range(len(self.masks))],
        )

    def _maps(self, cached: CachedMaps) -> list[Tensor]:
        """The cached feature maps of the first view."""
        sides = self.maker.data.sides(self.rows)
        numbers = augment.draw_numbers(self.maker.views[0], self.maker.seed, self.epoch, self.addresses, 0, sides)
        return cached.take(self.rows, numbers.flipped)

    def _dropped(self, pieces: list["_Piece"]) -> np.ndarray:
        """(N,) number of boxes of each image outside its first view."""
        counts = np.zeros(len(self.rows), np.int64)
        for piece in pieces:
            np.add.at(counts, piece.drawn, 1)
            np.subtract.at(counts, piece.boxes[0][:, 0].astype(np.int64), 1)
        return counts

    def _stored(self, places: np.ndarray) -> "_Stored":
        """Pinned memory for the stored images of one dataset, which the threads fill."""
        maker, source = self.maker, int(self.sources[places[0]])
        dataset, pin = maker.data[source], maker.device.type == "cuda"
        count = 1 + (maker.same_patient is not None and len(maker.views) > 1)
        kind, shape = getattr(torch, dataset.dtype.name), (len(places), dataset.size, dataset.size)
        return _Stored(places, source, [torch.empty(shape, dtype=kind, pin_memory=pin) for _ in range(count)])

    def _piece(self, group: int, places: np.ndarray, at: int) -> "_Piece":
        """The images at these places of the batch, all from one dataset, those from place `at` of its group on."""
        maker, source = self.maker, int(self.sources[places[0]])
        dataset, first = maker.data[source], int(maker.data.starts[source])
        own, others, addresses = self.rows[places] - first, self.others[places] - first, self.addresses[places]
        images = maker.images(source, own) if maker.cached is None else []
        shown = [images] * len(maker.views)
        if maker.same_patient is not None and len(maker.views) > 1:
            shown[1:] = [maker.images(source, others)] * (len(maker.views) - 1)
        numbers = [
            augment.draw_numbers(view, maker.seed, self.epoch, addresses, 0 if maker.together else number, dataset.size)
            for number, view in enumerate(maker.views)
        ]
        boxes = [maker.boxes_of(rows[places], self.epoch, addresses) for rows in (self.rows, self.others)]
        moved = [augment.move_boxes(boxes[number > 0], each) for number, each in enumerate(numbers)]
        for each in moved:  # position in the batch instead of in the piece
            each[:, 0] = places[each[:, 0].astype(np.int64)]
        points = self._drawn_structures(places, numbers)
        drawn_on = places[boxes[0][:, 0].astype(np.int64)]
        if maker.cached is not None:
            return _Piece(places, source, moved, drawn_on, points)
        if self.on_device:
            for stack, several in zip(self.stored[group].images, (images, shown[-1]), strict=False):
                np.stack(several, out=stack[at : at + len(places)].numpy())
            return _Piece(places, source, moved, drawn_on, points, numbers)
        for array, several, drawn in zip(self.views(), shown, numbers, strict=True):
            augment.apply_into([array[place, 0] for place in places.tolist()], several, drawn, *maker.scale(source))
        return _Piece(places, source, moved, drawn_on, points)

    def _drawn_structures(self, places: np.ndarray, numbers: Sequence[augment.Numbers]) -> list[np.ndarray]:
        """Fill in the masks of the images at these places, in each view, and return their points.

        Masks are made on the CPU for every device, so that they are equal on all."""
        maker, points = self.maker, []
        for number, masks in enumerate(self.masks):
            rows = (self.others if number else self.rows)[places]
            masks[places] = maker.masks_of(rows, numbers[number], self.epoch, self.addresses[places])
            points.append(maker.points_of(rows, numbers[number]))
            points[-1][:, 0] = places[points[-1][:, 0].astype(np.int64)]
        return points

    def _on_device(self, pieces: list["_Piece"]) -> list[Tensor]:
        """Copy the stored images to the device and compute the views there, one dataset at a time."""
        device, views = self.maker.device, self.maker.views
        batches = [torch.empty((len(self.rows), 1, *view.shape), device=device) for view in views]
        for stored in self.stored:
            own = [piece.numbers for piece in pieces if piece.source == stored.source]
            images = [stack.to(device, non_blocking=True) for stack in stored.images]
            places, scale = on_device(stored.places, device), self.maker.scale(stored.source)
            for number, batch in enumerate(batches):
                numbers = augment.Numbers.join([drawn[number] for drawn in own])
                batch[places] = augment.apply_torch(images[0 if number == 0 else -1], numbers, *scale)
        return batches


@dataclass(frozen=True)
class _Stored:
    """The stored images of a batch that come from one dataset, before they are copied to a GPU."""

    places: np.ndarray
    """(n,) their places in the batch."""
    source: int
    images: list[Tensor]
    """(n, S, S) for the first view and, with same-patient views, another for the other views."""


@dataclass(frozen=True)
class _Piece:
    """Some images of a batch, all from one dataset."""

    places: np.ndarray
    source: int
    boxes: list[np.ndarray]
    drawn: np.ndarray
    """(M,) position in the batch of each ground-truth box's image."""
    points: list[np.ndarray]
    numbers: Sequence[augment.Numbers] = ()
    """On a GPU: the numbers of each view."""


def _joined(boxes: list[np.ndarray], columns: int = 6) -> np.ndarray:
    """The boxes or points of all pieces in the order of the batch."""
    every = np.concatenate([np.empty((0, columns), np.float32), *boxes])
    return every[np.argsort(every[:, 0], kind="stable")]
