"""torchrun: torch's elastic agent restarts lost processes, and the run ends with the result of an undisturbed one.

The agents here start their processes by the fork server (tests/processes.py) instead of `python -m ribcage`; everything
else is torchrun's own code.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import processes
import pytest
import torch
import torch.distributed as dist
from refusals import has_facts
from safetensors.torch import load_file
from trainings import equal, words

from ribcage import cli
from ribcage.runtime.rendezvous import agreed_prefix
from ribcage.training import checkpoint

ENV = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}

ALIVE = {"keep_alive_interval": 1, "keep_alive_max_attempt": 2, "last_call_timeout": 1, "join_timeout": 60}
"""Seconds after which an agent that is gone is noticed, and for which a further one is waited for."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "phantom"
    assert cli.main(["import", "phantom", "--out", str(folder), "--images", "120", "--size", "32"]) == 0
    return folder


def agent(
    name: str, config: dict[str, Any], command: Sequence[str], started: Callable[..., None] | None = None
) -> None:
    """torchrun with these settings, on a machine of this name."""
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    own = {"start_method": "forkserver", "monitor_interval": 0.1, "run_id": "run", "local_addr": "127.0.0.1"}
    elastic_launch(LaunchConfig(**own, **config), started or worker)(name, command)


def worker(name: str, command: Sequence[str]) -> None:
    """`ribcage COMMAND`, by one process of an agent."""
    folder = Path(command[command.index("--out") + 1]).parent
    (folder / f"{name}-{os.environ['LOCAL_RANK']}").write_text(str(os.getpid()))
    sys.exit(processes.command(command))


def logged(out: Path) -> list[int]:
    """The steps in the log of a run."""
    log = out / "metrics.jsonl"
    lines = log.read_text(encoding="utf-8").splitlines(keepends=True) if log.exists() else []
    return [json.loads(line)["step"] for line in lines if line.endswith("\n")]


def weights(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "bundle" / "model.safetensors")


def test_processes_agree_on_entries_of_their_own_whatever_an_earlier_attempt_left() -> None:
    store = dist.HashStore()
    with ThreadPoolExecutor(3) as pool:
        attempts = [
            [found.result() for found in [pool.submit(agreed_prefix, store, rank, 3, 20.0) for rank in ranks]]
            for ranks in ((0, 1, 2), (2, 1, 0))  # at the second attempt, the others come before rank 0
        ]
    assert all(len(set(prefixes)) == 1 for prefixes in attempts) and attempts[0] != attempts[1]
    with pytest.raises(TimeoutError, match="Rank 1"):
        agreed_prefix(store, 1, 2, 0.1)


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An undisturbed run of two processes."""
    folder = tmp_path_factory.mktemp("whole")
    processes.together(processes.command, words(data, folder / "run"), said=folder)
    return folder / "run"


def restarted(command: Sequence[str], out: Path) -> None:
    """Run a command by an agent of two processes, one of which is killed and started again."""
    config = {"min_nodes": 1, "max_nodes": 1, "nproc_per_node": 2, "max_restarts": 1, "rdzv_backend": "c10d"}
    config["rdzv_endpoint"] = f"127.0.0.1:{processes.free_port()}"
    with processes.Forked(agent, "alone", config, command, said=out.parent / "said.txt", env=ENV) as started:
        processes.until(lambda: len(logged(out)) >= 4, started)
        os.kill(int((out.parent / "alone-1").read_text()), signal.SIGKILL)
        code, said = started.end()
    assert code == 0, said
    assert said.count("(2 processes)") == 2


@pytest.mark.slow
def test_a_lost_process_is_restarted_and_the_run_ends_with_the_same_weights(
    data: Path, whole: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    restarted(words(data, out, "--save-minutes", "0", "--resume", "auto"), out)
    assert logged(out) == logged(whole) and equal(weights(out), weights(whole))


@pytest.mark.integration
def test_a_lost_process_of_a_sharded_run_is_restarted_and_the_run_ends_with_the_same_weights(
    data: Path, tmp_path: Path
) -> None:
    """The killed process has a part of the weights that only a checkpoint still has."""
    shard = ("--model", "test_vit", "--shard")
    one, two = (tmp_path / name / "run" for name in ("one", "two"))
    two.parent.mkdir()
    restarted(words(data, two, "--save-minutes", "0", "--resume", "auto", *shard), two)
    assert (two / checkpoint.FOLDER).is_dir()
    processes.together(processes.command, words(data, one, *shard), said=tmp_path)
    assert logged(two) == logged(one) and equal(weights(two), weights(one))


@pytest.mark.slow
def test_a_lost_machine_leaves_the_run_to_the_other_one(data: Path, whole: Path, tmp_path: Path) -> None:
    """--nnodes=1:2: two agents with a process each; one agent and its process are killed."""
    out, endpoint = tmp_path / "run", f"127.0.0.1:{processes.free_port()}"
    command = words(data, out, "--save-minutes", "0", "--resume", "auto")
    config = {"min_nodes": 1, "max_nodes": 2, "nproc_per_node": 1, "max_restarts": 2, "rdzv_backend": "c10d"}
    with ExitStack() as stack:
        agents = []
        for host in "10":
            own = {**config, "rdzv_endpoint": endpoint, "rdzv_configs": {"is_host": host, **ALIVE}}
            begun = processes.Forked(agent, host, own, command, said=tmp_path / f"agent-{host}.txt", env=ENV)
            agents.append(stack.enter_context(begun))
        processes.until(lambda: len(logged(out)) >= 4, *agents)
        assert checkpoint.load_checkpoint(out / "checkpoint.pt")["run"]["step"]
        os.kill(int((tmp_path / "0-0").read_text()), signal.SIGKILL)
        agents[1].send_signal(signal.SIGKILL)
        code, said = agents[0].end()
    assert code == 0, said
    assert has_facts(said, "2 processes") and logged(out) == logged(whole)
    for name, value in weights(whole).items():
        torch.testing.assert_close(weights(out)[name], value, rtol=2e-3, atol=2e-4, msg=lambda m, n=name: f"{n}: {m}")


def requeued(name: str, command: Sequence[str]) -> None:
    """A process that ends with 75 after a signal, as a training does."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
    Path(command[0]).touch()
    time.sleep(60)


@pytest.mark.slow
def test_why_devices_does_not_use_the_agent(tmp_path: Path) -> None:
    """As docs/cluster.md says: the agent loses the exit code after a signal, and listens on all interfaces."""
    config = {"min_nodes": 1, "max_nodes": 1, "nproc_per_node": 1, "max_restarts": 0, "rdzv_backend": "c10d"}
    config["rdzv_endpoint"] = f"127.0.0.1:{processes.free_port()}"
    ready = tmp_path / "ready"
    with processes.Forked(agent, "alone", config, [str(ready)], requeued, said=tmp_path / "said.txt", env=ENV) as begun:
        processes.until(ready.exists, begun)
        if Path("/proc/net/tcp").exists():
            assert processes.listening(begun.process.pid or 0) & {"0" * 8, "0" * 32}
        begun.send_signal(signal.SIGTERM)
        code, said = begun.end()
    assert code == 1, said
