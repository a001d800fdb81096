"""Learning curves: the fit, the variances behind its intervals, what is refused, and whether intervals keep their word."""

import numpy as np
import pytest
from scipy import stats

from benchmarks import forecasts
from ribcage.metrics import learning_curve
from ribcage.metrics.learning_curve import CurvePoints, fit_learning_curve, point_intervals, why_no_forecast

COUNTS = np.array([50.0, 100, 200, 400, 800])


def points(
    a: float = 0.85,
    b: float = 1.2,
    c: float = 0.5,
    sd: float = 0.2,
    repeats: int = 4,
    available: int = 8000,
    seed: int = 0,
) -> CurvePoints:
    """Means on a power law, subsets with a standard deviation of sd / sqrt(n), and a little variance of the test."""
    random = np.random.default_rng(seed)
    noise = random.normal(size=(len(COUNTS), repeats))
    noise -= noise.mean(1, keepdims=True)
    values = (a - b * COUNTS**-c)[:, None] + sd * noise / np.sqrt(COUNTS)[:, None]
    pulls = np.full((100, len(COUNTS)), 0.0005)
    return CurvePoints(COUNTS, values, pulls, available)


def test_a_power_law_is_found_again_and_continued() -> None:
    found = fit_learning_curve(points(), (2.0, 10.0))
    assert (found.a, found.c) == pytest.approx((0.85, 0.5), abs=0.01)
    for one, count in zip(found.forecasts, (1600, 8000), strict=True):
        assert one.images == count and one.value == pytest.approx(0.85 - 1.2 * count**-0.5, abs=0.002)
        assert one.low < one.value < one.high and one.gain == pytest.approx(
            one.value - (0.85 - 1.2 * 800**-0.5), abs=0.002
        )
    value, low, high = found.band(COUNTS)
    np.testing.assert_allclose(value, 0.85 - 1.2 * COUNTS**-0.5, atol=1e-3)
    assert (low < value).all() and (value < high).all()


def test_forecasts_are_less_certain_the_farther_they_are_and_with_more_noise() -> None:
    widths = [
        [one.high - one.low for one in fit_learning_curve(points(sd=sd), (2.0, 5.0, 10.0)).forecasts]
        for sd in (0.1, 0.4)
    ]
    assert widths[0] == sorted(widths[0]) and all(wide > narrow for narrow, wide in zip(*widths, strict=True))


def test_no_curve_exceeds_one_or_falls() -> None:
    steep = CurvePoints(COUNTS, points(a=1.2, b=1.5, c=0.3).values, points().pulls, 8000)
    found = fit_learning_curve(steep, (10.0,))
    assert found.a <= 1 and (found.parameters[:, 0] <= 1).all() and (found.parameters[:, 1] >= 0).all()
    assert found.forecasts[0].high <= 1 and found.forecasts[0].gain_low >= 0


def test_subsets_of_few_images_are_corrected_for_what_they_share() -> None:
    """Half of the images twice: the variance between the subsets is half of that between training sets."""
    apart, shared = (point_intervals(points(available=available)) for available in (10**9, 1600))
    half = [(high - low)[-1] / 2 for low, high in (apart, shared)]
    assert half[1] > 1.2 * half[0]
    found = learning_curve.subset_variance(points(available=1600))
    plain = learning_curve.subset_variance(points(available=10**9))
    assert found is not None and plain is not None and found.at(COUNTS)[-1] > 1.5 * plain.at(COUNTS)[-1]


def test_the_interval_of_a_mean_has_both_variances() -> None:
    """Without subsets' variance it is that of the test alone, and each adds to it."""
    none = points(sd=1e-6)
    low, high = point_intervals(none)
    error = np.sqrt((none.pulls**2).sum(0))
    np.testing.assert_allclose(high - low, 2 * 1.95996 * error, rtol=0.02)
    assert ((point_intervals(points())[1] - point_intervals(points())[0]) > (high - low)).all()


def test_quantiles_are_those_of_student() -> None:
    freedom = np.array([1.0, 2.0, 3.0, 4.5, 10.0, 1e6])
    found = learning_curve._t_quantile(0.975, freedom)
    np.testing.assert_allclose(found, stats.t.ppf(0.975, freedom), rtol=0.002)


@pytest.mark.parametrize(("given", "word"), [
    (CurvePoints(COUNTS[:3], points().values[:3], points().pulls[:, :3], 8000), "3"),
    (CurvePoints(COUNTS, points().values[:, :1], points().pulls, 8000), "subsets"),
    (points(b=0.01), "increase"),
    (points(sd=9.0), "increase"),
])  # fmt: skip
def test_nothing_is_forecast_from_too_little(given: CurvePoints, word: str) -> None:
    assert word in why_no_forecast(given)
    with pytest.raises(ValueError, match=word):
        fit_learning_curve(given)


def test_a_forecast_far_beyond_the_counts_is_refused() -> None:
    with pytest.raises(ValueError, match="11"):
        fit_learning_curve(points(), (11.0,))


def test_the_interval_holds_the_largest_count_that_it_did_not_see(monkeypatch: pytest.MonkeyPatch) -> None:
    """20 simulations: fewer than 16 successes have a probability of 0.3 % at 95 %."""
    monkeypatch.setattr(forecasts, "POPULATION", 4000)
    found = [one for one in (forecasts.simulate(seed) for seed in range(24)) if not one[0]][:20]
    low, high, same, whole = np.array([one[1:] for one in found]).T
    assert len(found) == 20
    assert ((low <= same) & (same <= high)).sum() >= 16 and ((low <= whole) & (whole <= high)).sum() >= 16
    assert np.median(high - low) < 0.2
