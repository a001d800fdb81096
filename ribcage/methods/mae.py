"""MAE: a vision transformer reconstructs the masked patches of an image from the visible patches.

He et al. 2021, https://arxiv.org/abs/2111.06377; for radiographs Xiao et al. 2022, https://arxiv.org/abs/2210.12843:

    L = mean over hidden patches p and their pixels i of (D(E(x_visible))_pi - x_pi)^2

Trained as in table 8 of the paper (appendix A.1): AdamW, 1.5e-4 per 256 images, a cosine to 0, for 800 epochs, as
long as all that section 4 compares.
"""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from timm.layers import LayerNorm, PatchEmbed
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 – the usual name

from ribcage.data.batch import Batch
from ribcage.imaging.augment import View
from ribcage.methods.base import Augment, Method, Step, refuse_faults
from ribcage.models.backbone import Backbone
from ribcage.models.hyperparameters import Hyperparameters
from ribcage.models.layers import choose_attention, permutation_tensor
from ribcage.models.linear import linear
from ribcage.models.mask_decoder import FirstBlock, LastBlock, rows
from ribcage.models.positions import fix_positions, sine_positions

CHINESE = "MAE：遮住视觉 Transformer 的大部分图像块，由其余部分重建"

DECODERS = {"dec512d8b": (512, 8), "dec512d2b": (512, 2), "dec128d2b": (128, 2)}
"""Width and number of blocks."""
HEADS = 16


class MAE(Method):
    """A vision transformer that encodes the visible patches, and a small one that decodes the masked ones.

    mask_ratio: fraction of patches that are masked; Xiao et al. found 0.9 best for radiographs
    decoder: decoder size; dec512d8b has width 512 and 8 blocks
    norm_pix: reconstruct patches normalised by their own mean and standard deviation
    decode_ratio: fraction of masked patches that are decoded, drawn anew in each step; 0.25 halves the time per step
    """

    hyperparameters = (
        Hyperparameters(
            optimizer="adamw", lr=1.5e-4, weight_decay=0.05, betas=(0.9, 0.95), warmup=40, epochs=800, batch=4096,
            source="table 8",
        ),
    )  # fmt: skip

    shardable = True
    pool = "avg"
    any_size = False  # the decoder has position embeddings of one grid of patches

    def __init__(
        self,
        backbone: Backbone,
        findings: Sequence[str] = (),
        *,
        mask_ratio: float = 0.75,
        decoder: Literal["dec512d8b", "dec512d2b", "dec128d2b"] = "dec512d8b",
        norm_pix: bool = False,
        decode_ratio: float = 1.0,
    ) -> None:
        super().__init__(backbone, findings)
        model = _transformer(backbone)
        self.patch, self.grid = model.patch_embed.patch_size, model.patch_embed.grid_size
        self.prefix, self.norm_pix = model.num_prefix_tokens, norm_pix
        count = self.grid[0] * self.grid[1]
        _check(mask_ratio, decoder, decode_ratio, count)
        self.visible = int(count * (1 - mask_ratio))
        self.drawn = max(1, round(decode_ratio * (count - self.visible)))
        width, depth = DECODERS[decoder]
        self.decoder_embed = nn.Linear(model.embed_dim, width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        self.decoder_pos_embed = nn.Parameter(sine_positions(self.grid, width, self.prefix), requires_grad=False)
        kinds = [FirstBlock, *[Block] * (depth - 2), LastBlock]
        self.decoder_blocks = nn.ModuleList(kind(width, HEADS, qkv_bias=True, norm_layer=LayerNorm) for kind in kinds)
        self.decoder_norm = LayerNorm(width)
        self.decoder_pred = nn.Linear(width, model.patch_embed.proj.weight[0].numel())
        self._begin()

    def views(self, size: tuple[int, int], augment: Augment = "radiograph") -> list[View]:
        """Crops of half to all of the image, and exposure; the paper uses smaller crops, and flips."""
        if augment == "paper":
            return [View(size, crop=(0.2, 1.0), ratio=(3 / 4, 4 / 3), flip=0.5)]
        return [View(size, crop=(0.5, 1.0), ratio=(3 / 4, 4 / 3), brightness=0.1, contrast=0.2, gamma=0.2)]

    def forward(self, batch: Batch) -> Step:
        """The mean squared error over the decoded pixels."""
        patches = self._patches(batch.views[0])  # (N, L, pixels)
        visible, hidden = self._places(batch)
        drawn = self._decoded(self._encoded(patches, visible), visible, hidden[:, : self.drawn])
        return Step(F.mse_loss(drawn.float(), self._targets(rows(patches, hidden[:, : self.drawn]))))

    @torch.no_grad()
    def reconstructed(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The encoder's input with masked patches at 0, and the same with these reconstructed: twice (N, C, H, W)."""
        patches = self._patches(batch.views[0])
        visible, hidden = self._places(batch)
        drawn = self._decoded(self._encoded(patches, visible), visible, hidden).float()
        if self.norm_pix:
            mean, spread = _moments(rows(patches, hidden))
            drawn = drawn * spread + mean
        index = hidden[:, :, None].expand_as(drawn)
        return self._images(patches.scatter(1, index, 0.0)), self._images(patches.scatter(1, index, drawn))

    def _places(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """(N, visible) and (N, hidden): a random permutation of each image's patches, split."""
        order = permutation_tensor(batch.chance, self.grid[0] * self.grid[1], batch.views[0].device)
        return order[:, : self.visible], order[:, self.visible :]

    def _encoded(self, patches: Tensor, visible: Tensor) -> Tensor:
        """(N, prefix + visible, dim): the model's own layers on the visible patches only."""
        model = self.backbone.model
        stem, blank = model.patch_embed, patches.new_zeros(1, *self.grid, model.embed_dim)
        places = model._pos_embed(blank if model.dynamic_img_size else blank.flatten(1, 2))[0]  # (prefix + L, dim)
        weight = stem.proj.weight.permute(0, 2, 3, 1).flatten(1)  # a convolution of stride `patch` is a linear layer
        tokens = stem.norm(linear(rows(patches, visible), weight, stem.proj.bias))
        tokens = tokens + rows(places[None, self.prefix :], visible)
        tokens = torch.cat([places[: self.prefix].expand(len(tokens), -1, -1), tokens], dim=1)
        # If features are the mean over patches, timm puts the last norm after pooling: it is applied and trained here.
        choose_attention(model.blocks, tokens.shape[1], tokens.device)
        return model.fc_norm(model.norm(model.blocks(model.norm_pre(tokens))))

    def _decoded(self, tokens: Tensor, visible: Tensor, hidden: Tensor) -> Tensor:
        """(N, hidden, pixels): from tokens of the visible patches, a mask token for each hidden one, and position
        embeddings."""
        choose_attention(self.decoder_blocks, tokens.shape[1] + hidden.shape[1], tokens.device)
        prefix = torch.arange(self.prefix, device=visible.device).expand(len(visible), -1)
        known = torch.cat([prefix, self.prefix + visible], dim=1)
        masks = self.mask_token[0] + self.decoder_pos_embed[0, self.prefix :]  # (L, width)
        first, *others, last = self.decoder_blocks
        tokens = first(self.decoder_embed(tokens) + rows(self.decoder_pos_embed, known), masks, hidden)
        for block in others:
            tokens = block(tokens)
        return self.decoder_pred(self.decoder_norm(last(tokens, hidden.shape[1])))

    def _targets(self, patches: Tensor) -> Tensor:
        if not self.norm_pix:
            return patches
        mean, spread = _moments(patches)
        return (patches - mean) / spread

    def _patches(self, images: Tensor) -> Tensor:
        """(N, C, H, W) → (N, L, pixels), a pixel's channels adjacent as in the published code."""
        if images.shape[2:] != (self.grid[0] * self.patch[0], self.grid[1] * self.patch[1]):
            came, expected = "×".join(map(str, images.shape[2:])), self.backbone.model.patch_embed.img_size
            raise ValueError(
                f"The images have {came} pixels, but the position embedding of the model expects {expected}."
            )
        tiles = images.unflatten(3, (self.grid[1], self.patch[1])).unflatten(2, (self.grid[0], self.patch[0]))
        return tiles.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)

    def _images(self, patches: Tensor) -> Tensor:
        """(N, L, pixels) → (N, C, H, W)"""
        tiles = patches.unflatten(2, (*self.patch, -1)).unflatten(1, self.grid)
        return tiles.permute(0, 5, 1, 3, 2, 4).flatten(4).flatten(2, 3)

    def _begin(self) -> None:
        """Initial weights, as published. A pretrained backbone keeps its own. All are trained, including position
        embeddings, since they may be learnt ones."""
        model = self.backbone.model
        if not self.backbone.pretrained:
            fix_positions(model)
            nn.init.xavier_uniform_(model.patch_embed.proj.weight.data.view(model.embed_dim, -1))
            for token in (model.cls_token, model.reg_token):
                if token is not None:
                    nn.init.normal_(token, std=0.02)
            model.blocks.apply(_xavier)
        nn.init.normal_(self.mask_token, std=0.02)
        for part in (self.decoder_embed, self.decoder_blocks, self.decoder_pred):
            part.apply(_xavier)


def _xavier(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def _moments(patches: Tensor) -> tuple[Tensor, Tensor]:
    """(N, K, 1) each: mean and standard deviation of a patch's pixels."""
    variance, mean = torch.var_mean(patches, dim=2, keepdim=True)
    return mean, (variance + 1e-6).sqrt()


def _transformer(backbone: Backbone) -> Any:
    """The backbone's model, if it is a plain vision transformer."""
    model = backbone.model
    if not isinstance(model, VisionTransformer) or type(model.patch_embed) is not PatchEmbed or model.pos_embed is None:
        raise ValueError(
            f"mae needs a vision transformer, such as vit_small_patch16_224, not {backbone.name}. For a CNN, use "
            f"mae_unet."
        )
    sides, patch = model.patch_embed.img_size, model.patch_embed.patch_size
    if any(side % step for side, step in zip(sides, patch, strict=True)):
        raise ValueError(
            f"--size must be a multiple of the patch size of {backbone.name}, {patch} pixels, but is {sides}."
        )
    if model.attn_pool is not None:
        raise ValueError(f"{backbone.name} uses attention pooling, which mae does not train. Use --pool avg.")
    return model


def _check(mask_ratio: float, decoder: str, decode_ratio: float, count: int) -> None:
    """Refuse invalid options."""
    both = 0 < mask_ratio < 1 and 1 <= int(count * (1 - mask_ratio)) < count
    refuse_faults(
        {
            f"--mask-ratio {mask_ratio} must leave at least one of {count} patches visible and one masked": not both,
            f"--decoder {decoder} must be one of {', '.join(DECODERS)}": decoder not in DECODERS,
            f"--decode-ratio {decode_ratio} must be above 0 and at most 1": not 0 < decode_ratio <= 1,
        }
    )
