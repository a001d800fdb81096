"""Gradient caching: the gradient of a loss between all images of a batch, with the memory that a micro-batch needs.

Gao et al. 2021, https://arxiv.org/abs/2101.06983, section 3. The loss L depends on the weights w of the network only
through the representations z_k of the micro-batches. One step therefore consists of three parts:

1. The representations of all micro-batches are computed without a graph.
2. L and its gradients g_k = dL/dz_k are computed from all representations.
3. For each micro-batch, z_k is computed again, with a graph, and the gradient of sum(g_k z_k) is added to those of the
   weights: dL/dw = sum_k g_k dz_k/dw.

The random numbers of both forward passes of a micro-batch are the same, and buffers, such as the running statistics of
batch norms, are updated by the first one only.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

from ribcage.data.batch import Batch
from ribcage.methods.base import ContrastiveMethod, Step


class Representations(nn.Module):
    """The network of a contrastive method: batch → representations."""

    def __init__(self, method: ContrastiveMethod) -> None:
        super().__init__()
        self.method = method

    def forward(self, batch: Batch) -> Tensor:
        """(n, …), with one row for each image."""
        return self.method.representations(batch)


def backward(
    method: ContrastiveMethod,
    network: Callable[[Batch], Tensor],
    batch: Batch,
    parts: Sequence[Batch],
    *,
    seed: Sequence[int],
    precision: Callable[[], AbstractContextManager[object]],
    averaged: Callable[[bool], AbstractContextManager[None]],
    scale: float | Tensor = 1.0,
) -> Step:
    """Add the gradient of the batch to the weights' gradients, which must be None before; the loss of the batch.

    Args:
        network: computes the representations of one of the `parts` of the batch.
        precision: context of a forward pass.
        averaged: context of a backward pass, given whether gradients are averaged over the processes after it.
        scale: factor of the gradient.
    """

    def represented(number: int) -> Tensor:
        torch.manual_seed(hash((*seed, number)))
        with precision():
            return network(parts[number])

    with torch.no_grad():
        z = torch.cat([represented(number) for number in range(len(parts))]).requires_grad_()
    with precision():
        step = method.loss_of(z, batch)
    (step.loss * scale).backward()
    assert z.grad is not None
    own = [weight for weight in method.parameters() if weight.grad is not None]
    buffers = {buffer: buffer.clone() for buffer in method.buffers()}
    for number, gradient in enumerate(z.grad.split([len(part) for part in parts])):
        last = number == len(parts) - 1
        with averaged(last):
            product = (represented(number) * gradient).sum()
            if last:  # weights of the loss itself: DistributedDataParallel waits for a gradient of every weight
                product = product + sum(0.0 * weight.sum() for weight in own)
            product.backward()
    with torch.no_grad():
        for buffer, value in buffers.items():
            buffer.copy_(value)
    return step
