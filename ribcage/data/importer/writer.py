"""Writer: writes the images of an index to a dataset folder, in parallel and resumably.

Threads prepare images in chunks, which are appended in order to `images.npy.part` or to shards; `journal.part` gets one
line per chunk, once the chunk's pixels are on disk. A killed import resumes after the last line of the journal and
truncates the images to match it. The result does not depend on time or on the number of workers, so the finished folder
is the same, byte for byte, however often the import was interrupted.
"""

import contextlib
import hashlib
import io
import json
import logging
import os
import time
from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from ribcage.data import dataset_facts, dataset_folder, fingerprint_table
from ribcage.data.image_store import HEADER
from ribcage.data.importer import mask_files, tables
from ribcage.data.importer.chunks import Chunk, ChunkReading, JournalLine
from ribcage.data.importer.pixel_files import PixelFiles, is_pixel_file, pixel_files_in
from ribcage.data.index import Index
from ribcage.imaging import fingerprint
from ribcage.runtime import files, spreadsheet
from ribcage.runtime.engines import ONE_THREAD, Engine

log = logging.getLogger("ribcage")

CHUNK = 64  # images per line of the journal
SYNC_SECONDS = 1.0
JOURNAL = 3
"""Version of the journal's format; an import with another one is not resumed."""
RESUMED = ("plan", "images_per_shard")
"""Entries of the journal's first line that an import with the same options has, whatever its version."""
PARTS = (".lock", "journal.part", "journal.part.part", "index.parquet.part", "dataset.json.part",
         "fingerprints.parquet.part", *(f"{name}.part" for name in dataset_folder.BESIDE),
         "rejected.csv.part")  # fmt: skip
OURS = (*PARTS, "index.parquet", *dataset_folder.BESIDE, "fingerprints.parquet", "rejected.csv")
PLACE = "parts"
"""Subfolder of a dataset folder with the unfinished parts of an import on several machines (`parts.py`)."""
ADVICE = "Free space and run the same command again to resume."


class Writer:
    """One import: `with Writer(…) as work: for count in work.run(): …`; afterwards the folder is complete.

    Entering resumes an unfinished import or begins a new one, and locks the folder; `run` yields the number of images
    finished in each step.
    """

    def __init__(self, index: Index, facts: dataset_facts.Facts, folder: Path, *, engine: Engine = ONE_THREAD) -> None:
        self.index, self.folder, self.engine = index, folder, engine
        self.reading = ChunkReading.of(index, facts)
        self.rows = range(len(index))
        """The rows to import."""
        self.facts = replace(facts, plan=plan(index, facts))
        self.images, self.journal = PixelFiles(folder, facts), folder / "journal.part"
        self.done = 0
        """Rows finished by an earlier run."""
        self._held = contextlib.ExitStack()

    def __enter__(self) -> "Writer":
        with contextlib.ExitStack() as stack:
            stack.enter_context(files.explained(self.folder, ADVICE))
            self.folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(files.only_writer(self.folder))
            self._take_up()
            self._held = stack.pop_all()
        return self

    def __exit__(self, *error: Any) -> bool | None:
        return self._held.__exit__(*error)

    def run(self) -> Iterator[int]:
        """Import the remaining images, then complete the folder."""
        with contextlib.closing(self._chunks()) as chunks, contextlib.closing(self._append(chunks)) as appended:
            for chunk in appended:
                yield chunk.done
        self._complete()

    # ---- the journal

    def _take_up(self) -> None:
        """Resume an unfinished import in this folder, or begin one."""
        head, lines = read_journal(self.journal)
        if not head:
            self._begin()
        elif all(head.get(name) == self._head().get(name) for name in RESUMED) and head != self._head():
            raise ValueError(
                f"{self.folder} contains an unfinished import by another version of Ribcage. Start again with --redo."
            )
        elif head != self._head():
            raise ValueError(
                f"{self.folder} contains an unfinished import of other images or with other options. "
                "Use the same options to resume it, choose another --out, or delete the folder."
            )
        else:
            self.done = self._cut_back(lines)

    def _begin(self) -> None:
        refuse_strangers(self.folder, self._known())
        written = len(self.rows) - len(self.images.ready) * self.facts.images_per_shard
        files.require_space(self.folder, len(self.rows) * 600 + written * self.images.bytes_each + HEADER)
        self.images.cut(0)
        with files.atomic(self.journal) as part:
            part.write_text(_json_line(self._head()), encoding="utf-8")

    def _known(self) -> Collection[str]:
        """Files that the folder may already have."""
        return (*OURS, PLACE)

    def _head(self) -> dict[str, object]:
        """The first line of the journal: its version and the plan of the import."""
        head = {"plan": self.facts.plan, "journal": JOURNAL, "variants": fingerprint.VARIANTS}
        each = self.facts.images_per_shard
        return {**head, "images_per_shard": each} if each else head

    def _cut_back(self, lines: list[JournalLine]) -> int:
        """Truncate journal and images to match; returns the number of finished rows."""
        images, kept, rows, stored = 0, list[JournalLine](), 0, self.images.take_up()
        for line in lines:
            if changed := self._changed(line):
                log.warning(
                    "Files have changed since this import began, such as the file of row %s; the import resumes "
                    "after row %s.",
                    f"{changed[0]:,}", f"{rows:,}",
                )  # fmt: skip
                break
            if images + len(line["rows"]) > stored:
                break
            images += len(line["rows"])
            rows += len(line["rows"]) + len(line["rejected"])
            kept.append(line)
        self.images.cut(images)
        with files.atomic(self.journal) as part:
            part.write_text("".join(map(_json_line, (self._head(), *kept))), encoding="utf-8")
        return rows

    def _changed(self, line: JournalLine) -> list[int]:
        """Rows whose files are not as they were when this line of the journal was written."""
        return [row for row, was in line["files"] if self.reading.state(row) != was]

    def _append(self, chunks: Iterator[Chunk]) -> Generator[Chunk]:
        """Write chunks; a journal line is written only once its pixels are on disk."""
        with (
            contextlib.closing(self.images) as images,
            files.open_regular(self.journal, "a", encoding="utf-8", newline="\n") as journal,
        ):
            lines: list[str] = []
            synced = time.monotonic()
            try:
                for chunk in chunks:
                    images.append(chunk.pixels)
                    lines.append(_json_line(chunk.line))
                    if time.monotonic() - synced > SYNC_SECONDS:
                        _settle(images, journal, lines)
                        synced = time.monotonic()
                    yield chunk
            except OSError:  # such as a full disk: unfinished chunks are dropped
                lines.clear()
                raise
            finally:
                _settle(images, journal, lines)

    # ---- the images

    def _chunks(self) -> Generator[Chunk]:
        starts = range(self.rows.start + self.done, self.rows.stop, CHUNK)
        tasks = [range(start, min(start + CHUNK, self.rows.stop)) for start in starts]
        yield from self.engine.map(self.reading.prepared, tasks)

    # ---- the end

    def _complete(self) -> None:
        _, lines = read_journal(self.journal)
        rows = [row for line in lines for row in line["rows"]]
        rejected = [pair for line in lines for pair in line["rejected"]]
        _save_rejected(self.folder / "rejected.csv", self.index, rejected)
        if not rows:
            self.journal.unlink()  # the next attempt starts from the beginning
            failed = f"None of the {len(self.index):,} images could be read. The first error was: {rejected[0][1]}"
            raise ValueError(f"{failed} All reasons are listed in {self.folder / 'rejected.csv'}.")
        joined = tables.join(lines)
        taken = mask_files.with_read(self.index, [one for line in lines for one in line["masks"]]).take(rows)
        index = tables.stored_index(taken, joined, self.facts)
        prints = tables.compute_fingerprints(index, joined)
        if self.facts.drop_shared:
            index = tables.without_shared_images(index, prints, self.facts.drop_shared)
        shards = self.images.finish()
        dataset_folder.save_index(index, self.folder / "index.parquet")
        with files.atomic(self.folder / "fingerprints.parquet") as part:
            prints.save(part)
        facts = replace(tables.final_facts(self.facts, joined, len(rejected), prints), shards=shards)
        for name, before, after in (("box", taken.boxes, index.boxes), ("point", taken.points, index.points)):
            if lost := len(before) - len(after):
                facts = replace(facts, notes={**facts.notes, f"{name} outside the square image, dropped": lost})
        dataset_folder.write_facts(self.folder, facts)
        self.journal.unlink()


def read_journal(journal: Path) -> tuple[dict[str, object], list[JournalLine]]:
    """The head of a journal, {} if there is none, and its complete lines, without one that was interrupted."""
    text = files.regular(journal).read_text(encoding="utf-8", errors="replace") if journal.exists() else ""
    lines = []
    for line in text.split("\n")[:-1]:
        try:
            lines.append(json.loads(line))
        except (ValueError, RecursionError):
            break
    return (lines[0] if lines else {}), cast(list[JournalLine], lines[1:])


def link(index: Index, facts: dataset_facts.Facts, folder: Path, *, sample: int = 256) -> None:
    """Make a linked folder; mean and standard deviation are measured on evenly spaced readable images."""
    facts = replace(facts, linked=True)
    with files.explained(folder, "Free space first."):
        folder.mkdir(parents=True, exist_ok=True)
        with files.only_writer(folder):
            refuse_strangers(folder, (*PARTS, "index.parquet", *dataset_folder.BESIDE))
            joined = tables.join(_sampled(index, facts, sample))
            mean, std = tables.moments(joined, facts)
            kept = tables.linked_index(index, facts)
            if facts.drop_shared:  # by patients alone
                kept = tables.without_shared_images(
                    kept, fingerprint_table.Fingerprints.of_patients(kept), facts.drop_shared
                )
            dataset_folder.save_index(kept, folder / "index.parquet")
            facts = replace(facts, plan=plan(index, facts), images=len(index), mean=mean, std=std)
            dataset_folder.write_facts(folder, facts)


def _sampled(index: Index, facts: dataset_facts.Facts, sample: int) -> list[tables.ImageRecords]:
    """Records of evenly spaced images that exist and can be read."""
    read, records = dataset_folder.source(index, facts), []
    there = dataset_folder.present(index)
    for row in there[np.unique(np.linspace(0, len(there) - 1, min(sample, len(there))).astype(int))].tolist():
        with contextlib.suppress(ValueError, OSError):
            image = read(row)
            records.append(tables.image_record(row, image, dataset_folder.square_image(image, facts)))
    if not records:
        raise ValueError(f"None of the {len(index):,} images under {index.root} can be read.")
    return records


def refuse_strangers(folder: Path, known: Collection[str]) -> None:
    """Raise if the folder has files that Ribcage did not write."""
    names = (file.name for file in folder.iterdir())
    strangers = sorted(name for name in names if name not in known and not is_pixel_file(name))
    if strangers:
        raise ValueError(f"{folder} contains other files, such as {strangers[0]}. Choose another --out.")


def tidy(folder: Path) -> None:
    """Remove leftovers of an import that was killed just after its folder was complete."""
    for name in PARTS:
        (folder / name).unlink(missing_ok=True)
    for file in pixel_files_in(folder):
        if file.suffix == ".part":
            file.unlink()


def clear(folder: Path) -> None:
    """Remove a dataset folder's own files, finished or not, unless another import is writing there; other files
    stay."""
    if not folder.is_dir():
        return
    with files.only_writer(folder):
        for name in (*OURS, "dataset.json"):
            if name != files.LOCK:
                (folder / name).unlink(missing_ok=True)
        for file in pixel_files_in(folder):
            file.unlink()


def plan(index: Index, facts: dataset_facts.Facts) -> str:
    """A hash of everything that determines the content of the folder: the rows, their files, and the processing."""
    table = io.BytesIO()
    index.save(table)  # type: ignore[arg-type]
    for save in index.beside.values():
        save(table)  # type: ignore[arg-type]
    wanted = {
        name: getattr(facts, name) for name in ("name", "dataset", "size", "fit", "depth", "options", "root", "linked")
    }
    wanted |= {"window": facts.window} if facts.window else {}
    wanted |= {"drop_shared": facts.drop_shared} if facts.drop_shared else {}
    text = json.dumps(wanted, sort_keys=True, default=str)
    return hashlib.blake2b(table.getvalue() + text.encode(), digest_size=16).hexdigest()


def _json_line(line: Mapping[str, object]) -> str:
    return json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n"


def _settle(images: PixelFiles, journal: io.TextIOWrapper, lines: list[str]) -> None:
    """Sync the pixels to disk, then write their journal lines."""
    images.sync()
    journal.write("".join(lines))
    journal.flush()
    os.fsync(journal.fileno())
    lines.clear()


def _save_rejected(file: Path, index: Index, rejected: Sequence[tuple[int, str]]) -> None:
    paths = index.table["path"]
    with files.atomic(file) as part:
        spreadsheet.write_csv_rows(["path", "reason"], [(paths.iloc[row], reason) for row, reason in rejected], part)
