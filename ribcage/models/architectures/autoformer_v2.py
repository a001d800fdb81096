"""AutoFormerV2: Swin transformers with the windows that a search of the search space found.

Chen et al. 2021, https://arxiv.org/abs/2111.14725 (also called S3). timm has them as `swin_s3_*`; here they have the
paper's name, and no residual branch is dropped unless asked for (the paper drops up to 0.1). Attention is within
windows, which are shifted in every second block, with a learnt bias for each relative position. A window that is larger
than its map shrinks to it; maps that windows do not divide are padded. Published files load as they are, and the biases
in them are interpolated to the windows of another size of images.
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
