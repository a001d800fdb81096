"""Distributed: rank, sums and gathers over processes. The same code runs on one process."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

Kind = TypeVar("Kind")


def active() -> bool:
    """Whether this is one of several processes."""
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    """Rank of this process."""
    return dist.get_rank() if active() else 0


def world_size() -> int:
    """Number of processes."""
    return dist.get_world_size() if active() else 1


def total(value: Tensor) -> Tensor:
    """Sum over all processes, without gradient."""
    value = value.detach().clone()
    if active():
        dist.all_reduce(value)
    return value


def gathered_rows(value: Tensor) -> Tensor:
    """(world · N, …): the rows of all processes in the order of their ranks, with gradients. All must have N rows.

    Where the loss of each rank depends on all rows, the gradient of the mean loss equals that of a single process: the
    gradients of a row are summed over ranks here, and averaged over ranks with all other gradients.
    """
    return _GatherRows.apply(value) if active() else value


def is_divided(value: object) -> bool:
    """Whether this is a tensor of which each process has a part, as with --shard."""
    if not active():
        return False
    from torch.distributed.tensor import DTensor

    return isinstance(value, DTensor)


def own_part(value: Tensor) -> Tensor:
    """This process's part of a tensor, which shares its memory; the tensor itself if it is not divided."""
    return value.to_local() if is_divided(value) else value  # type: ignore[attr-defined]


def local_rows(value: Tensor) -> Tensor:
    """The rows of this process out of those that `gathered_rows` returned."""
    return value.chunk(world_size())[rank()]


def minimum_over_processes(value: int) -> int:
    """Minimum over all processes, computed on the CPU."""
    if not active():
        return value
    box = torch.tensor(value)
    dist.all_reduce(box, dist.ReduceOp.MIN)
    return int(box)


def any_process(flag: bool) -> bool:
    """Whether the flag is true in any process."""
    return any_of([flag])[0]


def any_of(flags: Sequence[bool]) -> list[bool]:
    """For each flag, whether it is true in any process. Computed on the CPU: no process waits for its GPU."""
    if not active():
        return list(flags)
    return (total(torch.tensor(list(map(float, flags)))) > 0).tolist()


def broadcast_from_first(value: Kind) -> Kind:
    """The value of rank 0, in every process."""
    if not active():
        return value
    box = [value]
    dist.broadcast_object_list(box)
    return box[0]


def run_on_first(work: Callable[[], Kind]) -> Kind:
    """Run the function in rank 0 only; its result is returned, or its error raised, in every process."""
    found: Kind | None = None
    error: Exception | None = None
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
    return cast(Kind, found)  # None only where that is the result


PLAIN = (OSError, ValueError, FileNotFoundError, RuntimeError)
"""Error types that can be rebuilt from their message."""


def echoed(error: Exception) -> Exception:
    """Mark an error that every rank raises, so that only rank 0 prints it."""
    if rank() > 0:
        error.echo = True  # type: ignore[attr-defined]
    return error


def gathered(rows: Kind) -> list[Kind]:
    """In rank 0, the values of all processes in the order of ranks; elsewhere an empty list."""
    if not active():
        return [rows]
    parts: list[Any] | None = [None] * world_size() if rank() == 0 else None
    dist.gather_object(rows, parts)
    return parts or []


class _GatherRows(torch.autograd.Function):
    """The rows of all processes; the gradient of a row is the sum of its gradients over processes."""

    @staticmethod
    def forward(context: Any, value: Tensor) -> Tensor:
        value = value.contiguous()
        whole = value.new_empty(world_size() * len(value), *value.shape[1:])
        dist.all_gather(list(whole.chunk(world_size())), value)
        return whole

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        gradient = gradient.contiguous().clone()
        dist.all_reduce(gradient)
        return local_rows(gradient)


class _Sum(torch.autograd.Function):
    """Sum over all processes; its gradient is the sum of the gradients over processes."""

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


def data_parallel(module: nn.Module, *, same_graph: bool = False) -> nn.parallel.DistributedDataParallel:
    """The module wrapped so that gradients are averaged over processes, in the buffers of their communication. Buffers
    of the module are equal on all ranks and not broadcast; newer versions of torch have another name for that option
    and warn about the old one.

    same_graph: every backward pass uses the same weights and averages their gradients.
    """
    import inspect

    kind = nn.parallel.DistributedDataParallel
    known = inspect.signature(kind.__init__).parameters
    name = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
    options: dict[str, Any] = {name: False}
    return kind(module, gradient_as_bucket_view=True, static_graph=same_graph, **options)
