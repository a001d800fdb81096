"""--space: ranges and choices, checked against the options of the training command, all errors at once."""

from pathlib import Path
from typing import Any

import pytest
from refusals import has_facts

from ribcage import cli
from ribcage.commands import finetune, tune
from ribcage.data.collection import Datasets
from ribcage.training import setup
from ribcage.training.options import TrainingOptions
from ribcage.training.search.space import FIXED, Choices, Range, read_space

FLAGS = tune.training_flags("finetune")


def one(word: str) -> Range | Choices:
    (found,) = read_space([word], FLAGS)
    return found


@pytest.mark.parametrize(
    ("word", "low", "high", "log", "whole"),
    [
        ("lr=1e-5..1e-2:log", 1e-5, 1e-2, True, False),
        ("weight-decay=0..0.1", 0.0, 0.1, False, False),
        ("weight_decay=.1...3", 0.1, 0.3, False, False),
        ("epochs=5..20", 5, 20, False, True),
        ("batch=8..64:log", 8, 64, True, True),
        ("warmup=1..3:int", 1, 3, False, True),
        ("size=128..256:log:int", 128, 256, True, True),
    ],
)
def test_a_range(word: str, low: float, high: float, log: bool, whole: bool) -> None:
    found = one(word)
    assert isinstance(found, Range) and (found.low, found.high, found.log, found.whole) == (low, high, log, whole)
    assert isinstance(found.low, int) == whole


def test_values_have_the_type_of_the_option() -> None:
    assert one("epochs=5..20").option_value(7) == 7 and one("lr=0.1..1").option_value(0.5) == 0.5
    assert one("size=128..256").option_value(160) == (160,)
    assert [one("balanced=yes,no").option_value(word) for word in ("yes", "no")] == [True, False]
    betas = one("betas=0.9 0.95,0.9 0.999")
    assert isinstance(betas, Choices) and betas.option_value(betas.words[0]) == (0.9, 0.95)
    assert one("init=,imagenet").extremes() == ["", "imagenet"]


@pytest.mark.parametrize(
    "word", ["lr=1e-05..0.01:log", "weight_decay=0..0.1", "warmup=1..3:int", "augment=gentle,strong"]
)
def test_the_text_of_a_dimension_is_read_as_the_same_dimension(word: str) -> None:
    found = one(word)
    assert one(f"{found.flag.name}={found.text()}") == found


@pytest.mark.parametrize(
    ("word", "facts"),
    [
        ("lr", ("NAME=LOW..HIGH",)),
        ("wieght-decay=0..1", ("wieght-decay", "weight-decay")),
        ("augment=gentle,stong", ("--augment", "stong", "strong")),
        ("augment=1..2", ("--augment", "augment=A,B,C")),
        ("lr=0.1", ("LOW..HIGH", "A,B")),
        ("lr=a..1", ("'a'",)),
        ("epochs=1.5..3", ("'1.5'", "whole")),
        ("lr=2..1", ("2", "1")),
        ("lr=0..1:log", (":log", "0")),
        ("lr=0.1..1:lgo", (":lgo", ":log")),
        ("lr=0.1,0.1", ("'0.1'", "twice")),
        ("lr=nan..1", ("'nan'",)),
        ("out=a,b", ("out",)),
        ("val=val,test", ("val", "validated")),
        ("train=train,test", ("train", "same split")),
        ("drop-copies=yes,no", ("drop-copies", "same split")),
        ("data=a,b", ("data",)),
        ("seed=1..9", ("seed",)),
        ("policy=ones,zeros", ("policy", "validated")),
        ("devices=1..2", ("devices",)),
    ],
)
def test_what_is_wrong_is_said(word: str, facts: tuple[str, ...]) -> None:
    with pytest.raises(ValueError) as refused:
        read_space([word], FLAGS)
    assert has_facts(str(refused.value), word, *facts)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    made = str(tmp_path_factory.mktemp("data") / "phantom")
    assert cli.main(["import", "phantom", "--out", made, "--images", "120", "--size", "32"]) == 0
    return made


class Noted:
    """Options whose names are noted when they are read."""

    def __init__(self, options: TrainingOptions) -> None:
        self.options, self.names = options, set[str]()

    def __getattr__(self, name: str) -> object:
        self.names.add(name)
        return getattr(self.options, name)


@pytest.mark.parametrize("command", tune.METRICS)
def test_no_option_that_selects_images_or_labels_can_be_varied(command: str, folder: str, tmp_path: Path) -> None:
    data, module = Datasets.open([folder]), tune.training_module(command)
    more = {"distil": {"teacher": ("",)}}.get(command, {})
    noted: Any = Noted(module.Options(data=(folder,), out=tmp_path, findings=data.findings, **more))
    for selects in (
        getattr(module, "split_rows", finetune.split_rows),
        getattr(module, "policy_of", finetune.policy_of),
    ):
        selects(noted, data)
    setup.findings_of(noted, data)
    # the initial weights are read only for the warning that they were trained on validation images
    assert noted.names >= {"train", "val", "labels", "drop_copies"} and noted.names - {"init"} <= set(FIXED)


def test_all_errors_are_reported_at_once() -> None:
    with pytest.raises(ValueError) as refused:
        read_space(["lr=2..1", "agment=gentle,plain", "epochs=1..3", "epochs=2..4"], FLAGS)
    assert has_facts(str(refused.value), "lr=2..1", "agment", "augment", "epochs", "twice")
    with pytest.raises(ValueError, match="--space"):
        read_space([], FLAGS)
