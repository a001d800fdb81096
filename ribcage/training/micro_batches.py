"""Micro-batches: the parts of a batch that are passed through the network one after another."""

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from ribcage.data.batch import Batch
from ribcage.methods import Method
from ribcage.methods.base import ContrastiveMethod
from ribcage.runtime import distributed
from ribcage.training.options import TrainingOptions
from ribcage.training.run_folder import warn


def micro_batches(batch: Batch, count: int) -> Iterator[Batch]:
    """The batch in `count` parts of about the same size."""
    if count == 1:
        yield batch
        return
    for places in np.array_split(np.arange(len(batch)), count):
        if len(places):
            chosen = slice(int(places[0]), int(places[-1]) + 1)
            boxes, points = ([_boxes_of(box, chosen) for box in each] for each in (batch.boxes, batch.points))
            yield Batch(
                [view[chosen] for view in batch.views],
                batch.labels[chosen],
                boxes,
                batch.rows[chosen],
                batch.sources[chosen],
                batch.patients[chosen],
                batch.chance[chosen],
                batch.dropped[chosen],
                [one[chosen] for one in batch.maps],
                None if batch.targets is None else batch.targets[chosen],
                [masks[chosen] for masks in batch.masks],
                points,
            )


def _boxes_of(boxes: Tensor, chosen: slice) -> Tensor:
    """The boxes or points with these images renumbered from 0, and all other images -1: to leave those out, the CPU
    would have to wait for a GPU to count them."""
    image = boxes[:, :1]
    own = torch.where((image >= chosen.start) & (image < chosen.stop), image - chosen.start, -1)
    return torch.cat([own, boxes[:, 1:]], dim=1)


# ---- the sizes of the parts


def accumulation_steps(options: TrainingOptions, images: int, processes: int = 0) -> int:
    """How many forward passes of at most --micro-batch images each process needs for a batch of so many images.

    processes: their number; 0: those that have been started.
    """
    share = math.ceil(images / (processes or distributed.world_size()))
    return math.ceil(share / (options.micro_batch or share))


def batch_summary(options: TrainingOptions, images: int, *, cached: bool = False) -> str:
    """A sentence about the batch size, the processes, and the accumulation or caching of gradients."""
    world, count = distributed.world_size(), accumulation_steps(options, images)
    how = f"gradient caching with {count} micro-batches" if cached else f"{count} accumulation steps"
    notes = [f"{world} processes"] * (world > 1) + [how] * (count > 1)
    return f"Batch size {images:,}" + (f" ({', '.join(notes)})." if notes else ".")


def check_batch_norms(options: TrainingOptions, method: Method, images: int) -> None:
    """Raise where a batch norm in training mode would see a single image, of which there are no statistics; warn where
    gradient caching is not equal to the whole batch because of batch norms."""
    count = accumulation_steps(options, images)
    norms = (nn.BatchNorm1d, nn.BatchNorm2d)
    if not any(isinstance(one, norms) and one.training for one in method.train().modules()):
        return
    if count > 1 and isinstance(method, ContrastiveMethod):
        warn(
            f"Batch norm statistics are computed over micro-batches of {images // count:,} images instead of "
            f"the whole batch of {images:,}, so the results differ from those without --micro-batch."
        )
    if images // count < 2:
        option = f"--micro-batch {options.micro_batch}" if count > 1 else f"--batch {options.batch}"
        raise ValueError(
            f"{option} results in forward passes of a single image, but batch normalisation in {options.model} or its "
            f"head needs at least two. Use a larger {option.split()[0]}."
        )


def check_passes(options: TrainingOptions, method: Method, images: int) -> None:
    """Raise where a method cannot be trained with the sizes of its forward passes on a batch of so many images."""
    share, count = images // distributed.world_size(), accumulation_steps(options, images)
    for size in {share // count, math.ceil(share / count)}:
        if faults := method.faults_of_passes(size, distributed.world_size()):
            raise ValueError("; ".join(faults) + ".")
