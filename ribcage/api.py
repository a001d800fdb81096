"""Verbs: the commands as Python functions, `commands/x.py` as `ribcage.x(…)`."""

import dataclasses
import importlib
import pkgutil
import typing
from collections.abc import Callable, Iterable
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal

from ribcage.runtime import flags, limits, threads
from ribcage.runtime.remote import addresses, places
from ribcage.runtime.remote.run_command import run_command
from ribcage.runtime.spelling import did_you_mean


def function_names() -> tuple[str, ...]:
    """All verbs; `import` is a word of Python's own, so it is `import_`."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules([str(Path(__file__).parent / "commands")])))


def verb(name: str) -> Callable[..., Any]:
    """The function that runs a command."""
    module = importlib.import_module(f"ribcage.commands.{name}")
    kinds = typing.get_type_hints(module.Options)
    known = [field.name for field in dataclasses.fields(module.Options) if field.name != "member"]
    positional: tuple[str, ...] = getattr(module, "POSITIONAL", ())

    def call(*values: Any, **options: Any) -> Any:
        threads.calm()
        if len(values) > len(positional):
            other = next((word for word in known if word not in positional), "option")
            raise TypeError(
                f"ribcage.{name}() takes {len(positional)} positional argument{'s' * (len(positional) != 1)}, but "
                f"{len(values)} were given. Pass the others as keyword arguments, such as {other}=…"
            )
        given: dict[str, Any] = {**dict(zip(positional, values, strict=False)), **options}
        own = {key: value for key, value in given.items() if key not in known}
        if own and "member" not in kinds:
            word = next(iter(own))
            raise TypeError(f"ribcage.{name}() has no option {word!r}.{did_you_mean(word, known)}")
        plain = {key: typed(key, kinds[key], value) for key, value in given.items() if key in known}
        settled, wrong = places.settled(module, plain)
        if "member" in kinds:
            hints = flags.hints(module.member(given[positional[0]])) if own else {}
            plain = {key: typed(key, hints.get(key, Any), value) for key, value in own.items()}
            settled["member"], misplaced = places.settled(module, plain)
            wrong += misplaced
        if wrong:
            raise ValueError("; ".join(wrong) + ".")
        return run_command(module, module.Options(**settled))

    call.__name__, call.__doc__ = name, module.__doc__
    return call


def typed(name: str, kind: Any, value: Any) -> Any:
    """The value as the option wants it: paths may be text, and one thing may stand for several."""
    kinds = typing.get_args(kind) if isinstance(kind, UnionType) else (kind,)
    if value is None or kind is Any:
        return value
    if typing.get_origin(kind) in flags.UNIONS and NoneType in typing.get_args(kind):
        (*one,) = (each for each in typing.get_args(kind) if each is not NoneType)
        if len(one) == 1:
            return typed(name, one[0], value)
    if typing.get_origin(kind) is Literal:
        if value not in typing.get_args(kind):
            raise ValueError(f"{name} must be {' or '.join(map(repr, typing.get_args(kind)))}, not {value!r}.")
        return value
    if typing.get_origin(kind) is tuple:
        several = [value] if isinstance(value, str | Path) or not isinstance(value, Iterable) else value
        return tuple(typed(name, typing.get_args(kind)[0], each) for each in several)
    if Path in kinds or kinds == (str,) or (isinstance(value, str) and str in kinds):
        return addresses.parse_place(str(value)) if Path in kinds else str(value)
    plain = next((each for each in kinds if each in (bool, int, float)), None)
    if plain is not None and not isinstance(value, (int, float) if plain is float else plain):
        raise ValueError(f"{name} must be of type {plain.__name__}, not {value!r}.")
    if plain in (int, float) and not abs(value) < limits.LARGEST:
        raise ValueError(f"{name} must be a number, not {value!r}.")
    return value
