"""Profiling: what a model costs – parameters, multiply-adds, memory of its activations, time.

*Multiply-adds* are those of all convolutions and products of matrices that run for one image, attention's as well.
Biases, norms and activations are none.

*thop's count* is what the tool of that name gives, which many papers print as FLOPs. It asks layers, not functions:

    convolution, linear layer    its multiply-adds
    batch, layer, instance norm  4 for each number that goes in, 2 where it does not scale and shift
    average pooling              1 for each number that comes out; adaptive: 1 for each that goes in and that comes out
    nn.Softmax                   3 n - 1 for each row of n
    all else                     0: activations, maximum pooling, tensor.mean(), the products of attention

thop wants torch's own types; here what is made from one counts as it does, so that timm's models count as those they
follow. What a published model does by a function and timm's by a layer would still differ: see BY_FUNCTION.
"""

import importlib.metadata
import importlib.util
import platform
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypedDict

from ribcage.bundle.cost.activations import Memory, activation_memory
from ribcage.bundle.cost.operations import Counts, by_thop, count_operations
from ribcage.bundle.cost.subject import FAMOUS, Size, Subject, built, famous
from ribcage.bundle.cost.timing import Latency, Timing, Ways, computing, latency, measured_by_turns, medians, timed

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
    """What one model costs, as JSON holds it: the fields of Counts, Memory and Latency."""

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
    latency: list[dict[str, Any]]


class Machine(TypedDict):
    """The processor and the versions of the programs that times depend on."""

    processor: str
    versions: dict[str, str]


class Profile(Machine):
    """The costs of several models on this machine."""

    models: list[ModelCosts]
    threads: int
    runs: int


def counted(one: Subject) -> ModelCosts:
    """What is known without computing."""
    found = count_operations(one)
    return {
        "model": str(one.folder or one.name), "name": one.name, "classes": one.classes, "channels": one.channels,
        "size": list(one.size), "parameters": found.parameters, "thop": found.thop,
        "multiply_adds": found.multiply_adds, "outside": found.outside, "memory": None, "latency": [],
    }  # fmt: skip


def measure(costs: ModelCosts, one: Subject, timing: Timing | None = None) -> None:
    """Add the memory and, where `timing` is given, the time of a model to its costs."""
    method = built(one)
    times = latency(method, one.channels, one.size, timing) if timing else ()
    costs["memory"] = asdict(activation_memory(method, one.channels, one.size))
    costs["latency"] = [asdict(each) for each in times]


def here() -> Machine:
    """This machine."""
    programs = ("ribcage", "torch", "timm", "onnxruntime")
    known = {name: importlib.metadata.version(name) for name in programs if importlib.util.find_spec(name)}
    return {"processor": _processor(), "versions": known}


def _processor() -> str:
    """Its name."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text(encoding="utf-8", errors="replace").splitlines() if file.is_file() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()
