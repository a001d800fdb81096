"""MONAI's ResNets for images: as usual, but the first convolution has stride 1 before the pooling.

This is the default of monai.networks.nets.resnet18 and the others (`conv1_t_stride`); the weights do not show it.

https://github.com/Project-MONAI/MONAI
"""

from typing import Any

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.resnet import BasicBlock, Bottleneck, ResNet
from torch import nn

FACTS = {"input_size": (3, 224, 224), "first_conv": "conv1", "classifier": "fc", "num_classes": 1000}
NAMES = ("monai_resnet18", "monai_resnet34", "monai_resnet50", "monai_resnet101")
default_cfgs = generate_default_cfgs(dict.fromkeys(NAMES, FACTS))


class MonaiResNet(ResNet):
    """timm's ResNet with another stride of the stem."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        stem = self.get_submodule("conv1")
        assert isinstance(stem, nn.Conv2d)
        stem.stride = (1, 1)
        stages: list[dict[str, Any]] = self.feature_info
        for stage in stages:  # timm counts the stride of the stem
            stage["reduction"] //= 2


@register_model
def monai_resnet18(pretrained: bool = False, **options: Any) -> ResNet:
    """Eighteen layers."""
    options = {"block": BasicBlock, "layers": (2, 2, 2, 2), **options}
    return build_model_with_cfg(MonaiResNet, "monai_resnet18", pretrained, **options)


@register_model
def monai_resnet34(pretrained: bool = False, **options: Any) -> ResNet:
    """Thirty-four layers."""
    options = {"block": BasicBlock, "layers": (3, 4, 6, 3), **options}
    return build_model_with_cfg(MonaiResNet, "monai_resnet34", pretrained, **options)


@register_model
def monai_resnet50(pretrained: bool = False, **options: Any) -> ResNet:
    """Fifty layers."""
    options = {"block": Bottleneck, "layers": (3, 4, 6, 3), **options}
    return build_model_with_cfg(MonaiResNet, "monai_resnet50", pretrained, **options)


@register_model
def monai_resnet101(pretrained: bool = False, **options: Any) -> ResNet:
    """A hundred and one layers."""
    options = {"block": Bottleneck, "layers": (3, 4, 23, 3), **options}
    return build_model_with_cfg(MonaiResNet, "monai_resnet101", pretrained, **options)
