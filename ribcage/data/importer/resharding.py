"""Resharding: a copy of a dataset folder whose images are divided among other files, without a new import.

The parts of a copy that `curate` also needs, the links to images and the copies of tables, are functions of their own.
"""

import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from ribcage.data import dataset_folder
from ribcage.data.dataset_folder import DatasetFolder
from ribcage.data.image_store import HEADER, IMAGES_FILE, shard_name
from ribcage.data.importer import writer
from ribcage.data.importer.pixel_files import PixelFiles, link_or_copy
from ribcage.imaging import fingerprint
from ribcage.runtime import files
from ribcage.runtime.remote import addresses, cache

REJECTED = "rejected.csv"
ADVICE = "Free space and run the same command again."


def reshard(opened: DatasetFolder, out: Path, images_per_shard: int) -> Iterator[int]:
    """Write the copy, which equals an import with this number of images per shard; yields the number of images written
    in each step. A copy that was interrupted begins again."""
    if opened.facts.linked:
        raise ValueError(f"{opened.folder} is a linked folder, which stores no images. Import it without --link.")
    if (out / "dataset.json").exists():
        raise FileExistsError(f"{out} is a dataset folder already. Choose another --out.")
    opened.require_tables()
    facts = replace(opened.facts, images_per_shard=images_per_shard, shards=())
    images = PixelFiles(out, facts)
    with files.explained(out, ADVICE):
        out.mkdir(parents=True, exist_ok=True)
        writer.refuse_strangers(out, writer.OURS)
        writer.clear(out)  # files of an interrupted command
        with files.only_writer(out):
            files.require_space(out, len(opened) * images.bytes_each + HEADER, ADVICE)
            for start in range(0, len(opened), writer.CHUNK):
                rows = range(start, min(start + writer.CHUNK, len(opened)))
                images.append(_intact(opened, rows))
                yield len(rows)
            shards = images.finish()
            copy_tables(opened, out)
            dataset_folder.write_facts(out, replace(facts, shards=shards))


def link_images(opened: DatasetFolder, out: Path) -> None:
    """Give the image files of a local folder a second name in `out`; those of a remote one are copied."""
    facts = opened.facts
    names = [shard_name(number) for number in range(len(facts.shards))] if facts.images_per_shard else [IMAGES_FILE]
    for name in names * (not facts.linked):
        if addresses.is_remote(opened.folder):  # links to copies in the cache would change with them
            _copy(opened.folder, name, out)
        else:
            link_or_copy(opened.folder / name, out / name)


def copy_tables(opened: DatasetFolder, out: Path) -> None:
    """Copy the tables and the list of rejected images."""
    for name in opened.table_files:
        _copy(opened.folder, name, out)
    with contextlib.suppress(FileNotFoundError):  # it may not have been uploaded
        _copy(opened.folder, REJECTED, out)


def _intact(opened: DatasetFolder, rows: range) -> np.ndarray:
    """(n, S, S): these images; ValueError if their pixels have changed since the import."""
    images, hashes = np.ascontiguousarray(np.stack(opened.images.read(rows))), opened.pixel_hashes
    wrong = [row for row, image in zip(rows, images, strict=True) if fingerprint.pixel_hash(image) != hashes[row]]
    if wrong:
        raise ValueError(
            f"The pixels of image {wrong[0]:,} of {opened.folder} have changed since the import. Import the dataset "
            f"again."
        )
    return images


def _copy(folder: Path, name: str, out: Path) -> None:
    source = cache.local_file(folder, name)
    with files.atomic(out / name) as part:
        shutil.copyfile(source, part)
