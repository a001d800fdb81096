"""Block-wise shuffling: every image once per epoch, the same order for any number of processes, read block by block."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from batches import same_batch
from dataset_folders import make_store
from image_folders import images, imported

from ribcage.data.block_shuffle import LANES, BlockOrder, BlockShuffle, lane_sizes
from ribcage.data.collection import Datasets
from ribcage.data.dataset_folder import DatasetFolder
from ribcage.data.loader import Loader
from ribcage.data.sampling import Sampler, rows_of_addresses
from ribcage.imaging.augment import gentle_view, plain_view


class Rows(Datasets):
    """Folders of which only the numbers of images are known."""

    def __init__(self, *counts: int) -> None:
        object.__setattr__(self, "folders", tuple(range(count) for count in counts))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[DatasetFolder]:
    return [make_store(tmp_path_factory.mktemp("blocks"), count=count, size=24) for count in (70, 44)]


@pytest.mark.parametrize("batch", [1, 7, 8, 64, 5000])
@pytest.mark.parametrize("shuffle", [BlockShuffle(), BlockShuffle(16, 2), BlockShuffle(1, 1), BlockShuffle(1000, 50)])
def test_every_row_occurs_once_per_epoch(batch: int, shuffle: BlockShuffle) -> None:
    rows = np.flatnonzero(np.random.default_rng(0).random(3000) < 0.7)
    blocks = BlockOrder(Rows(1000, 3, 1997), shuffle, batch)
    first, second = (blocks.ordered(5, epoch, rows[::-1]) for epoch in (0, 1))
    assert np.array_equal(np.sort(first), rows) and np.array_equal(np.sort(second), rows)
    assert not np.array_equal(first, second) and (first != np.sort(first)).any()
    assert np.array_equal(first, blocks.ordered(5, 0, rows))
    assert lane_sizes(len(rows), batch).sum() == len(rows)


def test_the_order_is_that_of_earlier_versions() -> None:
    """A resumed run continues with the images that are left."""
    found = BlockOrder(Rows(40, 24), BlockShuffle(4, 2), 8).ordered(1, 2, np.arange(64))
    assert found[:16].tolist() == [8, 40, 28, 61, 53, 4, 39, 50, 16, 41, 30, 62, 0, 5, 21, 51]


def test_storage_is_read_in_few_blocks_at_a_time() -> None:
    shuffle, batch, count = BlockShuffle(32, 2), 16, 32 * 400
    blocks = BlockOrder(Rows(count), shuffle, batch).ordered(0, 0, np.arange(count)) // shuffle.rows
    first, last = np.unique(blocks, return_index=True)[1], count - 1 - np.unique(blocks[::-1], return_index=True)[1]
    uses = np.zeros(count + 1, np.int64)
    np.add.at(uses, first, 1)
    np.subtract.at(uses, last + 1, 1)
    assert np.cumsum(uses).max() <= LANES * (shuffle.window + 1)  # a window may begin and end within a block
    assert len(np.unique(blocks[:batch])) >= LANES  # each batch has images from all lanes


@pytest.mark.parametrize("world", [2, 4, 8])
def test_processes_read_different_blocks(world: int) -> None:
    shuffle, batch, count = BlockShuffle(32, 2), 16, 32 * 100
    order = BlockOrder(Rows(count), shuffle, batch).ordered(0, 0, np.arange(count))
    shares = np.split(order.reshape(-1, batch) // shuffle.rows, world, axis=1)
    assert sum(len(np.unique(share)) for share in shares) <= 100 + world - 1  # a block may lie between two


def test_all_processes_together_load_what_one_loads(folders: list[DatasetFolder]) -> None:
    how = {"batch": 12, "shuffle": BlockShuffle(8, 2), "seed": 3}
    alone = list(Loader(folders, [gentle_view(16)], **how).epoch(1))  # type: ignore[arg-type]
    ranks = [list(Loader(folders, [gentle_view(16)], rank=rank, world=2, **how).epoch(1)) for rank in range(2)]  # type: ignore[arg-type]
    assert len(alone) == len(ranks[0]) == len(ranks[1]) == -(-114 // 12)
    for whole, *shares in zip(alone, *ranks, strict=True):
        assert torch.equal(whole.rows, torch.cat([share.rows for share in shares]))
        assert torch.equal(whole.views[0], torch.cat([share.views[0] for share in shares]))


def test_an_epoch_is_resumed_at_any_step(folders: list[DatasetFolder]) -> None:
    loader = Loader(folders, [gentle_view(16)], batch=10, shuffle=BlockShuffle(8, 2), drop_last=True)
    whole = list(loader.epoch(2))
    for start in (1, 7):
        rest = list(
            Loader(folders, [gentle_view(16)], batch=10, shuffle=BlockShuffle(8, 2), drop_last=True).epoch(2, start)
        )
        assert len(rest) == len(whole) - start
        assert all(same_batch(one, other) for one, other in zip(rest, whole[start:], strict=True))


def test_shards_do_not_change_the_batches(tmp_path: Path) -> None:
    index = images(tmp_path / "in", 60)
    stored = [imported(index, tmp_path / str(each), images_per_shard=each) for each in (0, 7)]
    for shuffle in (True, BlockShuffle(16, 2)):
        one, other = (list(Loader([folder], [plain_view(32)], batch=16, shuffle=shuffle).epoch(0)) for folder in stored)
        assert all(same_batch(left, right) for left, right in zip(one, other, strict=True))


def test_weights_draw_the_same_rows_in_the_order_of_blocks() -> None:
    rows, weights = np.arange(500), np.random.default_rng(0).random(500)
    drawn = Sampler(rows, 0, True, weights)
    blocks = replace(drawn, blocks=BlockOrder(Rows(500), BlockShuffle(50, 1), 8))
    found, addresses = drawn.order(3), blocks.order(3)
    assert np.array_equal(np.sort(found), np.sort(addresses)) and not np.array_equal(found, addresses)
    assert len(np.unique(rows_of_addresses(addresses)[:8] // 50)) <= LANES


def test_batches_of_patients_in_order_are_as_random_as_those_of_single_rows() -> None:
    """The labels of patients, whose images follow each other, vary between batches as in random order."""
    count, batch = 64_000, 64
    labels = np.repeat(np.random.default_rng(0).random(count // 4) < 0.2, 4)
    order = BlockOrder(Rows(count), BlockShuffle(), batch).ordered(0, 0, np.arange(count))
    means = labels[order].reshape(-1, batch).mean(axis=1)
    expected = np.sqrt(labels.mean() * (1 - labels.mean()) / batch)
    assert 0.94 < means.std() / expected < 1.12  # 1,000 batches: ± 2.2 % standard error, and a few percent for patients
    assert abs(np.corrcoef(means[:-1], means[1:])[0, 1]) < 0.12


def test_the_option_is_parsed() -> None:
    assert BlockShuffle.parse("rows") is None and BlockShuffle.parse("blocks") == BlockShuffle()
    assert BlockShuffle.parse("blocks:64:3") == BlockShuffle(64, 3)
    for text in ("", "row", "blocks:", "blocks:0", "blocks:1:2:3", "rows:4", "blocks:-1", "blocks:1e3", "blocks:٣"):
        with pytest.raises(ValueError, match="--shuffle"):
            BlockShuffle.parse(text)
