"""Pixel files: the file or the shards of an unfinished import, to which images are appended in order.

Each file ends in `.part` and has no header until the import is complete. A part of an import that is divided among
several machines may begin within a shard. Its files have the numbers that they will have in the dataset folder,
provided that no earlier image is rejected, so that a merge can link whole shards instead of copying them.
"""

import contextlib
import io
import itertools
import os
import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ribcage.data.dataset_facts import Facts, Shard
from ribcage.data.image_store import HEADER, IMAGES_FILE, shard_name, shard_sizes
from ribcage.runtime import digest, files

_NAME = re.compile(r"(images|images-\d{5,9})\.npy(\.part)?", re.ASCII)
NOTHING_READY: Mapping[int, Path] = {}


class PixelFiles:
    """The images of an unfinished import on disk."""

    def __init__(
        self, folder: Path, facts: Facts, *, first: int = 0, ready: Mapping[int, Path] = NOTHING_READY
    ) -> None:
        """first: number of the first image within all shards; ready: full shards of parts, which are linked and never
        written or truncated here."""
        self.folder, self.first, self.ready = folder, first, ready
        self.shape, self.dtype = (facts.size, facts.size), np.dtype(f"uint{facts.depth}")
        self.bytes_each = facts.size**2 * self.dtype.itemsize
        self.sharded, self.per_file = bool(facts.images_per_shard), facts.images_per_shard or sys.maxsize
        self.count = 0
        """Number of images so far."""
        self._sealed: dict[int, str] = {}
        """Files that are full and have a header, with their SHA-256."""
        self._number = -1
        self._stream: io.BufferedWriter | None = None

    def file(self, number: int) -> Path:
        """The unfinished file with this number."""
        return self.folder / ((shard_name(number) if self.sharded else IMAGES_FILE) + ".part")

    def take_up(self) -> int:
        """The number of images on disk, from the first to the last before a gap."""
        for file in pixel_files_in(self.folder):
            if file.suffix != ".part":  # killed between the renames at the end: repeat the end
                file.replace(file.with_name(file.name + ".part"))
        found = 0
        for number in itertools.count(self.first // self.per_file):
            start, end = self._range(number)
            file = self.file(number)
            stored = max(0, file.stat().st_size - HEADER) // self.bytes_each if file.exists() else 0
            found += min(stored, end - start)
            if stored < end - start:
                return found
        raise AssertionError

    def cut(self, count: int) -> None:
        """Remove all images after the first `count`, and files of earlier imports."""
        self.close()
        self.count = count
        last = (self.first + count - 1) // self.per_file if count else -1
        kept = {self.file(number) for number in range(self.first // self.per_file, last + 1)}
        for file in pixel_files_in(self.folder):
            if file not in kept:
                file.unlink()
        if count and last not in self.ready:
            _truncate(self.file(last), HEADER + (self.first + count - self._range(last)[0]) * self.bytes_each)

    def append(self, images: np.ndarray) -> None:
        """Write images after the last."""
        for number, place, images_here in self._spans(self.count, len(images)):
            if number in self.ready:
                link_or_copy(self.ready[number], self.file(number))
            else:
                self._open(number).write(images[place : place + images_here].data)
            if self.first + self.count + place + images_here == self._range(number)[1]:
                self._seal(number)
        self.count += len(images)

    def read(self, start: int, count: int) -> np.ndarray:
        """(n, S, S): the images from number `start` on; fewer than `count` if the files are shorter."""
        stored = b""
        for number, _, images_here in self._spans(start, count):
            with contextlib.suppress(FileNotFoundError), files.open_regular(self.file(number), "rb") as stream:
                skipped = max(self.first + start, self._range(number)[0]) - self._range(number)[0]
                stream.seek(HEADER + skipped * self.bytes_each)
                stored += stream.read(images_here * self.bytes_each)
        whole = len(stored) // self.bytes_each
        return np.frombuffer(stored[: whole * self.bytes_each], self.dtype).reshape(whole, *self.shape)

    def whole_shards(self) -> dict[int, Path]:
        """The shards that are full."""
        ends = range(self.first // self.per_file, (self.first + self.count) // self.per_file)
        return {number: self.file(number) for number in ends if self._range(number)[0] == number * self.per_file}

    def sync(self) -> None:
        """Wait until all images are on disk."""
        if self._stream is not None:
            self._stream.flush()
            os.fsync(self._stream.fileno())

    def close(self) -> None:
        """Close the file that is being written."""
        if self._stream is not None:
            self._stream.close()
        self._number, self._stream = -1, None

    def finish(self) -> tuple[Shard, ...]:
        """Write the headers and rename the files; the shards, if the images are divided into shards."""
        sizes = shard_sizes(self.count, self.per_file)
        for number in range(len(sizes)):
            if number not in self._sealed:
                self._seal(number)
            self.file(number).replace(self.file(number).with_suffix(""))
        if not self.sharded:
            return ()
        return tuple(Shard(images, self._sealed[number]) for number, images in enumerate(sizes))

    def _seal(self, number: int) -> None:
        """Write the header of a file to which no image will be added, and hash a shard while its pages are in
        memory."""
        self.sync()
        self.close()
        images = (self.file(number).stat().st_size - HEADER) // self.bytes_each
        with files.open_regular(self.file(number), "r+b") as file:
            file.write(npy_header((images, *self.shape), self.dtype))
        files.sync(self.file(number))
        self._sealed[number] = digest.file_digest(self.file(number)) if self.sharded else ""

    def _range(self, number: int) -> tuple[int, int]:
        """The first image of a file, and the first of the next."""
        return max(number * self.per_file, self.first), (number + 1) * self.per_file

    def _spans(self, start: int, count: int) -> Iterator[tuple[int, int, int]]:
        """(number of the file, place within the `count` images, images) for each file that has some of them."""
        place = 0
        while place < count:
            number, within = divmod(self.first + start + place, self.per_file)
            images = min(self.per_file - within, count - place)
            yield number, place, images
            place += images

    def _open(self, number: int) -> io.BufferedWriter:
        """The file, for appending."""
        if self._stream is None or number != self._number:
            self._number, self._stream = number, files.open_regular(self.file(number), "ab")
            if not self._stream.tell():
                self._stream.write(bytes(HEADER))
        return self._stream


def is_pixel_file(name: str) -> bool:
    """Whether a file of this name in a dataset folder has images, finished or not."""
    return bool(_NAME.fullmatch(name))


def pixel_files_in(folder: Path) -> list[Path]:
    """The files with images, finished or not, of a dataset folder."""
    return sorted(file for file in folder.iterdir() if is_pixel_file(file.name))


def npy_header(shape: tuple[int, ...], dtype: np.dtype[Any]) -> bytes:
    """The first HEADER bytes of a .npy file."""
    text = f"{{'descr': '{dtype.str}', 'fortran_order': False, 'shape': {shape}, }}"
    return b"\x93NUMPY\x01\x00" + (HEADER - 10).to_bytes(2, "little") + text.ljust(HEADER - 11).encode() + b"\n"


def _truncate(file: Path, size: int) -> None:
    """Shorten a file; if a merge has linked it, only under this name."""
    found = file.stat()
    if found.st_size > size:
        if found.st_nlink > 1:
            with files.atomic(file) as part:
                shutil.copyfile(file, part)
        with files.open_regular(file, "r+b") as stream:
            stream.truncate(size)


def link_or_copy(source: Path, target: Path) -> None:
    """Give a file a second name, or copy it where the file system has no hard links."""
    if target.exists():
        return
    try:
        os.link(source, target)
    except OSError:
        with files.atomic(target) as part:
            shutil.copyfile(source, part)
