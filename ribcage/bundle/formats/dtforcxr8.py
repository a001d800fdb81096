"""DTforCXR8: five models and the students distilled from them, in numbered files.

A file contains a plain state dict:
    model1.pth  eeea_net_c2         names of darmo
    model2.pth  ofa_595             names of darmo
    model3.pth  densenet121         CheXNet: densenet121.features.*, densenet121.classifier.0.*
    model4.pth  visformer_small     names of Visformer: wrapped batch norms, as in norm.bn.*
    model5.pth  autoformer_v2_base  names of AutoFormerV2, with the buffers of shifted windows
    modeldN.pth eeea_net_c2         distilled from model N

The input is RGB, or greyscale repeated in three channels, with ImageNet normalisation. The outputs are logits of the 14
findings of ChestX-ray14, in its order; CheXNet applies its sigmoid itself. The head of models 4 and 5 is written as
`head.*`, which DTforCXR8's test scripts read; its training scripts write `head.0.*`. `--init` reads both.

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
"""In the order of their numbers, from 1."""
STUDENT = MODELS[0]
FIXED_SIZE = MODELS[3:]
"""Models that require one image size."""
CHEXNET = "densenet121."


def export(method: Method, model: ModelSpec, target: Path) -> Path:
    """Write the file. If the target is a folder, the file is named modelN.pth or, for a student, modeldN.pth."""
    name, teachers = base.plain_name(model.name), teacher_architectures(model)
    check_exportable(method, model, name, teachers)
    last = "head" if name in FIXED_SIZE else "classifier"
    found = base.rgb_weights(method.backbone, model) | {
        f"{last}.{part}": value for part, value in reordered_head(method).items()
    }
    if name == "densenet121":
        found = {f"{CHEXNET}{key.replace('classifier.', 'classifier.0.')}": value for key, value in found.items()}
    elif name == "visformer_small":
        found = wrapped_norms(found, method.backbone)
    elif name == "autoformer_v2_base":
        found = {dtforcxr8_downsample(key): value for key, value in found.items()} | window_buffers(method.backbone)
    kind, number = ("modeld", teachers[0]) if teachers else ("model", name)
    return base.write_weights(found, target, f"{kind}{MODELS.index(number) + 1}.pth")


def check_exportable(method: Method, model: ModelSpec, name: str, teachers: list[str]) -> None:
    """Raise if DTforCXR8's programs cannot load the model, or would compute other predictions."""
    wrong = []
    if name not in MODELS:
        wrong.append(f"{name} is not a model of this layout ({', '.join(MODELS)})")
    if teachers and (name != STUDENT or len(teachers) > 1 or teachers[0] not in MODELS):
        wrong.append(
            f"the students of this layout are {STUDENT} with one of these models as teacher, not {name} with "
            f"{', '.join(teachers)}"
        )
    if name in FIXED_SIZE and model.size != (224, 224):
        wrong.append(f"{name} requires 224 × 224 pixels in this layout, not {model.size[0]} × {model.size[1]}")
    if wrong := wrong + base.unlike_chexnet(method, model):
        raise ValueError(f"The model cannot be written in the dtforcxr8 layout: {'; '.join(wrong)}.")


def teacher_architectures(model: ModelSpec) -> list[str]:
    """The architectures of a student's teachers."""
    return [base.plain_name(teacher.name) for teacher in model.training.teachers or ()]


def reordered_head(method: Method) -> dict[str, Tensor]:
    """The last layer, with its rows in the order of ChestX-ray14."""
    assert isinstance(method, Supervised)
    order = [method.findings.index(name) for name in CHESTXRAY14]
    return {part: base.copied(value)[order] for part, value in method.head.state_dict().items()}


def wrapped_norms(weights: dict[str, Tensor], backbone: Backbone) -> dict[str, Tensor]:
    """The weights with each batch norm wrapped in a module: norm.weight → norm.bn.weight"""
    norms = {name for name, module in backbone.model.named_modules() if isinstance(module, nn.BatchNorm2d)}
    owners = {key: key.rpartition(".") for key in weights}
    return {f"{owner}.bn.{part}" if owner in norms else key: weights[key] for key, (owner, _, part) in owners.items()}


def dtforcxr8_downsample(name: str) -> str:
    """AutoFormerV2's name of a downsampling layer: at the end of a stage; in timm it is at the start of the next."""
    layers, stage, *rest = name.split(".")
    halves = layers == "layers" and rest[0] == "downsample"
    return ".".join((layers, str(int(stage) - 1), *rest)) if halves else name


def window_buffers(backbone: Backbone) -> dict[str, Tensor]:
    """Relative position indices and attention masks, which published files contain and timm recomputes."""
    return {
        f"{name}.{key}": base.copied(value)
        for name, block in backbone.model.named_modules()
        if isinstance(block, SwinTransformerBlock)
        for key, value in block.named_buffers()
    }
