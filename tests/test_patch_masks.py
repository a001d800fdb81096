"""Patch masks: their number, their shape, and their independence of the batch."""

import numpy as np
import pytest
import torch

from ribcage.models.patch_masks import block_mask_tensor, block_masks, places_of
from ribcage.runtime import rng

CHANCE = rng.whole(0, 0, np.arange(400), 0)


@pytest.mark.parametrize("ratio", [0.1, 0.4, 0.5, 0.9])
@pytest.mark.parametrize("grid", [(14, 14), (6, 9), (2, 2), (1, 1)])
def test_the_number_of_masked_patches_is_exact(ratio: float, grid: tuple[int, int]) -> None:
    masks = block_masks(CHANCE[:50], grid, (ratio, ratio))
    assert masks.shape == (50, *grid)
    assert (masks.sum((1, 2)) == max(1, int(ratio * grid[0] * grid[1]))).all()


def test_the_share_is_uniform_between_the_ratios() -> None:
    shares = block_masks(CHANCE, (20, 20), (0.1, 0.5)).mean((1, 2))
    assert shares.min() >= 0.1 - 1 / 400 and shares.max() <= 0.5
    assert np.quantile(shares, [0.25, 0.5, 0.75]) == pytest.approx([0.2, 0.3, 0.4], abs=0.03)


def test_masks_are_made_of_blocks() -> None:
    """Of the neighbours of a masked patch, far more are masked than of single patches at random."""
    blocks = block_masks(CHANCE, (14, 14), (0.4, 0.4))
    singles = rng.uniform(0, 0, CHANCE, 1, 196).reshape(-1, 14, 14) < 0.4
    alike = [float((one[:, 1:] & one[:, :-1]).sum() / one[:, 1:].sum()) for one in (blocks, singles)]
    assert alike[0] > 0.75 and alike[1] == pytest.approx(0.4, abs=0.02)


def test_every_patch_is_masked_about_as_often_as_its_mirror_image() -> None:
    shares = block_masks(rng.whole(0, 0, np.arange(3000), 0), (8, 8), (0.4, 0.4)).mean(0)
    for turned in (shares[::-1], shares[:, ::-1], shares.T):
        np.testing.assert_allclose(shares, turned, atol=0.06)


def test_a_mask_depends_on_the_number_of_its_image_only() -> None:
    whole = block_masks(CHANCE, (7, 5), (0.2, 0.6))
    assert np.array_equal(
        np.concatenate([block_masks(half, (7, 5), (0.2, 0.6)) for half in (CHANCE[:7], CHANCE[7:])]), whole
    )
    assert len({mask.tobytes() for mask in whole}) > 350


def test_masks_on_a_device_and_their_places() -> None:
    chance = torch.from_numpy(CHANCE[:9])
    masks = block_mask_tensor(chance, 4, 6, 0.5, 0.5, torch.device("cpu"))
    assert np.array_equal(masks.view(9, 4, 6).numpy(), block_masks(CHANCE[:9], (4, 6), (0.5, 0.5)))
    places = places_of(masks, 12)
    assert torch.equal(torch.zeros(9, 24, dtype=torch.bool).scatter(1, places, True), masks)
    assert (places.diff(dim=1) > 0).all()
    torch.library.opcheck(block_mask_tensor, (chance, 4, 6, 0.5, 0.5, torch.device("cpu")))
