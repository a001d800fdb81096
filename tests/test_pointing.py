"""The pointing game and boxes from maps, by hand; shares of them by the bootstrap over patients."""

import numpy as np
import pytest

from ribcage.metrics import pointing
from ribcage.metrics.boxes import BoxTable
from ribcage.metrics.resampling import paired_difference, resample

TRUE = BoxTable.ground_truth(
    np.array([2, 0, 2]),
    np.array([[60, 60, 80, 90], [10, 20, 30, 40], [0, 0, 10, 10]]),
)


def test_a_point_hits_in_any_box_of_its_image_and_at_most_a_tolerance_beside_one() -> None:
    points = np.array([[30.0, 40.0], [20.0, 30.0], [5.0, 5.0], [0.0, 0.0]])
    np.testing.assert_array_equal(pointing.point_hits(points, TRUE, 0), [1, np.nan, 1, np.nan])
    beside = np.array([[33.0, 44.0], [0, 0], [85.0, 75.0], [0, 0]])  # 5 from the corner, 5 from the side
    np.testing.assert_array_equal(pointing.point_hits(beside, TRUE, 4.99), [0, np.nan, 0, np.nan])
    np.testing.assert_array_equal(pointing.point_hits(beside, TRUE, 5), [1, np.nan, 1, np.nan])


def test_a_map_without_heat_points_nowhere_and_misses() -> None:
    points = np.full((3, 2), np.nan)
    np.testing.assert_array_equal(pointing.point_hits(points, TRUE, 1e9), [0, np.nan, 0])


def test_chance_anywhere_is_the_area_of_the_boxes_with_their_tolerance() -> None:
    chance = pointing.chance_of_hit(TRUE, 3, 100, 0, cells=100)
    np.testing.assert_allclose(chance, [400 / 1e4, np.nan, (100 + 600) / 1e4])
    two = BoxTable.ground_truth(
        np.array([0, 0]), np.array([[10, 10, 30, 30], [20, 10, 40, 30]])
    )  # half of each is shared
    np.testing.assert_allclose(pointing.chance_of_hit(two, 1, 100, 0, cells=100), [600 / 1e4])
    rounded = (20 * 20 + 4 * 20 * 10 + np.pi * 10**2) / 100**2  # sides and round corners
    one = BoxTable.ground_truth(np.array([0]), np.array([[40, 40, 60, 60]]))
    np.testing.assert_allclose(pointing.chance_of_hit(one, 1, 100, 10, cells=500), [rounded], rtol=2e-3)


def test_the_mean_box_is_of_other_patients() -> None:
    means = pointing.mean_boxes(TRUE, np.array(["a", "b", "b", "c"]), 4)
    np.testing.assert_allclose(means[0], [30, 30, 45, 50])
    np.testing.assert_allclose(means[1:3], [[10, 20, 30, 40]] * 2)
    np.testing.assert_allclose(means[3], TRUE.boxes.mean(0))
    np.testing.assert_allclose(pointing.box_centres(means)[1], [20, 30])
    assert np.isnan(pointing.mean_boxes(TRUE.select(TRUE.images == 0), np.array(["a", "b", "b", "c"]), 4)[0]).all()


def test_of_one_patient_or_none_there_is_no_mean_box_of_others() -> None:
    assert np.isnan(pointing.mean_boxes(TRUE, np.array(["a", "a", "a"]), 3)).all()
    nothing = BoxTable.ground_truth(np.empty(0, np.int64), np.empty((0, 4)))
    assert pointing.mean_boxes(nothing, None, 0).shape == (0, 4)


def test_overlap_of_true_boxes_with_the_best_found_ones() -> None:
    found = BoxTable(
        np.array([2, 2, 1, 0]),
        np.array([[60, 60, 80, 75], [0, 0, 80, 90], [10, 20, 30, 40], [50, 50, 60, 60]], float),
        np.array([0.2, 0.9, 0.5, 0.4]),
    )
    np.testing.assert_allclose(pointing.best_overlaps(found, TRUE, 3), [0.5, 0.0, 100 / 7200])
    np.testing.assert_array_equal(pointing.best_overlaps(BoxTable.none(), TRUE, 3), [0, 0, 0])


def test_the_surest_box_of_each_image() -> None:
    boxes = np.arange(16, dtype=float).reshape(4, 4)
    found = BoxTable(np.array([2, 0, 2, 0]), boxes, np.array([0.2, 0.5, 0.9, 0.5]))
    best = pointing.highest_scoring(found)
    np.testing.assert_array_equal(best.images, [0, 2])
    np.testing.assert_array_equal(best.boxes, boxes[[1, 2]])
    assert len(pointing.highest_scoring(BoxTable.none())) == 0


def test_shares_resample_patients_with_all_their_images() -> None:
    rng = np.random.default_rng(0)
    patients = np.array(["a", "a", "b", "", "c", "c", "c", ""])
    parts = rng.integers(0, 2, (8, 2)).astype(float)
    parts[[1, 4], 0] = np.nan
    of = np.where(np.isnan(parts), 1.0, rng.integers(1, 4, (8, 2)))
    found = pointing.bootstrap_shares(parts, of, patients, resamples=130, seed=5)
    known = ~np.isnan(parts)
    np.testing.assert_allclose(found.value, np.nansum(parts, 0) / (of * known).sum(0))
    people = [[0, 1], [2], [4, 5, 6], [3], [7]]  # in the order of `numbered`
    for number in (0, 63, 64, 129):
        rows = np.concatenate([people[person] for person in resample(5, number, 5)])
        whole = (of * known)[rows].sum(0)
        expected = np.divide(np.nansum(parts[rows], 0), whole, out=np.full(2, np.nan), where=whole > 0)
        np.testing.assert_allclose(found.resampled[number], expected)
    again = pointing.bootstrap_shares(parts, of, patients, resamples=130, seed=5)
    assert (paired_difference(found, again).error < 1e-7).all()


def test_a_column_with_nothing_to_count_is_undefined() -> None:
    parts = np.column_stack([np.ones(4), np.full(4, np.nan)])
    found = pointing.bootstrap_shares(parts, np.ones((4, 2)), resamples=10)
    assert found.value[0] == 1 and np.isnan(found.value[1]) and np.isnan(found.interval().low[1])
    assert found.macro().value[0] == 1


def test_shares_refuse_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match=r"\(3, 1\).*\(3, 2\)"):
        pointing.bootstrap_shares(np.ones((3, 1)), np.ones((3, 2)))
    with pytest.raises(ValueError, match=r"resamples .*\b0\b"):
        pointing.bootstrap_shares(np.ones((3, 1)), np.ones((3, 1)), resamples=0)
