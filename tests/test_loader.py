import gc
import threading
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from batches import joined_batches, same_batch
from dataset_folders import make_store

from ribcage.data.batch import BatchInProgress
from ribcage.data.collection import Datasets
from ribcage.data.dataset_folder import DatasetFolder
from ribcage.data.image_store import ArrayStore
from ribcage.data.label_policy import Policy
from ribcage.data.loader import Loader
from ribcage.imaging import augment
from ribcage.imaging.augment import View, gentle_view, plain_view, strong_view
from ribcage.runtime import rng
from ribcage.runtime.array_pool import ArrayPool


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> DatasetFolder:
    return make_store(tmp_path_factory.mktemp("loader"))


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> DatasetFolder:
    return make_store(tmp_path_factory.mktemp("loader"), count=30, size=64, depth=16, findings=("Edema", "Hernia"))


@pytest.fixture(autouse=True)
def opencv_threads() -> Iterator[None]:
    before = cv2.getNumThreads()
    yield
    cv2.setNumThreads(before)


TWO_VIEWS = [replace(strong_view(40), erase_probability=0.5), gentle_view((32, 40))]
SMOOTH = Policy(uncertain="ones+lsr")


def test_an_epoch_shows_every_chosen_image_once(dataset: DatasetFolder) -> None:
    chosen = Datasets.of([dataset]).rows_of("train")
    batches = list(Loader([dataset], [plain_view(48)], batch=8, rows=chosen).epoch(0))
    assert [len(batch) for batch in batches] == [8, 8, 8, 1]
    assert sorted(torch.cat([batch.rows for batch in batches]).tolist()) == chosen.tolist()


def test_a_plain_view_is_the_stored_image_normalised(dataset: DatasetFolder) -> None:
    batch = next(Loader([dataset], [plain_view(48)], batch=5, shuffle=False).epoch(0))
    expected = (dataset.images[:5] / 255 - dataset.mean) / dataset.std
    assert batch.views[0].shape == (5, 1, 48, 48) and batch.views[0].dtype == torch.float32
    np.testing.assert_allclose(batch.views[0][:, 0], expected, atol=1e-6)


def test_order_changes_with_epoch_and_seed_only(dataset: DatasetFolder) -> None:
    loader = Loader([dataset], [plain_view(48)], seed=1)
    assert np.array_equal(loader.order(0), Loader([dataset], [plain_view(48)], seed=1, batch=3, threads=3).order(0))
    assert not np.array_equal(loader.order(0), loader.order(1))
    assert not np.array_equal(loader.order(0), Loader([dataset], [plain_view(48)], seed=2).order(0))
    assert np.array_equal(Loader([dataset], [plain_view(48)], shuffle=False).order(5), np.arange(50))


@pytest.mark.parametrize("threads", [2, 8])
def test_threads_do_not_change_a_bit(dataset: DatasetFolder, other: DatasetFolder, threads: int) -> None:
    batches = [
        list(Loader([dataset, other], TWO_VIEWS, batch=36, policy=SMOOTH, threads=n, prefetch=n).epoch(3))
        for n in (1, threads)
    ]
    assert len(batches[0]) == 3
    assert all(same_batch(one, many) for one, many in zip(*batches, strict=True))


def test_four_ranks_hold_what_one_holds(dataset: DatasetFolder, other: DatasetFolder) -> None:
    whole = list(Loader([dataset, other], TWO_VIEWS, batch=36, policy=SMOOTH).epoch(1))
    ranks = [Loader([dataset, other], TWO_VIEWS, batch=36, policy=SMOOTH, rank=r, world=4).epoch(1) for r in range(4)]
    shared = [joined_batches(parts) for parts in zip(*ranks, strict=True)]
    assert [len(batch) for batch in shared] == [36, 36, 8]
    assert all(same_batch(one, many) for one, many in zip(whole, shared, strict=True))


def test_the_last_batch_is_shared_without_repeating_an_image(dataset: DatasetFolder) -> None:
    ranks = [
        list(Loader([dataset], [plain_view(48)], batch=16, shuffle=False, rank=r, world=4).epoch(0)) for r in range(4)
    ]
    assert [len(rank[-1]) for rank in ranks] == [0, 1, 0, 1]
    assert ranks[0][-1].views[0].shape == (0, 1, 48, 48)
    assert ranks[0][-1].boxes[0].shape == (0, 6)


@pytest.mark.parametrize("start", [0, 1, 4, 7])
def test_resuming_in_mid_epoch_gives_the_same_bits(dataset: DatasetFolder, start: int) -> None:
    whole = list(Loader([dataset], TWO_VIEWS, batch=8, policy=SMOOTH).epoch(2))
    rest = list(Loader([dataset], TWO_VIEWS, batch=8, policy=SMOOTH).epoch(2, start=start))
    assert len(rest) == len(whole) - start
    assert all(same_batch(a, b) for a, b in zip(whole[start:], rest, strict=True))


def test_epochs_and_views_differ(dataset: DatasetFolder) -> None:
    loader = Loader([dataset], [strong_view(40), strong_view(40)], batch=50, shuffle=False)
    first, second = next(loader.epoch(0)), next(loader.epoch(1))
    assert not torch.equal(first.views[0], first.views[1])
    assert not torch.equal(first.views[0], second.views[0])


def test_sets_of_other_size_and_depth_come_in_one_batch(dataset: DatasetFolder, other: DatasetFolder) -> None:
    batch = next(Loader([dataset, other], [plain_view(32)], batch=80).epoch(0))
    assert sorted(batch.sources.tolist()) == [0] * 50 + [1] * 30
    for place in np.flatnonzero(batch.sources.numpy() == 1)[:5]:
        image = other.images[batch.rows[place] - 50]
        expected = (cv2.resize(image, (32, 32), interpolation=cv2.INTER_AREA) / 65535 - other.mean) / other.std
        np.testing.assert_allclose(batch.views[0][place, 0], expected, atol=1e-4)


def test_one_normalisation_can_serve_all_sets(dataset: DatasetFolder) -> None:
    batch = next(Loader([dataset], [plain_view(48)], batch=4, shuffle=False, normalise=(0.0, 1.0)).epoch(0))
    np.testing.assert_allclose(batch.views[0][:, 0], dataset.images[:4] / 255, atol=1e-6)


def test_a_policy_for_one_dataset_applies_to_its_images(dataset: DatasetFolder, other: DatasetFolder) -> None:
    second = replace(other, index=replace(other.index, name="second"))

    def labels(policy: str) -> np.ndarray:
        loader = Loader([dataset, second], [plain_view(48)], batch=80, shuffle=False, policy=policy)
        return next(loader.epoch(0)).labels.numpy()

    named, plain, ones = (labels(text) for text in ("ignore,second:ones+lsr", "ignore", "ones+lsr"))
    np.testing.assert_array_equal(named[: len(dataset)], plain[: len(dataset)])
    np.testing.assert_array_equal(named[len(dataset) :], ones[len(dataset) :])


def test_a_set_without_a_finding_gives_nan_whatever_the_policy(dataset: DatasetFolder, other: DatasetFolder) -> None:
    loader = Loader([dataset, other], [plain_view(48)], batch=80, shuffle=False, policy=Policy("ones", blank="zeros"))
    labels = next(loader.epoch(0)).labels.numpy()
    assert loader.findings == ("Mass", "Edema", "Hernia")
    assert np.isnan(labels[:50, 2]).all() and np.isnan(labels[50:, 0]).all()
    stored = dataset.index.labels
    expected = np.where(stored == -1, 1, np.nan_to_num(stored))
    assert np.array_equal(labels[:50, :2], expected)


def test_findings_come_in_the_order_asked_for(dataset: DatasetFolder) -> None:
    labels = next(
        Loader([dataset], [plain_view(48)], batch=50, shuffle=False, findings=("Edema", "Mass")).epoch(0)
    ).labels
    expected = np.where(dataset.index.labels == -1, np.nan, dataset.index.labels)[:, ::-1]
    assert np.array_equal(labels.numpy(), expected, equal_nan=True)


def test_boxes_follow_the_image(tmp_path: Path) -> None:
    dataset = make_store(tmp_path, count=12)
    images = np.zeros((12, 48, 48), np.uint8)
    images[:, 8:24, 10:30] = 255  # exactly where the boxes are
    view = View(64, crop=(0.9, 1.0), flip=0.5, rotation=0.0, shift=0.05)
    batch = next(Loader([replace(dataset, images=ArrayStore(images))], [view], batch=12, normalise=(0.0, 1.0)).epoch(0))
    assert len(batch.boxes[0]) == 4
    for n, finding, x0, y0, x1, y1 in batch.boxes[0].tolist():
        assert batch.rows[int(n)] % 3 == 0 and finding == 0
        ys, xs = np.nonzero(batch.views[0][int(n), 0].numpy() > 0.5)
        np.testing.assert_allclose([x0, y0, x1, y1], [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1], atol=0.51)


def test_boxes_of_findings_not_asked_for_stay_away(dataset: DatasetFolder) -> None:
    batch = next(Loader([dataset], [plain_view(48)], batch=50, findings=("Edema",)).epoch(0))
    assert len(batch.boxes[0]) == 0


def test_weights_per_set_share_the_epoch(dataset: DatasetFolder, other: DatasetFolder) -> None:
    loader = Loader([dataset, other], [plain_view(48)], weights=(1, 3), rows=np.tile(np.arange(80), 100))
    drawn = loader.data.source(loader.order(0) & 0xFFFFFFFF)
    assert abs((drawn == 1).mean() - 0.75) < 0.02


def test_an_image_drawn_twice_has_two_views(dataset: DatasetFolder) -> None:
    weights = np.zeros(50)
    weights[7] = 1
    batch = next(Loader([dataset], [strong_view(40)], batch=4, weights=weights).epoch(0))
    assert batch.rows.tolist() == [7] * 4
    assert len(torch.unique(batch.views[0].flatten(1), dim=0)) == 4


def test_three_channels_repeat_one_without_a_copy(dataset: DatasetFolder) -> None:
    view = next(Loader([dataset], [plain_view(48)], batch=4, channels=3).epoch(0)).views[0]
    assert view.shape == (4, 3, 48, 48) and view.stride(1) == 0
    assert torch.equal(view[:, 0], view[:, 2])


def test_drop_last_leaves_the_rest_out(dataset: DatasetFolder) -> None:
    loader = Loader([dataset], [plain_view(48)], batch=16, drop_last=True)
    assert len(loader) == 3 == len(list(loader.epoch(0)))


def test_a_linked_folder_is_read_from_its_files(tmp_path: Path) -> None:
    stored, linked = make_store(tmp_path / "a", count=10), make_store(tmp_path / "b", count=10, linked=True)
    left, right = (next(Loader([each], [gentle_view(40)], batch=10).epoch(0)) for each in (stored, linked))
    assert same_batch(left, right)


def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    dataset = make_store(tmp_path, count=10, linked=True)
    (dataset.folder / "图 7.png").write_bytes(b"not an image")
    with pytest.raises(ValueError, match=r"Image 7 of .*图 7\.png"):
        list(Loader([dataset], [gentle_view(40)], batch=4).epoch(0))
    assert not loader_threads()


def loader_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("ribcage-loader")]


def test_closing_early_stops_the_threads(dataset: DatasetFolder) -> None:
    batches = Loader([dataset], [strong_view(40)], batch=2, threads=4, prefetch=6).epoch(0)
    next(batches)
    assert loader_threads()
    batches.close()  # type: ignore[attr-defined]
    assert not loader_threads()
    for _ in Loader([dataset], [strong_view(40)], batch=2).epoch(0):
        break
    gc.collect()
    assert not loader_threads()


def test_opencv_starts_no_threads_beneath_ours(dataset: DatasetFolder) -> None:
    cv2.setNumThreads(2)
    next(Loader([dataset], [plain_view(48)]).epoch(0))
    assert cv2.getNumThreads() == 1


def test_memory_does_not_grow_with_threads(dataset: DatasetFolder) -> None:
    def peak(threads: int) -> int:
        loader = Loader([dataset], [plain_view(256)], batch=10, threads=threads, prefetch=1)
        next(loader.epoch(0))
        tracemalloc.start()
        for _ in loader.epoch(0):
            pass
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    batch = 10 * 256 * 256 * 4
    for threads in (1, 8):
        assert peak(threads) < 3.5 * batch  # one in use, one ahead and one in the making


def test_the_way_of_a_gpu_gives_the_same_batch(dataset: DatasetFolder, other: DatasetFolder) -> None:
    loader = Loader([dataset, other], TWO_VIEWS, batch=80, policy=SMOOTH)
    expected = next(loader.epoch(0))
    with ThreadPoolExecutor(2) as pool:
        loader.device = torch.device("meta")  # where no pixel may be made on the CPU
        making = BatchInProgress(loader, pool, ArrayPool(0), 0, loader.order(0))
        pieces = [piece.result() for piece in making.pieces]
        loader.device = torch.device("cpu")
        made = making._on_device(pieces)
    assert not making.arrays
    for one, two in zip(made, expected.views, strict=True):
        assert (one - two).abs().mean() * 255 * dataset.std < 0.05


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"findings": ("Mas",)}, "Mas; .*Mass, Edema"),
        ({"rows": np.array([], int)}, "No row"),
        ({"rows": np.array([50])}, "0 … 49.* 50 … 50"),
        ({"batch": 10, "world": 4}, r"batch .*\b4\b.* 10"),
        ({"batch": 0, "threads": 0}, "batch .* 0.* threads .* 0"),
        ({"rank": 2, "world": 2}, "rank .*0 to 1.* 2"),
        ({"channels": 2}, "channels .* 1 or 3.* 2"),
        ({"batch": 64, "drop_last": True}, "50 images .*batch of 64"),
        ({"weights": (1, 2, 3)}, "per dataset.* 3 values"),
    ],
)
def test_wrong_options_are_named_in_one_line(dataset: DatasetFolder, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        Loader([dataset], [plain_view(48)], **options)
    assert "\n" not in str(error.value)


def test_a_step_beyond_the_epoch_is_refused(dataset: DatasetFolder) -> None:
    with pytest.raises(ValueError, match=r"\b7\b.* 8"):
        Loader([dataset], [plain_view(48)], batch=8).epoch(0, start=8)


def test_pixels_are_those_that_views_draws_for_the_row(dataset: DatasetFolder) -> None:
    batch = next(Loader([dataset], [plain_view(48), gentle_view(40)], batch=6, seed=9).epoch(4))
    rows = batch.rows.numpy()
    numbers = augment.draw_numbers(gentle_view(40), 9, 4, rows, 1, 48)
    assert torch.equal(batch.views[1], augment.apply(dataset.images[rows], numbers, dataset.mean, dataset.std))
    assert np.array_equal(rows, rng.permutation(9, 4, 50)[:6])


def test_a_mask_chooses_the_rows_where_it_is_true(dataset: DatasetFolder) -> None:
    """A mask taken for row numbers would load rows 0 and 1 again and again."""
    mask = np.zeros(len(dataset), bool)
    mask[[2, 5]] = True
    assert Loader([dataset], [plain_view(16)], rows=mask).rows.tolist() == [2, 5]
    with pytest.raises(ValueError, match="49 booleans"):
        Loader([dataset], [plain_view(16)], rows=mask[:-1])
    with pytest.raises(ValueError, match="not float64"):
        Loader([dataset], [plain_view(16)], rows=np.array([0.0, 1.0]))


def test_a_policy_may_be_text(dataset: DatasetFolder) -> None:
    assert str(Loader([dataset], [plain_view(16)], policy="ones").policy) == "ones"


def test_one_dataset_instead_of_a_list_is_refused(dataset: DatasetFolder) -> None:
    with pytest.raises(ValueError, match="list"):
        Loader(dataset, [plain_view(16)])  # type: ignore[arg-type]
