"""Thresholds: the best of all by each rule, the rates at them, and unknown rules."""

import re

import numpy as np
import pytest
from scores import INF, NAN, case
from sklearn import metrics as sklearn

from ribcage import metrics
from ribcage.metrics import (
    calibration,
)
from ribcage.metrics.definitions import metrics_of

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
            "mcc": sklearn.matthews_corrcoef(y, called, sample_weight=w) if 0 < y.mean() < 1 else NAN,
        }
        assert {name: found[name][f] for name in peers} == pytest.approx(peers, nan_ok=True)
    assert tuple(found) == metrics_of("threshold")


def test_rates_without_a_denominator_are_nan() -> None:
    found = metrics.rates(metrics.confusion_counts(np.array([0.1, 0.2]), np.array([0.0, 0.0]), 0.5))
    assert [name for name in found if not np.isnan(found[name][0])] == ["specificity", "npv", "accuracy"]
    found = metrics.rates(metrics.confusion_counts(np.array([0.1, 0.2]), np.array([0.0, 1.0]), NAN))
    assert np.isnan(list(found.values())).all()


def every_threshold(scores: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    levels = np.append(np.unique(scores), scores.max() + 1)
    found = [metrics.rates(metrics.confusion_counts(scores, labels, level)) for level in levels]
    return levels, {name: np.array([rates[name][0] for rates in found]) for name in metrics_of("threshold")}


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
    with pytest.raises(ValueError, match=r"'midpoint' .*probabilities"):
        metrics.choose_thresholds(np.array([-1.0, 2.0]), np.array([0.0, 1.0]), "midpoint")


@pytest.mark.parametrize("scores", [[1.1, 0.7, 0.3, 0.2], [0.9, 0.7, 0.3, -0.1]])
def test_one_score_that_is_no_probability_is_enough_to_refuse_the_midpoint(scores: list[float]) -> None:
    with pytest.raises(ValueError, match="midpoint"):
        metrics.choose_thresholds(np.array(scores), np.array([1.0, 0.0, 1.0, 0.0]), "midpoint")


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


def test_thresholds_of_one_class_are_nan_and_unknown_rules_are_refused() -> None:
    assert np.isnan(metrics.choose_thresholds(np.array([0.1, 0.2]), np.array([1.0, 1.0])))
    assert np.isnan(metrics.choose_thresholds(np.array([INF, 0.2]), np.array([0.0, 1.0]), "specificity", 1.0))
    with pytest.raises(ValueError, match=r"'yuden'.*youden, midpoint, f1"):
        metrics.choose_thresholds(np.array([0.1]), np.array([1.0]), "yuden")
    with pytest.raises(ValueError, match="between 0 and 1"):
        metrics.choose_thresholds(np.array([0.1]), np.array([1.0]), "sensitivity", 95)


@pytest.mark.parametrize("least", [-0.1, 1.1])
def test_a_least_rate_that_cannot_be_is_refused(least: float) -> None:
    with pytest.raises(ValueError, match=re.escape(f"{least:g}")):
        metrics.choose_thresholds(np.array([0.1, 0.9]), np.array([0.0, 1.0]), "sensitivity", least)


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


def test_three_of_five_equal_weights_are_60_percent_however_sums_round() -> None:
    weights = np.full(6, 0.7)  # their sums are .6 less a rounding
    scores, labels = np.array([5.0, 4.0, 3.0, 2.0, 1.0, 2.5]), np.array([1.0, 1, 1, 1, 1, 0])
    assert metrics.choose_thresholds(scores, labels, "sensitivity", 0.6, weights) == 3
