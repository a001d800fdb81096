"""Header of a safetensors file: names, shapes and types of its tensors, read without reading one."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ribcage.runtime import files

LONGEST_HEADER = 100_000_000
"""Bytes of the largest header."""


@dataclass(frozen=True)
class StoredTensor:
    """What the header of a file says of a tensor."""

    shape: tuple[int, ...]
    fractions: bool
    """Whether its numbers are floating-point."""


def read_header(file: Path) -> dict[str, StoredTensor]:
    """What a safetensors file says of its tensors, without reading one."""
    size = files.regular(file).stat().st_size
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if not 2 <= length <= min(size - 8, LONGEST_HEADER):
            raise ValueError("its header is longer than the file")
        said = json.loads(stream.read(length))
    if not isinstance(said, dict):
        raise ValueError("its header is not a table")
    return {name: _stored(one) for name, one in said.items() if name != "__metadata__"}


def _stored(one: Any) -> StoredTensor:
    """One tensor in the header of a safetensors file."""
    shape, kind = (one.get("shape"), one.get("dtype")) if isinstance(one, dict) else (None, None)
    if not isinstance(shape, list) or not all(type(side) is int and side >= 0 for side in shape):
        raise ValueError("a shape in its header is not a list of numbers")
    if not isinstance(kind, str) or kind.startswith("C"):
        raise ValueError("its header has an unsupported type of numbers")
    return StoredTensor(tuple(shape), kind.startswith(("F", "BF")))
