"""Batches for tests of methods: random pictures, labels that know some things and not others."""

from collections.abc import Sequence

import torch

from ribcage.loader import Batch


def batch(
    count: int = 8,
    *,
    sides: Sequence[int] = (32,),
    channels: int = 1,
    findings: int = 3,
    patients: Sequence[int] = (),
    seed: int = 0,
) -> Batch:
    """`sides` has the side of every view; patients are all different unless told."""
    random = torch.Generator().manual_seed(seed)
    labels = torch.randint(-1, 2, (count, findings), generator=random).float()
    return Batch(
        views=[torch.randn(count, channels, side, side, generator=random) for side in sides],
        labels=labels.masked_fill(labels < 0, torch.nan),
        boxes=[torch.empty(0, 6) for _ in sides],
        rows=torch.arange(count),
        sources=torch.zeros(count, dtype=torch.int64),
        patients=torch.tensor(patients or range(count)),
        chance=torch.randint(1 << 62, (count,), generator=random),
    )


def part(whole: Batch, rank: int, world: int) -> Batch:
    """What one of several ranks sees of a batch."""

    def own(values: torch.Tensor) -> torch.Tensor:
        return values.chunk(world)[rank]

    labels, rows, sources = own(whole.labels), own(whole.rows), own(whole.sources)
    views = [own(view) for view in whole.views]
    return Batch(views, labels, whole.boxes, rows, sources, own(whole.patients), own(whole.chance))
