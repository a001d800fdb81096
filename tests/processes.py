"""Ribcage in processes of their own that are forked, not started: torch and timm are imported once, not by each.

Python's fork server imports them when it is first asked; each process is a copy of it that has computed nothing yet. It
has its own environment, gets real signals and can be killed. What it prints goes to a file.
"""

import multiprocessing
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(
    [
        "torch._dynamo",
        "ribcage.training.run_folder",
        "ribcage.data.selection",
        "ribcage.evaluation.validation",
        "ribcage.methods.supervised",
    ]
)
LONG = 240.0
"""Seconds after which a process counts as hanging."""


class Forked:
    """A process; its output goes to the file `said`."""

    def __init__(self, target: Callable[..., Any], *arguments: Any, said: Path, env: Mapping[str, str]) -> None:
        said.parent.mkdir(parents=True, exist_ok=True)
        said.touch()
        self.file = said
        self.process = SERVER.Process(target=begin, args=(target, arguments, str(said), dict(env)), daemon=False)
        self.process.start()

    def poll(self) -> int | None:
        """The exit code, None while it runs; the negative number of a signal that ended it."""
        return self.process.exitcode

    def send_signal(self, number: int) -> None:
        """As from a shell's `kill`."""
        os.kill(self.process.pid or 0, number)

    def end(self) -> tuple[int | None, str]:
        """Wait for its end: exit code and output."""
        self.process.join(LONG)
        if self.process.exitcode is None:
            self.process.kill()
        return self.process.exitcode, self.file.read_text(encoding="utf-8")

    def __enter__(self) -> "Forked":
        return self

    def __exit__(self, *error: object) -> None:
        if self.process.exitcode is None:
            self.process.kill()
        self.process.join()


def begin(target: Callable[..., Any], arguments: Sequence[Any], said: str, env: Mapping[str, str]) -> None:
    """What a process does first: its environment, its output; and then what was asked for."""
    os.environ.clear()
    os.environ.update(env)
    file = os.open(said, os.O_WRONLY | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.exit(target(*arguments))


def command(words: Sequence[str]) -> int:
    """`ribcage WORDS`."""
    from ribcage import cli

    return cli.main(words)


def ribcage(words: Sequence[str], said: Path, **env: str) -> Forked:
    """`ribcage WORDS` in a process of its own."""
    return Forked(command, list(words), said=said, env={**os.environ, **env})


@contextmanager
def ranks(target: Callable[..., Any], *arguments: Any, said: Path, world: int = 2) -> Iterator[list[Forked]]:
    """As many processes as torchrun would start, who know of each other; they are gone when this is left."""
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(world)}
    started: list[Forked] = []
    try:
        for rank in map(str, range(world)):
            env = {**os.environ, **shared, "RANK": rank, "LOCAL_RANK": rank}
            started.append(Forked(target, *arguments, said=said / f"rank-{rank}.txt", env=env))
        yield started
    finally:
        for process in started:
            process.__exit__()


def together(target: Callable[..., Any], *arguments: Any, said: Path, world: int = 2) -> list[str]:
    """Let them run to a good end; what each of them said."""
    with ranks(target, *arguments, said=said, world=world) as started:
        ends = [process.end() for process in started]
    assert [code for code, _ in ends] == [0] * world, "\n".join(text for _, text in ends)
    return [text for _, text in ends]


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def listening(process: int) -> set[str]:
    """The addresses, as the kernel writes them, at which a process and its children wait for others."""
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    sockets = {
        str(one.readlink())
        for pid in [str(process), *children]
        for one in Path(f"/proc/{pid}/fd").iterdir()
        if one.exists()
    }
    rows = [row.split() for kind in ("tcp", "tcp6") for row in Path(f"/proc/net/{kind}").read_text().splitlines()[1:]]
    return {row[1].split(":")[0] for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in sockets}


def until(there: Callable[[], bool], *started: Forked) -> None:
    """Wait for something that they do; none may end before."""
    start = time.monotonic()
    while not there():
        assert all(process.poll() is None for process in started), [process.end() for process in started]
        assert time.monotonic() - start < LONG
        time.sleep(0.005)
