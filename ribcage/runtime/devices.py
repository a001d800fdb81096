"""Devices: precision, copies to a GPU for which the CPU does not wait, and a stream beside that of the training."""

import contextlib
import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
import torch
from torch import Tensor

Made = TypeVar("Made")
Precision = Literal["auto", "float32", "bf16", "fp16"]
TENSOR_CORES = 7
"""Compute capability from which a GPU multiplies matrices faster in half precision."""


# ---- precision


def compute_dtype(precision: Precision, device: torch.device) -> torch.dtype:
    """The data type of matrix products and convolutions in a forward pass."""
    if precision == "auto":
        return torch.bfloat16 if fast_bf16(device) else torch.float16 if fast_fp16(device) else torch.float32
    return {"float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]


def autocast(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    """A forward pass with products of this data type; float32: as the model is."""
    whole = dtype == torch.float32
    return torch.autocast(device.type, torch.bfloat16 if whole else dtype, enabled=not whole)


def fast_bf16(device: torch.device) -> bool:
    """Whether the hardware supports bfloat16 natively."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu":
        return False
    flags = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(flags.get("avx512_bf16") or flags.get("amx_bf16"))


def fast_fp16(device: torch.device) -> bool:
    """Whether the device is a GPU with tensor cores for float16."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device)[0] >= TENSOR_CORES


def choose_kernels(device: torch.device, precision: Precision) -> None:
    """On a GPU: products of float32 in TF32 (ten bits of mantissa), and the fastest convolution for each shape, which
    cuDNN finds by trying all. With --precision float32 neither, so that a repeated run selects the same kernels."""
    if device.type == "cuda":
        fast = precision != "float32"
        torch.set_float32_matmul_precision("high" if fast else "highest")
        torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.benchmark = fast


@contextlib.contextmanager
def settings_restored(device: torch.device) -> Iterator[None]:
    """Restore the process-wide settings of `choose_kernels` and the state of torch's random number generators when the
    block ends."""
    precision, before = None, _kernel_settings()
    with contextlib.suppress(RuntimeError):
        precision = torch.get_float32_matmul_precision()
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            yield
    finally:
        if precision is not None:
            torch.set_float32_matmul_precision(precision)
        for owner, name, value in before:
            setattr(owner, name, value)


def _kernel_settings() -> list[tuple[object, str, object]]:
    """The objects of torch with settings of `choose_kernels`, their attributes and values. Recent versions have one for
    each kind of operation, and do not return an older one that contradicts them."""
    backends, found = torch.backends, list[tuple[object, str, object]]()
    names = (
        "cudnn.benchmark",
        "cudnn.allow_tf32",
        "cuda.matmul.fp32_precision",
        "mkldnn.matmul.fp32_precision",
        "cudnn.conv.fp32_precision",
        "cudnn.rnn.fp32_precision",
    )
    for path in names:
        place, _, name = path.rpartition(".")
        with contextlib.suppress(RuntimeError, AttributeError):
            owner = operator.attrgetter(place)(backends)
            found.append((owner, name, getattr(owner, name)))
    return found


# ---- copies and streams


def on_device(array: np.ndarray, device: torch.device) -> Tensor:
    """A copy of the array on the device. A GPU copies it from pinned memory, so that the CPU need not wait."""
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


@dataclass(frozen=True)
class GpuWait:
    """The time that the GPU had nothing to compute because its data were not ready."""

    before: torch.cuda.Event
    after: torch.cuda.Event

    def seconds(self) -> float:
        """Waits for both events; call it steps later."""
        self.after.synchronize()
        return self.before.elapsed_time(self.after) / 1000


class SideStream:
    """A stream of a GPU on which batches are copied and augmented while the current stream computes."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.stream = device, torch.cuda.Stream(device)

    def run(self, make: Callable[[], Made], tensors: Callable[[Made], list[Tensor]]) -> tuple[Made, GpuWait]:
        """What `make` makes on the side stream, for use on the current one, which waits for it; the CPU does not.

        tensors: those of what was made, whose memory must not be reused before the current stream is done with them.
        """
        current = torch.cuda.current_stream(self.device)
        before = current.record_event(torch.cuda.Event(enable_timing=True))
        with torch.cuda.stream(self.stream):
            made = make()
        current.wait_stream(self.stream)
        after = current.record_event(torch.cuda.Event(enable_timing=True))
        for tensor in tensors(made):
            if tensor.is_cuda:
                tensor.record_stream(current)
        return made, GpuWait(before, after)
