"""Feature cache: the feature maps of a frozen backbone, computed once per image and read from files in later epochs.

It requires a frozen backbone and a view that does not vary between epochs, except for flips: then each image is cached
twice. The run writes the files before its first step, each process its share:

    features/
    ├── 0.bin, 1.bin …    one per map: (images, channels, h, w), those of flipped images behind the others
    └── features.json     what they were computed from; written last. A resumed run uses the files if it still matches
"""

import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ribcage.data.loader import Loader
from ribcage.imaging import augment
from ribcage.inference.forward_pass import evaluation_mode
from ribcage.methods.detect import Detect
from ribcage.runtime import distributed, files, progress
from ribcage.runtime.devices import autocast

Kind = Literal["float16", "bfloat16", "float32"]
BATCH = 32
"""Batch size for computing the maps."""


@dataclass(frozen=True)
class FeatureCache:
    """The feature maps of some rows, in memory or memory-mapped."""

    rows: np.ndarray
    """(K,) ascending."""
    maps: tuple[Tensor, ...]
    """(K or 2 K, C, h, w) each."""
    pin: bool = False
    """Whether to pin the memory of batches, for copies to a GPU."""

    def take(self, rows: np.ndarray, flipped: np.ndarray) -> list[Tensor]:
        """(N, C, h, w) of each map, for these rows."""
        twice = len(self.maps[0]) > len(self.rows)
        places = torch.from_numpy(np.searchsorted(self.rows, rows) + len(self.rows) * (flipped & twice))
        taken = [one.index_select(0, places.to(one.device)) for one in self.maps]
        return [one.pin_memory() for one in taken] if self.pin else taken


def why_uncached(method: Detect, loader: Loader, kind: Kind, gigabytes: float) -> str:
    """Why the maps cannot be cached; "" if they can."""
    if not method.freeze:
        return "the backbone is trained"
    if loader.earlier:
        return "the image size changes during training"
    if len(loader.views) > 1:
        return "images have several views"
    if drawn := [name for name in augment.varying_settings(loader.views[0]) if name != "flip"]:
        return f"the view varies between epochs ({', '.join(drawn)})"
    needed = cache_bytes(method, loader, kind)
    if needed > gigabytes * 1e9:
        images = len(np.unique(loader.rows))
        return (
            f"the maps of {images:,} images need {files.format_bytes(needed)}, more than the {gigabytes:g} GB allowed"
        )
    return ""


def cache_bytes(method: Detect, loader: Loader, kind: Kind) -> int:
    """Size of all maps in bytes."""
    images = len(np.unique(loader.rows)) * len(_states(loader))
    return images * sum(math.prod(shape) for shape in _shapes(method, loader)) * _dtype(kind).itemsize


def cache_features(
    method: Detect,
    loader: Loader,
    folder: Path,
    *,
    kind: Kind = "float16",
    compute: torch.dtype = torch.float32,
    label: str = "",
) -> FeatureCache:
    """The maps of all images of a loader, read from the folder or computed. The caller sets `loader.cached` to it.

    Args:
        method: on the device and in the precision it will be trained in.
        folder: accessible to all processes.
        kind: data type of the maps; with float32, results equal those without a cache.
        compute: data type in which the backbone computes.
        label: of the progress line of rank 0; "" shows none.
    """
    rows, facts = np.unique(loader.rows), _facts(method, loader, kind, compute)
    count = len(rows) * len(_states(loader))
    sizes = [count * math.prod(shape) * _dtype(kind).itemsize for shape in _shapes(method, loader)]
    if not distributed.broadcast_from_first(_known(folder, facts, sizes)):
        _make(method, loader, folder, rows, kind, compute, label)
        if distributed.rank() == 0:
            with files.atomic(folder / "features.json") as part:
                part.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
        distributed.broadcast_from_first(None)
    maps = []
    for number, shape in enumerate(_shapes(method, loader)):
        file = folder / f"{number}.bin"
        flat = torch.from_file(str(file), shared=False, size=count * math.prod(shape), dtype=_dtype(kind))
        maps.append(flat.view(count, *shape))
    maps = _near(maps, loader.device)
    return FeatureCache(rows, tuple(maps), pin=loader.device.type != maps[0].device.type)


def discard(folder: Path) -> None:
    """Remove the files of a cache."""
    for file in (folder / "features.json", *folder.glob("*.bin")):
        file.unlink(missing_ok=True)
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def _make(
    method: Detect,
    loader: Loader,
    folder: Path,
    rows: np.ndarray,
    kind: Kind,
    compute: torch.dtype,
    label: str,
) -> None:
    """Compute and write this process's share of the files."""
    shapes, states, dtype = _shapes(method, loader), _states(loader), _dtype(kind)
    if distributed.rank() == 0:
        discard(folder)  # a process that has mapped the old files still sees them
        folder.mkdir(parents=True, exist_ok=True)
        files.require_space(folder, cache_bytes(method, loader, kind))
        for number, shape in enumerate(shapes):
            with files.open_regular(folder / f"{number}.bin", "xb") as file:
                file.truncate(len(rows) * len(states) * math.prod(shape) * dtype.itemsize)
    distributed.broadcast_from_first(None)
    rank, world = distributed.rank(), distributed.world_size()
    first, end = (len(rows) * part // world for part in (rank, rank + 1))

    def counts() -> Iterator[int]:
        for turn, flip in enumerate(states):
            at = turn * len(rows) + first
            for maps in _computed(method, loader, rows[first:end], flip, compute):
                for number, one in enumerate(maps):
                    _write(folder / f"{number}.bin", at, _bounded(one, dtype))
                at += len(maps[0])
                yield len(maps[0])

    with files.explained(folder, "Free some space, or train without the cache."):
        total, shown = len(states) * (end - first), label and rank == 0
        list(progress.track(counts(), total, label, "images") if shown else counts())
    for number in range(len(shapes)):
        files.sync(folder / f"{number}.bin")
    distributed.broadcast_from_first(None)


@torch.no_grad()
def _computed(
    method: Detect, loader: Loader, rows: np.ndarray, flip: float, compute: torch.dtype
) -> Iterator[list[Tensor]]:
    """The maps of these rows, in order."""
    if not len(rows):
        return
    plain = Loader(
        loader.data, [replace(loader.views[0], flip=flip)], batch=BATCH, seed=loader.seed, rows=rows, shuffle=False,
        findings=loader.findings, threads=loader.threads, channels=loader.channels, normalise=loader.normalise,
        device=loader.device,
    )  # fmt: skip
    with evaluation_mode(method):
        for batch in plain.epoch(0):
            view = batch.views[0].to(_device(method), memory_format=torch.channels_last)
            with autocast(view.device, compute):
                yield method.maps(view)


def _write(file: Path, at: int, maps: Tensor) -> None:
    """Write maps at the position of their rows."""
    plain = maps.contiguous().cpu().view(torch.uint8).numpy()
    with files.open_regular(file, "r+b") as stream:
        stream.seek(at * plain[0].nbytes)
        stream.write(memoryview(plain.reshape(-1)))


def _bounded(maps: Tensor, dtype: torch.dtype) -> Tensor:
    """Values beyond the range of half precision are clipped to it."""
    return maps.clamp(-65504, 65504).to(dtype) if dtype == torch.float16 else maps.to(dtype)


def _near(maps: list[Tensor], device: torch.device) -> list[Tensor]:
    """Copy the maps to the GPU if they fit into half of its free memory."""
    if device.type != "cuda" or 2 * sum(one.nbytes for one in maps) > torch.cuda.mem_get_info(device)[0]:
        return maps
    return [one.to(device) for one in maps]


def _shapes(method: Detect, loader: Loader) -> list[tuple[int, int, int]]:
    """(C, h, w) of each map."""
    return method.shapes(torch.zeros(1, loader.channels, *loader.views[0].shape, device=_device(method)))


def _states(loader: Loader) -> list[float]:
    """Flip probability of the view in each pass over the images."""
    flip = loader.views[0].flip
    return [0.0, 1.0] if 0 < flip < 1 else [flip]


def _device(method: Detect) -> torch.device:
    return next(method.backbone.parameters()).device


def _dtype(kind: Kind) -> torch.dtype:
    return {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}[kind]


def _known(folder: Path, facts: dict[str, Any], sizes: Sequence[int]) -> bool:
    """Whether the folder has exactly these maps, complete."""
    try:
        whole = [(folder / f"{number}.bin").stat().st_size for number in range(len(sizes))] == list(sizes)
        return whole and bool(files.read_json(folder / "features.json") == facts)
    except (OSError, ValueError):
        return False


def _facts(method: Detect, loader: Loader, kind: Kind, compute: torch.dtype) -> dict[str, Any]:
    """Everything that determines the content of the files."""
    weights = hashlib.sha256()
    for name, value in method.backbone.state_dict().items():
        weights.update(name.encode() + value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return {
        "backbone": weights.hexdigest(),
        "sets": [[one.facts.contents, one.facts.plan, one.facts.name, len(one), one.size] for one in loader.data],
        "scales": [list(loader.scale(number)) for number in range(len(loader.data))],
        "rows": hashlib.sha256(np.unique(loader.rows).tobytes()).hexdigest(),
        "view": json.loads(json.dumps(asdict(loader.views[0]))),
        "shapes": [list(shape) for shape in _shapes(method, loader)],
        "kind": kind,
        "compute": str(compute),
        "torch": torch.__version__,
    }
