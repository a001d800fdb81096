"""Vision transformers for images of up to about 128 px: patches of 8 × 8 px, and fewer and narrower blocks than ViT-Ti.

Of an image of 64 px, timm's small transformers see 16 patches of 16 × 16 px; these see 64 patches.
"""

from typing import Any

from timm.models import generate_default_cfgs, register_model
from timm.models.vision_transformer import VisionTransformer

from ribcage.models.architectures.vit import VIT_FACTS, build_vit

default_cfgs = generate_default_cfgs({"vit_nano_patch8": VIT_FACTS, "vit_tiny_patch8": VIT_FACTS})


def _built(name: str, pretrained: bool, options: dict[str, Any]) -> VisionTransformer:
    return build_vit(name, pretrained, {"patch_size": 8} | options)


@register_model
def vit_nano_patch8(pretrained: bool = False, **options: Any) -> VisionTransformer:
    """1.2 million weights."""
    return _built("vit_nano_patch8", pretrained, {"embed_dim": 128, "depth": 6, "num_heads": 4, **options})


@register_model
def vit_tiny_patch8(pretrained: bool = False, **options: Any) -> VisionTransformer:
    """5.4 million weights, as ViT-Ti."""
    return _built("vit_tiny_patch8", pretrained, {"embed_dim": 192, "depth": 12, "num_heads": 3, **options})
