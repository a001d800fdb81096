"""Visformer: the weight names of timm, except that batch norms are wrapped in a module, as in `norm.bn`.

A head that is followed by a sigmoid is named `head.0`. A model with 14 outputs is taken to be one of DTforCXR8, which
determines the findings.

Chen et al. 2021, https://arxiv.org/abs/2104.12533
"""

from collections.abc import Collection

from torch import Tensor

from ribcage.bundle.formats.reading.published_weights import (
    MEAN,
    STD,
    Evidence,
    Published,
    architecture,
    with_dtforcxr8_findings,
)

SOURCE = "https://github.com/danczs/Visformer"
LICENCE = "Apache-2.0 (code); weights trained on ImageNet"
SEEN = Evidence("names", "stem.1.bn and three position embeddings")
MODELS = ("visformer_small", "visformer_tiny")


def recognises(names: Collection[str]) -> bool:
    """Whether there are a wrapped norm in the stem and three position embeddings."""
    return {"stem.1.bn.weight", "pos_embed1", "pos_embed2", "pos_embed3"} <= set(names)


def published(weights: dict[str, Tensor]) -> Published:
    """The weights under timm's names, and what the layout implies about them."""
    state = {name.replace(".bn.", ".").replace("head.0.", "head."): value for name, value in weights.items()}
    return with_dtforcxr8_findings(Published(state, MEAN, STD, name=architecture(state, MODELS), evidence=SEEN), "head")
