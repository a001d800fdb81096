"""Selection of training rows: nested shares by patient, copies left out, empty splits refused."""

import re
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from refusals import has_facts
from test_setup import options

from ribcage.commands import import_
from ribcage.data import dataset_folder, selection, splits
from ribcage.data.audit import counts
from ribcage.data.collection import Datasets
from ribcage.data.dataset_folder import DatasetFolder
from ribcage.runtime.messages import Message
from ribcage.training import chosen_rows


def made(folder: Path, rows: list[dict[str, object]], name: str = "", link: bool = False) -> DatasetFolder:
    """A dataset folder; rows name their image by a number, equal numbers are equal images."""
    files = folder / "files"
    files.mkdir(parents=True)
    for place, row in enumerate(rows):
        seed = int(str(row.pop("image", place)))
        row["path"] = f"{place:03d}.png"
        pixels = np.random.default_rng(seed).integers(0, 256, (32, 32), dtype=np.uint8)
        (files / str(row["path"])).write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
    pd.DataFrame(rows).to_csv(files / "labels.csv", index=False)
    out = folder / "set"
    import_.run(import_.Options("folder", files, out=out, name=name, link=link))
    return dataset_folder.open(out)


def people(counts: list[int], split: str = "train") -> list[dict[str, object]]:
    return [
        {"patient": f"p{number}", "view": "PA", "split": split, "Mass": 0}
        for number, count in enumerate(counts)
        for _ in range(count)
    ]


@pytest.fixture(scope="module")
def hundred(tmp_path_factory: pytest.TempPathFactory) -> DatasetFolder:
    """A hundred patients with one to four images each."""
    return made(tmp_path_factory.mktemp("百 100"), people([1 + number % 4 for number in range(100)]))


def patients(opened: DatasetFolder, rows: np.ndarray) -> set[str]:
    return set(opened.index.table["patient"].iloc[rows])


@pytest.mark.parametrize("seed", [0, 1])
def test_smaller_shares_are_part_of_larger_ones(hundred: DatasetFolder, seed: int) -> None:
    every = np.arange(len(hundred))
    shares = [
        set(selection.share_of_patients(Datasets.of([hundred]), every, share, seed)) for share in (0.01, 0.1, 0.5, 1.0)
    ]
    assert shares[0] < shares[1] < shares[2] < shares[3] == set(every)


def test_a_share_is_of_patients_and_takes_all_their_images(hundred: DatasetFolder) -> None:
    every = np.arange(len(hundred))
    chosen = selection.share_of_patients(Datasets.of([hundred]), every, 0.1)
    assert len(patients(hundred, chosen)) == 10
    assert not patients(hundred, chosen) & patients(hundred, np.setdiff1d(every, chosen))
    assert np.array_equal(chosen, np.sort(chosen))


def test_another_seed_draws_others_and_the_same_the_same(hundred: DatasetFolder) -> None:
    every = np.arange(len(hundred))
    one, again, other = (selection.share_of_patients(Datasets.of([hundred]), every, 0.2, seed) for seed in (0, 0, 1))
    assert np.array_equal(one, again) and not np.array_equal(one, other)


def test_who_is_drawn_does_not_depend_on_the_other_rows_order(hundred: DatasetFolder) -> None:
    every = np.arange(len(hundred))
    assert set(selection.share_of_patients(Datasets.of([hundred]), every[::-1], 0.2)) == set(
        selection.share_of_patients(Datasets.of([hundred]), every, 0.2)
    )


def test_a_tiny_share_is_at_least_one_patient(hundred: DatasetFolder) -> None:
    assert (
        len(patients(hundred, selection.share_of_patients(Datasets.of([hundred]), np.arange(len(hundred)), 1e-6))) == 1
    )


@pytest.mark.parametrize("share", [0.0, -0.1, 1.5, float("nan")])
def test_an_impossible_share_is_refused(hundred: DatasetFolder, share: float) -> None:
    with pytest.raises(ValueError, match=re.escape(f"{share:g}")):
        selection.share_of_patients(Datasets.of([hundred]), np.arange(len(hundred)), share)


def test_each_unknown_patient_is_one_of_their_own(tmp_path: Path) -> None:
    opened = made(tmp_path, [{"patient": "", "split": "train", "Mass": 0} for _ in range(20)])
    assert len(selection.share_of_patients(Datasets.of([opened]), np.arange(20), 0.5)) == 10


def test_patients_of_two_sets_with_the_same_number_are_two(tmp_path: Path) -> None:
    sets = Datasets.of([made(tmp_path / name, people([2] * 10), name) for name in ("one", "other")])
    chosen = selection.share_of_patients(sets, np.arange(40), 0.5)
    assert len(chosen) == 20
    assert patients(sets[0], chosen[chosen < 20]) != patients(sets[1], chosen[chosen >= 20] - 20)


# ---- splits and copies


def test_rows_are_counted_through_all_sets(tmp_path: Path) -> None:
    sets = Datasets.of(
        [
            made(tmp_path / "a", people([1, 1]) + people([1], "val")),
            made(tmp_path / "b", people([1], "val") + people([2])),
        ]
    )
    assert sets.rows_of("train").tolist() == [0, 1, 4, 5]
    assert sets.rows_of("val").tolist() == [2, 3]


def test_frontal_leaves_out_side_views_and_unknown_ones(tmp_path: Path) -> None:
    rows = [{"patient": str(view), "view": view, "split": "train", "Mass": 0} for view in ("PA", "LATERAL", "AP", "")]
    opened = made(tmp_path, rows)
    assert Datasets.of([opened]).rows_of("train", frontal=True).tolist() == [0, 2]
    assert len(Datasets.of([opened]).rows_of("train")) == 4


def test_an_empty_split_names_the_folder_and_the_splits_there_are(tmp_path: Path) -> None:
    opened = made(tmp_path, [{**row, "view": "LATERAL"} for row in people([1, 1]) + people([1], "val")])
    with pytest.raises(ValueError, match=r"set .*'test'.*train, val\."):
        Datasets.of([opened]).rows_of("test")
    with pytest.raises(ValueError, match=r"in split 'trian'. Did you mean 'train'\?"):
        Datasets.of([opened]).rows_of("trian")
    with pytest.raises(ValueError, match=r"frontal .*set .*'train'"):
        Datasets.of([opened]).rows_of("train", frontal=True)


def copies(folder: Path, link: bool = False) -> DatasetFolder:
    """Images 0 and 1 in training, 1 also in validation, 2 twice in training, 3 in training and in no split."""
    rows = [(0, "train"), (1, "train"), (1, "val"), (2, "train"), (2, "train"), (3, "train"), (3, ""), (4, "test")]
    named = [
        {"patient": f"p{place}", "split": split, "image": seed, "Mass": 0} for place, (seed, split) in enumerate(rows)
    ]
    return made(folder, named, link=link)  # type: ignore[arg-type]


def test_images_that_are_also_in_another_split_are_left_out(tmp_path: Path) -> None:
    opened = copies(tmp_path)
    rows = Datasets.of([opened]).rows_of("train")
    assert selection.without_copies(Datasets.of([opened]), rows, "train").tolist() == [0, 3, 4, 5]


def test_copies_are_found_in_other_sets_too_and_linked_ones_cannot_be(tmp_path: Path) -> None:
    first = made(tmp_path / "first", [{"patient": "a", "split": "train", "image": 4, "Mass": 0}, {"patient": "b", "split": "train", "image": 9, "Mass": 0}])  # fmt: skip
    second, linked = copies(tmp_path / "second"), copies(tmp_path / "linked", link=True)
    assert selection.without_copies(Datasets.of([first, second]), np.array([0, 1]), "train").tolist() == [1]
    assert selection.without_copies(Datasets.of([first, linked]), np.array([0, 1]), "train").tolist() == [0, 1]
    rows = Datasets.of([linked]).rows_of("train")
    assert np.array_equal(selection.without_copies(Datasets.of([linked]), rows, "train"), rows)


def test_an_error_states_that_copies_leave_nothing_to_train_on(tmp_path: Path) -> None:
    rows = [{"patient": f"p{n}", "split": split, "image": 1, "Mass": 0} for n, split in enumerate(("train", "val"))]
    data = Datasets.of([made(tmp_path, rows)])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"train.*--no-drop-copies"):
        chosen_rows.training_rows(options(), data, "train")


# ---- splits that give way


def crossing(folder: Path) -> DatasetFolder:
    """Patient a in training and test, b in validation and test, image 3 in training and test of different patients."""
    rows = [("a", "train", 0), ("A ", "test", 1), ("b", "val", 2), ("c", "train", 3), ("d", "test", 3), ("b", "test", 4), ("e", "test", 5), ("a", "", 6)]  # fmt: skip
    return made(folder, [{"patient": p, "split": s, "image": n, "Mass": 0} for p, s, n in rows])


def test_only_known_patients_are_counted(tmp_path: Path) -> None:
    opened = Datasets.of(
        [made(tmp_path, [{"patient": patient, "image": n} for n, patient in enumerate(("a", "", "b", "a", ""))])]
    )
    assert selection.count_known_patients(opened, np.arange(5)) == 2
    assert selection.count_known_patients(opened, np.array([1, 4])) == 0


def test_a_split_gives_way_where_others_have_its_patients_and_images(tmp_path: Path) -> None:
    opened = Datasets.of([crossing(tmp_path)])
    assert np.flatnonzero(selection.rows_that_give_way(opened, ("test",))).tolist() == [1, 4, 5]
    assert np.flatnonzero(selection.rows_that_give_way(opened, ("train",))).tolist() == [0, 3]
    assert np.flatnonzero(selection.rows_that_give_way(opened, ("val", "train"))).tolist() == [0, 2, 3]
    with pytest.raises(ValueError, match=r"--drop-shared tets: .*Did you mean 'test'\?"):
        selection.rows_that_give_way(opened, ("tets",))


def test_before_a_training_shared_patients_and_images_are_counted_with_what_solves_it(tmp_path: Path) -> None:
    opened = Datasets.of([crossing(tmp_path)])
    train, val = opened.rows_of("train"), opened.rows_of("val")
    first, second = (message.text for message in selection.sharing(opened, train, val, ("train", "val")))
    assert has_facts(first, "1 patient", "1 image", "'train'", "'test'") and "--drop-shared test" in first
    assert has_facts(second, "1 patient", "'val'", "'test'")
    for giving in ((), ("test",)):
        found = selection.sharing(opened, train, val, ("train", "val"), giving)
        assert [message.warning for message in found] == [not giving] * 2
    assert not selection.sharing(opened, train[:0], val[:0], ("train", "val"))


def test_before_a_training_unknown_patients_are_warned_of(tmp_path: Path) -> None:
    rows = [("a", "train"), ("", "train"), ("", "val"), ("", "val"), ("b", "test")]
    opened = Datasets.of([made(tmp_path, [{"patient": p, "split": s, "Mass": 0} for p, s in rows])])
    train, val = opened.rows_of("train"), opened.rows_of("val")
    (said,) = selection.apart(opened, train, val, ("train", "val"))
    assert said.warning and "'val'" in said.text and "'train'" not in said.text and "--patient-column" in said.text
    (said,) = selection.apart(opened, train[1:], val, ("train", "val"))
    assert "'train' and 'val'" in said.text
    without = Datasets.of([replace(opened[0], facts=replace(opened[0].facts, dataset="medmnist"))])
    (said,) = selection.apart(without, train, val, ("train", "val"))
    assert said.warning and "--patient" not in said.text  # its import has no such options
    assert not selection.apart(opened, train, opened.rows_of("test"), ("train", "test"))


def test_of_two_splits_that_give_way_the_first_named_does() -> None:
    names, parts = np.array(["a", "a", "b", "b", "", ""]), np.array(["val", "test", "test", "", "test", "val"])
    assert splits.shared(names, parts, ("val", "test")).tolist() == [True] + [False] * 5
    assert splits.shared(names, parts, ("test", "val")).tolist() == [False, True] + [False] * 4


def test_a_split_of_any_name_can_be_set_aside(tmp_path: Path) -> None:
    rows = people([1, 1]) + people([1], "val") + people([2], "Externe Klinik")
    opened = Datasets.of([made(tmp_path, rows)])
    assert opened.rows_of("Externe Klinik").tolist() == [3, 4]
    assert counts.value_counts(opened[0].index.table["split"], ("train", "val", "test", "")) == {
        "train": 2,
        "val": 1,
        "Externe Klinik": 2,
    }
    assert np.flatnonzero(selection.rows_that_give_way(opened, ("Externe Klinik",))).tolist() == [
        3,
        4,
    ]  # p0 is everywhere
    table = opened[0].index.table
    for name in ("all", "\x1b", "a/b", "x" * 41):
        with pytest.raises(ValueError, match="split"):
            replace(opened[0].index, table=table.assign(split=name))


def test_identifiers_in_two_folders_of_one_source_are_noted_if_the_names_differ(tmp_path: Path) -> None:
    """Before a training, and for a test; other codes and the same name are not."""
    one, two = made(tmp_path / "a", people([1, 1]), "one"), made(tmp_path / "b", people([1, 1, 1]), "two")
    rest = [{**row, "patient": f"q{row['patient']}"} for row in people([1])]
    data = Datasets.of([one, two, made(tmp_path / "c", rest, "three")])
    (note,) = selection.shared_codes(data)
    assert has_facts(note, "2 patient", str(one.folder), str(two.folder), "--name")
    assert Message(note) in selection.apart(data, np.array([0]), np.array([1]), ("train", "val"))
    named = replace(two, index=replace(two.index, name="one"))
    other = replace(two, facts=replace(two.facts, dataset="nih"))
    assert selection.shared_codes(Datasets.of([one, named])) == selection.shared_codes(Datasets.of([one, other])) == []
