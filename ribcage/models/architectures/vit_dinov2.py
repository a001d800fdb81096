"""DINOv2's vision transformers with patches of 16 × 16 px and four registers; timm has only those of 14 × 14 px.

CheXFound is a ViT-L of this kind for images of 512 × 512 px.

Oquab et al. 2023, https://arxiv.org/abs/2304.07193; Darcet et al. 2023, https://arxiv.org/abs/2309.16588
"""

from typing import Any

from timm.models import generate_default_cfgs, register_model
from timm.models.vision_transformer import VisionTransformer

from ribcage.models.architectures.vit import VIT_FACTS, build_vit

NAMES = ("vit_small_patch16_reg4_dinov2", "vit_base_patch16_reg4_dinov2", "vit_large_patch16_reg4_dinov2")
default_cfgs = generate_default_cfgs(dict.fromkeys(NAMES, VIT_FACTS))
OPTIONS: dict[str, Any] = {
    "patch_size": 16,
    "init_values": 1e-5,
    "reg_tokens": 4,
    "no_embed_class": True,
    "global_pool": "token",
}


def _built(name: str, pretrained: bool, options: dict[str, Any]) -> VisionTransformer:
    return build_vit(name, pretrained, OPTIONS | options)


@register_model
def vit_small_patch16_reg4_dinov2(pretrained: bool = False, **options: Any) -> VisionTransformer:
    """ViT-S."""
    options = {"embed_dim": 384, "depth": 12, "num_heads": 6, **options}
    return _built("vit_small_patch16_reg4_dinov2", pretrained, options)


@register_model
def vit_base_patch16_reg4_dinov2(pretrained: bool = False, **options: Any) -> VisionTransformer:
    """ViT-B."""
    options = {"embed_dim": 768, "depth": 12, "num_heads": 12, **options}
    return _built("vit_base_patch16_reg4_dinov2", pretrained, options)


@register_model
def vit_large_patch16_reg4_dinov2(pretrained: bool = False, **options: Any) -> VisionTransformer:
    """ViT-L."""
    options = {"embed_dim": 1024, "depth": 24, "num_heads": 16, **options}
    return _built("vit_large_patch16_reg4_dinov2", pretrained, options)
