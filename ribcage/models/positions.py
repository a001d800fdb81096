"""Position embeddings of vision transformers by sines and cosines, which are not trained."""

import torch
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn


def sine_positions(grid: tuple[int, int], width: int, prefix: int) -> Tensor:
    """(1, prefix + L, width): sines and cosines of column and row, zeros for prefix tokens."""
    rows, columns = (torch.arange(side, dtype=torch.float64) for side in grid)
    rates = 10000 ** -(torch.arange(width // 4, dtype=torch.float64) / (width / 4))
    across, down = (place[:, None] * rates for place in (columns, rows))  # (side, width / 4)
    across, down = (torch.cat([turn.sin(), turn.cos()], dim=1) for turn in (across, down))
    places = torch.cat([across.expand(grid[0], -1, -1), down[:, None].expand(-1, grid[1], -1)], dim=2)
    return torch.cat([places.new_zeros(prefix, width), places.flatten(0, 1)])[None].float()


def fix_positions(model: VisionTransformer | Eva) -> None:
    """Give a vision transformer of timm these position embeddings, if it has any, as MAE, MoCo v3 and I-JEPA do."""
    if model.pos_embed is not None:
        prefix = 0 if model.no_embed_class else model.num_prefix_tokens
        places = sine_positions(model.patch_embed.grid_size, model.embed_dim, prefix)
        model.pos_embed = nn.Parameter(places, requires_grad=False)
