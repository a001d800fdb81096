"""BYOL: the symmetric loss of the paper's equation, and the schedule of the target network."""

import math
import os
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from batches import batch
from torch import nn

from ribcage.methods.byol import BYOL, distance
from ribcage.models.backbone import Backbone


def made(**options: Any) -> BYOL:
    torch.manual_seed(0)
    return BYOL(Backbone("test_resnet"), **{"hidden": 16, "dim": 8, **options}).train()


def test_the_defaults_are_the_papers() -> None:
    method = BYOL(Backbone("test_resnet"))
    assert [layer.out_features for layer in method.projector if isinstance(layer, nn.Linear)] == [4096, 256]
    assert [layer.out_features for layer in method.predictor if isinstance(layer, nn.Linear)] == [4096, 256]
    assert method.momentum == 0.996


def test_the_distance_by_hand() -> None:
    p, z = (
        torch.tensor([[3.0, 4, 0], [0, 2, 0], [1, 0, 0], [1, 1, 0]]),
        torch.tensor([[3.0, 4, 0], [0, -5, 0], [0, 0, 7], [1, 0, 0]]),
    )
    torch.testing.assert_close(distance(p, z), torch.tensor([0.0, 4, 2, 2 - math.sqrt(2)]))


def test_the_loss_is_the_equation_both_ways_round() -> None:
    method, pair = made().eval(), batch(4, sides=(32, 32))
    with torch.no_grad():
        p = [method.predictor(method.projector(method.backbone(view))).double().numpy() for view in pair.views]
        z = [method.target(view).double().numpy() for view in pair.views]
    expected = 0.0
    for n in range(4):
        for a, b in ((p[0][n], z[1][n]), (p[1][n], z[0][n])):
            expected += float(((a / np.linalg.norm(a) - b / np.linalg.norm(b)) ** 2).sum()) / 4
    step = method(pair)
    assert step.loss.item() == pytest.approx(expected, rel=1e-5)
    assert float(step.logs["cosine"]) == pytest.approx(1 - expected / 4, rel=1e-5)


def test_the_loss_is_that_of_lightly(lightly_loss: Any) -> None:
    torch.manual_seed(1)
    p, q, y, z = torch.randn(4, 6, 8)
    theirs = (lightly_loss(p, z) + lightly_loss(q, y)) / 2  # the mean of -cos both ways round
    torch.testing.assert_close((distance(p, z) + distance(q, y)).mean(), 4 + 4 * theirs, rtol=1e-5, atol=1e-5)


@pytest.fixture(scope="module")
def lightly_loss() -> Any:
    os.environ["LIGHTLY_DID_VERSION_CHECK"] = "True"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from lightly.loss import NegativeCosineSimilarity
    return NegativeCosineSimilarity()


def test_which_view_is_first_does_not_matter() -> None:
    pair, turned = batch(4, sides=(32, 32)), batch(4, sides=(32, 32))
    turned.views.reverse()
    torch.testing.assert_close(made()(pair).loss, made()(turned).loss)


@pytest.mark.parametrize(("progress", "tau"), [(0.0, 0.9), (0.5, 0.95), (1.0, 1.0)])
def test_the_target_follows_ever_more_slowly(progress: float, tau: float) -> None:
    method = made(momentum=0.9)
    before = [weight.clone() for weight in method.target.parameters()]
    with torch.no_grad():
        for weight in method.parameters():
            if weight.requires_grad:
                weight.add_(1)
    method.after_step(progress)
    for weight, old in zip(method.target.parameters(), before, strict=True):
        torch.testing.assert_close(weight, old + (1 - tau))


def test_the_target_counts_its_own_statistics() -> None:
    method = made()
    method(batch(8, sides=(32, 32)))
    counted = [value for key, value in method.target.named_buffers() if key.endswith("num_batches_tracked")]
    assert counted and all(value == 2 for value in counted)  # one for each view


def test_the_papers_views_differ_in_their_blur() -> None:
    method = made()
    assert [view.blur_probability for view in method.views((32, 32), "paper")] == [1.0, 0.1]
    assert all(view.crop == (0.08, 1.0) for view in method.views((32, 32), "paper"))
    first, second = method.views((32, 32))
    assert first == second and first.rotation > 0


def test_all_wrong_options_are_named_at_once() -> None:
    with pytest.raises(ValueError, match=r"--hidden .*; --dim .*; --momentum 1\.5 "):
        made(hidden=0, dim=-1, momentum=1.5)
