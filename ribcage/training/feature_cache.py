"""Feature cache: what a frozen backbone makes of each image, made once and kept in files; later epochs read them.

It fits where the backbone stays as it is and the view shows the same in every epoch, but for flips: then each image
is kept twice. The run makes the files itself, before its first step, every process its part:

features/
├── 0.bin, 1.bin …    one for each map: (images, channels, h, w), those left for right behind the others
└── features.json     of what they are; written last. A run that goes on reads them if all of it is still so
"""

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Sequence
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
from ribcage.runtime import distributed, files

Kind = Literal["float16", "bfloat16", "float32"]
BATCH = 32
"""Images that go through the backbone at once while maps are made."""


@dataclass(frozen=True)
class FeatureCache:
    """The maps of some rows, in memory or mapped to it."""

    rows: np.ndarray
    """(K,) ascending."""
    maps: tuple[Tensor, ...]
    """(K or 2 K, C, h, w) each."""
    pin: bool = False
    """Whether a GPU is to read what is taken."""

    def take(self, rows: np.ndarray, flipped: np.ndarray) -> list[Tensor]:
        """(N, C, h, w) of each map."""
        twice = len(self.maps[0]) > len(self.rows)
        places = torch.from_numpy(np.searchsorted(self.rows, rows) + len(self.rows) * (flipped & twice))
        taken = [kept.index_select(0, places.to(kept.device)) for kept in self.maps]
        return [one.pin_memory() for one in taken] if self.pin else taken


def hindrance(method: Detect, loader: Loader, kind: Kind, gigabytes: float) -> str:
    """Why there can be no cache, in words; "" when there can."""
    if not method.freeze:
        return "the backbone learns"
    if len(loader.views) > 1:
        return "images have several views"
    if drawn := [name for name in augment.varying_settings(loader.views[0]) if name != "flip"]:
        return f"the view differs from epoch to epoch ({', '.join(drawn)})"
    needed = cache_bytes(method, loader, kind)
    if needed > gigabytes * 1e9:
        images = len(np.unique(loader.rows))
        return f"the maps of {images:,} images take {files.format_bytes(needed)}, {gigabytes:g} GB are allowed"
    return ""


def cache_bytes(method: Detect, loader: Loader, kind: Kind) -> int:
    """Bytes of all maps."""
    images = len(np.unique(loader.rows)) * len(_states(loader))
    return images * sum(math.prod(shape) for shape in _shapes(method, loader)) * _dtype(kind).itemsize


def keep(
    method: Detect,
    loader: Loader,
    folder: Path,
    *,
    kind: Kind = "float16",
    bf16: bool = False,
    say: Callable[[str], None] = lambda text: None,
) -> FeatureCache:
    """The maps of all images of a loader: read if the folder has them, else made. `loader.cached` is to be set to it.

    Args:
        method: where it will be trained, in the precision it will have.
        folder: seen by all processes.
        kind: of the numbers kept; float32 gives what there would be without a cache.
        bf16: whether the backbone computes in it, as it would in training.
        say: told how far it is.
    """
    rows, stamp = np.unique(loader.rows), _stamp(method, loader, kind, bf16)
    count = len(rows) * len(_states(loader))
    sizes = [count * math.prod(shape) * _dtype(kind).itemsize for shape in _shapes(method, loader)]
    if not distributed.broadcast_from_first(_known(folder, stamp, sizes)):
        _make(method, loader, folder, rows, kind, bf16, say)
        if distributed.rank() == 0:
            with files.atomic(folder / "features.json") as part:
                part.write_text(json.dumps(stamp, indent=1) + "\n", encoding="utf-8")
        distributed.broadcast_from_first(None)
    maps = []
    for number, shape in enumerate(_shapes(method, loader)):
        file = folder / f"{number}.bin"
        flat = torch.from_file(str(file), shared=False, size=count * math.prod(shape), dtype=_dtype(kind))
        maps.append(flat.view(count, *shape))
    maps = _near(maps, loader.device)
    return FeatureCache(rows, tuple(maps), pin=loader.device.type != maps[0].device.type)


def discard(folder: Path) -> None:
    """Remove the files."""
    for file in (folder / "features.json", *folder.glob("*.bin")):
        file.unlink(missing_ok=True)
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def _make(
    method: Detect, loader: Loader, folder: Path, rows: np.ndarray, kind: Kind, bf16: bool, say: Callable[[str], None]
) -> None:
    """Write this process's part of the files."""
    shapes, states, dtype = _shapes(method, loader), _states(loader), _dtype(kind)
    if distributed.rank() == 0:
        discard(folder)  # whoever still reads the old files keeps them: the new ones are others
        folder.mkdir(parents=True, exist_ok=True)
        files.require_space(folder, cache_bytes(method, loader, kind))
        for number, shape in enumerate(shapes):
            with files.open_regular(folder / f"{number}.bin", "xb") as file:
                file.truncate(len(rows) * len(states) * math.prod(shape) * dtype.itemsize)
    distributed.broadcast_from_first(None)
    rank, world = distributed.rank(), distributed.world_size()
    first, end = (len(rows) * part // world for part in (rank, rank + 1))
    with files.explained(folder, "Free some, or train without the cache."):
        for turn, flip in enumerate(states):
            at = turn * len(rows) + first
            for maps in _made(method, loader, rows[first:end], flip, bf16):
                for number, one in enumerate(maps):
                    _write(folder / f"{number}.bin", at, _bounded(one, dtype))
                at += len(maps[0])
                say(f"Maps of {at - turn * len(rows) - first:,} of {end - first:,} images")
    for number in range(len(shapes)):
        files.sync(folder / f"{number}.bin")
    distributed.broadcast_from_first(None)


@torch.no_grad()
def _made(method: Detect, loader: Loader, rows: np.ndarray, flip: float, bf16: bool) -> Iterator[list[Tensor]]:
    """The maps of these rows, in their order."""
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
            with torch.autocast(view.device.type, torch.bfloat16, enabled=bf16):
                yield method.maps(view)


def _write(file: Path, at: int, maps: Tensor) -> None:
    """Put maps where their rows are."""
    plain = maps.contiguous().cpu().view(torch.uint8).numpy()
    with files.open_regular(file, "r+b") as stream:
        stream.seek(at * plain[0].nbytes)
        stream.write(memoryview(plain.reshape(-1)))


def _bounded(maps: Tensor, dtype: torch.dtype) -> Tensor:
    """What is too large for half precision becomes its largest number."""
    return maps.clamp(-65504, 65504).to(dtype) if dtype == torch.float16 else maps.to(dtype)


def _near(maps: list[Tensor], device: torch.device) -> list[Tensor]:
    """On a GPU that has twice the room, the maps lie there."""
    if device.type != "cuda" or 2 * sum(one.nbytes for one in maps) > torch.cuda.mem_get_info(device)[0]:
        return maps
    return [one.to(device) for one in maps]


def _shapes(method: Detect, loader: Loader) -> list[tuple[int, int, int]]:
    """(C, h, w) of each map."""
    return method.shapes(torch.zeros(1, loader.channels, *loader.views[0].shape, device=_device(method)))


def _states(loader: Loader) -> list[float]:
    """What the view's flip is in each pass over the images."""
    flip = loader.views[0].flip
    return [0.0, 1.0] if 0 < flip < 1 else [flip]


def _device(method: Detect) -> torch.device:
    return next(method.backbone.parameters()).device


def _dtype(kind: Kind) -> torch.dtype:
    return {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}[kind]


def _known(folder: Path, stamp: dict[str, Any], sizes: Sequence[int]) -> bool:
    """Whether the folder holds just these maps, all of them."""
    try:
        whole = [(folder / f"{number}.bin").stat().st_size for number in range(len(sizes))] == list(sizes)
        return whole and bool(files.read_json(folder / "features.json") == stamp)
    except (OSError, ValueError):
        return False


def _stamp(method: Detect, loader: Loader, kind: Kind, bf16: bool) -> dict[str, Any]:
    """All that decides what the files hold."""
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
        "bf16": bf16,
        "torch": torch.__version__,
    }
