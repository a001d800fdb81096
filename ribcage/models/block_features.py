"""Block features: features of the last blocks of a backbone side by side, pooled or by place.

DINOv2's linear evaluation concatenates those of the last four blocks (Oquab et al. 2023,
https://arxiv.org/abs/2304.07193). The blocks of a CNN are its stages; their maps are averaged to the grid of the last.
"""

import inspect
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 – the usual name

from ribcage.models.backbone import Backbone

BLOCK_POOLS = ("", "avg", "token", "query")
"""The pooling methods that several blocks can have."""


def block_features(backbone: Backbone, images: Tensor, blocks: int = 1) -> Tensor:
    """(N, features) of the last blocks, the last one last, or (N, places, features) with query pooling; one block has
    the features of the backbone itself."""
    if blocks == 1:
        return backbone.head_input(backbone.hidden(images))
    maps, prefixes = _outputs(backbone, images, blocks)
    if backbone.pools_by_query:
        grid = (maps[-1].shape[2], maps[-1].shape[3])
        maps = [one if tuple(one.shape[2:]) == grid else F.adaptive_avg_pool2d(one, grid) for one in maps]
        return torch.cat(maps, 1).flatten(2).transpose(1, 2)
    if _pools_by_token(backbone):
        return torch.cat([one[:, 0] for one in prefixes], 1)
    return torch.cat([one.mean((2, 3)) for one in maps], 1)


def refuse_blocks(backbone: Backbone, blocks: int) -> None:
    """Raise unless the features of so many blocks can be had."""
    if blocks == 1:
        return
    known = backbone.blocks
    if not 1 <= blocks <= known:
        raise ValueError(f"--layers {blocks}: {backbone.name} has {known} blocks. Use a number from 1 to {known}.")
    if backbone.pool_name not in BLOCK_POOLS:
        raise ValueError(f"--layers {blocks} needs --pool avg, token or query, not {backbone.pool_name}.")
    if not hasattr(backbone.model, "forward_intermediates"):
        raise ValueError(f"--layers {blocks} is not available for {backbone.name}. Leave it out.")
    if _pools_by_token(backbone) and not _takes_norm(backbone.model):
        raise ValueError(f"--layers {blocks} needs --pool avg or query for {backbone.name}, not token.")


def _outputs(backbone: Backbone, images: Tensor, blocks: int) -> tuple[list[Tensor], list[Tensor]]:
    """(N, C, h, w) of each of the last blocks, and (N, prefix tokens, C) of those of a transformer."""
    model: Any = backbone.model
    shown = backbone.shown(images)
    if not _takes_norm(model):
        return model.forward_intermediates(shown, indices=blocks, intermediates_only=True), []
    found = model.forward_intermediates(
        shown, indices=blocks, return_prefix_tokens=True, norm=True, intermediates_only=True, output_fmt="NCHW"
    )
    pairs = [one if isinstance(one, tuple) else (one, None) for one in found]  # some models have no prefix tokens
    norm = getattr(model, "fc_norm", nn.Identity())  # the last norm of a model that averages its tokens
    maps = [norm(one.permute(0, 2, 3, 1)).permute(0, 3, 1, 2) for one, _ in pairs]
    return maps, [norm(one) for _, one in pairs if one is not None]


def _pools_by_token(backbone: Backbone) -> bool:
    return getattr(backbone.model, "global_pool", "") == "token"


def _takes_norm(model: Any) -> bool:
    """Whether it is a transformer whose last norm is applied to the tokens of each block."""
    return "return_prefix_tokens" in inspect.signature(model.forward_intermediates).parameters
