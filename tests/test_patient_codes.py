"""Patient codes, and what else lets one process hold the index of millions of images: integers, and no copies."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ribcage.data import index as indexes
from ribcage.data import sampling, selection
from ribcage.data.collection import Datasets
from ribcage.data.dataset_folder import DatasetFolder, Facts
from ribcage.data.index import Index
from ribcage.runtime import rng

FINDINGS = ("Mass", "Edema")


def folder(name: str, seed: int, rows: int = 60, findings: tuple[str, ...] = FINDINGS) -> DatasetFolder:
    """A folder without files, of a few patients in several spellings, some of them unknown."""
    chance = np.random.default_rng(seed)
    table = pd.DataFrame(
        {
            "path": [f"{seed}/{row}.png" for row in range(rows)],
            "patient": chance.choice(["", "7", "007", " 7", "P1", "p1 ", " ", "a", "b", "c"], rows),
            "split": chance.choice(["train", "val", "test", ""], rows),
            "view": chance.choice(["PA", "AP", "LATERAL", ""], rows),
            **{finding: chance.choice([1, 0, -1, np.nan], rows) for finding in findings},
        }
    )
    facts = Facts(name, "folder", "here", "", rows, 0, 8, "pad", 8, 0.5, 0.2, findings, "")
    images = np.zeros((rows, 8, 8), np.uint8)
    return DatasetFolder(Path(name), facts, Index(name, indexes.index_table(table, findings), findings), images)


@pytest.fixture(params=[("one", "two"), ("one", "one")], ids=["two datasets", "two folders of one dataset"])
def data(request: pytest.FixtureRequest) -> Datasets:
    one, other = request.param
    return Datasets.of([folder(one, 0), folder(other, 1, findings=FINDINGS[:1])])


def test_patients_have_the_numbers_that_their_names_have_in_order_of_appearance(data: Datasets) -> None:
    codes = pd.factorize(data.patients)[0]
    wanted = np.where(data.patients == "", -1 - np.arange(data.total), codes)
    assert np.array_equal(data.patient_codes, wanted)
    rows = np.random.default_rng(2).permutation(data.total)[:50]
    assert np.array_equal(data.patient_codes_of(rows), wanted[rows])


def test_patients_are_counted_as_their_names_are(data: Datasets) -> None:
    for split in ("train", "val"):
        rows = data.rows_of(split)
        names = {(row.name, row.patient) for row in data.table.iloc[rows].itertuples(index=False) if row.patient}
        assert selection.count_known_patients(data, rows) == len(names)
    train, val = data.rows_of("train"), data.rows_of("val")
    both = set(data.patients[train]) & set(data.patients[val]) - {""}
    assert selection.split_overlap(data, train, np.append(val, train[:3])) == selection.Overlap(
        3, len(set(data.patients[train]) & set(data.patients[np.append(val, train[:3])]) - {""})
    )
    assert selection.split_overlap(data, train, val) == selection.Overlap(0, len(both))


def test_labels_of_some_rows_are_those_of_the_tables(data: Datasets) -> None:
    wanted = np.concatenate([one.index.table.reindex(columns=FINDINGS).to_numpy(np.float32) for one in data])
    rows = np.array([119, 0, 61, 60, 59, 0])
    assert np.array_equal(data.labels_of(rows, FINDINGS), wanted[rows], equal_nan=True)
    assert np.array_equal(data.source_labels(FINDINGS[::-1]), wanted[:, ::-1], equal_nan=True)
    assert data.labels_of(rows, ()).shape == (6, 0)


def test_same_patient_images_are_those_of_the_patient_and_dataset(data: Datasets) -> None:
    rows = data.rows_of("train")
    same = sampling.SamePatient.of(data, rows[::-1])
    codes, sources = data.patient_codes, data.source(np.arange(data.total))
    for row in rows.tolist():
        of_patient = rows[(codes[rows] == codes[row]) & (sources[rows] == sources[row])]
        chance = (np.arange(len(of_patient)) + 0.5) / len(of_patient)
        assert same.draw(np.full(len(of_patient), row), chance).tolist() == of_patient.tolist()


@pytest.mark.parametrize(("count", "power"), [(1, 8), (2, 8), (1000, 8), (20_000, 0), (20_000, 8), (20_000, 300)])
def test_weighted_draws_are_the_edges_that_the_shares_reach(count: int, power: int) -> None:
    """As in a search for one share after the other, which takes many times longer for millions of images."""
    weights = np.random.default_rng(0).random(max(300, count)) ** power * (np.arange(max(300, count)) % 3 > 0)
    words = rng.random_words(5, 2, np.arange(-(-count // 2)), rng.SAMPLE, 4).reshape(-1, 2)[:count].astype(np.uint64)
    share = (words[:, 0] << np.uint64(21) | words[:, 1] >> np.uint64(11)) * 2.0**-53
    edges = np.cumsum(weights)
    wanted = np.searchsorted(edges, share * edges[-1], side="right")
    assert rng.choices(5, 2, weights, count).tolist() == wanted.tolist()


@pytest.mark.parametrize("rows", [np.arange(70_000) * 2, np.arange(70_000)[::-1] // 2])
def test_the_address_of_a_drawn_row_counts_its_earlier_draws(rows: np.ndarray) -> None:
    weights = np.ones(len(rows))
    weights[[3, 69_999]] = 1e5
    order = sampling.Sampler(rows, 1, True, weights).order(2)
    drawn, before = rows[rng.choices(1, 2, weights, len(rows))], np.zeros(140_000, np.int64)
    assert np.array_equal(sampling.rows_of_addresses(order), drawn)
    for row, count in zip(drawn.tolist(), (order >> 32).tolist(), strict=True):
        assert before[row] == count
        before[row] += 1
    assert before.max() > 1000


def test_hashes_are_looked_up_exactly() -> None:
    chance = np.random.default_rng(0)
    hashes = chance.integers(0, 1 << 64, 5000, np.uint64)
    others = np.concatenate([hashes[:7], hashes[7:20] + np.uint64(1), np.zeros(1, np.uint64)])
    assert np.flatnonzero(selection.HashSet(others).contain(hashes)).tolist() == list(range(7))
    assert not selection.HashSet(others[:0]).contain(hashes).any()
    assert not len(selection.HashSet(others).contain(hashes[:0]))
