"""Distributed: one process is the same code as many. Ranks, sums and rows over all processes."""

from collections.abc import Callable, Sequence
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
