"""torch's files of weights, read by an unpickler that calls no function of the file's choice.

What published files keep beside their weights – the options of a run, scores, dates – is read as `Aside`, which keeps
nothing and does nothing.
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
"""What stands beside the weights in published files: read as `Aside`, as a dict or as a list, whatever it is."""


class Aside:
    """Stands for an object that no weight is part of: it takes whatever is put into it and forgets it."""

    def __init__(self, *_: Any, **__: Any) -> None:
        """Empty."""

    def __setstate__(self, state: Any) -> None:
        """Forget it."""


class AsideDict:
    """Stands for a class of dicts: makes a plain one, which torch's reader then fills."""

    def __new__(cls, *_: Any, **__: Any) -> Any:
        """Empty."""
        return OrderedDict()


class AsideList:
    """Stands for a class of lists: makes a plain one."""

    def __new__(cls, *_: Any, **__: Any) -> Any:
        """Empty."""
        return []


STANDING: dict[Callable[..., Any], tuple[str, ...]] = {Aside: OBJECTS, AsideDict: DICTS, AsideList: LISTS}


def read_torch_file(file: Path) -> Any:
    """The content of a file of torch.save."""
    names: list[Any] = [(stand, name) for stand, known in STANDING.items() for name in known]
    with file.open("rb") as stream, torch.serialization.safe_globals(names), cheap_calls(), _quiet():
        # latin1: as Python 2 wrote numbers of NumPy's; a stream, since of a path torch heeds the ending
        return torch.load(stream, map_location="cpu", weights_only=True, encoding="latin1")


@contextlib.contextmanager
def cheap_calls() -> Iterator[None]:
    """While it lasts, what torch's reader lets a file call costs no more than the file is long: by itself it makes a
    bytearray of any length, and encodes text in any way, some of which take hours."""
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
    """Bytes, as Python 2 and NumPy wrote them."""
    if isinstance(content, bytes | bytearray):
        return bytes(content)
    if not isinstance(content, str) or coding not in ("latin1", "latin-1"):
        raise ValueError("it contains byte strings that no weights need")
    return content.encode("latin1")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without torch's warnings of old forms."""
    import warnings

    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        yield
