"""A run can be stopped, killed, resumed and shared among processes, and computes the same."""

import contextlib
import errno
import io
import json
import math
import os
import shutil
import signal
import socket
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import processes
import pytest
import torch
import toys
from safetensors.torch import load_file

from ribcage import cli
from ribcage.commands import finetune
from ribcage.data import dataset_folder
from ribcage.data.loader import Loader
from ribcage.imaging import augment
from ribcage.methods.supervised import Supervised
from ribcage.models.backbone import Backbone
from ribcage.runtime import digest, files
from ribcage.training import checkpoint, optim, options, run_folder, trainer
from ribcage.training.run import InterruptedRun, Plan, Run, opened_run

CPU = torch.device("cpu")
ENV = {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("数据 set") / "phantom"
    assert cli.main(["import", "phantom", "--out", str(folder), "--images", "120", "--size", "32"]) == 0
    return folder


def made(data: Path, epochs: int = 2, **options: Any) -> trainer.Trainer:
    torch.manual_seed(0)
    opened = dataset_folder.open(data)
    method = Supervised(Backbone("test_resnet"), opened.index.findings, dropout=0.2, mixup=0.2)
    loader = Loader([opened], [augment.gentle_view(32)], batch=16, drop_last=True, threads=2)
    rates = optim.Rates(1e-3, epochs * len(loader), 2)
    return trainer.Trainer(
        method, loader, optim.optimizer(method), rates, epochs=epochs, device=CPU, ema=0.9, **options
    )


def trained(run: trainer.Trainer, folder: Path, stop_at: int | None = None, resume: bool = False) -> Run:
    folder.mkdir(exist_ok=True)
    work = Run(run, folder, Plan(), lambda: {"auroc": run.step / 100}, lambda: None)
    if resume:
        work.resume()
    try:
        for log in work.steps():
            if log.step == stop_at:
                os.kill(os.getpid(), signal.SIGTERM)
                work.signal = signal.SIGTERM  # the handler may run only after the next instruction
    except InterruptedRun as stop:
        assert stop.code == 75
    return work


def equal(one: Any, other: Any) -> bool:
    """Bit for bit."""
    if isinstance(one, torch.Tensor):
        return bool(one.dtype == other.dtype and torch.equal(one, other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(equal, one, other))
    return bool(one == other)


@pytest.mark.parametrize("stop_at", [3, 7, 9])
def test_going_on_gives_the_same_bits_as_never_stopping(data: Path, tmp_path: Path, stop_at: int) -> None:
    whole = trained(made(data), tmp_path / "whole")
    stopped = trained(made(data), tmp_path / "stopped", stop_at)
    assert stop_at <= stopped.trainer.step < whole.trainer.step
    resumed = trained(made(data), tmp_path / "stopped", resume=True)
    assert equal(resumed.trainer.state(), whole.trainer.state())
    assert vars(resumed.standing) == vars(whole.standing)
    logs = [
        [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("whole", "stopped")
    ]
    assert [(log["step"], log.get("loss")) for log in logs[0]] == [(log["step"], log.get("loss")) for log in logs[1]]


def test_another_seed_is_another_run(data: Path, tmp_path: Path) -> None:
    one, other = (trained(made(data, 1, seed=seed), tmp_path / str(seed)) for seed in (0, 1))
    assert not equal(one.trainer.state()["method"], other.trainer.state()["method"])


def test_accumulating_parts_gives_the_gradient_of_the_whole(data: Path) -> None:
    """In evaluation mode: batch norm and dropout see the parts, not the whole."""
    gradients = []
    for accumulate in (1, 4):
        run = made(data, accumulate=accumulate, precision="float32")
        run.method.eval()
        run.method.mixup = 0.0  # type: ignore[assignment]
        batch = next(run.loader.epoch(0))
        known = torch.where(batch.labels.isnan(), torch.zeros(()), batch.labels)
        run._backward(trainer.to_device(replace(batch, labels=known), CPU))
        gradients.append(run.method.head.weight.grad)  # type: ignore[union-attr]
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-7)


def test_a_loss_that_is_no_number_stops_and_leaves_the_rows(data: Path, tmp_path: Path) -> None:
    run = made(data, precision="float32")
    with torch.no_grad():
        run.method.head.weight.fill_(float("nan"))  # type: ignore[union-attr, operator]
    with pytest.raises(ValueError, match=r"not finite at step 0. Try a lower --lr"):
        trained(run, tmp_path / "run")
    rows = json.loads((tmp_path / "run" / "diverged.json").read_text())["rows"]
    assert rows == next(run.loader.epoch(0)).rows.tolist()


def test_the_rows_of_a_divergence_are_kept_until_the_run_is_beyond_it(tmp_path: Path) -> None:
    out = tmp_path / "run"
    out.mkdir()
    for worst, there in ((math.inf, True), (1.0, False)):
        run = toys.run([(1.0, 2.0), (1.0, 2.0), (worst, 2.0), (1.0, 2.0)])
        work = Run(run, out, Plan(save_minutes=0.0), lambda: {"auroc": 0.5}, lambda: None)
        if worst == 1.0:
            work.resume()
            work.save()
            assert (out / "diverged.json").exists()  # it is not beyond it yet
        with contextlib.nullcontext() if worst == 1.0 else pytest.raises(ValueError, match="not finite at step 2"):
            list(work.steps())
        assert (out / "diverged.json").exists() is there


def test_a_run_without_progress_ends_by_patience(data: Path, tmp_path: Path) -> None:
    run = made(data, epochs=9)
    (tmp_path / "run").mkdir()
    work = Run(run, tmp_path / "run", Plan(patience=2), lambda: {"auroc": 0.5}, lambda: None)
    epochs = [log.epoch for log in work.steps() if log.epoch_done]
    assert epochs == [0, 1, 2] and work.standing.best_step == run.step // 3


def test_a_run_validates_as_seldom_as_asked_and_at_its_end(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert cli.main(words(data, out, "--epochs", "5", "--validate-every", "2")) == 0
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines if "validation" in line] == [2, 4, 5]


def test_going_on_with_a_run_that_gave_up_trains_no_step_more(data: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    steps = []
    for resume in (False, True):
        run = made(data, epochs=9)
        work = Run(run, tmp_path / "run", Plan(patience=1), lambda: {"auroc": 0.5}, lambda: None)
        if resume:
            work.resume()
        steps.append(len(list(work.steps())))
    assert steps[0] > 0 and steps[1] == 0


def test_a_run_that_goes_on_again_finds_its_own_options(tmp_path: Path) -> None:
    """A longer run that goes on once more is not changed again, and --epochs of before is refused."""
    asked = finetune.Options(data=("set",), out=tmp_path / "run", epochs=2)
    work = Run(toys.run([(1.0, 1.0)], epochs=2), asked.out, Plan(), lambda: {"auroc": 0.5}, lambda: None)
    with opened_run("finetune", asked, work, []):
        list(work.steps())
    longer = replace(asked, epochs=3, resume=True)
    for history in (1, 1):
        work = Run(toys.run([(1.0, 1.0)], epochs=3), asked.out, Plan(), lambda: {"auroc": 0.5}, lambda: None)
        with opened_run("finetune", longer, work, []):
            list(work.steps())
        assert len(options.written_options(asked.out)["history"]) == history and work.trainer.step == 3


def toy(folder: Path, validate: Any, **plan: Any) -> Run:
    run = toys.run([(1.0, 2.0), (1.0, 4.0)], epochs=2)
    return Run(run, folder, Plan(**plan), lambda: validate(run), lambda: None)


def test_a_signal_before_a_validation_is_answered_at_once_and_the_validation_made_up_for(tmp_path: Path) -> None:
    asked: list[int] = []

    def validate(run: trainer.Trainer) -> dict[str, float]:
        asked.append(run.step)
        return {"auroc": run.step / 10}

    work = toy(tmp_path, validate)
    move = work.trainer._move

    def asked_in_the_last_step() -> None:
        move()
        work.signal = signal.SIGTERM if work.trainer.step == 2 else None

    work.trainer._move = asked_in_the_last_step  # type: ignore[method-assign]
    with pytest.raises(InterruptedRun, match="saved at step 2"):
        list(work.steps())
    assert asked == []
    again = toy(tmp_path, validate)
    again.resume()
    list(again.steps())
    assert asked == [2, 4] and (again.standing.best_step, again.standing.validated) == (4, 4)


def test_who_is_killed_while_validating_loses_no_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ribcage.training.run.RISK", 0.0)
    saved: list[tuple[int, int]] = []

    def validate(run: trainer.Trainer) -> dict[str, float]:
        saved.append((checkpoint.load_checkpoint(tmp_path / checkpoint.FILE)["run"]["step"], run.step))
        return {"auroc": 0.5}

    list(toy(tmp_path, validate).steps())
    assert saved == [(2, 2), (4, 4)]
    older = checkpoint.load_checkpoint(tmp_path / checkpoint.OLDER)["run"]["step"]
    assert older == 2, "of the two kept, one is of an earlier step"


def test_a_full_disk_ends_a_run_with_a_clear_line_and_a_good_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = torch.save

    def full(state: Any, part: Path) -> None:
        save(state, part)
        if state["run"]["step"] > 2:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match=r"No space left for .* the last checkpoint is whole"):
        list(toy(tmp_path, lambda run: {"auroc": 0.5}).steps())
    assert checkpoint.load_checkpoint(tmp_path / checkpoint.FILE)["run"]["step"] == 2
    assert not list(tmp_path.glob("*.part"))


def test_a_second_training_in_a_folder_touches_nothing(tmp_path: Path) -> None:
    asked = finetune.Options(data=("set",), out=tmp_path / "run", epochs=2)
    first = toy(asked.out, lambda run: {"auroc": 0.5})
    with opened_run("finetune", asked, first, []):
        steps = first.steps()
        next(steps)
        before = {file.name: file.read_bytes() for file in asked.out.iterdir()}
        for resume in (False, True):
            second = toy(asked.out, lambda run: {"auroc": 0.5})
            with (
                pytest.raises((OSError, ValueError), match=r"Another process is writing|holds a run already"),
                opened_run("finetune", replace(asked, resume=resume), second, []),
            ):
                pytest.fail("it must not begin")
        assert {file.name: file.read_bytes() for file in asked.out.iterdir()} == before
        list(steps)


def test_a_strangers_run_with_links_in_it_does_not_go_on(tmp_path: Path) -> None:
    theirs = tmp_path / "thesis"
    theirs.write_text("three years")
    for name in ("metrics.jsonl", "checkpoint.pt.part", "bundle", "state.json"):
        asked = finetune.Options(data=("set",), out=tmp_path / name, resume=True)
        asked.out.mkdir()
        run_folder._write(asked.out, run_folder.record("finetune", asked, []))
        checkpoint.save_checkpoint(asked.out / checkpoint.FILE, {"run": {}, "standing": {}})
        (asked.out / name).symlink_to(theirs)
        with (
            pytest.raises(OSError, match=f"{name} is a symbolic link"),
            opened_run("finetune", asked, toy(asked.out, dict), []),
        ):
            pytest.fail("it must not go on")
    assert theirs.read_text() == "three years"


def test_of_equal_scores_the_lower_loss_is_kept(data: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    found = iter([{"auroc": 1.0, "loss": 0.5}, {"auroc": 1.0, "loss": 0.2}, {"auroc": 1.0, "loss": 0.3}])
    kept: list[int] = []
    run = made(data, epochs=3)
    work = Run(run, tmp_path / "run", Plan(), lambda: next(found), lambda: kept.append(run.step))
    list(work.steps())
    assert kept == [run.step // 3, 2 * run.step // 3] and work.standing.best_loss == 0.2


def test_what_was_logged_after_a_step_that_diverged_is_not_written(tmp_path: Path) -> None:
    work = Run(toys.run([(1.0, 1.0)]), tmp_path, Plan(), dict, lambda: None)
    for step in (1, 2, 3):
        work._unwritten.append(
            SimpleNamespace(step=step, epoch=0, loss=0.5, rate=0.1, seconds=1.0, waited=0.0, values={})  # type: ignore[arg-type]
        )
    log = io.StringIO()
    work._write_all(log, until=2)
    assert [json.loads(line)["step"] for line in log.getvalue().splitlines()] == [1, 2] and not work._unwritten


def test_a_log_that_waits_for_a_device_is_written_before_a_checkpoint_is(tmp_path: Path) -> None:
    """So that going on finds all steps before it."""
    run = toys.run([(1.0, 1.0)] * 2, epochs=2)
    run.lag = 100
    work = Run(run, tmp_path, Plan(validate_every=2), lambda: {"auroc": 0.5}, lambda: None)
    for log in work.steps():
        if log.step == 3:
            logged = [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
            assert checkpoint.load_checkpoint(tmp_path / checkpoint.FILE)["run"]["step"] == max(logged) == 2
            break


def test_a_run_of_one_step_is_validated_and_kept(tmp_path: Path) -> None:
    kept: list[str] = []
    work = Run(toys.run([(1.0, 1.0)]), tmp_path, Plan(), lambda: {"auroc": 0.5}, lambda: kept.append("it"))
    list(work.steps())
    assert kept == ["it"] and (work.standing.validated, work.standing.best_step) == (1, 1)


def spoilt(whole: bytes) -> dict[str, bytes]:
    middle = len(whole) // 2
    return {
        "flipped": whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :],
        "zeroed": whole[:middle] + bytes(64) + whole[middle + 64 :],
        "torn": whole[:middle],
        "empty": b"",
        "text": b"text",
    }


@pytest.mark.parametrize("how", spoilt(bytes(200)).keys())
def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path: Path, how: str) -> None:
    run = toys.run([(1.0, 1.0)] * 2, epochs=3)
    list(Run(run, tmp_path, Plan(), lambda: {"auroc": 0.5}, lambda: None).steps())
    file = tmp_path / checkpoint.FILE
    older = checkpoint.load_checkpoint(tmp_path / checkpoint.OLDER)["run"]["step"]
    assert (checkpoint.load_checkpoint(file)["run"]["step"], older) == (6, 4)
    file.write_bytes(spoilt(file.read_bytes())[how])
    with pytest.raises(ValueError, match=r"checkpoint\.pt .*SHA-256"):
        checkpoint.load_checkpoint(file)
    again = toys.run([(1.0, 1.0)] * 2, epochs=3)
    work = Run(again, tmp_path, Plan(), lambda: {"auroc": 0.5}, lambda: None)
    said = work.resume()
    assert "checkpoint.pt" in said and "checkpoint.previous.pt" in said and again.step == 4
    list(work.steps())
    assert equal(again.state(), run.state())
    logged = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in logged if "loss" in line] == [1, 2, 3, 4, 5, 6]
    assert checkpoint.load_checkpoint(tmp_path / checkpoint.OLDER)["run"]["step"] == 4, (
        "a damaged one replaces no good one"
    )


def test_without_a_good_checkpoint_nothing_goes_on(tmp_path: Path) -> None:
    for name in (checkpoint.FILE, checkpoint.OLDER):
        (tmp_path / name).write_bytes(b"text")
    with pytest.raises(ValueError, match=r"checkpoint\.pt.*checkpoint\.previous\.pt.*No checkpoint is left"):
        checkpoint.newest(tmp_path)


@pytest.mark.parametrize("step", ["part", "older", "renamed"])
def test_a_save_that_is_killed_at_any_moment_leaves_one_to_go_on_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """Nothing happens from that moment on, as in a killed process."""
    file, replace, fsync = tmp_path / checkpoint.FILE, Path.replace, files.sync
    for number in (1, 2):
        checkpoint.save_checkpoint(file, {"step": number})
    dead: list[str] = []

    def act(name: str, do: Any, *asked: Any) -> Any:
        if dead or name == step:
            dead.append(name)
            raise KeyboardInterrupt
        return do(*asked)

    monkeypatch.setattr(files, "sync", lambda part: act("part", fsync, part))
    monkeypatch.setattr(Path, "unlink", lambda part, **how: act("unlink", os.unlink, part) if part.exists() else None)
    monkeypatch.setattr(
        Path, "replace", lambda one, to: act("renamed" if one.suffix == ".part" else "older", replace, one, to)
    )
    with pytest.raises(KeyboardInterrupt):
        checkpoint.save_checkpoint(file, {"step": 3})
    monkeypatch.undo()
    found, _ = checkpoint.newest(tmp_path)
    assert checkpoint.load_checkpoint(found)["step"] == 2


@pytest.mark.parametrize(
    "content",
    [{}, {"run": 3, "standing": {}}, {"run": {"step": -1}, "standing": {}}, {"run": {}, "standing": {"x": 1}}],
)
def test_a_checkpoint_of_another_kind_is_one_line(tmp_path: Path, content: dict[str, Any]) -> None:
    checkpoint.save_checkpoint(tmp_path / checkpoint.FILE, content)
    work = Run(toys.run([(1.0, 1.0)]), tmp_path, Plan(), dict, lambda: None)
    with pytest.raises(ValueError, match=r"checkpoint\.pt is not a checkpoint of this run"):
        work.resume()
    torch.save({"anything": 1}, tmp_path / "d.pt")
    digest.append_digest(tmp_path / "d.pt")
    with pytest.raises(ValueError, match="not a checkpoint of this version"):
        checkpoint.load_checkpoint(tmp_path / "d.pt")


def test_a_checkpoint_runs_nothing_that_is_in_it(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"ribcage": checkpoint.FORMAT, "x": Evil()}, tmp_path / "evil.pt")
    digest.append_digest(tmp_path / "evil.pt")
    with pytest.raises(ValueError, match="not a checkpoint"):
        checkpoint.load_checkpoint(tmp_path / "evil.pt")
    assert not (tmp_path / "ran").exists()


# ---- the command itself


def words(data: Path, out: Path, *more: str) -> list[str]:
    plain = [
        "finetune",
        "--data",
        str(data),
        "--out",
        str(out),
        "--model",
        "test_resnet",
        "--size",
        "32",
        "--batch",
        "16",
    ]
    return [*plain, "--epochs", "2", "--threads", "1", "--precision", "float32", *more]


def logged(out: Path) -> int:
    """Lines in a run's log."""
    log = out / "metrics.jsonl"
    return log.read_text(encoding="utf-8").count("\n") if log.exists() else 0


def weights(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "bundle" / "model.safetensors")


def test_a_killed_run_goes_on_and_ends_the_same(data: Path, tmp_path: Path) -> None:
    assert cli.main(words(data, tmp_path / "whole")) == 0
    killed = tmp_path / "killed"
    for turn in range(2):
        more = ["--save-minutes", "0"] + ["--resume"] * turn
        with processes.ribcage(words(data, killed, *more), tmp_path / "said.txt") as process:
            processes.until(lambda turn=turn: logged(killed) >= 3 + 4 * turn, process)
            process.send_signal(signal.SIGKILL)
        checkpoint.load_checkpoint(killed / "checkpoint.pt")
    assert cli.main(words(data, killed, "--resume")) == 0
    assert equal(weights(killed), weights(tmp_path / "whole"))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 75), (signal.SIGUSR1, 75)])
def test_a_signal_saves_and_ends_cleanly(data: Path, tmp_path: Path, number: int, code: int) -> None:
    out = tmp_path / "run"
    with processes.ribcage(words(data, out, "--epochs", "500"), tmp_path / "said.txt") as process:
        processes.until(lambda: logged(out) > 0, process)
        process.send_signal(number)
        ended, said = process.end()
    assert ended == code
    assert "--resume" in said and "Traceback" not in said
    saved = checkpoint.load_checkpoint(out / "checkpoint.pt")["run"]["step"]
    assert f"saved at step {saved:,}" in said


def test_two_processes_train_the_model_that_one_trains(data: Path, tmp_path: Path) -> None:
    """With batch norm over the global batch and the loss over all known labels; only sums are rounded otherwise."""
    assert cli.main(words(data, tmp_path / "one")) == 0
    asked = words(data, tmp_path / "two", "--devices", "2")
    with processes.ribcage(asked, tmp_path / "said.txt") as process:
        code, said = process.end()
    assert code == 0, said
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    assert one.keys() == two.keys()
    for name, value in one.items():
        torch.testing.assert_close(
            two[name].double(), value.double(), rtol=2e-3, atol=2e-4, msg=lambda text, name=name: f"{name}: {text}"
        )
    scores = [
        json.loads((tmp_path / name / "bundle" / "model.json").read_text())["metrics"]["validation"]["auroc"]
        for name in ("one", "two")
    ]
    assert scores[0] == pytest.approx(scores[1], abs=0.02)


def test_parts_of_unequal_shares_are_the_batch_too(data: Path, tmp_path: Path) -> None:
    """Fewer images than a batch, an odd number, more parts than some process has images: nobody waits in vain."""
    few = ["--model", "test_vit", "--labels", "0.11", "--batch", "64"]
    assert cli.main(words(data, tmp_path / "one", *few)) == 0
    more = ["--micro-batch", "1"]
    said = processes.together(processes.command, words(data, tmp_path / "two", *few, *more), said=tmp_path / "said")
    assert "Training on 9 of" in said[0]
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    for name, value in one.items():
        torch.testing.assert_close(
            two[name], value, rtol=2e-3, atol=2e-4, msg=lambda text, name=name: f"{name}: {text}"
        )


@pytest.mark.integration
def test_two_nodes_train_together(data: Path, tmp_path: Path) -> None:
    """One torchrun on each of two nodes, each of which starts one process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = ["--nnodes=2", "--nproc-per-node=1", "--master-addr=127.0.0.1", f"--master-port={port}"]
    asked = ["-m", "ribcage", *words(data, tmp_path / "run", "--epochs", "1")]
    with ExitStack() as stack:
        nodes = [
            stack.enter_context(
                processes.Forked(torchrun, [f"--node-rank={node}", *shared, *asked], said=tmp_path / node, env=ENV)
            )
            for node in "01"
        ]
        ends = [node.end() for node in nodes]
    assert [code for code, _ in ends] == [0, 0], ends
    assert all(value.float().isfinite().all() for value in weights(tmp_path / "run").values())


def torchrun(words: list[str]) -> None:
    from torch.distributed import run

    run.main(words)


def test_another_run_in_the_folder_is_not_touched(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(words(data, tmp_path / "run", "--epochs", "1")) == 0
    assert cli.main(words(data, tmp_path / "run")) == 2
    assert "--resume" in capsys.readouterr().err


def test_first_weights_that_know_the_validation_are_warned_of(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(words(data, tmp_path / "a", "--epochs", "1", "--train", "val", "--val", "train")) == 0
    assert "WARNING: the first weights" not in capsys.readouterr().out
    assert cli.main(words(data, tmp_path / "b", "--epochs", "1", "--init", str(tmp_path / "a"))) == 0
    assert "WARNING: the first weights have learnt from split 'val'" in capsys.readouterr().out


@pytest.fixture(scope="module")
def begun(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("begun") / "run"
    assert cli.main(words(data, out, "--epochs", "1")) == 0
    return out


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--model", "test_vit"], "--model test_resnet, not with --model test_vit. "),
        (["--weight-decay", "0.1", "--balanced"], "with --weight-decay 0.05 --no-balanced, not with --weight-decay"),
        (["--findings", "Mass"], "--findings=, not with --findings Mass. "),
    ],
)
def test_a_run_goes_on_only_as_it_was_begun(
    data: Path, begun: Path, capsys: pytest.CaptureFixture[str], more: list[str], says: str
) -> None:
    before = {file: file.read_bytes() for file in begun.rglob("*") if file.is_file()}
    assert cli.main(words(data, begun, "--epochs", "1", "--resume", *more)) == 2
    said = capsys.readouterr().err
    assert says in said and said.count("\n") == 1
    assert {file: file.read_bytes() for file in begun.rglob("*") if file.is_file()} == before


def test_what_changes_no_step_may_change_when_a_run_goes_on(data: Path, begun: Path, tmp_path: Path) -> None:
    shutil.copytree(data, tmp_path / "copy")
    free = ["--threads", "2", "--patience", "3", "--save-minutes", "1", "--log-format", "paddle"]
    out = shutil.copytree(begun, tmp_path / "run")
    assert cli.main(words(tmp_path / "copy", out, "--epochs", "1", "--resume", *free)) == 0
    assert options.written_options(out)["history"][0]["now"] == {
        "log_format": "paddle",
        "save_minutes": 1.0,
        "threads": 2,
        "patience": 3,
    }


def test_what_helps_a_run_may_change_when_it_goes_on_and_is_written_down(
    data: Path, begun: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = shutil.copytree(begun, tmp_path / "run")
    more = ["--epochs", "2", "--lr", "0.001", "--clip", "1", "--resume"]
    assert cli.main(words(data, out, *more)) == 0
    said = capsys.readouterr().out
    assert all(
        word in said
        for word in ("at step 5 with", "--lr 0.001 (was 0.0003)", "--clip 1.0 (was 0.0)", "--epochs 2 (was 1)")
    )
    now = json.loads((out / "options.json").read_text())
    assert (now["lr"], now["clip"], now["epochs"]) == (0.001, 1.0, 2)
    assert now["history"] == [
        {"step": 5, "was": {"epochs": 1, "lr": 0.0003, "clip": 0.0}, "now": {"epochs": 2, "lr": 0.001, "clip": 1.0}}
    ]
    model = json.loads((out / "bundle" / "model.json").read_text())
    assert model["training"]["history"] == now["history"]
    logged = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    steps = {line["step"]: line for line in logged if "lr" in line}
    whole = optim.Rates(0.001, 10, 2)  # a run of one epoch rises for half of it, and keeps that
    assert list(steps) == list(range(1, 11))
    assert [steps[step]["lr"] for step in range(6, 11)] == [whole.at(step - 1) for step in range(6, 11)]
    assert ("gradient" in steps[5], "gradient" in steps[6]) == (False, True)
    assert cli.main(words(data, out, *more, "--epochs", "1")) == 2
    assert "--epochs 2" in capsys.readouterr().err


def test_what_is_not_said_stays_as_the_run_was_begun(tmp_path: Path) -> None:
    """A script that goes on without --lr, --clip or --epochs does not fall back to the defaults."""
    asked = finetune.Options(data=("set",), out=tmp_path, lr=0.1, clip=2.0, epochs=3)
    run_folder._write(tmp_path, run_folder.record("finetune", options.with_defaults(asked), []))
    (tmp_path / checkpoint.FILE).touch()
    left_out = options.with_defaults(finetune.Options(data=("set",), out=tmp_path, resume=True))
    assert (left_out.lr, left_out.clip, left_out.epochs) == (0.1, 2.0, 3)
    assert run_folder.check_resumable("finetune", left_out, []) == {}
    said = options.with_defaults(finetune.Options(data=("set",), out=tmp_path, resume=True, clip=0.0, epochs=10))
    assert run_folder.check_resumable("finetune", said, []) == {"clip": (2.0, 0.0), "epochs": (3, 10)}
    fresh = options.with_defaults(finetune.Options(data=("set",), out=tmp_path / "new"))
    assert (fresh.clip, fresh.epochs) == (0.0, finetune.Options.usual.epochs)


@pytest.mark.parametrize("text", ["[]", "{", "3", '{"history": 3}', "[" * 100000])
def test_options_that_say_nothing_are_one_line(begun: Path, tmp_path: Path, text: str) -> None:
    out = shutil.copytree(begun, tmp_path / "run")
    (out / "options.json").write_text(text)
    with pytest.raises(ValueError, match=r"options\.json is damaged"):
        run_folder.check_resumable("finetune", finetune.Options(data=("set",), out=out), [])


def test_a_run_does_not_go_on_with_other_images(
    begun: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    assert cli.main(["import", "phantom", "--out", str(other), "--images", "120", "--size", "32", "--seed", "1"]) == 0
    assert cli.main(words(other, begun, "--epochs", "1", "--resume")) == 2
    assert f"not with --data {other} (which holds other images or labels)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--model", "densnet121"], "Did you mean 'densenet121'?"),
        (["--val", "vall"], "Did you mean 'val'?"),
        (["--findings", "Mas"], "Mas"),
        (["--policy", "onse"], "onse"),
        (["--init", "nowhere.pth"], "nowhere.pth"),
        (["--labels", "2"], "at most 1"),
    ],
)
def test_wrong_options_are_one_clear_line(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], says: str
) -> None:
    assert cli.main(words(data, tmp_path / "run", *more)) in (1, 2)
    said = capsys.readouterr().err
    assert says in said and said.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_the_last_epoch_is_the_result_when_told(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept = {}
    for keep in ("best", "last"):
        asked = words(data, tmp_path / keep, "--keep", keep, "--lr", "0.3", "--optimizer", "sgd", "--epochs", "4")
        assert cli.main(asked) == 0
        state = checkpoint.load_checkpoint(tmp_path / keep / "checkpoint.pt")["run"]
        trunk = {name: value for name, value in state["method"].items() if name.startswith("backbone.model.")}
        bundled = weights(tmp_path / keep)
        kept[keep] = all(torch.equal(bundled[name.removeprefix("backbone.model.")], trunk[name]) for name in trunk)
    assert kept["last"]
    assert "Last validation, after step" in capsys.readouterr().out
    assert cli.main(words(data, tmp_path / "no", "--keep", "last", "--patience", "2")) == 2
    assert "--patience needs" in capsys.readouterr().err


@pytest.mark.parametrize("spoil", ["gradient", "statistics"])
def test_what_is_not_finite_is_never_saved(tmp_path: Path, spoil: str) -> None:
    """The gradient of the third step is infinite and its loss is not; or a buffer is, and no gradient."""
    good, bad = [(1.0, 1.0)] * 2, [(1.0, 1.0), (1e30, 1.0)]
    run = toys.run(good, epochs=3)
    work = Run(run, tmp_path, Plan(save_minutes=0), lambda: {"auroc": 0.5}, lambda: None)
    with pytest.raises(ValueError, match=r"--lr \(now 0.1\) or --clip 1. .* --resume"):
        for log in work.steps():
            if log.step == 2 and spoil == "gradient":
                run.loader.pixels = bad  # type: ignore[attr-defined]
            if log.step == 3 and spoil == "statistics":
                run.method.follower.fill_(float("inf"))  # type: ignore[operator, union-attr]
    saved = checkpoint.load_checkpoint(tmp_path / "checkpoint.pt")["run"]
    assert saved["step"] == (3 if spoil == "gradient" else 2)
    assert all(value.isfinite().all() for value in saved["method"].values())
