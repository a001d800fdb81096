"""Reading weights from safetensors (one file or several), both formats of torch.save, Paddle's .pdparams and .npz.

No code in a file is executed. safetensors and .npz files contain only arrays. The files of torch and Paddle are
pickles, which could call any Python function; they are read by unpicklers with a short list of harmless ones.
"""

import math
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ribcage.bundle.formats.reading import pickled, sharded
from ribcage.bundle.formats.reading.torch_files import read_torch_file

TEACHER = "teacher"
"""Key of a moving average, which is preferred to weights of the same names and shapes."""
WEIGHT_KEYS = (
    "state_dict_ema",
    "model_ema",
    "state_dict",
    "online_network_state_dict",
    "model_state_dict",
    "model",
    "module",
    "net",
    "network",
    "weights",
    TEACHER,
)
"""Keys under which training programs store the weights, in order of preference."""
WRAPPERS = ("module.", "_orig_mod.")
"""Prefixes that torch adds to every name if a model is trained on several devices or compiled."""
MAX_EXPANSION = 4
"""Maximum size of the weights, as a multiple of the file's size; tied weights can exceed it, but are few."""
MIN_ALLOWANCE = 2**24
"""Bytes of weights that a file of any size may contain, since constant weights compress well."""
MAX_DEPTH, MAX_CONTAINERS = 32, 100_000
"""Maximum depth and number of the dicts and lists that are searched for tensors."""
MAX_NAME = 500
"""Maximum length of a weight name in characters."""


@dataclass(frozen=True)
class WeightsFile:
    """Content of a file of weights."""

    weights: dict[str, Tensor]
    """The weights of the model under the names in the file, without wrapper prefixes."""
    other_tensors: tuple[str, ...] = ()
    """Names of all other tensors in the file, such as those of an optimizer or an EMA copy."""
    arch: str = ""
    """Name of the architecture, as stated under the key `arch`."""


def read_weights(file: Path) -> WeightsFile:
    """The weights in a file, and the names of all other tensors."""
    content = read_container(file)
    try:
        chosen = _weights_dict(content)
        found = _tensors(chosen)
        _check_plain(found, sharded.size_of(file))
    except ValueError as error:
        raise ValueError(f"{file} cannot be read as weights: {error}.") from None
    if not found:
        raise ValueError(f"{file} contains no weights: {_found_instead(content)}.")
    arch = content.get("arch") if isinstance(content, dict) else ""
    return WeightsFile(
        {_without_wrappers(name): value for name, value in found.items()},
        _other_tensors(content, chosen),
        arch if isinstance(arch, str) and len(arch) < MAX_NAME else "",
    )


def _found_instead(content: Any) -> str:
    """What a file without weights contains."""
    if not isinstance(content, dict):
        return f"the file is a {type(content).__name__}, not a dict of tensors"
    if "ribcage" in content:
        return "the file is a checkpoint of a training run; pass the run folder instead"
    if {"state", "param_groups"} <= content.keys():
        return "the file is the state of an optimizer"
    names = ", ".join(_printable(name) for name in list(content)[:3])
    return (
        f"the keys are {names}{' …' if len(content) > 3 else ''}, none of which holds a tensor"
        if content
        else "the file is empty"
    )


def _other_tensors(content: Any, chosen: Any) -> tuple[str, ...]:
    """Names of all tensors outside the chosen dict; each dict or list is searched once."""
    found: list[str] = []
    pending: list[tuple[str, Any]] = [("", content)]
    seen: set[int] = set()
    while pending and len(seen) < MAX_CONTAINERS:
        path, one = pending.pop()
        if id(one) in seen or path.count("\0") > MAX_DEPTH:
            continue
        seen.add(id(one))
        items = dict.items(one) if isinstance(one, dict) else enumerate(one) if isinstance(one, list | tuple) else ()
        for name, value in items:
            here = f"{path}\0{_printable(name)}" if path else _printable(name)
            if isinstance(value, Tensor):
                found += [here] if one is not chosen or not isinstance(name, str) else []
            elif isinstance(value, dict | list | tuple):
                pending.append((here, value))
    return tuple(sorted(name.replace("\0", ".") for name in found))


def _printable(name: Any) -> str:
    """A dict key as printable text."""
    text = name if isinstance(name, str) else str(name) if isinstance(name, int) else type(name).__name__
    return "".join(one for one in text[:MAX_NAME] if one.isprintable()) or "?"


def read_container(file: Path) -> Any:
    """The entire content of a file."""
    if file.is_dir():
        raise ValueError(f"{file} is a folder. Pass a weights file.")
    if not file.is_file():
        raise FileNotFoundError(f"{file} does not exist.")
    try:
        if sharded.is_index(file):
            return sharded.read_shards(file)
        with file.open("rb") as stream:
            start = stream.read(64)
        if not start:
            raise ValueError("the file is empty")
        return _read(file, start)
    except MemoryError:
        raise MemoryError(f"Reading {file} takes more memory than is available.") from None
    except Exception as error:  # a damaged or hostile file raises almost anything
        raise ValueError(f"{file} cannot be read as weights: {_reason(error)}.") from None


def _read(file: Path, start: bytes) -> Any:
    """The content of a file whose format is detected from its first bytes."""
    if pickled.recognises(start):
        return pickled.load_pickle(file)
    if start.startswith(b"PK"):
        return _npz(file) if _is_npz(file) else read_torch_file(file)
    if start.startswith(pickled.TORCH):
        return read_torch_file(file)
    if start[8:9] == b"{":
        return _safetensors(file)
    raise ValueError(_unknown_format(start))


def _is_npz(file: Path) -> bool:
    """Whether a ZIP archive is an .npz file; raise if it is a decompression bomb."""
    with zipfile.ZipFile(file) as archive:
        size, names = sum(one.file_size for one in archive.infolist()), archive.namelist()
    _check_expansion(size, file.stat().st_size)
    if not names:
        raise ValueError("the file is an empty archive")
    return all(name.endswith(".npy") for name in names)


def _check_expansion(expanded: int, size: int) -> None:
    """Raise if the content is many times larger than the file."""
    if expanded > max(MAX_EXPANSION * size, MIN_ALLOWANCE):
        raise ValueError(f"the file would expand to {expanded / 1e9:,.1f} GB")


def _unknown_format(start: bytes) -> str:
    """Description of a file that is not in a supported format."""
    text = start.lstrip(b"\xef\xbb\xbf \r\n\t").lower()
    if text.startswith(b"version https://git-lfs"):
        return "the file is only a Git LFS pointer: run 'git lfs pull' to download the content"
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        return "the file is a web page, not a checkpoint: download the checkpoint itself"
    if text and all(32 <= byte < 127 or byte in b"\r\n\t" for byte in text):
        return "the file is a text file"
    return "the format is not supported (supported: safetensors, torch, Paddle, NumPy .npz)"


def _reason(error: Exception) -> str:
    """A short reason for an error. It names what a pickle tried to call, without torch's advice to allow that."""
    text = "".join(one for one in " ".join(str(error).split()) if one.isprintable())  # names in it come from the file
    if "GLOBAL " in text:
        asked = text.split("GLOBAL ", 1)[1].split(" ", 1)[0]
        return f"the pickle refers to {asked}, which is not allowed in a checkpoint{_whole_model(asked)}"
    text = text.split("WeightsUnpickler error: ", 1)[-1].split(" Check the documentation of torch.load", 1)[0]
    if "allocate memory" in text:
        return "reading it takes more memory than is available"
    if isinstance(error, EOFError | zipfile.BadZipFile) or "central directory" in text or "unexpected EOF" in text:
        return "the file is truncated or damaged"
    return text[:120].rstrip(".") or type(error).__name__


def _whole_model(asked: str) -> str:
    """Advice if a pickle refers to a class: the model was saved as an object instead of its weights."""
    kind = asked.rpartition(".")[2]
    if not kind[:1].isupper():
        return ""
    return " – a pickled model: load it with the program that wrote it and save its state_dict()"


def _safetensors(file: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    return load_file(file)


def _npz(file: Path) -> dict[str, Tensor]:
    with zipfile.ZipFile(file) as archive:
        for one in archive.infolist():
            _check_array_size(archive, one)
    with np.load(file, allow_pickle=False) as arrays:
        return {name: torch.from_numpy(np.ascontiguousarray(arrays[name])) for name in arrays.files}


def _check_array_size(archive: zipfile.ZipFile, one: zipfile.ZipInfo) -> None:
    """Raise if the header of an array does not match its size: NumPy allocates what the header states."""
    with archive.open(one) as stream:
        version = np.lib.format.read_magic(stream)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(stream)
        if not dtype.hasobject and math.prod(shape) * dtype.itemsize != one.file_size - stream.tell():
            raise ValueError(f"{_printable(one.filename)} does not have the size that its header states")


def _weights_dict(content: Any) -> Any:
    """The dict of the model's weights within a training checkpoint."""
    seen: set[int] = set()
    while isinstance(content, dict) and id(content) not in seen:  # a dict can contain itself
        seen.add(id(content))
        inner = (dict.get(content, name) for name in WEIGHT_KEYS)
        content = _averaged(content, next((one for one in inner if _tensors(one)), content))
    return content


def _averaged(content: dict[Any, Any], student: Any) -> Any:
    """The teacher beside these weights if it has the same weights: it is their moving average."""
    teacher = dict.get(content, TEACHER)
    return teacher if _shapes(teacher) and _shapes(teacher) == _shapes(student) else student


def _shapes(content: Any) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors among the values of a dict."""
    return {name: tuple(value.shape) for name, value in _tensors(content).items()}


def _tensors(content: Any) -> dict[str, Tensor]:
    """The tensors among the values of a dict."""
    if not isinstance(content, dict):
        return {}
    found = dict.items(content)  # a hostile file may have replaced `items`
    return {name: Tensor.detach(value) for name, value in found if isinstance(name, str) and isinstance(value, Tensor)}


def _check_plain(found: dict[str, Tensor], size: int) -> None:
    """Raise if a weight is not a dense array in memory, or if the weights are far larger than the file."""
    for name, value in found.items():
        if len(name) > MAX_NAME or not name.isprintable():
            raise ValueError("the file has invalid weight names")
        if value.layout != torch.strided or value.device.type != "cpu" or value.is_quantized or value.is_complex():
            raise ValueError(f"{name} is not a plain array of numbers")
    if len({_without_wrappers(name) for name in found}) < len(found):
        raise ValueError("the file has two weights with the same name")
    _check_expansion(sum(value.numel() * value.element_size() for value in found.values()), size)


def _without_wrappers(name: str) -> str:
    """A weight name without wrapper prefixes."""
    while name.startswith(WRAPPERS):
        name = name.split(".", 1)[1]
    return name
