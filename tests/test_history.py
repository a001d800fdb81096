"""The history of tests: no entry is overwritten by a test of other data, and uses of test data are counted."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from dataset_folders import make_store
from refusals import has_facts

from ribcage.bundle import card, history
from ribcage.bundle.history import PastTest
from ribcage.data.collection import Datasets
from ribcage.data.dataset_folder import DatasetFolder
from ribcage.evaluation import leakage
from ribcage.metrics.classification_evaluation import (
    ClassificationBaselines,
    ClassificationEvaluation,
    ClassifiedFinding,
    ShuffledLabels,
)
from ribcage.metrics.estimates import MeanEstimate, ScalarEstimate

ONE = PastTest(0, "nih", "test", "aaaaaaaaaaaaaaaa", ("i1",), "w1", "", True, 100, 50, 3, "mean AUROC", 0.9, 0.8, 0.95)


def test_tests_are_numbered_and_read_back(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        assert history.add(tmp_path, ONE).number == number
    assert [one.number for one in history.load_tests(tmp_path)] == [1, 2, 3]
    assert history.load_tests(tmp_path)[2] == replace(ONE, number=3)
    text = (tmp_path / history.FILE).read_text(encoding="utf-8")
    assert str(tmp_path) not in text and history.load_tests(tmp_path / "none") == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"format": 1, "tests": [1]}',
        '{"format": 3, "tests": []}',
        '{"format": 1}',
        '{"format": 1, "tests": [{"number": 1}]}',
    ],
)
def test_a_damaged_history_is_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / history.FILE).write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match="is damaged"):
        history.load_tests(tmp_path)


def test_a_history_from_elsewhere_cannot_act_on_a_terminal(tmp_path: Path) -> None:
    history.add(tmp_path, ONE)
    file = tmp_path / history.FILE
    values = json.loads(file.read_text(encoding="utf-8"))
    values["tests"][0]["name"] = "\x1b[2J"
    file.write_text(json.dumps(values), encoding="utf-8")
    with pytest.raises(ValueError, match="is damaged"):
        history.load_tests(tmp_path)


def test_uses_of_the_same_images_are_counted_whatever_the_options_and_rows() -> None:
    first, frontal = replace(ONE, number=1), replace(ONE, number=2, key="b", options="frontal")
    whole, other = replace(ONE, number=3, split="all", key="c"), replace(ONE, number=4, contents=("i2",), key="d")
    every = [first, frontal, whole, other]
    assert [one.number for one in history.use(every, ("i1",), "test")] == [1, 2, 3]
    assert [one.number for one in history.use(every, ("i1", "i9"), "val")] == [3]
    assert has_facts(history.sentence(5, history.use(every, ("i1",), "test")), "test 5", "4th", "tests 1, 2, 3")
    assert has_facts(history.sentence(1, []), "test 1", "first")
    assert has_facts(history.new(other, [first, frontal]), "differ", "test 2")
    assert has_facts(history.new(frontal, [first]), "2nd use", "other options")
    assert has_facts(history.new(replace(first, number=9, weights="w2"), [first]), "2nd use", "other weights")
    assert [history.ordinal(count) for count in (2, 3, 11, 12, 21, 112)] == [
        "2nd",
        "3rd",
        "11th",
        "12th",
        "21st",
        "112th",
    ]


def result_of(test: PastTest) -> ClassificationEvaluation:
    span = ScalarEstimate(test.value, test.low, test.high)
    row = ClassifiedFinding(
        finding="Mass", n=9, positives=3, left_out=0, threshold=None, prevalence=None, uncertain=0, unknown=0,
        temperature=None, brier_before=span, brier_change=span, ece=None, ece_before=None,
        metrics=dict.fromkeys(("auroc", "sensitivity", "specificity"), span),
    )  # fmt: skip
    shuffled = ShuffledLabels(times=1, findings=(), macro=span)
    return ClassificationEvaluation(
        images=test.images, patients=test.patients, protocol="honest", level=0.95, resamples=1, seed=0, rule="youden",
        findings=(row,), macro={"auroc": MeanEstimate(test.value, test.low, test.high, test.judged)}, rules={},
        baselines=ClassificationBaselines(fitted_on="", shuffled=shuffled), subgroups=(),
    )  # fmt: skip


def test_the_card_keeps_the_best_documented_test_of_a_name_and_lists_the_other() -> None:
    good = replace(ONE, number=1)
    poor = replace(ONE, number=2, key="bbbbbbbb", contents=("i2",), images=200, patients=0, judged=0, value=None, low=None, high=None)  # fmt: skip
    better = replace(ONE, number=3, key="cccccccc", contents=("i3",), patients=400)
    text = card.card_with_tests("# x\n\n## Limitations\n", result_of(good), [good])
    text = card.card_with_tests(text, result_of(poor), [good, poor])
    (heading,) = (line for line in text.splitlines() if has_facts(line, "AUROC", "0.900") and not line.startswith("|"))
    assert has_facts(heading, "Test 1", "100 images", "50 patients")
    assert has_facts(text, "| 2 | nih, test | bbbbbb | 200 | – | mean AUROC – |", "differ", "test 1")
    text = card.card_with_tests(text, result_of(better), [good, poor, better])
    assert text.count("## Test: nih, split test") == 1 and has_facts(text, "Test 3", "100 images", "400 patients")
    assert text.count("## Tests\n") == 1 and text.count("## Limitations") == 1


def test_the_key_is_of_images_labels_rows_split_and_options(tmp_path: Path) -> None:
    opened = make_store(tmp_path)
    rows = np.arange(len(opened))

    def key(one: DatasetFolder = opened, own: np.ndarray = rows, split: str = "test", **options: str) -> str:
        return leakage.key_of(Datasets.of([one]), own, split, {"rule": "youden"} | options)

    table = opened.index.table.copy()
    name = opened.index.findings[0]
    table.loc[0, name] = 0.0 if table.loc[0, name] == 1 else 1.0
    relabelled = replace(opened, index=replace(opened.index, table=table))
    others = replace(opened, facts=replace(opened.facts, contents="others"))
    keys = [key(), key(relabelled), key(others), key(own=rows[1:]), key(split="val"), key(rule="f1")]
    assert len(set(keys)) == len(keys) and key() == key()
    assert leakage.images_of(relabelled) == leakage.images_of(opened) != leakage.images_of(others)
    moved = replace(opened, index=replace(opened.index, root=Path("/elsewhere")))
    assert key(moved) == key()
    renamed = replace(opened, index=replace(opened.index, table=opened.index.table.assign(patient="another")))
    boxes = opened.index.boxes
    boxed = replace(
        opened, index=replace(opened.index, boxes=boxes.assign(**{boxes.columns[-1]: boxes.iloc[:, -1] + 1}))
    )
    assert len(boxes) and len({key(), key(renamed), key(boxed)}) == 3
    unhashed = replace(opened, facts=replace(opened.facts, contents=""))  # a linked folder
    elsewhere = replace(unhashed, index=replace(unhashed.index, table=opened.index.table.assign(path="x.png")))
    assert leakage.images_of(unhashed) != leakage.images_of(elsewhere)


def test_the_key_does_not_depend_on_the_order_of_folders(tmp_path: Path) -> None:
    one = make_store(tmp_path)
    two = replace(one, facts=replace(one.facts, contents="others"))
    rows = np.arange(2 * len(one))
    there, back = (leakage.key_of(Datasets.of(each), rows, "test", {}) for each in ([one, two], [two, one]))
    assert there == back
