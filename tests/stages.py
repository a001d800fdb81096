"""A run of six steps by one process, and by stages of several and of one, in double precision."""

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
from timm.models.vision_transformer import VisionTransformer

from ribcage.data.batch import Batch
from ribcage.data.collection import Datasets
from ribcage.data.label_policy import Policy
from ribcage.data.loader import Loader
from ribcage.imaging.augment import gentle_view
from ribcage.models.recomputation import recompute_blocks
from ribcage.runtime import distributed, launch_variables, launcher
from ribcage.training import checkpoint, optim, sharding, shards, trainer
from ribcage.training.saving import Saver

CPU = torch.device("cpu")


class DoubleLoader(Loader):
    """A loader of images in double precision."""

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        for one in super().epoch(epoch, start):
            yield replace(one, views=[view.double() for view in one.views], labels=one.labels.double())


def six_steps(
    folder: str,
    name: str,
    model: str,
    *,
    shard: bool = False,
    accumulate: int = 1,
    kind: str = "adamw",
    recompute: bool = False,
    adapt: str = "full",
) -> trainer.Trainer:
    """A run of two epochs of three steps on images, of this process or of several, which may divide the weights among
    them, and recompute the blocks, of which a transformer has two."""
    data = Datasets.open([folder])
    method = made(name, model, **({} if adapt == "full" else {"adapt": adapt}))
    for part in method.modules():
        if isinstance(part, VisionTransformer):
            part.blocks = part.blocks[:2]
    if recompute:
        recompute_blocks(method.backbone.model)
    views = [gentle_view(SIZE)] * len(method.views(SIZE))
    loader = DoubleLoader(
        data, views, batch=16, seed=3, rows=data.rows_of("train")[:48], findings=data.findings[:3], policy=Policy.parse("zeros"),
        drop_last=True, threads=1, rank=distributed.rank(), world=distributed.world_size(), channels=1, device=CPU,
    )  # fmt: skip
    whole = sharding.sharded(method, CPU) if shard and distributed.active() else None
    rates = optim.Rates(1e-3, 2 * len(loader), warmup=2)
    optimizer = optim.optimizer(method, kind)
    run = trainer.Trainer(
        method, loader, optimizer, rates, epochs=2, device=CPU, seed=3, precision="float32", clip=0.05, ema=0.9,
        accumulate=accumulate, whole=whole,
    )  # fmt: skip
    assert sharding.is_sharded(run.method) == (whole is not None)
    return run


@doubled()
def trained(folder: str, until: int, after: Path, name: str, model: str, how: dict[str, Any]) -> None:
    """From the newest checkpoint in the folder of `after` to a step, with a checkpoint there; rank 0 writes the losses
    and the resulting model to `after`."""
    run, saver = six_steps(folder, name, model, **how), Saver(after.parent)
    if checkpoint.has_checkpoint(after.parent):
        place, damaged = checkpoint.newest(after.parent)
        assert not damaged
        run.restore(checkpoint.load_checkpoint(place)["run"])
    losses = []
    for log in run.fit():
        losses.append(log.loss)
        if log.step == until - 1:  # as this one is written, the last step changes all weights
            saver.save({"run": run.state(), "standing": {}}, log.step)
        if log.step == until:
            break
    saver.save({"run": run.state(), "standing": {}}, until)
    run.gather()
    saver.finish()
    if distributed.rank() == 0:
        torch.save({"losses": losses, "result": run.result.state_dict()}, after.with_suffix(".part"))
        after.with_suffix(".part").rename(after)


def saved(folder: Path) -> dict[str, Any]:
    """The newest checkpoint in a folder, with whole tensors."""

    def whole(values: Any) -> Any:
        if isinstance(values, dict):
            return {key: whole(value) for key, value in values.items()}
        return shards.whole(values)

    return whole(checkpoint.load_checkpoint(checkpoint.newest(folder)[0])["run"])


STAGES = ((2, 2), (1, 4), (2, 6))
"""Processes, and the step up to which they train."""


def by_stages(folder: str, out: str, *how: Any) -> None:
    """One of two processes; a stage of one process is that of rank 0."""
    torch.set_num_threads(1)
    files = [Path(out, f"{number}.pt") for number in range(len(STAGES))]
    for number, (world, until) in enumerate(STAGES):
        while number and not files[number - 1].exists():
            time.sleep(0.01)
        os.environ.update({"WORLD_SIZE": str(world), launch_variables.RENDEZVOUS: f"{out}/store-{number}"})
        if int(os.environ["RANK"]) < world:
            with launcher.started():
                trained(folder, until, files[number], *how)


def compare(folder: str, out: Path, name: str, model: str, **options: Any) -> None:
    """Two processes, then one, then two, and one process from the start: equal losses, weights, averages and optimizer
    states. The options are those of `six_steps`.

    Only the order of sums differs: 1e-9 in double precision after six steps.
    """
    how = (name, model, options)
    (out / "one").mkdir()
    (out / "stages").mkdir()
    with processes.ranks(by_stages, folder, str(out / "stages"), *how, said=out / "said") as started:
        trained(folder, 6, out / "one" / "whole.pt", *how)
        ends = [process.end() for process in started]
    assert [code for code, _ in ends] == [0, 0], ends
    files = [out / "one" / "whole.pt", *(out / "stages" / f"{number}.pt" for number in range(len(STAGES)))]
    whole, *parts = (torch.load(file, weights_only=True) for file in files)
    losses = [loss for part in parts for loss in part["losses"]]
    assert len(losses) == 6 and losses == pytest.approx(whole["losses"], rel=1e-9)
    last, expected = saved(out / "stages"), saved(out / "one")
    close(parts[-1]["result"], whole["result"])
    for kind in ("method", "average", "optimizer"):
        close(last[kind], expected[kind])


def close(found: Any, expected: Any, name: str = "") -> None:
    """Equal but for rounding."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys(), name
        for key, value in expected.items():
            close(found[key], value, f"{name} {key}")
    elif isinstance(expected, torch.Tensor):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9, msg=lambda m: f"{name}: {m}")
    else:
        assert found == expected, name
