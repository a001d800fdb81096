"""Mixing: every image of a batch is mixed with another one, by mixup or CutMix.

Mixup: Zhang et al. 2018, https://arxiv.org/abs/1710.09412. With a ~ Beta(alpha, alpha), x = a x_i + (1 - a) x_j, and
the same for the targets. CutMix: Yun et al. 2019, https://arxiv.org/abs/1905.04899, eq. 1 and 2. A rectangle with the
fraction 1 - a of the area, around a random point, is taken from x_j; the targets are mixed by the area of its part
within the image.

The numbers are those of the batch's first image in `batch.chance`, so they do not depend on what was drawn before. They
are drawn on the CPU and applied on the device, without waiting for it.
"""

import numpy as np
import torch
from torch import Tensor

from ribcage.runtime import rng
from ribcage.runtime.devices import on_device


def mixed(
    views: list[Tensor], targets: Tensor, chance: Tensor, mixup: float, cutmix: float
) -> tuple[list[Tensor], Tensor]:
    """The views and (N, F) targets of a batch, each image mixed with that at the same place from the end. All views are
    mixed alike. A target is unknown if it is unknown in either image.

    mixup, cutmix: alpha of either; 0: not used. If both are used, one of them is chosen for each batch with equal
    probability, as in timm.
    """
    if not (mixup or cutmix) or not len(targets):
        return views, targets
    numbers = mixing_numbers(chance, mixup, cutmix, targets.device)
    shares = [mixing_weights(numbers, view.shape[2], view.shape[3]) for view in views]
    images = [view.lerp(view.flip(0), share.to(view.dtype)) for view, share in zip(views, shares, strict=True)]
    return images, targets.lerp(targets.flip(0), shares[0].mean())


@torch.library.custom_op("ribcage::mixing_numbers", mutates_args=())
def mixing_numbers(chance: Tensor, mixup: float, cutmix: float, device: torch.device) -> Tensor:
    """(5,): top, bottom, left and right end of the rectangle as fractions of the image, and the weight of the other
    image outside of it. In a compiled step it is one operation, as NumPy draws it."""
    random = rng.generator(int(chance.numpy()[0]), rng.MIXING)
    cut = bool(cutmix) and not (mixup and random.random() < 0.5)
    alpha = cutmix if cut else mixup
    share = 1 - random.beta(alpha, alpha)
    if not cut:
        return on_device(np.array([0, 0, 0, 0, share], np.float32), device)
    centre, half = random.random(2), np.sqrt(share) / 2
    (top, left), (bottom, right) = np.clip([centre - half, centre + half], 0, 1)
    return on_device(np.array([top, bottom, left, right, 0], np.float32), device)


@mixing_numbers.register_fake
def _numbers_like(chance: Tensor, mixup: float, cutmix: float, device: torch.device) -> Tensor:
    return torch.empty(5, device=device)


def mixing_weights(numbers: Tensor, height: int, width: int) -> Tensor:
    """(H, W): the weight of the other image at each pixel; 1 at pixels whose centre is inside the rectangle."""
    top, bottom, left, right, outside = numbers
    y, x = ((torch.arange(side, device=numbers.device) + 0.5) / side for side in (height, width))
    inside = ((y >= top) & (y < bottom))[:, None] & ((x >= left) & (x < right))
    return torch.where(inside, 1.0, outside)
