"""Methods: one file each, Batch → Step. A file's name is the method's name.

Imports runtime to models. Commands use `load_method`, `method_names` and `pretraining`; torch is imported only with a
method.
"""

import importlib
import pkgutil
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ribcage.runtime.spelling import did_you_mean

if TYPE_CHECKING:
    from ribcage.methods.base import Method, Step

__all__ = ["Method", "Step", "load_method", "method_names", "pretraining"]

HELPERS = ("base",)
"""Files of this folder that are not methods."""
COMMAND = re.compile(r'^    command\b.*= "(\w+)"$', re.MULTILINE)
"""The line of a class that names a command other than pretrain."""


def __getattr__(name: str) -> Any:
    if name in ("Method", "Step"):
        return getattr(importlib.import_module("ribcage.methods.base"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def method_names() -> tuple[str, ...]:
    """All methods: the files of this folder."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name not in HELPERS))


def pretraining() -> tuple[str, ...]:
    """The methods of `ribcage pretrain`: those whose files name no other command. None is imported for this."""
    files = {name: Path(folder) / f"{name}.py" for folder in __path__ for name in method_names()}
    return tuple(name for name, file in files.items() if file.exists() and not COMMAND.search(file.read_text("utf-8")))


def load_method(name: str) -> "type[Method]":
    """The class of a method."""
    from ribcage.methods.base import Method

    if name not in method_names():
        raise ValueError(
            f"Unknown method {name!r}.{did_you_mean(name, method_names())} Methods: {', '.join(method_names())}."
        )
    module = importlib.import_module(f"ribcage.methods.{name}")
    found = [kind for kind in vars(module).values() if isinstance(kind, type) and kind.__module__ == module.__name__]
    return next(kind for kind in found if issubclass(kind, Method))
