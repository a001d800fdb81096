"""Vision transformers for images of up to about 128 px: patches of 8 × 8 px, and fewer and narrower blocks than ViT-Ti.

Of an image of 64 px, timm's small transformers see 16 patches of 16 × 16 px; these see 64 patches.
"""

from typing import Any

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn

FACTS = {
    "input_size": (3, 224, 224),
    "fixed_input_size": True,
    "first_conv": "patch_embed.proj",
    "classifier": "head",
    "num_classes": 1000,
}
default_cfgs = generate_default_cfgs({"vit_nano_patch8": FACTS, "vit_tiny_patch8": FACTS})


def _built(name: str, pretrained: bool, options: dict[str, Any]) -> VisionTransformer:
    built: VisionTransformer = build_model_with_cfg(
        VisionTransformer,
        name,
        pretrained,
        pretrained_filter_fn=checkpoint_filter_fn,
        feature_cfg={"out_indices": 3, "feature_cls": "getter"},
        **({"patch_size": 8} | options),
    )
    return built


@register_model
def vit_nano_patch8(pretrained: bool = False, **options: Any) -> VisionTransformer:
    """1.2 million weights."""
    return _built("vit_nano_patch8", pretrained, {"embed_dim": 128, "depth": 6, "num_heads": 4, **options})


@register_model
def vit_tiny_patch8(pretrained: bool = False, **options: Any) -> VisionTransformer:
    """5.4 million weights, as ViT-Ti."""
    return _built("vit_tiny_patch8", pretrained, {"embed_dim": 192, "depth": 12, "num_heads": 3, **options})
