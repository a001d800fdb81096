"""Distributed: one process is the same code as many. Who we are, sums over all, batch norm over the global batch."""

import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


def active() -> bool:
    """Whether there are other processes."""
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    """Which process this is."""
    return dist.get_rank() if active() else 0


def world() -> int:
    """How many processes there are."""
    return dist.get_world_size() if active() else 1


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


def total(value: Tensor) -> Tensor:
    """The sum over all processes, without a gradient."""
    value = value.detach().clone()
    if active():
        dist.all_reduce(value)
    return value


def gathered_rows(value: Tensor) -> Tensor:
    """(world · N, …): the rows of all processes, those of rank 0 first, with their gradients. All must have N rows.

    Where each rank's loss looks at everybody's rows, the gradient of the mean loss is what one process would find: what
    the ranks ask of a row is summed here, and the mean is taken when gradients are averaged.
    """
    return _Everyone.apply(value) if active() else value


def local_rows(value: Tensor) -> Tensor:
    """This process's part of what `everyone` has."""
    return value.chunk(world())[rank()]


def minimum_over_processes(value: int, device: torch.device) -> int:
    """The smallest of what the processes have."""
    if not active():
        return value
    box = torch.tensor(value, device=device)
    dist.all_reduce(box, dist.ReduceOp.MIN)
    return int(box)


def anyone(flag: bool, device: torch.device) -> bool:
    """Whether it is so in any process."""
    return any_of([flag], device)[0]


def any_of(flags: Sequence[bool], device: torch.device) -> list[bool]:
    """Of each, whether it is so in any process."""
    if not active():
        return list(flags)
    return (total(torch.tensor(list(map(float, flags)), device=device)) > 0).tolist()


def broadcast_from_first(value: Any) -> Any:
    """What rank 0 has, everywhere."""
    if not active():
        return value
    box = [value]
    dist.broadcast_object_list(box)
    return box[0]


def run_on_first(work: Callable[[], Any]) -> Any:
    """What rank 0 finds when it does the work, everywhere; its error is everybody's, so that nobody waits in vain."""
    found, error = None, None
    if rank() == 0:
        try:
            found = work()
        except Exception as raised:
            error = raised
    if active():
        plain = None if error is None else (type(error) if type(error) in PLAIN else ValueError)(str(error))
        found, other = broadcast_from_first((found, plain))
        error = error or (None if other is None else echoed(other))
    if error is not None:
        raise error
    return found


PLAIN = (OSError, ValueError, FileNotFoundError, RuntimeError)
"""Errors that are the same error when they are made anew of their text."""


def echoed(error: Exception) -> Exception:
    """An error that every rank raises, marked at all but rank 0, which says it for all."""
    if rank() > 0:
        error.echo = True  # type: ignore[attr-defined]
    return error


def launched() -> bool:
    """Whether a launcher started this process as one of many."""
    return int(_environment()["WORLD_SIZE"]) > 1


def gathered(rows: Any) -> list[Any]:
    """What every process has, in the order of their ranks, at rank 0; elsewhere an empty list."""
    if not active():
        return [rows]
    parts = [None] * world() if rank() == 0 else None
    dist.gather_object(rows, parts)
    return parts or []


class _Everyone(torch.autograd.Function):
    """The rows of all processes; the gradient of a row is the sum of what they all found for it."""

    @staticmethod
    def forward(context: Any, value: Tensor) -> Tensor:
        value = value.contiguous()
        whole = value.new_empty(world() * len(value), *value.shape[1:])
        dist.all_gather(list(whole.chunk(world())), value)
        return whole

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        gradient = gradient.contiguous().clone()
        dist.all_reduce(gradient)
        return local_rows(gradient)


class _Sum(torch.autograd.Function):
    """The sum over all processes; its gradient is the sum of their gradients."""

    @staticmethod
    def forward(context: Any, value: Tensor) -> Tensor:
        value = value.clone()
        dist.all_reduce(value)
        return value

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        gradient = gradient.clone()
        dist.all_reduce(gradient)
        return gradient


def averaging(module: Any) -> nn.parallel.DistributedDataParallel:
    """The module with gradients that are the means over all processes. Every rank computes the same buffers: nothing to
    broadcast; newer versions of torch ask for that by another name, and warn of the old one."""
    import inspect

    kind = nn.parallel.DistributedDataParallel
    known = inspect.signature(kind.__init__).parameters
    name = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
    options: dict[str, Any] = {name: False}
    return kind(module, **options)


# ---- batch norm over the global batch


def synchronise_norms(module: nn.Module, device: torch.device) -> nn.Module:
    """Batch norms take their statistics from all processes, so that many train as one. Names of weights stay."""
    if not active():
        return module
    if device.type == "cuda":
        from timm.layers import convert_sync_batchnorm

        return convert_sync_batchnorm(module)
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d | nn.BatchNorm1d) and "forward" not in vars(norm):
            setattr(norm, "forward", _Synchronised(norm))  # noqa: B010 – a method of this one object only
    return module


class _Synchronised:
    """The forward of a batch norm on CPUs, where torch has no synchronised one."""

    def __init__(self, norm: Any) -> None:
        self.norm, self.plain = norm, norm.forward

    def __call__(self, x: Tensor) -> Tensor:
        norm = self.norm
        if not norm.training:
            return self.plain(x)
        axes = [axis for axis in range(x.ndim) if axis != 1]
        shape = [1, -1] + [1] * (x.ndim - 2)
        wide = x.float()
        count = total(torch.tensor(float(x.numel() // x.shape[1])))
        mean = _Sum.apply(wide.sum(axes)) / count
        variance = _Sum.apply((wide - mean.view(shape)).square().sum(axes)) / count
        with torch.no_grad():
            norm.num_batches_tracked += 1
            share = norm.momentum if norm.momentum is not None else 1 / float(norm.num_batches_tracked)
            norm.running_mean.lerp_(mean.detach(), share)
            norm.running_var.lerp_(variance.detach() * count / (count - 1).clamp(min=1), share)
        normal = (wide - mean.view(shape)) * torch.rsqrt(variance + norm.eps).view(shape)
        if norm.affine:
            normal = normal * norm.weight.view(shape) + norm.bias.view(shape)
        normal = normal.to(x.dtype)
        for behind in ("drop", "act"):  # timm's batch norms may carry these along
            normal = getattr(norm, behind)(normal) if hasattr(norm, behind) else normal
        return normal
