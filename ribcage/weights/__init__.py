"""Weights: one file per published layout. A file's name is the layout's; it has one or both of

export(method, model, target)               writes our weights as other people's programs want to find them
recognises(names), published(weights)       whether names of weights are this layout's; what such a file holds, under
                                            timm's names – with SOURCE and LICENCE, where such files come from

`names` are the weights themselves, for layouts that only shapes tell apart. A layout with BESIDE is told by a file of
that name beside the weights instead: published(weights, beside), None when it is another program's. Of layouts with
LAST the lowest is asked first.
"""

import importlib
import pkgutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from ribcage.spelling import did_you_mean
from ribcage.weights.container import weights_in
from ribcage.weights.foreign import Published

__all__ = ["Published", "load", "names", "published", "readable"]

HELPERS = ("base", "container", "foreign", "pickled")
"""Files of this folder that are no layouts."""


def names() -> tuple[str, ...]:
    """The layouts that can be written."""
    return tuple(name for name, layout in layouts().items() if hasattr(layout, "export"))


def readable() -> dict[str, Any]:
    """The layouts that can be read, the particular ones before those that share their names."""
    found = {name: layout for name, layout in layouts().items() if hasattr(layout, "published")}
    return dict(sorted(found.items(), key=lambda one: getattr(one[1], "LAST", 0)))


def load(name: str) -> Any:
    """A layout: its `export(method, model, target)` writes a file and says where it is."""
    if name not in names():
        raise ValueError(f"Unknown layout {name!r}.{did_you_mean(name, names())} Layouts: {', '.join(names())}.")
    return layouts()[name]


def published(file: Path) -> Published:
    """What a file holds, of the layout that its names are of."""
    weights = weights_in(file)
    for name, layout in readable().items():
        try:
            found = _read(layout, file, weights)
        except (ValueError, LookupError, TypeError, RuntimeError) as error:  # names of one layout, shapes of none
            raise ValueError(f"{file} is not of the layout {name} that its names are of: {one_line(error)}.") from None
        if found is not None:
            return replace(
                found, layout=name, source=found.source or layout.SOURCE, licence=found.licence or layout.LICENCE
            )
    return Published(weights)


def _read(layout: Any, file: Path, weights: dict[str, Any]) -> Published | None:
    """What a layout makes of the weights; None when they are not of it. One is known by a file that lies beside."""
    beside = file.parent / getattr(layout, "BESIDE", "")
    if beside == file.parent:
        return layout.published(weights) if layout.recognises(weights) else None
    own = file.name.startswith(("model.", "pytorch_model."))  # another file in the same folder is another model's
    return layout.published(weights, beside) if own and beside.is_file() else None


def one_line(error: Exception) -> str:
    """What an error says, for the end of a sentence."""
    return " ".join(str(error).split())[:300].rstrip(".") or type(error).__name__


def layouts() -> dict[str, Any]:
    """All files of this folder."""
    found = sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name not in HELPERS)
    return {name: importlib.import_module(f"{__name__}.{name}") for name in found}
