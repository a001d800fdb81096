"""Datasets: several dataset folders as one."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ribcage.data import index as indexes
from ribcage.data.collection import Datasets
from ribcage.data.dataset_facts import Facts
from ribcage.data.dataset_folder import DatasetFolder
from ribcage.data.image_store import ArrayStore
from ribcage.data.index import Index
from ribcage.data.label_policy import Policy

NAN = float("nan")


def folder(name: str, size: int, labels: dict[str, list[float]], boxes: list[tuple[int, str]] = ()) -> DatasetFolder:  # type: ignore[assignment]
    """Three images of which each pixel is the number of the row."""
    rows = pd.DataFrame(
        {"path": ["a", "b", "c"], "patient": ["p1", "P1 ", ""], "view": ["PA", "LATERAL", "AP"],
         "split": ["train", "val", "train"], "age": [1.0, NAN, 3.0], **labels}
    )  # fmt: skip
    drawn = pd.DataFrame([(row, finding, 1, 2, 3, 4) for row, finding in boxes], columns=list(indexes.BOX_COLUMNS))
    index = Index(name, indexes.index_table(rows, tuple(labels)), tuple(labels), indexes.box_frame(drawn), (size, size))
    facts = Facts(name, "folder", "", "", 3, 0, size, "pad", 8, 0.5, 0.2, tuple(labels), "")
    images = np.broadcast_to(np.arange(3, dtype=np.uint8)[:, None, None], (3, size, size))
    return DatasetFolder(Path(name), facts, index, ArrayStore(images))


@pytest.fixture()
def data() -> Datasets:
    one = folder("one", 8, {"Mass": [1, -1, NAN]}, [(0, "Mass"), (2, "Mass")])
    return Datasets.of([one, folder("two", 16, {"Edema": [0, 1, -1], "Mass": [0, 0, 1]}, [(1, "Edema"), (2, "Mass")])])


def test_rows_are_counted_through_all_folders(data: Datasets) -> None:
    assert len(data) == 2 and data.total == 6 and data.starts.tolist() == [0, 3, 6]
    assert data.source(np.array([5, 0, 3, 2])).tolist() == [1, 0, 1, 0]
    assert data.place_of(4) == (data[1], 1)
    assert [own.tolist() for own in data.own_rows(np.array([1, 3, 5]))] == [[1], [0, 2]]
    assert data.image(4).shape == (16, 16) and (data.image(4) == 1).all()
    assert data.sides(np.array([2, 3])).tolist() == [8, 16]
    assert data[1:].total == 3 and Datasets.of(data) is data


def test_an_empty_folder_between_others_shifts_no_row(data: Datasets) -> None:
    one = data[0]
    none = DatasetFolder(Path("none"), one.facts, one.index.take(np.arange(0)), ArrayStore(one.images[:0]))
    three = Datasets.of([one, none, data[1]])
    assert three.place_of(3) == (data[1], 0) and three.source(np.array([2, 3])).tolist() == [0, 2]


def test_rows_of_splits_and_of_frontal_images(data: Datasets) -> None:
    assert data.splits == {"train": 4, "val": 2}
    assert data.rows_of("train").tolist() == [0, 2, 3, 5]
    assert data.rows_of("train", "val").tolist() == list(range(6))
    assert data.frontal.tolist() == [True, False, True] * 2
    with pytest.raises(ValueError, match=r"frontal.*'val'"):
        data.rows_of("val", frontal=True)
    with pytest.raises(ValueError, match=r"'vall'.*'val'"):
        data.rows_of("vall")


def test_columns_are_joined(data: Datasets) -> None:
    assert data.table["name"].tolist() == ["one"] * 3 + ["two"] * 3
    np.testing.assert_array_equal(data.column("age"), [1, NAN, 3] * 2)


def test_a_patient_is_one_in_all_folders_of_a_dataset_and_however_it_is_spelt(data: Datasets) -> None:
    codes = data.patient_codes.tolist()
    assert codes[0] == codes[1] and codes[3] == codes[4] and codes[0] != codes[3]
    assert codes[2] < 0 and codes[5] < 0 and codes[2] != codes[5]
    twice = Datasets.of([data[0], data[0]]).patient_codes.tolist()
    assert twice[0] == twice[3] and twice[2] != twice[5]


def test_labels_stand_in_the_order_that_is_asked_for_and_are_nan_where_a_dataset_has_none(data: Datasets) -> None:
    assert data.findings == ("Mass", "Edema")
    assert data.asked(("Edema", "Mass", "Hernia")).tolist() == [[False, True, False], [True, True, False]]
    wanted = [[NAN, 1], [NAN, -1], [NAN, NAN], [0, 0], [1, 0], [-1, 1]]
    np.testing.assert_array_equal(data.source_labels(("Edema", "Mass")), wanted)


def test_a_policy_decides_uncertain_and_blank_labels_but_not_what_was_never_labelled(data: Datasets) -> None:
    rows, findings = np.array([5, 1, 2]), ("Edema", "Mass")
    np.testing.assert_array_equal(data.known_labels(rows, findings), [[NAN, 1], [NAN, NAN], [NAN, NAN]])
    smooth = Policy.parse("ones+lsr,blank=zeros")
    np.testing.assert_array_equal(data.known_labels(rows, findings, smooth), [[1, 1], [NAN, 1], [NAN, 0]])


def test_a_policy_for_one_dataset_leaves_the_others_unchanged(data: Datasets) -> None:
    rows, findings = np.arange(6), ("Edema", "Mass")
    found = data.known_labels(rows, findings, Policy.parse("one:ones,one:blank=zeros,two:Edema=zeros"))
    np.testing.assert_array_equal(found, [[NAN, 1], [NAN, 1], [NAN, 0], [0, 0], [1, 0], [0, 1]])
    assert data.names == ["one", "two"]


def test_boxes_are_found_by_row_in_the_order_of_the_question(data: Datasets) -> None:
    boxes = data.boxes(("Edema", "Mass"))
    assert boxes.rows.tolist() == [0, 2, 4, 5]
    assert boxes.of_rows(np.array([4, 1, 0])).tolist() == [[0, 0, 1, 2, 4, 6], [2, 1, 1, 2, 4, 6]]
    assert len(data.boxes(("Hernia",)).of_rows(np.arange(6))) == 0


def test_folders_that_do_not_open_are_named_all_at_once(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"one.*two"):
        Datasets.open([tmp_path / "one", tmp_path / "two"])


def test_pixels_that_changed_since_the_import_are_counted_by_their_folder(data: Datasets, tmp_path: Path) -> None:
    facts = replace(data[0].facts, linked=True)
    linked = DatasetFolder(tmp_path, facts, data[0].index, data[0].images)
    Datasets.of([linked]).require_intact(np.arange(3))  # stores no pixels: nothing to compare
    with pytest.raises(FileNotFoundError):
        data.require_intact(np.array([4]))
