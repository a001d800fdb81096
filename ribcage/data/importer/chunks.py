"""Chunks: the images of consecutive rows, read and made square, with the line of the journal that describes them."""

import hashlib
import platform
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np

from ribcage.data import dataset_facts, dataset_folder
from ribcage.data.importer import mask_files, tables
from ribcage.data.importer.box_check import BoxCheck
from ribcage.data.index import Index
from ribcage.imaging import image_file
from ribcage.runtime.remote import addresses, objects

State = list[int] | None
"""Size and modification time of one or several files; None if one does not exist."""


class JournalLine(tables.ImageRecords):
    """A line of the journal: the images of a chunk, and its files."""

    rejected: list[tuple[int, str]]
    """(row, reason)."""
    files: list[tuple[int, State]]
    """(row, state) of each file, with the files of its masks, when it was read."""
    masks: list[mask_files.MaskRecord]


@dataclass(frozen=True)
class Chunk:
    """Some finished images: their pixels, and a line for the journal."""

    pixels: np.ndarray
    line: JournalLine

    @property
    def done(self) -> int:
        """Number of rows in it, imported or rejected."""
        return len(self.line["rows"]) + len(self.line["rejected"])


@dataclass(frozen=True)
class ChunkReading:
    """Reads chunks of an import, in this process or, since it can be pickled, in another one."""

    index: Index
    facts: dataset_facts.Facts
    found: bool
    """Whether the images have a folder, which exists where the import was started."""

    @classmethod
    def of(cls, index: Index, facts: dataset_facts.Facts) -> "ChunkReading":
        """For an import that is started in this process."""
        return cls(index, facts, index.root.exists())

    def prepared(self) -> Callable[[range], Chunk]:
        """A function that reads the images of these rows."""
        if self.found and not self.index.root.exists():
            raise FileNotFoundError(
                f"{self.index.root} does not exist on {platform.node()}. The images must have the same path on all "
                "machines."
            )
        return partial(self._chunk, dataset_folder.source(self.index, self.facts))

    def state(self, row: int) -> State:
        """The state of the image's file and of those of its masks."""
        states = [file_state(file) for file in (self.index.file(row), *self._masks.files(row))]
        return [number for state in states if state for number in state] if all(states) else None

    @cached_property
    def _masks(self) -> mask_files.MaskReader:
        return mask_files.MaskReader(self.index)

    @cached_property
    def _boxes(self) -> BoxCheck:
        return BoxCheck.of(self.index)

    def _chunk(self, read: Callable[[int], image_file.GrayImage], rows: range) -> Chunk:
        pixels, records, rejected, states, masks = [], [], [], [], []
        for row in rows:
            states.append((row, self.state(row)))
            try:
                image = read(row)
                self._boxes.check(row, image.width, image.height)
                masks += self._masks.read(row, image.width, image.height)
            except objects.UnreadableSourceError:  # the image itself may be intact
                raise
            except (ValueError, OSError, MemoryError) as error:
                reason = " ".join(str(error).split()).removeprefix(f"{self.index.file(row)} ")
                rejected.append((row, reason))
                continue
            square = dataset_folder.square_image(image, self.facts)
            pixels.append(square)
            records.append(tables.image_record(row, image, square))
        empty = np.empty((0, self.facts.size, self.facts.size), f"uint{self.facts.depth}")
        line: JournalLine = {**tables.join(records), "rejected": rejected, "files": states, "masks": masks}
        return Chunk(np.stack(pixels) if pixels else empty, line)


def file_state(file: Path) -> State:
    """Size and modification time of a file; None if it does not exist."""
    try:
        if addresses.is_remote(file):
            there = objects.remembered(file)
            return [there.size, int.from_bytes(hashlib.blake2b(there.version.encode(), digest_size=7).digest())]
        found = file.stat()
    except (OSError, ValueError):
        return None
    return [found.st_size, found.st_mtime_ns]
