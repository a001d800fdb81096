"""Options of a loader at their bounds, and what is drawn anew in every epoch."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from batches import same_batch
from dataset_folders import make_store

from ribcage.data import loader as loader_module
from ribcage.data.batch import BatchInProgress
from ribcage.data.collection import Datasets
from ribcage.data.dataset_folder import DatasetFolder
from ribcage.data.loader import Loader
from ribcage.data.sampling import SamePatient, class_weights
from ribcage.imaging.augment import plain_view
from ribcage.training import setup


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> DatasetFolder:
    return make_store(tmp_path_factory.mktemp("loader"))


def test_an_epoch_may_be_left_at_its_end_and_no_batch_be_made_ahead(dataset: DatasetFolder) -> None:
    loader = Loader([dataset], [plain_view(16)], batch=16, prefetch=0)
    assert len(list(loader.epoch(0))) == 4 and list(loader.epoch(0, start=4)) == []


@pytest.mark.parametrize(("rows", "says"), [([-1, 5], "-1 … 5"), ([], "No row")])
def test_rows_that_do_not_exist_are_refused(dataset: DatasetFolder, rows: list[int], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Loader([dataset], [plain_view(16)], rows=np.array(rows))


@pytest.mark.parametrize(("cores", "threads"), [(3, 3), (64, 8)])
def test_there_is_a_thread_for_each_core_and_eight_at_most(
    dataset: DatasetFolder, monkeypatch: pytest.MonkeyPatch, cores: int, threads: int
) -> None:
    monkeypatch.setattr(loader_module, "available_cores", lambda: cores)
    assert Loader([dataset], [plain_view(16)]).threads == threads


@pytest.mark.parametrize("ahead", [0, 2])
def test_as_many_batches_are_made_ahead_as_asked_for(
    dataset: DatasetFolder, monkeypatch: pytest.MonkeyPatch, ahead: int
) -> None:
    made = []

    class Counted(BatchInProgress):
        def __init__(self, *about: Any) -> None:
            made.append(about)
            super().__init__(*about)

    monkeypatch.setattr(loader_module, "BatchInProgress", Counted)
    batches = Loader([dataset], [plain_view(16)], batch=5, prefetch=ahead).epoch(0)
    next(batches)
    assert len(made) == ahead + 1
    batches.close()  # type: ignore[attr-defined]


LABELS = np.array([[1, 0], [1, 1], [0, np.nan], [0, 0], [np.nan, np.nan], [1, 0]], np.float32)


def test_a_class_is_drawn_first_and_then_an_image_of_it() -> None:
    """Three positives of the first finding, one of the second, three images without any."""
    assert class_weights(LABELS) * 9 == pytest.approx([1, 1 + 3, 1, 1, 1, 1])
    assert class_weights(LABELS[[0, 1, 5]]) * 6 == pytest.approx([1, 1 + 3, 1]), "a class without images is none"
    assert class_weights(LABELS[:, :0]) * 6 == pytest.approx(np.ones(6))


def test_class_aware_sampling_draws_rare_findings_as_often_as_others(dataset: DatasetFolder) -> None:
    """Only the order changes; it depends on neither ranks nor the step of a resumed run."""
    rare = replace(
        dataset, index=replace(dataset.index, findings=("Rare",), table=dataset.index.table.assign(Rare=0.0))
    )
    rare.index.table.loc[7, "Rare"] = 1.0
    loaders = [Loader([rare], [plain_view(8)], batch=10, world=2, rank=rank) for rank in (0, 1)]
    for loader in loaders:
        setup.sample_by_class(loader)
    drawn = np.concatenate([loaders[0].order(epoch) & 0xFFFFFFFF for epoch in range(40)])
    assert (drawn == 7).mean() == pytest.approx(0.5, abs=0.05)
    parts = [
        np.concatenate([one.rows.numpy() for one in batches])
        for batches in zip(*(one.epoch(3) for one in loaders), strict=True)
    ]
    assert np.array_equal(np.concatenate(parts), loaders[0].order(3) & 0xFFFFFFFF)
    later = next(loaders[1].epoch(3, start=4))
    assert np.array_equal(later.rows.numpy(), parts[4][5:])


def test_an_early_stage_changes_the_views_and_nothing_else(dataset: DatasetFolder) -> None:
    """Rows, labels and the drawn numbers are those of a run without stages."""
    staged = Loader([dataset], [plain_view(16)], earlier=[(1, [plain_view(8)]), (3, [plain_view(12)])], batch=25)
    whole, small = (Loader([dataset], [plain_view(side)], batch=25) for side in (16, 8))
    sides = [next(staged.epoch(epoch)).views[0].shape[2] for epoch in range(5)]
    assert sides == [8, 12, 12, 16, 16]
    assert same_batch(next(staged.epoch(0)), next(small.epoch(0)))
    assert same_batch(next(staged.epoch(3, start=1)), next(whole.epoch(3, start=1)))
    first, last = next(staged.epoch(0)), next(whole.epoch(0))
    assert torch.equal(first.rows, last.rows) and torch.equal(first.chance, last.chance)


def test_what_is_drawn_for_an_image_differs_between_epochs(dataset: DatasetFolder) -> None:
    loader = Loader([dataset], [plain_view(16)] * 2, batch=50, shuffle=False, same_patient=True, policy="ones+lsr")
    first, second = (next(loader.epoch(epoch)) for epoch in (0, 1))
    assert torch.equal(first.rows, second.rows) and not (first.chance == second.chance).any()
    smoothed = (first.labels > 0) & (first.labels < 1)
    assert smoothed.any() and not (first.labels == second.labels)[smoothed].any()
    assert not torch.equal(first.views[1], second.views[1])  # another image of the same patient


def test_the_boxes_of_each_view_are_those_of_the_image_it_shows(dataset: DatasetFolder) -> None:
    loader = Loader([dataset], [plain_view(48)] * 2, batch=50, shuffle=False, same_patient=True)
    batch, shown = next(loader.epoch(0)), loader.same_patient_rows(0, np.arange(50))
    boxed = np.isin(np.arange(50), dataset.index.boxes["row"])
    assert (shown != np.arange(50)).any()
    for view, rows in enumerate((np.arange(50), shown)):
        assert batch.boxes[view][:, 0].tolist() == np.flatnonzero(boxed[rows]).tolist()
    assert not batch.dropped.any()


def test_a_dataset_of_one_grey_and_one_of_which_no_row_is_used_are_no_division_by_zero(dataset: DatasetFolder) -> None:
    flat = replace(dataset, facts=replace(dataset.facts, std=0.0))
    loader = Loader([flat, dataset], [plain_view(16)], batch=4, rows=np.arange(50), weights=(1, 1))
    batch = next(loader.epoch(0))
    assert batch.views[0].isfinite().all() and loader.scale(0)[1] == 1.0 and not batch.sources.any()


def test_another_image_of_a_patient_is_of_the_same_dataset(dataset: DatasetFolder) -> None:
    rows = np.array([1, 2, 51, 52])  # one patient in two folders
    drawn = SamePatient.of(Datasets.of([dataset, dataset]), rows)
    assert drawn.draw(rows, np.full(4, 0.99)).tolist() == [2, 2, 52, 52]
    assert drawn.draw(rows, np.zeros(4)).tolist() == [1, 1, 51, 51]
