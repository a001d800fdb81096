"""Multi-crop: views of an image in two sizes, of which the small ones show parts of it.

Caron et al. 2020, "SwAV", https://arxiv.org/abs/2006.09882, section 3.3.
"""

import itertools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ribcage.models.backbone import Backbone

RATIO = 96 / 224
"""Side of a small view relative to that of a large one, as published."""


def crop_multiple(backbone: Backbone) -> int:
    """The divisor of sides of small views; 0 where the model accepts one size only. Position embeddings of a vision
    transformer are made to adapt to the image size."""
    backbone.accept_any_size()
    return 0 if backbone.has_one_size else int(backbone.model.feature_info[-1]["reduction"])


def small_size(size: tuple[int, int], multiple: int, side: int = 0) -> tuple[int, int]:
    """(height, width) of small views for large ones of this size, as a multiple of `multiple`; the same size if that
    is 0. side: the height of small views; 0: as published."""
    if not multiple:
        return size
    ratio = side / size[0] if side else RATIO
    height, width = (min(one, max(1, round(one * ratio / multiple)) * multiple) for one in size)
    return height, width


def by_size(views: Sequence[Tensor], network: Callable[[Tensor], Tensor]) -> Tensor:
    """(V · n, …): the network's outputs for V views of n images, in the order of the views; those of one size are
    passed through it together."""
    groups = itertools.groupby(views, key=lambda view: view.shape[2:])
    return torch.cat([network(torch.cat(list(group))) for _, group in groups])


def by_image(outputs: Tensor, views: int) -> Tensor:
    """(V · n, …) of `by_size` → (n, V, …)."""
    return outputs.unflatten(0, (views, -1)).transpose(0, 1)


def different_crops(values: Tensor) -> Tensor:
    """(n, U, V), a value for each of U large crops and V crops, of which the first U are the large ones → (n,): the
    mean over pairs of different crops."""
    large, crops = values.shape[1:]
    same = torch.eye(large, crops, device=values.device)
    return (values * (1 - same)).sum((1, 2)) / (large * (crops - 1))
