"""Option values that change during training: sequences of image sizes."""

import pytest
from refusals import has_facts

from ribcage.commands import finetune
from ribcage.runtime import flags, limits, schedules


def options(*size: str, epochs: int = 10) -> finetune.Options:
    """As read from the command line."""
    words = ["--data", "set", "--out", "run", "--size", *size, "--epochs", str(epochs)]
    made: finetune.Options = flags.parse("finetune", finetune, flags.read_flags(finetune, []), words)
    return made


@pytest.mark.parametrize(
    ("text", "epochs", "stages"),
    [
        ("128:0.6,224", 10, [(128, 0, 6), (224, 6, 10)]),
        ("128:0.6,224", 2, [(128, 0, 1), (224, 1, 2)]),
        ("96:0.25,128:0.5,224", 7, [(96, 0, 2), (128, 2, 5), (224, 5, 7)]),
        ("96:0.3,128:0.3,224", 10, [(96, 0, 3), (128, 3, 6), (224, 6, 10)]),
    ],
)
def test_shares_are_of_the_epochs_in_whole_epochs(text: str, epochs: int, stages: list[tuple[int, int, int]]) -> None:
    asked = options(text, epochs=epochs)
    assert limits.faults(asked) == [] and asked.final_size == (224, 224)
    assert [(one.size, one.first, one.end) for one in asked.size_stages] == [
        ((size, size), first, end) for size, first, end in stages
    ]


def test_one_or_two_numbers_are_one_stage() -> None:
    for words, size in ((["64"], (64, 64)), (["64", "48"], (64, 48))):
        asked = options(*words)
        assert asked.size == tuple(map(int, words)) and asked.final_size == size
        assert asked.size_stages == (schedules.SizeStage(size, 0, 10),)


@pytest.mark.parametrize(
    ("words", "facts"),
    [
        (["128:0.6"], ["128:0.6"]),
        (["128,224"], ["128,224"]),
        (["128:x,224"], ["128:x,224"]),
        (["128:0.6,224", "64"], ["128:0.6,224"]),
        (["128:0.6,160:0.4,224"], ["160:0.4", "below 1"]),
        (["128:0,224"], ["128:0,224", "above 0"]),
        (["128:nan,224"], ["128:nan,224"]),
        (["0:0.5,224"], [" 0 ", "at least 1"]),
        (["128:0.01,224"], [" 10 ", "128 pixels"]),
        (["128:0.99,224"], [" 10 ", "224 pixels"]),
    ],
)
def test_a_sequence_that_is_none_is_refused_in_one_line(words: list[str], facts: list[str]) -> None:
    (fault,) = limits.faults(options(*words))
    assert has_facts(fault, "--size", *facts) and "\n" not in fault
