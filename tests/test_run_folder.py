"""A run folder belongs to one run, and a run resumes with the options that it began with."""

import dataclasses
import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest
from refusals import has_facts

from ribcage import cli
from ribcage.commands import finetune, pretrain, runs
from ribcage.runtime import distributed, flags, resuming
from ribcage.training import run_folder
from ribcage.training.options import LEFT_OPEN, with_defaults


@dataclass(frozen=True)
class Asked:
    out: Path
    resume: bool = False


def test_a_start_that_came_to_no_step_leaves_the_folder_free(tmp_path: Path) -> None:
    asked = Asked(tmp_path / "run")
    run_folder.create("finetune", asked, [])
    run_folder.create("finetune", asked, [])
    (asked.out / "metrics.jsonl").write_text('{"step": 1}\n')
    with pytest.raises(ValueError, match="--resume"):
        run_folder.create("finetune", asked, [])
    (asked.out / "metrics.jsonl").unlink()
    (asked.out / "checkpoint.pt").touch()
    with pytest.raises(ValueError, match="--resume"):
        run_folder.create("finetune", asked, [])


@pytest.mark.parametrize(("resume", "fact"), [(False, "--resume"), (True, "options.json"), ("auto", "options.json")])
def test_checkpoints_without_options_are_neither_resumed_nor_replaced(
    tmp_path: Path, resume: Literal["auto"] | bool, fact: str
) -> None:
    (tmp_path / "checkpoint.pt").touch()
    asked = finetune.Options(data=("set",), out=tmp_path, resume=resume)
    with pytest.raises((ValueError, FileNotFoundError), match=fact):
        run_folder.check_free(run_folder.with_resume(asked))


@pytest.mark.parametrize("file", ["dataset.json", "model.json", "tune.json"])
def test_no_run_begins_in_a_dataset_folder_or_a_bundle(tmp_path: Path, file: str) -> None:
    (tmp_path / file).touch()
    with pytest.raises(ValueError, match=f"{file}.*--out"):
        run_folder.create("finetune", Asked(tmp_path), [])


def test_an_option_that_an_older_run_knew_nothing_of_was_at_its_default(tmp_path: Path) -> None:
    asked = finetune.Options(data=("set",), out=tmp_path)
    said = run_folder.record("finetune", asked, [])
    del said["keep"], said["seed"]
    (tmp_path / "options.json").write_text(json.dumps(said), encoding="utf-8")
    (tmp_path / "checkpoint.pt").touch()
    run_folder.check_resumable("finetune", asked, [])
    with pytest.raises(ValueError, match=r"--keep best.*--keep last"):
        run_folder.check_resumable("finetune", dataclasses.replace(asked, keep="last"), [])
    with pytest.raises(ValueError, match=r"'ribcage finetune'.*'ribcage pretrain'"):
        run_folder.check_resumable("pretrain", pretrain.Options(method="mae", data=("set",), out=tmp_path), [])


@pytest.mark.parametrize("command", ["finetune", "pretrain moco", "distil --teacher none", "localise"])
@pytest.mark.parametrize("more", [["--devices", "2"], []])
def test_the_run_folder_is_checked_before_the_data_are_opened(
    command: str, more: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*command.split(), "--data", str(tmp_path / "nothing"), "--out", str(tmp_path / "run"), *more]
    assert cli.main([*words, "--resume"]) == 1
    assert str(tmp_path / "run") in (said := capsys.readouterr().err) and "--resume" in said and "nothing" not in said
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "options.json").write_text("{}", encoding="utf-8")
    (tmp_path / "run" / "checkpoint.pt").touch()
    assert cli.main(words) == 2
    assert str(tmp_path / "run") in (said := capsys.readouterr().err) and "--resume" in said and "nothing" not in said


@pytest.mark.parametrize(
    "words",
    [
        [
            "finetune",
            "--lr",
            "0.02",
            "--epochs",
            "7",
            "--augment-options",
            "crop=0.5,1.0",
            "flip=0.5",
            "--no-drop-copies",
        ],
        ["pretrain", "moco", "--batch", "32", "--queue", "64", "--lr", "0.02"],
        ["distil", "--teacher", "it's a teacher", "--epochs", "3"],
        ["localise", "--model", "resnet18", "--findings", "Mass", "--head", "yolo"],
    ],
    ids=lambda words: words[0],
)
def test_the_command_that_resumes_a_run_has_its_options(words: list[str], tmp_path: Path) -> None:
    out = tmp_path / "跑 a's  $b"
    started = settled([*words, "--data", "数据/nih", "x y", "--out", str(out)])
    run_folder.create(words[0], started, [])
    (out / "checkpoint.pt").touch()
    command = run_folder.resume_command(words[0], started)
    assert command == runs.resume_command(out), "from options.json alone"
    program, *again = shlex.split(command)
    assert program == "ribcage" and not {f"--{name}" for name in LEFT_OPEN} & set(again)
    assert settled(again) == dataclasses.replace(started, resume=True)
    assert not run_folder.check_resumable(words[0], settled(again), [])


@pytest.mark.parametrize(
    ("micro", "before", "now", "differ"), [(8, 2, 1, True), (4, 2, 1, True), (16, 2, 1, False), (0, 2, 1, False)]
)
def test_batch_norms_over_other_micro_batches_are_a_warning(
    micro: int, before: int, now: int, differ: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a batch of 16, a process of two has 8 images and a single one has 16."""
    monkeypatch.setattr(distributed, "world_size", lambda: now)
    options = finetune.Options(data=("set",), out=Path("run"), batch=16, micro_batch=micro)
    said = run_folder.norms_warning(options, before)
    assert bool(said) == differ and (not differ or has_facts(said, f"--micro-batch {micro}", "1 process", "2"))


def settled(words: list[str]) -> finetune.Options:
    """The options of a command line, with those that are left open."""
    module = cli.command(words[0])
    options = flags.parse(words[0], module, flags.read_flags(module, words[1:]), words[1:])
    return pretrain.settled(options) if isinstance(options, pretrain.Options) else with_defaults(options)  # type: ignore[return-value]


def test_a_command_that_starts_a_run_is_resumed_in_place_of_it() -> None:
    with pytest.raises(OSError, match="disk") as raised, resuming.resumed_instead_by("demo"):
        raise OSError("disk")
    assert not resuming.resume_note(raised.value)
    with (
        pytest.raises(KeyboardInterrupt) as stopped,
        resuming.resumed_instead_by("ribcage demo"),
        resuming.resumed_by("ribcage finetune"),
    ):
        raise KeyboardInterrupt
    assert resuming.resume_note(stopped.value).endswith("ribcage demo")
