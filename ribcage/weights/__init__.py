"""Weights: one file per published layout. A file's name is the layout's; it has one or both of

export(method, model, target)           writes our weights as other people's programs want to find them
recognises(names), renamed(weights)     whether names of weights are this layout's; the weights under timm's names
"""

import importlib
import pkgutil
from pathlib import Path
from typing import Any

from torch import Tensor

from ribcage.backbone import weights_in
from ribcage.spelling import did_you_mean

__all__ = ["load", "names", "read"]


def names() -> tuple[str, ...]:
    """The layouts that can be written."""
    return tuple(name for name, layout in _layouts().items() if hasattr(layout, "export"))


def load(name: str) -> Any:
    """A layout: its `export(method, model, target)` writes a file and says where it is."""
    if name not in names():
        raise ValueError(f"Unknown layout {name!r}.{did_you_mean(name, names())} Layouts: {', '.join(names())}.")
    return _layouts()[name]


def read(file: Path) -> dict[str, Tensor]:
    """The weights in a file of any layout that is recognised, under timm's names; of others as they are."""
    weights = weights_in(file)
    layouts = (layout for layout in _layouts().values() if hasattr(layout, "recognises"))
    known = next((layout for layout in layouts if layout.recognises(weights.keys())), None)
    return known.renamed(weights) if known else weights


def _layouts() -> dict[str, Any]:
    """All files of this folder."""
    found = sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name != "base")
    return {name: importlib.import_module(f"{__name__}.{name}") for name in found}
