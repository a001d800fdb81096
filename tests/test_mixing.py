"""Mixup and CutMix: images and targets are mixed by the same share, with numbers of the batch."""

import numpy as np
import pytest
import torch
from torch import Tensor

from ribcage.models.mixing import mixed, mixing_numbers, mixing_weights

CPU = torch.device("cpu")
nan = float("nan")
TARGETS = torch.tensor([[1.0, nan], [0.0, 1.0], [1.0, 0.0], [0.0, 0.0]])


def chance(number: int) -> Tensor:
    return torch.tensor([number, 1, 2, 3])


def black_and_white(*sides: int) -> list[Tensor]:
    """Two images of 0 and two of 1, each mixed with one of the other kind: a mixed image shows the weights."""
    return [torch.arange(4.0).ge(2).float().view(4, 1, 1, 1).expand(4, 1, side, side) for side in sides]


@pytest.mark.parametrize("how", [(1.0, 0.0), (0.0, 1.0), (1.0, 1.0)])
def test_targets_are_mixed_by_the_share_of_the_pixels(how: tuple[float, float]) -> None:
    for number in range(20):
        (images,), targets = mixed(black_and_white(16), TARGETS, chance(number), *how)
        share = images[0].mean()
        torch.testing.assert_close(targets[1], torch.stack([share, 1 - share]))
        torch.testing.assert_close(images[2].mean(), 1 - share)
        assert targets[0, 1].isnan() and targets[3, 1].isnan(), "unknown in either image"


def test_cutmix_takes_a_rectangle_of_the_other_image() -> None:
    areas = []
    for number in range(200):
        (images, larger), _ = mixed(black_and_white(32, 64), TARGETS, chance(number), 0.0, 1.0)
        taken = images[0, 0]
        assert set(taken.unique().tolist()) <= {0.0, 1.0}
        rows, columns = (taken.amax(axis).numpy() for axis in (1, 0))
        assert np.array_equal(taken.numpy(), np.outer(rows, columns))
        assert all(np.count_nonzero(np.diff(edge)) <= 2 for edge in (rows, columns)), "one rectangle"
        assert float(larger[0].mean()) == pytest.approx(float(taken.mean()), abs=0.1), "the same one at each size"
        areas.append(float(taken.mean()))
    # a uniform share: 1/2 on average, less what lies outside of the image
    assert min(areas) < 0.05 and max(areas) > 0.7 and 0.25 < np.mean(areas) < 0.45


def test_mixup_has_one_weight_and_its_distribution() -> None:
    shares = []
    for number in range(300):
        weights = mixing_weights(mixing_numbers(chance(number), 2.0, 0.0, CPU), 4, 5)
        assert weights.shape == (4, 5) and (weights == weights[0, 0]).all()
        shares.append(float(weights[0, 0]))
    assert np.mean(shares) == pytest.approx(0.5, abs=0.05) and np.var(shares) == pytest.approx(0.05, abs=0.01)


def test_of_both_each_is_chosen_for_half_of_the_batches() -> None:
    weights = [mixing_weights(mixing_numbers(chance(number), 0.5, 0.5, CPU), 32, 32) for number in range(300)]
    cut = [bool(((one == 0) | (one == 1)).all()) for one in weights]
    assert np.mean(cut) == pytest.approx(0.5, abs=0.1)


def test_the_numbers_depend_on_the_first_image_of_the_batch_only() -> None:
    first = mixing_numbers(chance(5), 1.0, 1.0, CPU)
    torch.manual_seed(7)
    again = mixing_numbers(torch.tensor([5]), 1.0, 1.0, CPU)
    assert torch.equal(first, again) and not torch.equal(first, mixing_numbers(chance(6), 1.0, 1.0, CPU))


def test_nothing_is_mixed_where_nothing_is_asked_for_and_an_empty_share_stays_empty() -> None:
    images, targets = mixed(views := black_and_white(8), TARGETS, chance(0), 0.0, 0.0)
    assert images is views and targets is TARGETS
    images, targets = mixed([torch.empty(0, 1, 8, 8)], TARGETS[:0], chance(0)[:0], 1.0, 1.0)
    assert len(images[0]) == len(targets) == 0


def test_a_compiled_step_mixes_in_one_graph() -> None:
    from torch._dynamo.utils import counters

    torch._dynamo.reset()
    counters.clear()
    compiled = torch.compile(mixed, backend="eager", fullgraph=True)
    for number in range(3):
        ours = compiled(black_and_white(8), TARGETS, chance(number), 1.0, 1.0)
        plain = mixed(black_and_white(8), TARGETS, chance(number), 1.0, 1.0)
        assert torch.equal(ours[0][0], plain[0][0])
    assert counters["stats"]["unique_graphs"] == 1
