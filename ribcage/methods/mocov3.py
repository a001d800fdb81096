"""MoCo v3: a view predicts its image's other view among all images of the batch, without a queue.

Chen et al. 2021, https://arxiv.org/abs/2104.02057, algorithm 1. With the query q of one view, which is the predictor's
output, the key k_+ of the image's other view and the keys k of all N images of the global batch, which the momentum
encoder computes, all of length 1:

    L = -2 t log(exp(q.k_+/t) / sum_k exp(q.k/t)), summed over both ways round;   w_key <- m w_key + (1 - m) w_query,
    m = 1 - (1 - m_base) (cos(pi progress) + 1) / 2

Gradients do not flow through keys. In vision transformers, the projection of the patches stays random, which makes
training stable (section 4.1), and position embeddings are sines and cosines.

Trained as vision transformers are in CONFIG.md of https://github.com/facebookresearch/moco-v3: AdamW, 1.5e-4 per 256
images, batches of 4096, 300 epochs, 40 of them of warm-up, a cosine to 0. ResNets are trained there by LARS, 0.3 per
256 images, weight decay 1e-6, 300 epochs, 10 of them of warm-up, with t = 1.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Literal

import torch
from timm.layers import PatchEmbed
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 – the usual name

from ribcage.data.batch import Batch
from ribcage.imaging.augment import View, published_view, strong_view
from ribcage.methods.base import Augment, ContrastiveMethod, Step, lowest, refuse_faults
from ribcage.models.backbone import Backbone
from ribcage.models.hyperparameters import Hyperparameters
from ribcage.models.layers import follow, follower
from ribcage.models.positions import fix_positions
from ribcage.runtime import distributed

CHINESE = "MoCo v3：不用队列，由一个视图在整个批次中预测同一图像的另一视图，适用于视觉 Transformer"


class MoCoV3(ContrastiveMethod):
    """A backbone, a projection head and a prediction head, and a momentum encoder. The heads have three and two layers
    for vision transformers, two and two for other networks, as published.

    hidden: width of the hidden layers of both heads
    dim: width of queries and keys
    momentum: initial momentum m_base of the momentum encoder, which rises to 1
    temperature: temperature t of the softmax; 0.2 for vision transformers, 1 for ResNets
    patch_projection: projection of the patches of a vision transformer: frozen, which is more stable, or trained
    patient_aware: draw the second view from another image of the same patient; images of one patient are
        never negatives
    """

    same_patient = True
    hyperparameters = (
        Hyperparameters(
            optimizer="adamw", lr=1.5e-4, weight_decay=0.1, warmup=40, most=0.15, epochs=300, batch=4096,
            source="CONFIG.md",
        ),
    )  # fmt: skip
    temperature: float | Tensor

    def __init__(
        self,
        backbone: Backbone,
        findings: Sequence[str] = (),
        *,
        hidden: int = 4096,
        dim: int = 256,
        momentum: float = 0.99,
        temperature: float | str = 0.2,
        patch_projection: Literal["frozen", "trained"] = "frozen",
        patient_aware: bool = False,
    ) -> None:
        super().__init__(backbone, findings)
        _check(hidden, dim, momentum, temperature, patch_projection)
        self.momentum, self.patient_aware = momentum, patient_aware
        self.schedule("temperature", temperature)
        transformer = isinstance(backbone.model, VisionTransformer)
        self.projector = _head(backbone.dim, *[hidden] * (2 if transformer else 1), dim, norm=True)
        self.predictor = _head(dim, hidden, dim, norm=transformer)
        if transformer:
            _begin(backbone, frozen=patch_projection == "frozen")
        self.key = follower(nn.Sequential(backbone, self.projector))

    def faults(self, images: int, batch: int) -> list[str]:
        """Error if a batch has a single image, which has no negatives."""
        return [f"--batch {batch} must be at least 2 for mocov3"] * (batch < 2)

    def views(self, size: tuple[int, int], augment: Augment = "radiograph") -> list[View]:
        """Two views. The paper's are BYOL's, which differ in their blur; without colour jitter and solarisation, which
        do not apply to gray images."""
        if augment == "radiograph":
            return [strong_view(size)] * 2
        return [replace(published_view(size, crop=(0.08, 1.0)), blur_probability=share) for share in (1.0, 0.1)]

    def representations(self, batch: Batch) -> Tensor:
        """(n, 4, dim): the queries and the keys of both views, of length 1."""
        queries = [self.predictor(self.projector(self.backbone(view))) for view in batch.views]
        with torch.no_grad():
            keys = [self.key(view) for view in batch.views]
        return F.normalize(torch.stack(queries + keys, dim=1).float(), dim=2)

    def loss_of(self, z: Tensor, batch: Batch) -> Step:
        """Algorithm 1, symmetric."""
        queries, keys = z[:, :2], distributed.gathered_rows(z[:, 2:].detach())  # (n, 2, dim), (N, 2, dim)
        other, left_out = distributed.local_rows(torch.arange(len(keys), device=z.device)), self._left_out(batch)
        loss, right = z.new_zeros(()), z.new_zeros(())
        for q, k in zip(queries.unbind(1), keys.flip(1).unbind(1), strict=True):
            with torch.autocast(z.device.type, enabled=False):
                logits = q @ k.T / self.temperature  # (n, N)
            logits = logits if left_out is None else logits.masked_fill(left_out, -torch.inf)
            loss = loss + 2 * self.temperature * F.cross_entropy(logits, other)
            right = right + (logits.argmax(1) == other).float().mean() / 2
        return Step(loss, {"acc1": 100 * right})

    def _left_out(self, batch: Batch) -> Tensor | None:
        """(n, N), images of this process × all images: True for other images of the patient, if patient-aware."""
        if not self.patient_aware:
            return None
        patients = distributed.gathered_rows(batch.patients)
        own = distributed.local_rows(torch.eye(len(patients), dtype=torch.bool, device=patients.device))
        return (batch.patients[:, None] == patients) & ~own

    def after_step(self, progress: float) -> None:
        """Update the momentum encoder; its momentum rises to 1."""
        m = 1 - (1 - self.momentum) * (math.cos(math.pi * progress) + 1) / 2
        follow(self.key, nn.Sequential(self.backbone, self.projector), m)


def _head(*widths: int, norm: bool) -> nn.Sequential:
    """Linear layers without biases, with batch norm and ReLU between them; norm: a batch norm without weights last."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs, bias=False), nn.BatchNorm1d(outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-2], *[nn.BatchNorm1d(widths[-1], affine=False)] * norm)


def _begin(backbone: Backbone, frozen: bool) -> None:
    """Initial weights, as published. A pretrained backbone keeps its own."""
    model = backbone.model
    if not backbone.pretrained:
        model.init_weights("moco")
        if type(model.patch_embed) is PatchEmbed:
            fix_positions(model)
            nn.init.xavier_uniform_(model.patch_embed.proj.weight.data.view(model.embed_dim, -1))
    model.patch_embed.requires_grad_(not frozen)


def _check(hidden: int, dim: int, momentum: float, temperature: float | str, patch_projection: str) -> None:
    """Refuse invalid options."""
    refuse_faults(
        {
            f"--hidden {hidden} must be at least 1": hidden < 1,
            f"--dim {dim} must be at least 1": dim < 1,
            f"--momentum {momentum} must be between 0 and 1": not 0 <= momentum <= 1,
            f"--temperature {temperature} must be above 0": not lowest(temperature) > 0,
            f"--patch-projection {patch_projection!r} must be frozen or trained": patch_projection
            not in ("frozen", "trained"),
        }
    )
