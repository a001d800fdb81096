"""Pyramid: maps of one width at several strides, from the maps of a backbone.

CNN: Lin et al. 2017, https://arxiv.org/abs/1612.03144: from the coarsest map down, each added to the next finer one.
Vision transformer: Li et al. 2022, https://arxiv.org/abs/2203.16527: its one map, up- and downsampled.
"""

from collections import OrderedDict

from timm.layers import LayerNorm2d
from torch import Tensor, nn
from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork, LastLevelMaxPool

Size = tuple[int, int]


def normed(width: int) -> nn.GroupNorm:
    """Group norm with up to 32 groups of at least four channels, since a map may have a single cell."""
    return nn.GroupNorm(
        next((count for count in (32, 16, 8, 4, 2) if width % count == 0 and width >= 4 * count), 1), width
    )


class FeaturePyramid(nn.Module):
    """Pyramid of a CNN: every map, and one of twice the last stride. `levels`: stride → channels."""

    def __init__(self, levels: dict[int, int], width: int) -> None:
        super().__init__()
        self.strides = [*levels, 2 * max(levels)]
        self.network = FeaturePyramidNetwork(list(levels.values()), width, LastLevelMaxPool(), normed)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """(N, width, h, w) for each stride."""
        return list(self.network(OrderedDict((str(number), one) for number, one in enumerate(maps))).values())

    def sizes(self, given: list[Size]) -> list[Size]:
        """Sizes of the outputs for maps of these sizes."""
        return [*given, _half(given[-1])]


class SimplePyramid(nn.Module):
    """Pyramid of a vision transformer, whose one map has stride s: s/2, s, 2 s, 4 s, or the first of these."""

    def __init__(self, levels: dict[int, int], width: int, count: int = 4) -> None:
        super().__init__()
        [(stride, channels)] = levels.items()
        self.strides = [max(1, stride // 2), stride, 2 * stride, 4 * stride][:count]
        self.enlarge = nn.ConvTranspose2d(channels, channels // 2, 2, stride=2)
        self.shrink = nn.MaxPool2d(2, ceil_mode=True)
        given = [channels // 2, channels, channels, channels][:count]
        self.blocks = nn.ModuleList(_block(each, width) for each in given)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """(N, width, h, w) for each stride."""
        [x] = maps
        scaled = [self.enlarge(x), x, self.shrink(x), self.shrink(self.shrink(x))]
        return [block(each) for block, each in zip(self.blocks, scaled, strict=False)]

    def sizes(self, given: list[Size]) -> list[Size]:
        """Sizes of the outputs for a map of this size."""
        [(height, width)] = given
        half = _half((height, width))
        return [(2 * height, 2 * width), (height, width), half, _half(half)][: len(self.strides)]


def pyramid(levels: dict[int, int], width: int) -> FeaturePyramid | SimplePyramid:
    """The pyramid for maps of these strides and channels."""
    return FeaturePyramid(levels, width) if len(levels) > 1 else SimplePyramid(levels, width)


def _half(size: Size) -> Size:
    return (size[0] + 1) // 2, (size[1] + 1) // 2


def _block(channels: int, width: int) -> nn.Sequential:
    """As in the paper: 1 × 1, norm, 3 × 3, norm."""
    return nn.Sequential(
        nn.Conv2d(channels, width, 1, bias=False),
        LayerNorm2d(width),
        nn.Conv2d(width, width, 3, padding=1, bias=False),
        LayerNorm2d(width),
    )
