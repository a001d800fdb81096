"""Verbs: the commands as Python functions, `commands/x.py` as `ribcage.x(…)`."""

import dataclasses
import importlib
import pkgutil
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ribcage.spelling import did_you_mean


def names() -> tuple[str, ...]:
    """All verbs; `import` is a word of Python's own, so it is `import_`."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules([str(Path(__file__).parent / "commands")])))


def verb(name: str) -> Callable[..., Any]:
    """The function that runs a command."""
    module = importlib.import_module(f"ribcage.commands.{name}")
    fields = {field.name: field for field in dataclasses.fields(module.Options)}
    kinds = typing.get_type_hints(module.Options)

    def call(*values: Any, **options: Any) -> Any:
        given = {**dict(zip(getattr(module, "POSITIONAL", ()), values, strict=False)), **options}
        own = {key: value for key, value in given.items() if key not in fields}
        if own and "member" not in fields:
            word = next(iter(own))
            raise TypeError(f"ribcage.{name} has no option {word!r}.{did_you_mean(word, fields)}")
        settled = {key: _typed(kinds[key], value) for key, value in given.items() if key in fields}
        return module.run(module.Options(**settled, **({"member": own} if "member" in fields else {})))

    call.__name__, call.__doc__ = name, module.__doc__
    return call


def _typed(kind: Any, value: Any) -> Any:
    """Paths may be given as text, and one word where several may stand."""
    if isinstance(value, str) and (kind is Path or Path in typing.get_args(kind)):
        return Path(value)
    if typing.get_origin(kind) is tuple:
        return tuple(map(str, value)) if not isinstance(value, str | Path) else (str(value),)
    return value
