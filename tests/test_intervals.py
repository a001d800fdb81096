"""Intervals of rates, and Holm's correction, by hand."""

import numpy as np
import pytest
from scores import NAN

from ribcage import metrics
from ribcage.metrics import (
    effective_size,
    intervals,
    placements,
)
from ribcage.metrics.definitions.base import Evidence
from ribcage.metrics.ranking import rank_scores


def test_a_count_of_two_or_three_has_the_lower_limit_of_poisson_and_its_mirror() -> None:
    from scipy.stats import chi2

    for count, of, few in ((2, 200, True), (3, 200, True), (4, 200, False), (2, 40, True), (3, 40, False)):
        value, worth = np.array([count / of]), np.array([float(of)])
        usual, found, rest = (
            intervals.wilson(one, worth, kind=kind)
            for one, kind in ((value, "mean"), (value, "count"), (1 - value, "count"))
        )
        if few:
            assert found.low[0] * of == pytest.approx(chi2.ppf(0.05, 2 * count) / 2, rel=0.05)
        assert (found.low[0] < usual.low[0] - 1e-9) == few and found.high == usual.high
        assert rest.high == pytest.approx(1 - found.low) and rest.low == pytest.approx(1 - found.high)


def test_variance_of_a_ratio_is_the_jackknife_s_over_patients() -> None:
    """One patient has nearly half of the images."""
    wholes, parts = np.array([[40.0], *[[6.0]] * 8]), np.array([[10.0], [5], [3], [6], [2], [4], [0], [6], [3]])
    without = (parts.sum() - parts) / (wholes.sum() - wholes)
    value, worth = effective_size.ratio(parts, wholes)
    variance = 8 / 9 * ((without - value) ** 2).sum()
    people = wholes.sum() ** 2 / (wholes**2).sum()
    weight = 8 * (people - 1)
    assert worth == pytest.approx((1 + weight * value * (1 - value)) / (1 / people + weight * variance))


def test_the_error_of_f1_is_that_of_the_share_it_is_a_function_of() -> None:
    worth, f1 = np.array([50.0]), np.array([0.6])
    share = f1 / (2 - f1)
    drawn, step = intervals.drawn_in(share, worth)[0], 1e-6
    slope = (2 * (drawn + step) / (1 + drawn + step) - 2 * (drawn - step) / (1 + drawn - step)) / (2 * step)
    assert drawn == pytest.approx((share * 50 + 1) / 52)
    assert intervals.standard_errors(f1, worth, "f1") == pytest.approx(
        slope * intervals.standard_errors(share, worth), rel=1e-6
    )


def test_a_mean_of_rates_has_the_unbiased_error_of_each() -> None:
    means = [
        intervals.Proportions(np.full(14, 0.5), np.full(14, 10.0), np.zeros((2, 14)), kind).macro()
        for kind in ("count", "mean")
    ]
    assert [one.effective_n[0] for one in means] == pytest.approx([14 * 9 - 2, 14 * 12 - 2])  # .5² / 9, not .5² / 12
    f1, worth = np.array([0.6, 0.0]), np.array([10.0, 10.0])
    share = 0.6 / 1.4
    unbiased, added = intervals.errors_in_mean(f1, worth, "f1"), intervals.standard_errors(f1, worth, "f1")
    assert (
        unbiased[0] == pytest.approx(2 / (1 + share) ** 2 * np.sqrt(share * (1 - share) / 9)) and unbiased[0] > added[0]
    )
    assert unbiased[1] == added[1] > 0


def test_squares_about_an_estimated_mean_are_made_whole_from_two_on() -> None:
    assert [placements._bessel(count) for count in (2, 5)] == [2, 1.25] and np.isnan(placements._bessel(1))
    counts = np.array([1.0, 2.0, 5.0])
    assert effective_size.Patients(counts, counts).bessel.tolist() == pytest.approx([NAN, 2, 1.25], nan_ok=True)


def test_a_ratio_is_worth_its_images_or_what_its_patients_leave_of_them() -> None:
    hits, patients = np.repeat([1.0, 0.0], [14, 6])[:, None], 20
    for images in (1, 2):  # each patient's images are alike
        counted = np.array([float(images * patients)])
        value, worth = effective_size.ratio(images * hits, np.full((patients, 1), float(images)), counted)
        among = 0.7 * 0.3 / (patients - 1) * (1 - 1 / counted)  # the variance over patients, as of so many images
        k = 8 * (patients - 1)
        assert value == pytest.approx(0.7)
        assert worth == pytest.approx((1 + k * 0.7 * 0.3) / (1 / patients + k * among))
    assert effective_size.ratio(hits, np.ones((patients, 1)), np.array([20.0]))[1] == pytest.approx(20)


def test_holm_multiplies_and_never_falls() -> None:
    adjusted = metrics.holm(np.array([0.01, NAN, 0.04, 0.03, 0.5]))
    assert adjusted == pytest.approx([0.04, NAN, 0.09, 0.09, 0.5], nan_ok=True)
    assert metrics.holm(np.array([])).shape == (0,)


@pytest.mark.parametrize("kind", ["mean", "count", "f1"])
def test_limits_of_none_and_of_all_are_0_and_1_at_most(kind: intervals.Kind) -> None:
    sizes = np.arange(1.0, 400)  # without the bound, rounding would exceed it at 2 and at 32, for instance
    none, all_ = (intervals.wilson(np.full(399, share), sizes, kind=kind) for share in (0.0, 1.0))
    assert none.low.min() >= 0 and (none.low < 1e-12).all() and (np.diff(none.high) < 0).all()
    assert all_.high.max() <= 1 and (all_.high > 1 - 1e-12).all() and (np.diff(all_.low) > 0).all()


def test_the_rarer_class_is_the_one_of_fewer_patients() -> None:
    scores, patients = np.zeros((9, 2)), np.array([0, 1, 2, 3, 4, 5, 6, 7, 7])
    labels = np.stack([np.arange(9) < 6, np.arange(9) >= 7], axis=1).astype(float)
    found = Evidence(rank_scores(scores, labels, np.ones(9)), patients, (), np.empty((8, 0, 2)), np.empty((0, 2)))
    assert found.rarer.count.tolist() == [2, 1]  # negatives of two patients; positives of one
    assert found.rarer.amount.tolist() == [pytest.approx(9 / 5), 0]  # of one and of two images; one patient is none


def test_a_difference_is_tested_by_its_error_and_only_equal_predictions_need_none() -> None:
    found = intervals.two_sided(np.array([0.0, 0.0, 0.1, 0.196]), np.array([0.0, 0.1, 0.0, 0.1]))
    assert found == pytest.approx([1, 1, NAN, 0.05], abs=1e-4, nan_ok=True)


def test_a_count_of_three_has_the_limit_of_poisson_among_more_than_fifty() -> None:
    sizes = np.array([50.0, 50.5, 51.0])
    counted, plain = (intervals.wilson(3 / sizes, sizes, kind=kind) for kind in ("count", "mean"))
    assert (counted.low < plain.low).tolist() == [False, True, True]
    assert (counted.high == plain.high).all()
