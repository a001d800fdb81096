"""A run folder belongs to one run, and a run resumes with the options that it began with."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from ribcage import cli
from ribcage.commands import finetune, pretrain
from ribcage.training import run_folder


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


@pytest.mark.parametrize("file", ["dataset.json", "model.json"])
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
