"""Recomputation: the activations inside the blocks of a network are computed again in the backward pass, not stored.

Chen et al. 2016, https://arxiv.org/abs/1604.06174. A step needs memory for the input of each block and for the
activations of a single block, and one more forward pass. Loss, gradients and running statistics are those of a step
without it; with timm's `set_grad_checkpointing`, batch norms would count each batch twice.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from torch import nn
from torch.utils.checkpoint import checkpoint

CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


def recompute_blocks(model: nn.Module) -> int:
    """Let each block of the model be recomputed; the number of blocks. Names of weights stay."""
    found = list(blocks(model))
    for block in found:
        setattr(block, "forward", _Recomputed(block))  # noqa: B010 – a method of this one object only
    return len(found)


def blocks(model: nn.Module) -> Iterator[nn.Module]:
    """The elements of the innermost lists of modules of one class that have layers inside: residual blocks, dense
    layers, blocks of a transformer."""
    for part in model.children():
        inside = list(blocks(part))
        if inside or not isinstance(part, CONTAINERS):
            yield from inside
            continue
        elements = list(part.children())
        if len({type(element) for element in elements}) == 1 and all(any(element.children()) for element in elements):
            yield from elements


class _Recomputed:
    """Forward pass of a block whose activations are recomputed."""

    def __init__(self, block: nn.Module) -> None:
        self.block, self.plain = block, block.forward

    def __call__(self, *values: Any, **more: Any) -> Any:
        values = tuple(list(one) if isinstance(one, list) else one for one in values)  # DenseNet extends its list
        return checkpoint(self.plain, *values, use_reentrant=False, context_fn=self._contexts, **more)

    def _contexts(self) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        """Of the first and of the second forward pass."""
        return nullcontext(), untracked(self.block)


@contextmanager
def untracked(module: nn.Module) -> Iterator[None]:
    """Within the block, batch norms update copies of their running statistics, which are then dropped."""
    norms: list[Any] = [norm for norm in module.modules() if isinstance(norm, nn.modules.batchnorm._BatchNorm)]
    before = [dict(norm._buffers) for norm in norms]
    for norm in norms:
        norm.recomputed = True
        norm._buffers.update({name: value.clone() for name, value in norm._buffers.items() if value is not None})
    try:
        yield
    finally:
        for norm, buffers in zip(norms, before, strict=True):
            norm.recomputed = False
            norm._buffers.update(buffers)
