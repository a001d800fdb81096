"""DINOv2: DINO, whose network also predicts the teacher's assignments of masked patches, and spreads its features.

Oquab et al. 2023, https://arxiv.org/abs/2304.07193, section 4. L = L_DINO + w L_iBOT + k L_KoLeo:

    L_DINO  = mean over pairs of a large crop u and another crop v of -p_u.log softmax(s_v / tau)
    L_iBOT  = 1/2n sum over masked crops of the mean over their masked patches i of -p_i.log softmax(s_i / tau)
    L_KoLeo = sum over the two large crops of the mean over images of -log min_j |x_i - x_j|

s are the student's cosines with the prototypes; p are the teacher's, divided by its temperature and assigned evenly to
the prototypes by three iterations of the Sinkhorn-Knopp algorithm over the global batch; x are the student's features
of length 1, whose nearest neighbours are sought among the images of the global batch.

One of the two large crops of each image is masked, by blocks of patches; in the authors' code it is a random half of
all large crops of a process. The student sees a mask token in place of masked patches, the teacher sees all patches.

Trained as by the authors' ssl_default_config.yaml, https://github.com/facebookresearch/dinov2: AdamW, 4e-3 for 1024
images (there proportional to the root of the batch size), ten epochs of warm-up, a cosine to 1e-6, a weight decay from
0.04 to 0.4, gradients clipped at 3, 100 epochs. Its layer decay of 0.9 and stochastic depth of 0.3 are --layer-decay
and --drop-path.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 – the usual name

from ribcage.data.batch import Batch
from ribcage.methods.base import Step, refuse_faults
from ribcage.methods.dino import DINO
from ribcage.models.backbone import Backbone
from ribcage.models.hyperparameters import Hyperparameters
from ribcage.models.layers import follow, teacher_copy
from ribcage.models.multi_crop import by_image, by_size, different_crops
from ribcage.models.patch_masks import masked_crops
from ribcage.models.prototypes import PrototypeHead, cross_entropy, prototypes_used, sinkhorn
from ribcage.models.tokens import check_patch_transformer, patch_features, patch_grid, token_features
from ribcage.runtime import distributed
from ribcage.runtime.schedules import Ramp

CHINESE = "DINOv2：在 DINO 的基础上，还预测被遮住图像块的原型分配，并使特征分散"

ITERATIONS = 3
"""Iterations of the Sinkhorn-Knopp algorithm."""
SMALLEST = 1e-8
"""Added to distances, whose logarithm is taken."""


class DINOv2(DINO):
    """Crops, prototypes and teacher of DINO, masked patches, and the regularisation of features.

    crops: number of small crops
    crop_side: height of small crops in pixels; 0 means 96 for images of 224 pixels, and in proportion
    prototypes: number of prototypes
    separate_head: project patches by a head of their own, with prototypes of its own
    patch_weight: weight w of the loss of masked patches
    koleo_weight: weight k of the regularisation of features
    mask_min: smallest fraction of masked patches in a masked crop
    mask_max: largest fraction of masked patches in a masked crop
    temperature: temperature tau of the student
    teacher_temperature: temperature of the teacher after its warm-up
    warmup_temperature: temperature of the teacher at the start, from which it rises linearly
    temperature_warmup: fraction of the run in which the teacher's temperature rises; by the authors, 30 epochs of 100
    momentum: initial momentum of the teacher, which rises to 1
    freeze_prototypes: fraction of the run in which the prototypes are frozen; by the authors, the first epoch of 100
    hidden: hidden width of the projection head
    dim: width of the projections
    patient_aware: draw the other views from another image of the same patient, if there is one
    """

    divisible = False
    between: ClassVar[float] = 0.32
    hyperparameters = (
        Hyperparameters(
            optimizer="adamw", lr=1e-3, weight_decay="0.04:0.4", warmup=10, end=2.5e-4, clip=3.0, epochs=100,
            batch=1024, source="ssl_default_config.yaml",
        ),
    )  # fmt: skip

    def __init__(
        self,
        backbone: Backbone,
        findings: Sequence[str] = (),
        *,
        crops: int = 8,
        crop_side: int = 0,
        prototypes: int = 65536,
        separate_head: bool = False,
        patch_weight: float = 1.0,
        koleo_weight: float = 0.1,
        mask_min: float = 0.1,
        mask_max: float = 0.5,
        temperature: float | str = 0.1,
        teacher_temperature: float = 0.07,
        warmup_temperature: float = 0.04,
        temperature_warmup: float = 0.3,
        momentum: float = 0.992,
        freeze_prototypes: float = 0.01,
        hidden: int = 2048,
        dim: int = 256,
        patient_aware: bool = False,
    ) -> None:
        check_patch_transformer(backbone, "dinov2")
        ordered = 0 <= mask_min <= mask_max <= 1
        both = {"teacher-temperature": teacher_temperature, "warmup-temperature": warmup_temperature}
        refuse_faults(
            {
                f"--patch-weight {patch_weight} must be 0 or more": not patch_weight >= 0,
                f"--koleo-weight {koleo_weight} must be 0 or more": not koleo_weight >= 0,
                f"--mask-min {mask_min} and --mask-max {mask_max} must be between 0 and 1, in this order": not ordered,
                **{f"--{name} {value} must be 0.03 or more": not value >= 0.03 for name, value in both.items()},
            }
        )
        patch_grid(backbone, backbone.size)  # refuses sizes that are no multiple of the patch
        super().__init__(
            backbone,
            findings,
            crops=crops,
            crop_side=crop_side,
            prototypes=prototypes,
            temperature=temperature,
            teacher_temperature=teacher_temperature,
            warmup_temperature=warmup_temperature,
            temperature_warmup=temperature_warmup,
            momentum=momentum,
            freeze_prototypes=freeze_prototypes,
            hidden=hidden,
            dim=dim,
            patient_aware=patient_aware,
        )
        backbone.accept_any_size()
        self.patch_weight, self.koleo_weight, self.masked = patch_weight, koleo_weight, (mask_min, mask_max)
        self.mask_token = nn.Parameter(torch.zeros(backbone.model.embed_dim))
        self.patch_head = PrototypeHead(backbone.dim, hidden, dim, prototypes) if separate_head else None
        self.patch_teacher = teacher_copy(self.patch_head) if self.patch_head is not None else None
        self.register_buffer("centre", None)  # the Sinkhorn-Knopp algorithm takes its place

    def faults(self, images: int, batch: int) -> list[str]:
        """Error if a batch has a single image, which has no nearest neighbour."""
        return [f"--batch {batch} must be at least 2 for dinov2"] * (batch < 2)

    def forward(self, batch: Batch) -> Step:
        """Section 4: the three losses."""
        large = torch.cat(batch.views[:2])
        grid = patch_grid(self.backbone, (large.shape[2], large.shape[3]))
        masks, places = masked_crops(batch.chance, *grid, *self.masked, large.device)  # (2n, L), (n · k,)
        masked = masks.flatten().index_select(0, places).to(large)  # 0 where an image has fewer than k masked patches
        t, t_patches = self._taught(large, places)  # (n, 2, K), (n · k, K)
        x, s, s_patches = self._student_of(large, batch.views[2:], masks, places)  # (2, n, D), (n, V, K), (n · k, K)
        p = sinkhorn(t.flatten(0, 1), self.tau_teacher, ITERATIONS).unflatten(0, (-1, 2))
        dino = different_crops(cross_entropy(p, s / self.temperature)).mean()
        p = sinkhorn(t_patches, self.tau_teacher, ITERATIONS, masked)
        patches = cross_entropy(p[:, None], s_patches[:, None] / self.temperature).view(len(batch), -1)  # (n, k)
        masked = masked.view_as(patches)
        ibot = ((masked * patches).sum(1) / masked.sum(1)).sum() / len(masks)
        koleo = nearest_distances(x[0]).mean() + nearest_distances(x[1]).mean()
        loss = dino + self.patch_weight * ibot + self.koleo_weight * koleo
        return Step(loss, {"dino": dino, "ibot": ibot, "koleo": koleo, "prototypes": prototypes_used(t)})

    def _student_of(
        self, large: Tensor, small: Sequence[Tensor], masks: Tensor, places: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(2, n, D): features of the large crops; (n, V, K) and (n · k, K): cosines of all crops and of patches."""
        tokens = token_features(self.backbone, large, masked=masks, mask_token=self.mask_token)
        features = self.backbone.pool(tokens)  # (2n, D)
        crops = torch.cat([features, by_size(small, self.backbone)]) if small else features
        patches = patch_features(self.backbone, tokens).flatten(0, 1).index_select(0, places)
        s, s_patches = self._projected(self.head, self.patch_head, crops, patches)
        return features.unflatten(0, (2, -1)), by_image(s, 2 + len(small)), s_patches

    @torch.no_grad()
    def _taught(self, large: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        """(n, 2, K) and (n · k, K): the teacher's cosines of the large crops and of patches that the student does not
        see."""
        backbone: Any = self.teacher[0]
        tokens = token_features(backbone, large)
        patches = patch_features(backbone, tokens).flatten(0, 1).index_select(0, places)
        t, t_patches = self._projected(self.teacher[1], self.patch_teacher, backbone.pool(tokens), patches)
        return by_image(t, 2), t_patches

    def _projected(
        self, head: nn.Module, patch_head: nn.Module | None, crops: Tensor, patches: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The cosines of features of crops and of patches, in one pass through a shared head."""
        if patch_head is not None:
            return head(crops, self.frozen), patch_head(patches, self.frozen)
        both = head(torch.cat([crops, patches]), self.frozen)
        return both[: len(crops)], both[len(crops) :]

    def after_step(self, progress: float) -> None:
        """Update the teacher."""
        super().after_step(progress)
        if self.patch_head is not None and self.patch_teacher is not None:
            follow(self.patch_teacher, self.patch_head, Ramp(self.momentum, 1.0).at(progress))


def nearest_distances(features: Tensor) -> Tensor:
    """(n, D) → (n,): -log of the distance between directions of an image and of its nearest neighbour in the global
    batch."""
    x = F.normalize(features.float(), dim=1, eps=SMALLEST)
    everyone = distributed.gathered_rows(x)  # (N, D)
    with torch.autocast(x.device.type, enabled=False), torch.no_grad():
        own = distributed.local_rows(torch.eye(len(everyone), dtype=torch.bool, device=x.device))
        nearest = (x @ everyone.T).masked_fill(own, -2.0).argmax(1)
    return -(F.pairwise_distance(x, everyone.index_select(0, nearest), eps=SMALLEST) + SMALLEST).log()
