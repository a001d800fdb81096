"""Pickled: NumPy arrays in a pickle, as Paddle's .pdparams and a few older programs keep them, read without either.

A pickle is a little program; loading one may run any function of Python's. This reader knows seven names, and what they
stand for here only copies bytes: whatever else a file asks for is refused by its name. Even `eval`, which Paddle writes
around some tensors, is here a function that hands back the array beside it.
"""

import pickle
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

TORCH = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
"""How torch's older form begins."""
KINDS = "fiub"
"""Of arrays: numbers and truth values."""


def recognises(start: bytes) -> bool:
    """Whether a file that starts so is a pickle of this kind."""
    return start[:1] == b"\x80" and start[1:2] in b"\x02\x03\x04\x05" and not start.startswith(TORCH)


def load(file: Path) -> Any:
    """What the pickle holds, arrays as tensors."""
    with file.open("rb") as stream:
        return _tensors(_Reader(stream, encoding="latin1").load())


class _Array:
    """An array that is being read."""

    def __init__(self, *_: Any) -> None:
        self.value: np.ndarray | None = None

    def __setstate__(self, state: Any) -> None:
        """(version, shape, kind of number, by columns?, bytes)"""
        _, shape, kind, by_columns, content = state
        content = content.encode("latin1") if isinstance(content, str) else content
        numbers = np.frombuffer(content, dtype=_dtype(kind))
        self.value = numbers.reshape(shape, order="F" if by_columns else "C").copy()


class _Kind:
    """A kind of number: f4, i8 …"""

    def __init__(self, word: Any = "", *_: Any) -> None:
        self.word, self.order = str(word), "<"

    def __setstate__(self, state: Any) -> None:
        """(version, order of bytes, …)"""
        self.order = {">": ">"}.get(state[1], "<")


def _dtype(kind: Any) -> np.dtype[Any]:
    word = kind.word if isinstance(kind, _Kind) else ""
    if word[:1] not in KINDS or not word[1:].isdigit():
        raise ValueError(f"an array is of {word[:20] or 'objects'}, not of numbers")
    return np.dtype(f"{kind.order}{word}")


def _encoded(text: Any, coding: Any = "latin1") -> bytes:
    """Bytes as Python 2 knew them."""
    if not isinstance(text, str) or coding not in ("latin1", "latin-1"):
        raise ValueError("it holds text that is no array's")
    return text.encode("latin1")


def _scalar(kind: Any, content: Any = b"") -> Any:
    """A single number."""
    return np.frombuffer(content.encode("latin1") if isinstance(content, str) else content, _dtype(kind))[0].item()


def _data(source: Any, names: Any = None, *_: Any) -> Any:
    """What Paddle writes as eval("data", {"data": array}): the array."""
    if source != "data" or not isinstance(names, dict) or set(names) != {"data"}:
        raise ValueError("it asks for builtins.eval, which no weights need")
    return names["data"]


def _pair(items: Any = ()) -> tuple[Any, ...]:
    """A tuple."""
    return tuple(items) if isinstance(items, tuple | list) else ()


NUMPY = ("numpy.core.multiarray", "numpy._core.multiarray")
KNOWN: dict[tuple[str, str], Callable[..., Any]] = {
    **{(module, "_reconstruct"): _Array for module in NUMPY},
    **{(module, "scalar"): _scalar for module in NUMPY},
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Kind,
    ("_codecs", "encode"): _encoded,
    ("collections", "OrderedDict"): OrderedDict,
    ("builtins", "eval"): _data,
    ("__builtin__", "eval"): _data,
    ("builtins", "tuple"): _pair,
    ("__builtin__", "tuple"): _pair,
}


class _Reader(pickle.Unpickler):
    """An unpickler that knows nothing but arrays."""

    def find_class(self, module: str, name: str) -> Any:
        """What a name in the file stands for."""
        if (module, name) not in KNOWN:
            raise ValueError(f"it asks for {module}.{name}, which no weights need")
        return KNOWN[module, name]


def _tensors(content: Any) -> Any:
    """Arrays as tensors, in dicts of any depth; of a named array (name, array) the array."""
    if isinstance(content, dict):
        return {name: _tensors(value) for name, value in content.items()}
    if isinstance(content, tuple) and len(content) == 2 and isinstance(content[1], _Array):
        content = content[1]
    if isinstance(content, _Array) and content.value is not None:
        return _tensor(content.value)
    return content


def _tensor(value: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(value.astype(value.dtype.newbyteorder("="))).reshape(value.shape))
