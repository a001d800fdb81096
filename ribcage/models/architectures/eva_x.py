"""EVA-X: vision transformers of EVA-02 with 16 × 16 patches, as pretrained on chest radiographs.

Gated layers (SwiGLU), rotary and learned position embeddings; the features are the normalised average of the patches.
The rotary embeddings are scaled so that every image has 14 steps per side, as at 224 px. The ViT-B that was fine-tuned
by the authors has 16 steps instead.

Yao et al. 2024, https://arxiv.org/abs/2405.05237; Fang et al. 2023, https://arxiv.org/abs/2303.11331
"""

from typing import Any

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.eva import Eva, checkpoint_filter_fn

FACTS = {
    "input_size": (3, 224, 224),
    "fixed_input_size": True,
    "first_conv": "patch_embed.proj",
    "classifier": "head",
    "num_classes": 1000,
    "mean": (0.49185243,) * 3,
    "std": (0.28509309,) * 3,
}
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
    built: Eva = build_model_with_cfg(
        Eva,
        name,
        pretrained,
        pretrained_filter_fn=checkpoint_filter_fn,
        feature_cfg={"out_indices": 3, "feature_cls": "getter"},
        **(OPTIONS | options),
    )
    return built


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
