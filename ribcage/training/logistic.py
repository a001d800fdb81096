"""Logistic regression, one per finding, for several strengths of the regularisation:

min_w  mean_n l(w.x_n + b, t_n) + strength / 2 |w|^2
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812 – the usual name
from torch import Tensor


def logistic(x: Tensor, targets: Tensor, strengths: Sequence[float]) -> list[tuple[Tensor, Tensor]]:
    """Weights (D, F) and biases (F,) for every strength, strongest first; x (N, D) and targets (N, F) in float64.

    Solved along the principal axes of x, each scaled by about its curvature: the problem is then well conditioned and
    L-BFGS converges in a few dozen steps.
    """
    curvature, axes = torch.linalg.eigh(x.T @ x / len(x))
    spanned = curvature > 1e-10 * curvature.max().clamp(min=1e-300)  # weights stay in the span of the images
    curvature, axes = curvature[spanned], axes[:, spanned]
    z, known = x @ axes, ~targets.isnan()
    t, share = targets.nan_to_num(), known.double() / known.sum(0).clamp(min=1)
    w = torch.zeros(z.shape[1], targets.shape[1], dtype=torch.float64)
    b = torch.logit((t * share).sum(0), eps=1e-3)
    fitted = []
    for strength in strengths:  # warm start: from the solution for the next stronger one
        w, b = _minimum(z, t, share, w, b, strength, (curvature / 4 + strength).rsqrt()[:, None])
        fitted.append((axes @ w, b))
    return fitted


def _minimum(
    z: Tensor, t: Tensor, share: Tensor, w: Tensor, b: Tensor, strength: float, scale: Tensor
) -> tuple[Tensor, Tensor]:
    """Weights and biases with the minimum loss."""
    u, b = (w / scale).requires_grad_(), b.clone().requires_grad_()
    search = torch.optim.LBFGS(
        [u, b], max_iter=200, tolerance_grad=1e-7, tolerance_change=1e-13, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        search.zero_grad()
        logits = z @ (scale * u) + b
        value = ((F.softplus(logits) - t * logits) * share).sum() + strength / 2 * (scale * u).square().sum()
        value.backward()
        return value

    search.step(loss)
    return (scale * u).detach(), b.detach()
