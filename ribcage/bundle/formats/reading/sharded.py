"""Weights in several files: the index of transformers, `model.safetensors.index.json`, and the files that it lists."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from ribcage.bundle.formats.reading.safetensors_header import read_header
from ribcage.runtime import files

INDEX = ".safetensors.index.json"
"""Ending of an index."""
MAX_SHARDS = 1000


def parts_of(file: Path) -> list[Path]:
    """The files that the weights are in: the file itself, or an index and the files that it lists, in order of name."""
    return [file, *(file.parent / name for name in sorted(set(_listed(file).values())))] if is_index(file) else [file]


def is_index(file: Path) -> bool:
    """Whether this is an index, by its name."""
    return file.name.endswith(INDEX)


def size_of(file: Path) -> int:
    """Bytes of all files that the weights are in."""
    return sum(one.stat().st_size for one in parts_of(file))


def sha256_of(file: Path) -> str:
    """SHA-256 of the file; of an index, of all its files, one after another (`cat INDEX SHARDS | sha256sum`)."""
    hashed = hashlib.sha256()
    for one in parts_of(file):
        with one.open("rb") as stream:
            while block := stream.read(1 << 20):
                hashed.update(block)
    return hashed.hexdigest()


def read_shards(index: Path) -> dict[str, Tensor]:
    """The weights in the files of an index. ValueError unless each weight is in the file that the index states, and in
    no other."""
    from safetensors.torch import load_file

    listed = _listed(index)
    shards = parts_of(index)[1:]
    for shard in shards:
        _check_names(shard, [name for name, where in listed.items() if where == shard.name])
    return {name: value for shard in shards for name, value in load_file(shard).items()}


def _listed(index: Path) -> dict[str, str]:
    """Name of each weight → the file that it is in, which lies beside the index."""
    content = files.read_json(index, object_pairs_hook=_without_repetition)
    listed = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(listed, dict) or not listed or not all(isinstance(one, str) for one in listed.values()):
        raise ValueError("the index has no weight_map")
    shards = set(listed.values())
    if strange := sorted(one for one in shards if not _is_beside(one)):
        raise ValueError(f"the index lists {strange[0][:60]!r}, which is no file beside it")
    if len(shards) > MAX_SHARDS:
        raise ValueError(f"the index lists {len(shards):,} files, more than {MAX_SHARDS:,}")
    return listed


def _without_repetition(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("the index lists a weight twice")
    return found


def _is_beside(name: str) -> bool:
    return (
        name.endswith(".safetensors")
        and name.isprintable()
        and not name.startswith(".")
        and "/" not in name
        and "\\" not in name
    )


def _check_names(shard: Path, expected: Sequence[str]) -> None:
    if not shard.is_file():
        raise ValueError(f"{shard.name} is missing beside the index")
    there = read_header(shard).keys()
    if missing := sorted(set(expected) - there):
        raise ValueError(f"{shard.name} does not have {missing[0][:60]}")
    if more := sorted(there - set(expected)):
        raise ValueError(f"{shard.name} has {more[0][:60]}, which the index does not list there")
