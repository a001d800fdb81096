"""Find timm architectures with weights of the same names and shapes, but different outputs.

    python benchmarks/twins.py

Of each architecture that `ribcage convert` recognises by its weights (`ribcage/bundle/formats/`), timm's other models
are built without numbers and compared by the names and shapes of all weights but positions and last layers. Where they
agree, both get the same random weights and the same images; those whose features differ are printed as the lines of
`ribcage/bundle/formats/reading/twins.py`. Ten minutes on one core, for timm's 1,400 models.
"""

import json
import warnings
from collections import defaultdict
from typing import Any

import timm
import torch

from ribcage.bundle.formats import autoformer, darmo, deit, lightly, timm_names, visformer
from ribcage.bundle.formats.reading.published_weights import DENSENETS, RESNETS, VITS
from ribcage.models import architectures as architectures

RECOGNISED = {
    *RESNETS, *DENSENETS, *VITS, *deit.DEITS, *deit.DISTILLED, *deit.THIRD, *darmo.MODELS,
    *visformer.MODELS, *autoformer.AUTOFORMERS, *autoformer.SWINS, *lightly.SMALL,
    *(name for names in timm_names.FAMILIES.values() for name in names),
}  # fmt: skip
SIDE = 224
CLOSE = 1e-4
"""Features nearer than this, relative to their size, are the same but for rounding."""


def shapes(name: str) -> str:
    """Names and shapes of all weights of a model but its positions and its last layer."""
    with torch.device("meta"):
        state = timm.create_model(name, num_classes=0).state_dict()
    return json.dumps(
        sorted((key, list(value.shape)) for key, value in state.items() if not key.startswith("pos_embed"))
    )


def features(name: str, state: dict[str, torch.Tensor] | None) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Of the same two images, with these weights; or with random ones, which are given, too."""
    config: Any = timm.get_pretrained_cfg(name)
    sized: dict[str, Any] = (
        {"img_size": (SIDE, SIDE)} if config.fixed_input_size and not name.startswith(("swin", "auto")) else {}
    )
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=0, **sized).eval()
    own = model.state_dict()
    if state is None:
        draw = torch.Generator().manual_seed(1)
        for value in own.values():
            if value.is_floating_point():
                value.mul_(1 + 0.2 * torch.rand(value.shape, generator=draw)).add_(0.01)
    else:
        model.load_state_dict({key: state[key] if key in state else own[key] for key in own})
    images = torch.rand(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        return model(images), dict(model.state_dict())


def main() -> None:
    """Print the groups."""
    warnings.simplefilter("ignore")
    groups: dict[str, list[str]] = defaultdict(list)
    for name in timm.list_models():
        groups[shapes(name)].append(name)
    found = []
    for names in groups.values():
        for name in sorted(RECOGNISED & set(names)):
            expected, state = features(name, None)
            other = [one for one in names if one != name and differs(one, expected, state)]
            found += [(name, *other)] if other else []
    print("TWINS: dict[str, tuple[str, ...]] = {")
    for name, *others in sorted(found):
        print(f'    "{name}": ({", ".join(json.dumps(one) for one in others)},),')
    print("}")


def differs(name: str, expected: torch.Tensor, state: dict[str, torch.Tensor]) -> bool:
    """Whether a model with these weights gives other features; of another number of positions it is told by those."""
    try:
        given, _ = features(name, state)
    except RuntimeError:
        return False
    return given.shape != expected.shape or bool((given - expected).abs().max() > CLOSE * expected.abs().max())


if __name__ == "__main__":
    main()
