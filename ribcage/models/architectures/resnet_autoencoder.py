"""The encoder of TorchXRayVision's autoencoder: a ResNet-101 with a narrow, short last stage of stride 6.

Unlike in other ResNets, the output of the last norm of a block is rectified before it is added to the shortcut.

Cohen et al. 2021, https://arxiv.org/abs/2102.09475; the structure is that of `ResNetAE101` in torchxrayvision.
"""

from typing import Any

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.resnet import Bottleneck, ResNet
from torch import nn

FACTS = {"input_size": (3, 224, 224), "first_conv": "conv1", "classifier": "fc", "num_classes": 1000}
default_cfgs = generate_default_cfgs({"xrv_resnet101_encoder": FACTS})
STRIDE = 6
"""Stride of the last stage; 2 in other ResNets."""


class RectifiedBottleneck(Bottleneck):
    """timm's bottleneck with a ReLU before the addition."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        setattr(self, "se", nn.ReLU())  # noqa: B010 – follows the last norm; None until now for mypy


class EncoderResNet(ResNet):
    """timm's ResNet with another stride of the last stage."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        for part in ("layer4.0.conv2", "layer4.0.downsample.0"):
            conv = self.get_submodule(part)
            assert isinstance(conv, nn.Conv2d)
            conv.stride = (STRIDE, STRIDE)
        last: dict[str, Any] = self.feature_info[-1]
        last["reduction"] = last["reduction"] // 2 * STRIDE


@register_model
def xrv_resnet101_encoder(pretrained: bool = False, **options: Any) -> ResNet:
    """512 features from 3 × 3 positions of an image of 224 × 224 px."""
    options = {"block": RectifiedBottleneck, "layers": (3, 4, 23, 2), "channels": (64, 128, 256, 128), **options}
    return build_model_with_cfg(EncoderResNet, "xrv_resnet101_encoder", pretrained, **options)
