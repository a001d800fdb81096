"""Sharding: weights, gradients and optimizer states are divided among the processes (FSDP2).

Zhao et al. 2023, https://arxiv.org/abs/2304.11277; `torch.distributed.fsdp.fully_shard`. Each process holds a part of
every weight. The weights of a block are gathered for its forward and its backward pass only. Everything else that the
trainer computes from weights and gradients is computed from the own parts.
"""

import copy
import math
from collections.abc import Mapping
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ribcage.methods import Method
from ribcage.models.recomputation import blocks
from ribcage.runtime import distributed
from ribcage.runtime.distributed import is_divided, own_part
from ribcage.runtime.synchronised_norms import has_batch_norms, synchronise_norms
from ribcage.training.shards import SavedTensor, rows, whole

Network = TypeVar("Network", bound=Method)


def refuse_unsharded(method: Method, name: str, *, compile: bool) -> None:
    """Raise where --shard is not supported."""
    if compile:
        raise ValueError("--shard and --compile cannot be combined. Leave out one of them.")
    if not method.shardable:
        raise ValueError(
            f"--shard is not supported, because it has not been tested with {type(method).__name__}. Leave the option "
            f"out."
        )
    if not any(True for _ in blocks(method)) or has_batch_norms(method.backbone):
        raise ValueError(
            f"--shard supports only transformers without batch normalisation, not {name}. Leave the option out."
        )


def sharded(method: Network, device: torch.device) -> Network:
    """Divide a method among the processes, each block and the rest; returns a whole copy of it."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    method.to(memory_format=torch.contiguous_format)
    complete = copy.deepcopy(method).requires_grad_(False)
    if not method.own_norms:  # before the weights are divided: on a GPU, other modules take the place of the norms
        synchronise_norms(method, device)
    mesh = init_device_mesh(device.type, (distributed.world_size(),))
    for block in blocks(method):
        fully_shard(block, mesh=mesh)
    fully_shard(method, mesh=mesh)
    return complete


def gather_for(method: Method, name: str) -> None:
    """Let a function of a divided method gather weights as its `forward` does, in place of it."""
    from torch.distributed.fsdp import register_fsdp_forward_method

    register_fsdp_forward_method(method, name)


def is_sharded(module: nn.Module) -> bool:
    """Whether a module is divided among the processes."""
    return any(is_divided(weight) for weight in module.parameters())


def total_norm(parts: list[Tensor]) -> Tensor:
    """The norm of tensors of which each process has a part."""
    return distributed.total(nn.utils.get_total_norm(parts).square()).sqrt()


def split(values: Mapping[str, object]) -> tuple[dict[str, object], dict[str, Tensor]]:
    """Nested dicts without the tensors that are divided; and these by their paths, such as run/method/head.weight."""
    found: dict[str, Tensor] = {}

    def rest(inside: Mapping[Any, object], path: str) -> dict[Any, object]:
        left: dict[Any, object] = {}
        for key, value in inside.items():
            if is_divided(value):
                found[f"{path}{key}"] = cast(Tensor, value)
            else:
                left[key] = rest(value, f"{path}{key}/") if isinstance(value, dict) else value
        return left

    return rest(values, ""), found


@torch.no_grad()
def fill_whole(complete: nn.Module, module: nn.Module) -> None:
    """Copy the weights and buffers of a divided module to a whole one. All processes must call it."""
    for target, value in zip(complete.state_dict().values(), module.state_dict().values(), strict=True):
        target.copy_(value.full_tensor() if is_divided(value) else value)


@torch.no_grad()
def load_weights(
    module: nn.Module, values: Mapping[str, Tensor | SavedTensor], frozen: frozenset[str] = frozenset()
) -> None:
    """Restore a module from whole weights or weights in files, of which a divided one takes its parts. Frozen weights
    may be missing."""
    own = module.state_dict()
    kept = {name: own.pop(name) for name in frozen - values.keys()}
    if not is_sharded(module):
        module.load_state_dict(kept | {name: whole(value) for name, value in values.items()})
        return
    if own.keys() != values.keys():
        raise KeyError(f"the weight {next(iter(own.keys() ^ values.keys()))} is missing or unexpected")
    for name, target in own.items():
        if target.shape != values[name].shape:
            raise ValueError(f"the weight {name} has shape {tuple(values[name].shape)}, not {tuple(target.shape)}")
        own_part(target).copy_(_part_like(values[name], target))


def divided_states(optimizer: torch.optim.Optimizer, values: dict[str, object]) -> dict[str, object]:
    """States of an optimizer, whole or in files, divided as its weights are."""
    from torch.distributed.tensor import DTensor

    weights = [weight for group in optimizer.param_groups for weight in group["params"]]

    def divided(value: object, weight: Any) -> object:
        if not isinstance(value, Tensor | SavedTensor):
            return value
        if not is_divided(weight) or value.shape != weight.shape:
            return whole(value)
        part = _part_like(value, weight).to(weight.device).clone()
        return DTensor.from_local(
            part, weight.device_mesh, weight.placements, run_check=False, shape=weight.shape, stride=weight.stride()
        )

    states = {
        number: {name: divided(value, weights[number]) for name, value in state.items()}
        for number, state in cast(Any, values["state"]).items()
    }
    return {**values, "state": states}


def _part_like(value: Tensor | SavedTensor, divided: Tensor) -> Tensor:
    """The part of a whole tensor that this process has of a divided one: rows, as torch.chunk splits them."""
    if not is_divided(divided):
        return whole(value)
    count, each = value.shape[0], math.ceil(value.shape[0] / dist.get_world_size())
    start = min(dist.get_rank() * each, count)
    return rows(value, start, min(start + each, count))
