"""Typed JSON: frozen dataclasses to JSON values and back, with every type checked.

The metadata `INLINE` and `OPTIONAL` of a field control how it is written. A field of type `object` holds any JSON
value.
"""

import types
from collections.abc import Callable
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import cache
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

INLINE = {"inline": True}
"""Metadata of a field whose keys are merged into the surrounding object."""
OPTIONAL = {"optional": True}
"""Metadata of a field that is omitted where it is None."""
Kind = TypeVar("Kind")


def to_json(value: Any) -> Any:
    """A dataclass as dicts and lists."""
    if is_dataclass(value):
        found: dict[str, Any] = {}
        for item in fields(value):
            own = getattr(value, item.name)
            if own is None and "optional" in item.metadata:
                continue
            found |= to_json(own) if "inline" in item.metadata else {item.name: to_json(own)}
        return found
    if isinstance(value, dict):
        return {name: to_json(each) for name, each in value.items()}
    return [to_json(each) for each in value] if isinstance(value, tuple | list) else value


def from_json(kind: type[Kind], values: Any) -> Kind:
    """A dataclass from a JSON object; ValueError if it does not fit. Unknown keys are ignored."""
    found: Kind = _object(kind, values)
    return found


def _object(kind: Any, values: Any) -> Any:
    if not isinstance(values, dict):
        raise ValueError(f"no object: {kind.__name__}")
    found: dict[str, Any] = {}
    known = _fields(kind)
    for name, (item, hint) in known.items():
        if "inline" in item.metadata:
            own = values if is_dataclass(hint) else {key: each for key, each in values.items() if key not in known}
            found[name] = _value(hint, own)
        elif name in values:
            found[name] = _value(hint, values[name])
        elif item.default is MISSING and item.default_factory is MISSING:
            raise ValueError(f"no {name}")
    return kind(**found)


@cache
def _fields(kind: Any) -> dict[str, tuple[Field[Any], Any]]:
    """Each field of a dataclass with its type."""
    hints = get_type_hints(kind)
    return {item.name: (item, hints[item.name]) for item in fields(kind)}


def _value(hint: Any, value: Any) -> Any:
    """A JSON value converted to this type; ValueError if it does not fit."""
    origin, inner = get_origin(hint), get_args(hint)
    if hint is object:
        return value
    if origin in (Union, types.UnionType):
        return None if value is None else _value(inner[0], value)
    if origin is Literal:
        return _checked(value, lambda one: one in inner)
    if origin is tuple:
        several = _checked(value, lambda one: isinstance(one, list) and len(inner) in (len(one), 2))
        return tuple(_value(inner[0], each) for each in several)
    if origin is dict:
        return {str(name): _value(inner[1], each) for name, each in _checked(value, _is_object).items()}
    if is_dataclass(hint):
        return _object(hint, value)
    if hint is float:
        return float(_checked(value, lambda one: type(one) in (int, float)))
    return _checked(value, lambda one: type(one) is hint)


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


def _checked(value: Any, fits: Callable[[Any], bool]) -> Any:
    if not fits(value):
        raise ValueError(f"{str(value)[:40]!r}")
    return value
