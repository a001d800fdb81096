"""Sharded dataset folders on a real S3 server on loopback: what is downloaded, and trainings equal to local ones."""

import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from batches import same_batch
from image_folders import images, imported
from remote_servers import FaultProxy
from trainings import words

from ribcage import cli
from ribcage.data import dataset_folder, image_store
from ribcage.data.block_shuffle import LANES, BlockShuffle
from ribcage.data.collection import Datasets
from ribcage.data.dataset_folder import DatasetFolder
from ribcage.data.loader import Loader
from ribcage.imaging.augment import plain_view
from ribcage.runtime.remote import cache, objects
from ribcage.training import setup

EACH, COUNT = 4, 128
SHARD = EACH * 32 * 32 + 128
"""Bytes of a shard."""


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> DatasetFolder:
    root = tmp_path_factory.mktemp("shards")
    index = images(root / "in", COUNT)
    split = ["val" if row % 8 < 2 else "train" for row in range(COUNT)]  # two images per patient
    return imported(replace(index, table=index.table.assign(split=split)), root / "out", images_per_shard=EACH)


def on_s3(local: DatasetFolder, name: str) -> DatasetFolder:
    address = f"s3://xray/{name}"
    objects.upload_folder(local.folder, address, [file.name for file in local.folder.iterdir()], "dataset.json")
    return dataset_folder.open(address)


def downloads(s3: FaultProxy) -> dict[str, int]:
    """Number of downloads of each shard."""
    names = [line.rpartition("/")[2].partition("?")[0] for line in s3.requests if line.startswith("GET")]
    return {name: names.count(name) for name in names if name.startswith("images-")}


def test_blocks_of_the_size_of_a_shard_are_downloaded_once_per_epoch(
    s3: FaultProxy, local: DatasetFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote, shuffle = on_s3(local, "once"), BlockShuffle(EACH, 1)
    monkeypatch.setenv(cache.SIZE_VARIABLE, str(cache.used_bytes() + 5 * LANES * SHARD // 2))  # of 4 · LANES
    s3.heal()
    found = list(Loader([remote], [plain_view(32)], batch=8, shuffle=shuffle, threads=1).epoch(0))
    counts = downloads(s3)
    assert len(counts) == COUNT // EACH == 4 * LANES
    assert sum(counts.values()) <= len(counts) + LANES  # a window may begin and end within a block
    assert not [line for line in s3.requests if line.startswith("HEAD") and "images-" in line], "one request is enough"
    expected = Loader([local], [plain_view(32)], batch=8, shuffle=shuffle, threads=1).epoch(0)
    assert all(same_batch(one, other) for one, other in zip(found, expected, strict=True))


def test_shards_are_downloaded_before_they_are_needed_and_only_those_of_the_process(
    s3: FaultProxy, local: DatasetFolder
) -> None:
    remote = on_s3(local, "ahead")
    s3.heal()
    loader = Loader([remote], [plain_view(32)], batch=8, shuffle=BlockShuffle(8, 1), threads=1, rank=1, world=2)
    batches = loader.epoch(0)
    first = next(batches)
    batches.close()
    needed = {f"images-{row // EACH:05d}.npy" for row in first.rows.tolist()}
    order = loader.order(0).reshape(-1, 8)[:, 4:]
    own = {f"images-{row // EACH:05d}.npy" for row in order.ravel().tolist()}
    assert needed < set(downloads(s3)) <= own
    assert len(own) <= COUNT // EACH // 2 + 2 * LANES


def test_a_full_cache_does_not_stop_the_loader(
    s3: FaultProxy, local: DatasetFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote = on_s3(local, "full")
    monkeypatch.setenv(cache.SIZE_VARIABLE, str(cache.used_bytes() + 20 * SHARD))  # a batch has images of 16 shards
    batches = list(Loader([remote], [plain_view(32)], batch=16, threads=1, prefetch=0, drop_last=True).epoch(0))
    assert np.array_equal(np.sort(np.concatenate([one.rows for one in batches])), np.arange(COUNT))


def test_a_download_that_fails_is_repeated_when_the_images_are_read(s3: FaultProxy, local: DatasetFolder) -> None:
    remote = on_s3(local, "repeated")
    s3.fault("cut", where="images-", times=3)
    found = Loader([remote], [plain_view(32)], batch=32, shuffle=False, threads=1).epoch(0)
    expected = Loader([local], [plain_view(32)], batch=32, shuffle=False, threads=1).epoch(0)
    assert all(same_batch(one, other) for one, other in zip(found, expected, strict=True))


def test_a_training_that_was_stopped_on_s3_equals_a_local_one_bit_for_bit(
    s3: FaultProxy, local: DatasetFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_s3(local, "run")
    more = ["--shuffle", f"blocks:{2 * EACH}:2"]
    assert cli.main(words(local.folder, tmp_path / "local", *more)) == 0
    announce, steps = Loader._prefetch, []

    def stopping(loader: Loader, *words: object) -> None:
        steps.append(words[-1])
        if len(steps) == 5:
            os.kill(os.getpid(), signal.SIGTERM)
        announce(loader, *words)  # type: ignore[arg-type]

    monkeypatch.setattr(Loader, "_prefetch", stopping)
    line = words("s3://xray/run", tmp_path / "remote", *more)
    assert cli.main(line) == 75 and not (tmp_path / "remote" / "bundle").exists()
    s3.fault("cut", where="images-", times=1)
    assert cli.main([*line, "--resume"]) == 0
    one, other = ((tmp_path / name / "bundle" / "model.safetensors").read_bytes() for name in ("local", "remote"))
    assert one == other


def test_starting_a_training_downloads_no_images(s3: FaultProxy, local: DatasetFolder) -> None:
    remote = on_s3(local, "start")
    s3.heal()
    Datasets.of([remote]).require_intact(np.arange(COUNT))
    assert not downloads(s3)


def test_who_reads_at_random_from_more_shards_than_fit_into_the_cache_is_told(
    s3: FaultProxy, local: DatasetFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote = on_s3(local, "warned")
    for size, shuffle, data, said in (
        (10 * SHARD, "rows", remote, True), (10 * SHARD, "blocks", remote, False), (99 * SHARD, "rows", remote, False),
        (10 * SHARD, "rows", local, False),
    ):  # fmt: skip
        monkeypatch.setenv(cache.SIZE_VARIABLE, str(size))
        assert ("--shuffle blocks" in setup.download_warning(shuffle, Datasets.of([data]))) == said


def test_a_download_of_one_large_file_is_announced_with_its_remedy(
    s3: FaultProxy,
    local: DatasetFolder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(image_store, "LARGE_FILE", COUNT * 32 * 32 - 1)
    assert cli.main(["reshard", str(local.folder), "--out", str(tmp_path / "one"), "--images-per-shard", "0"]) == 0
    for name in ("one", "sharded"):
        on_s3(dataset_folder.open(tmp_path / "one") if name == "one" else local, name)
    assert [("ribcage reshard" in one.message, "s3://xray/one" in one.message) for one in caplog.records] == [
        (True, True)
    ]
    dataset_folder.open("s3://xray/one")
    assert len(caplog.records) == 1, "nothing is downloaded"


def test_a_remote_folder_is_resharded_to_a_local_one(s3: FaultProxy, local: DatasetFolder, tmp_path: Path) -> None:
    remote = on_s3(local, "resharded")
    words = ["reshard", "s3://xray/resharded", "--out", str(tmp_path / "out"), "--images-per-shard", "0"]
    assert cli.main(words) == 0
    whole = dataset_folder.open(tmp_path / "out")
    assert np.array_equal(whole.images[:], local.images[:]) and whole.facts.tables == remote.facts.tables
