"""Mobile networks found by architecture search in a supernet: EEEA-Net-C1 and C2, and OFA-595.

Termritthikun et al. 2021, https://arxiv.org/abs/2108.06156 (EEEA-Net); Cai et al. 2020,
https://arxiv.org/abs/1908.09791 (Once-for-All); the blocks are MobileNetV3's, Howard et al. 2019,
https://arxiv.org/abs/1905.02244:

  x + point(se(depth(expand(x))))    1 × 1, depthwise k × k, 1 × 1; x + only where shapes allow

The search chose k and the expansion factor of every block, and the number of blocks of every stage; the rest is fixed.
Modules are named as in the published files, which therefore load unchanged.
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from timm.layers import DropPath, SelectAdaptivePool2d, make_divisible
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn

STAGES = (
    (2, nn.ReLU, False),
    (2, nn.ReLU, True),
    (2, nn.Hardswish, False),
    (1, nn.Hardswish, True),
    (2, nn.Hardswish, True),
)
"""The five stages: stride of the first block, activation, squeeze-and-excitation or not."""
WEIGHTS = "https://github.com/jitdee-ai/darmo/releases/download/0.0.1"


def _facts(file: str) -> dict[str, Any]:
    """timm's configuration of a model with ImageNet weights in this file."""
    return {
        "url": f"{WEIGHTS}/{file}",
        "input_size": (3, 224, 224),
        "pool_size": (7, 7),
        "num_classes": 1000,
        "mean": (0.485, 0.456, 0.406),
        "std": (0.229, 0.224, 0.225),
        "first_conv": "first_conv.conv",
        "classifier": "classifier",
    }


default_cfgs = generate_default_cfgs(
    {
        "eeea_net_c1": _facts("eeea_c1.pt"),
        "eeea_net_c2": _facts("eeea-c2.pt"),
        "ofa_595": _facts("ofa595_1k_b1a18d5.pt"),
    }
)


class MobileNet(nn.Module):
    """A sub-network of Once-for-All's MobileNetV3.

    Args:
      widths: channels of the stem and of the five stages.
      kernels: k of every block, a word per stage: "353 737" are two stages of three blocks.
      expands: expansion factors of the blocks, likewise.
      mixed: channels of the layer between pooling and the classifier.
    """

    def __init__(
        self,
        *,
        widths: Sequence[int],
        kernels: str,
        expands: str,
        mixed: int,
        num_classes: int = 1000,
        in_chans: int = 3,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        global_pool: str = "avg",
    ) -> None:
        super().__init__()
        stem, last = widths[0], widths[-1]
        self.first_conv = _layer(in_chans, stem, 3, stride=2, act=nn.Hardswish)
        blocks = [Block(stem, stem)]
        ends = [0]  # the last block of the stem and of each stage
        for outputs, (stride, act, se), ks, es in zip(
            widths[1:], STAGES, kernels.split(), expands.split(), strict=True
        ):
            for number, (k, e) in enumerate(zip(ks, es, strict=True)):
                shape = {"kernel": int(k), "expand": int(e), "stride": 1 if number else stride}
                blocks.append(Block(outputs if number else widths[len(ends) - 1], outputs, **shape, act=act, se=se))
            ends.append(len(blocks) - 1)
        for number, block in enumerate(blocks):
            block.drop_path = DropPath(drop_path_rate * number / len(blocks))
        self.blocks = nn.Sequential(*blocks)
        self.final_expand_layer = _layer(last, 6 * last, act=nn.Hardswish)
        self.num_features, self.head_hidden_size, self.num_classes = 6 * last, mixed, num_classes
        self.global_pool = SelectAdaptivePool2d(pool_type=global_pool)
        pooled = self.num_features * self.global_pool.feat_mult()
        self.feature_mix_layer = _layer(pooled, mixed, act=nn.Hardswish, norm=False)
        self.head_drop = nn.Dropout(drop_rate)
        self.classifier = nn.Linear(mixed, num_classes) if num_classes else nn.Identity()
        last_of_size = [*(f"blocks.{ends[stage]}" for stage in (0, 1, 2, 4)), "final_expand_layer"]
        shapes = zip((stem, widths[1], widths[2], widths[4], 6 * last), (2, 4, 8, 16, 32), last_of_size, strict=True)
        self.feature_info = [dict(zip(("num_chs", "reduction", "module"), shape, strict=True)) for shape in shapes]
        self.apply(_begin)
        for block in blocks:
            if block.residual:  # deep networks train faster if each block starts as the identity
                nn.init.zeros_(block.get_parameter("mobile_inverted_conv.point_linear.bn.weight"))

    def forward_features(self, x: Tensor) -> Tensor:
        """(N, C, H, W) → (N, num_features, H / 32, W / 32)"""
        return self.final_expand_layer(self.blocks(self.first_conv(x)))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Output of `forward_features` → (N, head_hidden_size) or, with a classifier, (N, num_classes)."""
        x = self.feature_mix_layer(self.global_pool(x))
        x = self.head_drop(x.flatten(1) if self.global_pool.pool_type else x)
        return x if pre_logits else self.classifier(x)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) → (N, num_classes)"""
        return self.forward_head(self.forward_features(x))

    def forward_intermediates(
        self, x: Tensor, indices: int | list[int] | None = None, intermediates_only: bool = False, **_: Any
    ) -> Any:
        """Output of `forward_features`, and the maps of `feature_info`: all, the last few, or those of these
        indices."""
        names = [stage["module"] for stage in self.feature_info]
        taken = names[-indices:] if isinstance(indices, int) else [names[index] for index in indices or range(5)]
        maps, x = [], self.first_conv(x)
        for number, layer in enumerate([*self.blocks, self.final_expand_layer]):
            x = layer(x)
            name = f"blocks.{number}" if layer is not self.final_expand_layer else "final_expand_layer"
            maps += [x] if name in taken else []
        return maps if intermediates_only else (x, maps)

    def get_classifier(self) -> nn.Module:
        """The last layer."""
        return self.classifier

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the last layer by one with new weights; remove it for 0 classes."""
        if global_pool is not None:
            self.global_pool = SelectAdaptivePool2d(pool_type=global_pool)
        self.num_classes = num_classes
        width, like = self.head_hidden_size, self.feature_mix_layer[0].weight
        self.classifier = nn.Linear(width, num_classes).to(like) if num_classes else nn.Identity()  # type: ignore[arg-type]
        self.classifier.apply(_begin)

    @torch.jit.ignore  # type: ignore[untyped-decorator]
    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Parameter groups by depth."""
        return {"stem": r"^first_conv", "blocks": r"^blocks\.(\d+)"}


class Block(nn.Module):
    """Inverted residual block."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        kernel: int = 3,
        expand: int = 1,
        stride: int = 1,
        act: type[nn.Module] = nn.ReLU,
        se: bool = False,
    ) -> None:
        super().__init__()
        wide = inputs * expand
        depth = _layer(wide, wide, kernel, stride=stride, groups=wide, act=act)
        if se:
            depth.add_module("se", Squeeze(wide))
        layers = {} if expand == 1 else {"inverted_bottleneck": _layer(inputs, wide, act=act)}
        layers |= {"depth_conv": depth, "point_linear": _layer(wide, outputs)}
        self.mobile_inverted_conv = nn.Sequential(OrderedDict(layers))
        self.residual = stride == 1 and inputs == outputs
        self.drop_path = DropPath()

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) → (N, outputs, H / stride, W / stride)"""
        y = self.mobile_inverted_conv(x)
        return x + self.drop_path(y) if self.residual else y


class Squeeze(nn.Module):
    """Squeeze and excitation: a weight for each channel from the pooled image."""

    def __init__(self, width: int) -> None:
        super().__init__()
        narrow = make_divisible(width // 4, 8)
        layers = {"reduce": nn.Conv2d(width, narrow, 1), "act": nn.ReLU(inplace=True)}
        layers |= {"expand": nn.Conv2d(narrow, width, 1), "gate": nn.Hardsigmoid()}
        self.fc = nn.Sequential(OrderedDict(layers))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W), each channel times its weight."""
        return x * self.fc(x.mean((2, 3), keepdim=True))


def _layer(
    inputs: int,
    outputs: int,
    kernel: int = 1,
    *,
    stride: int = 1,
    groups: int = 1,
    act: type[nn.Module] | None = None,
    norm: bool = True,
) -> nn.Sequential:
    """A convolution with padding that keeps the size up to its stride, a batch norm, an activation."""
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    layers: dict[str, nn.Module] = {"conv": convolution}
    if norm:
        layers["bn"] = nn.BatchNorm2d(outputs)
    if act is not None:
        layers["act"] = act()
    return nn.Sequential(OrderedDict(layers))


def _begin(module: nn.Module) -> None:
    """Initial weights: He initialisation by fan-out."""
    if isinstance(module, nn.Conv2d):
        fan = module.out_channels // module.groups * module.kernel_size[0] ** 2
        nn.init.normal_(module.weight, std=(2 / fan) ** 0.5)
    elif isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.01)
    if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)


def published(state: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Weights under the names of the published files → under those of the model."""
    return {
        name.removeprefix("module.").replace("classifier.linear.", "classifier."): value
        for name, value in state.items()
    }


def _built(name: str, pretrained: bool, options: dict[str, Any]) -> MobileNet:
    return build_model_with_cfg(MobileNet, name, pretrained, pretrained_filter_fn=published, **options)


@register_model
def eeea_net_c1(pretrained: bool = False, **options: Any) -> MobileNet:
    """Thirteen blocks."""
    found = {"kernels": "35 75 77 53 7337", "expands": "33 33 34 44 6463", "mixed": 1280}
    return _built("eeea_net_c1", pretrained, {"widths": (16, 24, 40, 80, 112, 160), **found, **options})


@register_model
def eeea_net_c2(pretrained: bool = False, **options: Any) -> MobileNet:
    """Nineteen blocks."""
    found = {"kernels": "353 737 5753 7533 5357", "expands": "343 433 6633 6433 6663", "mixed": 1280}
    return _built("eeea_net_c2", pretrained, {"widths": (16, 24, 40, 80, 112, 160), **found, **options})


@register_model
def ofa_595(pretrained: bool = False, **options: Any) -> MobileNet:
    """Twenty blocks, 1.2 times as wide; 595 million multiply-adds for an image of 236 pixels."""
    found = {"kernels": "353 5535 7535 3573 3353", "expands": "343 4463 6634 6664 6663", "mixed": 1536}
    return _built("ofa_595", pretrained, {"widths": (24, 32, 48, 96, 136, 192), **found, **options})
