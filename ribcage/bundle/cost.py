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

import copy
import importlib.metadata
import importlib.util
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from timm.layers.adaptive_avgmax_pool import FastAdaptiveAvgPool
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.pooling import _AdaptiveAvgPoolNd, _AvgPoolNd
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from ribcage.bundle import onnx_export
from ribcage.bundle.io import Classifier, find_bundle, load_bundle
from ribcage.bundle.spec import ModelSpec
from ribcage.methods.supervised import Supervised
from ribcage.models.backbone import Backbone

Size = tuple[int, int]
ASLEEP = 0.1
"""Seconds after which the threads of a runtime that has answered no longer spin."""
BY_FUNCTION = ("DenseNet", "MobileNet")
"""Architectures that pool before the head by a layer here and by a function, which thop does not see, as published."""
FAMOUS = (
    ("eeea_net_c2", 14),
    ("ofa_595", 14),
    ("densenet121", 14),
    ("visformer_small", 14),
    ("visformer_small", 1000),
    ("autoformer_v2_base", 14),
    ("autoformer_v2_base", 1000),
)
"""Five models that are compared with each other, with the numbers of classes that their counts are quoted for."""


@dataclass(frozen=True)
class Subject:
    """What is profiled: a bundle, or a model of this name with random weights."""

    name: str
    classes: int
    channels: int
    size: Size
    folder: Path | None = None
    """Of the bundle."""
    pool: str = ""
    """How features are pooled, if not as the architecture does by itself."""

    @classmethod
    def of(cls, folder: Path) -> "Subject":
        """The bundle in a folder or in a run."""
        model = ModelSpec.load(find_bundle(folder) / "model.json")
        return cls(model.name, len(model.findings), model.channels, model.size, folder, model.pool)

    @property
    def body(self) -> tuple[Any, ...]:
        """All but how many classes there are: what costs as much but for its head."""
        return self.name, self.channels, self.size, self.folder, self.pool


@dataclass(frozen=True)
class Timing:
    """How time is to be measured."""

    threads: int = 0
    """To compute by; 0 takes one for each core."""
    runs: int = 10
    """Of each; the median counts."""
    batches: tuple[int, ...] = (1, 16)


@dataclass(frozen=True)
class Counts:
    """What a model does for one image."""

    parameters: int
    thop: int
    multiply_adds: int
    outside: int
    """Those of `multiply_adds` that are in no convolution and no linear layer: attention's products."""


@dataclass(frozen=True)
class Memory:
    """Bytes for one image in float32; weights, and what a kernel takes for itself, are not counted."""

    inference: int
    """Most that lives at any time without gradients, the image included."""
    training: int
    """What is kept for the way back, by every image more in a batch."""


@dataclass(frozen=True)
class Latency:
    """Milliseconds for a batch: medians over runs, by turns, in float32 on the CPU."""

    batch: int
    eager: float
    exported: float | None
    """None where it was not to be had."""
    why: str = ""
    """Why not."""


# ---- all together


def counted(one: Subject) -> dict[str, Any]:
    """What is known without computing, as a dict that JSON can hold."""
    said = {"model": str(one.folder or one.name), "name": one.name, "classes": one.classes, "channels": one.channels}
    return {**said, "size": list(one.size), **asdict(counts(one)), "memory": None, "latency": []}


def measured(one: Subject, timing: Timing | None = None) -> dict[str, Any]:
    """Memory and, where it is to be taken, time."""
    method = built(one)
    times = latency(method, one.channels, one.size, timing) if timing else ()
    return {
        "memory": asdict(memory(method, one.channels, one.size)),
        "latency": [asdict(each) for each in times],
    }


def here() -> dict[str, Any]:
    """The machine and the programs that times hang on."""
    programs = ("ribcage", "torch", "timm", "onnxruntime")
    known = {name: importlib.metadata.version(name) for name in programs if importlib.util.find_spec(name)}
    return {"processor": _processor(), "versions": known}


def _processor() -> str:
    """Its name."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text(encoding="utf-8", errors="replace").splitlines() if file.is_file() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()


# ---- the model


def famous(size: Size) -> tuple[Subject, ...]:
    """FAMOUS in three channels, as they were published; then in one, as radiographs are."""
    three = tuple(Subject(name, classes, 3, size) for name, classes in FAMOUS)
    return (*three, *(replace(one, channels=1) for one in three if one.classes != 1000))


def built(one: Subject) -> Supervised:
    """The backbone and a linear head, as `finetune` trains them; random weights for a name."""
    if one.folder is not None:
        opened = load_bundle(one.folder)
        if not isinstance(opened, Classifier):
            raise ValueError(f"{opened.folder} is a detector: profile the model it stands on, {opened.spec.name}.")
        return opened.method
    backbone = Backbone(one.name, channels=one.channels, size=one.size, pool=one.pool)
    return Supervised(backbone, tuple(map(str, range(one.classes)))).eval()


def shapes(one: Subject) -> onnx_export.Network:
    """The same with shapes only, no numbers: made in no time. Where an architecture refuses, the whole."""
    try:
        with torch.device("meta"):
            network = onnx_export.Network(built(replace(one, folder=None)))
            network(torch.zeros(1, one.channels, *one.size))
        return network
    except (RuntimeError, NotImplementedError):
        return onnx_export.Network(built(one))


# ---- counts


@torch.no_grad()
def counts(one: Subject) -> Counts:
    """Parameters and multiply-adds."""
    network = shapes(one)
    layers, thop = 0, 0
    apart = set(_pool(network.backbone.model).modules())

    def add(layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        nonlocal layers, thop
        if inputs and isinstance(output, Tensor) and layer not in apart:
            layers += products(layer, inputs[0], output)
            thop += by_thop(layer, inputs[0], output)

    hooks = [layer.register_forward_hook(add) for layer in network.modules()]
    with FlopCounterMode(display=False) as flops:
        network(torch.zeros(1, one.channels, *one.size, device=next(network.parameters()).device))
    for hook in hooks:
        hook.remove()
    multiply_adds = flops.get_total_flops() // 2
    return Counts(sum(value.numel() for value in network.parameters()), thop, multiply_adds, multiply_adds - layers)


def _pool(model: nn.Module) -> nn.Module:
    """The pooling that thop would not have seen; nothing for most."""
    unseen = type(model).__name__ in BY_FUNCTION
    return getattr(model, "global_pool", nn.Identity()) if unseen else nn.Identity()


def products(layer: nn.Module, x: Tensor, y: Tensor) -> int:
    """Multiply-adds of a convolution or a linear layer."""
    match layer:
        case _ConvNd():
            return y.numel() * x.shape[1] // layer.groups * layer.weight[0, 0].numel()
        case nn.Linear():
            return y.numel() * layer.in_features
    return 0


def by_thop(layer: nn.Module, x: Tensor, y: Tensor) -> int:
    """What thop counts for a layer."""
    match layer:
        case _NormBase() | nn.LayerNorm():
            return x.numel() * (4 if layer.weight is not None else 2)
        case _AvgPoolNd():
            return y.numel()
        case _AdaptiveAvgPoolNd() | FastAdaptiveAvgPool():
            return x.numel() + y.numel()
        case nn.Softmax(dim=int(dim)):
            return 3 * x.numel() - x.numel() // x.shape[dim]
    return products(layer, x, y)


# ---- memory


def memory(method: Supervised, channels: int, size: Size) -> Memory:
    """What one image's activations take; measured, on a copy."""
    method = copy.deepcopy(method)
    own = {value.untyped_storage()._cdata for value in (*method.parameters(), *method.buffers())}
    kept = [_kept(method.train(), torch.zeros(count, channels, *size), own) for count in (3, 2)]
    with torch.no_grad(), _Living(own) as living:
        method.eval().logits(torch.zeros(1, channels, *size))
    return Memory(living.most, kept[0] - kept[1])


def _kept(method: Supervised, images: Tensor, own: set[int]) -> int:
    """Bytes that the backward pass will need of a batch; each piece of memory once, weights not."""
    pieces: dict[int, Any] = {}

    def keep(value: Tensor) -> Tensor:
        storage = value.untyped_storage()
        if storage._cdata not in own:
            pieces[storage._cdata] = storage  # held, so that no other takes its number
        return value

    with saved_tensors_hooks(keep, lambda value: value):
        answers = method.logits(images)
    assert answers.requires_grad
    return sum(storage.nbytes() for storage in pieces.values())


class _Living(TorchDispatchMode):
    """Watches which results of operations are still there."""

    def __init__(self, own: set[int]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.own, self.most = own, 0
        self.pieces: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in tree_leaves(result):
            if isinstance(value, Tensor):
                storage = value.untyped_storage()
                self.pieces[storage._cdata] = StorageWeakRef(storage), storage.nbytes()
        self.pieces = {number: piece for number, piece in self.pieces.items() if not piece[0].expired()}
        self.most = max(self.most, sum(size for number, (_, size) in self.pieces.items() if number not in self.own))
        return result


# ---- time


@dataclass(frozen=True)
class Ways:
    """The ways to ask one model for logits."""

    shape: tuple[int, int, int]
    """Of an image: (C, H, W)."""
    eager: Callable[[Tensor], Tensor]
    exported: Callable[[Tensor], Tensor] | None
    why: str
    """Why it is not exported, where it is not."""


def latency(method: Supervised, channels: int, size: Size, timing: Timing) -> tuple[Latency, ...]:
    """For each batch, as it is and exported."""
    with computing(timing.threads):
        found = ways(method, channels, size)
        return tuple(timed([found], batch, timing.runs)[0] for batch in timing.batches)


def beside(subjects: Sequence[Subject], timing: Timing) -> list[Latency]:
    """Several models by turns, with the first of the batches."""
    with computing(timing.threads):
        models = [ways(built(one), one.channels, one.size) for one in subjects]
        return timed(models, timing.batches[0], timing.runs)


def timed(models: Sequence[Ways], batch: int, runs: int) -> list[Latency]:
    """All ways of all models by turns."""
    asked: list[Callable[[], Any]] = []
    for one in models:
        images = torch.rand(batch, *one.shape, generator=torch.Generator().manual_seed(0))
        asked.append(partial(one.eager, images.to(memory_format=torch.channels_last)))
        asked += [] if one.exported is None else [partial(one.exported, images)]
    times = iter(medians(asked, runs))
    return [Latency(batch, next(times), None if one.exported is None else next(times), one.why) for one in models]


def ways(method: Supervised, channels: int, size: Size) -> Ways:
    """As `ribcage predict` asks, and by ONNX Runtime, whose answers must be the model's."""
    method = copy.deepcopy(method).eval()
    exported, why = _exported(onnx_export.Network(method), (channels, *size))
    return Ways((channels, *size), method.to(memory_format=torch.channels_last).logits, exported, why)


def _exported(
    network: onnx_export.Network, shape: tuple[int, int, int]
) -> tuple[Callable[[Tensor], Tensor] | None, str]:
    """The exported network or None, and why."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            onnx_export.onnx(network, shape, Path(folder) / "model.onnx")
        except (ImportError, ValueError) as error:
            return None, str(error)
        answer, images = (
            onnx_export.opened(Path(folder) / "model.onnx", torch.get_num_threads()),
            torch.rand(2, *shape),
        )
    with torch.no_grad():
        wanted = network(images)
    away = float((answer(images) - wanted).abs().max() / wanted.abs().max().clamp(min=1))
    return (answer, "") if away < 1e-3 else (None, f"its answers are {away:.2g} away from the model's")


def medians(asked: Sequence[Callable[[], Any]], runs: int) -> list[float]:
    """Milliseconds of each, by turns, so that what else the machine does falls on all.

    Threads of a runtime go on spinning when it has answered, and take the cores from the next one, which then
    looks slower than it is: each turn waits until they sleep, and wakes its own by a first run.
    """
    taken: list[list[float]] = [[] for _ in asked]
    with torch.inference_mode():
        for turn in range(-1, runs):  # one to warm up
            for ask, times in zip(asked, taken, strict=True):
                time.sleep(ASLEEP if len(asked) > 1 else 0)
                ask()
                start = time.perf_counter()
                ask()
                times += [time.perf_counter() - start] if turn >= 0 else []
    return [1000 * statistics.median(times) for times in taken]


@contextmanager
def computing(threads: int) -> Iterator[None]:
    """Compute by so many threads for a while; 0: as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
