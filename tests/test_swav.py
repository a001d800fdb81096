"""SwAV: swapped prediction between views, balanced prototypes, small crops for every backbone."""

import os
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from batches import batch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from ribcage.data.batch import Batch
from ribcage.methods.swav import SwAV
from ribcage.models.backbone import Backbone
from ribcage.models.prototypes import prototypes_used, sinkhorn

SIDES = (32, 32, 16, 16, 16)


def made(model: str = "test_resnet", size: tuple[int, int] | None = None, **options: Any) -> SwAV:
    torch.manual_seed(0)
    small = {"prototypes": 10, "hidden": 24, "dim": 12, "crops": 3}
    return SwAV(Backbone(model, size=size), **{**small, **options})


def scores_of(method: SwAV, images: Batch) -> Tensor:
    """(V, N, prototypes)"""
    return method.representations(images).transpose(0, 1) @ method.prototypes.weight.T


def as_published(scores: np.ndarray, epsilon: float = 0.05, iterations: int = 3) -> np.ndarray:
    """The paper's algorithm in its own steps: (N, K) → (N, K)."""
    q = np.exp(scores.astype(np.float64) / epsilon).T
    (prototypes, count), q = q.shape, q / q.sum()
    for _ in range(iterations):
        q = q / q.sum(1, keepdims=True) / prototypes
        q = q / q.sum(0, keepdims=True) / count
    return (q * count).T


@pytest.fixture(scope="module")
def lightly() -> Any:
    os.environ["LIGHTLY_DID_VERSION_CHECK"] = "True"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from lightly.loss import swav_loss
    return swav_loss


# ---- the equation


def test_the_loss_is_the_equation() -> None:
    method, images = made(), batch(6, sides=SIDES)
    scores = scores_of(method, images).detach().double().numpy()
    losses = []
    for i in (0, 1):
        q = as_published(scores[i])
        for v in range(5):
            if v != i:
                p = np.exp(scores[v] / 0.1)
                losses.append(-(q * np.log(p / p.sum(1, keepdims=True))).sum(1).mean())
    assert method(images).loss.item() == pytest.approx(np.mean(losses), rel=1e-5)


def test_lightly_finds_the_same_loss_and_gradient(lightly: Any) -> None:
    method, images = made(), batch(6, sides=SIDES)
    scores = scores_of(method, images)
    expected = lightly.SwaVLoss()(list(scores[:2]), list(scores[2:])).squeeze()
    loss = method(images).loss
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5)
    weights = [method.prototypes.weight, next(method.backbone.parameters())]
    method.freeze_prototypes = 0.0
    ours, theirs = (torch.autograd.grad(each, weights) for each in (method(images).loss, expected))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_lightly_finds_the_same_loss_with_a_queue(lightly: Any) -> None:
    method, images = made(queue=8, queue_from=0.0), batch(6, sides=SIDES)
    method.queue.copy_(F.normalize(torch.randn(2, 8, 12), dim=2))
    scores, queued = scores_of(method, images), method.queue @ method.prototypes.weight.T
    expected = lightly.SwaVLoss()(list(scores[:2]), list(scores[2:]), list(queued)).squeeze()
    torch.testing.assert_close(method(images).loss, expected, rtol=1e-5, atol=1e-5)


def test_large_views_alone_will_do() -> None:
    method, images = made(crops=0), batch(6, sides=(32, 32))
    scores = scores_of(method, images).detach()
    q = [torch.tensor(as_published(one.numpy())).float() for one in scores]
    expected = -sum((q[i] * (scores[1 - i] / 0.1).log_softmax(1)).sum(1).mean() for i in (0, 1)) / 2
    torch.testing.assert_close(method(images).loss, expected)
    assert len(method.views((32, 32))) == 2


# ---- assignments


@pytest.mark.parametrize("iterations", [1, 3])
def test_sinkhorn_is_the_papers_and_lightlys(iterations: int, lightly: Any) -> None:
    torch.manual_seed(0)
    scores = F.normalize(torch.randn(9, 12), dim=1) @ F.normalize(torch.randn(12, 5), dim=0)
    q = sinkhorn(scores, 0.05, iterations)
    np.testing.assert_allclose(q.numpy(), as_published(scores.numpy(), iterations=iterations), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(q, lightly.sinkhorn(scores, iterations), rtol=1e-5, atol=1e-5)


def test_sinkhorn_uses_all_prototypes_alike_even_where_all_images_want_the_same() -> None:
    torch.manual_seed(0)
    scores = torch.rand(30, 6) * 0.5 - 0.5
    scores[:, 2] += 0.9
    q = sinkhorn(scores, 0.05, 100)
    torch.testing.assert_close(q.sum(1), torch.ones(30))
    torch.testing.assert_close(q.sum(0), torch.full((6,), 5.0), rtol=1e-2, atol=0)


def test_sinkhorn_stays_finite_at_the_smallest_epsilon() -> None:
    scores = torch.tensor([[1.0, -1, -1], [1, -1, -1], [1, -1, 1]])
    assert sinkhorn(scores, 0.03, 3).isfinite().all()


def test_use_of_prototypes_tells_a_collapse() -> None:
    assert float(prototypes_used(torch.eye(5).repeat(2, 1, 1))) == pytest.approx(5)
    assert float(prototypes_used(torch.eye(5)[:1].expand(2, 8, 5))) == pytest.approx(1)
    assert float(made()(batch(6, sides=SIDES)).logs["prototypes"]) >= 1


# ---- the queue


def test_the_queue_is_used_when_full_and_its_time_has_come() -> None:
    method, plain = made(queue=8, queue_from=0.5), made()
    for number, progress in enumerate((0.2, 0.4, 0.6, 0.8)):
        images = batch(6, sides=SIDES, seed=number)
        full = bool(method.queue[:, -1].any())
        losses = [one(images).loss.item() for one in (method, plain)]
        assert (losses[0] != pytest.approx(losses[1])) == (full and float(method.progress) >= 0.5)
        method.after_step(progress)
    young = made(queue=8, queue_from=0.0)
    assert young(images).loss.item() == made()(images).loss.item()


def test_the_newest_features_come_first_and_the_oldest_leave() -> None:
    method = made(queue=8)
    pushed = []
    for number in range(2):
        images = batch(6, sides=SIDES, seed=number)
        pushed.append(method.representations(images).transpose(0, 1)[:2].detach())
        method(images)
    torch.testing.assert_close(method.queue, torch.cat([pushed[1], pushed[0][:, :2]], 1))
    before = method.queue.clone()
    method.eval()(batch(6, sides=SIDES, seed=5))
    assert torch.equal(method.queue, before)


# ---- prototypes


def test_prototypes_are_frozen_at_first_and_keep_their_length() -> None:
    method = made(freeze_prototypes=0.5)
    optimizer = torch.optim.AdamW(method.parameters(), lr=0.1)
    begun = method.prototypes.weight.detach().clone()
    for progress in (0.25, 0.5, 0.75):
        optimizer.zero_grad()
        method(batch(6, sides=SIDES)).loss.backward()
        gradient = method.prototypes.weight.grad
        assert gradient is not None and bool(gradient.any()) == (progress > 0.5)
        optimizer.step()
        method.after_step(progress)
        torch.testing.assert_close(method.prototypes.weight.norm(dim=1), torch.ones(10))
        assert torch.allclose(method.prototypes.weight, begun, atol=1e-6) == (progress <= 0.5)


# ---- views


def test_the_papers_views_and_values_are_the_defaults() -> None:
    method = SwAV(Backbone("test_resnet"))
    views = method.views((224, 224), "paper")
    assert [view.shape for view in views] == [(224, 224)] * 2 + [(96, 96)] * 6
    assert [view.crop for view in views] == [(0.14, 1.0)] * 2 + [(0.05, 0.14)] * 6
    assert [view.shape for view in method.views((224, 224))] == [view.shape for view in views]
    assert method.prototypes.weight.shape == (3000, 128) and method.prototypes.bias is None
    assert method.head[0].out_features == 2048 and isinstance(method.head[1], torch.nn.BatchNorm1d)
    assert (method.temperature, method.epsilon, method.iterations) == (0.1, 0.05, 3)


@pytest.mark.parametrize(
    ("model", "size", "small"),
    [
        ("test_resnet", (224, 224), (96, 96)),
        ("test_resnet", (320, 256), (128, 96)),
        ("test_resnet", (20, 20), (20, 20)),
        ("resnet18_small", (64, 64), (24, 24)),
        ("test_vit", (64, 48), (32, 16)),
        ("deit_tiny_distilled_patch16_224", (224, 224), (96, 96)),
        ("swin_tiny_patch4_window7_224", (64, 64), (64, 64)),  # takes one size only
    ],
)
def test_small_views_are_as_the_backbone_takes_them(model: str, size: tuple[int, int], small: tuple[int, int]) -> None:
    method = made(model, size).eval()
    assert [view.shape for view in method.views(size)] == [size] * 2 + [small] * 3
    with torch.no_grad():
        assert method.backbone(torch.randn(1, 1, *small)).shape == (1, method.backbone.dim)


@pytest.mark.parametrize("model", ["test_vit", "deit_tiny_distilled_patch16_224"])
def test_a_transformer_that_takes_other_sizes_gives_the_same_at_its_own(model: str) -> None:
    torch.manual_seed(0)
    backbone, shown = Backbone(model, size=(64, 48)).eval(), torch.randn(2, 1, 64, 48)
    weights = {key: value.clone() for key, value in backbone.state_dict().items()}
    before = backbone(shown), backbone.maps(shown)
    SwAV(backbone, prototypes=4)
    torch.testing.assert_close((backbone(shown), backbone.maps(shown)), before)
    assert all(torch.equal(value, weights[key]) for key, value in backbone.state_dict().items())


def test_the_backbone_sees_each_size_once() -> None:
    method, seen = made(), []
    method.backbone.register_forward_pre_hook(lambda module, given: seen.append(tuple(given[0].shape)))
    method(batch(6, sides=SIDES))
    assert seen == [(12, 1, 32, 32), (18, 1, 16, 16)]


# ---- options


def test_all_faults_are_named_at_once() -> None:
    with pytest.raises(ValueError, match=r"^--crops -1 .*--prototypes 0 .*--epsilon .*--freeze-prototypes 2 "):
        made(crops=-1, prototypes=0, epsilon=0.01, freeze_prototypes=2)
