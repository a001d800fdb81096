"""The page shows what was measured, needs nothing from outside, and stays small."""

import re
import xml.etree.ElementTree as ET
from dataclasses import replace

import numpy as np
import pytest
from test_evaluation import made
from test_loader import make_store

from ribcage import evaluation, report
from ribcage.evaluation import Answers
from ribcage.store import Store

CONTEXT = {
    "leak": {"found": False, "text": "nothing seen", "linked": [], "unseen": 0},
    "run": "runs/肺",
    "model": {"name": "tiny", "size": (32, 32), "findings": ["Mass"], "loss": "bce", "fit": "pad", "stored": 32, "splits": ["train", "val"], "data": [{"name": "<nih>", "licence": "free"}]},
    "not_tested": [],
    "data": [{"folder": "data/a b", "name": "made", "source": "nowhere", "licence": "free", "fit": "pad", "size": 32}],
    "split": "test",
    "ten_crop": False,
    "policy": "ignore",
    "command": "ribcage evaluate 'runs/肺'",
    "versions": {"ribcage": "1"},
}  # fmt: skip


@pytest.fixture(scope="module")
def data() -> Answers:
    return made(50)


@pytest.fixture(scope="module")
def result(data: Answers) -> dict:
    found = evaluation.evaluate(data, resamples=50) | CONTEXT
    return found | {"stamps": evaluation.stamps(found)}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return make_store(tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def text(result: dict, data: Answers, store: Store) -> str:
    return report.page(result, data, report.worst_pictures(data, [store], 8))


def test_the_page_needs_nothing_from_outside(text: str) -> None:
    assert "<script" not in text
    addresses = re.findall(r"""(?:src|href)=["']?(.{5})""", text)
    assert set(addresses) == {"data:"} and "url(" not in text and "@import" not in text


def test_the_page_escapes_names(text: str) -> None:
    assert "&lt;nih&gt;" in text and "<nih>" not in text


def test_each_finding_with_both_classes_has_four_valid_drawings(text: str) -> None:
    drawings = re.findall(r'<svg class="plot".*?</svg>', text, re.S)
    assert len(drawings) == 4 * 2  # nobody has Hernia
    for drawing in drawings:
        ET.fromstring(drawing)
    assert not re.search(r"\bnan\b|\bNone\b", text)


def test_undefined_is_a_dash(result: dict) -> None:
    head, rows = report.finding_table(result)
    hernia = next(row for row in rows if row[0] == "Hernia")
    assert hernia[head.index("AUROC")] == "–" and hernia[head.index("95 %")] == "–"
    assert rows[-1][0] == "mean of 2"


def test_stamps_stand_on_top_of_the_page(result: dict, data: Answers) -> None:
    leak = CONTEXT["leak"] | {"found": True, "text": "Of 50 test pictures, 9 were seen"}  # type: ignore[operator]
    found = result | {"leak": leak, "protocol": "peers", "split": "val", "not_tested": ["Nodule"]}
    stamps = evaluation.stamps(found)
    squashed = evaluation.stamps(found | {"data": [CONTEXT["data"][0] | {"fit": "squash"}]})  # type: ignore[index]
    assert "made square by 'squash'" in squashed[3]
    assert len(stamps) == 4 and "9 were seen" in stamps[0] and "Nodule" in stamps[3]
    text = report.page(found | {"stamps": stamps}, data)
    assert text.index("9 were seen") < text.index("Findings")


def test_worst_pictures_are_those_the_other_class_outscores_most(data: Answers) -> None:
    missed = report.worst(data, present=True, most=6)
    assert len({place for place, _ in missed}) == len(missed) == 6
    assert all(data.labels[place, column] == 1 for place, column in missed)
    place, column = missed[0]
    own = data.probabilities[data.labels[:, column] == 1, column]
    assert data.probabilities[place, column] == own.min()
    alarms = report.worst(data, present=False, most=6)
    assert all(data.labels[place, column] == 0 for place, column in alarms)
    assert max(np.unique([column for _, column in missed], return_counts=True)[1]) == 3


def test_what_nobody_of_the_other_class_outscores_is_no_error(data: Answers) -> None:
    logits = np.where(data.labels == 1, 3.0, -3.0).astype(np.float32)
    perfect = replace(data, predictions=replace(data.predictions, logits=logits))
    assert report.worst(perfect, present=True, most=6) == report.worst(perfect, present=False, most=6) == []


def test_a_picture_says_what_is_there_and_what_was_said(data: Answers, store: Store) -> None:
    place = int(np.flatnonzero(data.labels[:, 0] == 1)[0])
    said = report.caption(data, place, 0)
    assert said.startswith("Mass: ") and "there: Mass" in said and "said: " in said


def test_a_large_evaluation_makes_a_small_page() -> None:
    large = made(20_000)
    found = evaluation.evaluate(large, resamples=20) | CONTEXT
    page = report.page(found | {"stamps": []}, large)
    assert len(page.encode()) < 200_000
