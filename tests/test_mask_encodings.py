"""The encodings of Kaggle and COCO and polygons give the mask that was meant; anything else is one line."""

from collections.abc import Callable

import numpy as np
import pytest

from ribcage.imaging.mask import Mask
from ribcage.imaging.mask_encodings import mask_of_counts, mask_of_pairs, mask_of_polygons

DRAWN = np.array([[0, 1, 1, 0, 0], [1, 1, 0, 0, 1], [0, 1, 0, 0, 1]], bool)


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("1 2 5 2 9 1 11 1 14 1", {}),
        ("2 2 6 2 10 1 12 1 15 1", {"first": 1}),
        ("1 2 2 2 2 1 1 1 2 1", {"relative": True}),
        ("1 1 3 4 13 2", {"by_column": True}),
        ("1 1 1 4 6 2", {"by_column": True, "relative": True}),
    ],
)
def test_pairs_of_start_and_length(text: str, options: dict) -> None:
    assert np.array_equal(mask_of_pairs(text, 5, 3, **options).full(), DRAWN)


def test_counts_of_coco_in_both_forms() -> None:
    assert np.array_equal(mask_of_counts([1, 1, 1, 4, 6, 2], 5, 3).full(), DRAWN)
    masks = pytest.importorskip("pycocotools.mask")
    chance = np.random.default_rng(0)
    for side in (1, 3, 40, 300):
        drawn = chance.random((side + 1, side)) < 0.01 * chance.integers(0, 100)
        drawn[: side // 2] = side > 100
        text = masks.encode(np.asfortranarray(drawn.astype(np.uint8)))["counts"].decode()
        assert np.array_equal(mask_of_counts(text, side, side + 1).full(), drawn)


def test_a_polygon_contains_the_pixels_whose_centres_it_contains() -> None:
    square = np.array([[1, 1], [4, 1], [4, 3], [1, 3]])
    assert mask_of_polygons([square], 9, 8) == Mask.of_pixels(np.pad(np.ones((2, 3), bool), ((1, 5), (1, 5))))
    assert mask_of_polygons([square + 0.4], 9, 8) == mask_of_polygons([square[::-1]], 9, 8)
    for shift in ((4, 0), (1, 1)):
        other = square + np.array(shift)
        both = mask_of_polygons([square], 9, 8).full() | mask_of_polygons([other], 9, 8).full()
        assert np.array_equal(mask_of_polygons([square, other], 9, 8).full(), both)


def test_polygons_by_the_even_odd_rule_at_every_pixel() -> None:
    chance, (rows, columns) = np.random.default_rng(0), np.mgrid[:18, :20] + 0.5
    for count in chance.integers(3, 9, 100):
        points = chance.uniform(-5, 25, (count, 2))
        inside = np.zeros((18, 20), bool)
        for (x0, y0), (x1, y1) in zip(points, np.roll(points, -1, axis=0), strict=True):
            crossed = (y0 <= rows) != (y1 <= rows)
            inside ^= crossed & (columns >= x0 + (rows - y0) * (x1 - x0) / (y1 - y0))
        assert np.array_equal(mask_of_polygons([points], 20, 18).full(), inside)


def test_a_polygon_outside_the_image_and_one_of_two_points_have_no_pixels() -> None:
    outside = np.array([[20, 20], [30, 20], [30, 30]])
    assert mask_of_polygons([outside], 9, 8) == mask_of_polygons([outside[:2]], 9, 8) == Mask(9, 8)
    assert mask_of_polygons([], 9, 8) == mask_of_polygons([np.empty((0, 2))], 9, 8) == Mask(9, 8)


HUGE = 10**5
HOSTILE: list[Callable[[], Mask]] = [
    lambda: mask_of_pairs("1 2 3", 5, 3),
    lambda: mask_of_pairs("1 x", 5, 3),
    lambda: mask_of_pairs("1.5 2", 5, 3),
    lambda: mask_of_pairs("14 2", 5, 3),
    lambda: mask_of_pairs("0 2", 5, 3, first=1),
    lambda: mask_of_pairs("-1 2", 5, 3),
    lambda: mask_of_pairs("8 4 4 1", 5, 3, relative=True),
    lambda: mask_of_pairs("9223372036854775807 9223372036854775807", 5, 3),
    lambda: mask_of_pairs("99999999999999999999 1", 5, 3),
    lambda: mask_of_pairs("1 1", HUGE, HUGE),
    lambda: mask_of_pairs("1 2 " * 1_500_000, 2000, 2000),
    lambda: mask_of_counts([1, 1], 5, 3),
    lambda: mask_of_counts([20, -5], 5, 3),
    lambda: mask_of_counts([2**63 - 1, 2**63 - 1, 17], 5, 3),
    lambda: mask_of_counts([10**30], 5, 3),
    lambda: mask_of_counts([7.5, 7.5], 5, 3),
    lambda: mask_of_counts([[15]], 5, 3),  # type: ignore[list-item]
    lambda: mask_of_counts("", 5, 3),
    lambda: mask_of_counts("ooooooooooo", 5, 3),
    lambda: mask_of_counts("oooooooooo0", 5, 3),
    lambda: mask_of_counts("é", 5, 3),
    lambda: mask_of_counts([HUGE * HUGE], HUGE, HUGE),
    lambda: mask_of_polygons([np.array([[0, 0], [np.nan, 1], [2, 2]])], 9, 8),
    lambda: mask_of_polygons([np.array([[0, 0], [1e300, 1], [2, 2]])], 9, 8),
    lambda: mask_of_polygons([np.array([1.0, 2.0, 3.0])], 9, 8),
    lambda: mask_of_polygons([np.tile([[0.0, 0.0], [1.0, 9999.0]], (3000, 1))], 9999, 9999),
    lambda: mask_of_polygons([], HUGE, HUGE),
]


@pytest.mark.parametrize("place", range(len(HOSTILE)))
def test_hostile_masks_are_one_line(place: int) -> None:
    with pytest.raises(ValueError) as error:
        HOSTILE[place]()
    assert "\n" not in str(error.value) and len(str(error.value)) < 200
