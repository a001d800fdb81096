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
"""Seconds after which the threads of a runtime that has answered no longer spin."""


@dataclass(frozen=True)
class Timing:
    """How time is to be measured."""

    threads: int = 0
    """To compute by; 0 takes one for each core."""
    runs: int = 10
    """Of each; the median counts."""
    batches: tuple[int, ...] = (1, 16)


@dataclass(frozen=True)
class Latency:
    """Milliseconds for a batch: medians over runs, by turns, in float32 on the CPU."""

    batch: int
    eager: float
    exported: float | None
    """None where it was not to be had."""
    why: str = ""
    """Why not."""


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


def measured_by_turns(subjects: Sequence[Subject], timing: Timing) -> list[Latency]:
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
            onnx_export.onnx_function(Path(folder) / "model.onnx", torch.get_num_threads()),
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
