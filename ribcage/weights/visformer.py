"""Visformer's published files: timm's names but for the batch norms, each wrapped in a module, as in `norm.bn`.

Chen et al. 2021, https://arxiv.org/abs/2104.12533, https://github.com/danczs/Visformer.
"""

from collections.abc import Collection

from torch import Tensor


def recognises(names: Collection[str]) -> bool:
    """Whether a norm of the stem is wrapped and there are three maps of positions."""
    return {"stem.1.bn.weight", "pos_embed1", "pos_embed2", "pos_embed3"} <= set(names)


def renamed(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Under timm's names."""
    return {name.replace(".bn.", "."): value for name, value in weights.items()}
