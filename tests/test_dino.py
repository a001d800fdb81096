"""DINO: the loss between crops, its centre, and the schedules of temperature, prototypes and teacher."""

import os
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from batches import batch
from timm.layers import DropPath
from torch import Tensor

from ribcage.methods.dino import DINO
from ribcage.models.backbone import Backbone
from ribcage.models.prototypes import PrototypeHead
from ribcage.training.micro_batches import micro_batches

SIDES = (32, 32, 16, 16)


def made(model: str = "test_resnet", **options: Any) -> DINO:
    torch.manual_seed(0)
    small = {"prototypes": 6, "hidden": 12, "dim": 4, "crops": 2}
    return DINO(Backbone(model, size=(32, 32)), **{**small, **options})


@pytest.fixture(scope="module")
def lightly() -> Any:
    os.environ["LIGHTLY_DID_VERSION_CHECK"] = "True"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from lightly.loss import DINOLoss
        from lightly.models.modules import heads
    return DINOLoss, heads.DINOProjectionHead


def outputs(method: DINO, views: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """Cosines of the teacher for the large crops and of the student for all, one crop at a time."""
    with torch.no_grad():
        return [method.teacher(view) for view in views[:2]], [method.head(method.backbone(view)) for view in views]


# ---- the equation


@pytest.mark.parametrize("model", ["test_resnet", "test_vit"])
def test_the_loss_is_the_equation(model: str) -> None:
    method, shown = made(model).eval(), batch(4, sides=SIDES)
    method.centre.normal_(std=0.3)
    teacher, student = (np.stack(each).astype(np.float64) for each in outputs(method, shown.views))
    p = np.exp((teacher - method.centre.numpy()) / 0.04)
    p /= p.sum(2, keepdims=True)
    q = np.exp(student / 0.1)
    q /= q.sum(2, keepdims=True)
    pairs = [-(p[u] * np.log(q[v])).sum(1).mean() for u in range(2) for v in range(4) if u != v]
    assert method(shown).loss.item() == pytest.approx(np.mean(pairs), rel=1e-5) and len(pairs) == 6


def test_loss_and_centre_are_lightlys(lightly: Any) -> None:
    method, theirs = made().train(), lightly[0](6, teacher_temp=0.04, center_momentum=0.9)
    for step in range(3):
        shown = batch(4, sides=SIDES, seed=step)
        method.backbone.eval()
        method.teacher.eval()
        teacher, student = outputs(method, shown.views)
        torch.testing.assert_close(theirs(teacher, student), method(shown).loss.detach(), rtol=1e-5, atol=1e-6)
        method.after_step(0.1)
        torch.testing.assert_close(method.centre, theirs.center.flatten())
    assert method.centre.abs().max() > 0.01


def test_the_head_is_lightlys(lightly: Any) -> None:
    torch.manual_seed(0)
    head = PrototypeHead(5, 8, 4, 9)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = lightly[1](5, 8, 4, 9)
    with torch.no_grad():
        for mine, layer in zip(head.mlp[::2], [one for one in theirs.layers if hasattr(one, "weight")], strict=True):
            layer.weight.copy_(mine.weight)
            layer.bias.copy_(mine.bias)
        theirs.last_layer.weight_v.copy_(head.prototypes.weight)
    x = torch.randn(7, 5)
    torch.testing.assert_close(head(x), theirs(x))
    assert head(x).abs().max() <= 1 + 1e-6


def test_micro_batches_have_the_gradient_and_the_centre_of_the_batch() -> None:
    found = []
    for parts in (1, 3):
        method, shown = made("test_vit").train(), batch(6, sides=SIDES)
        for part in micro_batches(shown, parts):
            (method(part).loss * method.share(part, shown)).backward()
            method.after_forward()
        method.after_step(0.1)
        found.append((method.centre, method.head.mlp[0].weight.grad, method.backbone.model.cls_token.grad))
    for whole, divided in zip(*found, strict=True):
        torch.testing.assert_close(divided, whole, rtol=1e-4, atol=1e-6)


# ---- schedules


def test_the_temperature_of_the_teacher_rises_linearly_and_then_stays() -> None:
    method = made(teacher_temperature=0.07, warmup_temperature=0.04, temperature_warmup=0.3)
    said = [method.before_step(progress)["teacher_temperature"] for progress in (0.0, 0.1, 0.3, 0.9)]
    assert said == pytest.approx([0.04, 0.05, 0.07, 0.07])
    assert float(method.tau_teacher) == pytest.approx(0.07)
    shown = batch(4, sides=SIDES)
    losses = []
    for progress in (0.0, 0.9):
        method.eval().before_step(progress)
        losses.append(method(shown).loss.item())
    assert losses[0] != losses[1]


def test_prototypes_are_frozen_at_first() -> None:
    method, shown = made(freeze_prototypes=0.1), batch(4, sides=SIDES)
    for progress, frozen in ((0.0, True), (0.09, True), (0.1, False)):
        method.zero_grad()
        method.before_step(progress)
        method(shown).loss.backward()
        assert bool(method.head.prototypes.weight.grad.any()) != frozen
        assert method.head.mlp[0].weight.grad.any()


def test_the_teacher_follows_by_its_momentum() -> None:
    method = made(momentum=0.9)
    teacher, student = method.teacher[1].mlp[0].weight, method.head.mlp[0].weight
    for progress, momentum in ((0.0, 0.9), (0.5, 0.95), (1.0, 1.0)):
        with torch.no_grad():
            student.normal_()
        before = teacher.clone()
        method.after_step(progress)
        torch.testing.assert_close(teacher, momentum * before + (1 - momentum) * student)
    assert not any(weight.requires_grad for weight in method.teacher.parameters())


def test_the_teacher_has_no_stochastic_depth() -> None:
    torch.manual_seed(0)
    method = DINO(Backbone("test_vit", size=(32, 32), drop_path=0.5), prototypes=6, hidden=12, dim=4).train()
    rates = [
        [part.drop_prob for part in network.modules() if isinstance(part, DropPath)]
        for network in (method.backbone, method.teacher)
    ]
    assert max(rates[0]) == 0.5 and set(rates[1]) <= {0.0}


# ---- views and options


@pytest.mark.parametrize(
    ("model", "size", "side", "small"),
    [
        ("test_vit", (224, 224), 0, (96, 96)),
        ("vit_small_patch14_dinov2", (224, 224), 0, (98, 98)),
        ("test_vit", (512, 512), 144, (144, 144)),
        ("test_vit", (64, 48), 0, (32, 16)),
    ],
)
def test_small_crops_are_multiples_of_a_patch(
    model: str, size: tuple[int, int], side: int, small: tuple[int, int]
) -> None:
    with torch.device("meta"):
        method = DINO(Backbone(model, size=size), prototypes=6, hidden=12, dim=4, crop_side=side)
    for augment in ("radiograph", "paper"):
        shown = method.views(size, augment)  # type: ignore[arg-type]
        assert [view.shape for view in shown] == [size] * 2 + [small] * 8
    assert [view.crop for view in shown] == [(0.4, 1.0)] * 2 + [(0.05, 0.4)] * 8


def test_the_defaults_are_the_papers() -> None:
    with torch.device("meta"):
        head = DINO(Backbone("vit_small_patch16_224")).head
    assert [layer.out_features for layer in head.mlp[::2]] == [2048, 2048, 256]
    assert head.prototypes.weight.shape == (65536, 256)


def test_all_faults_are_named_at_once() -> None:
    with pytest.raises(ValueError, match=r"^--crops -1 .*--prototypes 0 .*--teacher-temperature 0.*--momentum 2"):
        made(crops=-1, prototypes=0, teacher_temperature=0.0, momentum=2.0)
