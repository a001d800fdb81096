"""Methods: one file each, Batch → Step. A file's name is the method's name."""

import importlib
import pkgutil

from ribcage.methods.base import Method, Step
from ribcage.runtime.spelling import did_you_mean

__all__ = ["Method", "Step", "load", "names"]

HELPERS = ("base",)
"""Files of this folder that are no methods."""


def names() -> tuple[str, ...]:
    """All methods: the files of this folder."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name not in HELPERS))


def load(name: str) -> type[Method]:
    """The class of a method."""
    if name not in names():
        raise ValueError(f"Unknown method {name!r}.{did_you_mean(name, names())} Methods: {', '.join(names())}.")
    module = importlib.import_module(f"ribcage.methods.{name}")
    found = [kind for kind in vars(module).values() if isinstance(kind, type) and kind.__module__ == module.__name__]
    return next(kind for kind in found if issubclass(kind, Method))
