"""Container: the weights in a file, whatever program wrote it – safetensors, torch's two forms, Paddle's, NumPy's.

Nothing in a file is executed. safetensors and NumPy hold only numbers. torch's files and Paddle's are pickles, programs
that may call any function of Python; they are read by unpicklers with a short list of harmless ones.
"""

import math
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ribcage.bundle.formats.reading import pickled
from ribcage.bundle.formats.reading.torch_files import read_torch_file

INSIDE = (
    "state_dict_ema",
    "model_ema",
    "state_dict",
    "online_network_state_dict",
    "model_state_dict",
    "model",
    "net",
    "network",
    "weights",
)
"""Under which of these names training programs keep the weights, the first that is there."""
WRAPPERS = ("module.", "_orig_mod.")
"""What torch puts before every name when a model is trained on many devices, or compiled."""
BLOWN_UP = 4
"""A file is refused that promises more bytes than this factor times its size: tied weights are few."""
SMALL = 2**24
"""Bytes that the smallest file may promise: constant weights pack well."""
DEEPEST, MOST = 32, 100_000
"""How deep dicts in a file are looked through, and how many things in them."""
LONGEST = 500
"""Characters of the longest name of a weight."""


@dataclass(frozen=True)
class WeightsFile:
    """What a file of weights holds."""

    weights: dict[str, Tensor]
    """The model's, under the file's own names, without what wrappers put before them."""
    beside: tuple[str, ...] = ()
    """Names of all other tensors in the file: of an optimizer, of a second copy of the model."""
    arch: str = ""
    """What the program that wrote the file calls the architecture, under `arch`."""


def read_weights(file: Path) -> WeightsFile:
    """The weights in a file, and the names of all tensors that are none of them."""
    content = read_container(file)
    try:
        chosen = _inside(content)
        found = _tensors(chosen)
        _plain(found, file.stat().st_size)
    except ValueError as error:
        raise ValueError(f"{file} cannot be read as weights: {error}.") from None
    if not found:
        raise ValueError(f"{file} holds no weights: {_without(content)}.")
    arch = content.get("arch") if isinstance(content, dict) else ""
    return WeightsFile(
        {_bare(name): value for name, value in found.items()},
        _beside(content, chosen),
        arch if isinstance(arch, str) and len(arch) < LONGEST else "",
    )


def _without(content: Any) -> str:
    """What a file without weights holds."""
    if not isinstance(content, dict):
        return f"it is a {type(content).__name__}, not a dict of tensors by name"
    if "ribcage" in content:
        return "it is the checkpoint of a training; name its run folder instead"
    if {"state", "param_groups"} <= content.keys():
        return "it is the state of an optimizer"
    names = ", ".join(_printable(name) for name in list(content)[:3])
    return f"it has {names}{' …' if len(content) > 3 else ''}, none of which is a tensor" if content else "it is empty"


def _beside(content: Any, chosen: Any) -> tuple[str, ...]:
    """Names of the tensors that are not directly in the dict that was chosen; a dict or a list is gone through once."""
    found: list[str] = []
    waiting: list[tuple[str, Any]] = [("", content)]
    seen: set[int] = set()
    while waiting and len(seen) < MOST:
        path, one = waiting.pop()
        if id(one) in seen or path.count("\0") > DEEPEST:
            continue
        seen.add(id(one))
        items = dict.items(one) if isinstance(one, dict) else enumerate(one) if isinstance(one, list | tuple) else ()
        for name, value in items:
            here = f"{path}\0{_printable(name)}" if path else _printable(name)
            if isinstance(value, Tensor):
                found += [here] if one is not chosen or not isinstance(name, str) else []
            elif isinstance(value, dict | list | tuple):
                waiting.append((here, value))
    return tuple(sorted(name.replace("\0", ".") for name in found))


def _printable(name: Any) -> str:
    """A key of a dict, to be shown."""
    text = name if isinstance(name, str) else str(name) if isinstance(name, int) else type(name).__name__
    return "".join(one for one in text[:LONGEST] if one.isprintable()) or "?"


def read_container(file: Path) -> Any:
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
        return _read(file, start)
    except MemoryError:
        raise MemoryError(f"{file} needs more memory than there is.") from None
    except Exception as error:  # a damaged or hostile file raises almost anything
        raise ValueError(f"{file} cannot be read as weights: {_why(error)}.") from None


def _read(file: Path, start: bytes) -> Any:
    """By how it begins."""
    if pickled.recognises(start):
        return pickled.load_pickle(file)
    if start.startswith(b"PK"):
        return _npz(file) if _unpacked(file) else read_torch_file(file)
    if start.startswith(pickled.TORCH):
        return read_torch_file(file)
    if start[8:9] == b"{":
        return _safetensors(file)
    raise ValueError(_other(start))


def _unpacked(file: Path) -> bool:
    """Whether a packed file is NumPy's, and no bomb."""
    with zipfile.ZipFile(file) as packed:
        size, names = sum(one.file_size for one in packed.infolist()), packed.namelist()
    _bounded(size, file.stat().st_size)
    if not names:
        raise ValueError("it is an empty archive")
    return all(name.endswith(".npy") for name in names)


def _bounded(promised: int, size: int) -> None:
    """Raise where a file of this size promises many times as many bytes."""
    if promised > max(BLOWN_UP * size, SMALL):
        raise ValueError(f"it would grow to {promised / 1e9:,.1f} GB")


def _other(start: bytes) -> str:
    """What a file is that has no weights in it."""
    text = start.lstrip(b"\xef\xbb\xbf \r\n\t").lower()
    if text.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer, not the file itself: get that with 'git lfs pull'"
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        return "it is a web page: download the file itself"
    if text and all(32 <= byte < 127 or byte in b"\r\n\t" for byte in text):
        return "it is text"
    return "it is of no form that is known (safetensors, torch's, Paddle's, NumPy's .npz)"


def _why(error: Exception) -> str:
    """An error in a few words: what a file wanted to call is worth knowing, torch's advice to allow it is not."""
    text = "".join(one for one in " ".join(str(error).split()) if one.isprintable())  # names in it come from the file
    if "GLOBAL " in text:
        asked = text.split("GLOBAL ", 1)[1].split(" ", 1)[0]
        return f"it asks for {asked}, which no weights need{_whole(asked)}"
    text = text.split("WeightsUnpickler error: ", 1)[-1].split(" Check the documentation of torch.load", 1)[0]
    if "allocate memory" in text:
        return "it needs more memory than there is"
    if isinstance(error, EOFError | zipfile.BadZipFile) or "central directory" in text or "unexpected EOF" in text:
        return "it is cut off or damaged"
    return text[:120].rstrip(".") or type(error).__name__


def _whole(asked: str) -> str:
    """What to do where a class is asked for: the model was saved as an object, not as its weights."""
    kind = asked.rpartition(".")[2]
    if not kind[:1].isupper():
        return ""
    return " – a whole model: open it with the program it is of, and save its state_dict() instead"


def _safetensors(file: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    return load_file(file)


def _npz(file: Path) -> dict[str, Tensor]:
    with zipfile.ZipFile(file) as packed:
        for one in packed.infolist():
            _whole_array(packed, one)
    with np.load(file, allow_pickle=False) as arrays:
        return {name: torch.from_numpy(np.ascontiguousarray(arrays[name])) for name in arrays.files}


def _whole_array(packed: zipfile.ZipFile, one: zipfile.ZipInfo) -> None:
    """Raise where an array claims more numbers than its file has: NumPy makes room for what is claimed."""
    with packed.open(one) as stream:
        version = np.lib.format.read_magic(stream)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(stream)
        if not dtype.hasobject and math.prod(shape) * dtype.itemsize != one.file_size - stream.tell():
            raise ValueError(f"{_printable(one.filename)} has fewer numbers than its header claims")


def _inside(content: Any) -> Any:
    """The part of a training program's file that is the model."""
    seen: set[int] = set()
    while isinstance(content, dict) and id(content) not in seen:  # a dict can be in itself
        seen.add(id(content))
        inner = (dict.get(content, name) for name in INSIDE)
        content = next((one for one in inner if _tensors(one)), content)
    return content


def _tensors(content: Any) -> dict[str, Tensor]:
    """The weights among the values of a dict."""
    if not isinstance(content, dict):
        return {}
    found = dict.items(content)  # in a file a dict may have been given an `items` of another kind
    return {name: Tensor.detach(value) for name, value in found if isinstance(name, str) and isinstance(value, Tensor)}


def _plain(found: dict[str, Tensor], size: int) -> None:
    """Raise where weights are not what they seem: no numbers behind them, or many times the same."""
    for name, value in found.items():
        if len(name) > LONGEST or not name.isprintable():
            raise ValueError("it has names that are not names of weights")
        if value.layout != torch.strided or value.device.type != "cpu" or value.is_quantized or value.is_complex():
            raise ValueError(f"{name} is not a plain array of numbers")
    if len({_bare(name) for name in found}) < len(found):
        raise ValueError("it has two weights with the same name")
    _bounded(sum(value.numel() * value.element_size() for value in found.values()), size)


def _bare(name: str) -> str:
    """The name without wrappers."""
    while name.startswith(WRAPPERS):
        name = name.split(".", 1)[1]
    return name
