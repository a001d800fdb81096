"""darmo: the mobile networks EEEA-Net-C1, EEEA-Net-C2 and OFA-595, also as fine-tuned by DTforCXR8.

A file contains a plain state dict:
    first_conv.conv, blocks.N.mobile_inverted_conv.*, feature_mix_layer.conv, classifier.linear; fine-tuned: classifier

Termritthikun et al. 2021, https://arxiv.org/abs/2108.06156; Cai et al. 2020, https://arxiv.org/abs/1908.09791
"""

from collections.abc import Mapping

from torch import Tensor

from ribcage.bundle.formats.reading.published_weights import (
    MEAN,
    STD,
    Evidence,
    Published,
    architecture,
    with_dtforcxr8_findings,
)

SOURCE = "https://github.com/jitdee-ai/darmo"
LICENCE = "Apache-2.0 (code); weights trained on ImageNet"
SEEN = Evidence("names", "first_conv.conv and mobile_inverted_conv")
MODELS = ("eeea_net_c1", "eeea_net_c2", "ofa_595")


def recognises(weights: Mapping[str, Tensor]) -> bool:
    """Whether there are darmo's inverted residual blocks."""
    return "first_conv.conv.weight" in weights and any(".mobile_inverted_conv." in name for name in weights)


def published(weights: dict[str, Tensor]) -> Published:
    """The weights under timm's names, and what the layout implies about them."""
    state = {name.replace("classifier.linear.", "classifier."): value for name, value in weights.items()}
    return with_dtforcxr8_findings(
        Published(state, MEAN, STD, name=architecture(state, MODELS), evidence=SEEN), "classifier"
    )
