"""A curated subset has balanced labels, diverse features and no near-duplicates, and its folder trains like any other."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from image_folders import images, imported
from test_export import made

from ribcage import cli
from ribcage.commands import curate
from ribcage.data import audit, curation, dataset_folder
from ribcage.data.audit import audited
from ribcage.data.collection import Datasets
from ribcage.data.provenance import Provenance
from ribcage.reports.audit import dataset_facts


@pytest.fixture
def features() -> np.ndarray:
    """Three groups of directions, of 200, 30 and 10 images."""
    draw = np.random.default_rng(0)
    centres = np.eye(3, 8).repeat((200, 30, 10), axis=0)
    return (centres + 0.05 * draw.normal(size=(240, 8))).astype(np.float32)


def test_every_cluster_contributes_the_same_number_of_images_if_it_has_them(features: np.ndarray) -> None:
    clusters = replace(curation.cluster(features, 3), numbers=np.repeat([0, 1, 2], (200, 30, 10)))
    everything, unlabelled = np.ones(240, bool), np.full((240, 1), np.nan)
    for count, wanted in ((3, [1, 1, 1]), (31, [11, 10, 10]), (60, [25, 25, 10]), (240, [200, 30, 10])):
        chosen = curation.selected(clusters, unlabelled, count, candidates=everything, balance=0.0)
        assert np.bincount(clusters.numbers[chosen]).tolist() == wanted
    typical = curation.selected(clusters, unlabelled, 9, candidates=everything, balance=0.0)[:200]
    ranks = np.argsort(np.argsort(clusters.distances[:200]))
    assert sorted(ranks[typical]) == [33, 100, 166]


def test_the_clusters_are_those_of_the_features_and_repeat_with_the_seed(features: np.ndarray) -> None:
    found = curation.cluster(features, 12, seed=3)
    groups = np.repeat([0, 1, 2], (200, 30, 10))
    assert all(len(set(groups[found.numbers == number])) <= 1 for number in range(12))
    assert np.array_equal(found.numbers, curation.cluster(features, 12, seed=3).numbers)
    assert curation.cluster(features[:2], 12).count == 2


def test_positive_images_of_rare_findings_are_chosen_first(features: np.ndarray) -> None:
    labels = np.zeros((240, 2))
    labels[:100, 0], labels[[7, 8, 9, 230], 1] = 1, 1
    clusters, everything = curation.cluster(features, 10), np.ones(240, bool)
    candidates = everything.copy()
    candidates[8] = False
    chosen = curation.selected(clusters, labels, 20, candidates=candidates, balance=1.0)
    assert chosen.sum() == 20 and chosen[[7, 9, 230]].all() and not chosen[8]
    assert labels[chosen, 0].sum() >= 10


def test_the_command_writes_a_folder_whose_split_and_column_are_the_choice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    index = images(tmp_path / "in", 40)
    index.file(7).write_bytes(index.file(2).read_bytes())  # an identical image
    table = index.table.assign(split=["train"] * 30 + ["val"] * 10)
    opened = imported(replace(index, table=table), tmp_path / "data")
    model = made(tmp_path / "m", stored=32)
    words = ["curate", str(tmp_path / "data"), "--features", str(model), "--share", "0.4"]
    for name in ("one", "二"):
        assert cli.main([*words, "--out", str(tmp_path / name)]) == 0
    one, two = (dataset_folder.open(tmp_path / name) for name in ("one", "二"))
    assert (tmp_path / "one" / "index.parquet").read_bytes() == (tmp_path / "二" / "index.parquet").read_bytes()
    assert (tmp_path / "one" / "images.npy").samefile(tmp_path / "data" / "images.npy")
    column, split = (one.index.table[name].to_numpy(str) for name in (curation.COLUMN, "split"))
    assert (column[:30] == curation.SELECTED).sum() == 12 and (column[30:] == "").all()
    assert column[7] == curation.DUPLICATE and (column == curation.DUPLICATE).sum() == 1
    assert np.array_equal(split == "train", column == curation.SELECTED) and (split == "val").sum() == 10
    assert len(Datasets.of([two]).rows_of("train")) == 12 and np.array_equal(two.image(5), opened.image(5))
    assert len(one.damaged()) == 0 and one.facts.plan != opened.facts.plan
    numbers = audit.audit(audited.members([str(tmp_path / "one")]))["sets"][0]
    assert numbers["curation"] == {"selected": 12, "near-duplicate": 1, "left out": 17}
    assert "17" in dict(dataset_facts(numbers))["curation"]
    np.load(tmp_path / "data" / "images.npy", mmap_mode="r+")[4] ^= 1
    with pytest.raises(ValueError, match="row 4"):
        curate.run(curate.Options(tmp_path / "data", model, tmp_path / "three"))


def test_wrong_options_are_named_together(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"--out.*--share.*--balance.*--prototypes.*--seed"):
        curate.check(curate.Options(tmp_path, tmp_path, share=0, balance=2, prototypes=-1, seed=-1))
    (tmp_path / "notes.txt").touch()
    with pytest.raises(ValueError, match=r"notes\.txt.*--out"):
        curate.check(curate.Options(tmp_path, tmp_path, out=tmp_path))


def test_an_interrupted_command_can_be_repeated_and_reasons_of_earlier_selections_stay(tmp_path: Path) -> None:
    opened = imported(images(tmp_path / "in", 6), tmp_path / "data")
    options = curate.Options(opened.folder, Path(), tmp_path / "one")
    left, selected = np.array([0, 1]), np.array([curation.LEFT_OUT] * 2)
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "images.npy").hardlink_to(opened.folder / "images.npy")
    curate.check(options)
    curate.write(options, opened, left, selected)
    with pytest.raises(ValueError, match="--out"):
        curate.check(options)
    again = curate.Options(tmp_path / "one", Path(), tmp_path / "two")
    one = dataset_folder.open(tmp_path / "one")
    curate.write(again, one, np.array([3, 4]), np.array([curation.SELECTED, curation.DUPLICATE]))
    two = dataset_folder.open(tmp_path / "two").index.table
    assert two[curation.COLUMN].tolist() == [*selected, "", curation.SELECTED, curation.DUPLICATE, ""]
    assert two["split"].tolist() == ["", "", "train", "train", "", "train"]
    assert (tmp_path / "two" / "images.npy").samefile(opened.folder / "images.npy") and not len(opened.damaged())


def test_splits_on_which_the_model_of_the_features_was_trained_are_named(tmp_path: Path) -> None:
    index = images(tmp_path / "in", 8)  # two images to a patient
    splits = ["train"] * 4 + ["val"] * 2 + ["test"] * 2
    data = Datasets.of([imported(replace(index, table=index.table.assign(split=splits)), tmp_path / "data")])
    for trained, selected, found in (([0, 1], [4], []), ([0, 7], [5], ["test"]), ([4, 6], [], ["test", "val"])):
        seen = Provenance.of(data, np.array(trained), np.array(selected, int))
        assert curate.splits_seen(seen, data, "train") == found
    assert curate.splits_seen(Provenance.nothing(), data, "train") == []
