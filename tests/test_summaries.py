"""Summaries: the numbers of a report of all images, of subgroups and of two models."""

import numpy as np
import pytest
from scores import NAN, case

from ribcage import metrics
from ribcage.metrics.definitions import load_metric, metrics_of

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


def test_nothing_is_certain_because_all_of_five_are_right() -> None:
    labels = np.repeat([1.0, 0.0], [5, 45])
    found = metrics.summarise(labels, labels, thresholds=0.5, probabilities=labels).metrics
    lows = {name: each.findings.low[0] for name, each in found.items()}
    assert lows["sensitivity"] == pytest.approx(0.5655, abs=1e-4) and lows["ap"] == lows["sensitivity"]
    assert 0.7 < lows["auroc"] < 0.85 and lows["auroc"] == lows["auroc_delong"]
    assert {each.findings.high[0] for name, each in found.items() if name != "brier"} == {1.0}
    assert found["brier"].findings.high[0] > 0.01


def test_images_of_one_patient_are_worth_a_patient() -> None:
    labels, owners = np.repeat([1.0, 0.0], [5, 45]), np.arange(50)
    once = metrics.summarise(labels, labels, owners, thresholds=0.5).metrics
    often = metrics.summarise(*(np.repeat(each, 4) for each in (labels, labels, owners)), thresholds=0.5).metrics
    for name in ("auroc", "ap", "sensitivity", "specificity", "f1", "accuracy"):
        assert often[name].findings.low == pytest.approx(once[name].findings.low, abs=1e-9), name


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


def test_the_word_unknown_and_no_value_are_one_subgroup() -> None:
    scores, labels, patients = case(15, rows=400)
    where = np.where(np.arange(400) % 3 == 0, "", np.where(np.arange(400) % 3 == 1, "unknown", "A"))
    groups = metrics.summarise_groups(where, scores, labels, patients, resamples=2)
    assert list(groups) == ["A", "unknown"]
    assert groups["unknown"].n.tolist() == (~np.isnan(labels[where != "A"])).sum(axis=0).tolist()


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
    assert set(alone.metrics) == {"auroc", "auroc_delong", "ap", "brier", *metrics_of("threshold")}


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


@pytest.mark.parametrize(
    ("few", "has"), [(load_metric("ap").mean_from - 1, False), (load_metric("ap").mean_from, True)]
)
def test_the_mean_precision_of_few_positives_has_no_interval(few: int, has: bool) -> None:
    labels = np.zeros((600, 2))
    labels[:few, 0], labels[:300, 1] = 1, 1
    scores = np.random.default_rng(0).normal(size=(600, 2)) + labels
    found = metrics.summarise(scores, labels, resamples=50).metrics["ap"]
    assert np.isfinite(found.findings.low).all() and np.isfinite(found.macro.value).all()
    assert np.isfinite(found.macro.low).all() == has
    weak = np.random.default_rng(1).normal(size=labels.shape)
    apart = metrics.compare_scores(scores, weak, labels, resamples=50)["ap"]
    assert np.isfinite(apart.interval.low).tolist() == [True, True, has] and np.isfinite(apart.p).all()


def test_the_level_and_the_weights_are_those_asked_for_everywhere() -> None:
    scores, labels, patients = case(22, rows=300)
    weights = np.random.default_rng(22).random(300)
    others, options = scores + np.random.default_rng(23).normal(size=scores.shape), {"resamples": 50}
    usual, narrow = (
        metrics.compare_scores(scores, others, labels, patients, level=level, **options)["auroc"].interval
        for level in (0.95, 0.5)
    )
    assert ((narrow.high - narrow.low) < 0.5 * (usual.high - usual.low)).all()  # .674 against 1.96; the mean, too
    (group,) = metrics.summarise_groups(np.full(300, "F"), scores, labels, patients, level=0.5, **options).values()
    alone = metrics.summarise(scores, labels, patients, level=0.5, **options)
    assert np.array_equal(group.metrics["auroc"].findings.low, alone.metrics["auroc"].findings.low)
    found = metrics.compare_scores(scores, others, labels, patients, weights=weights, **options)
    one, two = (metrics.auroc(each, labels, weights) for each in (scores, others))
    for name in ("auroc", "auroc_delong"):
        assert found[name].interval.value[:-1] == pytest.approx(one - two, abs=1e-12), name
    weighted = metrics.summarise(scores, labels, patients, weights=weights, **options).metrics["auroc_delong"]
    assert weighted.findings.value == pytest.approx(one, abs=1e-12)


def test_the_mean_of_rates_in_a_comparison_is_over_the_findings_that_are_rated() -> None:
    scores, labels, patients = case(24, rows=300)
    at, rated = (np.full(3, 0.5), np.full(3, 0.6)), np.array([True, False, True])
    found = metrics.compare_scores(scores, scores, labels, patients, at=at, rated=rated, resamples=9)
    values = found["sensitivity"].interval.value
    assert values[3] == pytest.approx(values[[0, 2]].mean()) and values[1] != values[3]


def test_a_finding_without_positives_does_not_take_the_interval_of_the_mean() -> None:
    fewest = load_metric("ap").mean_from
    labels = np.zeros((600, 3))
    labels[:fewest, 0], labels[:300, 1] = 1, 1
    scores = np.random.default_rng(0).normal(size=labels.shape) + labels
    found = metrics.summarise(scores, labels, resamples=50).metrics["ap"]
    assert found.averaged == 2 and np.isfinite(found.macro.low).all()
