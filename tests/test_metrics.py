import inspect
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as sklearn

from ribcage import metrics
from ribcage.metrics import (
    calibration,
    detection,
    intervals,
    multiclass,
    placements,
    pointing,
    resampling,
    summaries,
    thresholds,
)
from ribcage.metrics.patients import patient_numbers
from ribcage.metrics.ranking import rank_scores

REAL = os.environ.get("RIBCAGE_REAL_DATA")
NAN, INF = np.nan, np.inf


def case(seed: int, rows: int = 200, findings: int = 3, *, levels: int = 0, unknown: float = 0.2):
    """Synthetic scores, labels and patients. levels: how many different scores there are (0: all differ)."""
    chance = np.random.default_rng(seed)
    labels = (chance.random((rows, findings)) < 0.3).astype(float)
    scores = chance.normal(size=labels.shape) + labels
    if levels:
        scores = np.round(scores * levels / 4)
    labels[chance.random(labels.shape) < unknown] = NAN
    return scores, labels, chance.integers(0, max(rows // 4, 1), rows)


def hard_case(seed: int):
    """One finding with whatever can go wrong: ties, infinities, huge and tiny scores, one class, one row, weights of 0."""
    chance = np.random.default_rng(seed)
    rows = int(chance.choice([1, 2, 3, 10, 50]))
    pool = np.array([0, -0.0, 1, 1 + 2**-52, INF, -INF, 1e300, -1e300, 1e-300, 5e-324, 0.5, chance.normal()])
    scores = chance.choice(pool, rows) if seed % 2 else chance.normal(size=rows)
    labels = (chance.random(rows) < chance.choice([0, 0.1, 0.5, 1])).astype(float)
    labels[chance.random(rows) < 0.2] = NAN
    weights = chance.choice([0, 0.3, 1, 2.5, 1e-6], rows) if seed % 3 else np.ones(rows)
    return scores, labels, weights


def pairwise_auroc(scores: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> float:
    """The definition: the weighted share of pairs that stand in the right order, ties at half."""
    above, below = labels == 1, labels == 0
    ahead = (scores[above][:, None] > scores[below]) + 0.5 * (scores[above][:, None] == scores[below])
    pairs = np.outer(weights[above], weights[below])
    return (ahead * pairs).sum() / pairs.sum() if pairs.sum() else NAN


# --- order ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(150))
def test_auroc_and_ap_agree_with_the_pairs_and_with_sklearn(seed: int) -> None:
    scores, labels, weights = hard_case(seed)
    found = metrics.auroc(scores, labels, weights)[0], metrics.average_precision(scores, labels, weights)[0]
    used = ~np.isnan(labels) & (weights > 0)
    if len(np.unique(labels[used])) < 2:
        assert np.isnan(found).all()
        return
    assert found[0] == pytest.approx(pairwise_auroc(scores[used], labels[used], weights[used]), abs=1e-12)
    ranks = np.unique(scores[used], return_inverse=True)[1]  # sklearn refuses infinite scores; the order is the same
    assert found[0] == pytest.approx(sklearn.roc_auc_score(labels[used], ranks, sample_weight=weights[used]), abs=1e-12)
    peer = sklearn.average_precision_score(labels[used], ranks, sample_weight=weights[used])
    assert found[1] == pytest.approx(peer, abs=1e-12)


def test_auroc_depends_on_the_order_only() -> None:
    scores, labels, _ = case(0, levels=9)
    assert np.array_equal(metrics.auroc(scores, labels), metrics.auroc(np.exp(scores) * 1e-200, labels))
    assert metrics.auroc(-scores, labels) == pytest.approx(1 - metrics.auroc(scores, labels), abs=1e-15)


def test_the_order_of_the_rows_does_not_matter() -> None:
    scores, labels, patients = case(1, levels=9)
    shuffled = np.random.default_rng(0).permutation(len(scores))
    once = metrics.bootstrap(scores, labels, patients, resamples=20)["auroc"]
    again = metrics.bootstrap(scores[shuffled], labels[shuffled], patients[shuffled], resamples=20)["auroc"]
    assert np.array_equal(once.resampled, again.resampled)


def test_a_missing_class_is_undefined_and_left_out_of_the_mean() -> None:
    scores, labels, _ = case(2)
    labels[:, 1] = np.where(np.isnan(labels[:, 1]), NAN, 0)
    values = metrics.auroc(scores, labels)
    assert np.isnan(values).tolist() == [False, True, False]
    assert metrics.macro_mean(values) == (pytest.approx((values[0] + values[2]) / 2), 2)
    mean, used = metrics.macro_mean(np.array([NAN]))
    assert np.isnan(mean) and used == 0


@pytest.mark.parametrize(
    ("scores", "labels", "weights", "line"),
    [
        ([0.1, 0.2], [1, -1], None, "hold -1; make them 1, 0 or NaN with an uncertainty policy"),
        ([0.1, 0.2], [1, 0.5], None, "hold 0.5"),
        ([0.1, 0.2], [1, 0, 1], None, r"\(2,\) and labels \(3,\)"),
        ([0.1, NAN], [1, 0], None, "row 1, finding 0 is NaN"),
        ([0.1, 0.2], [1, 0], [1, -1], "0 or more"),
        ([0.1, 0.2], [1, 0], [1, INF], "finite"),
    ],
)
def test_what_is_no_score_label_or_weight_is_refused_in_one_line(scores, labels, weights, line) -> None:
    with pytest.raises(ValueError, match=line) as refused:
        metrics.auroc(np.array(scores), np.array(labels), weights)
    assert "\n" not in str(refused.value)


def test_a_score_may_be_nan_where_the_label_is_unknown() -> None:
    assert metrics.auroc(np.array([0.9, NAN, 0.1]), np.array([1, NAN, 0])) == 1


# --- curves ---------------------------------------------------------------------------------------------------------


def test_curves_go_through_the_points_of_sklearn() -> None:
    scores, labels, _ = case(3, levels=40, unknown=0)
    for f, (roc, pr) in enumerate(
        zip(metrics.roc(scores, labels), metrics.precision_recall(scores, labels), strict=True)
    ):
        x, y, at = sklearn.roc_curve(labels[:, f], scores[:, f], drop_intermediate=False)
        kept = np.isin(at, roc.threshold)
        assert np.array_equal(np.stack([x, y])[:, kept], np.stack([roc.x, roc.y]))
        assert np.trapezoid(y, x) == pytest.approx(np.trapezoid(roc.y, roc.x), abs=1e-15)
        assert np.trapezoid(roc.y, roc.x) == pytest.approx(metrics.auroc(scores, labels)[f], abs=1e-12)
        precision, recall, at = sklearn.precision_recall_curve(labels[:, f], scores[:, f])
        places = np.searchsorted(at, pr.threshold[1:])
        assert pr.y[1:] == pytest.approx(precision[:-1][places]) and pr.x[1:] == pytest.approx(recall[:-1][places])
        assert np.diff(pr.x) @ pr.y[1:] == pytest.approx(metrics.average_precision(scores, labels)[f], abs=1e-12)


def test_curves_of_one_class_or_none_are_nan_and_raise_nothing() -> None:
    for labels in ([0.0, 0.0], [1.0, 1.0], [NAN, NAN]):
        (roc,), (pr,) = (
            metrics.roc(np.array([0.1, 0.2]), labels),
            metrics.precision_recall(np.array([0.1, 0.2]), labels),
        )
        assert np.isnan(roc.x + roc.y).all() and len(pr.x) == len(pr.y) == len(pr.threshold)


def test_histograms_hold_every_finite_score_once() -> None:
    scores, labels, _ = case(4)
    scores[0] = INF
    for f, found in enumerate(metrics.histogram(scores, labels, bins=7)):
        assert len(found.edges) == 8
        finite = np.isfinite(scores[:, f])
        assert found.positive.sum() == (finite & (labels[:, f] == 1)).sum()
        assert found.negative.sum() == (finite & (labels[:, f] == 0)).sum()


# --- thresholds -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(20))
def test_rates_agree_with_sklearn(seed: int) -> None:
    scores, labels, _ = case(seed, rows=40, levels=6)
    weights = np.random.default_rng(seed).choice([0.5, 1, 3], len(scores))
    found = metrics.rates(metrics.confusion_counts(scores, labels, 0.5, weights))
    for f in range(3):
        known = ~np.isnan(labels[:, f])
        y, called, w = labels[known, f], scores[known, f] >= 0.5, weights[known]
        peers = {
            "accuracy": sklearn.accuracy_score(y, called, sample_weight=w),
            "f1": sklearn.f1_score(y, called, sample_weight=w),
            "sensitivity": sklearn.recall_score(y, called, sample_weight=w),
            "specificity": sklearn.recall_score(y, called, pos_label=0, sample_weight=w),
            "ppv": sklearn.precision_score(y, called, sample_weight=w),
            "npv": sklearn.precision_score(y, called, pos_label=0, sample_weight=w, zero_division=NAN),
        }
        assert {name: values[f] for name, values in found.items()} == pytest.approx(peers, nan_ok=True)
    assert tuple(found) == thresholds.RATES


def test_rates_without_a_denominator_are_nan() -> None:
    found = metrics.rates(metrics.confusion_counts(np.array([0.1, 0.2]), np.array([0.0, 0.0]), 0.5))
    assert [name for name in found if not np.isnan(found[name][0])] == ["accuracy", "specificity", "npv"]
    found = metrics.rates(metrics.confusion_counts(np.array([0.1, 0.2]), np.array([0.0, 1.0]), NAN))
    assert np.isnan(list(found.values())).all()


def every_threshold(scores: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    levels = np.append(np.unique(scores), scores.max() + 1)
    found = [metrics.rates(metrics.confusion_counts(scores, labels, level)) for level in levels]
    return levels, {name: np.array([rates[name][0] for rates in found]) for name in thresholds.RATES}


@pytest.mark.parametrize("seed", range(20))
def test_a_chosen_threshold_is_the_best_of_all(seed: int) -> None:
    scores, labels, _ = case(seed, rows=60, findings=1, levels=10)
    _, rates = every_threshold(scores[:, 0], labels[:, 0])

    def at(rule: str, least: float = 0.9) -> dict[str, float]:
        chosen = metrics.choose_thresholds(scores, labels, rule, least)
        return {
            name: value[0] for name, value in metrics.rates(metrics.confusion_counts(scores, labels, chosen)).items()
        }

    youden = at("youden")
    assert youden["sensitivity"] + youden["specificity"] == pytest.approx(
        np.max(rates["sensitivity"] + rates["specificity"])
    )
    assert at("f1")["f1"] == pytest.approx(rates["f1"].max())
    for least in (0.0, 0.5, 0.8, 1.0):
        for rule, other in (("sensitivity", "specificity"), ("specificity", "sensitivity")):
            found = at(rule, least)
            assert found[rule] >= least - 1e-12
            assert found[other] == pytest.approx(rates[other][rates[rule] >= least - 1e-12].max())


def test_of_equally_good_thresholds_the_highest_is_chosen() -> None:
    scores, labels = np.array([0.9, 0.8, 0.7, 0.6]), np.array([1.0, 0.0, 1.0, 0.0])
    assert metrics.choose_thresholds(scores, labels, "youden") == 0.9  # 0.7 is as good


def test_a_sensitivity_of_nineteen_in_twenty_is_met_by_nineteen() -> None:
    scores, labels = np.arange(40.0), np.repeat([0.0, 1.0], 20)
    assert metrics.choose_thresholds(scores, labels, "sensitivity", 0.95) == 21


def test_the_midpoint_lies_between_the_mean_log_odds_whatever_the_prevalence() -> None:
    odds, labels = np.array([-3.0, -1.0, 0.0, 5.0, np.inf]), np.array([0.0, 0.0, 1.0, 1.0, np.nan])
    scores = metrics.sigmoid(odds)
    middle = metrics.sigmoid(np.array((-2 + 2.5) / 2))
    assert metrics.choose_thresholds(scores, labels, "midpoint") == pytest.approx(middle)
    often = np.array([0, 0, 0, 1, 1, 1, 2, 3, 4])  # each negative three times
    assert metrics.choose_thresholds(scores[often], labels[often], "midpoint") == pytest.approx(middle)
    weights = np.array([1.0, 3.0, 1.0, 1.0, 1.0])
    assert metrics.choose_thresholds(scores, labels, "midpoint", weights=weights) == pytest.approx(
        metrics.sigmoid(np.array(0.5))
    )


def test_a_certain_image_moves_the_midpoint_no_further_than_a_nearly_certain_one() -> None:
    labels = np.array([0.0, 0.0, 1.0, 1.0])
    certain, nearly = (np.array([wrong, 0.2, 0.6, 0.9]) for wrong in (1.0, 1 - 1e-7))
    assert metrics.choose_thresholds(certain, labels, "midpoint") == metrics.choose_thresholds(
        nearly, labels, "midpoint"
    )


def test_the_midpoint_is_only_for_probabilities_and_for_two_classes() -> None:
    assert np.isnan(metrics.choose_thresholds(np.array([0.1, 0.2]), np.array([1.0, 1.0]), "midpoint"))
    with pytest.raises(ValueError, match="is for probabilities"):
        metrics.choose_thresholds(np.array([-1.0, 2.0]), np.array([0.0, 1.0]), "midpoint")


def test_certainties_are_probabilities() -> None:
    assert metrics.choose_thresholds(np.array([0.0, 1.0]), np.array([0.0, 1.0]), "midpoint") == pytest.approx(0.5)
    assert calibration.as_probabilities(np.array([0.0, 1.0])).tolist() == [0, 1]


def test_from_few_images_the_midpoint_varies_less_than_youden() -> None:
    """And what it chooses is as good on all others: sensitivity + specificity."""
    random = np.random.default_rng(0)
    labels = (random.random(200_000) < 0.3).astype(float)
    scores = metrics.sigmoid(random.normal(size=labels.shape) + 2 * labels - 2)
    chosen = {rule: [metrics.choose_thresholds(scores[n : n + 200], labels[n : n + 200], rule)[0] for n in range(0, 20_000, 200)]
              for rule in ("youden", "midpoint")}  # fmt: skip
    assert 2 * np.std(chosen["midpoint"]) < np.std(chosen["youden"])
    gains = {}
    for rule, levels in chosen.items():
        found = [metrics.rates(metrics.confusion_counts(scores, labels, level)) for level in levels[:20]]
        gains[rule] = np.mean([rates["sensitivity"] + rates["specificity"] for rates in found])
    assert gains["midpoint"] > gains["youden"]


def test_thresholds_of_one_class_are_nan_and_strange_rules_are_refused() -> None:
    assert np.isnan(metrics.choose_thresholds(np.array([0.1, 0.2]), np.array([1.0, 1.0])))
    assert np.isnan(metrics.choose_thresholds(np.array([INF, 0.2]), np.array([0.0, 1.0]), "specificity", 1.0))
    with pytest.raises(ValueError, match=r"'yuden'.*youden, midpoint, f1"):
        metrics.choose_thresholds(np.array([0.1]), np.array([1.0]), "yuden")
    with pytest.raises(ValueError, match="between 0 and 1"):
        metrics.choose_thresholds(np.array([0.1]), np.array([1.0]), "sensitivity", 95)


# --- bootstrap ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("people", [1, 2, 3, 4, 5, 130, 2797])
def test_the_kernel_draws_the_patients_of_the_definition(people: int) -> None:
    seed = 7 << 40 | 5
    times = resampling.times_drawn(seed, range(60, 67), people)
    for column, number in enumerate(range(60, 67)):
        assert np.array_equal(
            times[:, column], np.bincount(resampling.resample(seed, number, people), minlength=people)
        )


@pytest.mark.slow
def test_more_patients_than_one_address_holds_are_drawn_alike() -> None:
    people = (4 << 16) + 5
    assert np.array_equal(
        resampling.times_drawn(3, range(2, 3), people)[:, 0],
        np.bincount(resampling.resample(3, 2, people), minlength=people),
    )


def plain_bootstrap(scores, labels, patients, weights, resamples: int, seed: int) -> dict[str, np.ndarray]:
    """The loop everybody writes: gather the rows of the drawn patients and call the metric again."""
    codes = patient_numbers(patients, len(scores))
    rows_of = [np.flatnonzero(codes == patient) for patient in range(codes.max() + 1)]
    found: dict[str, list] = {"auroc": [], "ap": [], "brier": [], **{name: [] for name in thresholds.RATES}}
    for number in range(resamples):
        rows = np.concatenate([rows_of[patient] for patient in resampling.resample(seed, number, len(rows_of))])
        s, y, w = scores[rows], labels[rows], weights[rows]
        found["auroc"].append(metrics.auroc(s, y, w))
        found["ap"].append(metrics.average_precision(s, y, w))
        found["brier"].append(metrics.brier(metrics.sigmoid(s), y, w))
        for name, values in metrics.rates(metrics.confusion_counts(s, y, 0.5, w)).items():
            found[name].append(values)
    return {name: np.array(values) for name, values in found.items()}


@pytest.mark.parametrize("seed", range(6))
def test_the_bootstrap_equals_a_plain_loop_on_the_same_resamples(seed: int) -> None:
    scores, labels, patients = case(seed, rows=[40, 200][seed % 2], levels=[0, 8, 3][seed % 3])
    labels[5:, 2] = np.where(labels[5:, 2] == 1, 0, labels[5:, 2])  # few positives: some resamples have none
    weights = np.ones(len(scores)) if seed % 2 else np.random.default_rng(seed).choice([0, 0.3, 1, 2], len(scores))
    probabilities = metrics.sigmoid(scores)
    options = {"weights": weights, "thresholds": 0.5, "probabilities": probabilities, "seed": seed, "resamples": 70}
    fast = metrics.bootstrap(scores, labels, patients, **options)
    slow = plain_bootstrap(scores, labels, patients, weights, 70, seed)
    assert fast.keys() == slow.keys()
    for name, values in slow.items():
        np.testing.assert_allclose(fast[name].resampled, values, rtol=0, atol=1e-12, err_msg=name)
    assert fast["auroc"].value == pytest.approx(metrics.auroc(scores, labels, weights), abs=1e-12, nan_ok=True)
    assert fast["ap"].value == pytest.approx(metrics.average_precision(scores, labels, weights), abs=1e-12, nan_ok=True)


def test_the_resamples_depend_on_the_seed_and_not_on_threads_or_their_number() -> None:
    scores, labels, patients = case(9)
    one, two = (metrics.bootstrap(scores, labels, patients, resamples=200, threads=n)["ap"].resampled for n in (1, 2))
    assert np.array_equal(one, two)
    assert np.array_equal(one[:70], metrics.bootstrap(scores, labels, patients, resamples=70)["ap"].resampled)
    assert not np.isin(one, metrics.bootstrap(scores, labels, patients, resamples=200, seed=1)["ap"].resampled).any()


def test_a_resample_without_a_class_is_left_out_and_counted() -> None:
    scores = np.arange(10.0)
    labels = np.stack([np.arange(10) == 9, np.arange(10) % 2, np.zeros(10)], axis=1).astype(float)
    found = metrics.bootstrap(scores[:, None] * np.ones(3), labels, resamples=1000)["auroc"]
    lost = np.isnan(found.resampled[:, 0]).sum()
    assert lost == pytest.approx(1000 * 0.9**10, abs=60)  # nobody drew the only positive
    assert np.isnan(found.interval().low).tolist() == [True, False, True]
    assert found.macro().value[0] == found.value[:2].mean()


def test_an_unknown_patient_is_one_of_its_own() -> None:
    assert patient_numbers(np.array([7, -1, 3, -1, 7]), 5).tolist() == [1, 2, 0, 3, 1]
    assert patient_numbers(np.array([7, NAN, 3, NAN, 7]), 5).tolist() == [1, 2, 0, 3, 1]
    assert patient_numbers(np.array(["b", "", "a", "", "b"]), 5).tolist() == [1, 2, 0, 3, 1]
    assert patient_numbers(np.array(["b", None, "a", NAN, "b"], object), 5).tolist() == [1, 2, 0, 3, 1]
    assert patient_numbers(pd.Series(["b", None, "a", "", "b"]).to_numpy(), 5).tolist() == [1, 2, 0, 3, 1]
    assert patient_numbers(None, 3).tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match="one code for each of the 2 rows"):
        patient_numbers(np.arange(3), 2)


def test_patients_with_many_like_images_widen_the_interval() -> None:
    scores, labels, _ = case(10, rows=100, findings=1, unknown=0)
    scores, labels, owners = (np.repeat(values, 6, axis=0) for values in (scores, labels, np.arange(100)))
    naive, honest = (metrics.bootstrap(scores, labels, p)["auroc"].interval().error[0] for p in (None, owners))
    assert honest / naive == pytest.approx(np.sqrt(6), rel=0.1)


def test_a_difference_needs_the_same_resamples() -> None:
    scores, labels, patients = case(12)
    a, b = (metrics.bootstrap(scores, labels, patients, resamples=9, seed=seed)["auroc"] for seed in (0, 1))
    with pytest.raises(ValueError, match="same patients, seed"):
        metrics.paired_difference(a, b)
    assert np.array_equal(metrics.paired_difference(a, a).p_value(), np.ones(3))


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


def test_the_paired_test_says_five_percent_when_nothing_differs() -> None:
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


def test_delong_says_nothing_where_it_knows_nothing() -> None:
    labels = np.array([1.0, 0, 0, 0])
    assert np.isnan(metrics.delong(np.arange(4.0), labels).error)  # one positive shows no variance
    assert np.isnan(metrics.delong(np.arange(4.0), np.zeros(4)).value)
    assert np.isnan(metrics.delong(np.arange(4.0), np.full(4, NAN)).macro().value)


# --- intervals ------------------------------------------------------------------------------------------------------


def test_rates_of_independent_images_have_wilson_s_limits() -> None:
    from scipy.stats import binomtest

    labels = np.repeat([1.0, 0.0], [20, 40])
    scores = np.where(np.arange(60) < 14, 1.0, 0.0) + (np.arange(60) > 50)  # 14 of 20 found, 31 of 40 left alone
    found = metrics.summarise(scores, labels, thresholds=0.5, resamples=2).metrics
    for name, hits, count in (("sensitivity", 14, 20), ("specificity", 31, 40), ("accuracy", 45, 60), ("ppv", 14, 23)):
        peer = binomtest(hits, count).proportion_ci(method="wilson")
        limits = found[name].findings
        assert [limits.low[0], limits.high[0]] == pytest.approx([peer.low, peer.high], abs=1e-12), name
    share = binomtest(14, 29).proportion_ci(method="wilson")  # F1 = 2 J / (1 + J)
    f1 = found["f1"].findings
    assert [f1.low[0], f1.high[0]] == pytest.approx([2 * j / (1 + j) for j in (share.low, share.high)], abs=1e-12)


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


def test_nothing_is_certain_because_all_of_five_are_right() -> None:
    labels = np.repeat([1.0, 0.0], [5, 45])
    found = metrics.summarise(labels, labels, thresholds=0.5, probabilities=labels).metrics
    lows = {name: each.findings.low[0] for name, each in found.items()}
    assert lows["sensitivity"] == pytest.approx(0.5655, abs=1e-4) and lows["ap"] == lows["sensitivity"]
    assert 0.7 < lows["auroc"] < 0.85 and lows["auroc"] == lows["auroc_delong"]
    assert {each.findings.high[0] for name, each in found.items() if name != "brier"} == {1.0}
    assert found["brier"].findings.high[0] > 0.01


def test_variance_of_a_ratio_is_the_jackknife_s_over_patients() -> None:
    """One patient has nearly half of the images."""
    wholes, parts = np.array([[40.0], *[[6.0]] * 8]), np.array([[10.0], [5], [3], [6], [2], [4], [0], [6], [3]])
    without = (parts.sum() - parts) / (wholes.sum() - wholes)
    value, worth = intervals.ratio(parts, wholes)
    variance = 8 / 9 * ((without - value) ** 2).sum()
    people = wholes.sum() ** 2 / (wholes**2).sum()
    weight = 8 * (people - 1)
    assert worth == pytest.approx((1 + weight * value * (1 - value)) / (1 / people + weight * variance))


def test_images_of_one_patient_are_worth_a_patient() -> None:
    labels, owners = np.repeat([1.0, 0.0], [5, 45]), np.arange(50)
    once = metrics.summarise(labels, labels, owners, thresholds=0.5).metrics
    often = metrics.summarise(*(np.repeat(each, 4) for each in (labels, labels, owners)), thresholds=0.5).metrics
    for name in ("auroc", "ap", "sensitivity", "specificity", "f1", "accuracy"):
        assert often[name].findings.low == pytest.approx(once[name].findings.low, abs=1e-9), name


def test_the_error_of_f1_is_that_of_the_share_it_is_a_function_of() -> None:
    worth, f1 = np.array([50.0]), np.array([0.6])
    share = f1 / (2 - f1)
    drawn, step = intervals.drawn_in(share, worth)[0], 1e-6
    slope = (2 * (drawn + step) / (1 + drawn + step) - 2 * (drawn - step) / (1 + drawn - step)) / (2 * step)
    assert drawn == pytest.approx((share * 50 + 1) / 52)
    assert intervals.standard_errors(f1, worth, "f1") == pytest.approx(
        slope * intervals.standard_errors(share, worth), rel=1e-6
    )


@pytest.mark.parametrize("least", [-0.1, 1.1])
def test_a_least_rate_that_cannot_be_is_refused(least: float) -> None:
    with pytest.raises(ValueError, match="must be between 0 and 1"):
        metrics.choose_thresholds(np.array([0.1, 0.9]), np.array([0.0, 1.0]), "sensitivity", least)


def test_squares_about_an_estimated_mean_are_made_whole_from_two_on() -> None:
    assert [placements._bessel(count) for count in (2, 5)] == [2, 1.25] and np.isnan(placements._bessel(1))
    counts = np.array([1.0, 2.0, 5.0])
    assert intervals.Patients(counts, counts).bessel.tolist() == pytest.approx([NAN, 2, 1.25], nan_ok=True)


def test_a_temperature_may_be_larger_than_any_logit() -> None:
    """Of logits of 1 that are right in 55 of 100 cases: sigmoid(1 / T) = 0.55."""
    labels = np.repeat([1.0, 0.0], [55, 45])
    assert metrics.temperatures(np.ones(100), labels).value[0] == pytest.approx(1 / np.log(0.55 / 0.45), rel=1e-9)


def test_a_thousand_resamples_are_drawn_wherever_nothing_else_is_asked_for() -> None:
    for drawn in (resampling.bootstrap, detection.bootstrap_detection, pointing.bootstrap_shares):
        assert inspect.signature(drawn).parameters["resamples"].default == 1000


def test_as_many_threads_work_as_were_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int | None] = []

    class Pool(ThreadPoolExecutor):
        def __init__(self, threads: int | None = None) -> None:
            asked.append(threads)
            super().__init__(threads)

    monkeypatch.setattr(resampling, "ThreadPoolExecutor", Pool)
    for threads in (3, None):
        metrics.bootstrap(np.array([0.1, 0.9]), np.array([0.0, 1.0]), resamples=2, threads=threads)
    assert asked == [3, os.cpu_count()]


def test_a_ratio_is_worth_its_images_or_what_its_patients_leave_of_them() -> None:
    hits, patients = np.repeat([1.0, 0.0], [14, 6])[:, None], 20
    for images in (1, 2):  # each patient's images are alike
        counted = np.array([float(images * patients)])
        value, worth = intervals.ratio(images * hits, np.full((patients, 1), float(images)), counted)
        among = 0.7 * 0.3 / (patients - 1) * (1 - 1 / counted)  # the variance over patients, as of so many images
        k = 8 * (patients - 1)
        assert value == pytest.approx(0.7)
        assert worth == pytest.approx((1 + k * 0.7 * 0.3) / (1 / patients + k * among))
    assert intervals.ratio(hits, np.ones((patients, 1)), np.array([20.0]))[1] == pytest.approx(20)


def test_one_patient_has_no_interval_and_takes_none_from_the_others() -> None:
    scores, labels, patients = case(19, rows=300, unknown=0)
    labels[:, 2] = patients == patients[0]
    found = metrics.summarise(scores, labels, patients, thresholds=0.5).metrics
    for name in ("auroc", "auroc_delong", "sensitivity", "f1"):
        each = found[name]
        assert np.isnan(each.findings.low).tolist() == [False, False, True] and each.averaged == 3, name
        others = metrics.summarise(scores[:, :2], labels[:, :2], patients, thresholds=0.5).metrics[name]
        wider = (each.macro.high - each.macro.low)[0] / (others.macro.high - others.macro.low)[0]
        assert 1 < wider < 20 and each.macro.low[0] > 0, name
    alone = metrics.summarise(scores, labels, np.zeros(300), thresholds=0.5).metrics
    assert all(np.isnan([each.findings.low, each.findings.high]).all() for each in alone.values())
    assert all(np.isnan(each.macro.low) for each in alone.values())


def test_the_mean_of_one_finding_is_that_finding() -> None:
    scores, labels, patients = case(20, findings=2, unknown=0)
    labels[:, 1] = 0
    found = metrics.summarise(scores, labels, patients, thresholds=np.array([0.5, NAN])).metrics
    for name in ("auroc", "auroc_delong", "ap", "f1", "sensitivity"):
        assert found[name].macro.low[0] == found[name].findings.low[0], name


@pytest.mark.parametrize("clustered", [False, True])
def test_intervals_hold_the_truth_as_often_as_they_promise(clustered: bool) -> None:
    """Where percentiles of the same resamples do not. `benchmarks/coverage.py` asks about everything."""
    from scipy.stats import norm

    chance, images, often = np.random.default_rng(8), 100, 150
    truths = {"auroc": (0.75, 0.9, 0.955), "ap": (0.446, 0.736, 0.871), "sensitivity": (0.8, 0.9, 0.95)}
    patients = np.repeat(np.arange(50), 2) if clustered else np.arange(images)
    apart = np.repeat(np.sqrt(2) * norm.ppf(truths["auroc"]), often)
    labels = np.repeat([1.0, 0.0], [20, 80])[:, None] * np.ones(len(apart))
    own, each = (chance.normal(size=labels.shape) for _ in range(2))
    thresholds = apart - np.repeat(norm.ppf(truths["sensitivity"]), often)
    scores = np.sqrt(0.5) * (own[patients] + each) + apart * labels
    found = metrics.bootstrap(scores, labels, patients, thresholds=thresholds, resamples=150)
    for name, truth in truths.items():
        true, limits = np.repeat(truth, often), found[name].interval()
        low, high = np.nanquantile(found[name].resampled, [0.025, 0.975], axis=0)
        held, usual = (np.mean((a <= true) & (true <= b)) for a, b in ((limits.low, limits.high), (low, high)))
        assert 0.93 < held < 0.985, name
        assert name == "ap" or usual < 0.92, name


def test_probabilities_of_one_finding_may_have_one_dimension() -> None:
    scores, labels, patients = case(21, findings=1, unknown=0)
    p = metrics.sigmoid(scores)
    flat = metrics.bootstrap(scores[:, 0], labels[:, 0], patients, probabilities=p[:, 0], resamples=9)["brier"]
    assert np.array_equal(
        flat.resampled, metrics.bootstrap(scores, labels, patients, probabilities=p, resamples=9)["brier"].resampled
    )
    with pytest.raises(ValueError, match=r"\(5, 1\) and labels \(200, 1\)"):
        metrics.bootstrap(scores[:, 0], labels[:, 0], probabilities=p[:5, 0])


def test_holm_multiplies_and_never_falls() -> None:
    adjusted = metrics.holm(np.array([0.01, NAN, 0.04, 0.03, 0.5]))
    assert adjusted == pytest.approx([0.04, NAN, 0.09, 0.09, 0.5], nan_ok=True)
    assert metrics.holm(np.array([])).shape == (0,)


# --- calibration ----------------------------------------------------------------------------------------------------


def test_brier_agrees_with_sklearn() -> None:
    scores, labels, _ = case(13)
    probabilities = metrics.sigmoid(scores)
    for f, value in enumerate(metrics.brier(probabilities, labels)):
        known = ~np.isnan(labels[:, f])
        assert value == pytest.approx(sklearn.brier_score_loss(labels[known, f], probabilities[known, f]))
    assert np.isnan(metrics.brier(np.array([0.5]), np.array([NAN])))
    with pytest.raises(ValueError, match=r"A probability is 1.5"):
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
        ([1.0, 2.0], [1.0, 1.0], "only one class"),
        ([1.0], [NAN], "only one class"),
        ([3.0, -2.0, 1.0], [1.0, 0.0, 1.0], "separates"),
        ([-3.0, 2.0], [1.0, 0.0], "no higher"),
        ([0.0, 0.0], [1.0, 0.0], "no higher"),
        ([INF, -INF], [1.0, 0.0], "only one class"),
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


# --- tables ---------------------------------------------------------------------------------------------------------


def test_a_subgroup_is_summed_up_as_if_it_were_all() -> None:
    scores, labels, patients = case(15, rows=400)
    sex = np.where(np.arange(400) % 5 == 0, "", np.where(patients % 2, "F", "M"))
    weights = np.random.default_rng(0).random(400)
    options = {"thresholds": 0.5, "probabilities": metrics.sigmoid(scores), "weights": weights, "resamples": 50}
    groups = metrics.summarise_groups(sex, scores, labels, patients, **options)
    assert list(groups) == ["F", "M", "unknown"]
    rows = sex == "F"
    own = {**options, "probabilities": metrics.sigmoid(scores)[rows], "weights": weights[rows]}
    alone = metrics.summarise(scores[rows], labels[rows], patients[rows], **own)
    assert groups["F"].n.tolist() == (~np.isnan(labels[rows])).sum(axis=0).tolist()
    assert groups["F"].positives.tolist() == (labels[rows] == 1).sum(axis=0).tolist()
    assert groups["F"].patients == len(np.unique(patients[rows]))
    for name, estimate in alone.metrics.items():
        assert np.array_equal(estimate.findings.low, groups["F"].metrics[name].findings.low)
    assert set(alone.metrics) == {"auroc", "auroc_delong", "ap", "brier", *thresholds.RATES}


def test_a_summary_of_one_row_or_none_is_all_undefined() -> None:
    for rows in (0, 1):
        found = metrics.summarise(np.ones((rows, 2)), np.ones((rows, 2)), thresholds=0.5, resamples=5)
        assert found.n.tolist() == [rows] * 2 and found.metrics["auroc"].averaged == 0
        for name in ("auroc", "auroc_delong", "ap", "specificity"):
            assert np.isnan(found.metrics[name].findings.value).all()
            assert np.isnan(found.metrics[name].macro.low).all()


def test_holm_in_a_comparison_counts_the_findings_and_not_their_mean() -> None:
    scores, labels, patients = case(16)
    found = metrics.compare_scores(scores, -scores, labels, patients, resamples=100)["ap"]
    assert found.adjusted[:3] == pytest.approx(metrics.holm(found.p[:3])) and found.adjusted[3] == found.p[3]


# --- classes --------------------------------------------------------------------------------------------------------


def test_classes_agree_with_sklearn() -> None:
    chance = np.random.default_rng(17)
    classes = chance.integers(0, 4, 300).astype(float)
    probabilities = multiclass.softmax(chance.normal(size=(300, 4)) + 1.5 * np.eye(4)[classes.astype(int)])
    classes[::10] = NAN
    known = ~np.isnan(classes)
    assert multiclass.accuracy(probabilities, classes) == pytest.approx(
        sklearn.accuracy_score(classes[known], probabilities[known].argmax(axis=1))
    )
    one = metrics.macro_mean(metrics.auroc(probabilities, multiclass.one_versus_rest(classes, 4))).mean
    peer = sklearn.roc_auc_score(classes[known], probabilities[known], multi_class="ovr")
    assert one == pytest.approx(peer, abs=1e-12)


def test_the_temperature_of_classes_is_found_or_one() -> None:
    chance = np.random.default_rng(18)
    logits = chance.normal(0, 2, (5000, 3))
    classes = np.array([chance.choice(3, p=row) for row in multiclass.softmax(logits)], float)
    assert multiclass.temperature(logits * 3, classes) == (pytest.approx(3, rel=0.05), "")
    assert multiclass.temperature(np.eye(3) * 5, np.arange(3.0)) == (1.0, "the true class always scores highest")
    assert multiclass.temperature(-np.eye(3), np.arange(3.0))[0] == 1
    assert multiclass.temperature(np.ones((2, 3)), np.array([NAN, NAN]))[0] == 1
    assert np.isnan(multiclass.accuracy(np.ones((2, 3)), np.array([NAN, NAN])))
    with pytest.raises(ValueError, match="Classes hold 3"):
        multiclass.accuracy(np.ones((1, 3)), np.array([3]))


# --- real predictions -----------------------------------------------------------------------------------------------


@pytest.mark.skipif(not REAL, reason="RIBCAGE_REAL_DATA names no folder of real data")
def test_published_aurocs_of_real_predictions_are_met_to_the_last_digit() -> None:
    from ribcage.data import datasets
    from ribcage.data.findings import canonical

    root = Path(str(REAL)) / "nih"
    predictions = pd.read_csv(root / "jrzech_densenet121_predictions.csv.gz", dtype=str)
    published = pd.read_csv(root / "jrzech_densenet121_aurocs.csv", dtype=str)
    index = datasets.index("nih", root)
    stems = index.table["path"].map(lambda path: Path(path).stem)  # some lie here as JPEG
    wanted = predictions["Image Index"].str.removesuffix(".png")
    rows = pd.Series(np.arange(len(stems)), index=stems)[wanted].to_numpy()
    findings = [canonical(name, "nih") for name in published["label"]]
    labels = index.table.iloc[rows][findings].to_numpy(float)
    scores = predictions[[f"prob_{name}" for name in published["label"]]].to_numpy().astype(float)
    values = metrics.auroc(scores, labels)
    assert values == pytest.approx(published["auc"].to_numpy().astype(float), abs=1e-12, rel=0)
    assert metrics.macro_mean(values) == (pytest.approx(0.838267, abs=5e-7), 14)
    assert rank_scores(scores, labels)[0].ends[-1] == 22_433


@pytest.mark.parametrize("positives", [20, 100])
def test_a_threshold_for_a_sensitivity_is_expected_to_find_less_of_few(positives: int) -> None:
    """The k-th highest of n uniform scores leaves k / (n + 1) above it, k = ceil(.95 n): docs/evaluation.md says so."""
    random = np.random.default_rng(0)
    scores = np.concatenate([random.random((positives, 400)), np.zeros((5, 400))])
    labels = np.repeat([1.0, 0.0], [positives, 5])[:, None] * np.ones(400)
    reached = 1 - metrics.choose_thresholds(
        scores, labels, "sensitivity", 0.95
    )  # of new positives, which are uniform, too
    assert reached.mean() == pytest.approx(np.ceil(0.95 * positives) / (positives + 1), abs=0.01)


def test_a_change_of_brier_is_paired_and_of_patients() -> None:
    random = np.random.default_rng(0)
    labels = (random.random((60, 2)) < 0.3).astype(float)
    labels[:5, 1] = np.nan
    before, after = random.random((2, 60, 2))
    found = metrics.brier_change(after, before, labels)
    assert found.value == pytest.approx(metrics.brier(after, labels) - metrics.brier(before, labels))
    each = (after[:, 0] - labels[:, 0]) ** 2 - (before[:, 0] - labels[:, 0]) ** 2
    assert found.error[0] == pytest.approx(each.std(ddof=1) / np.sqrt(60))  # of independent images: the usual one
    twice = [np.repeat(table, 2, axis=0) for table in (after, before, labels)]
    pairs = metrics.brier_change(*twice, np.repeat(np.arange(60), 2))
    assert pairs.error[0] == pytest.approx(found.error[0])  # copies of a patient tell nothing new
    assert np.isnan(metrics.brier_change(after, before, labels, np.zeros(60, int)).low).all()


def test_a_temperature_of_the_same_population_is_seldom_said_to_do_harm() -> None:
    """More than 1 % worse is what chance alone gives in 18 % of tests of 100 images; beyond its interval 5 % at most."""
    random = np.random.default_rng(0)
    logits = random.normal(-1.5, 1.2, (100, 400))
    labels = (random.random(logits.shape) < metrics.sigmoid(logits)).astype(float)
    after, before = metrics.sigmoid(logits), metrics.sigmoid(1.3 * logits)
    found = metrics.brier_change(after, before, labels)
    assert (found.value > 0.01 * metrics.brier(before, labels)).mean() > 0.1
    assert (found.low > 0).mean() < 0.05


@pytest.mark.parametrize(
    ("few", "has"), [(summaries.FEWEST_FOR_MEAN_PRECISION - 1, False), (summaries.FEWEST_FOR_MEAN_PRECISION, True)]
)
def test_the_mean_precision_of_few_positives_has_no_interval(few: int, has: bool) -> None:
    labels = np.zeros((600, 2))
    labels[:few, 0], labels[:300, 1] = 1, 1
    scores = np.random.default_rng(0).normal(size=(600, 2)) + labels
    found = metrics.summarise(scores, labels, resamples=50).metrics["ap"]
    assert np.isfinite(found.findings.low).all() and np.isfinite(found.macro.value).all()
    assert np.isfinite(found.macro.low).all() == has
