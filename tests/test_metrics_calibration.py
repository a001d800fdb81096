"""Brier score, calibration error and temperature."""

import numpy as np
import pytest
from scores import INF, NAN, case, hard_case
from sklearn import metrics as sklearn

from ribcage import metrics


def test_a_temperature_may_be_larger_than_any_logit() -> None:
    """Of logits of 1 that are right in 55 of 100 cases: sigmoid(1 / T) = 0.55."""
    labels = np.repeat([1.0, 0.0], [55, 45])
    assert metrics.temperatures(np.ones(100), labels).value[0] == pytest.approx(1 / np.log(0.55 / 0.45), rel=1e-9)


def test_brier_agrees_with_sklearn() -> None:
    scores, labels, _ = case(13)
    probabilities = metrics.sigmoid(scores)
    for f, value in enumerate(metrics.brier(probabilities, labels)):
        known = ~np.isnan(labels[:, f])
        assert value == pytest.approx(sklearn.brier_score_loss(labels[known, f], probabilities[known, f]))
    assert np.isnan(metrics.brier(np.array([0.5]), np.array([NAN])))
    with pytest.raises(ValueError, match=r"1\.5"):
        metrics.brier(np.array([1.5]), np.array([1.0]))


def test_ece_by_hand() -> None:
    p, y = np.array([0.1, 0.2, 0.3, 0.9]), np.array([0.0, 1.0, 0.0, 1.0])
    assert metrics.ece(p, y, bins=2, equal="width") == pytest.approx((3 * abs(0.2 - 1 / 3) + 0.1) / 4)
    assert metrics.ece(p, y, bins=2, equal="mass") == pytest.approx((abs(0.15 - 0.5) + abs(0.6 - 0.5)) / 2)
    assert np.isnan(metrics.ece(p, np.full(4, NAN)))
    assert metrics.ece(np.ones(3), np.ones(3), equal="width") == 0


def test_bins_of_equal_mass_hold_equal_mass_and_keep_ties_together() -> None:
    p = np.random.default_rng(0).random(1000)
    y = (np.random.default_rng(1).random(1000) < p).astype(float)
    (found,) = metrics.calibration_bins(p, y, bins=10)
    assert found.weight.tolist() == [100] * 10 and np.all(np.diff(found.probability) > 0)
    (tied,) = metrics.calibration_bins(np.round(p, 1), y, bins=30)
    assert len(tied.weight) == 11
    assert metrics.ece(np.repeat(0.3, 10), np.repeat([0.0, 1.0], [7, 3])) == pytest.approx(0, abs=1e-15)


@pytest.mark.parametrize("truth", [0.01, 0.3, 1.0, 2.5, 400.0])
def test_the_temperature_is_found_and_is_the_most_likely(truth: float) -> None:
    chance = np.random.default_rng(14)
    z = chance.normal(0, 2, (20_000, 2))
    y = (chance.random(z.shape) < metrics.sigmoid(z)).astype(float)
    y[chance.random(z.shape) < 0.2] = NAN
    found = metrics.temperatures(z * truth, y)
    assert found.value == pytest.approx([truth] * 2, rel=0.05) and found.note == ("", "")
    known = ~np.isnan(y[:, 0])

    def loss(t: float) -> float:
        return sklearn.log_loss(y[known, 0], metrics.sigmoid(z[known, 0] * truth / t))

    assert loss(found.value[0]) <= min(loss(found.value[0] * 1.001), loss(found.value[0] / 1.001))
    assert np.ptp(metrics.temperatures(z * truth, y, shared=True).value) == 0


@pytest.mark.parametrize(
    ("logits", "labels", "note"),
    [
        ([1.0, 2.0], [1.0, 1.0], "one class"),
        ([1.0], [NAN], "one class"),
        ([3.0, -2.0, 1.0], [1.0, 0.0, 1.0], "separates"),
        ([-3.0, 2.0], [1.0, 0.0], "no higher"),
        ([0.0, 0.0], [1.0, 0.0], "no higher"),
        ([INF, -INF], [1.0, 0.0], "one class"),
        ([1e300, -1e300, 1e-300], [1.0, 0.0, 0.0], "separates"),  # 1e-300 beside 1e300 is nothing
        ([5e-324, -5e-324, 5e-324], [1.0, 0.0, 0.0], ""),
        ([1e300, -1e300, 1e299], [1.0, 0.0, 0.0], ""),
    ],
)
def test_a_temperature_that_cannot_be_fitted_is_one_and_says_why(logits, labels, note) -> None:
    found = metrics.temperatures(np.array(logits), np.array(labels))
    assert np.isfinite(found.value).all() and note in found.note[0]
    assert not note or found.value[0] == 1


@pytest.mark.parametrize("seed", range(60))
def test_the_temperature_never_fails(seed: int) -> None:
    scores, labels, weights = hard_case(seed)
    found = metrics.temperatures(scores, labels, weights)
    assert np.isfinite(found.value).all() and (found.value > 0).all()


def test_a_change_of_brier_is_paired_and_of_patients() -> None:
    random = np.random.default_rng(0)
    labels = (random.random((200, 2)) < 0.3).astype(float)
    labels[:5, 1] = np.nan
    before, after = random.random((2, 200, 2))
    found = metrics.brier_change(after, before, labels)
    assert found.value == pytest.approx(metrics.brier(after, labels) - metrics.brier(before, labels))
    each = (after[:, 0] - labels[:, 0]) ** 2 - (before[:, 0] - labels[:, 0]) ** 2
    assert found.error[0] == pytest.approx(each.std(ddof=1) / np.sqrt(200))  # of independent images: the usual one
    twice = [np.repeat(table, 2, axis=0) for table in (after, before, labels)]
    pairs = metrics.brier_change(*twice, np.repeat(np.arange(200), 2))
    assert pairs.error[0] == pytest.approx(found.error[0])  # copies of a patient tell nothing new
    assert np.isnan(metrics.brier_change(after, before, labels, np.zeros(200, int)).low).all()


def test_a_change_of_brier_has_limits_from_fifty_patients_of_the_rarer_class_on() -> None:
    labels = np.zeros((400, 3))
    labels[:50, 0] = labels[:49, 1] = 1
    labels[:351, 2] = 1  # of 49 negatives
    before, after = np.random.default_rng(0).random((2, 400, 3))
    found = metrics.brier_change(after, before, labels)
    assert np.isfinite(found.value).all() and np.isnan(found.low).tolist() == [False, True, True]
    assert np.isnan(found.high).tolist() == [False, True, True]
    pairs = metrics.brier_change(after, before, labels, np.arange(400) // 2)  # 25 patients have the positives
    assert np.isnan(pairs.low).all()


def test_a_temperature_of_the_same_population_is_seldom_reported_harmful() -> None:
    """Chance alone makes it more than 1 % worse in 6 % of tests of 300 images; beyond its interval in 2.5 % at most."""
    random = np.random.default_rng(0)
    logits = random.normal(-1.5, 1.2, (300, 400))
    labels = (random.random(logits.shape) < metrics.sigmoid(logits)).astype(float)
    after, before = metrics.sigmoid(logits), metrics.sigmoid(1.2 * logits)
    found = metrics.brier_change(after, before, labels)
    assert (found.value > 0.01 * metrics.brier(before, labels)).mean() > 0.05
    assert (found.low > 0).mean() < 0.025 and np.isfinite(found.low).mean() > 0.95


def test_a_temperature_that_a_confident_mistake_decides_is_exact() -> None:
    """250 images with a logit of .01 are right, one with .5 is wrong: 2.5 (1 - p) = .5, so that T = .01 / ln 4."""
    logits, labels = np.repeat([0.01, 0.5], [250, 1])[:, None], np.repeat([1.0, 0.0], [250, 1])[:, None]
    assert metrics.temperatures(logits, labels).value[0] == pytest.approx(0.01 / np.log(4), rel=1e-9)
