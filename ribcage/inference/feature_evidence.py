"""Evidence: the features of a classifier on a spatial grid, and the gradients of its logits with respect to them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ribcage.inference.map_cells import grid_of, height_width
from ribcage.methods.supervised import Supervised
from ribcage.models.backbone import Backbone, Hidden
from ribcage.models.ensemble import Ensemble, side_by_side
from ribcage.models.logit_model import LogitModel

PREFIX = 16
"""Maximum number of tokens without a position in the image (class, distillation and register tokens)."""


@dataclass(frozen=True)
class Evidence:
    """Features, and the gradients of all logits with respect to them."""

    features: Tensor
    """(N, C, h, w)"""
    gradients: Tensor
    """(F, N, C, h, w)"""
    logits: Tensor
    """(N, F)"""


def pooled_evidence(method: Supervised, images: Tensor) -> Evidence | None:
    """From the features before pooling; None if these are not on a grid or the logits do not depend on them."""
    with torch.no_grad():
        hidden = method.backbone.hidden(images)
    if isinstance(method.backbone, Ensemble):
        return _evidence_of_members(method, method.backbone, hidden, height_width(images))
    if not isinstance(hidden, Tensor):
        return None
    leaf = hidden.detach().requires_grad_()
    logits = method.head(method.backbone.head_input(leaf.clone()))  # a clone: some models pool in place
    found = _owed(method, leaf, logits, height_width(images))
    return found if found and found.gradients.any() else None


def _evidence_of_members(
    method: Supervised, ensemble: Ensemble, hidden: Hidden, size: tuple[int, int]
) -> Evidence | None:
    """The evidence of all members of an ensemble, side by side on the finest grid. A gradient for each cell is divided
    among the cells of a finer grid, so that members count as much as they contribute to the logits."""
    if not all(isinstance(one, Tensor) for one in hidden):
        return None
    leaves = [one.detach().requires_grad_() for one in hidden]
    logits = method.head(ensemble.pool(tuple(leaf.clone() for leaf in leaves)))
    found = [_owed(method, leaf, logits, size, member) for leaf, member in zip(leaves, ensemble.backbones, strict=True)]
    known = [one for one in found if one]
    if len(known) < len(found) or not all(one.gradients.any() for one in known):
        return None
    cells = [one.features.shape[2] * one.features.shape[3] for one in known]
    gradients = [one.gradients * count / max(cells) for one, count in zip(known, cells, strict=True)]
    return Evidence(side_by_side([one.features for one in known]), side_by_side(gradients), logits.detach())


class NoFeatureMapsError(ValueError):
    """A model has no features on a grid from which a saliency map could be computed."""


def _refuse_ensemble(backbone: Backbone) -> None:
    """Raise for an ensemble, whose members have features of their own in each block."""
    if isinstance(backbone, Ensemble):
        raise NoFeatureMapsError(
            f"Grad-CAM is not available for the {backbone.name}, because one of the models does not pool a grid of "
            "features, or because an earlier layer was requested. Pass --map-method occlusion."
        )


def gathered_evidence(method: Supervised, images: Tensor) -> Evidence:
    """From the last features on a grid, among the outputs of all blocks, that the logits depend on."""
    _refuse_ensemble(method.backbone)
    with _given_on(method.backbone) as given:
        logits = method.head(method.backbone.head_input(method.backbone.hidden(images.requires_grad_())))
    found = None
    for features in reversed(given):
        found = _owed(method, features, logits, height_width(images)) or found
        if found and found.gradients.any():
            break
    if found is None:
        raise NoFeatureMapsError(
            f"{method.backbone.name} has no features on a spatial grid, so no saliency map can be computed."
        )
    return found


def earlier_evidence(method: Supervised, images: Tensor, layer: int) -> Evidence:
    """From the last features on the chosen finer grid that the logits depend on."""
    _refuse_ensemble(method.backbone)
    size = height_width(images)
    with _given_on(method.backbone) as given:
        logits = method.head(method.backbone.head_input(method.backbone.hidden(images.requires_grad_())))
    last = grid_of(method.backbone, size)
    by_grid: dict[tuple[int, int], list[Tensor]] = {}
    for features in given:
        placed = _placing(method.backbone, features, size)
        grid = height_width(placed(features)) if placed else (0, 0)
        if grid[0] >= last[0] and grid[1] >= last[1]:
            by_grid.setdefault(grid, []).append(features)
    grids = sorted(by_grid)
    if layer >= len(grids):
        named = ", ".join(f"{place}: {high} × {wide}" for place, (high, wide) in enumerate(grids))
        raise ValueError(
            f"{method.backbone.name} has no layer {layer} for images of {size[0]} × {size[1]} px. Its layers, "
            f"with the sizes of their maps, are {named}."
        )
    for features in reversed(by_grid[grids[layer]]):
        found = _owed(method, features, logits, size)
        if found and found.gradients.any():
            return found
    raise ValueError(
        f"The output of {method.backbone.name} does not depend on the features of layer {layer}. Choose another "
        f"--map-layer."
    )


def logit_of_each(method: LogitModel, logits: Tensor) -> Tensor:
    """(N, F) what a map explains: each logit or, for exclusive findings, the log-odds against the others."""
    return _against_others(logits) if method.exclusive else logits


def _owed(
    method: Supervised, features: Tensor, logits: Tensor, size: tuple[int, int], member: Backbone | None = None
) -> Evidence | None:
    """Gradients of the logits with respect to features; None if these are not on a grid or computed after the logits.

    member: the backbone of the features, if it is part of an ensemble.
    """
    placed = _placing(member or method.backbone, features, size)
    if placed is None:
        return None
    targets = logit_of_each(method, logits)
    count = targets.shape[1]
    each = torch.eye(count, device=targets.device, dtype=targets.dtype)[:, None].expand(count, *targets.shape)
    (found,) = torch.autograd.grad(targets, features, each, is_grads_batched=True, retain_graph=True, allow_unused=True)
    if found is None:
        return None
    gradients = placed(found.flatten(0, 1)).unflatten(0, (count, -1))
    return Evidence(placed(features.detach()), gradients, logits.detach())


def _against_others(logits: Tensor) -> Tensor:
    """(N, F): log-odds of each of the exclusive findings, z_f - log sum of exp z of the others."""
    own = torch.eye(logits.shape[1], dtype=torch.bool, device=logits.device)
    others = logits.float()[:, None].expand(-1, logits.shape[1], -1).masked_fill(own, -torch.inf)
    return logits.float() - others.logsumexp(2)


def _placing(backbone: Backbone, features: Tensor, size: tuple[int, int]) -> Callable[[Tensor], Tensor] | None:
    """A function that puts features or their gradients on their grid (N, C, h, w); None if they have none."""
    height, width = grid = grid_of(backbone, size)
    if features.ndim == 4:
        format = getattr(backbone.model, "output_fmt", "NHWC" if features.shape[1:3] == grid else "NCHW")
        return (lambda x: x.permute(0, 3, 1, 2)) if format == "NHWC" else (lambda x: x)
    prefix = features.shape[1] - height * width if features.ndim == 3 else -1
    if not 0 <= prefix <= PREFIX:
        return None
    return lambda x: x[:, prefix:].transpose(1, 2).unflatten(2, grid)


@contextmanager
def _given_on(backbone: Backbone) -> Iterator[list[Tensor]]:
    """Context manager: a list that collects the outputs of all members of `nn.Sequential` and `nn.ModuleList`, in
    order."""
    given: list[Tensor] = []

    def note(module: nn.Module, inputs: Any, output: Any) -> None:
        several = output if isinstance(output, tuple | list) else (output,)
        given.extend(one for one in several if isinstance(one, Tensor) and one.requires_grad)

    sequences = (each for each in backbone.modules() if isinstance(each, nn.ModuleList | nn.Sequential))
    handles = [member.register_forward_hook(note) for sequence in sequences for member in sequence]
    try:
        yield given
    finally:
        for handle in handles:
            handle.remove()
