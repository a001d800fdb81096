"""Sharded dataset folders: the same images as in one file, resumable and mergeable to the same bytes."""

import json
import os
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from image_folders import SIZE, facts, images, imported
from test_writer import digest

from ribcage.commands import curate, import_, reshard
from ribcage.data import dataset_folder, image_store
from ribcage.data.image_store import ShardStore
from ribcage.data.importer import parts, writer
from ribcage.data.importer.parts import Part
from ribcage.data.index import Index
from ribcage.data.masks import MASKS_FILE, DrawnMask, mask_frame, save_masks
from ribcage.imaging.mask import Mask
from ribcage.runtime.digest import file_digest

EACH = 40  # not a multiple of writer.CHUNK: chunks cross the borders of shards


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Index:
    return images(tmp_path_factory.mktemp("files"), 150)


@pytest.fixture(scope="module")
def sharded(index: Index, tmp_path_factory: pytest.TempPathFactory) -> dataset_folder.DatasetFolder:
    return imported(index, tmp_path_factory.mktemp("sharded") / "out", images_per_shard=EACH)


def without(index: Index, rows: tuple[int, ...], root: Path) -> Index:
    """The same files, some of which cannot be read."""
    made = images(root, len(index))
    for row in rows:
        made.file(row).write_bytes(b"not an image")
    return made


def test_the_shards_hold_the_images_of_one_file(
    index: Index, sharded: dataset_folder.DatasetFolder, tmp_path: Path
) -> None:
    whole = imported(index, tmp_path / "whole")
    stored = [np.load(sharded.folder / f"images-{number:05d}.npy") for number in range(4)]
    assert [len(one) for one in stored] == [one.images for one in sharded.facts.shards] == [40, 40, 40, 30]
    assert np.array_equal(np.concatenate(stored), whole.images) and np.array_equal(sharded.images, whole.images)
    assert sharded.facts.contents == whole.facts.contents and not len(sharded.damaged())
    for number, shard in enumerate(sharded.facts.shards):  # each can be verified alone
        assert shard.sha256 == file_digest(sharded.folder / f"images-{number:05d}.npy")
    same = ("index.parquet", "fingerprints.parquet", "rejected.csv")
    assert all((sharded.folder / name).read_bytes() == (whole.folder / name).read_bytes() for name in same)
    assert not (sharded.folder / "images.npy").exists()


@pytest.mark.parametrize("stopped", [1, 2, 3])
def test_an_import_that_was_stopped_gives_the_same_shards(
    index: Index, sharded: dataset_folder.DatasetFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stopped: int
) -> None:
    monkeypatch.setattr(writer, "SYNC_SECONDS", 0.0)
    how = {"images_per_shard": EACH}
    with writer.Writer(index, facts(index.root, **how), tmp_path / "out") as work:
        steps = work.run()
        for _ in range(stopped):
            next(steps)
        steps.close()
    late = sorted((tmp_path / "out").glob("images-*.npy.part"))[-1]
    late.write_bytes(late.read_bytes() + bytes(3000))  # pixels that have no line in the journal
    (tmp_path / "out" / "images-00009.npy.part").write_bytes(bytes(3000))
    with pytest.raises(ValueError, match="--out"):
        imported(index, tmp_path / "out", images_per_shard=EACH + 1)
    with writer.Writer(index, facts(index.root, **how), tmp_path / "out") as work:
        assert work.done == min(stopped * writer.CHUNK, 150)
        list(work.run())
    assert digest(tmp_path / "out") == digest(sharded.folder)


def test_an_import_that_was_killed_between_the_last_renames_is_completed(
    index: Index, sharded: dataset_folder.DatasetFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dataset_folder, "write_facts", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        imported(index, tmp_path / "out", images_per_shard=EACH)
    monkeypatch.undo()
    (tmp_path / "out" / "images-00003.npy").rename(tmp_path / "out" / "images-00003.npy.part")
    assert digest(imported(index, tmp_path / "out", images_per_shard=EACH).folder) == digest(sharded.folder)


@pytest.mark.parametrize(("count", "rejected", "linked"), [(1, (), {0, 1, 2}), (2, (100,), {0, 2}), (3, (5,), {0})])
def test_parts_are_merged_to_the_same_shards(
    index: Index, tmp_path: Path, count: int, rejected: tuple[int, ...], linked: set[int]
) -> None:
    made = without(index, rejected, tmp_path / "in")
    for number in range(count, 0, -1):
        changes = facts(made.root, images_per_shard=EACH)
        with parts.PartWriter(made, changes, tmp_path / "out", Part(count, number)) as work:
            list(work.run())
    inodes = {file.stat().st_ino for file in (tmp_path / "out").rglob("images-*.npy.part")}
    with parts.Merger(tmp_path / "out") as work:
        list(work.run())
    stored = sorted((tmp_path / "out").glob("images-*.npy"))
    assert {number for number, file in enumerate(stored) if file.stat().st_ino in inodes} == linked
    assert digest(tmp_path / "out") == digest(imported(made, tmp_path / "single", images_per_shard=EACH).folder)


def test_a_merge_that_was_stopped_leaves_the_parts_as_they_are(
    index: Index, sharded: dataset_folder.DatasetFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "SYNC_SECONDS", 0.0)
    out = tmp_path / "out"
    for number in (1, 2):
        with parts.PartWriter(index, facts(index.root, images_per_shard=EACH), out, Part(2, number)) as work:
            list(work.run())
    before = {number: digest(Part(2, number).folder(out)) for number in (1, 2)}
    with parts.Merger(out) as work:
        steps = work.run()
        next(steps)
        steps.close()
    assert before == {number: digest(Part(2, number).folder(out)) for number in (1, 2)}
    with parts.Merger(out) as work:
        assert work.done == writer.CHUNK
        list(work.run())
    assert digest(out) == digest(sharded.folder)


def test_a_part_that_is_cut_back_does_not_change_a_linked_shard(index: Index, tmp_path: Path) -> None:
    out, how = tmp_path / "out", facts(index.root, images_per_shard=EACH)
    with parts.PartWriter(index, how, out, Part(1, 1)) as work:
        list(work.run())
    shard = Part(1, 1).folder(out) / "images-00001.npy.part"
    os.link(shard, tmp_path / "linked")
    size = shard.stat().st_size
    work.images.cut(EACH + 1)
    assert (tmp_path / "linked").stat().st_size == size > shard.stat().st_size


def test_few_shards_are_open_at_a_time_and_those_in_use_stay(
    sharded: dataset_folder.DatasetFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_store, "OPEN_SHARDS", 2)
    expected, store = np.asarray(sharded.images), dataset_folder.open(sharded.folder).images
    first = store[0]
    rows = np.random.default_rng(0).permutation(150).reshape(10, 15)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda some: store.read(some.tolist()), rows))
    assert all(np.array_equal(images, expected[some]) for images, some in zip(found, rows, strict=True))
    assert np.array_equal(first, expected[0]) and first.base is not None  # a memory map, not a copy


def test_a_shard_is_opened_once_while_it_is_in_use(tmp_path: Path) -> None:
    opened, lock = [], threading.Lock()

    def file(number: int) -> Path:
        with lock:
            opened.append(number)
        return tmp_path / f"{number}.npy"

    for number in range(3):
        np.save(tmp_path / f"{number}.npy", np.full((2, 4, 4), number, np.uint8))
    store = ShardStore(file, 2, (6, 4, 4), np.dtype(np.uint8))
    assert [int(image[0, 0]) for image in store.read([0, 1, 4, 5, 0])] == [0, 0, 2, 2, 0] and opened == [0, 2]
    assert store[2:4].shape == (2, 4, 4) and store[np.array([], int)].shape == (0, 4, 4)


@pytest.mark.parametrize(
    "change", [{"shards": []}, {"shards": [{"images": 1}]}, {"images_per_shard": 50}, {"images_per_shard": "x"}]
)
def test_a_wrong_list_of_shards_is_refused(
    sharded: dataset_folder.DatasetFolder, tmp_path: Path, change: dict[str, object]
) -> None:
    for file in sharded.folder.iterdir():
        os.link(file, tmp_path / file.name)
    values = json.loads((tmp_path / "dataset.json").read_text())
    (tmp_path / "dataset.json").unlink()
    (tmp_path / "dataset.json").write_text(json.dumps(values | change))
    with pytest.raises(ValueError, match=r"dataset\.json"):
        dataset_folder.open(tmp_path)


def test_a_missing_or_damaged_shard_is_named(sharded: dataset_folder.DatasetFolder, tmp_path: Path) -> None:
    for file in sharded.folder.iterdir():
        if file.name != "images-00002.npy":
            os.link(file, tmp_path / file.name)
    with pytest.raises(FileNotFoundError, match=r"images-00002\.npy"):
        dataset_folder.open(tmp_path)
    np.save(tmp_path / "images-00002.npy", np.zeros((39, SIZE, SIZE), np.uint8))
    opened = dataset_folder.open(tmp_path)
    with pytest.raises(ValueError, match=r"images-00002\.npy.*\(40, "):
        opened.image(80)
    np.save(tmp_path / "images-00002.npy", np.zeros((40, SIZE, SIZE), np.uint8))
    assert dataset_folder.open(tmp_path).damaged().tolist() == list(range(80, 120))


def test_the_command_divides_the_images(tmp_path: Path) -> None:
    def options(each: int, **more: object) -> import_.Options:
        return import_.Options(
            "phantom", out=tmp_path / "out", size=32, images_per_shard=each, member={"images": 20}, **more
        )  # type: ignore[arg-type]

    opened = import_.run(options(8))
    assert opened is not None and [one.images for one in opened.facts.shards] == [8, 8, 4]
    import_.run(options(8))
    with pytest.raises(ValueError, match="--redo"):
        import_.run(options(0))
    assert (whole := import_.run(options(0, redo=True))) is not None and whole.facts.contents == opened.facts.contents
    assert not list((tmp_path / "out").glob("images-*.npy"))
    with pytest.raises(ValueError, match=r"--images-per-shard.*--images-per-shard"):
        import_.check(options(-1, link=True))


@pytest.mark.parametrize("each", [0, 64])
def test_a_resharded_copy_is_that_of_an_import(
    sharded: dataset_folder.DatasetFolder, index: Index, tmp_path: Path, each: int
) -> None:
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / "images-00000.npy.part").write_bytes(b"a copy that was interrupted")
    copy = reshard.run(reshard.Options(sharded.folder, tmp_path / "copy", each))
    assert copy.facts.contents == sharded.facts.contents
    assert digest(copy.folder) == digest(imported(index, tmp_path / "import", images_per_shard=each).folder)
    with pytest.raises(FileExistsError, match="--out"):
        reshard.run(reshard.Options(sharded.folder, copy.folder, each))


def test_a_shard_may_store_its_images_in_any_order_of_axes(
    sharded: dataset_folder.DatasetFolder, tmp_path: Path
) -> None:
    for file in sharded.folder.iterdir():
        os.link(file, tmp_path / file.name)
    stored = np.load(tmp_path / "images-00001.npy")
    (tmp_path / "images-00001.npy").unlink()
    np.save(tmp_path / "images-00001.npy", np.asfortranarray(stored))
    copy = reshard.run(reshard.Options(tmp_path, tmp_path / "out", EACH))
    assert digest(copy.folder) == digest(sharded.folder)


def test_files_that_an_interrupted_command_on_other_data_left_are_removed(
    sharded: dataset_folder.DatasetFolder, tmp_path: Path
) -> None:
    """Also a list of rejected images, which the other folder may not have, and the journal of an import."""
    source, out = tmp_path / "source", tmp_path / "out"
    shutil.copytree(sharded.folder, source)
    (source / "rejected.csv").unlink()
    out.mkdir()
    save_masks(mask_frame([DrawnMask(0, "Heart", Mask(48, 48))]), out / MASKS_FILE)
    (out / "rejected.csv").write_text("path,reason\nother.png,damaged\n", encoding="utf-8")
    (out / "journal.part").touch()
    assert digest(reshard.run(reshard.Options(source, out, EACH)).folder) == digest(source)


def test_a_copy_that_does_not_fit_advises_only_what_the_command_can_do(
    sharded: dataset_folder.DatasetFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1))
    with pytest.raises(OSError, match=r"0\.0 MB") as error:
        reshard.run(reshard.Options(sharded.folder, tmp_path / "out", EACH))
    assert "--size" not in str(error.value)


def test_what_cannot_be_resharded_is_refused(
    sharded: dataset_folder.DatasetFolder, index: Index, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"DATA.*--out.*--images-per-shard"):
        reshard.run(reshard.Options(images_per_shard=-1))
    writer.link(index, facts(index.root), tmp_path / "linked")
    with pytest.raises(ValueError, match=r"linked.*--link"):
        reshard.run(reshard.Options(tmp_path / "linked", tmp_path / "out"))
    for file in sharded.folder.iterdir():
        os.link(file, tmp_path / file.name)
    (tmp_path / "images-00001.npy").unlink()
    np.save(tmp_path / "images-00001.npy", np.zeros((EACH, SIZE, SIZE), np.uint8))
    with pytest.raises(ValueError, match=r"image 40\b"):
        reshard.run(reshard.Options(tmp_path, tmp_path / "out"))
    assert not (tmp_path / "out" / "dataset.json").exists()


def test_a_copy_has_only_tables_that_were_imported_with_the_images(index: Index, tmp_path: Path) -> None:
    opened = imported(index.take(range(6)), tmp_path / "in" / "data")
    dataset = opened.folder / "dataset.json"
    told = json.loads(dataset.read_text("utf-8"))
    dataset.write_text(json.dumps({**told, "tables": {**told["tables"], "../outside": ""}}), "utf-8")
    (tmp_path / "in" / "outside").touch()
    assert reshard.run(reshard.Options(opened.folder, tmp_path / "out" / "copy", 4)).facts.tables == told["tables"]
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["copy"]
    dataset.write_text(json.dumps({**told, "tables": {**told["tables"], MASKS_FILE: "0" * 32}}), "utf-8")
    save_masks(mask_frame([DrawnMask(0, "Heart", Mask(48, 48))]), opened.folder / MASKS_FILE)
    with pytest.raises(ValueError, match=MASKS_FILE):
        reshard.run(reshard.Options(opened.folder, tmp_path / "other", 4))
    changed, none = dataset_folder.open(opened.folder), np.empty(0, np.int64)
    with pytest.raises(ValueError, match=MASKS_FILE):
        curate.write(curate.Options(opened.folder, Path(), tmp_path / "other"), changed, none, none)
    assert not (tmp_path / "other").exists()
