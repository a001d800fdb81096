"""Predictions of rows do not depend on batches, order or processes."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import processes
import pytest
import torch
from dataset_folders import make_store

from ribcage.bundle.spec import ModelSpec
from ribcage.data.collection import Datasets
from ribcage.data.dataset_folder import DatasetFolder
from ribcage.imaging import augment
from ribcage.inference import predictions
from ribcage.inference.prediction_table import PredictionTable, read_predictions
from ribcage.inference.predictions import Predictions
from ribcage.methods.supervised import Supervised
from ribcage.models.backbone import Backbone
from ribcage.runtime import distributed, launcher

FINDINGS = ("Mass", "Edema")
MODEL = ModelSpec("test_resnet", FINDINGS, (32, 32), 48, "pad", 0.5, 0.25)


def answer(dataset: DatasetFolder, rows: np.ndarray | None = None, **options: object) -> Predictions:
    torch.manual_seed(0)
    method = Supervised(Backbone("test_resnet", size=(32, 32)), FINDINGS)
    torch.nn.init.normal_(method.head.weight)
    rows = np.arange(len(dataset)) if rows is None else rows
    return predictions.predict(method, Datasets.of([dataset]), rows, model=MODEL, threads=1, **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> DatasetFolder:
    return make_store(tmp_path_factory.mktemp("推理 inference"), count=26)


def test_logits_are_those_of_the_plain_view_normalised_by_the_model(dataset: DatasetFolder) -> None:
    said = answer(dataset, batch=8)
    torch.manual_seed(0)
    method = Supervised(Backbone("test_resnet", size=(32, 32)), FINDINGS)
    torch.nn.init.normal_(method.head.weight)
    numbers = augment.draw_numbers(augment.plain_view((32, 32)), 0, 0, np.arange(26), 0, dataset.size)
    with torch.no_grad():
        expected = method.eval().logits(augment.apply(np.asarray(dataset.images), numbers, 0.5, 0.25))
    np.testing.assert_allclose(said.logits, expected.numpy(), atol=1e-5)
    assert said.logits.dtype == np.float32


def test_ten_crops_give_the_mean_of_ten_probabilities(dataset: DatasetFolder) -> None:
    rows = np.arange(5)
    joint = answer(dataset, rows, ten_crop=True)
    torch.manual_seed(0)
    method = Supervised(Backbone("test_resnet", size=(32, 32)), FINDINGS)
    torch.nn.init.normal_(method.head.weight)
    method.eval()
    shares = []
    for number, view in enumerate(augment.ten_crops((32, 32))):
        numbers = augment.draw_numbers(view, 0, 0, rows, number, dataset.size)
        with torch.no_grad():
            shares.append(
                method.logits(augment.apply(np.asarray(dataset.images)[:5], numbers, 0.5, 0.25)).sigmoid().numpy()
            )
    np.testing.assert_allclose(joint.probabilities(), np.mean(shares, axis=0), atol=1e-6)
    assert np.abs(joint.logits - answer(dataset, rows).logits).max() > 1e-3


def test_rows_come_sorted_and_once_whatever_was_asked(dataset: DatasetFolder) -> None:
    said = answer(dataset, np.array([9, 3, 3, 20]))
    assert said.rows.tolist() == [3, 9, 20]
    np.testing.assert_allclose(said.logits, answer(dataset).logits[[3, 9, 20]], atol=1e-5)


def test_predicting_leaves_the_method_as_it_was(dataset: DatasetFolder) -> None:
    method = Supervised(Backbone("test_resnet", size=(32, 32)), FINDINGS).train()
    predictions.predict(method, Datasets.of([dataset]), np.arange(4), model=MODEL, threads=1)
    assert method.training and method.backbone.training


def test_no_rows_are_one_clear_line(dataset: DatasetFolder) -> None:
    with pytest.raises(ValueError, match=r"(?i)no image"):
        answer(dataset, np.array([], np.int64))


def one_of_two(folder: Path) -> None:
    with launcher.started():
        torch.set_num_threads(1)
        said = answer(make_store(folder / f"rank {distributed.rank()}", count=26), batch=4)
        if distributed.rank() == 0:
            found = {"rows": torch.from_numpy(said.rows), "logits": torch.from_numpy(said.logits)}
            torch.save(found, folder / "said.pt")
        else:
            assert len(said.rows) == 0


@pytest.mark.slow
def test_predictions_of_two_processes_equal_those_of_one(dataset: DatasetFolder, tmp_path: Path) -> None:
    processes.together(one_of_two, tmp_path, said=tmp_path / "said")
    theirs = torch.load(tmp_path / "said.pt", weights_only=True)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    alone = answer(dataset, batch=4)
    torch.set_num_threads(before)
    assert theirs["rows"].tolist() == alone.rows.tolist()
    assert np.array_equal(theirs["logits"].numpy(), alone.logits)


def test_findings_that_exclude_each_other_get_a_softmax() -> None:
    logits = np.array([[1.0, 2.0, -1.0], [0.0, 0.0, 60.0]], np.float32)
    said = Predictions(("a", "b", "c"), np.arange(2), logits, exclusive=True)
    assert np.allclose(said.probabilities().sum(axis=1), 1)
    p = said.probabilities()[0]
    np.testing.assert_allclose(said.log_odds()[0], np.log(p / (1 - p)), atol=1e-12)
    np.testing.assert_allclose(said.log_odds()[1, 2], 60 - np.log(2), atol=1e-6)
    np.testing.assert_allclose(said.probabilities((2.0, 2.0, 2.0)), replace(said, logits=logits / 2).probabilities())


def test_temperature_divides_the_logits_of_its_finding() -> None:
    said = Predictions(("a", "b"), np.arange(1), np.array([[2.0, 2.0]], np.float32))
    np.testing.assert_allclose(said.probabilities((1.0, 4.0)), 1 / (1 + np.exp([[-2.0, -0.5]])))


def test_labels_are_nan_where_a_set_does_not_have_the_finding(tmp_path: Path, dataset: DatasetFolder) -> None:
    other = make_store(tmp_path, count=10, findings=("Edema",))
    data, rows = Datasets.of([dataset, other]), np.array([0, 25, 26, 35])
    known = data.source_labels(FINDINGS)[rows]
    assert data.asked(FINDINGS).tolist() == [[True, True], [False, True]]
    assert np.isnan(known[2:, 0]).all()
    np.testing.assert_array_equal(known[2:, 1], other.index.labels[[0, 9], 0])


@pytest.mark.parametrize("name", ["表 predictions.parquet", "表 predictions.csv"])
def test_a_table_reads_back_as_it_was_written(tmp_path: Path, dataset: DatasetFolder, name: str) -> None:
    said = answer(dataset)
    about = predictions.row_context(Datasets.of([dataset]), said.rows)
    labels = np.where(np.arange(52).reshape(26, 2) % 3 == 0, np.nan, 1.0)
    table = PredictionTable(about, FINDINGS, said.probabilities(), labels, said.log_odds())
    table.save(tmp_path / name)
    again = read_predictions(tmp_path / name)
    assert again.findings == FINDINGS and again.log_odds is not None
    np.testing.assert_allclose(again.probabilities, table.probabilities, rtol=1e-15)
    np.testing.assert_array_equal(again.labels, labels)
    np.testing.assert_array_equal(again.log_odds.astype(np.float32), said.log_odds().astype(np.float32))
    assert again.images["path"].tolist() == about["path"].tolist()
    assert again.images["patient"].tolist() == about["patient"].tolist()


def test_what_is_no_table_of_predictions_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("path,Mass\nx,1\n", encoding="utf-8")
    (tmp_path / "b.parquet").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"a\.csv .*\bset\b.*\bpatient\b"):
        read_predictions(tmp_path / "a.csv")
    with pytest.raises(ValueError, match=r"b\.parquet cannot be read"):
        read_predictions(tmp_path / "b.parquet")
