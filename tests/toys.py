"""The smallest run: two weights, images of one pixel, gradients chosen by hand."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from batches import batch
from timm.optim import Lars
from torch import Tensor, nn

from ribcage.data.batch import Batch
from ribcage.methods import Method
from ribcage.methods.base import Step
from ribcage.training import optim, sharding, trainer

CPU = torch.device("cpu")
START = 0.5
OPTIMIZERS = {
    "adamw": lambda groups: torch.optim.AdamW(groups, lr=0.0, weight_decay=0.1, fused=True),
    "sgd": lambda groups: torch.optim.SGD(groups, lr=0.0, momentum=0.9, weight_decay=0.1),
    "lars": lambda groups: Lars(groups, lr=0.0, momentum=0.9),
    "plain": lambda groups: torch.optim.SGD(groups, lr=0.0),
}


class Toy(Method):
    """loss = mean over the images of w . (x, x), so that the gradient is the mean of the images' pixels, twice."""

    def __init__(self) -> None:
        nn.Module.__init__(self)
        self.w = nn.Parameter(torch.full((2,), START))
        self.register_buffer("ema", torch.zeros(2))

    def forward(self, batch: Batch) -> Step:
        return Step((batch.views[0].mean(dim=(1, 2, 3))[:, None] * self.w).sum(1).mean())

    @torch.no_grad()
    def after_step(self, progress: float) -> None:
        if not sharding.is_sharded(self):
            self.ema.lerp_(self.w, 0.5)  # type: ignore[operator]


class Pixels:
    """A loader of batches of two images of one pixel."""

    def __init__(self, *pixels: tuple[float, float]) -> None:
        self.pixels = pixels

    def __len__(self) -> int:
        return len(self.pixels)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        for step in range(start, len(self)):
            made = batch(2, sides=(1,))
            made.views[0][:] = torch.tensor(self.pixels[step]).view(2, 1, 1, 1)
            made.rows[:] += 2 * step
            yield made


def run(
    pixels: Sequence[tuple[float, float]], kind: str = "plain", lr: float = 0.1, shard: bool = False, **options: Any
) -> trainer.Trainer:
    """At a constant rate; shard: the weights are divided among the processes."""
    method = Toy()
    options["whole"] = sharding.sharded(method, CPU) if shard else None
    optimizer = OPTIMIZERS[kind]([{"params": [method.w], "scale": 1.0}])
    epochs = options.pop("epochs", 1)
    rates = optim.Rates(lr, epochs * len(pixels), schedule="constant")
    options = {"precision": "float32", **options}
    return trainer.Trainer(method, Pixels(*pixels), optimizer, rates, epochs=epochs, device=CPU, **options)


def numbers(made: trainer.Trainer) -> list[Tensor]:
    """Copies of all that a checkpoint would hold."""
    return [value.clone() for _, value in made._saved()]
