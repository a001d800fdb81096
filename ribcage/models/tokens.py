"""Tokens: a vision transformer run on masked patches, or on some of the patches only.

The steps are those of timm's `forward_features`, so that a model without masks has the features of `Backbone`. Crops of
several sizes are possible after `Backbone.accept_any_size`, which interpolates the position embeddings.
"""

from typing import Any

import torch
from timm.layers import PatchEmbed
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from ribcage.models.backbone import Backbone
from ribcage.models.layers import choose_attention
from ribcage.models.mask_decoder import rows


def check_patch_transformer(backbone: Backbone, method: str) -> None:
    """Raise unless the model is a vision transformer of timm whose patches can be masked for this method."""
    model = backbone.model
    if not isinstance(model, VisionTransformer | Eva) or type(model.patch_embed) is not PatchEmbed:
        raise ValueError(
            f"{method} needs a vision transformer, such as vit_small_patch16_224, but --model is {backbone.name}."
        )
    if model.attn_pool is not None:
        raise ValueError(
            f"{method} does not train the attention pooling of {backbone.name}. Use --pool token or --pool avg."
        )


def patch_grid(backbone: Backbone, size: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of patches of an image of (height, width) pixels."""
    steps = backbone.model.patch_embed.patch_size
    if any(side % step for side, step in zip(size, steps, strict=True)):
        raise ValueError(
            f"--size must be a multiple of the patch size of {backbone.name}, {steps[0]} × {steps[1]} pixels, but is "
            f"{size[0]} × {size[1]}."
        )
    return size[0] // steps[0], size[1] // steps[1]


def token_features(
    backbone: Backbone,
    images: Tensor,
    *,
    masked: Tensor | None = None,
    mask_token: Tensor | None = None,
    visible: Tensor | None = None,
) -> Tensor:
    """(N, prefix + L, dim): all tokens of images (N, C, H, W), as `Backbone.hidden` returns them, the prefix (class
    token and registers) first.

    masked: (N, L), True for patches whose embeddings are replaced by `mask_token` (dim,); positions are added after it.
    visible: (N, K), the patches that are passed through the model, without all others; K takes the place of L.
    """
    model = backbone.model
    patches = model.patch_embed(backbone.shown(images))  # (N, L, dim) or, for any size, (N, h, w, dim)
    if masked is not None:
        assert mask_token is not None, "masked patches need a mask token"
        patches = torch.where(masked.view(*patches.shape[:-1], 1), mask_token.to(patches), patches)
    tokens, rope = _placed(model, patches)
    if visible is not None:
        prefix = model.num_prefix_tokens
        tokens = torch.cat([tokens[:, :prefix], rows(tokens[:, prefix:], visible)], dim=1)
        rope = None if rope is None else _turns_of(rope, visible)
    choose_attention(model, tokens.shape[1], tokens.device)
    tokens = model.norm_pre(tokens)
    for number, block in enumerate(model.blocks):
        tokens = block(tokens) if rope is None else block(tokens, rope=rope[number] if _is_mixed(model) else rope)
    return model.norm(tokens)


def patch_features(backbone: Backbone, tokens: Tensor) -> Tensor:
    """(N, prefix + L, dim) of `token_features` → (N, L, dim): the normalised features of the patches."""
    model = backbone.model
    # if features are the mean over patches, timm puts the last norm after pooling
    return model.fc_norm(tokens[:, model.num_prefix_tokens :])


def _placed(model: Any, patches: Tensor) -> tuple[Tensor, Tensor | None]:
    """Tokens with class token, registers and position embeddings, and the rotary embeddings, if the model has any."""
    placed = model._pos_embed(patches)
    return placed if isinstance(placed, tuple) else (placed, None)


def _is_mixed(model: Any) -> bool:
    """Whether each block has rotary embeddings of its own."""
    return bool(getattr(model, "rope_mixed", False))


def _turns_of(rope: Tensor, visible: Tensor) -> Tensor:
    """(L, d) → (N, 1, K, d): the rotary embeddings of these patches; the 1 stands for all heads."""
    if rope.ndim != 2:
        raise ValueError("Rotary embeddings that differ between blocks cannot be limited to some of the patches.")
    return rope[visible].unsqueeze(1)
