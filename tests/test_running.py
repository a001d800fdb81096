"""Wrong numbers are said at once, and a folder belongs to one run."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from ribcage import cli
from ribcage.commands import finetune, pretrain
from ribcage.runtime import distributed, limits
from ribcage.training import run_folder, setup


@dataclass(frozen=True)
class Asked:
    out: Path
    resume: bool = False


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
        ("epochs", 0), ("batch", 0), ("drop_path", 2.0), ("dropout", 1.0), ("mixup", -1.0), ("labels", 0.0),
        ("threads", -1), ("min_lr", -1.0),
    ],
)  # fmt: skip
def test_a_number_out_of_its_limits_is_named(name: str, value: float) -> None:
    (fault,) = limits.faults(options(**{name: value}))
    assert fault.startswith(f"--{name.replace('_', '-')} {value:g} is not ")


def test_all_that_is_wrong_is_said_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["finetune", "--data", "set", "--out", "run", "--lr", "-1", "--decay-at", "0.5", "2", "--devices", "0"]
    assert cli.main([*words, "--size", "32", "40", "50", "--findings", "Mass", "Edema", "Mass"]) == 2
    assert capsys.readouterr().err == (
        "ribcage: --devices 0 is not at least 1; --lr -1 is not 0 or more; --decay-at 2 is not between 0 and 1; "
        "--size takes one or two numbers, not 3; --decay-at goes with --schedule step; --findings names Mass twice.\n"
    )


def test_pretraining_asks_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["pretrain", "mae", "--data", "set", "--out", "run", "--lr", "-1", "--clip", "-1"]) == 2
    assert "--lr -1 is not 0 or more; --clip -1 is not 0 or more" in capsys.readouterr().err


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
def test_no_run_begins_in_a_data_set_or_a_model(tmp_path: Path, file: str) -> None:
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


@pytest.mark.parametrize(
    ("batch", "world", "micro", "parts"),
    [(2048, 1, 256, 8), (2048, 8, 256, 1), (2048, 2, 256, 4), (2048, 1, 0, 1), (100, 1, 64, 2), (64, 1, 1024, 1)],
)
def test_parts_follow_from_batch_processes_and_the_largest_micro_batch(
    batch: int, world: int, micro: int, parts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distributed, "world", lambda: world)
    asked = options(batch=batch, micro_batch=micro)
    assert setup.accumulation_steps(asked, batch) == parts
    assert (f"{parts} accumulation steps" in setup.batch_summary(asked, batch)) == (parts > 1)
