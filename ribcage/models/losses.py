"""Losses for many findings: (N, F) logits and targets in 0 … 1 → (N, F), 0 where the target is NaN."""

from collections.abc import Callable

import torch.nn.functional as F  # noqa: N812 – the usual name
from torch import Tensor

Loss = Callable[[Tensor, Tensor], Tensor]


def known_mask(targets: Tensor) -> Tensor:
    """(N, F): 1 where the target is known, 0 where it is NaN."""
    return (~targets.isnan()).to(targets.dtype)


def bce(logits: Tensor, targets: Tensor) -> Tensor:
    """Binary cross-entropy for each finding: -t log p - (1 - t) log(1 - p)."""
    return F.binary_cross_entropy_with_logits(logits, targets.nan_to_num(), reduction="none") * known_mask(targets)


def focal(logits: Tensor, targets: Tensor, gamma: float = 2.0) -> Tensor:
    """Lin et al. 2017, https://arxiv.org/abs/1708.02002, eq. 4: |t - p|^gamma times the cross-entropy."""
    distance = (targets.nan_to_num() - logits.sigmoid()).abs()
    return distance**gamma * bce(logits, targets)


def asymmetric(
    logits: Tensor, targets: Tensor, positive: float = 0.0, negative: float = 4.0, margin: float = 0.05
) -> Tensor:
    """Ridnik et al. 2021, https://arxiv.org/abs/2009.14119, eq. 6: easy negatives have less weight, the easiest none.

    L = -t (1 - p)^positive log p - (1 - t) q^negative log(1 - q),   q = max(p - margin, 0)
    """
    t, p = targets.nan_to_num(), logits.sigmoid()
    q = (p - margin).clamp(min=0)
    present = t * (1 - p) ** positive * F.logsigmoid(logits)
    absent = (1 - t) * q**negative * ((-logits).sigmoid() + margin).clamp(1e-37, 1).log()  # exact where 1 - q is not
    return -(present + absent) * known_mask(targets)


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """For mutually exclusive findings: softmax over all of them, -sum_f t_f log p_f, distributed over the columns."""
    complete = known_mask(targets).amin(dim=1, keepdim=True)  # a row with an unknown finding is left out
    return -targets.nan_to_num() * logits.log_softmax(dim=1) * complete * logits.shape[1]


def smoothed(targets: Tensor, share: float, towards: float = 0.5) -> Tensor:
    """Label smoothing towards one half: t (1 - share) + share / 2."""
    return targets * (1 - share) + share * towards


def class_weights(positives: Tensor, negatives: Tensor, beta: float = 0.9999) -> tuple[Tensor, Tensor]:
    """Cui et al. 2019, https://arxiv.org/abs/1901.05555, eq. 3: (1 - beta) / (1 - beta^n) for positives and negatives.

    The two weights of a finding are scaled such that its mean weight over all images is 1.
    """
    weights = [(1 - beta) / (1 - beta ** count.double().clamp(min=1)) for count in (positives, negatives)]
    mean = (weights[0] * positives + weights[1] * negatives) / (positives + negatives).clamp(min=1)
    present, absent = ((weight / mean.clamp(min=1e-12)).float() for weight in weights)
    return present, absent


LOSSES: dict[str, Loss] = {"bce": bce, "focal": focal, "asymmetric": asymmetric, "cross-entropy": cross_entropy}
