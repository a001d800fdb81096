"""Image store: the images of a dataset folder behind one interface, whether they are in one array, in shards, or in
their original files. Every store may be read by several threads at once."""

import threading
import weakref
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ribcage.runtime import files
from ribcage.runtime.remote.cache import CachedFile, CacheFullError

IMAGES_FILE = "images.npy"
"""The images of a folder without shards."""
OPEN_SHARDS = 256
"""Maximum number of shards that are memory-mapped at the same time; each map holds an open file."""
Shape = tuple[int, int, int]


class ImageStore(ABC):
    """(N, S, S) images, which can be indexed like an array."""

    shape: Shape
    dtype: np.dtype[Any]

    @abstractmethod
    def read(self, rows: Sequence[int]) -> list[np.ndarray]:
        """The images of these rows, each of shape (S, S), without a copy where they are memory-mapped."""

    def prefetch(self, rows: np.ndarray) -> None:  # noqa: B027 - a store that is at hand has nothing to do
        """Announce that these rows will be read soon."""

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> np.ndarray:
        """One image by its number, or several stacked, as with an array."""
        chosen = np.arange(len(self))[rows]
        if chosen.ndim == 0:
            return self.read([int(chosen)])[0]
        images = self.read(chosen.tolist())
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

    def __init__(self, file: Callable[[int], Path | CachedFile], each: int, shape: Shape, dtype: np.dtype[Any]) -> None:
        """file: number of a shard → its file, or a copy of it in the cache, which is in use as long as its images."""
        self.shape, self.dtype, self.each, self._file = shape, dtype, each, file
        self._maps: OrderedDict[int, np.ndarray] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, rows: Sequence[int]) -> list[np.ndarray]:
        """The images of these rows, as parts of their memory maps."""
        images = []
        for row in rows:
            number, place = divmod(row, self.each)
            images.append(self._shard(number)[place])
        return images

    def _shard(self, number: int) -> np.ndarray:
        with self._lock:
            if number in self._maps:
                self._maps.move_to_end(number)
                return self._maps[number]
        try:
            images = self._mapped(number)
        except CacheFullError:
            with self._lock:
                self._maps.clear()  # copies of shards whose images are not in use any more can be removed now
            images = self._mapped(number)
        with self._lock:
            self._maps[number] = images
            while len(self._maps) > OPEN_SHARDS:
                self._maps.popitem(last=False)
        return images

    def _mapped(self, number: int) -> np.ndarray:
        file = self._file(number)
        rows = min(self.each, len(self) - number * self.each)
        path = file.path if isinstance(file, CachedFile) else file
        images = open_array(path, (rows, *self.shape[1:]), self.dtype)
        if isinstance(file, CachedFile):
            weakref.finalize(images, file.close)
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
