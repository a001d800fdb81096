"""What the files on vision transformers share: timm's facts of a model, and timm's way of building it."""

from typing import Any, TypeVar

from timm.models import build_model_with_cfg
from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn
from torch import nn

VIT_FACTS: dict[str, Any] = {
    "input_size": (3, 224, 224),
    "fixed_input_size": True,
    "first_conv": "patch_embed.proj",
    "classifier": "head",
    "num_classes": 1000,
}
Transformer = TypeVar("Transformer", bound=nn.Module)


def build_transformer(
    kind: type[Transformer], filter_weights: Any, name: str, pretrained: bool, options: dict[str, Any]
) -> Transformer:
    """A model of a class of timm, whose blocks can be asked for their features."""
    built: Transformer = build_model_with_cfg(
        kind,
        name,
        pretrained,
        pretrained_filter_fn=filter_weights,
        feature_cfg={"out_indices": 3, "feature_cls": "getter"},
        **options,
    )
    return built


def build_vit(name: str, pretrained: bool, options: dict[str, Any]) -> VisionTransformer:
    """A plain vision transformer."""
    return build_transformer(VisionTransformer, checkpoint_filter_fn, name, pretrained, options)
