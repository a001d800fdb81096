"""Intervals over seeds, in benchmarks/trials.py."""

from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from benchmarks import trials
from ribcage.metrics.resampling import Resampled


def seed(value: float, resampled: np.ndarray) -> Resampled:
    return Resampled(np.array([value]), np.array([100.0]), resampled[:, None])


def test_three_seeds_have_the_interval_of_a_t_test_if_patients_do_not_vary() -> None:
    a, b = np.array([0.66, 0.70, 0.71]), np.array([0.60, 0.58, 0.62])
    first, second = (trials.joined([seed(value, np.full(50, value)) for value in values]) for values in (a, b))
    assert first.limits() == pytest.approx(stats.t.interval(0.95, 2, a.mean(), stats.sem(a)))
    welch = stats.ttest_ind(a, b, equal_var=False).confidence_interval()
    assert first.minus(second).limits() == pytest.approx([welch.low, welch.high])
    assert first.resampled.var() == pytest.approx(a.var(ddof=1) / 3, rel=0.5)  # of 50 resamples


def test_the_variance_of_patients_is_added_and_is_paired() -> None:
    shared = np.random.default_rng(0).normal(0, 0.01, 400)
    one, other = (trials.joined([seed(value, value + shared)]) for value in (0.7, 0.6))
    assert np.diff(one.limits()) == pytest.approx(2 * 1.96 * shared.std(ddof=1), rel=1e-3)
    assert one.minus(other).limits() == pytest.approx((0.1, 0.1))


def test_the_corrected_table_of_the_docs_is_that_of_the_command() -> None:
    text = (Path(trials.__file__).parents[1] / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    rows = trials.corrected_rows(text)
    assert len(rows) > 30 and [row for row in rows if row not in text] == []
