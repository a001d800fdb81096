"""CheXNet as reproduced in 2017: {state_dict, …} of a DenseNet-121 on many devices, before torch counted batches.

    module.densenet121.features.denseblock1.denselayer1.norm.1.weight     torchvision's names of 2017, now norm1
    module.densenet121.classifier.0.weight                                a sigmoid is behind it

https://github.com/arnoweng/CheXNet; also DTforCXR8's model3.pth, without the dots before numbers.
"""

import re
from collections.abc import Collection

from torch import Tensor

from ribcage.findings import CHESTXRAY14
from ribcage.weights.foreign import DENSENETS, MEAN, STD, Published, architecture

SOURCE = "https://github.com/arnoweng/CheXNet"
LICENCE = "none stated; learnt from ChestX-ray14"
BEFORE = re.compile(r"^densenet\d+\.")
DOTTED = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12])\.")


def recognises(names: Collection[str]) -> bool:
    """Whether a DenseNet with its name before every weight is in the file."""
    return any(BEFORE.match(name) and ".features." in name for name in names)


def published(weights: dict[str, Tensor]) -> Published:
    """Under timm's names."""
    plain = {DOTTED.sub(r"\1\2.", BEFORE.sub("", name)): value for name, value in weights.items()}
    state = {name.replace("classifier.0.", "classifier."): value for name, value in plain.items()}
    findings = CHESTXRAY14 if len(state.get("classifier.bias", ())) == len(CHESTXRAY14) else ()
    name = architecture(state, DENSENETS)
    return Published(state, MEAN, STD, name=name, findings=findings, data="ChestX-ray14" if findings else "")
