"""Supervised learning uses known labels only, and a frozen backbone stays unchanged."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from ribcage import methods
from ribcage.data.batch import Batch
from ribcage.methods.base import LabelCounts
from ribcage.methods.supervised import Supervised
from ribcage.models import losses
from ribcage.models.backbone import Backbone
from ribcage.training.micro_batches import micro_batches

nan = math.nan
LABELS = torch.tensor([[1.0, 0.0, nan], [0.0, nan, 1.0], [1.0, 0.0, 0.0], [nan, nan, nan]])


def batch(labels: Tensor = LABELS) -> Batch:
    torch.manual_seed(1)
    count = len(labels)
    rows = torch.arange(count)
    return Batch([torch.randn(count, 1, 32, 32)], labels, [torch.empty(0, 6)], rows, torch.zeros(count), rows, rows)


def made(**options: Any) -> Supervised:
    torch.manual_seed(0)
    method = Supervised(Backbone("test_resnet"), ("a", "b", "c"), **options)
    with torch.no_grad():
        method.head.weight.normal_(std=0.3)
    return method


def test_the_method_is_found_by_its_name() -> None:
    assert methods.load_method("supervised") is Supervised and "supervised" in methods.method_names()
    with pytest.raises(ValueError, match="Did you mean 'supervised'"):
        methods.load_method("superviced")


def test_the_loss_is_the_mean_over_known_labels() -> None:
    method = made().eval()
    logits = method.logits(batch().views[0])
    known = ~LABELS.isnan()
    expected = F.binary_cross_entropy_with_logits(logits[known], LABELS[known])
    torch.testing.assert_close(method(batch()).loss, expected)


def test_cross_entropy_is_the_mean_over_images_whose_findings_are_all_known() -> None:
    labels = torch.tensor([[1.0, 0, 0], [0, 0, 1], [0, nan, 1], [nan, nan, nan]])
    method = made(loss="cross-entropy", smoothing=0.1).eval()
    logits = method.logits(batch().views[0])
    expected = F.cross_entropy(logits[:2], torch.tensor([0, 2]), label_smoothing=0.1)
    torch.testing.assert_close(method(batch(labels)).loss, expected)


@pytest.mark.parametrize("loss", losses.LOSSES)
def test_a_batch_of_which_nothing_is_known_has_loss_zero_and_no_gradient(loss: str) -> None:
    method = made(loss=loss, balanced=True, mixup=0.4)
    step = method(batch(torch.full((4, 3), nan)))
    assert step.loss.item() == 0
    step.loss.backward()
    assert all(weight.grad is None or (weight.grad == 0).all() for weight in method.parameters())


@pytest.mark.parametrize("loss", losses.LOSSES)
def test_the_gradient_reaches_the_stem(loss: str) -> None:
    method = made(loss=loss)
    method(batch()).loss.backward()
    gradient = next(method.backbone.parameters()).grad
    assert gradient is not None and gradient.isfinite().all() and gradient.any()


def test_a_frozen_backbone_learns_nothing_and_its_statistics_stand_still() -> None:
    method = made(adapt="head").train()
    before = {name: value.clone() for name, value in method.backbone.state_dict().items()}
    optimizer = torch.optim.SGD([weight for weight in method.parameters() if weight.requires_grad], lr=0.1)
    assert not method.backbone.training and method.head.training
    method(batch()).loss.backward()
    optimizer.step()
    assert all(weight.grad is None for weight in method.backbone.parameters())
    assert all(torch.equal(value, before[name]) for name, value in method.backbone.state_dict().items())
    assert method.head.weight.grad is not None and method.head.weight.grad.any()


def test_without_freezing_the_statistics_move() -> None:
    method = made().train()
    before = {name: value.clone() for name, value in method.backbone.named_buffers() if "running_mean" in name}
    method(batch())
    assert any(
        not torch.equal(value, before[name]) for name, value in method.backbone.named_buffers() if name in before
    )


def test_balanced_weights_both_sides_of_a_finding_by_their_counts() -> None:
    labels = torch.tensor([[1.0, 0, 1]] + [[0.0, 0, 1]] * 30)
    method = made(balanced=True).eval()
    method.count(LabelCounts.of([labels[:2], labels[2:]], 3))
    present, absent = losses.class_weights(torch.tensor([1, 0, 31]), torch.tensor([30, 31, 0]))
    assert torch.equal(method.present, present) and torch.equal(method.absent, absent)
    logits, known = method.logits(batch().views[0]), ~LABELS.isnan()
    weights = torch.where(LABELS == 1, present, absent)[known]
    expected = (F.binary_cross_entropy_with_logits(logits[known], LABELS[known], reduction="none") * weights).mean()
    torch.testing.assert_close(method(batch()).loss, expected)


def test_prior_begins_with_what_is_usual() -> None:
    """An untrained head predicts each finding with its prevalence among the labels."""
    labels = torch.tensor([[1.0, 0.0, torch.nan], [0.0, 0.0, torch.nan], [0.0, torch.nan, torch.nan], [0.0, 0.0, 1.0]])
    method = made(prior=True).eval()
    torch.nn.init.zeros_(method.head.weight)
    method.count(LabelCounts.of([labels[:2], labels[2:]], 3))
    said = method.logits(torch.randn(2, 1, 32, 32)).sigmoid()
    torch.testing.assert_close(said, torch.tensor([[1.5 / 5, 0.5 / 4, 1.5 / 2]]).expand(2, 3))
    exclusive = made(prior=True, loss="cross-entropy").eval()
    torch.nn.init.zeros_(exclusive.head.weight)
    exclusive.count(LabelCounts.of([torch.eye(3)[[0, 0, 1, 2]]], 3))
    said = exclusive.logits(torch.randn(1, 1, 32, 32)).softmax(1)
    torch.testing.assert_close(said, torch.tensor([[2.5, 1.5, 1.5]]) / 5.5)


def test_without_balanced_counting_changes_nothing() -> None:
    method = made()
    method.count(LabelCounts.of([LABELS], 3))
    assert (method.present == 1).all() and (method.absent == 1).all()


@pytest.mark.parametrize("how", [{"mixup": 1.0}, {"cutmix": 1.0}])
def test_images_are_mixed_in_training_only(how: dict[str, float]) -> None:
    method = made(**how).train()
    views, targets = method._mixed(batch().views, LABELS, batch().chance)
    assert not torch.equal(views[0], batch().views[0])
    assert torch.equal(targets.isnan(), LABELS.isnan() | LABELS.flip(0).isnan())
    assert method(batch()).loss.isfinite()
    views, targets = method.eval()._mixed(batch().views, LABELS, batch().chance)
    assert torch.equal(views[0], batch().views[0]) and targets is LABELS


@pytest.mark.parametrize("name", ["mixup", "cutmix"])
def test_an_alpha_below_zero_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"--{name} -1"):
        made(**{name: -1.0})


def test_dropout_is_of_the_features_and_only_in_training() -> None:
    method = made(dropout=0.9)
    images = batch().views[0]
    method.eval()
    assert torch.equal(method.logits(images), method.logits(images))
    method.train()
    assert not torch.equal(method.logits(images), method.logits(images))


@pytest.mark.parametrize("loss", ["bce", "cross-entropy"])
def test_a_batch_in_parts_has_the_loss_and_the_gradient_of_the_whole(loss: str) -> None:
    """Though most of what is known is in one of the parts."""
    labels = torch.tensor([[1.0, 0, 0], [0, 0, 1], [0, 1, 0], [nan, nan, nan], [nan, 0, nan]])
    gradients, values = [], []
    for count in (1, 2, 5):
        method = made(loss=loss).eval()
        whole = batch(labels)
        value = torch.zeros(())
        for part in micro_batches(whole, count):
            step = method(part)
            (step.loss * method.share(part, whole)).backward()
            value += step.loss.detach() * method.share(part, whole)
            method.after_forward()
        gradients.append(method.head.weight.grad)
        values.append(value)
        assert sum(len(known) for _, known in method.outputs) == 5
    for gradient, value in zip(gradients[1:], values[1:], strict=True):
        torch.testing.assert_close(gradient, gradients[0])
        torch.testing.assert_close(value, values[0])
