"""Layouts of published weights, one module each. The module has the layout's name and one or both of

export(method, model, target)               writes our weights in this layout
recognises(names), published(weights)       whether names of weights are of this layout; the content of such a file
                                            under timm's names – with SOURCE and LICENCE, where such files come from

`names` are the weights themselves, for layouts that differ by shapes only. A layout with BESIDE is recognised by a
file of that name beside the weights instead: published(weights, beside), None when it belongs to another program.
Layouts are tried in the order of LAST, 0 without one. What layouts share stands in `reading` and `writing`.
"""

import importlib
import pkgutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from ribcage.bundle.formats.reading.container import WeightsFile, read_weights
from ribcage.bundle.formats.reading.published_weights import Published, twin_architectures
from ribcage.models.catalogue import is_known
from ribcage.runtime.spelling import did_you_mean

__all__ = ["Published", "fits", "load", "names", "one_line", "published", "readable"]


def writable_layouts() -> tuple[str, ...]:
    """The layouts that can be written."""
    return tuple(name for name, layout in layouts().items() if hasattr(layout, "export"))


def readable_layouts() -> dict[str, Any]:
    """The layouts that can be read, the particular ones before those that share their names."""
    found = {name: layout for name, layout in layouts().items() if hasattr(layout, "published")}
    return dict(sorted(found.items(), key=lambda one: getattr(one[1], "LAST", 0)))


def load_layout(name: str) -> Any:
    """A layout: its `export(method, model, target)` writes a file and says where it is."""
    if name not in writable_layouts():
        raise ValueError(
            f"Unknown layout {name!r}.{did_you_mean(name, writable_layouts())} "
            f"Layouts: {', '.join(writable_layouts())}."
        )
    return layouts()[name]


def published(file: Path, layout: str = "") -> Published:
    """What a file holds, of the layout that its names are of; of several the most particular, or the one asked for."""
    content = read_weights(file)
    fits = [name for name, one in readable_layouts().items() if _recognised(one, file, content.weights)]
    if layout and layout not in fits:
        raise ValueError(_not_of(file, layout, fits))
    for name in (layout,) if layout else fits:
        try:
            found = _read(readable_layouts()[name], file, content.weights)
        except (ValueError, LookupError, TypeError, RuntimeError) as error:  # names of one layout, shapes of none
            raise ValueError(
                f"{file} is not of the layout {name} that its names are of: {error_text(error)}."
            ) from None
        if found is not None:
            others = tuple(
                other for other in fits if other != name and not hasattr(readable_layouts()[other], "BESIDE")
            )
            return _traced(_described(found, name, content), content, file, others)
    if layout:
        raise ValueError(_not_of(file, layout, []))
    return _traced(Published(content.weights, beside=content.beside), content, file, ())


def fits(file: Path, layout: str) -> bool:
    """Whether the names in a file are this layout's."""
    return _recognised(readable_layouts()[layout], file, read_weights(file).weights)


def _not_of(file: Path, layout: str, fits: list[str]) -> str:
    """Why a file is not of the layout that was named."""
    if layout not in readable_layouts():
        known = ", ".join(readable_layouts())
        return (
            f"Unknown layout {layout!r}.{did_you_mean(layout, readable_layouts())} Layouts that can be read: {known}."
        )
    return f"{file} is not of the layout {layout}. Its names are of {', '.join(fits) or 'none that is known'}."


def _recognised(layout: Any, file: Path, weights: dict[str, Any]) -> bool:
    """Whether the names are this layout's. One is known by a file that lies beside."""
    if not hasattr(layout, "BESIDE"):
        return bool(layout.recognises(weights))
    own = file.name.startswith(("model.", "pytorch_model."))  # another file in the same folder is another model's
    return own and (file.parent / layout.BESIDE).is_file()


def _read(layout: Any, file: Path, weights: dict[str, Any]) -> Published | None:
    """What a layout makes of the weights; None when a file beside them is another program's."""
    found: Published | None = (
        layout.published(weights, file.parent / layout.BESIDE)
        if hasattr(layout, "BESIDE")
        else layout.published(weights)
    )
    return found


def _described(found: Published, name: str, content: WeightsFile) -> Published:
    """With whose it is, and the architecture that the file itself names, where that is one of those it can be."""
    layout = layouts()[name]
    found = replace(found, layout=name, source=found.source or layout.SOURCE, licence=found.licence or layout.LICENCE)
    if content.arch.split(".")[0] in (found.could or (found.name, *twin_architectures(found.name))) and is_known(
        content.arch
    ):
        return replace(found, name=content.arch, could=(), read=(*found.read, "architecture"))
    return found


def _traced(found: Published, content: WeightsFile, file: Path, others: tuple[str, ...]) -> Published:
    """With the file's name of each weight. A layout may rename weights, not lose them: what it neither gives nor leaves
    out by name is an error, never a layer less."""
    names = {id(value): name for name, value in content.weights.items()}
    original = {ours: names[id(value)] for ours, value in found.state.items() if id(value) in names} | dict(
        found.rebuilt
    )
    lost = content.weights.keys() - set(original.values()) - set(found.left)
    if lost or len(set(original.values())) < len(found.state):
        said = ", ".join(sorted(lost)[:3]) or "a weight"
        raise ValueError(f"{file}, read as {found.layout}, would lose {said}: another weight gets the same name.")
    shapes = {name: tuple(value.shape) for name, value in content.weights.items()}
    return replace(found, original=original, file_shapes=shapes, beside=content.beside, others=others)


def error_text(error: Exception) -> str:
    """What an error says, for the end of a sentence."""
    return " ".join(str(error).split())[:300].rstrip(".") or type(error).__name__


def layouts() -> dict[str, Any]:
    """The modules of this package; what they share stands in its subpackages."""
    found = sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.ispkg)
    return {name: importlib.import_module(f"{__name__}.{name}") for name in found}
