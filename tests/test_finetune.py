"""ribcage finetune: killed, resumed, shared among processes and nodes, and wrong options in one line."""

import json
import os
import shlex
import shutil
import signal
import socket
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import processes
import pytest
import torch
from refusals import has_facts
from safetensors.torch import load_file
from trainings import equal, stopped, words

from ribcage import cli
from ribcage.commands import finetune
from ribcage.runtime import resuming
from ribcage.training import checkpoint, optim, options, run_folder

ENV = {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("数据 set") / "phantom"
    assert cli.main(["import", "phantom", "--out", str(folder), "--images", "120", "--size", "32"]) == 0
    return folder


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
    assert "Traceback" not in said
    last = said.strip().splitlines()[-1]
    command = shlex.split(last.removeprefix(resuming.BEGINNING))
    assert command[:2] == ["ribcage", "finetune"] and {"--resume", str(out), str(data)} <= set(command)
    saved = checkpoint.load_checkpoint(out / "checkpoint.pt")["run"]["step"]
    assert has_facts(said, f"step {saved:,}")


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


def test_initial_weights_trained_on_validation_images_are_warned_of(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(words(data, tmp_path / "a", "--epochs", "1", "--train", "val", "--val", "train")) == 0
    assert "WARNING" not in capsys.readouterr().out
    assert cli.main(words(data, tmp_path / "b", "--epochs", "1", "--init", str(tmp_path / "a"))) == 0
    assert has_facts(capsys.readouterr().out, "WARNING", "split 'val'")


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


def test_options_that_are_not_given_stay_as_the_run_began(tmp_path: Path) -> None:
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
    assert has_facts(capsys.readouterr().err, f"--data {other}", "other images")


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


def test_the_last_epoch_is_the_result_when_asked_for(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = {}
    for keep in ("best", "last"):
        asked = words(data, tmp_path / keep, "--keep", keep, "--lr", "0.3", "--optimizer", "sgd", "--epochs", "4")
        assert cli.main(asked) == 0
        state = checkpoint.load_checkpoint(tmp_path / keep / "checkpoint.pt")["run"]
        trunk = {name: value for name, value in state["method"].items() if name.startswith("backbone.model.")}
        bundled = weights(tmp_path / keep)
        kept[keep] = all(torch.equal(bundled[name.removeprefix("backbone.model.")], trunk[name]) for name in trunk)
    assert kept["last"]
    assert has_facts(capsys.readouterr().out, "Last validation", "step")
    assert cli.main(words(data, tmp_path / "no", "--keep", "last", "--patience", "2")) == 2
    assert "--patience needs" in capsys.readouterr().err


def test_resume_auto_starts_a_run_and_resumes_one(data: Path, tmp_path: Path) -> None:
    assert cli.main(words(data, tmp_path / "whole")) == 0
    out = tmp_path / "run"
    again = words(data, out, "--resume", "auto")
    assert stopped(again, out, 3) == 75
    assert not (out / "bundle").exists() or not equal(weights(out), weights(tmp_path / "whole"))
    assert cli.main(again) == 0 and equal(weights(out), weights(tmp_path / "whole"))
    lines = logged(out)
    assert cli.main(again) == 0 and logged(out) == lines, "a finished run stays as it is"


@pytest.mark.slow
def test_processes_that_were_killed_are_started_again_with_the_same_command(data: Path, tmp_path: Path) -> None:
    """As torchrun does it: one process is lost, all are started again, and the run ends as if nothing had happened."""

    def both(out: Path) -> AbstractContextManager[list[processes.Forked]]:
        more = ["--save-minutes", "0", "--resume", "auto"]
        return processes.ranks(processes.command, words(data, out, *more), said=tmp_path)

    with both(tmp_path / "whole") as started:
        assert [process.end()[0] for process in started] == [0, 0]
    out = tmp_path / "run"
    with both(out) as started:
        processes.until(lambda: logged(out) >= 4, *started)
        started[1].send_signal(signal.SIGKILL)
        assert [process.end()[0] for process in started] != [0, 0]
    before = checkpoint.load_checkpoint(out / "checkpoint.pt")["run"]["step"]
    with both(out) as started:
        ends = [process.end() for process in started]
    assert [code for code, _ in ends] == [0, 0], ends
    steps = [json.loads(line)["step"] for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert before >= 3 and sorted(steps) == steps
    assert equal(weights(out), weights(tmp_path / "whole"))
