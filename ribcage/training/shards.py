"""Shards: files with the rows of each tensor that one process has, and tensors that are read from several such files.

A shard is a safetensors file. For each tensor, its metadata contain the index of the first row and the number of rows
of the whole tensor. The files may be read by any number of processes.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from ribcage.runtime import files


@dataclass(frozen=True)
class Rows:
    """Consecutive rows of a tensor."""

    start: int
    total: int
    """Rows of the whole tensor."""
    values: Tensor


def shard_bytes(parts: Mapping[str, Rows]) -> bytes:
    """The content of a shard."""
    from safetensors.torch import save

    places = {name: f"{rows.start} {rows.total}" for name, rows in parts.items()}
    return save({name: rows.values.contiguous() for name, rows in parts.items()}, metadata=places)


class Slice(Protocol):
    """What safetensors returns for a tensor in a file. It reads the rows that are taken of it."""

    def get_shape(self) -> list[int]:
        """Of the tensor in this file."""

    def get_dtype(self) -> str:
        """As safetensors writes it."""

    def __getitem__(self, rows: slice) -> Tensor: ...


@dataclass(frozen=True)
class Stored:
    """Rows of a tensor in a file."""

    start: int
    stop: int
    total: int
    values: Slice

    @property
    def kind(self) -> tuple[int, tuple[int, ...], str]:
        """What all parts of a tensor have in common: the number of rows, their shape and data type."""
        return self.total, tuple(self.values.get_shape()[1:]), self.values.get_dtype()


class SavedTensor:
    """A tensor in several files. Its rows are read when they are asked for."""

    def __init__(self, name: str, parts: Iterable[Stored]) -> None:
        """ValueError unless the parts are of one kind and together contain each row once."""
        self.name, self.parts = name, sorted(parts, key=lambda part: part.start)
        edges = [0, *(part.stop for part in self.parts)]
        starts = [*(part.start for part in self.parts), self.parts[0].total]
        if edges != starts or len({part.kind for part in self.parts}) > 1:
            raise ValueError(f"the parts of {name} overlap, leave gaps, or differ in shape or type")
        self.shape = torch.Size((self.parts[0].total, *self.parts[0].kind[1]))

    def rows(self, start: int, stop: int) -> Tensor:
        """These rows, in memory."""
        from safetensors import SafetensorError

        chosen = [part for part in self.parts if part.start < stop and start < part.stop] or self.parts[:1]
        try:
            return torch.cat([part.values[max(start - part.start, 0) : max(stop - part.start, 0)] for part in chosen])
        except SafetensorError as error:
            raise ValueError(f"{self.name} cannot be read ({error})") from None

    def whole(self) -> Tensor:
        """All rows, in memory."""
        return self.rows(0, self.shape[0])


def read_shards(shards: Iterable[Path]) -> dict[str, SavedTensor]:
    """Name → tensor; ValueError if a part is missing."""
    from safetensors import safe_open

    parts: dict[str, list[Stored]] = {}
    for file in shards:
        files.open_regular(file, "rb").close()
        opened: Any = safe_open(file, framework="pt")
        places = opened.metadata() or {}
        for name in opened.keys():  # noqa: SIM118 – not a dict
            values = opened.get_slice(name)
            start, total = map(int, places[name].split())
            parts.setdefault(name, []).append(Stored(start, start + values.get_shape()[0], total, values))
    return {name: SavedTensor(name, found) for name, found in parts.items()}


def rows(value: Tensor | SavedTensor, start: int, stop: int) -> Tensor:
    """Rows of a tensor in memory or in files."""
    return value.rows(start, stop) if isinstance(value, SavedTensor) else value[start:stop]


def whole(value: Tensor | SavedTensor) -> Tensor:
    """A tensor in memory."""
    return value.whole() if isinstance(value, SavedTensor) else value
