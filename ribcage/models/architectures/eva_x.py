"""EVA-X: vision transformers of EVA-02 with 16 × 16 patches, as pretrained on chest radiographs.

Gated layers (SwiGLU), rotary and learned position embeddings; the features are the normalised average of the patches.
The rotary embeddings are scaled so that every image has 14 steps per side, as at 224 px. The ViT-B that was fine-tuned
by the authors has 16 steps instead.

Yao et al. 2024, https://arxiv.org/abs/2405.05237; Fang et al. 2023, https://arxiv.org/abs/2303.11331
"""

from typing import Any

from timm.models import generate_default_cfgs, register_model
from timm.models.eva import Eva, checkpoint_filter_fn

from ribcage.models.architectures.vit import VIT_FACTS, build_transformer

FACTS = VIT_FACTS | {"mean": (0.49185243,) * 3, "std": (0.28509309,) * 3}
NAMES = ("eva_x_tiny_patch16", "eva_x_small_patch16", "eva_x_base_patch16", "eva_x_base_patch16_rope16")
default_cfgs = generate_default_cfgs(dict.fromkeys(NAMES, FACTS))
OPTIONS: dict[str, Any] = {
    "patch_size": 16,
    "depth": 12,
    "mlp_ratio": 4 * 2 / 3,
    "swiglu_mlp": True,
    "use_rot_pos_emb": True,
    "ref_feat_shape": (14, 14),
}
BASE: dict[str, Any] = {"embed_dim": 768, "num_heads": 12, "qkv_fused": False, "scale_mlp": True}
"""ViT-B normalises inside its gated layers, and has separate queries, keys and values."""


def _built(name: str, pretrained: bool, options: dict[str, Any]) -> Eva:
    return build_transformer(Eva, checkpoint_filter_fn, name, pretrained, OPTIONS | options)


@register_model
def eva_x_tiny_patch16(pretrained: bool = False, **options: Any) -> Eva:
    """ViT-Ti."""
    return _built("eva_x_tiny_patch16", pretrained, {"embed_dim": 192, "num_heads": 3, **options})


@register_model
def eva_x_small_patch16(pretrained: bool = False, **options: Any) -> Eva:
    """ViT-S."""
    return _built("eva_x_small_patch16", pretrained, {"embed_dim": 384, "num_heads": 6, **options})


@register_model
def eva_x_base_patch16(pretrained: bool = False, **options: Any) -> Eva:
    """ViT-B."""
    return _built("eva_x_base_patch16", pretrained, {**BASE, **options})


@register_model
def eva_x_base_patch16_rope16(pretrained: bool = False, **options: Any) -> Eva:
    """ViT-B whose rotary embeddings have 16 steps per side."""
    return _built("eva_x_base_patch16_rope16", pretrained, {**BASE, "ref_feat_shape": (16, 16), **options})
