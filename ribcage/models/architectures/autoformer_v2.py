"""AutoFormerV2: Swin transformers with window sizes from an architecture search.

Chen et al. 2021, https://arxiv.org/abs/2111.14725 (also called S3). timm has them as `swin_s3_*`; here they have the
paper's name, and stochastic depth is off by default (the paper drops up to 0.1 of the residual branches). Attention is
within windows, shifted in every second block, with a learnt relative position bias. A window larger than its map
shrinks to it; maps that windows do not divide are padded. Published files load unchanged, with position biases
interpolated to other image sizes.
"""

from typing import Any

from timm.models import generate_default_cfgs, get_pretrained_cfg, register_model, swin_transformer
from timm.models.swin_transformer import SwinTransformer

SIZES = ("tiny", "small", "base")
FACTS: dict[str, Any] = {f"autoformer_v2_{size}": get_pretrained_cfg(f"swin_s3_{size}_224") for size in SIZES}
default_cfgs = generate_default_cfgs(FACTS)


@register_model
def autoformer_v2_tiny(pretrained: bool = False, **options: Any) -> SwinTransformer:
    """Depths 2, 2, 6, 2; windows 7, 7, 14, 7."""
    return swin_transformer.swin_s3_tiny_224(pretrained, **{"drop_path_rate": 0.0, **options})


@register_model
def autoformer_v2_small(pretrained: bool = False, **options: Any) -> SwinTransformer:
    """Depths 2, 2, 18, 2; windows 14, 14, 14, 7."""
    return swin_transformer.swin_s3_small_224(pretrained, **{"drop_path_rate": 0.0, **options})


@register_model
def autoformer_v2_base(pretrained: bool = False, **options: Any) -> SwinTransformer:
    """Depths 2, 2, 30, 2; windows 7, 7, 14, 7."""
    return swin_transformer.swin_s3_base_224(pretrained, **{"drop_path_rate": 0.0, **options})
