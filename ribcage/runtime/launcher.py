"""Processes: started on this machine (--devices), or by torchrun or srun, and how they end."""

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist

from ribcage.runtime.distributed import active, echoed


@contextmanager
def started() -> Iterator[torch.device]:
    """Join the other processes that torchrun or SLURM started, if any; the device of this one."""
    environment = _environment()
    device = torch.device("cpu")
    if torch.cuda.is_available():  # a launcher may show each process its own GPU only
        device = torch.device("cuda", int(environment["LOCAL_RANK"]) % torch.cuda.device_count())
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if int(environment["WORLD_SIZE"]) == 1:
        yield device
        return
    os.environ.update(environment)
    backend = "nccl" if device.type == "cuda" else "gloo"
    if MEET in os.environ:
        rank, world_size = int(environment["RANK"]), int(environment["WORLD_SIZE"])
        store = dist.FileStore(os.environ[MEET], world_size)
        dist.init_process_group(backend, store=store, rank=rank, world_size=world_size)
    else:
        dist.init_process_group(backend)
    try:
        with lost_process_explained():
            yield device
    finally:
        dist.destroy_process_group()


@contextmanager
def lost_process_explained() -> Iterator[None]:
    """What torch says when another process is gone, in one line."""
    try:
        yield
    except RuntimeError as error:
        if not active() or not (isinstance(error, dist.DistError) or "gloo" in str(error)):
            raise
        text = "Another process of this run ended or cannot be reached: what it said, or what ended it, is the reason."
        raise echoed(ConnectionError(text)) from None


MEET = "RIBCAGE_MEET"
"""Names the file by which the processes of `launch` find each other: only their user can read it, nothing listens."""


def launch(devices: int, words: list[str]) -> int:
    """Run `ribcage WORDS` as so many processes on this machine; the exit code.

    They meet by a file of this user's and speak over the loopback interface: nothing listens to other machines. A
    signal to this process is passed on to each of them, once: all save, and their exit code is this one's. Those that
    have not ended PATIENCE later hang, and are killed; asked twice, they have GRACE.
    """
    import subprocess
    import sys
    import tempfile

    if torch.cuda.is_available() and devices > torch.cuda.device_count():
        raise ValueError(f"--devices {devices}: this machine has {torch.cuda.device_count()}.")
    threads = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // devices))}
    with tempfile.TemporaryDirectory(prefix="ribcage-") as folder:
        shared = {MEET: f"{folder}/store", "WORLD_SIZE": str(devices), **_loopback()}
        ranks = [
            subprocess.Popen(
                [sys.executable, "-m", "ribcage", *words],
                env={**threads, **os.environ, **shared, "RANK": str(number), "LOCAL_RANK": str(number)},
                start_new_session=True,  # Ctrl-C in a terminal would else reach them twice
            )
            for number in range(devices)
        ]
        with _passed_on(ranks) as asked:
            return _outcome(ranks, asked)


def _loopback() -> dict[str, str]:
    """What keeps gloo and NCCL on this machine: by default they listen where the host's name leads."""
    import socket

    name = next((name for _, name in socket.if_nameindex() if name.startswith("lo")), "lo")
    return {"GLOO_SOCKET_IFNAME": name, "NCCL_SOCKET_IFNAME": f"={name}"}


GRACE = 30.0
"""Seconds that the others have to end when one has failed."""
PATIENCE = 300.0
"""Seconds that all have to end when they were asked to: a step and a validation may come first."""


@contextmanager
def _passed_on(ranks: list[Any]) -> Iterator[list[float]]:
    """While it lasts, signals go to the processes; a closed terminal asks them to end. When this happened."""
    import signal
    import time

    asked: list[float] = []

    def pass_on(number: int, frame: object) -> None:
        asked.append(time.monotonic())
        for process in ranks:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM if number == getattr(signal, "SIGHUP", 0) else number)

    names = [name for name in ("SIGINT", "SIGTERM", "SIGUSR1", "SIGHUP") if hasattr(signal, name)]
    before = {getattr(signal, name): signal.signal(getattr(signal, name), pass_on) for name in names}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _outcome(ranks: list[Any], asked: Sequence[float] = (), grace: float = GRACE, patience: float = PATIENCE) -> int:
    """Wait for all; the first exit code that is not 0. When one fails, the others would wait for it in vain; when they
    were asked to end and do not, they wait for each other in vain."""
    import sys
    import time

    failed, last = 0, math.inf
    while None in (codes := [process.poll() for process in ranks]):
        if not failed and any(codes):
            failed, last = _first_failure(codes), time.monotonic() + grace
        if asked:
            last = min(last, asked[0] + patience, *(again + grace for again in asked[1:]))
        if time.monotonic() > last:
            for process in ranks:
                process.kill()
        time.sleep(0.05)
    if asked and -9 in codes:
        print("ribcage: the processes did not end when asked to and were killed.", file=sys.stderr)
    code = failed or next((code for code in codes if code), 0)
    return code if code >= 0 else 128 - code


def _first_failure(codes: Sequence[int | None]) -> int:
    """The exit code that is the reason of the others'; of a killed process, which said nothing, it is said."""
    import signal
    import sys

    for number, code in enumerate(codes):
        if code is not None and code < 0:
            name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
            why = ", as the system does when memory runs out" if name == "SIGKILL" else ""
            print(f"ribcage: process {number + 1} of {len(codes)} was ended by {name}{why}.", file=sys.stderr)
            return code
    return next(code for code in codes if code)


def _environment() -> dict[str, str]:
    """RANK, LOCAL_RANK and WORLD_SIZE from torchrun, else from srun, else of a single process."""
    if "RANK" in os.environ and "WORLD_SIZE" in os.environ:
        return {"LOCAL_RANK": "0", **{name: os.environ[name] for name in NAMES if name in os.environ}}
    if int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1:  # of srun; a batch script beside it is one process
        if "MASTER_ADDR" not in os.environ or "MASTER_PORT" not in os.environ:
            tasks = os.environ["SLURM_STEP_NUM_TASKS"]
            raise ValueError(f"srun started {tasks} tasks that cannot meet: set MASTER_ADDR and MASTER_PORT first.")
        return {name: os.environ[slurm] for name, slurm in NAMES.items()}
    return {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}


NAMES = {"RANK": "SLURM_PROCID", "LOCAL_RANK": "SLURM_LOCALID", "WORLD_SIZE": "SLURM_STEP_NUM_TASKS"}
"""How torchrun and srun tell a process who it is."""


def launched() -> bool:
    """Whether a launcher started this process as one of many."""
    return int(_environment()["WORLD_SIZE"]) > 1
