"""Latency of models on the CPU, in PyTorch and exported to ONNX Runtime, measured in turns."""

import copy
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ribcage.bundle import onnx_export
from ribcage.bundle.cost.subject import Size, Subject, built
from ribcage.methods.supervised import Supervised

ASLEEP = 0.1
"""Seconds after which threads of an idle runtime have stopped spinning."""


@dataclass(frozen=True)
class Timing:
    """Options of the measurement."""

    threads: int = 0
    """Number of threads; 0: one per core."""
    runs: int = 10
    """Runs per measurement, of which the median is reported."""
    batches: tuple[int, ...] = (1, 16)


@dataclass(frozen=True)
class Latency:
    """Milliseconds per batch: median over interleaved runs, in float32 on the CPU."""

    batch: int
    eager: float
    exported: float | None
    """None if it could not be measured."""
    why: str = ""
    """Why it could not be measured."""


@dataclass(frozen=True)
class Ways:
    """Functions that compute the logits of a model, in PyTorch and in ONNX Runtime."""

    shape: tuple[int, int, int]
    """(C, H, W) of an image."""
    eager: Callable[[Tensor], Tensor]
    exported: Callable[[Tensor], Tensor] | None
    why: str
    """Why the model could not be exported, if so."""


def latency(method: Supervised, channels: int, size: Size, timing: Timing) -> tuple[Latency, ...]:
    """Latency for each batch size, in PyTorch and exported."""
    with computing(timing.threads):
        found = ways(method, channels, size)
        return tuple(timed([found], batch, timing.runs)[0] for batch in timing.batches)


def measured_by_turns(subjects: Sequence[Subject], timing: Timing) -> list[Latency]:
    """Latency of several models for the first batch size, with interleaved runs."""
    with computing(timing.threads):
        models = [ways(built(one), one.channels, one.size) for one in subjects]
        return timed(models, timing.batches[0], timing.runs)


def timed(models: Sequence[Ways], batch: int, runs: int) -> list[Latency]:
    """Time all functions of all models with interleaved runs."""
    asked: list[Callable[[], Any]] = []
    for one in models:
        images = torch.rand(batch, *one.shape, generator=torch.Generator().manual_seed(0))
        asked.append(partial(one.eager, images.to(memory_format=torch.channels_last)))
        asked += [] if one.exported is None else [partial(one.exported, images)]
    times = iter(medians(asked, runs))
    return [Latency(batch, next(times), None if one.exported is None else next(times), one.why) for one in models]


def ways(method: Supervised, channels: int, size: Size) -> Ways:
    """The model as `ribcage predict` runs it, and in ONNX Runtime if its outputs agree."""
    method = copy.deepcopy(method).eval()
    exported, why = _exported(onnx_export.Network(method), (channels, *size))
    return Ways((channels, *size), method.to(memory_format=torch.channels_last).logits, exported, why)


def _exported(
    network: onnx_export.Network, shape: tuple[int, int, int]
) -> tuple[Callable[[Tensor], Tensor] | None, str]:
    """The exported network, or None and the reason."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            onnx_export.onnx(network, shape, Path(folder) / "model.onnx")
        except (ImportError, ValueError) as error:
            return None, str(error)
        answer, images = (
            onnx_export.onnx_function(Path(folder) / "model.onnx", torch.get_num_threads()),
            torch.rand(2, *shape),
        )
    with torch.no_grad():
        wanted = network(images)
    away = float((answer(images) - wanted).abs().max() / wanted.abs().max().clamp(min=1))
    return (
        (answer, "")
        if away < 1e-3
        else (None, f"the outputs of the exported model differ from those of the original by {away:.2g}")
    )


def medians(asked: Sequence[Callable[[], Any]], runs: int) -> list[float]:
    """Median milliseconds of each function over interleaved runs, so that other load on the machine affects all alike.

    Threads of an idle runtime keep spinning for a while and slow down the next one. Each measurement therefore waits
    until they sleep, and wakes its own threads with a first run.
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
    """Context manager: compute with this many threads; 0: unchanged."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
