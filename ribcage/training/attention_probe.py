"""Attention probe: query pooling (`models/query_head.py`) on the frozen features of the places of each image.

    min over q, w, b:   mean_n l(z_n, t_n) + strength / 2 (|q|^2 + |w|^2)         x standardised over images and places

For each strength, the search starts from the logistic regression of the average (w, b) with uniform attention (q = 0).
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 – the usual name
from torch import Tensor

from ribcage.models.query_head import QueryHead
from ribcage.training.logistic import logistic

STRENGTHS = (0.1, 0.01, 0.001, 0.0001)
"""Strongest first; ties are resolved in favour of the first."""
STEPS = 30
"""Maximum number of steps of L-BFGS for each strength."""
BLOCK = 256
"""Images whose places are in memory in float32."""


def attended(
    train: np.ndarray, labels: np.ndarray, others: Sequence[np.ndarray], strengths: Sequence[float] = STRENGTHS
) -> list[tuple[np.ndarray, ...]]:
    """The scores (N, F) of the other images for every strength, from the places (N, T, D) of the training images and
    their labels (N, F), NaN unknown."""
    mean, std = _moments(train)
    average = torch.cat([_standardised(block, mean, std).mean(1) for block in _blocks(train)]).double()
    targets = torch.from_numpy(labels.astype(np.float64))
    found = []
    for (w, b), strength in zip(logistic(average, targets, strengths), strengths, strict=True):
        head = QueryHead(train.shape[2], labels.shape[1])
        with torch.no_grad():
            head.weight.copy_(w.T)
            head.bias.copy_(b)
        _fit(head, train, targets.float(), mean, std, strength)
        found.append(tuple(_scores(head, one, mean, std) for one in others))
    return found


def _fit(head: QueryHead, places: np.ndarray, targets: Tensor, mean: Tensor, std: Tensor, strength: float) -> None:
    """Minimise the loss, block by block of images."""
    known = ~targets.isnan()
    t, share = targets.nan_to_num(), known.float() / known.sum(0).clamp(min=1)
    search = torch.optim.LBFGS(list(head.parameters()), max_iter=STEPS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        search.zero_grad()
        total = strength / 2 * (head.query.square().sum() + head.weight.square().sum())
        total.backward()
        total = total.detach()
        for block, own, weight in zip(_blocks(places), t.split(BLOCK), share.split(BLOCK), strict=True):
            logits = head(_standardised(block, mean, std))
            part = ((F.softplus(logits) - own * logits) * weight).sum()
            part.backward()
            total += part.detach()
        return total

    search.step(loss)


@torch.no_grad()
def _scores(head: QueryHead, places: np.ndarray, mean: Tensor, std: Tensor) -> np.ndarray:
    return torch.cat([head(_standardised(block, mean, std)) for block in _blocks(places)]).double().numpy()


def _blocks(places: np.ndarray) -> list[np.ndarray]:
    return [places[at : at + BLOCK] for at in range(0, len(places), BLOCK)]


def _standardised(block: np.ndarray, mean: Tensor, std: Tensor) -> Tensor:
    return (torch.from_numpy(block.astype(np.float32)) - mean) / std


def _moments(places: np.ndarray) -> tuple[Tensor, Tensor]:
    """(D,) mean and standard deviation over all images and places."""
    count = places.shape[0] * places.shape[1]
    total = sum(block.sum((0, 1), dtype=np.float64) for block in _blocks(places))
    mean = total / count
    squares = sum(((block.astype(np.float64) - mean) ** 2).sum((0, 1)) for block in _blocks(places))
    std = np.sqrt(squares / count)
    std[std < 1e-12] = 1
    return torch.from_numpy(mean).float(), torch.from_numpy(std).float()
