"""Image store: the images of a dataset folder behind one interface, whether they are in one array, in local or remote
shards, or in their original files. Every store may be read by several threads at once."""

import contextlib
import logging
import threading
import weakref
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from ribcage.runtime import files
from ribcage.runtime.remote import addresses, cache
from ribcage.runtime.remote.cache import CachedFile, CacheFullError

IMAGES_FILE = "images.npy"
"""The images of a folder without shards."""
LARGE_FILE = 100_000_000
"""Bytes of a file whose download takes long."""
OPEN_SHARDS = 256
"""Maximum number of shards that are memory-mapped at the same time; each map holds an open file."""
HEADER = 128
"""Bytes before the pixels of a .npy file that an import writes."""
DOWNLOADS = 8
"""Shards that are downloaded at the same time: one for each lane of block-wise shuffling."""
Shape = tuple[int, int, int]
log = logging.getLogger("ribcage")


class ImageStore(ABC):
    """(N, S, S) images, which can be indexed like an array."""

    shape: Shape
    dtype: np.dtype[Any]

    @abstractmethod
    def read(self, rows: Sequence[int]) -> list[np.ndarray]:
        """The images of these rows, each of shape (S, S), without a copy where they are memory-mapped."""

    @property
    def nbytes(self) -> int:
        """Bytes of all pixels."""
        return self.shape[0] * self.shape[1] * self.shape[2] * self.dtype.itemsize

    @property
    def is_remote(self) -> bool:
        """Whether images are downloaded when they are first read."""
        return False

    def prefetch(self, rows: np.ndarray) -> None:  # noqa: B027 - local images need no preparation
        """Prepare for reading these rows, in this order, if that takes long."""

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> np.ndarray:
        """One image by its number, or several stacked, as with an array."""
        if hasattr(rows, "__index__") and np.ndim(rows) == 0:
            return self.read([range(len(self))[rows]])[0]
        images = self.read(range(len(self))[rows] if isinstance(rows, slice) else np.arange(len(self))[rows].tolist())
        return np.stack(images) if images else np.empty((0, *self.shape[1:]), self.dtype)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """All images in memory."""
        return np.asarray(self[:], dtype)


class ArrayStore(ImageStore):
    """One array, usually memory-mapped."""

    def __init__(self, images: np.ndarray) -> None:
        self.shape, self.dtype = images.shape, images.dtype
        self._images = np.asarray(images)  # a plain array over the same memory: slicing is ten times cheaper

    def read(self, rows: Sequence[int]) -> list[np.ndarray]:
        """The images of these rows, as parts of the array."""
        images = self._images
        return [images[row] for row in rows]


class ShardStore(ImageStore):
    """Several files with `each` images, the last possibly with fewer. A shard is memory-mapped when one of its images
    is read; those that were not read for longest are closed once their last image is no longer used."""

    def __init__(self, file: Callable[[int], Path], each: int, shape: Shape, dtype: np.dtype[Any]) -> None:
        """file: number of a shard → its file."""
        self.shape, self.dtype, self.each, self._file = shape, dtype, each, file
        self._maps: OrderedDict[int, np.ndarray] = OrderedDict()
        self._opening: dict[int, Future[np.ndarray]] = {}
        self._lock = threading.Lock()

    def read(self, rows: Sequence[int]) -> list[np.ndarray]:
        """The images of these rows, as parts of their memory maps."""
        images = []
        for row in rows:
            number, place = divmod(row, self.each)
            images.append(self._shard(number)[place])
        return images

    def _shard(self, number: int) -> np.ndarray:
        """The images of a shard; of several threads that want the same one, the first opens it."""
        with self._lock:
            if number in self._maps:
                self._maps.move_to_end(number)
                return self._maps[number]
            opening = self._opening.get(number)
            if opening is None:
                own = self._opening[number] = Future[np.ndarray]()
        if opening is not None:
            return opening.result()
        try:
            images = self._opened(number)
        except BaseException as error:
            with self._lock:
                del self._opening[number]
            own.set_exception(error)
            raise
        with self._lock:
            self._maps[number] = images
            del self._opening[number]
            while len(self._maps) > OPEN_SHARDS:
                self._maps.popitem(last=False)
        own.set_result(images)
        return images

    def _opened(self, number: int) -> np.ndarray:
        return np.asarray(self._mapped(number, self._file(number)))

    def _mapped(self, number: int, file: Path) -> np.ndarray:
        """The memory map of a shard."""
        rows = min(self.each, len(self) - number * self.each)
        return open_array(file, (rows, *self.shape[1:]), self.dtype)


class RemoteStore(ShardStore):
    """Shards at a remote address, of which local copies are kept in the cache. A copy is in use, and therefore not
    removed, as long as its shard is memory-mapped."""

    def __init__(self, copy: Callable[[int], CachedFile], each: int, shape: Shape, dtype: np.dtype[Any]) -> None:
        """copy: number of a shard → a copy in the cache."""
        super().__init__(lambda number: copy(number).path, each, shape, dtype)
        self._copy = copy
        self._wanted: dict[int, Future[np.ndarray] | None] = {}
        self._pool = ThreadPoolExecutor(DOWNLOADS, thread_name_prefix="ribcage-prefetch")

    @property
    def is_remote(self) -> bool:
        """Yes."""
        return True

    def prefetch(self, rows: np.ndarray) -> None:
        """Download the shards of rows that will be read next, in this order. Downloads of other shards that have not
        begun are cancelled, and the copies of other shards may be removed from the cache."""
        numbers, first = np.unique(rows // self.each, return_index=True)
        chosen = numbers[np.argsort(first)][: self._fitting()].tolist()
        before, self._wanted = self._wanted, {}
        for number in chosen:
            self._wanted[number] = before.pop(number, None) or self._pool.submit(self._shard, number)
        for left in before.values():
            if left is not None:
                left.cancel()

    def _fitting(self) -> int:
        """The number of shards that are downloaded ahead: they take up half of the cache at most."""
        each = self.each * self.shape[1] * self.shape[2] * self.dtype.itemsize
        return max(1, cache.cache_limit() // 2 // each)

    def _opened(self, number: int) -> np.ndarray:
        for kept in (self._wanted, {}):  # if the cache is full, shards that are not wanted soon are closed, then all
            with contextlib.suppress(CacheFullError):
                return self._copied(number)
            with self._lock:
                for other in [other for other in self._maps if other not in kept]:
                    del self._maps[other]
        return self._copied(number)

    def _copied(self, number: int) -> np.ndarray:
        copy = self._copy(number)
        images = self._mapped(number, copy.path)
        weakref.finalize(images, copy.close)
        return np.asarray(images)


class LinkedStore(ImageStore):
    """Images that are decoded from their original files each time."""

    def __init__(self, image: Callable[[int], np.ndarray], shape: Shape, dtype: np.dtype[Any]) -> None:
        """image: row → (S, S) image."""
        self.shape, self.dtype, self._image = shape, dtype, image

    def read(self, rows: Sequence[int]) -> list[np.ndarray]:
        """Decode the images of these rows."""
        return [self._image(row) for row in rows]


def shard_name(number: int) -> str:
    """File name of a shard."""
    return f"images-{number:05d}.npy"


def shard_sizes(images: int, each: int) -> list[int]:
    """The number of images in each shard."""
    return [min(each, images - start) for start in range(0, images, each)]


def warn_of_download(folder: Path, size: int) -> None:
    """Warn if the images of a folder at a remote address are in one large file, which is downloaded before the first
    image can be read."""
    place = addresses.child(folder, IMAGES_FILE) if addresses.is_remote(folder) else ""
    if place and size > LARGE_FILE and not cache.path_of_copy(place).exists():
        log.warning(
            "The images of %s are in one file (%s), which is downloaded as a whole before the first image is read. "
            "Divide them into shards with 'ribcage reshard' to start sooner.",
            addresses.address(folder), files.format_bytes(size),
        )  # fmt: skip


def open_array(file: Path, shape: Shape, dtype: np.dtype[Any]) -> np.ndarray:
    """Memory-map a .npy file, after checking that it has this shape and type."""
    try:
        images: np.ndarray = np.load(files.regular(file), mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise FileNotFoundError(f"{file} is missing. Import the dataset again.") from None
    except OSError:
        raise
    except Exception as error:  # NumPy parses the header as Python source, which fails in many ways
        raise ValueError(f"{file} is damaged ({error}). Import the dataset again.") from None
    if images.shape != shape or images.dtype != dtype:
        raise ValueError(
            f"{file} has type {images.dtype} and shape {images.shape}, but according to dataset.json it should have "
            f"type {dtype} and shape {shape}. Import the dataset again."
        )
    return images
