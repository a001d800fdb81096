"""Network file: what model.json says about the file of an opaque network, and what the runtimes have in common."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

Layout = Literal["NCHW", "NHWC"]
OutputKind = Literal["logits", "probabilities"]
FORMATS = {".onnx": "ONNX", ".tflite": "TFLite"}
"""Suffix of a file → name of the format."""
MOST_BYTES = 1 << 30
"""Maximum size of a file."""
MOST_OUTPUTS = 10_000
"""Maximum number of outputs per image."""


@dataclass(frozen=True)
class NetworkFile:
    """The file of an opaque network, and how it is used."""

    file: Literal["network.onnx", "network.tflite"]
    """Name of the file in the bundle."""
    sha256: str
    layout: Layout
    """Order of the dimensions of the input."""
    output: str
    """Name of the output."""
    kind: OutputKind
    columns: tuple[int, ...]
    """For each finding, its place among the outputs."""
    count: int
    """Number of outputs per image, used or not."""

    @property
    def format(self) -> str:
        """ONNX or TFLite"""
        return FORMATS[Path(self.file).suffix]


@dataclass(frozen=True)
class Quantisation:
    """real = scale · (stored − zero)"""

    scale: float
    zero: int


@dataclass(frozen=True)
class Port:
    """An input or output of a network."""

    name: str
    kind: str
    """NumPy's name of the type of its values."""
    shape: tuple[int | None, ...]
    """None: a size that the file leaves open."""
    quantisation: Quantisation | None = None

    def __str__(self) -> str:
        return f"{self.name!r} ({self.kind}, {' × '.join('?' if one is None else str(one) for one in self.shape)})"

    def stored(self, values: np.ndarray) -> np.ndarray:
        """Real values as the network's input has them; integers without a scale are rounded."""
        kind = np.dtype(self.kind)
        if not np.issubdtype(kind, np.integer):
            return values.astype(kind)
        if self.quantisation:
            values = values / self.quantisation.scale + self.quantisation.zero
        limits = np.iinfo(kind)
        return np.rint(values).clip(limits.min, limits.max).astype(kind)

    def real(self, stored: np.ndarray) -> np.ndarray:
        """(N, F) float32: what the network's output stands for."""
        values = stored.astype(np.float32).reshape(len(stored), -1)
        if self.quantisation:
            values = (values - self.quantisation.zero) * np.float32(self.quantisation.scale)
        return values


class Runtime(Protocol):
    """A file opened by the runtime of its format."""

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]

    def __call__(self, images: np.ndarray, output: str) -> np.ndarray:
        """The output of this name for a batch in the form of the input."""


def one_line(error: Exception) -> str:
    """The message of a runtime's exception on one line, without a full stop."""
    return " ".join(str(error).split())[:200].rstrip(".") or type(error).__name__
