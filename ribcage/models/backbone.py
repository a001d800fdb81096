"""Backbone: any timm model without its head – features (N, dim) and maps (N, dim, h, w), any size, 1 or 3 channels.

One channel is the normal case: a pretrained stem with three is folded into one (`stem.py`).
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import timm
import torch
from timm.layers import Format
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from ribcage.models.catalogue import known_model, pretrained_config
from ribcage.models.layers import choose_attention
from ribcage.models.pretrained import Coverage, Weights, pretrained_model, weights_in
from ribcage.models.query_head import POOL
from ribcage.models.stem import GRAY, fold_stem
from ribcage.runtime.spelling import did_you_mean

Hidden = Tensor | tuple[Any, ...]
"""Output of `model.forward_features`: a tensor for nearly all architectures; a tuple for an ensemble."""
PATCH = 16
"""Side of a patch of most vision transformers."""
LEVELS = 3
"""Number of maps of a CNN that a detector uses: the coarsest ones."""
POOLS: tuple[str, ...] = (
    "",
    "avg",
    "max",
    "avgmax",
    "catavgmax",
    "fast",
    "fastavg",
    "fastmax",
    "fastavgmax",
    "fastcatavgmax",
)
POOLS += ("token", "map", "prr", POOL)
"""timm's pooling methods; "": the model's own. With "query", the head pools (`query_head.py`)."""


class Backbone(nn.Module):
    """A timm model by name.

    Args:
        name: name of a timm model, or one of `architectures/`.
        channels: image channels; 1 for gray.
        size: (height, width) of the images, for position embeddings; None: the model's own.
        init: "" for random weights, "imagenet" for timm's pretrained ones, else a file of weights.
        drop_path: share of residual branches dropped in training.
        pool: pooling of features in timm's words (avg, token, max …), or query; "": the model's own.
        mean, std: normalisation of the images; pretrained weights are adapted to it.
        read: reads the weights in a file under timm's names; None: the names in the file are used.
        rgb_normalisation: (means, standard deviations) of three channels, for published weights used unchanged:
            images normalised by `mean` and `std` are converted to these first.
    """

    rgb_mean: Tensor
    rgb_std: Tensor

    def __init__(
        self,
        name: str,
        *,
        channels: int = 1,
        size: tuple[int, int] | None = None,
        init: str = "",
        drop_path: float = 0.0,
        pool: str = "",
        mean: float = GRAY[0],
        std: float = GRAY[1],
        read: Callable[[Path], Weights] | None = None,
        rgb_normalisation: tuple[tuple[float, ...], ...] = (),
    ) -> None:
        super().__init__()
        if channels not in (1, 3):
            raise ValueError(f"A backbone takes 1 or 3 channels, not {channels}.")
        if pool not in POOLS:
            raise ValueError(
                f"Unknown pool type {pool[:60]!r}.{did_you_mean(pool, POOLS)} Types: {', '.join(POOLS[1:])}."
            )
        self.name, self.channels, self.pretrained = known_model(name), channels, bool(init)
        options: dict[str, Any] = {"num_classes": 0, "drop_path_rate": drop_path} if drop_path else {"num_classes": 0}
        self.pool_name, self.pools_by_query = pool, pool == POOL
        if pool:
            options["global_pool"] = timm_pool(pool)
        if size is not None and pretrained_config(name).fixed_input_size:
            options["img_size"] = size
        self.coverage: Coverage | None = None
        """How the weights of a file were matched to the model, if there was a file."""
        if init:
            self.model, config, self.coverage = pretrained_model(
                name, init, options, read or (lambda file: Weights(weights_in(file)))
            )
            if channels == 1 and config.mean:  # gray weights of unknown normalisation are used unchanged
                fold_stem(self.model, config, mean, std)
        else:
            self.model = timm.create_model(name, in_chans=channels, **options)
        self.scale, self.rgb_normalisation = (mean, std), rgb_normalisation
        for part, values in zip(("rgb_mean", "rgb_std"), rgb_normalisation or ((), ()), strict=True):  # on the device
            self.register_buffer(part, torch.tensor(values, dtype=torch.float64)[:, None, None], persistent=False)
        self.dim: int = getattr(self.model, "head_hidden_size", None) or self.model.num_features
        self.size: tuple[int, int] = size or tuple(pretrained_config(name).input_size[1:])

    def forward(self, images: Tensor) -> Tensor:
        """(N, dim) features."""
        return self.pool(self.hidden(images))

    def accept_any_size(self) -> None:
        """Interpolate the position embeddings of a vision transformer to the size of each batch; other models stay as
        they are. The weights and their names do not change."""
        if isinstance(self.model, VisionTransformer):
            setattr(self.model, "dynamic_img_size", True)  # noqa: B010 – timm calls it final
            self.model.patch_embed.strict_img_size, self.model.patch_embed.flatten = False, False
            self.model.patch_embed.output_fmt = Format.NHWC

    @property
    def has_one_size(self) -> bool:
        """Whether the model is built for a single image size, also after `accept_any_size`."""
        return not isinstance(self.model, VisionTransformer) and bool(pretrained_config(self.name).fixed_input_size)

    def hidden(self, images: Tensor) -> Hidden:
        """Output of `model.forward_features`, the input of `pool` and `grid`; a tensor for nearly all architectures."""
        tokens = math.prod([-(-side // PATCH) for side in images.shape[2:]])
        choose_attention(self.model, tokens, images.device)
        return self.forward_features(images)

    def forward_features(self, images: Tensor) -> Hidden:
        """The same, without choosing how attention is computed."""
        return self.model.forward_features(self.shown(images))

    def shown(self, images: Tensor) -> Tensor:
        """The images as the model's first layer expects them."""
        if not self.rgb_normalisation:
            return images
        mean, std = self.scale
        return (images * std + mean - self.rgb_mean.to(images)) / self.rgb_std.to(images)

    def pool(self, hidden: Hidden) -> Tensor:
        """Output of `model.forward_features` → (N, dim), pooled as the model does before its head; with query pooling,
        which belongs to the head, the average."""
        if self.pools_by_query:
            return self.places(hidden).mean(1)
        return self.model.forward_head(hidden, pre_logits=True)

    def head_input(self, hidden: Hidden) -> Tensor:
        """Output of `model.forward_features` → the input of a classification head: (N, dim), or (N, places, dim) with
        query pooling."""
        return self.places(hidden) if self.pools_by_query else self.pool(hidden)

    def places(self, hidden: Hidden) -> Tensor:
        """(N, places, dim): the patch tokens or the cells of the last map, for query pooling."""
        features = self.model.forward_head(hidden, pre_logits=True)
        if features.ndim == 3:
            return features[:, getattr(self.model, "num_prefix_tokens", 0) :]
        last = getattr(self.model, "output_fmt", "NCHW") == "NHWC"
        return features.flatten(1, 2) if last else features.flatten(2).transpose(1, 2)

    def maps(self, images: Tensor) -> Tensor:
        """(N, dim, h, w) features by position; a transformer's tokens are arranged on their grid.

        A model that widens its features after pooling (MobileNet, VGG) has fewer channels here.
        """
        return self.grid(self.hidden(images), (images.shape[-2], images.shape[-1]))

    @property
    def levels(self) -> dict[int, int]:
        """Strides of the maps of `pyramid` → their channels."""
        stages = {stage["reduction"]: stage["num_chs"] for stage in self._stages()}
        last = max(stages)
        return {step: stages[step] for step in sorted(stages)[-LEVELS:-1]} | {last: self.model.num_features}

    @property
    def blocks(self) -> int:
        """Number of blocks of a transformer, or of stages of a CNN."""
        return len(self._stages())

    def pyramid(self, images: Tensor) -> list[Tensor]:
        """(N, channels, h, w) for each of `levels`: the last map of each size. A vision transformer has one."""
        tokens = math.prod([-(-side // PATCH) for side in images.shape[2:]])
        choose_attention(self.model, tokens, images.device)
        hidden, maps = self.model.forward_intermediates(self.shown(images))
        steps = [stage["reduction"] for stage in self._stages()]
        found = dict(zip(steps, maps, strict=True))
        last = self.grid(hidden, (images.shape[-2], images.shape[-1]))
        return [found[step] for step in list(self.levels)[:-1]] + [last]

    def _stages(self) -> list[dict[str, Any]]:
        """timm's description of the model's maps."""
        info = self.model.feature_info
        return info if isinstance(info, list) else info.info

    def grid(self, hidden: Hidden, size: tuple[int, int]) -> Tensor:
        """Output of `model.forward_features` → (N, dim, h, w)."""
        assert isinstance(hidden, Tensor), "only a tensor is on a grid"
        if hidden.ndim == 4:
            return hidden.permute(0, 3, 1, 2) if getattr(self.model, "output_fmt", "NCHW") == "NHWC" else hidden
        tokens = hidden[:, getattr(self.model, "num_prefix_tokens", 0) :]
        reduction = self.model.feature_info[-1]["reduction"]
        return tokens.transpose(1, 2).unflatten(2, (-(-size[0] // reduction), -(-size[1] // reduction)))


def timm_pool(pool: str) -> str:
    """The pooling by timm's name; "" for none, where the head pools."""
    return "" if pool == POOL else pool
