"""Batches for tests of methods: random images, known and unknown labels, boxes."""

from collections.abc import Sequence

import numpy as np
import torch

from ribcage.data.batch import Batch


def batch(
    count: int = 8,
    *,
    sides: Sequence[int] = (32,),
    channels: int = 1,
    findings: int = 3,
    patients: Sequence[int] = (),
    seed: int = 0,
) -> Batch:
    """`sides` has the side of every view; patients are all different unless given."""
    random = torch.Generator().manual_seed(seed)
    labels = torch.randint(-1, 2, (count, findings), generator=random).float()
    return Batch(
        views=[torch.randn(count, channels, side, side, generator=random) for side in sides],
        labels=labels.masked_fill(labels < 0, torch.nan),
        boxes=[boxes(count, side, findings, seed) for side in sides],
        rows=torch.arange(count),
        sources=torch.zeros(count, dtype=torch.int64),
        patients=torch.tensor(patients or range(count)),
        chance=torch.randint(1 << 62, (count,), generator=random),
    )


def boxes(count: int, side: int, findings: int, seed: int = 0) -> torch.Tensor:
    """(M, 6): none, one or two boxes in every image."""
    random = torch.Generator().manual_seed(seed + 1)
    image = torch.arange(count).repeat_interleave(torch.randint(3, (count,), generator=random))
    finding = torch.randint(findings, (len(image),), generator=random)
    ends = torch.rand(len(image), 2, 2, generator=random).sort(dim=1).values * (side * 0.8)
    ends[:, 1] += side * 0.2
    return torch.cat([image[:, None], finding[:, None], ends.flatten(1)], dim=1).float()


def part(whole: Batch, rank: int, world: int) -> Batch:
    """The share of a batch that one of several ranks has."""

    def own(values: torch.Tensor) -> torch.Tensor:
        return values.chunk(world)[rank]

    labels, rows, sources = own(whole.labels), own(whole.rows), own(whole.sources)
    views = [own(view) for view in whole.views]
    first, count = int(own(torch.arange(len(whole)))[0]), len(rows)
    boxes = [each[(each[:, 0] >= first) & (each[:, 0] < first + count)].clone() for each in whole.boxes]
    for each in boxes:
        each[:, 0] -= first
    return Batch(views, labels, boxes, rows, sources, own(whole.patients), own(whole.chance))


def same_batch(left: Batch, right: Batch) -> bool:
    """Whether two batches are equal bit for bit."""
    names = ("labels", "rows", "sources", "patients", "chance")
    pairs = [(getattr(left, name), getattr(right, name)) for name in names]
    pairs += list(zip(left.views + left.boxes, right.views + right.boxes, strict=True))
    return all(a.shape == b.shape and np.array_equal(a.numpy(), b.numpy(), equal_nan=True) for a, b in pairs)


def joined_batches(parts: Sequence[Batch]) -> Batch:
    """What the ranks hold, as one batch."""
    starts = np.cumsum([0] + [len(part) for part in parts])
    shifted = [
        [torch.cat([box[:, :1] + start, box[:, 1:]], 1) for box in part.boxes]
        for part, start in zip(parts, starts[:-1].tolist(), strict=True)
    ]
    return Batch(
        views=[torch.cat(each) for each in zip(*(part.views for part in parts), strict=True)],
        labels=torch.cat([part.labels for part in parts]),
        boxes=[torch.cat(each) for each in zip(*shifted, strict=True)],
        rows=torch.cat([part.rows for part in parts]),
        sources=torch.cat([part.sources for part in parts]),
        patients=torch.cat([part.patients for part in parts]),
        chance=torch.cat([part.chance for part in parts]),
    )
