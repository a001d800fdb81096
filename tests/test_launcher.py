"""Processes find each other under every launcher, pass signals on, and end when one fails."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import processes
import pytest
import torch
import torch.distributed as dist
from refusals import has_facts, line

from ribcage import cli
from ribcage.data import dataset_folder
from ribcage.runtime import flags, launch_variables, launcher
from ribcage.training import checkpoint

ENV = {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("数据 set") / "phantom"
    assert cli.main(["import", "phantom", "--out", str(folder), "--images", "120", "--size", "32"]) == 0
    return folder


def words(data: Path, out: Path, epochs: int) -> list[str]:
    plain = ["finetune", "--data", str(data), "--out", str(out), "--model", "test_resnet", "--size", "32"]
    return [*plain, "--batch", "16", "--epochs", str(epochs), "--threads", "1", "--precision", "float32"]


# ---- who we are


def environment(monkeypatch: pytest.MonkeyPatch, **values: str) -> dict[str, str]:
    for name in [
        name for name in os.environ if name.startswith(("SLURM_", "MASTER_")) or name in launch_variables.NAMES
    ]:
        monkeypatch.delenv(name)
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    return launch_variables.process_variables()


ALONE = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}
BATCH_SCRIPT = {"SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NTASKS": "16", "MASTER_ADDR": "a", "MASTER_PORT": "1"}
TASK = {**BATCH_SCRIPT, "SLURM_PROCID": "9", "SLURM_LOCALID": "1", "SLURM_STEP_NUM_TASKS": "16"}


def test_torchrun_srun_and_nobody_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    assert environment(monkeypatch) == ALONE
    assert environment(monkeypatch, RANK="3", LOCAL_RANK="1", WORLD_SIZE="4") == {
        "RANK": "3", "LOCAL_RANK": "1", "WORLD_SIZE": "4",
    }  # fmt: skip
    assert environment(monkeypatch, RANK="3", WORLD_SIZE="4")["LOCAL_RANK"] == "0"
    assert environment(monkeypatch, **TASK) == {"RANK": "9", "LOCAL_RANK": "1", "WORLD_SIZE": "16"}
    assert launch_variables.launched()


def test_a_command_in_the_batch_script_beside_srun_is_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    assert environment(monkeypatch, **BATCH_SCRIPT) == ALONE
    assert environment(monkeypatch, **BATCH_SCRIPT, SLURM_STEP_NUM_TASKS="1") == ALONE


def test_tasks_that_cannot_meet_are_not_sixteen_runs_in_one_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"\b16\b.*MASTER_ADDR .*MASTER_PORT"):
        environment(monkeypatch, SLURM_PROCID="9", SLURM_LOCALID="1", SLURM_STEP_NUM_TASKS="16")


@pytest.mark.parametrize(
    ("values", "facts"),
    [
        ({"RANK": "0", "WORLD_SIZE": "abc"}, ("WORLD_SIZE", "'abc'")),
        ({"RANK": "-1", "WORLD_SIZE": "2"}, ("RANK", "'-1'")),
        ({"RANK": "2", "WORLD_SIZE": "2"}, ("RANK=2", "WORLD_SIZE=2")),
        ({"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": ""}, ("LOCAL_RANK", "''")),
        ({"SLURM_STEP_NUM_TASKS": "two"}, ("SLURM_STEP_NUM_TASKS", "'two'")),
        ({"SLURM_STEP_NUM_TASKS": "2", "MASTER_ADDR": "a", "MASTER_PORT": "1"}, ("SLURM_PROCID", "not set")),
    ],
)
def test_invalid_variables_of_a_launcher_are_named(
    monkeypatch: pytest.MonkeyPatch, values: dict[str, str], facts: tuple[str, ...]
) -> None:
    with pytest.raises(ValueError) as refused:
        environment(monkeypatch, **values)
    assert has_facts(str(refused.value), *facts, "torchrun")


@pytest.mark.parametrize(
    ("address", "fact"), [({}, "MASTER_ADDR"), ({"MASTER_ADDR": "a", "MASTER_PORT": "x"}, "MASTER_PORT")]
)
def test_processes_without_an_address_are_refused(
    monkeypatch: pytest.MonkeyPatch, address: dict[str, str], fact: str
) -> None:
    environment(monkeypatch, RANK="0", WORLD_SIZE="2", **address)
    monkeypatch.setattr(os, "environ", dict(os.environ))  # `started` adds to it
    with pytest.raises(ValueError, match=fact), launcher.started():
        pass


def test_the_commands_of_the_page_about_clusters_are_understood(tmp_path: Path) -> None:
    """The lines are read by bash, every command in them by Ribcage."""
    root = Path(__file__).parent.parent
    blocks = re.findall(r"```bash\n(.*?)```", (root / "docs" / "cluster.md").read_text(encoding="utf-8"), re.DOTALL)
    for block in (*blocks, (root / "cluster" / "slurm.sbatch").read_text(encoding="utf-8")):
        subprocess.run(["bash", "-n"], input=block, text=True, check=True)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").replace("%a", "3").splitlines()]
    commands = [
        re.sub(r".*?(\bribcage|slurm\.sbatch) ", "", line).split()
        for line in lines
        if "--data" in line or "import" in line
    ]
    assert len(commands) >= 8 and {name for name, *_ in commands} == {"finetune", "pretrain", "import", "evaluate"}
    for name, *rest in commands:
        module = cli.command(name)
        flags.parse(name, module, flags.read_flags(module, rest), rest)


def test_a_process_group_that_ray_has_set_up_is_used_and_left_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    environment(monkeypatch, RANK="0", LOCAL_RANK="0", WORLD_SIZE="2")
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    group = dist.group.WORLD
    try:
        with launcher.started() as device:
            assert dist.group.WORLD is group and device.type == ("cuda" if torch.cuda.is_available() else "cpu")
        assert dist.is_initialized()
    finally:
        dist.destroy_process_group()


# ---- starting them


def python(code: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-c", code])


def test_the_exit_code_is_that_of_the_one_that_failed() -> None:
    assert launcher._outcome([python("pass"), python("pass")]) == 0
    assert launcher._outcome([python("pass"), python("raise SystemExit(75)")]) == 75
    assert launcher._outcome([python("import os; os.kill(os.getpid(), 9)"), python("pass")]) == 137


def test_a_killed_process_is_named_with_its_signal(capfd: pytest.CaptureFixture[str]) -> None:
    """And not the one that missed it, however early that ends."""
    assert launcher._first_failure([1, -9, None]) == -9
    said = capfd.readouterr().err
    assert has_facts(said, "process 2", 3, "SIGKILL") and "fault" not in said
    assert launcher._first_failure([None, 75, 2]) == 75 and not capfd.readouterr().err


def test_who_waits_for_a_failed_one_is_ended() -> None:
    start = time.monotonic()
    waiting = python("import time; time.sleep(60)")
    assert launcher._outcome([waiting, python("raise SystemExit(2)")], grace=0.2) == 2
    assert waiting.returncode == -signal.SIGKILL and time.monotonic() - start < 30


UNEQUAL = ("--batch", "16", "--devices", "3")


@pytest.mark.parametrize(
    "command", [["finetune"], ["pretrain", "mae"], ["distil", "--teacher", "x"], ["localise", "--findings", "Mass"]]
)
def test_a_batch_that_cannot_be_divided_is_refused_before_data_are_read(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launcher, "launch", None)
    said = line([*command, "--data", str(tmp_path / "none"), "--out", str(tmp_path / "run"), *UNEQUAL], capsys)
    assert has_facts(said, "--batch 16", 3, "--batch 15", "--batch 18")


@pytest.mark.slow
def test_processes_of_a_launcher_print_an_error_in_the_options_once(tmp_path: Path) -> None:
    asked = words(tmp_path / "none", tmp_path / "run", 1)
    asked[asked.index("--batch") + 1] = "15"
    with processes.ranks(processes.command, [*asked, "--lr", "-1"], said=tmp_path / "said") as started:
        ends = [process.end() for process in started]
    assert [code for code, _ in ends] == [2, 2] and [has_facts(text, "--lr", "--batch 15") for _, text in ends] == [
        1,
        0,
    ]


def opened(folder: str) -> int:
    """As a command opens its data, in every process; the exit code."""

    def dispatch(words: list[str]) -> int:
        with launcher.started():
            dataset_folder.open(Path(folder.replace("RANK", os.environ["RANK"])))
        return 0

    cli.dispatch = dispatch
    return cli.main([])


@pytest.mark.parametrize(("name", "printed"), [("none", [1, 0]), ("none-RANK", [1, 1])])
def test_an_error_in_the_data_is_printed_once_and_each_of_several_is_printed(
    name: str, printed: list[int], tmp_path: Path
) -> None:
    with processes.ranks(opened, str(tmp_path / name), said=tmp_path / "said") as started:
        ends = [process.end() for process in started]
    assert [(code, text.count("none")) for code, text in ends] == [(1, count) for count in printed], ends


@pytest.mark.parametrize("more", [[], ["--resamples", "-1"]], ids=["without a model", "invalid option"])
def test_an_evaluation_that_cannot_begin_is_explained_once(more: list[str], tmp_path: Path) -> None:
    asked = ["evaluate", str(tmp_path), "--data", "set", *more]
    with processes.ranks(processes.command, asked, said=tmp_path / "said") as started:
        ends = [process.end() for process in started]
    assert [text.count("ribcage:") for _, text in ends] == [1, 0], ends


def watching(parent: int) -> None:
    launcher.end_with_parent(parent, every=0.01)
    time.sleep(60)


def test_a_process_whose_parent_has_ended_gets_sigterm(tmp_path: Path) -> None:
    with processes.Forked(watching, 1 << 30, said=tmp_path / "said.txt", env=ENV) as process:
        assert process.end()[0] == -signal.SIGTERM


@pytest.mark.slow
def test_processes_save_and_end_when_the_one_that_started_them_is_killed(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    log = out / "metrics.jsonl"
    with processes.Forked(
        processes.command, [*words(data, out, 500), "--devices", "2"], said=tmp_path / "said.txt", env=ENV
    ) as process:
        processes.until(lambda: log.exists() and log.read_text().count("\n") > 0, process)
        number = process.process.pid
        workers = Path(f"/proc/{number}/task/{number}/children").read_text().split()
        process.send_signal(signal.SIGKILL)
        process.process.join()
    start = time.monotonic()
    while any(Path(f"/proc/{worker}").exists() for worker in workers):
        assert time.monotonic() - start < 60
        time.sleep(0.05)
    assert len(workers) == 2 and (out / checkpoint.FILE).exists()


@pytest.mark.slow
def test_a_signal_to_the_one_that_started_them_saves_them_all(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    asked = [*words(data, out, 500), "--devices", "2"]
    log = out / "metrics.jsonl"
    with processes.Forked(processes.command, asked, said=tmp_path / "said.txt", env=ENV) as process:
        processes.until(lambda: log.exists() and log.read_text().count("\n") > 0, process)
        if Path("/proc/net/tcp").exists():
            assert processes.listening(process.process.pid) == {"0100007F"}, "127.0.0.1 alone"
        process.send_signal(signal.SIGUSR1)
        code, said = process.end()
    assert code == 75, said
    assert said.count("--resume") == 1 and "Traceback" not in said
    assert has_facts(said, f"step {checkpoint.load_checkpoint(out / 'checkpoint.pt')['run']['step']:,}")


@pytest.mark.slow
def test_tasks_of_srun_train_together_and_are_requeued_with_75(data: Path, tmp_path: Path) -> None:
    """Two processes with what srun would have told them; one is asked to stop, both save and go."""
    out, port = tmp_path / "run", str(processes.free_port())
    clean = {name: value for name, value in ENV.items() if name not in launch_variables.NAMES}
    tasks = []
    for number in range(2):
        task = {**TASK, "SLURM_PROCID": str(number), "SLURM_LOCALID": str(number), "SLURM_STEP_NUM_TASKS": "2"}
        told = {**clean, **task, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        begin = processes.Forked(
            processes.command, words(data, out, 500), said=tmp_path / task["SLURM_PROCID"], env=told
        )
        tasks.append(begin)
    log = out / "metrics.jsonl"
    processes.until(lambda: log.exists() and log.read_text().count("\n") > 0, *tasks)
    tasks[1].send_signal(signal.SIGTERM)
    ends = [task.end() for task in tasks]
    assert [code for code, _ in ends] == [75, 75], ends
    said = [text for _, text in ends]
    assert has_facts(said[0], "another process", "step") and "saved" not in said[1]
    assert (out / "checkpoint.pt").exists()


def test_a_run_killed_before_its_first_checkpoint_begins_again(data: Path, tmp_path: Path) -> None:
    whole, out = tmp_path / "whole", tmp_path / "run"
    assert cli.main(words(data, whole, 1)) == 0
    out.mkdir()
    (out / "options.json").write_text("{}")
    (out / "metrics.jsonl").write_text('{"step": 1}\n')
    assert cli.main([*words(data, out, 1), "--resume"]) == 0
    logs = [
        [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()] for run in (whole, out)
    ]
    assert logs[0] == logs[1]
    assert cli.main([*words(data, tmp_path / "nowhere", 1), "--resume"]) == 1


def test_who_was_asked_to_end_and_hangs_is_killed(capsys: pytest.CaptureFixture[str]) -> None:
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
    for asked, limits in (([0.0], {"patience": 0.2}), ([0.0, 0.2], {"grace": 0.1})):
        start = time.monotonic()
        hanging = [python(deaf), python(deaf)]
        assert launcher._outcome(hanging, [start + each for each in asked], **limits) == 137
        assert time.monotonic() - start < 30 and "were killed" in capsys.readouterr().err
