"""Pickled: NumPy arrays in a pickle, as Paddle's .pdparams and a few older programs keep them, read without either.

A pickle is a little program; loading one may run any function of Python's. This reader goes through it step by step and
takes only the steps that build numbers, text, lists, dicts and arrays. A name that it asks for stays a name: behind a
few of them stand functions of this file, which only copy bytes, and nothing else can be called. Even `eval`, which
Paddle writes around some tensors, is here a function that hands back the array beside it.

Neither time nor memory grows beyond what the file itself has: what is made of its bytes is no more than twice these,
what claims to be longer than the file is cut off at its end, and only text and numbers are keys.
"""

import mmap
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

TORCH = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
"""How torch's older form begins."""
KINDS = "fiub"
"""Of arrays: numbers and truth values."""
DAMAGED = "it is cut off or damaged"
STEPS = (
    "PROTO", "FRAME", "STOP", "MARK", "POP", "POP_MARK", "MEMOIZE", "BINPUT", "LONG_BINPUT", "BINGET",
    "LONG_BINGET", "NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINSTRING",
    "SHORT_BINSTRING", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8",
    "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "EMPTY_LIST", "APPEND", "APPENDS", "EMPTY_DICT",
    "SETITEM", "SETITEMS", "GLOBAL", "STACK_GLOBAL", "REDUCE", "BUILD",
)  # fmt: skip
"""Those of pickle's steps that arrays in dicts need."""


def recognises(start: bytes) -> bool:
    """Whether a file that starts so is a pickle of this kind."""
    return start[:1] == b"\x80" and start[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05") and not start.startswith(TORCH)


def load_pickle(file: Path) -> Any:
    """What the pickle holds, arrays as tensors."""
    with file.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
        try:
            return _tensors(_Reader(content).load(), {})
        except UnneededError as error:
            raise ValueError(str(error)) from None
        except (MemoryError, KeyboardInterrupt):
            raise
        except Exception:  # a step that finds not what it needs fails in any way
            raise ValueError(DAMAGED) from None


class UnneededError(Exception):
    """What no weights need."""


@dataclass(frozen=True)
class _Name:
    """A name of Python's that the file asks for."""

    module: str
    name: str


class _Array:
    """An array that is being read."""

    def __init__(self, *_: Any) -> None:
        self.value: np.ndarray | None = None

    def build(self, state: Any) -> None:
        """(version, shape, kind of number, by columns?, bytes)"""
        _, shape, kind, by_columns, content = state
        content = content.encode("latin1") if isinstance(content, str) else content
        self.value = _numbers(content, kind, shape, "F" if by_columns else "C")


class _Kind:
    """A kind of number: f4, i8 …"""

    def __init__(self, word: Any = "", *_: Any) -> None:
        self.word, self.order = word if isinstance(word, str) else "", "<"

    def build(self, state: Any) -> None:
        """(version, order of bytes, …)"""
        self.order = {">": ">"}.get(state[1], "<")


def _numbers(content: Any, kind: Any, shape: Any, order: Any) -> np.ndarray:
    """An array of these bytes."""
    dtype = _dtype(kind)
    count, size = int(np.prod(shape, dtype=object)), len(content) if isinstance(content, bytes | bytearray) else -1
    if min(shape, default=1) < 0 or count * dtype.itemsize != size:
        raise UnneededError(f"an array of {' × '.join(map(str, shape))} has not so many numbers behind it"[:120])
    return np.frombuffer(content, dtype).reshape(shape, order="F" if order == "F" else "C")


def _dtype(kind: Any) -> np.dtype[Any]:
    word = kind.word if isinstance(kind, _Kind) else ""
    if word[:1] not in tuple(KINDS) or word[1:] not in ("1", "2", "4", "8"):
        raise UnneededError(f"an array is of {'objects' if word[:1] in ('O', '') else word[:20]}, not of numbers")
    return np.dtype(f"{kind.order}{word}")


def _encoded(text: Any, coding: Any = "latin1") -> bytes:
    """Bytes as Python 2 knew them."""
    if not isinstance(text, str) or coding not in ("latin1", "latin-1"):
        raise UnneededError("it holds text that is no array's")
    return text.encode("latin1")


def _nothing() -> bytes:
    """No bytes, as the oldest pickles have them."""
    return b""


def _scalar(kind: Any, content: Any = b"") -> Any:
    """A single number."""
    return _numbers(content.encode("latin1") if isinstance(content, str) else content, kind, (), "C").item()


def _buffered(content: Any, kind: Any, shape: Any, order: Any) -> _Array:
    """An array as Python's newest pickles have it."""
    found = _Array()
    found.value = _numbers(content, kind, shape, order)
    return found


def _data(source: Any, names: Any = None, *_: Any) -> Any:
    """What Paddle writes as eval("data", {"data": array}): the array."""
    if source != "data" or type(names) is not dict or list(names) != ["data"]:
        raise UnneededError("it calls builtins.eval, which no weights need")
    return names["data"]


def _pair(items: Any = ()) -> tuple[Any, ...]:
    """A tuple."""
    return tuple(items) if isinstance(items, tuple | list) else ()


def _ordered(*_: Any) -> dict[Any, Any]:
    """A dict, filled afterwards."""
    return {}


NUMPY = ("numpy.core", "numpy._core")
KNOWN: dict[_Name, Callable[..., Any]] = {
    **{_Name(f"{core}.multiarray", "_reconstruct"): _Array for core in NUMPY},
    **{_Name(f"{core}.multiarray", "scalar"): _scalar for core in NUMPY},
    **{_Name(f"{core}.numeric", "_frombuffer"): _buffered for core in NUMPY},
    _Name("numpy", "ndarray"): _Array,
    _Name("numpy", "dtype"): _Kind,
    _Name("_codecs", "encode"): _encoded,
    _Name("collections", "OrderedDict"): _ordered,
    **{_Name(builtin, "eval"): _data for builtin in ("builtins", "__builtin__")},
    **{_Name(builtin, "bytes"): _nothing for builtin in ("builtins", "__builtin__")},
    **{_Name(builtin, "tuple"): _pair for builtin in ("builtins", "__builtin__")},
}


class _Reader(pickle._Unpickler):
    """An unpickler that knows nothing but arrays."""

    stack: list[Any]
    pop_mark: Callable[[], list[Any]]

    def __init__(self, content: mmap.mmap) -> None:
        super().__init__(content, fix_imports=False, encoding="latin1")
        self.left = 2 * len(content)
        """Bytes that may still be made: those of the oldest pickles twice, of text and then of an array."""

    def find_class(self, module: str, name: str) -> Any:
        """What a name in the file stands for: itself, until it is called."""
        if _Name(module, name) not in KNOWN:
            raise UnneededError(f"it asks for {module}.{name}, which no weights need"[:120])
        return _Name(module, name)

    def load_reduce(self) -> None:
        """Call one of the known names."""
        arguments, asked = self.stack.pop(), self.stack.pop()
        if type(asked) is not _Name or type(arguments) is not tuple:
            raise UnneededError("it calls an object that is not a function")
        self.stack.append(KNOWN[asked](*arguments))
        self._spend(self.stack[-1])

    def load_build(self) -> None:
        """Fill an array, or say what kind of numbers it has."""
        state, begun = self.stack.pop(), self.stack[-1]
        if type(begun) not in (_Array, _Kind):
            raise UnneededError(
                f"it fills a {type(begun).__name__.strip('_')} after its creation, which no weights need"
            )
        begun.build(state)
        self._spend(begun)

    def load_setitem(self) -> None:
        """Put one thing into a dict."""
        value, key = self.stack.pop(), self.stack.pop()
        self._put([key, value])

    def load_setitems(self) -> None:
        """Put many things into a dict."""
        self._put(self.pop_mark())

    def load_append(self) -> None:
        """Put one thing into a list."""
        self._append([self.stack.pop()])

    def load_appends(self) -> None:
        """Put many things into a list."""
        self._append(self.pop_mark())

    def _put(self, items: list[Any]) -> None:
        keys = items[::2]  # a tuple as a key could take for ever: it is gone through, and what it holds, each time
        if type(self.stack[-1]) is not dict or any(type(key) not in (str, int, bytes) for key in keys):
            raise UnneededError("it has a dict whose keys are not names")
        self.stack[-1].update(zip(keys, items[1::2], strict=True))

    def _append(self, items: list[Any]) -> None:
        if type(self.stack[-1]) is not list:
            raise UnneededError("it appends to an object that is not a list")
        self.stack[-1].extend(items)

    def _spend(self, made: Any) -> None:
        """Refuse a file that makes much out of little, by naming the same bytes again and again."""
        array = made.value if type(made) is _Array else None
        self.left -= len(made) if isinstance(made, bytes) else array.nbytes if array is not None else 0
        if self.left < 0:
            raise UnneededError("its arrays hold more than the file")

    def _unneeded(self) -> None:
        raise UnneededError("it has steps that no weights need")

    dispatch: ClassVar[dict[int, Any]] = {
        **dict.fromkeys(range(256), _unneeded),
        **{step: pickle._Unpickler.dispatch[step] for step in (getattr(pickle, name)[0] for name in STEPS)},
        pickle.BYTEARRAY8[0]: pickle._Unpickler.dispatch[pickle.BINBYTES8[0]],
        pickle.REDUCE[0]: load_reduce,
        pickle.BUILD[0]: load_build,
        pickle.SETITEM[0]: load_setitem,
        pickle.SETITEMS[0]: load_setitems,
        pickle.APPEND[0]: load_append,
        pickle.APPENDS[0]: load_appends,
    }


def _tensors(content: Any, seen: dict[int, Any]) -> Any:
    """Arrays as tensors, in dicts of any depth, each once, whatever the number of its names; of a named array
    (name, array) the array."""
    if isinstance(content, tuple) and len(content) == 2 and isinstance(content[1], _Array):
        content = content[1]
    if isinstance(content, dict):
        if id(content) not in seen:
            seen[id(content)] = {}
            seen[id(content)].update({name: _tensors(value, seen) for name, value in content.items()})
        return seen[id(content)]
    if isinstance(content, _Array) and content.value is not None:
        if id(content) not in seen:
            seen[id(content)] = _tensor(content.value)
        return seen[id(content)]
    return content


def _tensor(value: np.ndarray) -> Tensor:
    own = np.array(value, dtype=value.dtype.newbyteorder("="), order="C")  # a copy, which may be written to
    return torch.from_numpy(own)
