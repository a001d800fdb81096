"""Forward pass over many images: the rows of each process, evaluation mode, and the output of each batch."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol, TypeVar

import numpy as np
import torch

from ribcage.data.batch import Batch
from ribcage.data.loader import Loader
from ribcage.runtime import distributed, progress

Output = TypeVar("Output")


class Trainable(Protocol):
    """A model that can be switched between training and evaluation mode."""

    @property
    def training(self) -> bool:
        """Whether the model is in training mode."""

    def train(self, mode: bool = True) -> object:
        """Switch to training mode, or to evaluation mode if `mode` is False."""


@contextmanager
def evaluation_mode(model: Trainable) -> Iterator[None]:
    """Context manager: evaluation mode inside the block, the previous mode afterwards."""
    training = model.training
    model.train(False)
    try:
        yield
    finally:
        model.train(training)


def rows_of_process(rows: np.ndarray, batch: int) -> np.ndarray:
    """The rows assigned to this process, in whole batches, so that results do not depend on the number of processes."""
    batches, rank, world = -(-len(rows) // batch), distributed.rank(), distributed.world_size()
    return rows[batches * rank // world * batch : batches * (rank + 1) // world * batch]


def batch_outputs(loader: Loader, compute: Callable[[Batch], Output], label: str = "") -> Iterator[Output]:
    """Yield `compute(batch)` for every batch, without gradients. label: of the progress line; "" shows none."""
    found: list[Output] = []

    def counts() -> Iterator[int]:
        for batch in loader.epoch(0):
            with torch.inference_mode():
                found.append(compute(batch))
            yield len(batch)

    for _ in progress.track(counts(), len(loader.rows), label, "images") if label else counts():
        yield found.pop()
