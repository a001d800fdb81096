"""Reading of torch.save files by torch's restricted unpickler, which calls no function chosen by the file.

Other objects in published files, such as options, scores and dates, are replaced by `Placeholder`, which ignores its
content.
"""

import contextlib
import io
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

OBJECTS = (
    "argparse.Namespace",
    "builtins.bool",
    "builtins.dict",
    "builtins.float",
    "builtins.int",
    "builtins.list",
    "builtins.str",
    "datetime.date",
    "datetime.datetime",
    "datetime.timedelta",
    "datetime.timezone",
    "numpy.core.multiarray._reconstruct",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray._reconstruct",
    "numpy._core.multiarray.scalar",
    "numpy.dtype",
    "numpy.ndarray",
    "omegaconf.base.ContainerMetadata",
    "omegaconf.base.Metadata",
    "omegaconf.dictconfig.DictConfig",
    "omegaconf.listconfig.ListConfig",
    "omegaconf.nodes.AnyNode",
    *(
        f"pathlib.{local}{name}"
        for local in ("", "_local.")
        for name in ("Path", "PosixPath", "PurePosixPath", "PureWindowsPath", "WindowsPath")
    ),
    "typing.Any",
)
DICTS = (
    "addict.addict.Dict",
    "collections.defaultdict",
    "easydict.EasyDict",
    "lightning_fabric.utilities.data.AttributeDict",
    "lightning.fabric.utilities.data.AttributeDict",
    "pytorch_lightning.utilities.parsing.AttributeDict",
    "yacs.config.CfgNode",
)
LISTS = ("collections.deque",)
"""Classes that occur in published files beside the weights, and are read as placeholders, dicts or lists."""


class Placeholder:
    """Replaces an object that contains no weights; ignores its arguments and state."""

    def __init__(self, *_: Any, **__: Any) -> None:
        """Ignore all arguments."""

    def __setstate__(self, state: Any) -> None:
        """Ignore the state."""


class PlainDict:
    """Replaces a subclass of dict by an OrderedDict, which torch's reader then fills."""

    def __new__(cls, *_: Any, **__: Any) -> Any:
        """Ignore all arguments."""
        return OrderedDict()


class PlainList:
    """Replaces a subclass of list by a list."""

    def __new__(cls, *_: Any, **__: Any) -> Any:
        """Ignore all arguments."""
        return []


REPLACEMENTS: dict[Callable[..., Any], tuple[str, ...]] = {Placeholder: OBJECTS, PlainDict: DICTS, PlainList: LISTS}


def read_torch_file(file: Path) -> Any:
    """The content of a torch.save file."""
    names: list[Any] = [(replacement, name) for replacement, known in REPLACEMENTS.items() for name in known]
    with file.open("rb") as stream, torch.serialization.safe_globals(names), cheap_calls(), _quiet():
        # latin1: NumPy arrays pickled by Python 2; a stream, since torch interprets the suffix of a path
        return torch.load(stream, map_location="cpu", weights_only=True, encoding="latin1")


@contextlib.contextmanager
def cheap_calls() -> Iterator[None]:
    """Context manager: bound the cost of the functions that torch's reader lets a file call.

    By default a file can allocate a bytearray of any length, and encode text with codecs that may take hours.
    """
    from torch._weights_only_unpickler import _get_allowed_globals

    allowed = _get_allowed_globals()
    own = {"_codecs.encode": _latin1, "builtins.bytearray": _latin1}
    before = {name: allowed[name] for name in own if name in allowed}
    allowed.update({name: own[name] for name in before})
    try:
        yield
    finally:
        allowed.update(before)


def _latin1(content: Any = b"", coding: Any = "latin1") -> bytes:
    """Bytes as pickled by Python 2 and NumPy."""
    if isinstance(content, bytes | bytearray):
        return bytes(content)
    if not isinstance(content, str) or coding not in ("latin1", "latin-1"):
        raise ValueError("the file contains byte strings, which are not allowed in a checkpoint")
    return content.encode("latin1")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Context manager: suppress torch's warnings about old formats."""
    import warnings

    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        yield
