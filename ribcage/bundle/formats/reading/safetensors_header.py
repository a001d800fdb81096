"""Header of a safetensors file: names, shapes and types of its tensors, read without loading them."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ribcage.runtime import files

MAX_HEADER = 100_000_000
"""Maximum size of the header in bytes."""


@dataclass(frozen=True)
class StoredTensor:
    """A tensor as described by the header."""

    shape: tuple[int, ...]
    floating: bool
    """Whether its type is floating-point."""


def read_header(file: Path) -> dict[str, StoredTensor]:
    """Shapes and types of the tensors in a safetensors file, without loading them."""
    size = files.regular(file).stat().st_size
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if not 2 <= length <= min(size - 8, MAX_HEADER):
            raise ValueError("the header is longer than the file")
        header = json.loads(stream.read(length))
    if not isinstance(header, dict):
        raise ValueError("the header is not a JSON object")
    return {name: _stored(one) for name, one in header.items() if name != "__metadata__"}


def _stored(one: Any) -> StoredTensor:
    """One entry of the header, validated."""
    shape, kind = (one.get("shape"), one.get("dtype")) if isinstance(one, dict) else (None, None)
    if not isinstance(shape, list) or not all(type(side) is int and side >= 0 for side in shape):
        raise ValueError("a shape in the header is not a list of integers")
    if not isinstance(kind, str) or kind.startswith("C"):
        raise ValueError("the header has an unsupported dtype")
    return StoredTensor(tuple(shape), kind.startswith(("F", "BF")))
