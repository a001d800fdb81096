"""Cost of a model: parameters, multiply-adds, memory of its activations, latency.

*Multiply-adds* are those of all convolutions and matrix products for one image, including attention. Biases, norms and
activations are not counted.

*thop's count* is what the tool thop reports, which many papers print as FLOPs. It counts layers, not functions:

    convolution, linear layer    its multiply-adds
    batch, layer, instance norm  4 per input element, 2 without scale and shift
    average pooling              1 per output element; adaptive: 1 per input and per output element
    nn.Softmax                   3 n - 1 for each row of n
    anything else                0: activations, maximum pooling, tensor.mean(), the products of attention

thop compares exact types; here subclasses count as well, so that timm's models count like those they reimplement. Where
a published model uses a function and timm's a layer, counts would still differ: see BY_FUNCTION.
"""

import importlib.metadata
import importlib.util
import platform
from dataclasses import asdict
from pathlib import Path
from typing import TypedDict

from ribcage.bundle.cost.activations import Memory, activation_memory
from ribcage.bundle.cost.operations import Counts, by_thop, count_operations
from ribcage.bundle.cost.subject import FAMOUS, Size, Subject, built, famous
from ribcage.bundle.cost.timing import Latency, Timing, Ways, computing, latency, measured_by_turns, medians, timed
from ribcage.runtime.remote.addresses import address_text

__all__ = [
    "FAMOUS",
    "Counts",
    "Latency",
    "Machine",
    "Memory",
    "ModelCosts",
    "Profile",
    "Size",
    "Subject",
    "Timing",
    "Ways",
    "activation_memory",
    "built",
    "by_thop",
    "computing",
    "count_operations",
    "counted",
    "famous",
    "here",
    "latency",
    "measure",
    "measured_by_turns",
    "medians",
    "timed",
]  # fmt: skip


class ModelCosts(TypedDict):
    """Costs of one model as JSON: the fields of Counts, Memory and Latency."""

    model: str
    name: str
    classes: int
    channels: int
    size: list[int]
    parameters: int
    thop: int
    multiply_adds: int
    outside: int
    memory: dict[str, int] | None
    """None: not measured."""
    latency: list[dict[str, object]]


class Machine(TypedDict):
    """Processor and versions of the programs that latencies depend on."""

    processor: str
    versions: dict[str, str]


class Profile(Machine):
    """The costs of several models on this machine."""

    models: list[ModelCosts]
    threads: int
    runs: int


def counted(one: Subject) -> ModelCosts:
    """Costs that need no computation."""
    found = count_operations(one)
    return {
        "model": address_text(one.folder) if one.folder else one.name,
        "name": one.name, "classes": one.classes, "channels": one.channels,
        "size": list(one.size), "parameters": found.parameters, "thop": found.thop,
        "multiply_adds": found.multiply_adds, "outside": found.outside, "memory": None, "latency": [],
    }  # fmt: skip


def measure(costs: ModelCosts, one: Subject, timing: Timing | None = None) -> None:
    """Add the memory and, with `timing`, the latency of a model to its costs."""
    method = built(one)
    times = latency(method, one.channels, one.size, timing) if timing else ()
    costs["memory"] = asdict(activation_memory(method, one.channels, one.size))
    costs["latency"] = [asdict(each) for each in times]


def here() -> Machine:
    """Processor and versions of this machine."""
    programs = ("ribcage", "torch", "timm", "onnxruntime")
    known = {name: importlib.metadata.version(name) for name in programs if importlib.util.find_spec(name)}
    return {"processor": _processor(), "versions": known}


def _processor() -> str:
    """Name of the processor."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text(encoding="utf-8", errors="replace").splitlines() if file.is_file() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()
