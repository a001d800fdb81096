"""DeLong's and Obuchowski's variance of the AUROC, and gaps between groups, against their definitions."""

from statistics import NormalDist

import numpy as np
import pytest
from scores import NAN, case

from ribcage import metrics
from ribcage.metrics import (
    placements,
)

# --- DeLong ---------------------------------------------------------------------------------------------------------


def slow_delong(models: list[np.ndarray], labels: np.ndarray) -> np.ndarray:
    """The paper's covariance of the models' AUROCs, from all pairs."""
    above, below = labels == 1, labels == 0
    tables = [np.sign(s[above][:, None] - s[below]) / 2 + 0.5 for s in models]  # 1, ½, 0
    positive, negative = np.array([t.mean(axis=1) for t in tables]), np.array([t.mean(axis=0) for t in tables])
    return np.atleast_2d(np.cov(positive)) / above.sum() + np.atleast_2d(np.cov(negative)) / below.sum()


@pytest.mark.parametrize(("seed", "levels"), [(0, 0), (1, 5), (2, 2), (3, 30)])
def test_delong_equals_the_definition_by_pairs(seed: int, levels: int) -> None:
    scores, labels, _ = case(seed, rows=80, levels=levels)
    other = scores + np.random.default_rng(seed).normal(size=scores.shape)
    a, b = metrics.delong(scores, labels), metrics.delong(other, labels)
    assert a.value == pytest.approx(metrics.auroc(scores, labels), abs=1e-12)
    for f in range(3):
        known = ~np.isnan(labels[:, f])
        expected = slow_delong([scores[known, f], other[known, f]], labels[known, f])
        assert a.covariance[f, f] == pytest.approx(expected[0, 0], rel=1e-10)
        assert a.pulls[:, f] @ b.pulls[:, f] == pytest.approx(expected[0, 1], rel=1e-9, abs=1e-15)


def obuchowski(models: list[np.ndarray], labels: np.ndarray, patients: np.ndarray) -> np.ndarray:
    """The paper's covariance of clustered AUROCs, from all pairs: S10 / m + S01 / n + (S11 + S11') / (m n)."""
    above, below, m, n = labels == 1, labels == 0, (labels == 1).sum(), (labels == 0).sum()
    people = np.unique(patients)
    counts = np.array([[(patients[side] == p).sum() for p in people] for side in (above, below)])
    sums = []
    for s in models:
        ahead = np.sign(s[above][:, None] - s[below]) / 2 + 0.5
        for placements_, side, count in ((ahead.mean(1), above, counts[0]), (ahead.mean(0), below, counts[1])):
            own = np.array([placements_[patients[side] == p].sum() for p in people])
            sums.append(own - count * ahead.mean())
    i10, i01, i = (counts[0] > 0).sum(), (counts[1] > 0).sum(), len(people)
    found = np.empty((len(models), len(models)))
    for r, (x, y) in enumerate(zip(sums[::2], sums[1::2], strict=True)):
        for c, (u, v) in enumerate(zip(sums[::2], sums[1::2], strict=True)):
            s10, s01 = i10 / ((i10 - 1) * m) * (x @ u), i01 / ((i01 - 1) * n) * (y @ v)
            found[r, c] = s10 / m + s01 / n + i / (i - 1) * (x @ v + y @ u) / (m * n)
    return found


@pytest.mark.parametrize(("seed", "rows"), [(5, 300), (6, 24), (7, 12)])
def test_delong_over_patients_is_obuchowski_s_also_of_tiny_samples(seed: int, rows: int) -> None:
    scores, labels, patients = case(seed, rows=rows, findings=1, unknown=0, levels=20)
    labels[:2] = 1 - labels[:2]
    other = scores + np.random.default_rng(seed).normal(size=scores.shape)
    a, b = (metrics.delong(s, labels, patients) for s in (scores, other))
    expected = obuchowski([scores[:, 0], other[:, 0]], labels[:, 0], patients)
    assert a.covariance[0, 0] == pytest.approx(expected[0, 0], rel=1e-12)
    assert (a.pulls * b.pulls).sum() == pytest.approx(expected[0, 1], rel=1e-12, abs=1e-16)


def test_delong_over_patients_is_near_the_jackknife() -> None:
    scores, labels, patients = case(8, rows=400, findings=1, unknown=0)
    people = np.unique(patients)
    left = np.array([metrics.auroc(scores[patients != p], labels[patients != p])[0] for p in people])
    jackknife = (len(people) - 1) / len(people) * ((left - left.mean()) ** 2).sum()
    assert metrics.delong(scores, labels, patients).covariance[0, 0] == pytest.approx(jackknife, rel=0.03)


def test_delong_and_bootstrap_agree_on_errors_macro_and_difference() -> None:
    scores, labels, patients = case(6, rows=2000)
    other = scores + 0.7 * np.random.default_rng(6).normal(size=scores.shape)
    a = metrics.delong(scores, labels, patients)
    x, y = (metrics.bootstrap(s, labels, patients, resamples=2000)["auroc"] for s in (scores, other))
    assert a.error == pytest.approx(x.interval().error, rel=0.07)
    assert a.macro().error == pytest.approx(x.macro().interval().error, rel=0.07)
    assert a.interval().low == pytest.approx(x.interval().low, abs=0.004)
    found = metrics.compare_scores(scores, other, labels, patients, resamples=2000)
    assert found["auroc_delong"].interval.error == pytest.approx(found["auroc"].interval.error, rel=0.07)
    assert found["auroc"].interval.value[:3] == pytest.approx(x.value - y.value)
    assert (found["auroc"].p < 0.05).all() and (found["auroc_delong"].p < 0.05).all()


def test_the_paired_test_rejects_five_percent_when_nothing_differs() -> None:
    chance = np.random.default_rng(7)
    p = []
    for _ in range(400):
        labels = (chance.random(120) < 0.4).astype(float)
        shared = chance.normal(size=120) + labels
        models = (shared + chance.normal(size=120) for _ in range(2))
        p.append(placements.delong_difference(*(metrics.delong(s, labels) for s in models)).p_value()[0])
    assert np.mean(np.array(p) < 0.05) == pytest.approx(0.05, abs=0.03)


def test_a_gap_to_other_patients_has_the_limits_of_both_sides() -> None:
    """No patient is on both sides: nothing is correlated, and the squares of the distances add up."""
    scores, labels, patients = case(16, rows=300)
    inside = patients % 3 == 0
    found = metrics.auroc_gap(scores, labels, inside, patients).interval()
    own, others = (metrics.delong(scores[s], labels[s], patients[s]).interval() for s in (inside, ~inside))
    np.testing.assert_allclose(found.value, own.value - others.value, atol=1e-12)
    np.testing.assert_allclose(
        (found.value - found.low) ** 2, (own.value - own.low) ** 2 + (others.high - others.value) ** 2
    )
    np.testing.assert_allclose(
        (found.high - found.value) ** 2, (own.high - own.value) ** 2 + (others.value - others.low) ** 2
    )


def test_a_gap_knows_that_patients_are_on_both_sides() -> None:
    """Twice the same images, once on each side: whatever patients do to one AUROC they do to the other."""
    scores, labels, patients = case(17, rows=200)
    twice = [np.concatenate([each, each]) for each in (scores, labels, patients)]
    inside = np.arange(400) < 200
    joint = metrics.auroc_gap(twice[0], twice[1], inside, twice[2]).interval()
    apart = metrics.auroc_gap(twice[0], twice[1], inside, np.arange(400)).interval()
    assert (joint.value == 0).all() and joint.error == pytest.approx(np.zeros(3), abs=1e-6)
    assert (joint.high - joint.low < 0.2 * (apart.high - apart.low)).all()


def test_gaps_hold_the_truth_in_ninety_five_of_a_hundred() -> None:
    """20 positives inside, 80 outside, AUROC .92 and .76: one interval in twenty leaves .16 out."""
    chance, held = np.random.default_rng(8), []
    truth = [NormalDist().cdf(apart / np.sqrt(2)) for apart in (2.0, 1.0)]
    for _ in range(200):
        patients = chance.permutation(np.repeat(np.arange(125), 2))
        inside = chance.random(250) < 0.2  # a patient may be on both sides
        labels = (chance.random(250) < 0.4).astype(float)
        scores = np.sqrt(0.5) * (chance.normal(size=125)[patients] + chance.normal(size=250))
        found = metrics.auroc_gap(scores + labels * np.where(inside, 2.0, 1.0), labels, inside, patients).interval()
        held.append(found.low[0] <= truth[0] - truth[1] <= found.high[0])
    assert np.mean(held) == pytest.approx(0.95, abs=0.04)


def test_a_gap_without_a_variance_has_no_interval() -> None:
    scores, labels, _ = case(18, rows=60)
    first = labels[:, 0]
    inside = np.arange(60) == np.flatnonzero(first == 1)[0]  # one positive, no negative: no AUROC
    found = metrics.auroc_gap(scores[:, 0], first, inside)
    assert np.isnan([found.value, found.macro().value, found.macro().interval().low]).all()
    inside |= first == 0  # one positive and all negatives but one: an AUROC of one patient
    inside[np.flatnonzero(first == 0)[:2]] = False
    found = metrics.auroc_gap(scores[:, 0], first, inside)
    assert np.isfinite(found.value).all() and np.isnan(found.macro().interval().low).all()


def test_scores_of_few_levels_that_seem_not_to_vary_still_may() -> None:
    """10 positives and 40 negatives at one level are no proof that all others stand there, too: if one positive in six
    does not, the AUROC is .58, and ten in a row happen in a sixth of all samples."""
    labels = np.repeat([1.0, 0.0], [10, 40])
    found = metrics.delong(np.full(50, 0.3), labels).interval()
    assert found.value == 0.5 and found.high > 0.583
    random, held = np.random.default_rng(3), []
    for _ in range(300):
        called = (random.random((50, 4)) < np.where(labels[:, None] == 1, 0.159, 0.0228)).astype(float)
        found = metrics.delong(called, np.tile(labels[:, None], 4)).interval()
        held.append((found.low <= 0.5681) & (found.high >= 0.5681))
    assert 0.93 < np.mean(held) <= 0.995
    apart = metrics.delong(np.append(0.3, np.linspace(0.4, 1, 49)), labels)  # without ties nothing changes
    assert apart.effective_n == pytest.approx(
        metrics.delong(np.append(0.0, np.linspace(0.4, 1, 49)), labels).effective_n
    )


def test_delong_is_nan_where_it_is_undefined() -> None:
    labels = np.array([1.0, 0, 0, 0])
    assert np.isnan(metrics.delong(np.arange(4.0), labels).error)  # one positive shows no variance
    assert np.isnan(metrics.delong(np.arange(4.0), np.zeros(4)).value)
    assert np.isnan(metrics.delong(np.arange(4.0), np.full(4, NAN)).macro().value)
