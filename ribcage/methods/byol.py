"""BYOL: the network predicts the momentum encoder's projection of the other view, without negatives.

Grill et al. 2020, https://arxiv.org/abs/2006.07733, eq. 2. With the online network's prediction p of one view and the
target network's projection z of the other:

    L = 2 - 2 p.z / (|p| |z|), summed over both ways round;   w_target <- tau w_target + (1 - tau) w_online,
    tau = 1 - (1 - tau_base) (cos(pi progress) + 1) / 2

Trained as in section 3.3 for 1000 epochs; for 300, 100 and 40 as in the authors' code, deepmind-research
byol/configs/byol.py: LARS, batches of 4096, the rate per 256, ten epochs of warm-up, a cosine to 0.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 – the usual name

from ribcage.data.batch import Batch
from ribcage.imaging.augment import View, published_view, strong_view
from ribcage.methods.base import Augment, Method, Step, refuse_faults
from ribcage.models.backbone import Backbone
from ribcage.models.hyperparameters import Hyperparameters
from ribcage.models.layers import follow, follower, perceptron

CHINESE = "BYOL：由一个视图预测动量编码器对另一视图的输出，不需要负样本"


def _lars(epochs: int, lr: float, momentum: float) -> Hyperparameters:
    """The published hyperparameters of a shorter run."""
    return Hyperparameters(
        optimizer="lars", lr=lr, weight_decay=1e-6, warmup=10, epochs=epochs, batch=4096,
        own={"momentum": momentum}, source="byol/configs/byol.py",
    )  # fmt: skip


class BYOL(Method):
    """An online network with projector and predictor, and a target network: its exponential moving average.

    hidden: hidden width of the projector and the predictor
    dim: width of the projections
    momentum: initial momentum tau_base of the target network, which rises to 1; the default
        is 0.99 below 1000 epochs and 0.97 below 100
    patient_aware: draw the second view from another image of the same patient, if there is one
    """

    same_patient = True
    shardable = True
    hyperparameters = (
        _lars(epochs=40, lr=0.45, momentum=0.97),
        _lars(epochs=100, lr=0.45, momentum=0.99),
        _lars(epochs=300, lr=0.3, momentum=0.99),
        Hyperparameters(
            optimizer="lars", lr=0.2, weight_decay=1.5e-6, warmup=10, epochs=1000, batch=4096, source="section 3.3"
        ),
    )

    def __init__(
        self,
        backbone: Backbone,
        findings: Sequence[str] = (),
        *,
        hidden: int = 4096,
        dim: int = 256,
        momentum: float = 0.996,
        patient_aware: bool = False,
    ) -> None:
        super().__init__(backbone, findings)
        refuse_faults(
            {
                f"--hidden {hidden} must be at least 1": hidden < 1,
                f"--dim {dim} must be at least 1": dim < 1,
                f"--momentum {momentum} must be between 0 and 1": not 0 <= momentum <= 1,
            }
        )
        self.momentum = momentum
        self.projector = perceptron(backbone.dim, hidden, dim, norm=True)
        self.predictor = perceptron(dim, hidden, dim, norm=True)
        self.target = follower(nn.Sequential(backbone, self.projector))

    def views(self, size: tuple[int, int], augment: Augment = "radiograph") -> list[View]:
        """Two views. The paper's differ in their blur; without colour jitter and solarisation, which do not apply to
        gray images."""
        if augment == "radiograph":
            return [strong_view(size)] * 2
        return [replace(published_view(size, crop=(0.08, 1.0)), blur_probability=share) for share in (1.0, 0.1)]

    def forward(self, batch: Batch) -> Step:
        """Eq. 2, symmetric."""
        first, second = batch.views
        one = distance(self._predicted(first), self._targeted(second))  # (N,)
        other = distance(self._predicted(second), self._targeted(first))
        loss = (one + other).mean()
        return Step(loss, {"cosine": 1 - loss.detach() / 4})

    def _predicted(self, images: Tensor) -> Tensor:
        """p (N, dim)"""
        return self.predictor(self.projector(self.backbone(images)))

    @torch.no_grad()
    def _targeted(self, images: Tensor) -> Tensor:
        """z (N, dim)"""
        return self.target(images)

    def after_step(self, progress: float) -> None:
        """Update the target network; its momentum rises to 1."""
        tau = 1 - (1 - self.momentum) * (math.cos(math.pi * progress) + 1) / 2
        follow(self.target, nn.Sequential(self.backbone, self.projector), tau)


def distance(p: Tensor, z: Tensor) -> Tensor:
    """(N,): squared distance of normalised vectors, 2 - 2 cos."""
    return 2 - 2 * F.cosine_similarity(p.float(), z.float())
