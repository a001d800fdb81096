"""Mapped index: the tables of a large folder as memory-mapped files."""

import gc
import json
import logging
import os
import shutil
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from ribcage.data import dataset_folder, mapped_index
from ribcage.data import index as indexes
from ribcage.data.collection import Datasets
from ribcage.data.dataset_facts import Facts
from ribcage.data.fingerprint_table import Fingerprints
from ribcage.data.index import Index
from ribcage.data.loader import Loader
from ribcage.data.masks import DrawnMask, mask_frame, placed_masks
from ribcage.data.pixel_check import PixelCheck
from ribcage.data.points import point_frame
from ribcage.data.radiology_reports import Report, reports_of_images
from ribcage.imaging import fingerprint
from ribcage.imaging.augment import plain_view
from ribcage.imaging.mask import Mask
from ribcage.runtime import cache_folder, distributed
from ribcage.training import chosen_rows

ROWS, SIDE = 1000, 4
TABLES_BESIDE = ("readings", "reports", "masks", "points")


@pytest.fixture()
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that counts as large, and an empty cache."""
    monkeypatch.setenv("RIBCAGE_INDEX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(mapped_index, "LARGE", 100)
    monkeypatch.setattr(mapped_index, "LARGE_TABLE", 100)
    return written(tmp_path / "large", ROWS, annotated)


def annotated(index: Index) -> Index:
    """The index with masks, points and reports."""
    count, lung = len(index), Mask.of_pixels(np.eye(SIDE, dtype=np.uint8))
    drawn = [DrawnMask(row, "Left_Lung", lung if row % 4 else Mask(SIDE, SIDE)) for row in range(0, count, 2)]
    masks = placed_masks(mask_frame(drawn), np.tile(np.eye(2, 3), (len(drawn), 1, 1)), np.full((1, 2), SIDE))
    points = pd.DataFrame({"row": np.arange(0, count, 5), "structure": "Nodule", "x": 1.0, "y": 2.0})
    texts = pd.DataFrame({"findings": [f"Befund {key}" for key in range(count // 2)], "impression": ""})
    reports = reports_of_images(pd.Series(np.arange(count) // 3 * 2), texts, "de")
    return replace(index, masks=masks, points=point_frame(points), reports=reports)


def written(place: Path, count: int, annotations: Callable[[Index], Index] = lambda index: index) -> Path:
    """A dataset folder with so many images."""
    chance = np.random.default_rng(0)
    rows = pd.DataFrame(
        {
            "path": [f"images/{row}.png" for row in range(count)],
            "patient": chance.choice(["", "7", "007", "p1"], count),
            "split": chance.choice(["train", "val"], count),
            "age": chance.choice([50.0, np.nan], count),
            "Mass": chance.choice([1, 0, -1, np.nan], count),
            "width": np.int32(9),
            "notes": chance.choice(["", "inverted", None], count),
            "checked": chance.choice([True, False], count),
        }
    )
    boxes = indexes.box_frame(pd.DataFrame([(3, "Mass", 1, 1, 2, 2)], columns=list(indexes.BOX_COLUMNS)))
    index = Index("large", indexes.index_table(rows, ["Mass"]), ("Mass",), boxes, (SIDE, SIDE))
    index = annotations(index)
    place.mkdir()
    dataset_folder.save_index(index, place / "index.parquet")
    images = chance.integers(0, 256, (count, SIDE, SIDE), np.uint8)
    np.save(place / "images.npy", images)
    hashes = np.array([fingerprint.pixel_hash(image) for image in images], np.uint64)
    prints = np.zeros((count, fingerprint.VARIANTS, 4), np.uint64)
    Fingerprints(prints, hashes, np.zeros(count, np.uint64)).save(place / "fingerprints.parquet")
    facts = Facts("large", "folder", "", "", count, 0, SIDE, "pad", 8, 0.5, 0.2, ("Mass",), "")
    dataset_folder.write_facts(place, facts)
    return place


def is_mapped(address: int, folder: Path) -> bool:
    """Whether an address lies in a memory-mapped file of a folder."""
    lines = [line.split() for line in Path("/proc/self/maps").read_text().splitlines()]
    spans = [line[0].split("-") for line in lines if line[-1].startswith(str(folder))]
    return any(int(start, 16) <= address < int(end, 16) for start, end in spans)


def test_a_large_folder_is_what_it_is_in_memory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mapped = dataset_folder.open(folder)
    monkeypatch.setattr(mapped_index, "LARGE", ROWS)
    plain = dataset_folder.open(folder)
    assert len(list((folder.parent / "cache" / "index").glob("*-*"))) == 2, "an entry and its lock"
    for name in ("table", "boxes", *TABLES_BESIDE):
        pd.testing.assert_frame_equal(getattr(mapped.index, name), getattr(plain.index, name))
    for name in ("name", "findings", "box_frame", "root", "has_repeated_paths"):
        assert getattr(mapped.index, name) == getattr(plain.index, name)
    assert np.array_equal(mapped.index.label_codes, plain.index.label_codes)
    one, other = Datasets.of([mapped]), Datasets.of([plain])
    assert np.array_equal(one.patient_codes, other.patient_codes)
    assert np.array_equal(one.image_hashes, other.image_hashes)
    assert np.array_equal(plain.fingerprints.pixels, mapped.pixel_hashes)
    assert len(mapped.index.take(np.arange(5))) == 5


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs /proc")
def test_the_columns_of_a_large_folder_are_views_of_the_files(folder: Path) -> None:
    """Pages of files are shared by all processes; copies are not."""
    opened = dataset_folder.open(folder)
    codes, table, cache = opened.index.patient_codes, opened.index.table, folder.parent / "cache"
    columns = [table[name].to_numpy() for name in ("age", "Mass", "width")]
    for array in (*columns, opened.index.label_codes, codes.spelt, codes.canonical, opened.pixel_hashes):
        assert is_mapped(array.ctypes.data, cache)
    text = table["path"].array.__arrow_array__().chunks[0].buffers()[2]  # type: ignore[attr-defined]
    assert is_mapped(text.address, cache)
    assert not is_mapped(columns[0].copy().ctypes.data, cache)


def test_masks_points_and_reports_are_what_they_are_in_memory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mapped = dataset_folder.open(folder)
    _ = mapped.masks, mapped.points, mapped.reports
    monkeypatch.setattr(mapped_index, "LARGE_TABLE", ROWS)
    plain = dataset_folder.open(folder)
    for name in ("masks", "points", "reports"):
        assert len(getattr(mapped, name)) > 100
        pd.testing.assert_frame_equal(getattr(mapped, name), getattr(plain, name))
    assert {kind.name for kind in (folder.parent / "cache").iterdir()} >= {"masks", "points", "reports"}
    batches = []
    for one in (mapped, plain):
        loader = Loader([one], [plain_view(SIDE)], batch=ROWS, shuffle=False, structures=["Left_Lung", "Nodule"])
        batches.append(next(loader.epoch(0)))
        assert one.report_of(4) == Report(findings="Befund 2", language="de") and one.report_of(999) is None
    assert np.array_equal(batches[0].masks[0], batches[1].masks[0])
    assert np.array_equal(batches[0].points[0], batches[1].points[0])
    assert set(np.unique(batches[0].masks[0][:4, 0])) == {0, 1, 255}


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs /proc")
def test_masks_and_reports_of_a_large_folder_are_views_of_the_files(folder: Path) -> None:
    opened, cache = dataset_folder.open(folder), folder.parent / "cache"
    runs, text = opened.masks["runs"].array, opened.reports["findings"].array
    for column in (runs, text):
        buffer = pa.chunked_array(column.__arrow_array__()).chunks[0].buffers()[2]  # type: ignore[attr-defined]
        assert is_mapped(buffer.address, cache)
    drawn = opened.masks
    assert all(is_mapped(drawn[name].to_numpy().ctypes.data, cache) for name in ("row", "x", "lines"))


@pytest.mark.parametrize("name", ["masks", "reports"])
def test_a_large_table_beside_the_index_that_was_not_imported_is_refused(folder: Path, name: str) -> None:
    other = dataset_folder.load_index(folder / "index.parquet").take(np.arange(ROWS)[::-1])
    other.beside[f"{name}.parquet"](folder / f"{name}.parquet")
    with pytest.raises(ValueError, match=name):
        getattr(dataset_folder.open(folder), name)


def test_a_second_start_reads_no_parquet_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = dataset_folder.open(folder)
    assert len(first.pixel_hashes) == ROWS
    for name in ("index.parquet", "fingerprints.parquet"):
        (folder / name).write_bytes(b"")
    again = dataset_folder.open(folder)
    pd.testing.assert_frame_equal(again.index.table, first.index.table)
    assert np.array_equal(again.pixel_hashes, first.pixel_hashes)


def test_a_table_that_was_not_imported_is_neither_cached_nor_used(folder: Path) -> None:
    other = Index.load(folder / "index.parquet").take(np.arange(ROWS)[::-1])
    with (folder / "index.parquet").open("wb"):
        other.save(folder / "index.parquet")
    with pytest.raises(ValueError, match=r"index\.parquet"):
        dataset_folder.open(folder)
    assert not [one for one in (folder.parent / "cache" / "index").iterdir() if one.is_dir()]


@pytest.mark.parametrize("hash_", ["../../elsewhere", "", "0" * 32])
def test_a_hash_that_is_not_that_of_the_table_leaves_the_cache(folder: Path, hash_: str) -> None:
    facts = json.loads((folder / "dataset.json").read_text())
    facts["tables"]["index.parquet"] = hash_
    (folder / "dataset.json").write_text(json.dumps(facts))
    with pytest.raises(ValueError, match=r"index\.parquet"):
        dataset_folder.open(folder)


def test_without_a_cache_the_tables_are_read_into_memory(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    (folder.parent / "cache").write_text("not a folder")
    with caplog.at_level(logging.WARNING, "ribcage"):
        opened = dataset_folder.open(folder)
    assert len(opened) == ROWS and "RIBCAGE_INDEX_CACHE" in caplog.text


@pytest.mark.parametrize("damage", ["truncated", "missing", "changed", "contents"])
@pytest.mark.parametrize("name", ["0.arrow", "labels.npy", "about.json"])
def test_a_damaged_entry_is_written_again(
    folder: Path, name: str, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    first = dataset_folder.open(folder).index
    wanted, codes = first.table.copy(), first.label_codes.copy()
    (entry,) = (one for one in (folder.parent / "cache" / "index").iterdir() if one.is_dir())
    file = entry / (cache_folder.CONTENTS if damage == "contents" else name)
    content = file.read_bytes()
    file.unlink()  # the first index still maps the old file
    if damage != "missing":
        file.write_bytes(content[: len(content) // 2] if damage != "changed" else content[:-20] + bytes(20))
    for _ in range(2):
        again = dataset_folder.open(folder).index
        pd.testing.assert_frame_equal(again.table, wanted)
        assert np.array_equal(again.label_codes, codes)
    assert (entry / name).stat().st_size > 0 and not caplog.text
    assert [one for one in entry.parent.iterdir() if one.is_dir()] == [entry]


def test_unused_entries_are_removed(folder: Path) -> None:
    dataset_folder.open(folder)
    (entry,) = (one for one in (folder.parent / "cache" / "index").iterdir() if one.is_dir())
    old = entry.with_name("unused")
    shutil.copytree(entry, old)
    long_ago = time.time() - (cache_folder.DAYS + 1) * 86400
    os.utime(old, (long_ago, long_ago))
    cache_folder.cache_entry("index", "new", lambda part: None)
    assert entry.exists() and not old.exists()


def test_each_image_is_checked_when_it_is_first_read(folder: Path) -> None:
    opened = dataset_folder.open(folder)
    images = np.load(folder / "images.npy")
    rows, changed = np.array([5, 9]), images[[5, 9]].copy()
    changed[1, 0, 0] ^= 1
    check = PixelCheck(Datasets.of([opened]))
    with pytest.raises(ValueError, match=r"row 9 of .*large"):
        check(0, rows, list(changed))
    check(0, rows, list(images[rows]))
    check(0, rows, list(changed))  # was checked before


def test_changing_a_mapped_index_changes_what_is_derived_from_it(folder: Path) -> None:
    index = dataset_folder.open(folder).index
    renamed = replace(index, table=index.table.assign(patient="one", Mass=np.float32(1)))
    assert len(renamed.patient_codes.keys) == 1 and (renamed.label_codes == 1).all()
    with pytest.raises(ValueError, match="labels must be"):
        replace(index, table=index.table.assign(Mass=np.float32(0.5)))


def memory(place: Path) -> int:
    """Bytes that a process allocates until the first batch of a training."""
    gc.collect()
    before = pa.total_allocated_bytes()
    tracemalloc.start()
    try:
        data = Datasets.open([place])
        loader = Loader(data, [plain_view(8)], batch=4, rows=data.rows_of("train"), threads=1, prefetch=0)
        batches = loader.epoch(0)
        next(batches)
        return tracemalloc.get_traced_memory()[0] + pa.total_allocated_bytes() - before
    finally:
        tracemalloc.stop()
        batches.close()  # type: ignore[attr-defined]


def test_memory_grows_by_a_few_bytes_per_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row number and a place in the order for each image of the training split, which is half of them."""
    monkeypatch.setenv("RIBCAGE_INDEX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(mapped_index, "LARGE", 100)
    few, many = written(tmp_path / "few", 1000), written(tmp_path / "many", 6000)
    for place in (few, many):  # the first start writes the cache
        dataset_folder.open(place)
    assert (memory(many) - memory(few)) / 5000 < 20
    monkeypatch.setattr(mapped_index, "LARGE", 100_000)
    assert (memory(many) - memory(few)) / 5000 > 60, "in memory, there is a copy of the tables"


def test_only_the_first_process_reads_fingerprints(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the second process, which receives the result of the first."""
    (folder / "fingerprints.parquet").unlink()
    data = Datasets.open([folder])
    train = data.rows_of("train")
    copied = np.arange(len(train)) < 3
    with pytest.raises(FileNotFoundError, match="fingerprints"):
        chosen_rows.without_copies(data, train, "train")
    monkeypatch.setattr(distributed, "run_on_first", lambda work: np.packbits(copied))
    assert np.array_equal(chosen_rows.without_copies(data, train, "train"), train[3:])
