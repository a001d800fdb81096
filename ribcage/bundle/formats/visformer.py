"""Visformer files: the names of timm, but with batch norms wrapped in a module, as in `norm.bn`.

A head with a sigmoid behind it is `head.0`; what 14 rows answer is DTforCXR8's.

Chen et al. 2021, https://arxiv.org/abs/2104.12533
"""

from collections.abc import Collection

from torch import Tensor

from ribcage.bundle.formats.reading.published_weights import MEAN, STD, Evidence, Published, architecture, numbered

SOURCE = "https://github.com/danczs/Visformer"
LICENCE = "Apache-2.0 (code); weights trained on ImageNet"
SEEN = Evidence("names", "stem.1.bn and three maps of positions")
MODELS = ("visformer_small", "visformer_tiny")


def recognises(names: Collection[str]) -> bool:
    """Whether a norm of the stem is wrapped and there are three maps of positions."""
    return {"stem.1.bn.weight", "pos_embed1", "pos_embed2", "pos_embed3"} <= set(names)


def published(weights: dict[str, Tensor]) -> Published:
    """Under timm's names."""
    state = {name.replace(".bn.", ".").replace("head.0.", "head."): value for name, value in weights.items()}
    return numbered(Published(state, MEAN, STD, name=architecture(state, MODELS), evidence=SEEN), "head")
