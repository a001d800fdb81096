"""torchvision: a bare dict of the weights under the names of torchvision's own model.

    model = torchvision.models.resnet18()
    model.load_state_dict(torch.load("resnet18_xray.pth"), strict=False)    # fc is missing

It sees RGB, or gray three times, normalised as for ImageNet. A supervised method's classifier is in the file, too.
"""

from pathlib import Path

from ribcage.bundle import Model
from ribcage.methods import Method
from ribcage.methods.supervised import Supervised
from ribcage.weights import base

SOURCE = "https://github.com/pytorch/vision"
LICENCE = "BSD-3-Clause (code); weights learnt from ImageNet"


def export(method: Method, model: Model, target: Path) -> Path:
    """Write the file; into a folder as resnet18_xray.pth."""
    weights = base.as_torchvision(method.backbone, model)
    if isinstance(method, Supervised) and method.findings:
        fc = base.classifier(model.name)
        weights |= {f"{fc}.{name}": base.taken(value) for name, value in method.head.state_dict().items()}
    return base.write(weights, target, f"{base.plain(model.name)}_xray.pth")
