"""Batches of a loader: the same patient's images, views of a student and a teacher, boxes that views cut off."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from batches import joined_batches, same_batch
from dataset_folders import make_store

from ribcage.data.batch import BatchInProgress
from ribcage.data.collection import Datasets
from ribcage.data.dataset_folder import DatasetFolder
from ribcage.data.loader import Loader
from ribcage.data.sampling import repeats
from ribcage.imaging import augment
from ribcage.imaging.augment import View, plain_view, strong_view
from ribcage.runtime.array_pool import ArrayPool


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> DatasetFolder:
    return make_store(tmp_path_factory.mktemp("loader"))


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> DatasetFolder:
    return make_store(tmp_path_factory.mktemp("loader"), count=30, size=64, depth=16, findings=("Edema", "Hernia"))


# ---- patients


def test_patients_are_equal_where_the_patient_is_and_nobody_is_nobody_else(dataset: DatasetFolder) -> None:
    batch = next(Loader([dataset, dataset], [plain_view(32)], batch=2 * len(dataset), shuffle=False).epoch(0))
    names = np.tile(dataset.index.table["patient"].to_numpy(), 2)
    codes = batch.patients.numpy()
    same = codes[:, None] == codes[None]
    assert np.array_equal(
        same, (names[:, None] == names[None]) & (names[:, None] != "") | np.eye(len(names), dtype=bool)
    )


def test_repeats_of_a_row_are_counted() -> None:
    assert repeats(np.array([5, 4, 5, 0, 4, 5, 6])).tolist() == [0, 0, 1, 0, 1, 2, 0]


def test_the_other_views_show_images_of_the_same_patient(dataset: DatasetFolder) -> None:
    chosen = Datasets.of([dataset]).rows_of("train")
    loader = Loader(
        [dataset], [plain_view(48), plain_view(48), plain_view(48)], batch=8, rows=chosen, same_patient=True
    )
    batches = [batch for epoch in range(4) for batch in loader.epoch(epoch)]
    names, other = dataset.index.table["patient"].to_numpy(), 0
    shown = {dataset.images[row].tobytes(): row for row in range(len(dataset))}
    for batch in batches:
        images = [
            (view[:, 0] * dataset.std + dataset.mean).mul(255).round().to(torch.uint8).numpy() for view in batch.views
        ]
        assert np.array_equal(images[1], images[2])
        for row, first, second in zip(batch.rows.tolist(), images[0], images[1], strict=True):
            assert shown[first.tobytes()] == row
            mate = shown[second.tobytes()]
            assert mate in chosen and (names[mate] == names[row] != "" or mate == row)
            other += mate != row
    assert other > 8


def test_random_numbers_of_an_image_do_not_depend_on_ranks(dataset: DatasetFolder) -> None:
    views = [strong_view(24), strong_view(24)]
    parts = [Loader([dataset], views, batch=8, rank=rank, world=2, same_patient=True) for rank in range(2)]
    whole = Loader([dataset], views, batch=8, same_patient=True)
    for left, right, together in zip(parts[0].epoch(1), parts[1].epoch(1), whole.epoch(1), strict=True):
        assert same_batch(joined_batches([left, right]), together)
        assert len(set(together.chance.tolist())) == len(together) and together.chance.min() >= 0


# ---- a student's and a teacher's view


def test_together_the_views_show_the_same_image_at_their_own_size(tmp_path: Path) -> None:
    """On the CPU and by the way of a GPU: the larger view, shrunk, is the smaller one."""
    large = make_store(tmp_path, count=24, size=96)
    small = View(24, crop=(0.6, 0.9), flip=0.5, rotation=10, shift=0.05, brightness=0.1, contrast=0.2, gamma=0.2)
    pair = [small, augment.resized_view(small, (48, 48))]

    def apart(together: bool) -> list[float]:
        loader = Loader([large], pair, batch=24, together=together, normalise=(0.0, 1.0), threads=1)
        made = [next(loader.epoch(2)).views]
        with ThreadPoolExecutor(1) as pool:
            loader.device = torch.device("meta")  # where no pixel may be made on the CPU
            making = BatchInProgress(loader, pool, ArrayPool(0), 2, loader.order(2))
            pieces = [piece.result() for piece in making.pieces]
            loader.device = torch.device("cpu")
            made.append(making._on_device(pieces))
        return [float((torch.nn.functional.avg_pool2d(two, 2) - one).abs().mean()) * 255 for one, two in made]

    assert max(apart(together=True)) < 2 and min(apart(together=False)) > 20


def test_together_the_first_view_is_what_it_is_alone(dataset: DatasetFolder) -> None:
    pair = Loader(
        [dataset], [strong_view(40), augment.resized_view(strong_view(40), (80, 80))], batch=16, together=True
    )
    alone = Loader([dataset], [strong_view(40)], batch=16)
    for both, one in zip(pair.epoch(1), alone.epoch(1), strict=True):
        assert torch.equal(both.views[0], one.views[0]) and torch.equal(both.rows, one.rows)


@pytest.mark.parametrize("policy", ["ignore", "ones,blank=zeros"])
def test_of_rows_that_are_not_labelled_nothing_is_known(dataset: DatasetFolder, policy: str) -> None:
    chosen, shown = Datasets.of([dataset]).rows_of("train"), Datasets.of([dataset]).rows_of("train")[::3]
    every, some = (
        Loader([dataset], [plain_view(48)], rows=chosen, policy=policy, labelled=labelled) for labelled in (None, shown)
    )
    known, left = every.labels(0, chosen), some.labels(0, chosen)
    inside = np.isin(chosen, shown)
    np.testing.assert_array_equal(left[inside], known[inside])
    assert np.isnan(left[~inside]).all() and not np.isnan(known[~inside]).all()
    assert sorted(torch.cat([one.rows for one in some.epoch(0)]).tolist()) == chosen.tolist()


# ---- boxes that do not come along


def test_boxes_that_the_view_does_not_show_are_counted_for_each_image(dataset: DatasetFolder) -> None:
    corner = View(24, crop=(0.2, 0.2))
    loader = Loader([dataset], [corner, plain_view(24)], batch=16, findings=("Mass",))
    lost = 0
    for batch in loader.epoch(1):
        shown, every = (torch.bincount(boxes[:, 0].long(), minlength=len(batch)) for boxes in batch.boxes)
        assert torch.equal(batch.dropped, every - shown)
        lost += int(batch.dropped.sum())
    assert 0 < lost < 17


def test_an_epochs_boxes_are_those_of_its_batches(dataset: DatasetFolder, other: DatasetFolder) -> None:
    loader = Loader([dataset, other], [strong_view(40)], batch=16, findings=("Mass", "Edema"))
    batches = [batch.boxes[0].numpy() for batch in loader.epoch(2)]
    for number, each in enumerate(batches):
        each[:, 0] += 16 * number
    every = loader.boxes(2)
    every = every[np.argsort(every[:, 0], kind="stable")]
    np.testing.assert_array_equal(every, np.concatenate(batches))
    assert len(every) > 10


def test_boxes_and_splits_of_a_second_set_are_counted_after_the_first(
    dataset: DatasetFolder, other: DatasetFolder
) -> None:
    batch = next(Loader([other, dataset], [plain_view(48)], batch=80, shuffle=False).epoch(0))
    assert batch.boxes[0][:, 0].tolist() == [*range(0, 30, 3), *range(30, 80, 3)]
    assert Datasets.of([other, dataset]).rows_of("val").tolist() == list(range(1, 80, 2))
    assert Datasets.of([other, dataset]).rows_of("train").tolist() == list(range(0, 80, 2))


def test_where_labels_are_not_to_be_known_boxes_are_not_known(dataset: DatasetFolder) -> None:
    known = np.array([0, 3])
    batch = next(
        Loader([dataset], [plain_view(48)], batch=50, shuffle=False, labelled=known, findings=("Mass",)).epoch(0)
    )
    assert batch.boxes[0][:, 0].tolist() == [0, 3] and not batch.dropped.any()


def test_kept_maps_stand_for_images(dataset: DatasetFolder) -> None:
    class Answers:
        def take(self, rows: np.ndarray, flipped: np.ndarray) -> list[torch.Tensor]:
            return [torch.from_numpy(rows * 2 + flipped)]

    view = replace(plain_view(24), flip=0.5)
    loaders = [Loader([dataset], [view], batch=16) for _ in range(2)]
    loaders[1].cached = Answers()
    for one, two in zip(*(loader.epoch(3) for loader in loaders), strict=True):
        flipped = augment.draw_numbers(view, 0, 3, one.rows.numpy(), 0, 48).flipped
        assert np.array_equal(two.maps[0].numpy(), one.rows.numpy() * 2 + flipped)
        assert two.views[0].shape == (len(one), 0, 24, 24)
        assert same_batch(replace(one, views=two.views), two)
