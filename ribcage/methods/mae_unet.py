"""MAE for CNNs: a U-Net decoder reconstructs masked squares of an image from the feature maps of a CNN.

As in Xiao et al. 2022, https://arxiv.org/abs/2210.12843, beside their transformers. With the mask m, 1 where hidden:

  L = sum of m (U((1 - m) x) - x)^2 / sum of m

Trained as their transformers are, by the authors' code, https://github.com/lambert-x/medical_mae: AdamW, 1.5e-4 per 256
images, a cosine to 0, 800 epochs.
"""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 – the usual name

from ribcage.data.batch import Batch
from ribcage.imaging.augment import View
from ribcage.methods.base import Augment, Method, Step, refuse_faults
from ribcage.models.backbone import Backbone
from ribcage.models.hyperparameters import Hyperparameters
from ribcage.models.layers import permutation_tensor

CHINESE = "用于 CNN 的 MAE：遮住图像的大部分方块，用接在 CNN 特征图上的 U-Net 重建"

STAGES = 5
"""Stages of the decoder, each of twice the resolution and half the channels of the one before; further ones have the
last one's width."""


class MAEUNet(Method):
    """A CNN, and a decoder that upsamples its last map to the size of the image, with skip connections.

    mask_ratio: fraction of squares that are masked, i.e. set to the mean of the data
    patch: side of a masked square in pixels, halved until four fit across the image
    width: channels of the first decoder stage; with the published value, 256, the decoder costs more than a small CNN
    loss_on: pixels that count in the loss: the masked ones, or all, as in the authors' code
    """

    hyperparameters = (
        Hyperparameters(
            optimizer="adamw", lr=1.5e-4, weight_decay=0.05, betas=(0.9, 0.95), warmup=40, epochs=800, batch=2048,
            source="medical_mae",
        ),
    )  # fmt: skip

    def __init__(
        self,
        backbone: Backbone,
        findings: Sequence[str] = (),
        *,
        mask_ratio: float = 0.75,
        patch: int = 16,
        width: int = 256,
        loss_on: Literal["masked", "all"] = "masked",
    ) -> None:
        super().__init__(backbone, findings)
        self.mask_ratio, self.patch, self.loss_on = mask_ratio, patch, loss_on
        channels = _channels(backbone)
        _check(mask_ratio, patch, width, loss_on)
        self.halvings = [1 << power for power in reversed(range(max(channels).bit_length() - 1))]
        """Reduction factors of the decoder's stages relative to the image."""
        widths = [backbone.model.num_features, *(width >> min(k, STAGES - 1) for k in range(len(self.halvings)))]
        skips = [channels.get(reduction, 0) for reduction in self.halvings]
        self.stages = nn.ModuleList(
            _stage(given + skip, wanted) for given, skip, wanted in zip(widths, skips, widths[1:], strict=False)
        )
        self.context = nn.Linear(backbone.dim, widths[1])
        self.head = nn.Conv2d(widths[-1], backbone.channels, 3, padding=1)
        for stage in self.stages:
            stage.apply(_begin)
        nn.init.xavier_uniform_(self.head.weight)

    def views(self, size: tuple[int, int], augment: Augment = "radiograph") -> list[View]:
        """Crops of half to all of the image, and exposure; the paper uses smaller crops, and flips."""
        self._squares(size)
        if augment == "paper":
            return [View(size, crop=(0.2, 1.0), ratio=(3 / 4, 4 / 3), flip=0.5)]
        return [View(size, crop=(0.5, 1.0), ratio=(3 / 4, 4 / 3), brightness=0.1, contrast=0.2, gamma=0.2)]

    def forward(self, batch: Batch) -> Step:
        """The mean squared error over masked pixels, or over all."""
        x, m = batch.views[0], self._mask(batch)
        error = (self._drawn(x * (1 - m)).float() - x).square()
        if self.loss_on == "all":
            return Step(error.mean())
        return Step((error * m).sum() / (m.sum() * x.shape[1]))

    @torch.no_grad()
    def reconstructed(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The masked input, and the same with masked squares reconstructed: twice (N, C, H, W)."""
        x, m = batch.views[0], self._mask(batch)
        training = self.training
        drawn = self.eval()._drawn(x * (1 - m)).float()
        self.train(training)
        return x * (1 - m), x * (1 - m) + drawn * m

    def _mask(self, batch: Batch) -> Tensor:
        """(N, 1, H, W): 1 where masked, on squares drawn for each image."""
        view = batch.views[0]
        rows, columns, patch = self._squares((view.shape[2], view.shape[3]))
        order = permutation_tensor(batch.chance, rows * columns, view.device)
        squares = torch.ones(order.shape, device=view.device)
        squares = squares.scatter(1, order[:, : self._visible(rows * columns)], 0.0)
        return squares.view(-1, 1, rows, columns).repeat_interleave(patch, 2).repeat_interleave(patch, 3)

    def _squares(self, size: tuple[int, int]) -> tuple[int, int, int]:
        """Rows and columns of squares in an image, and a square's side; ValueError if the image cannot be divided
        so."""
        patch = self.patch
        while patch > 1 and min(size) < 4 * patch:
            patch //= 2
        rows, columns = (side // patch for side in size)
        visible = self._visible(rows * columns)
        if (rows * patch, columns * patch) != size or not visible:
            problem = (
                f"none of the {rows}×{columns} patches would stay visible"
                if not visible
                else "the size is not a multiple of the patch size"
            )
            raise ValueError(
                f"With --patch {patch} --mask-ratio {self.mask_ratio} and images of {size[0]}×{size[1]} pixels, "
                f"{problem}."
            )
        return rows, columns, patch

    def _visible(self, count: int) -> int:
        """Number of visible squares out of `count`."""
        return int(count * (1 - self.mask_ratio))

    def _drawn(self, images: Tensor) -> Tensor:
        """(N, C, H, W): decoded from the last map, with the last map of each size as skip connections, and from the
        pooled features.

        The features train the layers after the last map (a norm, a wider layer), so that the whole model is trained.
        """
        size = (images.shape[2], images.shape[3])
        hidden, maps = self.backbone.model.forward_intermediates(images)
        skips = dict(zip(_reductions(self.backbone.model), maps, strict=True))
        x = self.backbone.grid(hidden, size)
        for number, (stage, halving) in enumerate(zip(self.stages, self.halvings, strict=True)):
            skip = skips.get(halving)
            larger = (-(-size[0] // halving), -(-size[1] // halving)) if skip is None else skip.shape[2:]
            x = F.interpolate(x, larger)
            x = stage(x if skip is None else torch.cat([x, skip], dim=1))
            if number == 0:
                x = x + self.context(self.backbone.pool(hidden))[:, :, None, None]
        return self.head(F.interpolate(x, size))


def _stage(width: int, wanted: int) -> nn.Sequential:
    """Two convolutions, each with batch norm and ReLU."""
    layers: list[nn.Module] = []
    for inputs in (width, wanted):
        layers += [nn.Conv2d(inputs, wanted, 3, padding=1, bias=False), nn.BatchNorm2d(wanted), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


def _begin(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_uniform_(module.weight, nonlinearity="relu")


def _reductions(model: Any) -> list[int]:
    """Reduction factor of each of the model's maps relative to the image."""
    return [stage["reduction"] for stage in _stages(model)]


def _stages(model: Any) -> Any:
    """timm's description of the model's maps."""
    return model.feature_info if isinstance(model.feature_info, list) else model.feature_info.info


def _channels(backbone: Backbone) -> dict[int, int]:
    """Channels of the last map of each reduction; ValueError if the backbone has maps of one size only."""
    model = backbone.model
    found = {stage["reduction"]: stage["num_chs"] for stage in _stages(model)}
    if len(found) < 2 or not hasattr(model, "forward_intermediates"):
        raise ValueError(
            f"mae_unet needs a CNN with feature maps of several sizes, not {backbone.name}. For a vision transformer, "
            f"use mae."
        )
    return found


def _check(mask_ratio: float, patch: int, width: int, loss_on: str) -> None:
    """Refuse invalid options."""
    least = 1 << STAGES - 1
    refuse_faults(
        {
            f"--mask-ratio {mask_ratio} must be between 0 and 1": not 0 < mask_ratio < 1,
            f"--patch {patch} must be at least 1": patch < 1,
            f"--width {width} must be at least {least}, because each stage halves the width": width < least,
            f"--loss-on {loss_on} must be masked or all": loss_on not in ("masked", "all"),
        }
    )
