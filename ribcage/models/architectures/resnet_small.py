"""ResNet for small images: a 3 × 3 stem without stride and without pooling, as for CIFAR.

He et al. 2016, https://arxiv.org/abs/1512.03385, sec. 4.2, with the widths of the large ResNets, or half of them.
"""

from typing import Any

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.resnet import BasicBlock, Bottleneck, ResNet
from torch import nn

FACTS = {"input_size": (3, 32, 32), "first_conv": "conv1", "classifier": "fc", "num_classes": 1000}
NAMES = ("resnet18_small", "resnet34_small", "resnet50_small", "resnet101_small")
default_cfgs = generate_default_cfgs(dict.fromkeys((*NAMES, "resnet18_slim"), FACTS))


class SmallResNet(ResNet):
    """timm's ResNet with another stem."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        stem = nn.Conv2d(options.get("in_chans", 3), 64, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(stem.weight, mode="fan_out", nonlinearity="relu")
        self.add_module("conv1", stem)
        self.add_module("maxpool", nn.Identity())
        stages: list[dict[str, Any]] = self.feature_info
        for stage in stages:  # timm counts the strides of the stem and of the pooling
            stage["reduction"] = max(1, stage["reduction"] // 4)


@register_model
def resnet18_small(pretrained: bool = False, **options: Any) -> ResNet:
    """Eighteen layers for images of about 28 to 64 pixels."""
    options = {"block": BasicBlock, "layers": (2, 2, 2, 2), **options}
    return build_model_with_cfg(SmallResNet, "resnet18_small", pretrained, **options)


@register_model
def resnet34_small(pretrained: bool = False, **options: Any) -> ResNet:
    """Thirty-four layers."""
    options = {"block": BasicBlock, "layers": (3, 4, 6, 3), **options}
    return build_model_with_cfg(SmallResNet, "resnet34_small", pretrained, **options)


@register_model
def resnet50_small(pretrained: bool = False, **options: Any) -> ResNet:
    """Fifty layers, as SupContrast trains them."""
    options = {"block": Bottleneck, "layers": (3, 4, 6, 3), **options}
    return build_model_with_cfg(SmallResNet, "resnet50_small", pretrained, **options)


@register_model
def resnet101_small(pretrained: bool = False, **options: Any) -> ResNet:
    """A hundred and one layers."""
    options = {"block": Bottleneck, "layers": (3, 4, 23, 3), **options}
    return build_model_with_cfg(SmallResNet, "resnet101_small", pretrained, **options)


@register_model
def resnet18_slim(pretrained: bool = False, **options: Any) -> ResNet:
    """`resnet18_small` with half the widths: a quarter of the weights."""
    options = {"block": BasicBlock, "layers": (2, 2, 2, 2), "channels": (32, 64, 128, 256), **options}
    return build_model_with_cfg(SmallResNet, "resnet18_slim", pretrained, **options)
