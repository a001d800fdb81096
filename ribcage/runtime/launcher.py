"""Processes: started on this machine (--devices), or by torchrun, srun or Ray Train, and how they end."""

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import torch
import torch.distributed as dist

from ribcage.runtime import launch_variables, rendezvous, signals, threads
from ribcage.runtime.distributed import active, echoed


@contextmanager
def started() -> Iterator[torch.device]:
    """Join the processes that torchrun, SLURM or Ray Train started, if any; yields the device of this process."""
    environment = launch_variables.process_variables()
    device = torch.device("cpu")
    if torch.cuda.is_available():  # a launcher may let each process see its own GPU only
        device = torch.device("cuda", int(environment["LOCAL_RANK"]) % torch.cuda.device_count())
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if int(environment["WORLD_SIZE"]) == 1:
        yield device
        return
    if active():  # Ray Train has set up the process group, and ends it
        with lost_process_explained(), equal_errors_once():
            yield device
        return
    os.environ.update(environment)
    if PARENT in os.environ:
        end_with_parent(int(os.environ[PARENT]))
    with signals.ended_while_waiting():
        _join("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    try:
        with lost_process_explained(), equal_errors_once():
            yield device
    finally:
        dist.destroy_process_group()


def _join(backend: str) -> None:
    """Wait for the other processes, and form a process group with them."""
    if launch_variables.launched_here():
        rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        store = dist.FileStore(os.environ[launch_variables.RENDEZVOUS], world_size)
        dist.init_process_group(backend, store=store, rank=rank, world_size=world_size)
    elif rendezvous.from_torchrun():
        own_store, rank, world_size = rendezvous.own_store()
        dist.init_process_group(backend, store=own_store, rank=rank, world_size=world_size)
    else:
        launch_variables.require_address()
        dist.init_process_group(backend)


@contextmanager
def lost_process_explained() -> Iterator[None]:
    """Turn torch's error about a lost process into one line."""
    try:
        yield
    except RuntimeError as error:
        if not active() or not (isinstance(error, dist.DistError) or "gloo" in str(error)):
            raise
        text = "Another process of this run ended or cannot be reached. See its message for the reason."
        raise echoed(ConnectionError(text)) from None


@contextmanager
def equal_errors_once(patience: float = 3.0) -> Iterator[None]:
    """Mark an error of the user's, such as a missing file, if a process of a lower rank has raised the same: it is
    printed once. Each process waits up to `patience` seconds for the others, which may still be reading."""
    try:
        yield
    except (ValueError, OSError) as error:
        if active() and not hasattr(error, "echo") and not isinstance(error, ConnectionError):
            with suppress(RuntimeError):  # the process that kept the store has ended: the error is printed
                if _raised_before(f"{type(error).__name__}: {error}", patience):
                    echoed(error)
        raise


def _raised_before(text: str, patience: float) -> bool:
    """Whether a process of a lower rank has raised an error with this text. Rank 0, which may keep the store, stays
    until the others have compared theirs."""
    import time

    store, rank, last = dist.distributed_c10d._get_default_store(), dist.get_rank(), time.monotonic() + patience
    store.set(f"error {rank}", text)
    others = [f"compared {other}" for other in range(1, dist.get_world_size())] if rank == 0 else []
    lower, found = [f"error {other}" for other in range(rank)], False
    while (lower or others) and not found and time.monotonic() < last:
        here = [name for name in lower if store.check([name])]
        found = any(store.get(name).decode() == text for name in here)
        lower = [name for name in lower if name not in here]
        others = [name for name in others if not store.check([name])]
        time.sleep(0.02)
    store.set(f"compared {rank}", "")
    return found


PARENT = "RIBCAGE_PARENT"
"""Environment variable: the process id of `launch`."""


def end_with_parent(parent: int, every: float = 1.0) -> None:
    """Send SIGTERM to this process, so that it saves and ends, when its parent has ended without forwarding a signal,
    as after SIGKILL."""
    import signal
    import threading
    import time

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(every)
        os.kill(os.getpid(), signal.SIGTERM)

    if os.name == "posix":  # elsewhere, the parent of a process does not change
        threading.Thread(target=watch, name="end with parent", daemon=True).start()


def launch(devices: int, words: list[str]) -> int:
    """Run `ribcage WORDS` as this many processes on this machine; returns the exit code.

    The processes rendezvous through a file and communicate over the loopback interface, so that no other machine can
    connect. A signal to this process is forwarded once to each of them: all save and end, and their exit code is
    returned. Processes that have not ended PATIENCE seconds later are killed; after a second signal they have GRACE
    seconds.
    """
    import subprocess
    import sys
    import tempfile

    if torch.cuda.is_available() and devices > torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise ValueError(f"--devices {devices} exceeds the number of GPUs on this machine, which is {count}.")
    own = {"OMP_NUM_THREADS": str(max(1, threads.available_cores() // devices))}
    with tempfile.TemporaryDirectory(prefix="ribcage-") as folder:
        shared = {
            launch_variables.RENDEZVOUS: f"{folder}/store",
            PARENT: str(os.getpid()),
            "WORLD_SIZE": str(devices),
            **_loopback(),
        }
        ranks = [
            subprocess.Popen(
                [sys.executable, "-m", "ribcage", *words],
                env={**own, **os.environ, **shared, "RANK": str(number), "LOCAL_RANK": str(number)},
                start_new_session=True,  # Ctrl-C in a terminal would otherwise reach them twice
            )
            for number in range(devices)
        ]
        with _passed_on(ranks) as asked:
            return _outcome(ranks, asked)


def _loopback() -> dict[str, str]:
    """Environment that makes gloo and NCCL use the loopback interface; by default they listen on the address of the
    host name."""
    import socket

    name = next((name for _, name in socket.if_nameindex() if name.startswith("lo")), "lo")
    return {"GLOO_SOCKET_IFNAME": name, "NCCL_SOCKET_IFNAME": f"={name}"}


GRACE = 30.0
"""Seconds that the other processes have to end after one has failed."""
PATIENCE = 300.0
"""Seconds that all have to end after a signal: they may have to finish a step and a validation first."""


@contextmanager
def _passed_on(ranks: list[Any]) -> Iterator[list[float]]:
    """Within the block, forward signals to the processes, SIGHUP as SIGTERM; yields the times at which signals came."""
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
    """Wait for all processes; returns the first exit code that is not 0. When one fails, or when they do not end after
    a signal, the others would wait for it forever: they are killed after a while."""
    import sys
    import time

    failed, last = 0, math.inf
    while None in (codes := [_exit_code(process, asked) for process in ranks]):
        if not failed and any(codes):
            failed, last = _first_failure(codes), time.monotonic() + grace
        if asked:
            last = min(last, asked[0] + patience, *(again + grace for again in asked[1:]))
        if time.monotonic() > last:
            for process in ranks:
                process.kill()
        time.sleep(0.05)
    if asked and -9 in codes:
        print("ribcage: the processes did not end on request and were killed.", file=sys.stderr)
    code = failed or next((code for code in codes if code), 0)
    return code if code >= 0 else 128 - code


def _exit_code(process: Any, asked: Sequence[float]) -> int | None:
    """The exit code of a process, None while it runs. One that was killed by a forwarded signal, because it had not
    yet begun to handle signals, can be started again like the others."""
    code: int | None = process.poll()
    return signals.REQUEUE if asked and code is not None and -code in signals.STOPPING else code


def _first_failure(codes: Sequence[int | None]) -> int:
    """The exit code of the process that failed first; a process killed by a signal is reported, as it printed nothing
    itself."""
    import signal
    import sys

    for number, code in enumerate(codes):
        if code is not None and code < 0:
            name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
            why = ", as happens when memory runs out" if name == "SIGKILL" else ""
            print(f"ribcage: process {number + 1} of {len(codes)} was killed by {name}{why}.", file=sys.stderr)
            return code
    return next(code for code in codes if code)
