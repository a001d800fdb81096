"""Labels and boxes of several readers become one ground truth, and readings are drawn by address."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from image_folders import images, imported

from ribcage.bundle.spec import ModelSpec
from ribcage.bundle.training_record import TrainingRecord
from ribcage.data import reader_policy
from ribcage.data.collection import Datasets
from ribcage.data.dataset_folder import DatasetFolder
from ribcage.data.index import SIDES, Index, box_frame, index_table
from ribcage.data.label_policy import Policy
from ribcage.data.loader import Loader
from ribcage.data.readings import reading_frame
from ribcage.evaluation.planned_test import PlannedTest, Rules
from ribcage.imaging.augment import plain_view
from ribcage.inference import detections

NAN = np.nan
VOTES = [(1, 1, 0), (1, 0, 0), (1, 0, NAN), (NAN, NAN, NAN), (-1, -1, 0), (1, -1, 0), (1, NAN, NAN), (-1, 0, 0)]
MAJORITY = [1, 0, -1, NAN, -1, -1, 1, 0]
ANY = [1, 1, 1, NAN, -1, 1, 1, -1]
READERS = ("R1", "R2", "R3")


def readings_of(votes: list[tuple[float, ...]]) -> pd.DataFrame:
    rows = [(row, name, vote) for row, each in enumerate(votes) for name, vote in zip(READERS, each, strict=False)]
    return reading_frame(pd.DataFrame(rows, columns=["row", "reader", "Mass"]), ["Mass"])


@pytest.mark.parametrize(("combine", "wanted"), [("majority_labels", MAJORITY), ("any_labels", ANY)])
def test_labels_of_three_readers_become_one(combine: str, wanted: list[float]) -> None:
    labels = getattr(reader_policy, combine)(readings_of(VOTES), ["Mass"], 9)
    np.testing.assert_array_equal(labels[:, 0], [*wanted, NAN])  # the last image has no reading


def boxed(boxes: list[tuple[int, str, str, float]]) -> Index:
    """Images read by three readers, with boxes of 10 pixels at some x."""
    table = pd.DataFrame(boxes, columns=["row", "reader", "finding", "x"]).assign(y=5.0, width=10.0, height=10.0)
    rows = index_table(pd.DataFrame({"path": ["a", "b"], "Mass": [1.0, 1.0], "Edema": 0.0}), ["Mass", "Edema"])
    readings = readings_of([(1, 1, 1), (1, 1, 1)]).assign(Edema=0.0)
    readings = reading_frame(readings, ["Mass", "Edema"])
    return Index("x", rows, ("Mass", "Edema"), box_frame(table), readings=readings)


def places(index: Index, readers: str) -> list[tuple[int, str, float]]:
    found = reader_policy.combined_boxes(index, readers)
    assert list(found) == ["row", "finding", *SIDES]
    return list(found[["row", "finding", "x"]].itertuples(index=False, name=None))


def test_boxes_at_one_place_are_averaged_and_kept_if_more_than_half_of_the_readers_drew_them() -> None:
    agreed = boxed([(0, "R1", "Mass", 0), (0, "R2", "Mass", 2), (0, "R3", "Mass", 30), (1, "R1", "Mass", 7)])
    assert places(agreed, "majority") == [(0, "Mass", 1)]
    assert places(agreed, "any") == [(0, "Mass", 1), (0, "Mass", 30), (1, "Mass", 7)]


def test_boxes_of_other_findings_or_of_the_same_reader_are_no_agreement() -> None:
    alone = boxed([(0, "R1", "Mass", 0), (0, "R2", "Edema", 0), (1, "R1", "Mass", 0), (1, "R1", "Mass", 1)])
    assert places(alone, "majority") == []
    assert places(alone, "any") == [(0, "Mass", 0), (0, "Edema", 0), (1, "Mass", 0.5)]


def test_a_chain_of_boxes_is_not_one_place() -> None:
    """IoU of boxes of width 10 at a distance of 4 is 6/14, which is above 0.4, and at 8 it is 2/18."""
    chain = boxed([(0, "R1", "Mass", 0), (0, "R2", "Mass", 4), (0, "R3", "Mass", 8), (0, "R1", "Mass", 12)])
    assert places(chain, "majority") == [(0, "Mass", 4)]
    assert places(chain, "any") == [(0, "Mass", 4), (0, "Mass", 12)]
    assert places(boxed([(0, "R1", "Mass", 0), (0, "R2", "Mass", 5)]), "majority") == []  # 5/15 is below 0.4


def test_boxes_whose_reader_is_unknown_are_unchanged() -> None:
    mixed = boxed([(0, "", "Mass", 0), (0, "", "Mass", 1), (0, "R1", "Mass", 0)])
    assert places(mixed, "majority") == [(0, "Mass", 0), (0, "Mass", 1)]


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> DatasetFolder:
    """Eight images read by three readers, each of whom draws his boxes at a place of his own, and two read by none."""
    made = images(tmp_path_factory.mktemp("读 in"), 10)
    readings = readings_of(VOTES)
    boxes = readings[readings["Mass"] == 1].assign(finding="Mass", y=1.0, width=8.0, height=8.0)
    boxes["x"] = boxes["reader"].map({"R1": 0.0, "R2": 1.0, "R3": 30.0})
    unknown = pd.DataFrame(
        {"row": [8], "finding": "Mass", "x": 9.0, "y": 9.0, "width": 8.0, "height": 8.0, "reader": ""}
    )
    labels = [*reader_policy.majority_labels(readings, ["Mass"], 8)[:, 0], 1.0, 0.0]
    table = made.table.assign(Mass=np.array(labels, np.float32))
    boxes = box_frame(pd.concat([boxes, unknown], ignore_index=True))
    index = replace(made, table=table, readings=readings, boxes=boxes, box_frame=(48, 48))
    return imported(index, tmp_path_factory.mktemp("out"))


def test_labels_under_each_policy(opened: DatasetFolder) -> None:
    data, rows = Datasets.of([opened]), np.arange(10)
    for policy, votes in (("ignore", MAJORITY), ("ones,readers=any", ANY), ("ones,readers=each", MAJORITY)):
        wanted = np.array([*votes, 1, 0])
        wanted[wanted == -1] = NAN if policy == "ignore" else 1
        np.testing.assert_array_equal(data.known_labels(rows, ("Mass",), Policy.parse(policy))[:, 0], wanted)
    np.testing.assert_array_equal(data.source_labels(("Mass",), "any")[:, 0], [*ANY, 1, 0])


def test_boxes_under_each_policy(opened: DatasetFolder) -> None:
    data, rows = Datasets.of([opened]), np.arange(10)
    counts = {
        policy: np.bincount(detections.truth(data, rows, "Mass", Policy.parse(policy)).images, minlength=10).tolist()
        for policy in ("ignore", "readers=any", "readers=each")
    }
    assert counts["ignore"] == counts["readers=each"] == [1, 0, 0, 0, 0, 0, 0, 0, 1, 0]
    assert counts["readers=any"] == [1, 1, 1, 0, 0, 1, 1, 0, 1, 0]


def loaded(opened: DatasetFolder, epoch: int, **how: object) -> tuple[np.ndarray, list[np.ndarray]]:
    """Labels and boxes of an epoch, in the order of the rows."""
    policy = how.pop("policy", "ones,readers=each")
    loader = Loader([opened], [plain_view(32)], seed=3, policy=str(policy), findings=("Mass",), **how)  # type: ignore[arg-type]
    labels, boxes = np.full(10, NAN), [np.empty((0, 4))] * 10
    for batch in loader.epoch(epoch):
        drawn = batch.boxes[0].numpy()
        for place, row in enumerate(batch.rows.tolist()):
            labels[row], boxes[row] = batch.labels[place, 0], drawn[drawn[:, 0] == place, 2:]
    return labels, boxes


def test_each_epoch_draws_one_reader_per_image_with_his_boxes(opened: DatasetFolder) -> None:
    seen: list[set[float]] = [set() for _ in range(10)]
    for epoch in range(40):
        labels, boxes = loaded(opened, epoch, batch=10)
        for row, votes in enumerate(VOTES):
            if 1 in votes and -1 not in votes:
                assert len(boxes[row]) == (labels[row] == 1)
            seen[row].add(float(labels[row]))
        assert (labels[8], labels[9], len(boxes[8]), len(boxes[9])) == (1, 0, 1, 0)
    assert [{1.0 if vote == -1 else float(vote) for vote in votes if vote == vote} for votes in VOTES] == [
        {label for label in labels if label == label} for labels in seen[:8]
    ]


def test_the_drawn_reader_depends_on_seed_epoch_and_row_alone(opened: DatasetFolder) -> None:
    labels, boxes = loaded(opened, 5, batch=10, threads=1)
    again, other = loaded(opened, 5, batch=3, threads=3, shuffle=False)
    np.testing.assert_array_equal(labels, again)
    assert all(np.array_equal(one, two) for one, two in zip(boxes, other, strict=True))
    assert any(not np.array_equal(labels, loaded(opened, epoch)[0], equal_nan=True) for epoch in range(4))


def test_batches_have_the_combined_labels_and_boxes_without_draws(opened: DatasetFolder) -> None:
    labels, boxes = loaded(opened, 0, policy="ones,readers=any")
    np.testing.assert_array_equal(labels, np.abs([*ANY, 1, 0]))
    assert [len(each) for each in boxes] == [1, 1, 1, 0, 0, 1, 1, 0, 1, 0]
    loader = Loader([opened], [plain_view(32)], policy="readers=each", findings=("Mass",))
    assert np.bincount(loader.boxes(1)[:, 0].astype(int)).max() == 1


def test_a_dataset_without_readings_is_unchanged_beside_one_with_readings(
    opened: DatasetFolder, tmp_path: Path
) -> None:
    other = imported(images(tmp_path / "in", 6), tmp_path / "out")
    data = Datasets.of([other, opened])
    np.testing.assert_array_equal(data.source_labels(("Mass",), "any")[:6, 0], other.index.labels[:, 0])
    assert data.readings(("Mass",)).rows.min() == 6
    loader = Loader(data, [plain_view(32)], policy="ones,readers=each", findings=("Mass",), shuffle=False, batch=16)
    (batch,) = loader.epoch(0)
    np.testing.assert_array_equal(batch.labels[:6, 0].numpy(), other.index.labels[:, 0])
    assert set(batch.boxes[0][:, 0].tolist()) <= {6, 7, 8, 11, 12, 14}


@pytest.mark.parametrize("text", ["ignore,readers=any", "ones,Edema=zeros,blank=zeros,readers=each", "ignore"])
def test_the_readers_are_part_of_the_text_of_a_policy(text: str) -> None:
    policy = Policy.parse(text)
    assert str(policy) == text and Policy.parse(str(policy)) == policy
    assert str(policy.settled) == text.replace(",readers=each", "")


@pytest.mark.parametrize(
    ("given", "trained", "stated"),
    [("zeros,readers=each", "", "zeros"), ("readers=any", "", "ignore,readers=any"), ("", "ones,readers=any", "ones,readers=any")],
)  # fmt: skip
def test_a_test_states_the_readers_of_its_labels(opened: DatasetFolder, given: str, trained: str, stated: str) -> None:
    spec = ModelSpec("test_resnet", ("Mass",), (32, 32), 32, "pad", 0.5, 0.25, training=TrainingRecord(policy=trained))
    test = PlannedTest.of(Rules(Path("run"), split="train", policy=given), spec, [opened.folder])
    assert str(test.policy) == stated


@pytest.mark.parametrize("text", ["readers=all", "readers=any,readers=each", "readers"])
def test_unknown_readers_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"readers=majority\|any\|each"):
        Policy.parse(text)
    with pytest.raises(ValueError, match="readers='all'"):
        Policy(readers="all")
