"""Restricted unpickler for NumPy arrays in a pickle, as in Paddle's .pdparams and files of a few older programs.

A pickle is a small program, and loading it may call any Python function. This reader supports only the opcodes that
build numbers, text, lists, dicts and arrays. Names in the file are not imported: a few of them are mapped to functions
of this module, which only copy bytes, and no others can be called. Even `eval`, which Paddle writes around some
tensors, is replaced by a function that returns the array passed to it.

Time and memory are bounded by the size of the file: at most twice its bytes are allocated for arrays, a length beyond
the end of the file is an error, and keys are text or numbers.
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
"""First bytes of torch's older format."""
KINDS = "fiub"
"""Supported kinds of NumPy dtypes: floats, integers and booleans."""
DAMAGED = "the file is truncated or damaged"
OPCODES = (
    "PROTO", "FRAME", "STOP", "MARK", "POP", "POP_MARK", "MEMOIZE", "BINPUT", "LONG_BINPUT", "BINGET",
    "LONG_BINGET", "NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINSTRING",
    "SHORT_BINSTRING", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8",
    "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "EMPTY_LIST", "APPEND", "APPENDS", "EMPTY_DICT",
    "SETITEM", "SETITEMS", "GLOBAL", "STACK_GLOBAL", "REDUCE", "BUILD",
)  # fmt: skip
"""Opcodes that are needed for dicts of arrays."""


def recognises(start: bytes) -> bool:
    """Whether a file that starts with these bytes is a pickle of protocol 2 to 5, but not of torch."""
    return start[:1] == b"\x80" and start[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05") and not start.startswith(TORCH)


def load_pickle(file: Path) -> Any:
    """The content of the pickle, with arrays as tensors."""
    with file.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
        try:
            return _tensors(_Reader(content).load(), {})
        except UnneededError as error:
            raise ValueError(str(error)) from None
        except (MemoryError, KeyboardInterrupt):
            raise
        except Exception:  # an opcode with unexpected operands can raise anything
            raise ValueError(DAMAGED) from None


class UnneededError(Exception):
    """The file contains something that weights do not need."""


@dataclass(frozen=True)
class _Name:
    """A Python name that the file refers to."""

    module: str
    name: str


class _Array:
    """An array under construction."""

    def __init__(self, *_: Any) -> None:
        self.value: np.ndarray | None = None

    def build(self, state: Any) -> None:
        """state: (version, shape, dtype, Fortran order, bytes)."""
        _, shape, kind, fortran_order, content = state
        content = content.encode("latin1") if isinstance(content, str) else content
        self.value = _numbers(content, kind, shape, "F" if fortran_order else "C")


class _Kind:
    """A dtype under construction: f4, i8 …"""

    def __init__(self, word: Any = "", *_: Any) -> None:
        self.word, self.order = word if isinstance(word, str) else "", "<"

    def build(self, state: Any) -> None:
        """state: (version, byte order, …)."""
        self.order = {">": ">"}.get(state[1], "<")


def _numbers(content: Any, kind: Any, shape: Any, order: Any) -> np.ndarray:
    """An array from its bytes, dtype, shape and memory order."""
    dtype = _dtype(kind)
    count, size = int(np.prod(shape, dtype=object)), len(content) if isinstance(content, bytes | bytearray) else -1
    if min(shape, default=1) < 0 or count * dtype.itemsize != size:
        raise UnneededError(
            f"the data of an array of shape {' × '.join(map(str, shape))} have the wrong number of bytes"[:120]
        )
    return np.frombuffer(content, dtype).reshape(shape, order="F" if order == "F" else "C")


def _dtype(kind: Any) -> np.dtype[Any]:
    word = kind.word if isinstance(kind, _Kind) else ""
    if word[:1] not in tuple(KINDS) or word[1:] not in ("1", "2", "4", "8"):
        raise UnneededError(
            f"an array has elements of type {'object' if word[:1] in ('O', '') else word[:20]}, not numbers"
        )
    return np.dtype(f"{kind.order}{word}")


def _encoded(text: Any, coding: Any = "latin1") -> bytes:
    """Bytes that Python 2 pickled as text."""
    if not isinstance(text, str) or coding not in ("latin1", "latin-1"):
        raise UnneededError("the file contains encoded text that does not belong to an array")
    return text.encode("latin1")


def _nothing() -> bytes:
    """bytes() without arguments, as old pickles write an empty array."""
    return b""


def _scalar(kind: Any, content: Any = b"") -> Any:
    """A NumPy scalar as a Python number."""
    return _numbers(content.encode("latin1") if isinstance(content, str) else content, kind, (), "C").item()


def _buffered(content: Any, kind: Any, shape: Any, order: Any) -> _Array:
    """An array as pickled by protocol 5."""
    found = _Array()
    found.value = _numbers(content, kind, shape, order)
    return found


def _data(source: Any, names: Any = None, *_: Any) -> Any:
    """The array in Paddle's eval("data", {"data": array})."""
    if source != "data" or type(names) is not dict or list(names) != ["data"]:
        raise UnneededError("the pickle calls builtins.eval, which is not allowed in a checkpoint")
    return names["data"]


def _pair(items: Any = ()) -> tuple[Any, ...]:
    """A tuple."""
    return tuple(items) if isinstance(items, tuple | list) else ()


def _ordered(*_: Any) -> dict[Any, Any]:
    """An empty dict, filled later."""
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
    """An unpickler restricted to arrays."""

    stack: list[Any]
    pop_mark: Callable[[], list[Any]]

    def __init__(self, content: mmap.mmap) -> None:
        super().__init__(content, fix_imports=False, encoding="latin1")
        self.left = 2 * len(content)
        """Bytes that may still be allocated; old pickles hold each array twice, as text and as bytes."""

    def find_class(self, module: str, name: str) -> Any:
        """The name itself; load_reduce maps it to a function."""
        if _Name(module, name) not in KNOWN:
            raise UnneededError(f"the pickle refers to {module}.{name}, which is not allowed in a checkpoint"[:120])
        return _Name(module, name)

    def load_reduce(self) -> None:
        """Call the function of a known name."""
        arguments, asked = self.stack.pop(), self.stack.pop()
        if type(asked) is not _Name or type(arguments) is not tuple:
            raise UnneededError("the pickle calls an object that is not a function")
        self.stack.append(KNOWN[asked](*arguments))
        self._spend(self.stack[-1])

    def load_build(self) -> None:
        """Set the state of an array or of a dtype."""
        state, begun = self.stack.pop(), self.stack[-1]
        if type(begun) not in (_Array, _Kind):
            raise UnneededError(
                f"the pickle changes an object of type {type(begun).__name__.strip('_')} after creating it, which is "
                "not allowed in a checkpoint"
            )
        begun.build(state)
        self._spend(begun)

    def load_setitem(self) -> None:
        """Set one item of a dict."""
        value, key = self.stack.pop(), self.stack.pop()
        self._put([key, value])

    def load_setitems(self) -> None:
        """Set several items of a dict."""
        self._put(self.pop_mark())

    def load_append(self) -> None:
        """Append one item to a list."""
        self._append([self.stack.pop()])

    def load_appends(self) -> None:
        """Append several items to a list."""
        self._append(self.pop_mark())

    def _put(self, items: list[Any]) -> None:
        keys = items[::2]  # hashing nested tuples could take exponential time
        if type(self.stack[-1]) is not dict or any(type(key) not in (str, int, bytes) for key in keys):
            raise UnneededError("the pickle contains a dict whose keys are not text, integers or bytes")
        self.stack[-1].update(zip(keys, items[1::2], strict=True))

    def _append(self, items: list[Any]) -> None:
        if type(self.stack[-1]) is not list:
            raise UnneededError("the pickle appends to an object that is not a list")
        self.stack[-1].extend(items)

    def _spend(self, made: Any) -> None:
        """Raise if the arrays exceed the limit, as when a file refers to the same bytes many times."""
        array = made.value if type(made) is _Array else None
        self.left -= len(made) if isinstance(made, bytes) else array.nbytes if array is not None else 0
        if self.left < 0:
            raise UnneededError("the arrays are larger than the file")

    def _unneeded(self) -> None:
        raise UnneededError("the pickle contains opcodes that are not allowed in a checkpoint")

    dispatch: ClassVar[dict[int, Any]] = {
        **dict.fromkeys(range(256), _unneeded),
        **{code: pickle._Unpickler.dispatch[code] for code in (getattr(pickle, name)[0] for name in OPCODES)},
        pickle.BYTEARRAY8[0]: pickle._Unpickler.dispatch[pickle.BINBYTES8[0]],
        pickle.REDUCE[0]: load_reduce,
        pickle.BUILD[0]: load_build,
        pickle.SETITEM[0]: load_setitem,
        pickle.SETITEMS[0]: load_setitems,
        pickle.APPEND[0]: load_append,
        pickle.APPENDS[0]: load_appends,
    }


def _tensors(content: Any, seen: dict[int, Any]) -> Any:
    """Replace arrays in nested dicts by tensors.

    A shared array becomes one shared tensor, and a named array (name, array) becomes its tensor.
    """
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
    own = np.array(value, dtype=value.dtype.newbyteorder("="), order="C")  # a writable copy
    return torch.from_numpy(own)
