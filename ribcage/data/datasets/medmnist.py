"""MedMNIST: PneumoniaMNIST (5,856 images) and ChestMNIST (112,120 images from ChestX-ray14) at 28 to 224 px.

Yang et al. 2023, https://doi.org/10.1038/s41597-022-01721-8. The files have no patient identifiers: every patient is
unknown (""), and images may share one. The splits of ChestMNIST are as large as those of ChestX-ray14's `arnoweng`
split.
"""

import contextlib
import functools
import math
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
import pandas as pd

from ribcage.data.findings import CHESTXRAY14
from ribcage.data.index import Index, index_table
from ribcage.runtime import files
from ribcage.runtime.remote.cache import local_place

CHINESE = "MedMNIST：PneumoniaMNIST（5,856 张）与 ChestMNIST（112,120 张，取自 ChestX-ray14），28 至 224 像素"
SOURCE = "https://medmnist.com"
LICENCE = "CC BY 4.0"
FINDINGS = {"pneumonia": ("Pneumonia",), "chest": CHESTXRAY14}
PARTS = ("train", "val", "test")
LARGEST = 64 << 30  # bytes of one array: a header may declare any size
NAMES = {name: (name,) for names in FINDINGS.values() for name in names}
"""Finding → its names in the tables."""


def index(root: Path, *, flavour: Literal["auto", "pneumonia", "chest"] = "auto") -> Index:
    """Read the labels in pneumoniamnist.npz, chestmnist_224.npz …; root is the file, or a folder with one of them.

    flavour: Dataset in the file, if its name does not show it.
    """
    file = _file(root)
    kind = _flavour(file) if flavour == "auto" else flavour
    findings = FINDINGS[kind]
    rows = []
    for part in PARTS:
        count, height, width = _image_shape(file, part)
        labels = _labels(file, part, (count, len(findings)))
        places = pd.DataFrame({"path": [f"{file.name}/{part}/{place:06d}" for place in range(count)], "split": part})
        rows.append(places.join(pd.DataFrame(labels, columns=list(findings))).assign(width=width, height=height))
    return Index("medmnist", index_table(pd.concat(rows), findings), findings, root=file.parent)


def images(index: Index) -> Callable[[int], np.ndarray]:
    """Row → (H, W) uint8 array."""
    places = index.table["path"].str.rsplit("/", n=2, expand=True)
    files, parts, numbers = (places[column].tolist() for column in range(3))
    return lambda row: _images(index.root / files[row], parts[row])[int(numbers[row])]


def _file(root: Path) -> Path:
    if root.is_file():
        return root
    if not root.is_dir():
        raise FileNotFoundError(f"{root} does not exist. Download pneumoniamnist.npz or chestmnist.npz from {SOURCE}.")
    found = sorted(path for kind in FINDINGS for path in root.glob(f"{kind}mnist*.npz"))
    if not found:
        raise FileNotFoundError(
            f"{root} has neither pneumoniamnist*.npz nor chestmnist*.npz. Download one from {SOURCE}."
        )
    if len(found) > 1:
        raise ValueError(
            f"{root} contains several MedMNIST files: {', '.join(path.name for path in found)}. Pass one of them."
        )
    return found[0]


def _flavour(file: Path) -> str:
    for kind in FINDINGS:
        if file.name.lower().startswith(f"{kind}mnist"):
            return kind
    raise ValueError(
        f"{file.name} is neither pneumoniamnist*.npz nor chestmnist*.npz, the MedMNIST datasets of chest radiographs. "
        f"If it is one of them under another name, pass --flavour pneumonia or chest."
    )


def _image_shape(file: Path, part: str) -> tuple[int, int, int]:
    shape, kind = _header(file, f"{part}_images")
    if len(shape) != 3 or kind != np.uint8:
        raise ValueError(
            f"{file}: {part}_images has type {kind} and shape {shape}; 8-bit integers of shape "
            f"(images, height, width) were expected."
        )
    return shape[0], shape[1], shape[2]


def _labels(file: Path, part: str, wanted: tuple[int, int]) -> np.ndarray:
    shape, kind = _header(file, f"{part}_labels")
    if shape != wanted or kind.kind not in "uib":
        raise ValueError(
            f"{file}: {part}_labels has type {kind} and shape {shape}; integers of shape {wanted} were expected. "
            f"The file may belong to another MedMNIST dataset."
        )
    return _read(file, f"{part}_labels").astype(np.float32)


def _header(file: Path, name: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and dtype of an array, without decompressing it."""
    with _member(file, name) as stream:
        version = np.lib.format.read_magic(stream)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, kind = read(stream)
        if kind.hasobject:
            raise ValueError(f"the array {name} contains Python objects, which could run code when they are read")
        if math.prod(shape) * kind.itemsize > LARGEST:
            raise ValueError(f"the array {name} declares the shape {shape}, which exceeds the size limit")
        return shape, kind


def _read(file: Path, name: str) -> np.ndarray:
    with _member(file, name) as stream:
        return np.lib.format.read_array(stream, allow_pickle=False)


@contextlib.contextmanager
def _member(file: Path, name: str) -> Iterator[IO[bytes]]:
    """Stream of one array in an npz file; errors are one line."""
    try:
        with zipfile.ZipFile(files.regular(local_place(file))) as archive, archive.open(f"{name}.npy") as stream:
            yield stream
    except KeyError:
        raise ValueError(
            f"{file} is not a MedMNIST file, because it has no array {name}. Download one from {SOURCE}."
        ) from None
    except (ValueError, zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise ValueError(f"{file} cannot be read: {error}. Download it again from {SOURCE}.") from None


_LOCK = threading.Lock()


def _images(file: Path, part: str) -> np.ndarray:
    with _LOCK:  # otherwise every thread would decompress the array
        return _cached(file, part)


@functools.lru_cache(maxsize=len(PARTS))
def _cached(file: Path, part: str) -> np.ndarray:
    return _read(file, f"{part}_images")
