"""Prototypes: assignments of features to clusters, by the head of DINO and by the Sinkhorn-Knopp algorithm."""

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 – the usual name

from ribcage.runtime import distributed


class PrototypeHead(nn.Module):
    """The projection head of DINO (Caron et al. 2021, appendix C): a perceptron of three layers with GELU, whose output
    is normalised and compared with prototypes of length 1."""

    def __init__(self, inputs: int, hidden: int, dim: int, prototypes: int) -> None:
        super().__init__()
        widths = (inputs, hidden, hidden, dim)
        layers = [nn.Linear(*pair) for pair in itertools.pairwise(widths)]
        for layer in layers:
            nn.init.trunc_normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)
        self.mlp = nn.Sequential(layers[0], nn.GELU(), layers[1], nn.GELU(), layers[2])
        self.prototypes = nn.Linear(dim, prototypes, bias=False)

    def forward(self, features: Tensor, frozen: Tensor | None = None) -> Tensor:
        """(…, inputs) → (…, prototypes): cosines, in single precision. frozen: 1 where the prototypes get no
        gradient."""
        weight = self.prototypes.weight
        if frozen is not None:
            weight = torch.where(frozen > 0, weight.detach(), weight)
        z = F.normalize(self.mlp(features).float(), dim=-1)
        return F.linear(z, F.normalize(weight.float(), dim=1)).float()


def sinkhorn(scores: Tensor, epsilon: float | Tensor, iterations: int, counted: Tensor | None = None) -> Tensor:
    """(n, K) in -1 … 1, with the rows of all processes → (n, K): rows sum to 1, columns to about the same.

    counted: (n,), 1 for rows that are assigned and 0 for others, whose result is 0; None: all are.

    Only the factors r and c of q_ik = r_i exp(score_ik / epsilon) c_k change in an iteration: nothing of the size of q
    is computed before the end.
    """
    with torch.autocast(scores.device.type, enabled=False):
        e = ((scores - 1) / epsilon).exp()  # the subtraction cancels out and prevents overflow
        rows = e.new_ones(len(e)) if counted is None else counted
        r = rows
        for _ in range(iterations):
            c = 1 / distributed.total(r @ e)
            c = c / c.sum()  # r makes up for it; without it, both would leave the range of float32
            r = rows / (e @ c)
        return r[:, None] * e * c


def cross_entropy(p: Tensor, s: Tensor) -> Tensor:
    """(…, U, K) and (…, V, K) → (…, U, V): -p_u.log softmax(s_v) for p that sum to 1, as logsumexp(s_v) - p_u.s_v."""
    with torch.autocast(s.device.type, enabled=False):
        return s.logsumexp(-1)[..., None, :] - p @ s.mT


def prototypes_used(scores: Tensor) -> Tensor:
    """Effective number of prototypes nearest to an image of the global batch, as exp(entropy): 1 on collapse."""
    nearest = scores.argmax(-1).flatten()
    counts = scores.new_zeros(scores.shape[-1]).index_add_(0, nearest, scores.new_ones(len(nearest)))
    share = distributed.total(counts)
    return torch.special.entr(share / share.sum()).sum().exp()
