"""SigLIP: vision transformers with the activation that SigLIP was trained with, where timm has GELU instead.

GELU is computed by its approximation with tanh, in the blocks and in the attention pooling. timm has such models for
the other sizes. Zhai et al. 2023, https://arxiv.org/abs/2303.15343
"""

from typing import Any

from timm.models import generate_default_cfgs, register_model
from timm.models.vision_transformer import VisionTransformer

from ribcage.models.architectures.vit import VIT_FACTS, build_vit

FACTS = VIT_FACTS | {"num_classes": 0, "mean": (0.5,) * 3, "std": (0.5,) * 3}
NAMES = ("vit_base_patch16_siglip_tanh_224", "vit_so400m_patch14_siglip_tanh_224")
default_cfgs = generate_default_cfgs(dict.fromkeys(NAMES, FACTS))
OPTIONS: dict[str, Any] = {"class_token": False, "global_pool": "map", "act_layer": "gelu_tanh"}


def _built(name: str, pretrained: bool, options: dict[str, Any]) -> VisionTransformer:
    return build_vit(name, pretrained, OPTIONS | options)


@register_model
def vit_base_patch16_siglip_tanh_224(pretrained: bool = False, **options: Any) -> VisionTransformer:
    """ViT-B/16."""
    options = {"patch_size": 16, "embed_dim": 768, "depth": 12, "num_heads": 12, **options}
    return _built("vit_base_patch16_siglip_tanh_224", pretrained, options)


@register_model
def vit_so400m_patch14_siglip_tanh_224(pretrained: bool = False, **options: Any) -> VisionTransformer:
    """ViT-So400m/14, also MedSigLIP's."""
    options = {"patch_size": 14, "embed_dim": 1152, "depth": 27, "num_heads": 16, "mlp_ratio": 3.7362, **options}
    return _built("vit_so400m_patch14_siglip_tanh_224", pretrained, options)
