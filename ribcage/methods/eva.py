"""EVA: a vision transformer predicts, at masked patches, the features of a frozen teacher that sees the whole image.

Fang et al. 2022, https://arxiv.org/abs/2211.07636, and 2023, EVA-02, https://arxiv.org/abs/2303.11331; for radiographs
EVA-X, Yao et al. 2024, https://arxiv.org/abs/2405.05237, whose teacher was trained by contrasting images and reports.
With the set M of masked patches, the student's normalised features f of the masked image and the teacher's t:

    L = mean over p in M of 1 - cos(P f_p, t_p)      P is a linear layer, t is not trained

Patches are masked in blocks and replaced by a mask token, with their position. The published loss lacks the constant 1;
the published code also scales the gradient of the patch projection by .1, which AdamW undoes.

Trained as eva02_S_pt_in21k_p14 in EVA-02/asuka/README.md of https://github.com/baaivision/EVA: AdamW with betas .9 and
.98, 3e-3 for batches of 4000, 240 epochs, one of warm-up, 40 % of the patches masked. Of its training, EVA-X publishes
the epochs: 900 for ViT-Ti, 600 for ViT-S and ViT-B.
"""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 – the usual name

from ribcage.data.batch import Batch
from ribcage.imaging.augment import View
from ribcage.methods.base import Augment, Method, Step, refuse_faults
from ribcage.models.backbone import Backbone
from ribcage.models.hyperparameters import Hyperparameters
from ribcage.models.mask_decoder import rows
from ribcage.models.patch_masks import block_mask_tensor, places_of
from ribcage.models.tokens import check_patch_transformer, patch_features, patch_grid, token_features

CHINESE = "EVA：视觉 Transformer 在被遮住的图像块处预测冻结的对比学习教师的特征（EVA-X）"


class PatchTeacher(Protocol):
    """A frozen vision transformer that is no submodule of the student: it is not saved, trained or copied with it."""

    dim: int
    """Dimension of its features."""

    def __call__(self, images: Tensor, grid: tuple[int, int]) -> Tensor:
        """(N, L, dim): its features of images as the student sees them, on the student's grid of L patches."""


class EVA(Method):
    """A vision transformer, and a linear layer that predicts the teacher's features.

    teacher: the frozen teacher
    mask_ratio: fraction of patches that are masked
    """

    takes_teacher = True
    pool = "avg"
    any_size = False  # the teacher sees images of one size
    hyperparameters = (
        Hyperparameters(
            optimizer="adamw", lr=3e-3 * 256 / 4000, weight_decay=0.05, betas=(0.9, 0.98), warmup=1, epochs=240,
            batch=4000, source="EVA-02/asuka/README.md",
        ),
    )  # fmt: skip

    def __init__(
        self,
        backbone: Backbone,
        findings: Sequence[str] = (),
        *,
        teacher: PatchTeacher | None = None,
        mask_ratio: float = 0.4,
    ) -> None:
        super().__init__(backbone, findings)
        check_patch_transformer(backbone, "eva")
        self.grid = patch_grid(backbone, backbone.size)
        count = self.grid[0] * self.grid[1]
        refuse_faults({f"--mask-ratio {mask_ratio} must be above 0 and below 1": not 0 < mask_ratio < 1})
        if teacher is None:
            raise ValueError("eva needs a teacher: pass a pretrained vision transformer with --teacher.")
        self.teacher, self.mask_ratio, self.masked = teacher, mask_ratio, max(1, int(mask_ratio * count))
        self.mask_token = nn.Parameter(torch.zeros(backbone.model.embed_dim))
        self.head = nn.Linear(backbone.model.embed_dim, teacher.dim)
        nn.init.trunc_normal_(self.mask_token, std=0.02)
        nn.init.trunc_normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)

    def views(self, size: tuple[int, int], augment: Augment = "radiograph") -> list[View]:
        """Crops of half to all of the image, and exposure; the published ones are smaller, with flips."""
        if augment == "paper":
            return [View(size, crop=(0.2, 1.0), ratio=(3 / 4, 4 / 3), flip=0.5)]
        return [View(size, crop=(0.5, 1.0), ratio=(3 / 4, 4 / 3), brightness=0.1, contrast=0.2, gamma=0.2)]

    def forward(self, batch: Batch) -> Step:
        """The mean over masked patches of 1 - cos."""
        images = batch.views[0]
        masks = block_mask_tensor(batch.chance, *self.grid, self.mask_ratio, self.mask_ratio, images.device)  # (N, L)
        places = places_of(masks, self.masked)  # (N, masked)
        t = rows(self.teacher(images, self.grid), places).float()  # (N, masked, teacher.dim)
        tokens = token_features(self.backbone, images, masked=masks, mask_token=self.mask_token)
        f = self.head(rows(patch_features(self.backbone, tokens), places)).float()
        return Step((1 - F.cosine_similarity(f, t, dim=2)).mean())
