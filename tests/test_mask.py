"""A mask is stored exactly, in the rectangle that it fills; masks from files that do not fit are refused."""

import numpy as np
import pytest

from ribcage.imaging.mask import LONGEST_RUN, MOST_RUNS, Mask, check_mask_size, mask_problems


def test_a_mask_returns_the_pixels_from_which_it_was_made() -> None:
    chance = np.random.default_rng(0)
    for _ in range(300):
        height, width = chance.integers(1, 12, 2)
        drawn = chance.random((height, width)) < chance.random()
        mask = Mask.of_pixels(drawn)
        assert np.array_equal(mask.full(), drawn) and mask.area == drawn.sum()
        assert np.array_equal(mask.transposed().full(), drawn.T)
        assert mask.full().dtype == np.uint8 and (mask.columns, mask.lines) == mask.pixels().shape[::-1]


def test_overlapping_ranges_in_any_order_are_united() -> None:
    chance = np.random.default_rng(1)
    for _ in range(300):
        height, width = chance.integers(1, 9, 2).tolist()
        first = chance.integers(0, height * width, 4)
        spans = np.stack([first, np.minimum(first + chance.integers(0, 9, 4), height * width)], axis=1)
        drawn = np.zeros(height * width, bool)
        for start, end in spans:
            drawn[start:end] = True
        assert Mask.of_spans(spans, width, height) == Mask.of_pixels(drawn.reshape(height, width))


def test_runs_longer_than_16_bits_are_divided() -> None:
    drawn = np.ones((300, 900), bool)
    drawn[0, :5] = False
    mask = Mask.of_pixels(drawn)
    assert np.array_equal(mask.full(), drawn) and mask.area == drawn.sum() > 4 * LONGEST_RUN


def test_a_mask_without_pixels_takes_no_memory() -> None:
    empty = Mask.of_pixels(np.zeros((7, 9)))
    assert empty == Mask(9, 7) and not empty.area and not empty.runs and empty.full().shape == (7, 9)


@pytest.mark.parametrize(("width", "height"), [(0, 5), (20_000, 20_000), (10**9, 10**9), (5000, 3)])
def test_an_image_of_an_impossible_size_has_no_mask(width: int, height: int) -> None:
    with pytest.raises(ValueError) as error:
        check_mask_size(width, height)
    assert "\n" not in str(error.value)
    with pytest.raises(ValueError):
        Mask.of_spans(np.array([[0, 1]]), width, height)


def test_a_mask_of_too_many_runs_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ribcage.imaging.mask.MOST_RUNS", 10)
    with pytest.raises(ValueError, match="10"):
        Mask.of_pixels(np.indices((6, 6)).sum(axis=0) % 2)


GOOD = [10, 8, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("sizes", "runs"),
    [
        ([10, 8, 7, 3, 4, 5], b"\1\0"),
        ([10, 8, 2, 4, 4, 5], b"\1\0"),
        ([10, 8, -1, 3, 4, 5], b"\1\0"),
        ([2**31 - 1, 2**31 - 1, 0, 0, 1, 1], b"\1\0"),
        (GOOD, b"\1"),
        (GOOD, "10"),
        (GOOD, b"\0" * (2 * MOST_RUNS + 2)),
        (GOOD, b"\x15\0"),
        (GOOD, b"\xff\xff" * 9),
    ],
)
def test_damaged_masks_are_noticed(sizes: list[int], runs: object) -> None:
    assert not mask_problems(np.array([GOOD], np.int32), [b"\x0a\0\x0a\0"])
    assert mask_problems(np.array([GOOD, sizes], np.int32), [b"\x14\0", runs])
