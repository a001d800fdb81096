"""Memory of the activations of a model, measured for one image."""

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ribcage.bundle.cost.subject import Size
from ribcage.methods.supervised import Supervised


@dataclass(frozen=True)
class Memory:
    """Bytes for one image in float32, without weights and workspaces of kernels."""

    inference: int
    """Peak memory without gradients, the image included."""
    training: int
    """Memory kept for the backward pass, per image of a batch."""


def activation_memory(method: Supervised, channels: int, size: Size) -> Memory:
    """Measure the memory of the activations of one image, on a copy of the model."""
    method = copy.deepcopy(method)
    own = {value.untyped_storage()._cdata for value in (*method.parameters(), *method.buffers())}
    kept = [_kept(method.train(), torch.zeros(count, channels, *size), own) for count in (3, 2)]
    with torch.no_grad(), _Living(own) as living:
        method.eval().logits(torch.zeros(1, channels, *size))
    return Memory(living.most, kept[0] - kept[1])


def _kept(method: Supervised, images: Tensor, own: set[int]) -> int:
    """Bytes that the backward pass needs for a batch; each storage counts once, weights do not count."""
    pieces: dict[int, Any] = {}

    def keep(value: Tensor) -> Tensor:
        storage = value.untyped_storage()
        if storage._cdata not in own:
            pieces[storage._cdata] = storage  # kept alive, so that its address is not reused
        return value

    with saved_tensors_hooks(keep, lambda value: value):
        answers = method.logits(images)
    assert answers.requires_grad
    return sum(storage.nbytes() for storage in pieces.values())


class _Living(TorchDispatchMode):
    """Tracks which results of operations are still alive."""

    def __init__(self, own: set[int]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.own, self.most = own, 0
        self.pieces: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in tree_leaves(result):
            if isinstance(value, Tensor):
                storage = value.untyped_storage()
                self.pieces[storage._cdata] = StorageWeakRef(storage), storage.nbytes()
        self.pieces = {number: piece for number, piece in self.pieces.items() if not piece[0].expired()}
        self.most = max(self.most, sum(size for number, (_, size) in self.pieces.items() if number not in self.own))
        return result
