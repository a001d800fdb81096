"""Runs: bit-equal when resumed, validation, patience, full disks, one run per folder."""

import contextlib
import io
import json
import math
import os
import re
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import toys
from disks import full_disk
from refusals import has_facts
from trainings import equal, words

from ribcage import cli
from ribcage.commands import finetune
from ribcage.data import dataset_folder
from ribcage.data.batch import Batch
from ribcage.data.loader import Loader
from ribcage.imaging import augment
from ribcage.methods.supervised import Supervised
from ribcage.models.backbone import Backbone
from ribcage.models.hyperparameters import Optimizer
from ribcage.runtime import resuming
from ribcage.runtime.schedules import Ramp
from ribcage.training import checkpoint, metrics_log, optim, options, run_folder, step_log, trainer
from ribcage.training.run import InterruptedRun, Plan, Run, opened_run

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("数据 set") / "phantom"
    assert cli.main(["import", "phantom", "--out", str(folder), "--images", "120", "--size", "32"]) == 0
    return folder


def made(
    data: Path, epochs: int = 2, *, kind: Optimizer = "adamw", cutmix: float = 0.0, **options: Any
) -> trainer.Trainer:
    torch.manual_seed(0)
    opened = dataset_folder.open(data)
    method = Supervised(Backbone("test_resnet"), opened.index.findings, dropout=0.2, mixup=0.2, cutmix=cutmix)
    earlier = [(1, [augment.gentle_view(24)])] * options.pop("progressive", False)
    loader = Loader([opened], [augment.gentle_view(32)], earlier=earlier, batch=16, drop_last=True, threads=2)
    rates = optim.Rates(1e-3, epochs * len(loader), 2)
    options["weight_decay"] = Ramp(0.4, 0.04) if options.pop("ramp", False) else None
    return trainer.Trainer(
        method, loader, optim.optimizer(method, kind), rates, epochs=epochs, device=CPU, ema=0.9, **options
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


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[Run, Path]]:
    """A run with these options that was never stopped, and its folder."""
    done: dict[str, tuple[Run, Path]] = {}

    def run(**more: Any) -> tuple[Run, Path]:
        if str(more) not in done:
            folder = tmp_path_factory.mktemp("whole")
            done[str(more)] = trained(made(data, **more), folder), folder
        return done[str(more)]

    return run


@pytest.mark.parametrize(
    ("stop_at", "more"),
    [
        (3, {}),
        (7, {}),
        (9, {}),
        (7, {"precision": "fp16"}),
        (4, {"progressive": True}),
        (9, {"progressive": True}),
        (7, {"cutmix": 1.0, "ramp": True}),
    ],
)
def test_going_on_gives_the_same_bits_as_never_stopping(
    data: Path, whole: Callable[..., tuple[Run, Path]], tmp_path: Path, stop_at: int, more: dict[str, Any]
) -> None:
    uninterrupted, folder = whole(**more)
    stopped = trained(made(data, **more), tmp_path, stop_at)
    assert stop_at <= stopped.trainer.step < uninterrupted.trainer.step
    resumed = trained(made(data, **more), tmp_path, resume=True)
    assert equal(resumed.trainer.state(), uninterrupted.trainer.state())
    assert vars(resumed.standing) == vars(uninterrupted.standing)
    logs = [
        [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()] for run in (folder, tmp_path)
    ]
    assert [(log["step"], log.get("loss")) for log in logs[0]] == [(log["step"], log.get("loss")) for log in logs[1]]


READS = ("item", "tolist", "cpu", "numpy", "__bool__", "__float__", "__int__", "__index__")
"""Methods of a tensor for whose value the CPU would have to wait."""


@pytest.mark.parametrize("kind", ["adamw", "sgd", "lars"])
@pytest.mark.parametrize("more", [{}, {"accumulate": 2, "clip": 1.0}], ids=["", "accumulated"])
def test_a_step_reads_no_number_but_those_of_steps_that_are_done(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, more: dict[str, Any]
) -> None:
    """Loop, method, optimizer, averages and logs, as if the device were behind."""
    run = made(data, 1, kind=kind, cutmix=1.0, ramp=True, **more)
    run.lag = trainer.LAG
    work = Run(run, tmp_path, Plan(), lambda: {"auroc": 0.5}, lambda: None)
    steps, counted, behind = work.steps(), list[str](), list[int]()
    numbers, read, plain = list[step_log.StepNumbers](), step_log.StepNumbers.read, torch.Tensor.tolist
    begin, on_cpu, epoch = step_log.StepNumbers.__init__, set[int](), run.loader.epoch

    def batches(*values: int) -> Iterator[Batch]:
        for batch in epoch(*values):
            on_cpu.add(batch.chance.untyped_storage().data_ptr())
            yield batch

    def noted(self: step_log.StepNumbers, *values: Any) -> None:
        begin(self, *values)
        numbers.append(self)

    def late(self: step_log.StepNumbers) -> dict[str, float]:
        behind.append(len(numbers) - 1 - numbers.index(self))
        with monkeypatch.context() as inside:
            inside.setattr(torch.Tensor, "tolist", plain)
            return read(self)

    with monkeypatch.context() as patched:
        patched.setattr(step_log.StepNumbers, "__init__", noted)
        patched.setattr(run.loader, "epoch", batches)
        next(steps)  # what is set up once
        patched.setattr(step_log.StepNumbers, "read", late)
        for name in READS:
            patched.setattr(torch.Tensor, name, counting(name, counted, threading.get_ident(), on_cpu))
        for _ in range(4):
            next(steps)
    steps.close()
    assert counted == []
    assert behind and min(behind) == trainer.LAG


def counting(name: str, counted: list[str], thread: int, on_cpu: set[int]) -> Callable[..., Any]:
    """The method of a tensor; where and that it was called is noted, but for memory that never leaves the CPU."""
    method = getattr(torch.Tensor, name)

    def noted(tensor: torch.Tensor, *values: Any, **more: Any) -> Any:
        if threading.get_ident() == thread and tensor.untyped_storage().data_ptr() not in on_cpu:
            frame = sys._getframe(1)
            counted.append(f"{name} in {frame.f_code.co_filename}:{frame.f_lineno}")
        return method(tensor, *values, **more)

    return noted


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
    with pytest.raises(ValueError, match=r"step 0\b.*--lr"):
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
        with contextlib.nullcontext() if worst == 1.0 else pytest.raises(ValueError, match=r"step 2\b.*--lr"):
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
    with pytest.raises(InterruptedRun, match=r"step 2\b"):
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
    save, filled = torch.save, contextlib.ExitStack()

    def full(state: Any, part: Path) -> None:
        if state["run"]["step"] > 2:
            filled.enter_context(full_disk(100))
        save(state, part)

    monkeypatch.setattr(torch, "save", full)
    asked, work = finetune.Options(data=("set",), out=tmp_path), toy(tmp_path, lambda run: {"auroc": 0.5})
    with (
        filled,
        pytest.raises(OSError, match=r"No space .*checkpoint") as raised,
        opened_run("finetune", asked, work, []),
    ):
        list(work.steps())
    assert resuming.resume_note(raised.value).endswith(f"--out {tmp_path} --resume")
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
                pytest.raises((OSError, ValueError), match=re.escape(str(asked.out))),
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
            pytest.raises(OSError, match=f"{name} .*symbolic link"),
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
            SimpleNamespace(step=step, epoch=0, loss=0.5, rate=0.1, seconds=1.0, waited=0.0, scheduled={}, values={})  # type: ignore[arg-type]
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


def in_folder(out: Path, scores: Iterator[float], kept: list[int], *, resume: bool = False, **plan: Any) -> Run:
    """A run of three steps, one per epoch, to its end; each model is written to bundle/model.json."""
    made = toys.run([(1.0, 2.0)], epochs=3)

    def keep() -> None:
        kept.append(made.step)
        (out / "bundle").mkdir(exist_ok=True)
        (out / "bundle" / "model.json").write_text("{}")

    work = Run(made, out, Plan(**plan), lambda: {"auroc": next(scores)}, keep)
    asked = finetune.Options(data=("set",), out=out, epochs=3, resume=resume)
    with opened_run("finetune", asked, work, []):
        list(work.steps())
    return work


@pytest.mark.parametrize(
    ("scores", "plan", "again", "warned"),
    [
        ([0.5, 0.6, 0.7], {}, 3, False),
        ([0.5, 0.7, 0.6], {}, 3, True),
        ([0.7, 0.6, 0.6], {"patience": 1}, 2, True),
        ([0.7, 0.6, 0.5], {"score": ""}, 3, False),
    ],
    ids=["the last is the best", "the best is lost", "early stopping", "the last is kept"],
)
def test_a_deleted_bundle_of_a_finished_run_is_written_again(
    scores: list[float],
    plan: dict[str, Any],
    again: int,
    warned: bool,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out, kept, found = tmp_path / "run", list[int](), iter(scores + [0.55] * 2)
    first = in_folder(out, found, kept, **plan)
    log = (out / "metrics.jsonl").read_text()
    shutil.rmtree(out / "bundle")
    kept.clear()
    capsys.readouterr()
    for _ in range(2):  # the second time, nothing is missing
        work = in_folder(out, found, kept, resume=True, **plan)
        assert kept == [again] and work.trainer.step == first.trainer.step == again
        assert work.standing.best_step == again and run_folder.read_state(out).name == run_folder.FINISHED
    said = capsys.readouterr().out
    assert has_facts(said, str(out / "bundle")) and ("WARNING" in said) is warned
    assert (out / "metrics.jsonl").read_text() == log


def test_a_bundle_deleted_between_two_validations_gives_way_to_the_next_one(tmp_path: Path) -> None:
    kept: list[int] = []
    work = toy(tmp_path, lambda run: {"auroc": 0.5})
    for log in work.steps():
        if log.step == 3:
            work.save()
            break
    again = toy(tmp_path, lambda run: {"auroc": 0.1})
    again.keep = lambda: kept.append(again.trainer.step)
    again.resume()
    message = again.replace_model()
    assert message and message.warning and has_facts(message.text, 3, 2)
    list(again.steps())
    assert kept == [4]


def test_a_finished_run_without_checkpoint_says_why_its_bundle_cannot_be_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    in_folder(out, iter([0.5, 0.6, 0.7]), [])
    for name in (checkpoint.FILE, checkpoint.OLDER, "metrics.jsonl"):
        (out / name).unlink()
    for resume in ("--resume", "--no-resume"):
        said = failing(["finetune", "--data", "set", "--out", str(out), *resume.split()], capsys)
        assert has_facts(said, str(out), "--out")
    assert (out / "bundle" / "model.json").exists()


def failing(asked: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert cli.main(asked) in (1, 2)
    return capsys.readouterr().err


@pytest.mark.parametrize(("left", "missing"), [(0, 3), (2, 2), (None, 3)], ids=["empty", "shortened", "deleted"])
def test_lines_that_are_missing_from_the_log_are_noted_once(
    left: int | None, missing: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, file = tmp_path / "run", tmp_path / "run" / "metrics.jsonl"
    in_folder(out, iter([0.5, 0.6, 0.7]), [])
    lines = file.read_text().splitlines(keepends=True)  # of a step and a validation in turn
    file.unlink() if left is None else file.write_text("".join(lines[:left]))
    capsys.readouterr()
    for warnings in (1, 0):
        in_folder(out, iter([]), [], resume=True)
        said = capsys.readouterr().out
        assert said.count("WARNING") == warnings
        assert not warnings or has_facts(said, str(file), missing, 3)
    notes = [line for line in map(json.loads, file.read_text().splitlines()) if "missing" in line]
    assert notes == [{"step": 3, "epoch": 3, "missing": missing}]
    assert [line.step for line in metrics_log.read_log(file)] == [1, 1][: left or 0]
