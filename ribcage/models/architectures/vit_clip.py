"""CLIP: the small vision transformers of OpenCLIP (ViT-S), which timm lacks; timm has the other sizes.

Cherti et al. 2023, https://arxiv.org/abs/2212.07143
"""

from functools import partial
from typing import Any

from timm.layers import LayerNorm
from timm.models import generate_default_cfgs, register_model
from timm.models.vision_transformer import VisionTransformer

from ribcage.models.architectures.vit import VIT_FACTS, build_vit

FACTS = VIT_FACTS | {"num_classes": 512}
NAMES = ("vit_small_patch16_clip_224", "vit_small_patch32_clip_224")
default_cfgs = generate_default_cfgs(dict.fromkeys(NAMES, FACTS))
OPTIONS: dict[str, Any] = {
    "embed_dim": 384,
    "depth": 12,
    "num_heads": 6,
    "pre_norm": True,
    "norm_layer": partial(LayerNorm, eps=1e-5),
}


def _built(name: str, pretrained: bool, options: dict[str, Any]) -> VisionTransformer:
    return build_vit(name, pretrained, OPTIONS | options)


@register_model
def vit_small_patch16_clip_224(pretrained: bool = False, **options: Any) -> VisionTransformer:
    """ViT-S/16."""
    return _built("vit_small_patch16_clip_224", pretrained, {"patch_size": 16, **options})


@register_model
def vit_small_patch32_clip_224(pretrained: bool = False, **options: Any) -> VisionTransformer:
    """ViT-S/32."""
    return _built("vit_small_patch32_clip_224", pretrained, {"patch_size": 32, **options})
