"""ribcage runs: state, reason of the end, and best number of every run."""

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import processes
import pytest

import ribcage
from ribcage import cli
from ribcage.runtime import files
from ribcage.training import run_folder, runs

PLACE = run_folder.RunPosition(1, 4, 10, 40)
DONE = run_folder.RunPosition(4, 4, 40, 40)


def hold(run: str) -> None:
    """A process that runs in a folder until it is killed."""
    place = run_folder.RunPosition(1, 4, 10, 40)
    with files.only_writer(Path(run)), run_folder.recorded_state(Path(run), lambda: place):
        print("here", flush=True)
        time.sleep(60)


def made(folder: Path, **options: object) -> Path:
    """A run folder that a command has begun."""
    folder.mkdir(parents=True)
    asked = {"command": "finetune", "data": ["数据/nih"], "model": "test_resnet", **options}
    (folder / "options.json").write_text(json.dumps(asked), encoding="utf-8")
    return folder


def only(folder: Path) -> runs.Row:
    (row,) = runs.run_rows(folder)
    return row


@pytest.fixture
def holding(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[processes.Forked]:
    """A process that runs in tmp_path / '跑 a'."""
    run, said = made(tmp_path / "跑 a"), tmp_path_factory.mktemp("said") / "said.txt"
    with processes.Forked(hold, str(run), said=said, env=os.environ) as process:
        processes.until(lambda: said.read_text(encoding="utf-8") == "here\n", process)
        yield process


def test_a_running_one_is_running_and_a_killed_one_is_not(holding: processes.Forked, tmp_path: Path) -> None:
    assert only(tmp_path).state == run_folder.RunState("running", PLACE)
    holding.send_signal(signal.SIGKILL)
    holding.process.join()
    found = only(tmp_path).state
    assert (found.name, found.place) == ("stopped", PLACE) and "Killed" in found.why


def test_nobody_else_writes_into_a_running_one(holding: processes.Forked, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="跑 a"), files.only_writer(tmp_path / "跑 a"):
        pass
    assert only(tmp_path).state.name == "running", "who was refused has written nothing"


def test_who_only_looks_stops_nobody(tmp_path: Path) -> None:
    (tmp_path / files.LOCK).touch()
    assert files.is_written(tmp_path) is False
    with files.only_writer(tmp_path):
        assert files.is_written(tmp_path) is True
    assert files.is_written(tmp_path) is False


def test_a_file_system_without_locks_trains_but_does_not_tell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno
    import fcntl

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", refuse)
    run = made(tmp_path / "run")
    with files.only_writer(run), run_folder.recorded_state(run, lambda: PLACE):
        found = run_folder.read_state(run)
    assert found.name == "running" and found.why
    assert run_folder.read_state(run).name == "finished"


@pytest.mark.parametrize(
    ("error", "name", "why"),
    [
        (None, "finished", ""),
        (KeyboardInterrupt("SIGTERM: saved at step 10"), "stopped", "SIGTERM: saved at step 10"),
        (ValueError("The loss is\nnan."), "failed", "ValueError: The loss is nan."),
        (MemoryError(), "failed", "MemoryError:"),
    ],
    ids=("end", "signal", "loss", "memory"),
)
def test_how_a_run_ended_is_written_down(error: BaseException | None, name: str, why: str, tmp_path: Path) -> None:
    run = made(tmp_path / "run")
    try:
        with run_folder.recorded_state(run, lambda: DONE):
            if error is not None:
                raise error
    except BaseException as raised:
        assert raised is error
    assert run_folder.read_state(run) == run_folder.RunState(name, DONE, why)


def test_an_end_before_the_last_step_is_reported_with_its_reason(tmp_path: Path) -> None:
    with run_folder.recorded_state(tmp_path, lambda: PLACE):
        pass
    assert run_folder.read_state(tmp_path).name == "finished" and "--patience" in run_folder.read_state(tmp_path).why


@pytest.mark.parametrize("text", ["", "{", "[]", '{"name": "finished"}', '{"name": "x", "place": 3, "why": ""}'])
def test_a_damaged_state_is_no_finished_run(text: str, tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text(text)
    assert run_folder.read_state(tmp_path).name == "stopped"


def test_a_run_that_came_to_no_step_failed(tmp_path: Path) -> None:
    assert only(made(tmp_path / "run").parent).state.name == "failed"
    (tmp_path / "run" / "metrics.jsonl").write_text('{"step": 1}\n')
    assert only(tmp_path).state.name == "stopped", "of one with a log it is only not known how it ended"


def evaluated(run: Path, name: str, value: float, **more: object) -> None:
    folder = run / "evaluation" / name
    folder.mkdir(parents=True)
    macro = {"auroc": {"value": value, "low": value - 0.1, "high": value + 0.1}}
    result = {"protocol": "honest", "split": "test", "leak": {"found": False}, "macro": macro, **more}
    (folder / "metrics.json").write_text(json.dumps(result), encoding="utf-8")


def test_the_number_is_of_an_honest_test_and_of_validation_only_before_one(tmp_path: Path) -> None:
    run = made(tmp_path / "run")
    assert runs.main_number(run) is None
    (run / "bundle").mkdir()
    (run / "bundle" / "model.json").write_text('{"metrics": {"validation": {"auroc": 0.75}}}')
    assert runs.main_number(run) == runs.Number("auroc", 0.75, None, None, "validation")
    evaluated(run, "nih-test-peers", 0.95, protocol="peers")
    evaluated(run, "nih-test-leak", 0.96, leak={"found": True})
    evaluated(run, "nih-val", 0.97, split="val")
    assert runs.main_number(run) == runs.Number("auroc", 0.75, None, None, "validation")
    evaluated(run, "nih-test", 0.5)
    assert runs.main_number(run) == runs.Number("auroc", 0.5, 0.4, 0.6, "nih-test")


def test_runs_are_found_wherever_they_lie_once_and_the_latest_first(tmp_path: Path) -> None:
    old, new = made(tmp_path / "深 a" / "b" / "old"), made(tmp_path / "new")
    made(tmp_path / "set" / "not a run")
    (tmp_path / "set" / "dataset.json").write_text("{}")
    made(tmp_path / ".hidden" / "run")
    made(old / "inside")
    (tmp_path / "again").symlink_to(old)
    (tmp_path / "深 a" / "loop").symlink_to(tmp_path)
    os.utime(old / "options.json", (time.time() - 9000,) * 2)
    found = [row.folder.resolve() for row in runs.run_rows(tmp_path)]
    assert found == [new, old]


def test_the_table_and_the_file_have_the_same_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = made(tmp_path / "runs" / "跑 one", command="pretrain", method="moco")
    with run_folder.recorded_state(run, lambda: DONE):
        pass
    evaluated(run, "nih-test", 0.5)
    out = tmp_path / "o u t.json"
    assert cli.main(["runs", str(tmp_path / "runs"), "--json", str(out)]) == 0
    said = capsys.readouterr().out
    for word in ("跑 one", "pretrain moco test_resnet on nih", "finished, epoch 4 of 4", "AUROC 0.500 (0.400–0.600)"):
        assert word in said
    (facts,) = json.loads(out.read_text(encoding="utf-8"))
    assert facts["state"] == "finished" and facts["place"]["epoch"] == 4 and facts["number"]["on"] == "nih-test"
    assert ribcage.runs(tmp_path / "runs") == [facts]


def test_a_folder_that_is_missing_or_has_no_run_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["runs", str(tmp_path / "nowhere")]) == 1
    assert "ribcage runs FOLDER" in capsys.readouterr().err
    assert cli.main(["runs", str(tmp_path)]) == 0
    assert "no run" in capsys.readouterr().out


def test_a_real_training_reports_its_progress(tmp_path: Path) -> None:
    data, run = tmp_path / "数 据", tmp_path / "runs" / "a b"
    assert cli.main(["import", "phantom", "--out", str(data), "--images", "120", "--size", "32"]) == 0
    words = ["--model=test_resnet", "--size=32", "--epochs=2", "--batch=32", "--threads=1"]
    assert cli.main(["finetune", "--data", str(data), "--out", str(run), *words]) == 0
    row = only(tmp_path / "runs")
    assert row.state.name == "finished" and row.state.place is not None
    assert (row.state.place.epoch, row.state.place.epochs) == (2, 2) and row.state.place.step == row.state.place.steps
    assert row.number is not None and row.number.on == "validation" and row.model == "test_resnet"
    assert not (run / files.LOCK).exists()
