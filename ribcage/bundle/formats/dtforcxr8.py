"""DTforCXR8: bare weights of five models and of their students, in files with a number.

    model1.pth  eeea_net_c2         the names of darmo
    model2.pth  ofa_595             the names of darmo
    model3.pth  densenet121         CheXNet: densenet121.features.*, densenet121.classifier.0.*
    model4.pth  visformer_small     the names of Visformer: norms wrapped, as in norm.bn.*
    model5.pth  autoformer_v2_base  the names of AutoFormerV2, with what windows need to be shifted
    modeldN.pth eeea_net_c2         distilled from model N

All see RGB, or gray three times, normalised as for ImageNet, and answer the 14 findings of ChestX-ray14 in its order,
as logits; of CheXNet its own program takes the sigmoid. The head of models 4 and 5 is `head.*`, as the programs that
test them read it; those that train them write `head.0.*`. `--init` reads both.

https://github.com/ruiqingyan1/DTforCXR8
"""

from pathlib import Path

from timm.models.swin_transformer import SwinTransformerBlock
from torch import Tensor, nn

from ribcage.bundle.formats.writing import base
from ribcage.bundle.spec import ModelSpec
from ribcage.data.findings import CHESTXRAY14
from ribcage.methods import Method
from ribcage.methods.supervised import Supervised
from ribcage.models.backbone import Backbone

SOURCE = "https://github.com/ruiqingyan1/DTforCXR8"
LICENCE = "none stated"

MODELS = ("eeea_net_c2", "ofa_595", "densenet121", "visformer_small", "autoformer_v2_base")
"""By their numbers, from 1 on."""
STUDENT = MODELS[0]
SIZED = MODELS[3:]
"""Those whose weights are made for one size."""
CHEXNET = "densenet121."


def export(method: Method, model: ModelSpec, target: Path) -> Path:
    """Write the file; into a folder as model1.pth … model5.pth or, for a student, modeld1.pth … modeld5.pth."""
    name, teachers = base.plain_name(model.name), taught_by(model)
    check_exportable(method, model, name, teachers)
    last = "head" if name in SIZED else "classifier"
    found = base.rgb_weights(method.backbone, model) | {
        f"{last}.{part}": value for part, value in reordered_head(method).items()
    }
    if name == "densenet121":
        found = {f"{CHEXNET}{key.replace('classifier.', 'classifier.0.')}": value for key, value in found.items()}
    elif name == "visformer_small":
        found = wrapped(found, method.backbone)
    elif name == "autoformer_v2_base":
        found = {dtforcxr8_downsample(key): value for key, value in found.items()} | windows(method.backbone)
    kind, number = ("modeld", teachers[0]) if teachers else ("model", name)
    return base.write_weights(found, target, f"{kind}{MODELS.index(number) + 1}.pth")


def check_exportable(method: Method, model: ModelSpec, name: str, teachers: list[str]) -> None:
    """Raise where the programs that read these files would not take the model, or would hear other answers from it."""
    wrong = []
    if name not in MODELS:
        wrong.append(f"{name} is not among its models ({', '.join(MODELS)})")
    if teachers and (name != STUDENT or len(teachers) > 1 or teachers[0] not in MODELS):
        wrong.append(f"its students are {STUDENT}s of one of these models, not {name}s of {', '.join(teachers)}")
    if name in SIZED and model.size != (224, 224):
        wrong.append(f"its {name} sees 224 × 224 pixels, not {model.size[0]} × {model.size[1]}")
    if wrong := wrong + base.unlike_chexnet(method, model):
        raise ValueError(f"The dtforcxr8 layout does not fit: {'; '.join(wrong)}.")


def taught_by(model: ModelSpec) -> list[str]:
    """The architectures of a student's teachers."""
    return [base.plain_name(teacher.name) for teacher in model.training.teachers or ()]


def reordered_head(method: Method) -> dict[str, Tensor]:
    """The last layer, its rows in the order of ChestX-ray14."""
    assert isinstance(method, Supervised)
    order = [method.findings.index(name) for name in CHESTXRAY14]
    return {part: base.taken(value)[order] for part, value in method.head.state_dict().items()}


def wrapped(weights: dict[str, Tensor], backbone: Backbone) -> dict[str, Tensor]:
    """Each batch norm in a module of its own: norm.weight → norm.bn.weight"""
    norms = {name for name, module in backbone.model.named_modules() if isinstance(module, nn.BatchNorm2d)}
    owners = {key: key.rpartition(".") for key in weights}
    return {f"{owner}.bn.{part}" if owner in norms else key: weights[key] for key, (owner, _, part) in owners.items()}


def dtforcxr8_downsample(name: str) -> str:
    """Where a map is halved: at the end of a stage, in timm at the start of the next."""
    layers, stage, *rest = name.split(".")
    halves = layers == "layers" and rest[0] == "downsample"
    return ".".join((layers, str(int(stage) - 1), *rest)) if halves else name


def windows(backbone: Backbone) -> dict[str, Tensor]:
    """Which bias is whose, and who sees whom in a shifted window: published with the weights, in timm made anew."""
    return {
        f"{name}.{key}": base.taken(value)
        for name, block in backbone.model.named_modules()
        if isinstance(block, SwinTransformerBlock)
        for key, value in block.named_buffers()
    }
