"""Container: the weights in a file, whatever program wrote it – safetensors, torch's two forms, Paddle's, NumPy's.

Nothing in a file is executed. safetensors and NumPy hold only numbers. torch's files and Paddle's are pickles, little
programs that may ask for any function of Python's; they are read by unpicklers that know a short list of harmless ones.
What published files keep beside their weights – the options of a run, scores, dates – is read as `Aside`, which keeps
nothing and does nothing.
"""

import contextlib
import io
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ribcage.weights import pickled

INSIDE = ("state_dict_ema", "model_ema", "state_dict", "model_state_dict", "model", "net", "network", "weights")
"""Under which of these names training programs keep the weights, the first that is there."""
WRAPPERS = ("module.", "_orig_mod.")
"""What torch puts before every name when a model is trained on many devices, or compiled."""
BLOWN_UP = 64
"""A packed file is refused when it would grow by more than this factor."""
SIDE_THINGS = (
    "argparse.Namespace",
    "collections.defaultdict",
    "datetime.datetime",
    "datetime.timedelta",
    "easydict.EasyDict",
    "lightning_fabric.utilities.data.AttributeDict",
    "numpy.core.multiarray._reconstruct",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray._reconstruct",
    "numpy._core.multiarray.scalar",
    "numpy.dtype",
    "numpy.ndarray",
    "omegaconf.dictconfig.DictConfig",
    "pathlib.PosixPath",
    "pytorch_lightning.utilities.parsing.AttributeDict",
    "yacs.config.CfgNode",
)
"""What stands beside the weights in published files: read as `Aside`."""


class Aside(dict[Any, Any]):
    """Stands for an object that no weight is part of: it takes whatever is put into it and forgets it."""

    def __new__(cls, *_: Any, **__: Any) -> "Aside":
        """Empty."""
        return super().__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None:
        super().__init__()

    def __setstate__(self, state: Any) -> None:
        """Forget it."""

    def __setitem__(self, key: Any, value: Any) -> None:
        """Forget it."""


def weights_in(file: Path) -> dict[str, Tensor]:
    """The weights in a file under its own names, without what wrappers put before them."""
    found = _tensors(_inside(contents(file)))
    if not found:
        raise ValueError(f"{file} holds no weights.")
    return {_bare(name): value for name, value in found.items()}


def contents(file: Path) -> Any:
    """All that is in a file."""
    if file.is_dir():
        raise ValueError(f"{file} is a folder: name a file of weights.")
    if not file.is_file():
        raise FileNotFoundError(f"{file} does not exist.")
    try:
        with file.open("rb") as stream:
            start = stream.read(64)
        if not start:
            raise ValueError("it is empty")
        if pickled.recognises(start):
            return pickled.load(file)
        if zipfile.is_zipfile(file):
            return _npz(file) if file.suffix == ".npz" else _torch(file)
        return _safetensors(file) if start[8:9] == b"{" else _torch(file)
    except MemoryError:
        raise MemoryError(f"{file} needs more memory than there is.") from None
    except Exception as error:  # a damaged or hostile file raises almost anything
        raise ValueError(f"{file} cannot be read as weights: {_why(error)}.") from None


def _why(error: Exception) -> str:
    """An error in a few words: what a file wanted to call is worth knowing, torch's advice to allow it is not."""
    text = " ".join(str(error).split())
    if "GLOBAL " in text:
        asked = text.split("GLOBAL ", 1)[1].split(" ", 1)[0]
        return f"it asks for {asked}, which no weights need"
    if isinstance(error, EOFError | zipfile.BadZipFile) or "central directory" in text or "unexpected EOF" in text:
        return "it is cut off or damaged"
    return text[:120].rstrip(".") or type(error).__name__


def _safetensors(file: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    return load_file(file)


def _npz(file: Path) -> dict[str, Tensor]:
    with np.load(file, allow_pickle=False) as arrays:
        return {name: torch.from_numpy(np.ascontiguousarray(arrays[name])) for name in arrays.files}


def _torch(file: Path) -> Any:
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as packed:
            size = sum(one.file_size for one in packed.infolist())
        if size > BLOWN_UP * file.stat().st_size:
            raise ValueError(f"it would grow to {size / 1e9:,.1f} GB")
    with torch.serialization.safe_globals([(Aside, name) for name in SIDE_THINGS]), _quiet():
        return torch.load(file, map_location="cpu", weights_only=True)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without torch's warnings of old forms."""
    import warnings

    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


def _inside(content: Any) -> Any:
    """The part of a training program's file that is the model."""
    while isinstance(content, dict):
        inner = next((content[name] for name in INSIDE if isinstance(content.get(name), dict)), None)
        if inner is None or not _tensors(inner):
            return content
        content = inner
    return content


def _tensors(content: Any) -> dict[str, Tensor]:
    """The weights among the values of a dict, and of those it holds."""
    if not isinstance(content, dict):
        return {}
    found: dict[str, Tensor] = {}
    for name, value in content.items():
        if isinstance(value, Tensor):
            found[str(name)] = value.detach()
    return found


def _bare(name: str) -> str:
    """The name without wrappers."""
    while name.startswith(WRAPPERS):
        name = name.split(".", 1)[1]
    return name
