"""Option values that change during training: image sizes, weight decay, temperature."""

import math

import pytest
import torch
import toys
from ranks import images, made
from refusals import has_facts

from ribcage import methods
from ribcage.commands import finetune
from ribcage.runtime import flags, limits, schedules
from ribcage.training.metrics_log import step_values


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


# ---- START:END


def test_a_ramp_is_half_a_cosine() -> None:
    ramp = schedules.ramp("--weight-decay", "0.04:0.4")
    assert [ramp.at(share) for share in (0.0, 0.5, 1.0)] == pytest.approx([0.04, 0.22, 0.4])
    assert ramp.at(0.25) == pytest.approx(0.4 - 0.36 * 0.5 * (1 + math.cos(math.pi / 4)))
    assert schedules.ramp("--weight-decay", 0.1).at(0.7) == pytest.approx(0.1)


@pytest.mark.parametrize(("given", "kept"), [("0.04:0.4", "0.04:0.4"), ("0.05", 0.05)])
def test_a_number_stays_a_number(given: str, kept: object) -> None:
    words = ["--data", "set", "--out", "run", "--weight-decay", given]
    asked = flags.parse("finetune", finetune, flags.read_flags(finetune, []), words)
    assert asked.weight_decay == kept and limits.faults(asked) == []


@pytest.mark.parametrize(
    ("text", "fact"), [("0.04:x", "START:END"), ("1:2:3", "START:END"), ("0.1:-1", "-1"), ("nan:1", "nan:1")]
)
def test_a_ramp_that_is_none_is_refused_in_one_line(text: str, fact: str) -> None:
    words = ["--data", "set", "--out", "run", "--weight-decay", text]
    (fault,) = limits.faults(flags.parse("finetune", finetune, flags.read_flags(finetune, []), words))
    assert has_facts(fault, "--weight-decay", fact) and "\n" not in fault


@pytest.mark.parametrize("kind", ["adamw", "sgd", "lars"])
def test_the_weight_decay_of_each_step_is_the_ramp_and_is_logged(kind: str) -> None:
    run = toys.run([(1.0, 3.0)] * 4, kind=kind, weight_decay=schedules.Ramp(0.4, 0.0))
    run._groups().append({**run._groups()[0], "params": [], "always_adapt": False, "weight_decay": 0.0})
    run._groups()[0]["always_adapt"] = True
    for step, log in enumerate(run.fit()):
        expected = 0.2 * (1 + math.cos(math.pi * step / 4))
        assert [group["weight_decay"] for group in run._groups()] == [pytest.approx(expected), 0.0]
        assert step_values(log)["weight_decay"] == pytest.approx(expected)


@pytest.mark.parametrize("name", ["moco", "simclr", "supcon", "swav", "dino", "distil"])
def test_a_temperature_that_is_constant_by_its_ramp_gives_the_loss_of_the_number(name: str) -> None:
    losses = []
    for temperature in (0.3, "0.3:0.3", "0.6:0.3"):
        method = made(name, temperature=temperature)
        values = method.before_step(1.0)
        assert values.get("temperature") == (None if temperature == 0.3 else pytest.approx(0.3))
        assert "temperature" not in method.state_dict()
        torch.manual_seed(0)
        losses.append(method(images(method)).loss)
    torch.testing.assert_close(losses[1:], [losses[0]] * 2)
    method.before_step(0.0)
    assert method(images(method)).loss != losses[0]


@pytest.mark.parametrize("name", ["moco", "simclr", "supcon", "swav", "dino"])
def test_a_temperature_of_zero_is_refused_also_at_an_end(name: str) -> None:
    with pytest.raises(ValueError, match="--temperature"):
        made(name, temperature="0.1:0")
    with pytest.raises(ValueError):
        made(name, temperature="warm")
    assert methods.load_method(name).ramps == {}
