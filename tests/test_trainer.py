"""A training step follows its equation, and no step with NaN or infinity is applied."""

import math
import os
import sys
from pathlib import Path
from typing import Any

import processes
import pytest
import stages
import torch
import toys
from refusals import has_facts

from ribcage import cli
from ribcage.runtime import distributed, launcher
from ribcage.training import trainer
from ribcage.training.skipping import LossScale
from ribcage.training.trainer import DivergedError

GOOD = (1.0, 3.0)
POISON = {"loss": (math.nan, 1.0), "gradient": (1e30, 1.0), "gradient of the second part": (1.0, 1e30)}
"""A pixel of 1e30 has a finite loss, and a gradient whose norm is not."""


# ---- a step


@pytest.mark.parametrize("clip", [0.0, 1.0])
def test_the_gradient_is_clipped_to_what_was_asked(clip: float) -> None:
    """Both pixels 3: the gradient is (3, 3), of length 3 sqrt 2."""
    run = toys.run([(3.0, 3.0)], lr=0.1, clip=clip)
    (log,) = run.fit()
    length = clip or 3 * math.sqrt(2)
    moved = toys.START - run.method.w  # type: ignore[operator]
    assert moved.norm().item() == pytest.approx(0.1 * length, rel=1e-5)
    assert log.values == ({"gradient": pytest.approx(3 * math.sqrt(2))} if clip else {})


def test_a_gradient_within_the_limit_is_not_changed() -> None:
    plain, clipped = toys.run([GOOD]), toys.run([GOOD], clip=50.0)
    for run in (plain, clipped):
        list(run.fit())
    assert torch.equal(plain.method.w, clipped.method.w)  # type: ignore[arg-type]


def test_the_average_follows_slowly_and_less_slowly_while_the_run_is_young() -> None:
    """a <- d a + (1 - d) w after step k, with d = min(decay, (1 + k) / (10 + k))."""
    run = toys.run([(1.0, 1.0)] * 3, lr=0.1, ema=0.25)
    average, assumed = toys.START, []
    for step, _ in enumerate(run.fit(), 1):
        w = toys.START - 0.1 * step
        decay = min(0.25, (1 + step) / (10 + step))
        average = decay * average + (1 - decay) * w
        assumed.append((decay, average))
        assert run.result.w.tolist() == pytest.approx([average] * 2, rel=1e-5)  # type: ignore[operator, union-attr]
    assert [decay for decay, _ in assumed] == pytest.approx([2 / 11, 0.25, 0.25])
    assert average - w > 0.01, "it lies behind"


def test_an_average_of_almost_nothing_new_still_moves_when_the_run_is_young() -> None:
    run = toys.run([(1.0, 1.0)], lr=0.1, ema=0.9999)
    list(run.fit())
    assert run.result.w[0].item() == pytest.approx(toys.START - 9 / 11 * 0.1)  # type: ignore[index, union-attr]


# ---- half precision


def test_the_scale_of_the_loss_is_that_of_torch_without_its_synchronisation() -> None:
    """Gradients that exceed the range now and then: the same scale after each step as torch.amp.GradScaler."""
    ours, theirs = LossScale(toys.CPU), torch.amp.GradScaler("cpu", growth_interval=3)
    ours.GROWTH = 3
    weight = torch.nn.Parameter(torch.zeros(()))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    scales = []
    for bad in (1, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0):
        theirs.scale(weight * (math.inf if bad else 1.0)).backward()
        theirs.step(optimizer)
        theirs.update()
        optimizer.zero_grad()
        norm = ours.updated(torch.tensor(math.inf if bad else 1.0))
        assert norm == (0 if bad else 1) and ours.exceeded == bad
        assert ours.value.item() == theirs.get_scale()
        scales.append(ours.value.item())
    assert scales[1] == 2**14 and scales[-1] == 2**16


@pytest.mark.parametrize("kind", ["adamw", "sgd", "lars"])
@pytest.mark.parametrize("lag", [0, 2])
def test_a_step_beyond_the_range_of_fp16_is_left_out_and_training_continues(kind: str, lag: int) -> None:
    """The scale of the first step is too large: weights and momentum are those of a run without it."""
    runs = [toys.run([GOOD] * count, kind=kind, ema=0.5, clip=1.0, precision="fp16") for count in (3, 4)]
    for run in runs:
        run.lag = lag
    assert runs[1].scale is not None and runs[0].scale is not None
    runs[0].scale.value.fill_(2.0**126)
    runs[1].scale.value.fill_(2.0**127)  # of a gradient of 2: infinite
    first = list(runs[0].fit())
    second = list(runs[1].fit())
    left_out = [log.values["gradient"] == 0 for log in second]
    assert not any(log.values["gradient"] == 0 for log in first)
    assert left_out == [True, False, False, False]
    assert second[0].values["scale"] > second[1].values["scale"]
    for ours, theirs in zip(runs[0].method.parameters(), runs[1].method.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_at_a_scale_of_one_a_gradient_beyond_the_range_is_a_divergence() -> None:
    run = toys.run([GOOD, POISON["gradient"]], precision="fp16")
    assert run.scale is not None
    run.scale.value.fill_(1.0)
    with pytest.raises(DivergedError, match=r"gradient is not finite.*step 1"):
        list(run.fit())


def test_the_scale_is_restored_with_the_run() -> None:
    whole, other = (toys.run([GOOD] * 2, precision="fp16") for _ in range(2))
    assert whole.scale is not None and other.scale is not None
    whole.scale.value.fill_(8.0)
    next(whole.fit())
    other.restore(whole.state())
    assert (other.scale.value, other.scale.good) == (8.0, 1.0)


# ---- a step that is no number


@pytest.mark.parametrize("kind", ["adamw", "sgd", "lars"])
@pytest.mark.parametrize("poison", ["loss", "gradient"])
@pytest.mark.parametrize("lag", [0, 2])
def test_nothing_moves_from_the_first_step_on_that_is_not_finite(kind: str, poison: str, lag: int) -> None:
    """Also where the device is ahead of what is known of it: weights, averages, momentum encoders and the optimizer."""
    how: Any = {"kind": kind, "ema": 0.5, "clip": 1.0}
    clean = toys.run([GOOD] * 2, **how)
    list(clean.fit())
    run = toys.run([GOOD, GOOD, POISON[poison], GOOD, GOOD, GOOD], **how)
    run.lag = lag
    with pytest.raises(DivergedError, match=rf"{poison} is not finite.*\bstep 2\b.*--lr \(now 0\.1\)") as found:
        list(run.fit())
    assert (found.value.step, found.value.rows) == (2, [4, 5])
    for (name, ours), (_, theirs) in zip(run._saved(), clean._saved(), strict=True):
        still = torch.equal(ours, theirs)
        assert still if lag == 0 or name == "w" or name.startswith("optimizer") else ours.isfinite().all()


def test_a_step_that_is_not_finite_is_found_at_the_end_and_when_the_state_is_read() -> None:
    for ask in (lambda run: None, lambda run: run.check()):
        run = toys.run([GOOD, POISON["gradient"]])
        run.lag = 5
        with pytest.raises(DivergedError, match="at step 1"):
            for _ in run.fit():
                ask(run)


def test_parts_of_a_batch_are_checked_together() -> None:
    run = toys.run([POISON["gradient of the second part"]], accumulate=2, clip=1.0)
    with pytest.raises(DivergedError, match="gradient is not finite"):
        list(run.fit())
    assert run.method.w.tolist() == [toys.START] * 2  # type: ignore[operator, union-attr]


@pytest.mark.parametrize("spoil", ["ema", "average", "optimizer"])
def test_a_state_that_is_not_finite_is_named_though_every_step_was(spoil: str) -> None:
    run = toys.run([GOOD], kind="adamw", ema=0.5)
    list(run.fit())
    run.check()
    where: Any = {
        "ema": run.method.ema,
        "average": run.result.w,
        "optimizer": run.optimizer.state[run.method.w]["exp_avg"],  # type: ignore[index]
    }
    with torch.no_grad():
        where[spoil][1] = math.inf
    with pytest.raises(DivergedError, match=rf"finite, but .*{spoil}"):
        run.check()


def test_a_run_that_begins_again_from_a_good_state_is_no_longer_diverged() -> None:
    run = toys.run([GOOD, POISON["loss"]])
    state = run.state()
    with pytest.raises(DivergedError):
        list(run.fit())
    run.loader.pixels = (GOOD, GOOD)  # type: ignore[attr-defined]
    run.restore(state)
    assert [log.step for log in run.fit()] == [1, 2]


def ranks() -> None:
    """The means of what two ranks have; then one of them computes what is no number; then one is gone."""
    try:
        with launcher.started():
            rank = distributed.rank()
            print(trainer._means([torch.tensor(float(rank)), torch.tensor(3.0 * rank)]).tolist())
            for poison in ("loss", "gradient"):
                run = toys.run([GOOD, POISON[poison] if rank else GOOD, GOOD])
                with pytest.raises(DivergedError) as found:
                    list(run.fit())
                print(poison, found.value.step, found.value.rows, run.method.w.isfinite().all().item())  # type: ignore[union-attr, operator]
            sys.stdout.flush()
            if rank:
                os._exit(0)
            distributed.total(torch.zeros(1))
    except ConnectionError as error:
        print(cli.error_line(error))


def test_all_ranks_stop_at_the_step_at_which_one_is_not_finite(tmp_path: Path) -> None:
    first, second = processes.together(ranks, said=tmp_path)
    assert second == "[0.5, 1.5]\nloss 1 [] True\ngradient 1 [] True\n"
    numbers, loss, gradient, alone = first.splitlines()
    assert (numbers, loss, gradient) == ("[0.5, 1.5]", "loss 1 [2, 3, 2, 3] True", "gradient 1 [2, 3, 2, 3] True")
    assert has_facts(alone, "process", "ended") and "fault" not in alone


# ---- another number of processes


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "model", "how"),
    [
        ("supervised", "test_resnet", {}),
        ("moco", "test_resnet", {"kind": "sgd"}),
        ("moco", "test_vit", {"accumulate": 2}),
    ],
)
def test_a_run_that_is_resumed_by_another_number_of_processes_is_the_run_of_one(
    tmp_path: Path, name: str, model: str, how: dict[str, Any]
) -> None:
    """Two processes, then one, then two, with averaged weights, a queue of keys and accumulated gradients. Only the
    order of sums differs: 1e-9 of double precision after six steps."""
    folder = str(tmp_path / "phantom")
    assert cli.main(["import", "phantom", "--out", folder, "--images", "120", "--size", "32"]) == 0
    stages.compare(folder, tmp_path, name, model, **how)
