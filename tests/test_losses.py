"""Every loss against its equation by hand, on four images and three findings, with unknown labels."""

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from ribcage.models import losses

nan = math.nan
LOGITS = torch.tensor([[0.5, -1.0, 2.0], [-2.0, 0.3, 0.0], [3.0, -4.0, 1.0], [0.1, 0.2, -0.3]])
TARGETS = torch.tensor([[1.0, 0.0, nan], [0.0, nan, 1.0], [0.3, 0.0, 0.0], [nan, nan, nan]])
ONE_HOT = torch.tensor([[1.0, 0, 0], [0, 0, 1], [0, 1, 0], [0, 0, 1]])


def sigmoid(z: float) -> float:
    return 1 / (1 + math.exp(-z))


def bce(z: float, t: float) -> float:
    return -t * math.log(sigmoid(z)) - (1 - t) * math.log(1 - sigmoid(z))


def focal(z: float, t: float) -> float:
    return abs(t - sigmoid(z)) ** 2 * bce(z, t)


def asymmetric(z: float, t: float) -> float:
    p = sigmoid(z)
    q = max(p - 0.05, 0)
    return -t * (1 - p) * math.log(p) - (1 - t) * q**4 * math.log(1 - q)


@pytest.mark.parametrize(
    ("loss", "by_hand"),
    [(losses.bce, bce), (losses.focal, focal), (partial(losses.asymmetric, positive=1.0), asymmetric)],
    ids=["bce", "focal", "asymmetric"],
)
def test_a_loss_is_its_equation_and_zero_where_nothing_is_known(
    loss: losses.Loss, by_hand: Callable[[float, float], float]
) -> None:
    expected = [
        [0.0 if math.isnan(t) else by_hand(z, t) for z, t in zip(*pair, strict=True)]
        for pair in zip(LOGITS.tolist(), TARGETS.tolist(), strict=True)
    ]
    torch.testing.assert_close(loss(LOGITS, TARGETS), torch.tensor(expected), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", losses.LOSSES)
def test_what_is_not_known_has_no_gradient(name: str) -> None:
    logits = LOGITS.clone().requires_grad_()
    losses.LOSSES[name](logits, TARGETS).sum().backward()
    assert logits.grad is not None and logits.grad.isfinite().all()
    assert (logits.grad[TARGETS.isnan()] == 0).all()
    if name != "cross-entropy":
        assert (logits.grad[~TARGETS.isnan() & (TARGETS != 0)] != 0).all()


@pytest.mark.parametrize(
    "neutral", [partial(losses.focal, gamma=0.0), partial(losses.asymmetric, positive=0.0, negative=0.0, margin=0.0)]
)
def test_neutral_settings_give_plain_cross_entropy_also_far_from_zero(neutral: losses.Loss) -> None:
    """A confident mistake keeps its gradient."""
    far = torch.tensor([[30.0, -30.0, 60.0], [16.0, -16.0, 0.0]], requires_grad=True)
    targets = torch.tensor([[0.0, 1.0, 1.0], [0.0, 0.0, 0.4]])
    (found,) = torch.autograd.grad(neutral(far, targets).sum(), far)
    (expected,) = torch.autograd.grad(losses.bce(far, targets).sum(), far)
    torch.testing.assert_close(neutral(far, targets), losses.bce(far, targets))
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(neutral(LOGITS, TARGETS), losses.bce(LOGITS, TARGETS))


def test_easy_negatives_count_nothing_in_the_asymmetric_loss() -> None:
    easy = torch.tensor([[-3.0]], requires_grad=True)  # p = .047, below the margin
    value = losses.asymmetric(easy, torch.zeros(1, 1))
    value.sum().backward()
    assert value.item() == 0 and easy.grad is not None and easy.grad.item() == 0


def test_cross_entropy_is_torchs_when_averaged_over_all_entries() -> None:
    found = losses.cross_entropy(LOGITS, ONE_HOT)
    torch.testing.assert_close(found.mean(), F.cross_entropy(LOGITS, ONE_HOT.argmax(1)))
    torch.testing.assert_close(found.sum(1) / 3, F.cross_entropy(LOGITS, ONE_HOT.argmax(1), reduction="none"))


def test_an_image_with_an_unknown_finding_is_left_out_of_the_softmax_loss() -> None:
    targets = ONE_HOT.clone()
    targets[1, 0] = nan
    found = losses.cross_entropy(LOGITS, targets)
    assert (found[1] == 0).all()
    assert torch.equal(found[[0, 2, 3]], losses.cross_entropy(LOGITS, ONE_HOT)[[0, 2, 3]])


def test_smoothing_draws_targets_together_and_leaves_the_unknown() -> None:
    found = losses.smoothed(torch.tensor([1.0, 0.0, 0.5, nan]), 0.1)
    torch.testing.assert_close(found, torch.tensor([0.95, 0.05, 0.5, nan]), equal_nan=True)
    assert losses.smoothed(ONE_HOT, 0.3, 1 / 3).sum(1).tolist() == pytest.approx([1.0] * 4)


def test_class_weights_follow_the_effective_numbers_with_mean_one() -> None:
    positives, negatives = torch.tensor([10, 500, 0, 7]), torch.tensor([990, 500, 100, 0])
    present, absent = losses.class_weights(positives, negatives, beta=0.99)
    ratio = (1 - 0.99**990) / (1 - 0.99**10)
    assert float(present[0] / absent[0]) == pytest.approx(ratio, rel=1e-4)
    mean = (present * positives + absent * negatives) / (positives + negatives)
    torch.testing.assert_close(mean, torch.ones(4))
    assert float(present[1]) == pytest.approx(1) == float(absent[1])


def test_known_counts_what_is_known() -> None:
    known: Tensor = losses.known_mask(TARGETS)
    assert known.tolist() == [[1, 1, 0], [1, 0, 1], [1, 1, 1], [0, 0, 0]]
