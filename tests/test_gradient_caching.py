"""Gradient caching: the gradient of the whole batch, from micro-batches."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import processes
import pytest
import ranks
import torch
import torch.distributed as dist
from batches import part
from torch import Tensor, nn

from ribcage import methods
from ribcage.data.batch import Batch
from ribcage.methods.base import ContrastiveMethod
from ribcage.models.recomputation import recompute_blocks
from ribcage.runtime import distributed, launcher
from ribcage.training import optim, trainer
from ribcage.training.micro_batches import micro_batches

NAMES = ("mocov3", "simclr", "supcon", "swav")
PARTS = 3  # of 16 images: 6, 5 and 5
CPU = torch.device("cpu")
ROUNDED = {"mocov3": 0.5}
"""Rounding errors of the whole batch in half precision as shares of the gradient, if above 0.1: without their batch norms,
the heads of MoCo v3 map all images to nearly the same direction."""
every_method = pytest.mark.parametrize("name", NAMES)


@dataclass
class Batches:
    """A loader of given batches."""

    given: list[Batch]

    def __len__(self) -> int:
        return len(self.given)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        yield from self.given[start:]


def without_norms(method: nn.Module) -> None:
    """Leave out batch norms, whose statistics are those of a micro-batch."""
    for module in list(method.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.modules.batchnorm._BatchNorm):
                setattr(module, name, nn.Identity())


def prepared(
    name: str, accumulate: int, *, steps: int = 1, norms: bool = False, model: str = "test_vit", **how: Any
) -> trainer.Trainer:
    """A run of some steps; in double precision inside of `ranks.doubled`."""
    method = ranks.made(name, model, **{option: how.pop(option) for option in ("mixup", "cutmix") if option in how})
    if not norms:
        without_norms(method)
    if how.pop("recompute", False):
        assert recompute_blocks(method.backbone.model)
    kind = torch.get_default_dtype()
    batches = [ranks.images(method, step, patients=[1, 1, 2, *range(3, 15), 2]) for step in range(steps)]
    batches = [replace(one, views=[view.to(kind) for view in one.views], labels=one.labels.to(kind)) for one in batches]
    batches = [part(one, distributed.rank(), distributed.world_size()) for one in batches]
    optimizer = optim.optimizer(method, "sgd")
    how = {"precision": "float32", "ema": 0.9, **how}
    rates = optim.Rates(0.05, steps, schedule="constant")
    return trainer.Trainer(
        method, Batches(batches), optimizer, rates, epochs=1, device=CPU, accumulate=accumulate, **how
    )  # type: ignore[arg-type]


def step(run: trainer.Trainer) -> tuple[float, dict[str, Tensor]]:
    """Loss and gradients of the next step."""
    log = next(run.fit())
    gradients = {name: weight.grad for name, weight in run.method.named_parameters() if weight.grad is not None}
    return log.loss, {name: gradient.clone() for name, gradient in gradients.items()}


def assert_close(found: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float) -> None:
    """Relative to the largest entry of each tensor."""
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        error = (found[name] - value).abs().max() / value.abs().max().clamp(min=1e-6)
        assert error <= tolerance, f"{name}: {error:.3g}"


def test_all_methods_that_compare_images_are_tested() -> None:
    kinds = {name: methods.load_method(name) for name in methods.pretraining()}
    assert {name for name, kind in kinds.items() if issubclass(kind, ContrastiveMethod)} == set(NAMES)


# ---- the gradient of the whole batch


@every_method
def test_the_gradient_is_that_of_the_whole_batch(name: str) -> None:
    with ranks.doubled():
        (loss, whole), (cached_loss, cached) = (step(prepared(name, count)) for count in (1, PARTS))
    assert cached_loss == pytest.approx(loss, rel=1e-12)
    assert_close(cached, whole, 1e-12)
    assert any(gradient.any() for key, gradient in cached.items() if key.startswith("backbone."))


@pytest.mark.parametrize("how", [{"mixup": 1.0}, {"cutmix": 1.0}, {"mixup": 0.5, "cutmix": 0.5}])
def test_images_are_mixed_with_those_of_the_whole_batch(how: dict[str, float]) -> None:
    """Also where labels are unknown, which are not the same in all micro-batches."""
    with ranks.doubled():
        runs = [prepared("supervised", count, steps=2, **how) for count in (1, PARTS)]
        for _ in range(2):
            (loss, whole), (accumulated_loss, accumulated) = map(step, runs)
            assert accumulated_loss == pytest.approx(loss, rel=1e-12)
            assert_close(accumulated, whole, 1e-12)


@every_method
def test_accumulation_would_give_another_gradient(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loss of the parts compares fewer images."""
    with ranks.doubled():
        _, whole = step(prepared(name, 1))
        run = prepared(name, PARTS)
        run.forward, run.cached = run.method, None
        _, accumulated = step(run)
    with pytest.raises(AssertionError):
        assert_close(accumulated, whole, 1e-3)


@every_method
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_in_half_precision_rounding_errors_are_those_of_the_whole_batch(name: str, precision: str) -> None:
    runs = [prepared(name, 1), *(prepared(name, count, precision=precision) for count in (1, PARTS))]
    for run in runs:
        if run.scale is not None:
            run.scale.value.fill_(256.0)
    exact, whole, cached = (torch.cat([one.flatten() for one in step(run)[1].values()]) for run in runs)
    assert (cached - exact).norm() < 1.1 * (whole - exact).norm() < ROUNDED.get(name, 0.1) * exact.norm()


@every_method
def test_recomputed_activations_do_not_change_a_bit(name: str) -> None:
    plain, saving = (prepared(name, PARTS, norms=True, recompute=recompute) for recompute in (False, True))
    (loss, gradients), (again, others) = step(plain), step(saving)
    assert loss == again and all(torch.equal(others[key], value) for key, value in gradients.items())


def test_activations_of_one_micro_batch_are_stored_at_a_time() -> None:
    most = []
    for run in (prepared("simclr", 1), prepared("simclr", 4)):
        stored = [dict[int, int]()]

        def pack(tensor: Tensor, stored: list[dict[int, int]] = stored) -> Tensor:
            stored[-1][tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        weights = {weight.untyped_storage().data_ptr() for weight in run.method.parameters()}
        run.method.backbone.register_forward_pre_hook(lambda *_, stored=stored: stored.append({}))
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            next(run.fit())
        most.append(max(sum(size for place, size in one.items() if place not in weights) for one in stored))
    assert most[1] < 0.3 * most[0]


def test_both_forward_passes_have_the_same_random_numbers() -> None:
    run = prepared("simclr", PARTS)
    run.method.head = nn.Sequential(run.method.head, nn.Dropout(0.5))  # type: ignore[assignment, arg-type]
    found = list[Tensor]()
    run.forward.register_forward_hook(lambda _, __, z: found.append(z.detach().clone()))
    next(run.fit())
    assert len(found) == 2 * PARTS
    assert all(torch.equal(one, again) for one, again in zip(found[:PARTS], found[PARTS:], strict=True))
    assert not torch.equal(found[0][:5], found[1])


@every_method
def test_running_statistics_are_updated_once_for_each_micro_batch(name: str) -> None:
    run, other = (prepared(name, PARTS, norms=True, model="test_resnet") for _ in range(2))
    next(run.fit())
    other.method.train()
    whole = trainer.to_device(other.loader.given[0], CPU)  # type: ignore[attr-defined]
    with torch.no_grad():
        for piece in micro_batches(whole, PARTS):
            other.method.representations(piece)  # type: ignore[operator, union-attr]
    counted = {name for name, _ in run.method.named_buffers() if name.rpartition(".")[2].startswith(("running", "num"))}
    assert counted
    for key in counted:
        assert torch.equal(run.method.get_buffer(key), other.method.get_buffer(key)), key


@every_method
def test_a_run_that_is_resumed_has_the_same_bits(name: str) -> None:
    how: Any = {"steps": 4, "norms": True, "model": "test_resnet"}
    whole, first, second = (prepared(name, PARTS, **how) for _ in range(3))
    list(whole.fit())
    steps = first.fit()
    for _ in range(2):
        next(steps)
    second.restore(first.state())
    list(second.fit())
    for key, value in whole.method.state_dict().items():
        assert torch.equal(second.method.state_dict()[key], value), key


# ---- several processes


@ranks.doubled()
def traced(name: str, accumulate: int) -> tuple[float, dict[str, Tensor], int]:
    """Loss, gradients, and how often gradients were averaged over the processes in the second of two steps."""
    run = prepared(name, accumulate, steps=2)
    averaged = list[int]()
    if isinstance(run.forward, nn.parallel.DistributedDataParallel):
        run.forward.register_comm_hook(averaged, count_reductions)
    step(run)
    averaged.clear()
    return *step(run), sum(averaged)


def count_reductions(counted: list[int], bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:
    """Average the gradients of a bucket; they are counted."""
    from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook

    counted.append(bucket.buffer().numel())
    return allreduce_hook(None, bucket)  # type: ignore[arg-type]


def write(folder: str) -> None:
    """In each process: all methods; rank 0 writes what it has found."""
    torch.set_num_threads(1)
    with launcher.started():
        for name in NAMES:
            loss, gradients, averaged = traced(name, PARTS)
            if distributed.rank() == 0:
                found = {"loss": loss, "gradients": gradients, "averaged": averaged}
                torch.save(found, f"{folder}/{name}.pt")


@pytest.mark.slow
def test_two_processes_have_the_gradient_of_one_and_average_it_once(tmp_path: Path) -> None:
    processes.together(write, str(tmp_path), said=tmp_path)
    for name in NAMES:
        found = torch.load(tmp_path / f"{name}.pt", weights_only=True)
        loss, gradients, _ = traced(name, 1)
        assert found["loss"] == pytest.approx(loss, rel=1e-12)
        assert_close(found["gradients"], gradients, 1e-10)
        assert found["averaged"] == sum(gradient.numel() for gradient in gradients.values())
