"""Devices: copies to a GPU for which the CPU does not wait, and work on a stream beside the training step."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

Made = TypeVar("Made")


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
