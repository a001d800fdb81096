"""A run of ten steps by one process, and by stages of several and of one, in double precision."""

import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import processes
import pytest
import torch
from ranks import SIZE, doubled, made

from ribcage.data.batch import Batch
from ribcage.data.collection import Datasets
from ribcage.data.findings import Policy
from ribcage.data.loader import Loader
from ribcage.imaging.augment import gentle_view
from ribcage.runtime import distributed, launcher
from ribcage.training import optim, sharding, trainer

CPU = torch.device("cpu")


class DoubleLoader(Loader):
    """A loader of images in double precision."""

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        for one in super().epoch(epoch, start):
            yield replace(one, views=[view.double() for view in one.views], labels=one.labels.double())


def ten_steps(folder: str, name: str, model: str, shard: bool) -> trainer.Trainer:
    """A run of ten steps on images, of this process or of several, which may divide the weights among them."""
    data = Datasets.open([folder])
    method = made(name, model)
    view = gentle_view(SIZE)
    loader = DoubleLoader(
        data, [view], batch=16, seed=3, rows=data.rows_of("train"), findings=data.findings[:3], policy=Policy.parse("zeros"),
        drop_last=True, threads=1, rank=distributed.rank(), world=distributed.world_size(), channels=1, device=CPU,
    )  # fmt: skip
    whole = sharding.sharded(method, CPU) if shard and distributed.active() else None
    rates = optim.Rates(1e-3, 2 * len(loader), warmup=2)
    optimizer = optim.optimizer(method, "adamw")
    run = trainer.Trainer(
        method, loader, optimizer, rates, epochs=2, device=CPU, seed=3, precision="float32", clip=0.05, ema=0.9,
        accumulate=2 if shard else 1, whole=whole,
    )  # fmt: skip
    assert sharding.is_sharded(run.method) == (whole is not None)
    return run


@doubled()
def trained(folder: str, until: int, before: Path | None, after: Path, *how: Any) -> None:
    """From a state to a step; rank 0 writes the state there, and the losses up to it."""
    run = ten_steps(folder, *how)
    if before is not None:
        run.restore(torch.load(before, weights_only=True)["run"])
    losses = []
    for log in run.fit():
        losses.append(log.loss)
        if log.step == until:
            break
    run.gather()
    state = run.state()
    if distributed.rank() == 0:
        found = {"run": state, "losses": losses, "result": run.result.state_dict()}
        torch.save(found, after.with_suffix(".part"))
        after.with_suffix(".part").rename(after)


STAGES = ((2, 3), (1, 6), (2, 10))
"""Processes, and the step up to which they train."""


def by_stages(folder: str, out: str, *how: Any) -> None:
    """One of two processes; a stage of one process is that of rank 0."""
    torch.set_num_threads(1)
    files = [Path(out, f"{number}.pt") for number in range(len(STAGES))]
    for number, (world, until) in enumerate(STAGES):
        before = files[number - 1] if number else None
        while before is not None and not before.exists():
            time.sleep(0.01)
        os.environ.update({"WORLD_SIZE": str(world), launcher.RENDEZVOUS: f"{out}/store-{number}"})
        if int(os.environ["RANK"]) < world:
            with launcher.started():
                trained(folder, until, before, files[number], *how)


def compare(folder: str, out: Path, name: str = "supervised", model: str = "test_resnet", shard: bool = False) -> None:
    """Two processes, then one, then two, and one process from the start: equal losses, weights and averages.

    Only the order of sums differs: 1e-9 in double precision after ten steps.
    """
    how = (name, model, shard)
    with processes.ranks(by_stages, folder, str(out), *how, said=out / "said") as started:
        trained(folder, 10, None, out / "whole.pt", *how)
        ends = [process.end() for process in started]
    assert [code for code, _ in ends] == [0, 0], ends
    whole, *parts = (torch.load(out / f"{name}.pt", weights_only=True) for name in ("whole", *range(len(STAGES))))
    losses = [loss for part in parts for loss in part["losses"]]
    assert len(losses) == 10 and losses == pytest.approx(whole["losses"], rel=1e-9)
    last = parts[-1]
    for found, expected in (
        (last["result"], whole["result"]),
        (last["run"]["method"], whole["run"]["method"]),
        (last["run"]["average"], whole["run"]["average"]),
    ):
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            torch.testing.assert_close(found[key], value, rtol=1e-9, atol=1e-9, msg=lambda m, k=key: f"{k}: {m}")
