"""Distributed: one process is the same code as many. Who we are, sums over all, batch norm over the global batch."""

import os
from collections.abc import Iterator
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
    device = torch.device("cuda", int(environment["LOCAL_RANK"])) if torch.cuda.is_available() else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if int(environment["WORLD_SIZE"]) == 1:
        yield device
        return
    os.environ.update(environment)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield device
    finally:
        dist.destroy_process_group()


def launch(devices: int, words: list[str]) -> int:
    """Run `ribcage WORDS` as so many processes on this machine; the exit code."""
    import subprocess
    import sys

    if torch.cuda.is_available() and devices > torch.cuda.device_count():
        raise ValueError(f"--devices {devices}: this machine has {torch.cuda.device_count()}.")
    start = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={devices}", "-m", "ribcage"]
    environment = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // devices)), **os.environ}
    return subprocess.run([sys.executable, *start, *words], env=environment, check=False).returncode


def _environment() -> dict[str, str]:
    """RANK, LOCAL_RANK and WORLD_SIZE from torchrun, else from srun, else of a single process."""
    if "RANK" in os.environ:
        return {name: os.environ[name] for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE")}
    if "SLURM_PROCID" in os.environ and int(os.environ.get("SLURM_NTASKS", "1")) > 1 and "MASTER_ADDR" in os.environ:
        names = {"RANK": "SLURM_PROCID", "LOCAL_RANK": "SLURM_LOCALID", "WORLD_SIZE": "SLURM_NTASKS"}
        return {name: os.environ[slurm] for name, slurm in names.items()}
    return {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}


def total(value: Tensor) -> Tensor:
    """The sum over all processes, without a gradient."""
    value = value.detach().clone()
    if active():
        dist.all_reduce(value)
    return value


def anyone(flag: bool, device: torch.device) -> bool:
    """Whether it is so in any process."""
    return bool(total(torch.tensor(float(flag), device=device)) > 0) if active() else flag


def from_first(value: Any) -> Any:
    """What rank 0 has, everywhere."""
    if not active():
        return value
    box = [value]
    dist.broadcast_object_list(box)
    return box[0]


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


# ---- batch norm over the global batch


def synchronise_norms(module: nn.Module, device: torch.device) -> nn.Module:
    """Batch norms take their statistics from all processes, so that many train as one. Names of weights stay."""
    if not active():
        return module
    if device.type == "cuda":
        from timm.layers import convert_sync_batchnorm

        return convert_sync_batchnorm(module)
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d | nn.BatchNorm1d):
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
