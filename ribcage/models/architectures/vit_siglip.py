"""SigLIP: vision transformers with the activation that SigLIP was trained with, where timm has GELU instead.

GELU is computed by its approximation with tanh, in the blocks and in the attention pooling. timm has such models for
the other sizes. Zhai et al. 2023, https://arxiv.org/abs/2303.15343
"""

from typing import Any

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn

FACTS = {
    "input_size": (3, 224, 224),
    "fixed_input_size": True,
    "first_conv": "patch_embed.proj",
    "classifier": "head",
    "num_classes": 0,
    "mean": (0.5,) * 3,
    "std": (0.5,) * 3,
}
NAMES = ("vit_base_patch16_siglip_tanh_224", "vit_so400m_patch14_siglip_tanh_224")
default_cfgs = generate_default_cfgs(dict.fromkeys(NAMES, FACTS))
OPTIONS: dict[str, Any] = {"class_token": False, "global_pool": "map", "act_layer": "gelu_tanh"}


def _built(name: str, pretrained: bool, options: dict[str, Any]) -> VisionTransformer:
    built: VisionTransformer = build_model_with_cfg(
        VisionTransformer,
        name,
        pretrained,
        pretrained_filter_fn=checkpoint_filter_fn,
        feature_cfg={"out_indices": 3, "feature_cls": "getter"},
        **(OPTIONS | options),
    )
    return built


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
