"""Micro-batches: the parts of a batch that are passed through the network one after another."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from ribcage.data.batch import Batch


def micro_batches(batch: Batch, count: int) -> Iterator[Batch]:
    """The batch in `count` parts of about the same size."""
    if count == 1:
        yield batch
        return
    for places in np.array_split(np.arange(len(batch)), count):
        if len(places):
            chosen = slice(int(places[0]), int(places[-1]) + 1)
            boxes = [_boxes_of(box, chosen) for box in batch.boxes]
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
            )


def _boxes_of(boxes: Tensor, chosen: slice) -> Tensor:
    """The boxes with these images renumbered from 0, and all other images -1: to leave their boxes out, the CPU would
    have to wait for a GPU to count them."""
    image = boxes[:, :1]
    own = torch.where((image >= chosen.start) & (image < chosen.stop), image - chosen.start, -1)
    return torch.cat([own, boxes[:, 1:]], dim=1)
