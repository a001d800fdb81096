"""Query pooling: each finding attends to the places of the feature map with a query of its own.

With x_t the D features of place t (a patch or a cell of a CNN's last map), and q_f, w_f, b_f learnt for finding f:

    a_ft = softmax over t of  q_f . x_t / sqrt(D)             z_f = w_f . sum_t a_ft x_t + b_f

One query per finding, as in GLoRI (CheXFound, Yang et al. 2025, https://arxiv.org/abs/2502.05142), but without its
projections of keys and values: with a single head they are contained in q_f and w_f. The queries start at zero, where
the attention is uniform and the head is a linear classifier of the average.
"""

import math

import torch
from torch import Tensor, nn

POOL = "query"
"""The name of this pooling among those of `Backbone`."""


class QueryHead(nn.Module):
    """Attention pooling and a logit for each finding: (N, T, D) → (N, F)."""

    def __init__(self, dim: int, findings: int) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.zeros(findings, dim))
        self.weight = nn.Parameter(torch.empty(findings, dim))
        self.bias = nn.Parameter(torch.zeros(findings))
        nn.init.normal_(self.weight, std=0.01)

    def attention(self, places: Tensor) -> Tensor:
        """(N, F, T): the share of each place, 1 in total."""
        return (self.query @ places.transpose(1, 2) / math.sqrt(places.shape[2])).softmax(2)

    def forward(self, places: Tensor) -> Tensor:
        """(N, F)"""
        evidence = self.weight @ places.transpose(1, 2)  # (N, F, T)
        return (self.attention(places) * evidence).sum(2) + self.bias
