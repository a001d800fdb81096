"""Weights: one file per published layout, so that other people's programs find ours. A file's name is the layout's."""

import importlib
import pkgutil
from typing import Any

from ribcage.spelling import did_you_mean

__all__ = ["load", "names"]


def names() -> tuple[str, ...]:
    """All layouts: the files of this folder."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name != "base"))


def load(name: str) -> Any:
    """A layout: its `export(method, model, target)` writes a file and says where it is."""
    if name not in names():
        raise ValueError(f"Unknown layout {name!r}.{did_you_mean(name, names())} Layouts: {', '.join(names())}.")
    return importlib.import_module(f"ribcage.weights.{name}")
