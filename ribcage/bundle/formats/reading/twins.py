"""Groups of timm architectures whose weights have the same names and shapes, but which compute different features.

`benchmarks/twins.py` prints this table.
"""

TWINS: dict[str, tuple[str, ...]] = {
    "efficientnet_b0": (
        "efficientnet_blur_b0",
        "tf_efficientnet_b0",
    ),
    "efficientnet_b1": ("tf_efficientnet_b1",),
    "efficientnet_b2": ("tf_efficientnet_b2",),
    "efficientnet_b3": ("tf_efficientnet_b3",),
    "efficientnet_b4": ("tf_efficientnet_b4",),
    "mobilenetv3_large_075": ("tf_mobilenetv3_large_075",),
    "mobilenetv3_large_100": ("tf_mobilenetv3_large_100",),
    "mobilenetv3_small_075": ("tf_mobilenetv3_small_075",),
    "mobilenetv3_small_100": ("tf_mobilenetv3_small_100",),
    "resnet101d": (
        "resnetaa101d",
        "resnetblur101d",
    ),
    "resnet18": ("resnetblur18",),
    "resnet34d": ("resnetaa34d",),
    "resnet50": (
        "resnetaa50",
        "resnetblur50",
    ),
    "resnet50d": (
        "resnetaa50d",
        "resnetblur50d",
    ),
    "vit_base_patch16_siglip_gap_224": ("vit_base_patch16_gap_224",),
}
"""Architecture recognised by its weights → other architectures with the same weights."""
