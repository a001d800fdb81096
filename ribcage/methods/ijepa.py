"""I-JEPA: a vision transformer predicts the features of several blocks of an image from another block.

Assran et al. 2023, https://arxiv.org/abs/2301.08243, section 3. E encodes the patches of the context only, the target
encoder E' the whole image. The predictor G gets the context and the places of a target block B, of which there are M:

    L = 1/M sum_B mean over patches p in B of d(G(E(x_context), B)_p, LN(E'(x)_p)),   w' <- m w' + (1 - m) w,
    m = m_0 + (1 - m_0) progress

LN normalises a target to mean 0 and variance 1. d is the smooth L1 distance of the authors' code, or half the squared
distance, which the paper has up to the factor; both are means over features.

Trained as in configs/in1k_vith14_ep300.yaml of https://github.com/facebookresearch/ijepa: AdamW, 1e-3 for batches of
2048, 300 epochs, 40 of them of warm-up, a cosine to 1e-6; the weight decay rises from .04 to .4.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from timm.layers import LayerNorm
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 – the usual name

from ribcage.data.batch import Batch
from ribcage.imaging.augment import View
from ribcage.methods.base import Augment, Method, Step, refuse_faults
from ribcage.models.backbone import Backbone
from ribcage.models.hyperparameters import Hyperparameters
from ribcage.models.layers import choose_attention, follow, follower
from ribcage.models.mask_decoder import rows
from ribcage.models.positions import fix_positions, sine_positions
from ribcage.models.target_blocks import BlockCounts, drawn_blocks
from ribcage.models.tokens import check_patch_transformer, patch_features, patch_grid, token_features

CHINESE = "I-JEPA：视觉 Transformer 由图像的一个区域预测其他区域的特征，不重建像素"


def half_squared(p: Tensor, h: Tensor) -> Tensor:
    """The mean of (p - h)² / 2."""
    return F.mse_loss(p, h) / 2


DISTANCES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"smooth_l1": F.smooth_l1_loss, "l2": half_squared}
"""d, a mean over images, blocks, patches and features."""


class IJEPA(Method):
    """An encoder of the context, a target encoder, which is its moving average, and a predictor.

    targets: number of target blocks M
    predictor_dim: width of the predictor
    predictor_depth: number of blocks of the predictor; published: 6 for ViT-B, 12 for larger ones
    momentum: initial momentum m_0 of the target encoder, which rises to 1
    distance: distance d: smooth_l1, as in the authors' code, or l2, as in the paper
    """

    pool = "avg"
    any_size = False  # the predictor has position embeddings of one grid of patches
    hyperparameters = (
        Hyperparameters(
            optimizer="adamw", lr=1.25e-4, weight_decay="0.04:0.4", warmup=40, most=0.15, end=1e-3, epochs=300,
            batch=2048, source="configs/in1k_vith14_ep300.yaml",
        ),
    )  # fmt: skip

    def __init__(
        self,
        backbone: Backbone,
        findings: Sequence[str] = (),
        *,
        targets: int = 4,
        predictor_dim: int = 384,
        predictor_depth: int = 12,
        momentum: float = 0.996,
        distance: Literal["smooth_l1", "l2"] = "smooth_l1",
    ) -> None:
        super().__init__(backbone, findings)
        check_patch_transformer(backbone, "ijepa")
        heads = backbone.model.blocks[0].attn.num_heads
        self.blocks = BlockCounts(patch_grid(backbone, backbone.size), targets)
        _check(self.blocks, predictor_dim, predictor_depth, momentum, distance, heads)
        self.momentum, self.distance = momentum, DISTANCES[distance]
        self.predictor_embed = nn.Linear(backbone.model.embed_dim, predictor_dim)
        self.mask_token = nn.Parameter(torch.zeros(predictor_dim))
        self.predictor_pos_embed = nn.Parameter(sine_positions(self.blocks.grid, predictor_dim, 0)[0], False)
        self.predictor_blocks = nn.ModuleList(
            Block(predictor_dim, heads, qkv_bias=True, norm_layer=LayerNorm) for _ in range(predictor_depth)
        )
        self.predictor_norm = LayerNorm(predictor_dim)
        self.predictor_proj = nn.Linear(predictor_dim, backbone.model.embed_dim)
        self._begin()
        self.target = follower(backbone)

    def views(self, size: tuple[int, int], augment: Augment = "radiograph") -> list[View]:
        """Crops of half to all of the image, and exposure; the paper has smaller crops, and nothing else."""
        if augment == "paper":
            return [View(size, crop=(0.3, 1.0), ratio=(3 / 4, 4 / 3))]
        return [View(size, crop=(0.5, 1.0), ratio=(3 / 4, 4 / 3), brightness=0.1, contrast=0.2, gamma=0.2)]

    def forward(self, batch: Batch) -> Step:
        """The mean distance over the patches of all target blocks."""
        images = batch.views[0]
        context, targets = drawn_blocks(batch.chance, self.blocks, images.device)  # (N, C), (N, M, K)
        h = self._target_features(images, targets)  # (N, M, K, dim)
        z = patch_features(self.backbone, token_features(self.backbone, images, visible=context))  # (N, C, dim)
        return Step(self.distance(self._predicted(z, context, targets).float(), h))

    @torch.no_grad()
    def _target_features(self, images: Tensor, targets: Tensor) -> Tensor:
        """(N, M, K, dim): the normalised features of the patches of each target block."""
        h = patch_features(self.target, token_features(self.target, images)).float()  # (N, L, dim)
        return rows(F.layer_norm(h, h.shape[-1:]), targets.flatten(1)).unflatten(1, targets.shape[1:])

    def _predicted(self, z: Tensor, context: Tensor, targets: Tensor) -> Tensor:
        """(N, M, K, dim): each target block is predicted on its own, from the context and a mask token for each of its
        patches."""
        places = self.predictor_pos_embed  # (L, width)
        known = self.predictor_embed(z) + places[context]  # (N, C, width)
        asked = (self.mask_token + places[targets]).to(known)  # (N, M, K, width)
        known = known[:, None].expand(-1, targets.shape[1], -1, -1)
        tokens = torch.cat([known, asked], dim=2).flatten(0, 1)  # (N · M, C + K, width)
        choose_attention(self.predictor_blocks, tokens.shape[1], tokens.device)
        for block in self.predictor_blocks:
            tokens = block(tokens)
        answers = self.predictor_proj(self.predictor_norm(tokens[:, context.shape[1] :]))
        return answers.unflatten(0, targets.shape[:2])

    def after_step(self, progress: float) -> None:
        """Update the target encoder; its momentum rises to 1."""
        follow(self.target, self.backbone, self.momentum + (1 - self.momentum) * progress)

    def _begin(self) -> None:
        """Initial weights, as published. A pretrained backbone keeps its own."""
        if not self.backbone.pretrained:
            fix_positions(self.backbone.model)
            _rescale(self.backbone.model.blocks)
        nn.init.trunc_normal_(self.mask_token, std=0.02)
        for part in (self.predictor_embed, self.predictor_blocks, self.predictor_proj):
            part.apply(_truncated)
        _rescale(self.predictor_blocks)


def _truncated(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)


@torch.no_grad()
def _rescale(blocks: Any) -> None:
    """Divide the last layer of each residual branch by the root of twice the number of its block."""
    for number, block in enumerate(blocks, 1):
        for layer in (block.attn.proj, block.mlp.fc2):
            layer.weight.div_(math.sqrt(2 * number))


def _check(counts: BlockCounts, dim: int, depth: int, momentum: float, distance: str, heads: int) -> None:
    """Refuse invalid options."""
    refuse_faults(
        {
            f"--targets {counts.targets} must be at least 1": counts.targets < 1,
            f"--targets {counts.targets} with {counts.target} patches each leave no context of "
            f"{counts.grid[0]} × {counts.grid[1]} patches: use fewer, or a larger --size": counts.context < 1,
            f"--predictor-dim {dim} must be a multiple of 4 and of the {heads} heads of the backbone": dim < 1
            or dim % 4 > 0
            or dim % heads > 0,
            f"--predictor-depth {depth} must be at least 1": depth < 1,
            f"--momentum {momentum} must be between 0 and 1": not 0 <= momentum <= 1,
            f"--distance {distance!r} must be smooth_l1 or l2": distance not in DISTANCES,
        }
    )
