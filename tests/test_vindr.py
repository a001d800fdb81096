"""VinDr-CXR: the labels and boxes of each reader are kept apart, and what a table does not label stays unknown."""

from pathlib import Path

import numpy as np
import pytest
import trees
from image_folders import imported
from refusals import has_facts

from ribcage.data import datasets, splits
from ribcage.data.datasets import vindr
from ribcage.data.index import Index


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Index:
    return datasets.index("vindr", trees.vindr(tmp_path_factory.mktemp("片 vindr")))


def readers(index: Index, row: int, finding: str) -> dict[str, float]:
    own = index.readings[index.readings["row"] == row]
    return dict(zip(own["reader"], own[finding].tolist(), strict=True))


def test_three_readers_of_each_training_image_and_a_consensus_in_the_test_split(published: Index) -> None:
    assert len(published) == 30 and len(published.findings) == 27
    assert published.readings["row"].value_counts().tolist() == [3] * 24
    assert (published.table["split"] == "test").sum() == 6 and set(published.table["split"]) == {"train", "val", "test"}
    assert (published.table["view"] == "PA").all() and published.table["patient"].is_unique
    assert published.labels[24:].tolist() == datasets.index("vindr", published.root).labels[24:].tolist()
    assert not np.isnan(published.labels).any()


def test_the_label_of_an_image_is_that_of_most_readers(published: Index) -> None:
    assert readers(published, 0, "Nodule_or_Mass") == {"R8": 1, "R9": 1, "R10": 1}
    assert sorted(readers(published, 1, "Fracture").values()) == [0, 1, 1]
    assert sorted(readers(published, 2, "Pneumonia").values()) == [0, 0, 1]
    table = published.table
    assert table[["Nodule_or_Mass", "Fracture", "Pneumonia", "No_Finding"]].iloc[:4].to_numpy().tolist() == [
        [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1], [0, 0, 0, 1]
    ]  # fmt: skip
    assert table["Pneumonia"].iloc[24:].tolist() == [0, 0, 1, 0, 0, 0]  # the consensus


def test_boxes_have_their_reader_and_are_in_pixels_of_the_file(published: Index) -> None:
    own = published.boxes[published.boxes["row"] == 0]
    assert published.box_frame is None and len(own) == 6
    assert own["reader"].tolist() == ["R8", "R8", "R9", "R9", "R10", "R10"]
    assert own[["finding", "x", "y", "width", "height"]].iloc[1].tolist() == ["Nodule_or_Mass", 1, 2, 8.5, 6]
    assert set(published.boxes.loc[published.boxes["row"] >= 24, "reader"]) == {""}
    assert published.boxes["finding"].value_counts()["Fracture"] == 2 * 6 + 2


def test_the_challenge_has_15_labels_and_no_others(tmp_path: Path, published: Index) -> None:
    found = datasets.index("vindr", trees.vinbigdata(tmp_path))
    assert len(found) == 24 and len(found.findings) == 15 and set(found.findings) < set(published.findings)
    assert "Fracture" not in found.table and "Pneumonia" not in found.table
    row = found.table["patient"].tolist().index(trees.VINDR_IDS["train"][0])
    assert readers(found, row, "Cardiomegaly") == {"R8": 1, "R9": 1, "R10": 1}
    assert found.table["No_Finding"].sum() == 18 and found.table["Cardiomegaly"].sum() == 6
    assert len(found.boxes) == 6 * 3 * 2 and set(found.table["split"]) <= set(splits.SHARES)


def test_columns_of_readers_may_be_spelt_otherwise(tmp_path: Path, published: Index) -> None:
    file = trees.vindr(tmp_path) / "annotations/image_labels_train.csv"
    file.write_text(file.read_text(encoding="utf-8").replace("rad_id", "rad_ID", 1), encoding="utf-8")
    assert datasets.index("vindr", tmp_path).readings.equals(published.readings)


def test_one_published_part_is_enough_but_needs_both_of_its_tables(tmp_path: Path) -> None:
    folder = trees.vindr(tmp_path) / "annotations"
    (folder / "image_labels_test.csv").unlink()
    assert set(datasets.index("vindr", tmp_path).table["split"]) == {"train", "val"}
    (folder / "annotations_train.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"annotations_train\.csv"):
        datasets.index("vindr", tmp_path)
    (folder / "image_labels_train.csv").unlink()
    with pytest.raises(FileNotFoundError) as error:
        datasets.index("vindr", tmp_path)
    assert has_facts(str(error.value), "image_labels_train.csv", "annotations_test.csv", "train.csv", vindr.SOURCE)


def test_unknown_patients_and_images_of_another_size_are_warnings(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trees.vinbigdata(tmp_path)
    first = tmp_path / f"train/{trees.VINDR_IDS['train'][0]}.dicom"
    first.unlink()
    trees.image(first.with_suffix(".png"))
    datasets.index("vindr", tmp_path)
    texts = [record.getMessage() for record in caplog.records]
    assert any("patient" in text for text in texts) and any("DICOM" in text and text.startswith("1 ") for text in texts)


def test_an_unknown_class_is_an_error(tmp_path: Path) -> None:
    file = trees.vinbigdata(tmp_path) / "train.csv"
    file.write_text(file.read_text(encoding="utf-8").replace("Cardiomegaly", "Cardiomegali", 1), encoding="utf-8")
    with pytest.raises(ValueError, match="'Cardiomegali'"):
        datasets.index("vindr", tmp_path)


def test_an_import_keeps_readings_and_moves_the_boxes(published: Index, tmp_path: Path) -> None:
    part = published.take(range(3))
    opened = imported(part, tmp_path / "out", dataset="vindr", findings=published.findings)
    assert opened.index.readings.equals(part.readings)
    assert opened.index.boxes.equals(part.boxes) and opened.index.box_frame == (trees.SIDE, trees.SIDE)
