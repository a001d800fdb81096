"""Limits of options: a number out of range is named with its value, and all faults stand in one line."""

import dataclasses
from pathlib import Path

import pytest
from refusals import has_facts, line

from ribcage import cli
from ribcage.commands import finetune, pretrain
from ribcage.runtime import flags, limits


def options(**more: object) -> finetune.Options:
    return finetune.Options(data=("set",), out=Path("run"), **more)  # type: ignore[arg-type]


def test_the_defaults_are_within_their_limits() -> None:
    assert limits.faults(options()) == []
    assert limits.faults(pretrain.Options(method="mae", data=("set",), out=Path("run"))) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("lr", -1.0), ("lr", float("nan")), ("lr", float("inf")), ("ema", 1.5), ("ema", -0.5),
        ("smoothing", 2.0), ("clip", -1.0), ("warmup", -1.0), ("weight_decay", -1.0), ("layer_decay", 0.0),
        ("layer_decay", 2.0), ("patience", -1), ("save_minutes", -1.0), ("devices", 0), ("micro_batch", -1),
        ("epochs", 0), ("batch", 0), ("drop_path", 2.0), ("dropout", 1.0), ("mixup", -1.0), ("cutmix", -1.0), ("labels", 0.0),
        ("threads", -1), ("min_lr", -1.0),
    ],
)  # fmt: skip
def test_a_number_out_of_its_limits_is_named(name: str, value: float) -> None:
    (fault,) = limits.faults(options(**{name: value}))
    option = f"--{name.replace('_', '-')}"
    assert has_facts(fault, option, f"{value:g}")


def test_all_faults_are_named_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["finetune", "--data", "set", "--out", "run", "--lr", "-1", "--decay-at", "0.5", "2", "--devices", "0"]
    assert cli.main([*words, "--size", "32", "40", "50", "--findings", "Mass", "Edema", "Mass"]) == 2
    said = capsys.readouterr().err
    wrong = (
        "--devices 0",
        "--lr -1",
        "--decay-at 2",
        "--size",
        3,
        "--decay-at",
        "--schedule step",
        "--findings",
        "Mass",
    )
    assert has_facts(said, "ribcage", *wrong) and said.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "facts"),
    [
        (["--lr", "1e300"], ("--lr", "1e300", "9.2e+18")),
        (["--weight-decay", "1e300"], ("--weight-decay", "1e+300", "9.2e+18")),
        (["--weight-decay", "0:1e300"], ("--weight-decay", "1e+300", "9.2e+18")),
        (["--temperature", "1e-300:0.1"], ("--temperature", "1e-300", "1e-6")),
        (["--epochs", "1" * 30], ("--epochs", "1" * 30, "9.2e+18")),
        (["--lr", "nan"], ("--lr", "'nan'")),
    ],
)
def test_numbers_that_are_too_large_or_too_small_to_compute_with_are_refused(
    words: list[str], facts: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert has_facts(line(["pretrain", "moco", "--data", "set", "--out", "run", *words], capsys), *facts)


def test_pretraining_asks_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["pretrain", "mae", "--data", "set", "--out", "run", "--lr", "-1", "--clip", "-1"]) == 2
    assert has_facts(capsys.readouterr().err, "--lr -1", "--clip -1")


SELECTING = {
    "blend": ["a", "b", "--data", "set", "--out", "run"],
    "convert": ["weights.pth", "--data", "set", "--out", "run"],
    "curate": ["set", "--features", "run", "--out", "other"],
    "distil": ["--data", "set", "--out", "run", "--teacher", "a"],
    "export": ["run", "--data", "set"],
    "finetune": ["--data", "set", "--out", "run"],
    "labels": ["run", "--data", "set"],
    "localise": ["--data", "set", "--out", "run"],
    "probe": ["run", "--data", "set"],
    "tune": ["finetune", "--data", "set", "--out", "run", "--space", "lr=1,2"],
}
"""Commands that fit or select something on a split, with the options that they require."""


def test_every_command_with_a_training_or_validation_split_is_among_those_tested() -> None:
    own = {
        name
        for name in cli.command_names()
        for field in dataclasses.fields(cli.command(name).Options)
        if field.name in ("train", "val") and field.default == field.name
    }
    assert own | {"tune"} == set(SELECTING)  # tune passes the options of another command on


@pytest.mark.parametrize("name", SELECTING)
def test_nothing_is_trained_selected_or_calibrated_on_the_test_split(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    splits = [one for one in ("train", "val") if f"--{one}" in help_options(name)]
    asked = [word for one in splits for word in (f"--{one}", "test")]
    said = line([name, *SELECTING[name], *asked], capsys)
    assert splits and all(has_facts(said, f"--{one} test") for one in splits)
    assert not list(tmp_path.iterdir())


def help_options(name: str) -> set[str]:
    """The options of a command, and of the one whose options it passes on."""
    module = cli.command(name)
    return {f"--{one.name.replace('_', '-')}" for one in flags.read_flags(module, SELECTING[name])}
