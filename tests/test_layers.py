"""Widths of heads, momentum encoders, and batch norm within groups."""

import copy

import pytest
import timm
import torch
from timm.layers import BatchNormAct2d
from torch import Tensor, nn

from ribcage.models.layers import follow, follower, group_norms, perceptron


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


# ---- heads


def kinds(module: nn.Sequential) -> list[str]:
    return [type(layer).__name__ for layer in module]


def test_a_perceptron_has_relu_and_if_asked_a_norm_between_its_layers() -> None:
    assert kinds(perceptron(5, 3)) == ["Linear"]
    assert kinds(perceptron(5, 4, 3)) == ["Linear", "ReLU", "Linear"]
    normed = perceptron(6, 5, 4, 3, norm=True)
    assert kinds(normed) == ["Linear", "BatchNorm1d", "ReLU", "Linear", "BatchNorm1d", "ReLU", "Linear"]
    assert [layer.out_features for layer in normed if isinstance(layer, nn.Linear)] == [5, 4, 3]
    assert normed(torch.randn(8, 6)).shape == (8, 3)


# ---- a copy that follows


def test_a_follower_begins_equal_and_no_gradient_reaches_it() -> None:
    module = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    copied = follower(module)
    assert all(not weight.requires_grad for weight in copied.parameters())
    assert all(weight.requires_grad for weight in module.parameters())
    with torch.no_grad():
        before = module[0].weight.clone()
        module[0].weight.zero_()
    assert torch.equal(copied[0].weight, before)


def test_following_moves_weights_by_one_minus_the_momentum_and_leaves_what_norms_count() -> None:
    module = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    copied = follower(module)
    before = copied[0].weight.clone()
    with torch.no_grad():
        module[0].weight.add_(1)
    module(torch.randn(5, 3))
    follow(copied, module, 0.9)
    torch.testing.assert_close(copied[0].weight, 0.9 * before + 0.1 * module[0].weight)
    assert (copied[1].running_mean == 0).all() and copied[1].num_batches_tracked == 0
    follow(copied, module, 0.0)
    assert torch.equal(copied[0].weight, module[0].weight)


# ---- batch norms over groups


def by_hand(x: Tensor, size: int, norm: nn.modules.batchnorm._BatchNorm) -> Tensor:
    """Each group for itself: (x - mean) / sqrt(var + eps) w + b."""
    axes = (0, *range(2, x.ndim))
    shape = (1, -1, *[1] * (x.ndim - 2))
    parts = []
    for at in range(0, len(x), size):
        part = x[at : at + size]
        mean, variance = part.mean(axes, keepdim=True), part.var(axes, correction=0, keepdim=True)
        parts.append((part - mean) / (variance + norm.eps).sqrt() * norm.weight.view(shape) + norm.bias.view(shape))
    return torch.cat(parts)


@pytest.mark.parametrize("shape", [(12, 3), (12, 3, 4, 5)])
@pytest.mark.parametrize("size", [2, 4, 5, 12, 100])
def test_each_group_has_its_own_statistics(shape: tuple[int, ...], size: int) -> None:
    norm = (nn.BatchNorm1d if len(shape) == 2 else nn.BatchNorm2d)(3)
    with torch.no_grad():
        norm.weight.normal_()
        norm.bias.normal_()
    group_norms(norm, size)
    x = torch.randn(shape).requires_grad_()
    found, expected = norm(x), by_hand(x, size, norm)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    upstream = torch.randn(shape)
    gradients = [torch.autograd.grad(y, [x, norm.weight, norm.bias], upstream) for y in (found, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5)


def test_running_statistics_are_the_mean_over_groups() -> None:
    norm, x = nn.BatchNorm2d(3), torch.randn(12, 3, 4, 4)
    statistics = group_norms(norm, 4)
    norm(x)
    assert not norm.running_mean.any()
    statistics.settle()
    parts = [part.transpose(0, 1).flatten(1) for part in x.split(4)]
    torch.testing.assert_close(norm.running_mean, 0.1 * torch.stack([part.mean(1) for part in parts]).mean(0))
    torch.testing.assert_close(norm.running_var, 0.9 + 0.1 * torch.stack([part.var(1) for part in parts]).mean(0))
    assert norm.num_batches_tracked == 1


def test_one_group_of_all_is_a_plain_norm() -> None:
    grouped, plain = nn.BatchNorm2d(3), nn.BatchNorm2d(3)
    statistics = group_norms(grouped, 8)
    for _ in range(3):
        x = torch.randn(8, 3, 4, 4)
        torch.testing.assert_close(grouped(x), plain(x))
        statistics.settle()
    for key, value in plain.state_dict().items():
        torch.testing.assert_close(grouped.state_dict()[key], value)


def test_a_norm_that_counts_all_batches_alike_goes_on_doing_so() -> None:
    norm, batches = nn.BatchNorm1d(3, momentum=None), torch.randn(4, 8, 3)
    statistics = group_norms(norm, 2)
    for x in batches:
        norm(x)
        statistics.settle()
    torch.testing.assert_close(norm.running_mean, batches.mean((0, 1)))


def test_outside_training_groups_mean_nothing() -> None:
    grouped = nn.BatchNorm2d(3)
    plain = copy.deepcopy(grouped).eval()
    group_norms(grouped, 2)
    x = torch.randn(8, 3, 4, 4)
    assert torch.equal(grouped.eval()(x), plain(x))


def test_timms_norms_keep_the_activation_they_carry() -> None:
    norm, x = BatchNormAct2d(3), torch.randn(8, 3, 4, 4)
    group_norms(norm, 4)
    torch.testing.assert_close(norm(x), by_hand(x, 4, norm).relu(), rtol=1e-5, atol=1e-5)


def test_in_a_whole_model_names_stay_and_groups_do_not_hear_of_each_other() -> None:
    model = timm.create_model("test_resnet", in_chans=1, num_classes=0)
    names, x = list(model.state_dict()), torch.randn(8, 1, 32, 32)
    apart = torch.cat([copy.deepcopy(model)(part) for part in x.split(4)])
    group_norms(model, 4)
    assert list(model.state_dict()) == names
    torch.testing.assert_close(model(x), apart, rtol=1e-4, atol=1e-5)


def test_a_copy_counts_for_itself() -> None:
    norm = nn.BatchNorm1d(3)
    group_norms(norm, 4)
    copied = copy.deepcopy(norm)
    copied(torch.randn(8, 3))
    copied.forward.statistics.settle()
    assert copied.num_batches_tracked == 1 and norm.num_batches_tracked == 0
    assert copied.running_mean.any() and not norm.running_mean.any()


def test_half_precision_counts_in_whole_precision() -> None:
    norm = nn.BatchNorm2d(3)
    statistics = group_norms(norm, 4)
    x = torch.randn(8, 3, 16, 16)
    found = norm(x.bfloat16())
    statistics.settle()
    assert found.dtype == torch.bfloat16 and norm.running_mean.dtype == torch.float32
    torch.testing.assert_close(found.float(), by_hand(x, 4, norm), rtol=0.02, atol=0.02)
