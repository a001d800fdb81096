"""Parts: an import that is divided among several machines, each of which imports some of the rows, and the merge.

A part is an unfinished import of its rows in a folder of its own, such as `OUT/parts/3-of-16`: their images, their
journal, and the tables that were read. The merge appends images and journals of all parts in order and completes the
folder as a single import does, so the result is the same, byte for byte. Parts and merge resume like any import.
"""

import re
from collections.abc import Collection, Generator, Iterator
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from ribcage.data import dataset_facts, dataset_folder
from ribcage.data.importer import writer
from ribcage.data.importer.chunks import Chunk, JournalLine
from ribcage.data.importer.pixel_files import PixelFiles, pixel_files_in
from ribcage.data.index import Index
from ribcage.imaging import fingerprint
from ribcage.runtime import files, parquet
from ribcage.runtime.engines import ONE_THREAD, Engine
from ribcage.runtime.spelling import count_phrase

TABLE, FACTS = "source.parquet", "facts.json"
"""The tables that were read, and the facts of the folder to be."""
MOST = 10_000
"""Limit on the number of parts."""
NAME = re.compile(r"(\d{1,5})-of-(\d{1,5})")


@dataclass(frozen=True, order=True)
class Part:
    """Part `number` of `count`, from 1."""

    count: int
    number: int

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    @classmethod
    def parse(cls, text: str) -> "Part":
        """The part written as K/N."""
        found = re.fullmatch(r"(\d{1,5})/(\d{1,5})", text, re.ASCII)
        part = cls(int(found[2]), int(found[1])) if found else cls(0, 0)
        if not 1 <= part.number <= part.count <= MOST:
            raise ValueError(f"--part {text!r} must be K/N with K from 1 to N, such as 3/16 (N is at most {MOST:,})")
        return part

    def rows(self, total: int) -> range:
        """The rows of this part, in whole chunks of the journal."""
        chunks = -(-total // writer.CHUNK)
        first, end = (chunks * number // self.count for number in (self.number - 1, self.number))
        return range(min(total, first * writer.CHUNK), min(total, end * writer.CHUNK))

    def folder(self, out: Path) -> Path:
        """The part's folder below the dataset folder."""
        return out / writer.PLACE / f"{self.number}-of-{self.count}"


class PartWriter(writer.Writer):
    """The import of one part."""

    def __init__(
        self, index: Index, facts: dataset_facts.Facts, out: Path, part: Part, *, engine: Engine = ONE_THREAD
    ) -> None:
        super().__init__(index, facts, part.folder(out), engine=engine)
        self.part, self.rows = part, part.rows(len(index))
        self.images = PixelFiles(self.folder, facts, first=self.rows.start)

    def _begin(self) -> None:
        dataset_folder.save_index(self.index, self.folder / TABLE)
        with files.atomic(self.folder / FACTS) as part:
            self.facts.save(part)
        super()._begin()

    def _known(self) -> Collection[str]:
        return (*writer.PARTS, TABLE, *dataset_folder.BESIDE, FACTS)

    def _complete(self) -> None:
        """Nothing more to do: the merge completes the folder."""


class Merger(writer.Writer):
    """The merge of all parts below a dataset folder: `with Merger(out) as work: for count in work.run(): …`."""

    def __init__(self, out: Path) -> None:
        self.parts = parts_below(out)
        self.lines = {part: _finished_lines(part, out) for part in self.parts}
        index, facts = _same_import(self.parts, out)
        super().__init__(index, facts, out)
        self._of_parts = {part: self._images_of(part) for part in self.parts}
        self.images = PixelFiles(out, facts, ready=self._ready())
        covered = [row for part in self.parts for line in self.lines[part] for row in _rows(line)]
        if covered != list(range(len(index))):
            raise ValueError(
                f"The parts below {out} do not contain every image exactly once. Import them again with --redo."
            )

    def _changed(self, line: JournalLine) -> list[int]:
        """None: the images come from the parts; the original files may be on other machines."""
        return []

    def _chunks(self) -> Generator[Chunk]:
        """The images of all parts, after those that an interrupted merge has written."""
        skipped = 0
        for part in self.parts:
            images, start = self._of_parts[part], 0
            for line in self.lines[part]:
                count = len(line["rows"])
                if skipped < self.done:
                    skipped += len(_rows(line))
                else:
                    yield Chunk(self._checked(images.read(start, count), line, part), line)
                start += count

    def _checked(self, images: np.ndarray, line: JournalLine, part: Part) -> np.ndarray:
        """The images of a line of the journal; ValueError if they differ from what the journal says."""
        if [fingerprint.pixel_hash(image) for image in images] == line["pixels"]:
            return images
        raise ValueError(
            f"The images in {part.folder(self.folder)} are damaged. Import this part again: --part {part} --redo."
        )

    def _images_of(self, part: Part) -> PixelFiles:
        """The images of a part."""
        found = PixelFiles(part.folder(self.folder), self.facts, first=part.rows(len(self.index)).start)
        found.count = sum(len(line["rows"]) for line in self.lines[part])
        return found

    def _ready(self) -> dict[int, Path]:
        """The shards of parts that are also shards of the whole, because no earlier image was rejected."""
        ready, images = dict[int, Path](), 0
        for found in self._of_parts.values():
            if images == found.first:
                ready |= found.whole_shards()
            images += found.count
        return ready

    def _complete(self) -> None:
        super()._complete()
        remove_parts(self.folder)


def parts_below(out: Path) -> list[Part]:
    """All parts, in order; ValueError if one is missing."""
    found = [Part(int(name[2]), int(name[1])) for name in map(NAME.fullmatch, _names(out / writer.PLACE)) if name]
    if not found:
        raise ValueError(f"{out} has no parts to merge. Import them with 'ribcage import … --out {out} --part K/N'.")
    counts = sorted({part.count for part in found})
    if len(counts) > 1:
        raise ValueError(
            f"{out / writer.PLACE} contains parts of several imports, which were divided into "
            f"{' and '.join(map(str, counts))} parts. Delete the folders of all but one of these imports."
        )
    wanted = [Part(counts[0], number) for number in range(1, counts[0] + 1)]
    missing = [str(part) for part in wanted if part not in found]
    if missing:
        shown = ", ".join(missing[:10]) + f" and {len(missing) - 10:,} more" * (len(missing) > 10)
        raise ValueError(
            f"{out} contains {len(wanted) - len(missing)} of {count_phrase(len(wanted), 'part')}. The following are "
            f"missing: {shown}. Import them, beginning with --part {missing[0]}, and merge again."
        )
    return wanted


def remove_parts(out: Path) -> None:
    """Remove the parts of a completed dataset folder; files that the imports did not write stay."""
    place = out / writer.PLACE
    if not place.is_dir() or place.is_symlink():
        return
    for name in map(NAME.fullmatch, _names(place)):
        if name:
            clear_part(out, Part(int(name[2]), int(name[1])))
            _remove_empty(place / name[0])
    _remove_empty(place)


def clear_part(out: Path, part: Part) -> None:
    """Remove a part's files, so that it is imported again."""
    folder = part.folder(out)
    if folder.is_dir():
        with files.only_writer(folder):
            for name in (*writer.PARTS, TABLE, *dataset_folder.BESIDE, FACTS):
                if name != files.LOCK:
                    (folder / name).unlink(missing_ok=True)
            for file in pixel_files_in(folder):
                file.unlink()


def _remove_empty(folder: Path) -> None:
    """Remove a folder, unless it still has files."""
    (folder / files.LOCK).unlink(missing_ok=True)
    if not any(folder.iterdir()):
        folder.rmdir()


def _names(place: Path) -> Iterator[str]:
    if place.is_symlink():
        raise ValueError(
            f"{place} is a symbolic link, which is not followed. Replace it with the folder that it points to."
        )
    if place.is_dir():
        yield from sorted(entry.name for entry in place.iterdir() if entry.is_dir() and not entry.is_symlink())


def _rows(line: JournalLine) -> list[int]:
    """The rows of a line of the journal, imported and rejected."""
    return sorted([*line["rows"], *(row for row, _ in line["rejected"])])


def _finished_lines(part: Part, out: Path) -> list[JournalLine]:
    """The lines of a part's journal; ValueError if the part is unfinished."""
    folder = part.folder(out)
    head, lines = writer.read_journal(folder / "journal.part")
    if files.is_written(folder):
        raise ValueError(f"Part {part} is being imported by another process. Merge when it has finished.")
    try:
        total = parquet.own_row_count(folder / TABLE)
        done = sum(len(_rows(line)) for line in lines)
    except (OSError, LookupError, TypeError):
        total, done = 1, 0
    if not head or done < len(part.rows(total)):
        raise ValueError(
            f"Part {part} is unfinished. Run its import again (--part {part}); it continues where it stopped."
        )
    return lines


def _same_import(parts: list[Part], out: Path) -> tuple[Index, dataset_facts.Facts]:
    """The tables and facts of all parts; ValueError if they differ."""
    first = dataset_facts.Facts.load(parts[0].folder(out) / FACTS)
    for part in parts[1:]:
        facts = dataset_facts.Facts.load(part.folder(out) / FACTS)
        differing = [item.name for item in fields(facts) if getattr(facts, item.name) != getattr(first, item.name)]
        if "versions" in differing:
            names = sorted(key for key in {*facts.versions, *first.versions}
                           if facts.versions.get(key) != first.versions.get(key))  # fmt: skip
            raise ValueError(
                f"Part {part} was imported with different versions of {', '.join(names)} than part {parts[0]}, so its "
                f"images may differ. Install the same versions and import it again: --part {part} --redo."
            )
        if differing:
            raise ValueError(
                f"Part {part} was imported from different images or with different options than part {parts[0]} "
                f"({', '.join(differing)}). Import part {part} again with the same options: --part {part} --redo."
            )
    return dataset_folder.load_index(parts[0].folder(out) / TABLE), first
