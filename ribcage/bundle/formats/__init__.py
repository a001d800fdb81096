"""Layouts of published weights, one module each, named after the layout. A module defines one or both of

export(method, model, target)               write a model in this layout
recognises(names), published(weights)       whether a file is in this layout, judged by its weight names; its weights
                                            under timm's names. SOURCE and LICENCE state where such files come from.

`names` is the dict of weights if a layout also compares shapes. A layout with BESIDE is recognised by the presence of a
file of that name beside the weights, whose name starts with one of FILES (default model. and pytorch_model.); its
published(weights, beside) returns None if that file is not in the layout's format. A layout with
recognises_if_named(names) also reads files that look like those of another layout, but only if the user names it.
Layouts are tried in ascending order of LAST (default 0). Shared code is in `reading` and `writing`.
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

__all__ = ["Published", "error_text", "fits", "layouts", "load_layout", "published", "readable_layouts",
           "writable_layouts"]  # fmt: skip

DESCRIBED = ("model.", "pytorch_model.")
"""How the names of files begin that config.json describes."""


def writable_layouts() -> tuple[str, ...]:
    """Names of the layouts that can be written."""
    return tuple(name for name, layout in layouts().items() if hasattr(layout, "export"))


def readable_layouts() -> dict[str, Any]:
    """The layouts that can be read, specific ones before general ones with the same weight names."""
    found = {name: layout for name, layout in layouts().items() if hasattr(layout, "published")}
    return dict(sorted(found.items(), key=lambda one: getattr(one[1], "LAST", 0)))


def load_layout(name: str) -> Any:
    """The module of a layout that can be written; its `export(method, model, target)` returns the path written."""
    if name not in writable_layouts():
        raise ValueError(
            f"Unknown layout {name!r}.{did_you_mean(name, writable_layouts())} "
            f"Layouts: {', '.join(writable_layouts())}."
        )
    return layouts()[name]


def published(file: Path, layout: str = "") -> Published:
    """Read a file of weights in the given layout, or in the most specific layout that recognises it."""
    content = read_weights(file)
    fits = [name for name, one in readable_layouts().items() if _recognised(one, file, content.weights)]
    if layout and layout not in fits and not _recognised_if_named(layout, content.weights):
        raise ValueError(_layout_mismatch(file, layout, fits))
    for name in (layout,) if layout else fits:
        try:
            found = _read(readable_layouts()[name], file, content.weights)
        except (ValueError, LookupError, TypeError, RuntimeError) as error:  # the names match, the shapes do not
            raise ValueError(
                f"{file} has the weight names of the {name} layout, but cannot be read in this layout: "
                f"{error_text(error)}."
            ) from None
        if found is not None:
            others = tuple(
                other for other in fits if other != name and not hasattr(readable_layouts()[other], "BESIDE")
            )
            return _with_names(_with_provenance(found, name, content), content, file, others)
    if layout:
        raise ValueError(_layout_mismatch(file, layout, []))
    return _with_names(Published(content.weights, other_tensors=content.other_tensors), content, file, ())


def fits(file: Path, layout: str) -> bool:
    """Whether a layout recognises a file."""
    return _recognised(readable_layouts()[layout], file, read_weights(file).weights)


def _layout_mismatch(file: Path, layout: str, fits: list[str]) -> str:
    """Error message: the requested layout does not exist or does not fit the file."""
    if layout not in readable_layouts():
        known = ", ".join(readable_layouts())
        return f"Unknown layout {layout!r}.{did_you_mean(layout, readable_layouts())} Readable layouts: {known}."
    return f"{file} is not in the {layout} layout. Layouts that match its weight names: {', '.join(fits) or 'none'}."


def _recognised(layout: Any, file: Path, weights: dict[str, Any]) -> bool:
    """Whether a layout recognises the weight names or, for a layout with BESIDE, the file beside the weights."""
    if not hasattr(layout, "BESIDE"):
        return bool(layout.recognises(weights))
    described = file.name.startswith(getattr(layout, "FILES", DESCRIBED))
    return described and (file.parent / layout.BESIDE).is_file()


def _recognised_if_named(name: str, weights: dict[str, Any]) -> bool:
    """Whether a layout reads the file only because the user named the layout."""
    check = getattr(readable_layouts().get(name), "recognises_if_named", None)
    return bool(check and check(weights))


def _read(layout: Any, file: Path, weights: dict[str, Any]) -> Published | None:
    """The weights as read by a layout; None if the file beside them is not in the layout's format."""
    found: Published | None = (
        layout.published(weights, file.parent / layout.BESIDE)
        if hasattr(layout, "BESIDE")
        else layout.published(weights)
    )
    return found


def _with_provenance(found: Published, name: str, content: WeightsFile) -> Published:
    """Add layout, source and licence, and the architecture stated in the file if the weights fit it."""
    layout = layouts()[name]
    found = replace(found, layout=name, source=found.source or layout.SOURCE, licence=found.licence or layout.LICENCE)
    if content.arch.split(".")[0] in (found.candidates or (found.name, *twin_architectures(found.name))) and is_known(
        content.arch
    ):
        return replace(found, name=content.arch, candidates=(), stated=(*found.stated, "architecture"))
    return found


def _with_names(found: Published, content: WeightsFile, file: Path, others: tuple[str, ...]) -> Published:
    """Add the name that each weight has in the file. Raise if the layout has silently dropped a weight or given two
    weights the same name."""
    names = {id(value): name for name, value in content.weights.items()}
    original = {
        name: found.converted.get(name) or (names[id(value)],)
        for name, value in found.state.items()
        if name in found.converted or id(value) in names
    }
    plain = [sources for name, sources in original.items() if name not in found.converted]
    lost = content.weights.keys() - {name for sources in original.values() for name in sources} - set(found.unused)
    if lost or len(set(plain)) < len(plain) or len(original) < len(found.state):
        dropped = ", ".join(sorted(lost)[:3]) or "a weight"
        raise ValueError(
            f"{file} cannot be read in the {found.layout} layout: two of its weights would get the same name, and "
            f"{dropped} would be lost."
        )
    shapes = {name: tuple(value.shape) for name, value in content.weights.items()}
    return replace(
        found, file_names=original, file_shapes=shapes, other_tensors=content.other_tensors, other_layouts=others
    )


def error_text(error: Exception) -> str:
    """The message of an error, on one line and without a full stop."""
    return " ".join(str(error).split())[:300].rstrip(".") or type(error).__name__


def layouts() -> dict[str, Any]:
    """The layout modules of this package, by name."""
    found = sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.ispkg)
    return {name: importlib.import_module(f"{__name__}.{name}") for name in found}
